# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Downloads whose content is damaged without a change of length: fetched once more or one clear error, never kept."""

import json
import re
import shutil
from collections.abc import Callable
from hashlib import sha1, sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import close_session
from huggingface_hub.utils.sha import git_hash
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor

from helpers.hub_roundtrip import (
    SHARD_SIZE,
    Version,
    dataset_digest,
    demonstrations_digest,
    digest,
    processor_digest,
    weights,
)
from helpers.hub_server import Fault, HubServer
from helpers.released_repos import random_weights, scaled_config, write_weights
from nora15_hf import FastActionTokenizer, Nora15ForActionPrediction, Nora15Processor, VJEPA2ACModel, VJEPA2ACProcessor
from nora15_hf.clips import ClipConventions
from nora15_hf.data import LeRobotDataset
from nora15_hf.hub import push_folder
from nora15_hf.preferences import load_preferences
from nora15_hf.repo_files import verified_download
from nora15_hf.repo_files.checkpoint import Checkpoint
from nora15_hf.repo_files.verified_download import load_verified
from nora15_hf.trainers import load_merged_policy


class Author:
    """A Hub that holds one of everything, and what loads from it."""

    def __init__(self, hub: HubServer, folder: Path):
        self.hub = hub
        made = Version(1, folder)
        for model, processor, name in (
            (made.policy, made.processor, "policy"),
            (made.world_model, made.world_model_processor, "world-model"),
        ):
            for suffix, options in (("", {}), ("-sharded", {"max_shard_size": SHARD_SIZE})):
                model.push_to_hub(name + suffix, **options)
            processor.push_to_hub(name)
        made.adapter.push_to_hub("adapter")
        made.processor.push_to_hub("adapter")
        made.policy.push_to_hub("base")
        ClipConventions.of_dataset(LeRobotDataset(folder / "1" / "demonstrations")).save_pretrained(folder)
        HfApi().upload_file(
            repo_id="robots/world-model", path_in_repo="clips.json", path_or_fileobj=folder / "clips.json"
        )
        for name in ("preferences", "demonstrations"):
            push_folder(folder / "1" / name, name)
        self.released = scaled_config(layers=2, vision_blocks=1, width=64)
        state = random_weights(self.released, torch.float32)
        write_weights(folder / "released", state)
        halves = dict(list(state.items())[::2]), dict(list(state.items())[1::2])
        names = [f"model-{number}-of-2.safetensors" for number in (1, 2)]
        for half, name in zip(halves, names, strict=True):
            (folder / "released-sharded").mkdir(exist_ok=True)
            save_file(half, folder / "released-sharded" / name, metadata={"format": "pt"})
        index = {
            "metadata": {},
            "weight_map": {key: name for half, name in zip(halves, names, strict=True) for key in half},
        }
        (folder / "released-sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
        for name in ("released", "released-sharded"):
            HfApi().upload_folder(repo_id=HfApi().create_repo(name).repo_id, folder_path=folder / name)

    def damage(self, repo: str, file: str, times: int) -> Fault:
        """Lets a file of a repo arrive damaged so many times."""
        repo_type = "dataset" if repo in ("preferences", "demonstrations") else "model"
        commit = self.hub.state.repos[repo_type, f"robots/{repo}"].resolve("main")
        (path,) = [path for path in commit.files if re.fullmatch(file, path)]
        if commit.files[path].is_lfs:
            return self.hub.fail("storage", corrupt=True, times=times, where=commit.files[path].sha256)
        where = rf"/resolve-cache/{repo_type}s/robots/{repo}/\w+/{re.escape(path)}$"
        return self.hub.fail("resolve", corrupt=True, times=times, where=where, method="GET")


def of_model(load: Callable[[str], torch.nn.Module]) -> Callable[[str, Author], str]:
    return lambda repo, author: digest(*weights(load(repo)))


def released(repo: str, author: Author) -> str:
    return digest(*weights(Nora15ForActionPrediction.from_pretrained(repo, config=author.released)))


def tensors(repo: str, author: Author) -> str:
    stored = Checkpoint(repo).tensors
    return digest({name: [sha256(chunk).hexdigest() for chunk in stored[name].chunks()] for name in sorted(stored)})


def merged(repo: str, author: Author) -> str:
    model, processor = load_merged_policy("robots/base", repo)
    return digest(*weights(model), processor_digest(processor))


def processor(load: Callable) -> Callable[[str, Author], str]:
    return lambda repo, author: processor_digest(load(repo))


def codec(repo: str, author: Author) -> str:
    loaded = FastActionTokenizer.from_pretrained(repo, subfolder="action_codec")
    return digest(loaded.encode(np.linspace(-1, 1, 40).reshape(2, 5, 4)))


OWN_POLICY = of_model(Nora15ForActionPrediction.from_pretrained)
OWN_WORLD_MODEL = of_model(VJEPA2ACModel.from_pretrained)
ANY_MODEL = of_model(AutoModel.from_pretrained)
OWN_PROCESSOR = processor(Nora15Processor.from_pretrained)
ANY_PROCESSOR = processor(AutoProcessor.from_pretrained)


def demonstrations(repo: str, author: Author) -> str:
    return demonstrations_digest(LeRobotDataset(repo))


def preferences(repo: str, author: Author) -> str:
    return dataset_digest(load_preferences(repo))


LOADS = {
    "policy": ("policy", r"model\.safetensors", OWN_POLICY),
    "policy, configuration": ("policy", r"config\.json", OWN_POLICY),
    "policy, scheduler": ("policy", r"scheduler/.*", OWN_POLICY),
    "policy, AutoModel": ("policy", r"model\.safetensors", ANY_MODEL),
    "policy, shard": ("policy-sharded", "model-00002-of-.*", OWN_POLICY),
    "policy, index": ("policy-sharded", r".*\.index\.json", OWN_POLICY),
    "policy, shard, AutoModel": ("policy-sharded", "model-00001-of-.*", ANY_MODEL),
    "policy, released": ("released", r"model\.safetensors", released),
    "policy, released shard": ("released-sharded", "model-2-of-2.*", released),
    "tensors for the converter": ("released", r"model\.safetensors", tensors),
    "tensors of a shard for the converter": ("released-sharded", "model-1-of-2.*", tensors),
    "merged adapters": ("adapter", r"adapter_model\.safetensors", merged),
    "processor": ("policy", r"processor_config\.json", OWN_PROCESSOR),
    "processor, statistics": ("policy", r"norm_stats\.json", OWN_PROCESSOR),
    "processor, AutoProcessor": ("policy", r"tokenizer\.json", ANY_PROCESSOR),
    "processor, codec": ("policy", r"action_codec/.*tokenizer\.json", ANY_PROCESSOR),
    "codec alone": ("policy", r"action_codec/processor_config\.json", codec),
    "world model": ("world-model", r"model\.safetensors", OWN_WORLD_MODEL),
    "world model, configuration": ("world-model", r"config\.json", OWN_WORLD_MODEL),
    "world model, AutoModel": ("world-model", r"model\.safetensors", ANY_MODEL),
    "world model, shard": ("world-model-sharded", "model-00002-of-.*", ANY_MODEL),
    "world model, processor": (
        "world-model",
        r"processor_config\.json",
        lambda repo, author: digest(VJEPA2ACProcessor.from_pretrained(repo).to_dict()),
    ),
    "world model, clips": (
        "world-model",
        r"clips\.json",
        lambda repo, author: digest(vars(ClipConventions.from_pretrained(repo))),
    ),
    "demonstrations": ("demonstrations", r"data/.*file-001\.parquet", demonstrations),
    "demonstrations, metadata": ("demonstrations", r"meta/info\.json", demonstrations),
    "preferences": ("preferences", r"data/train-00001.*", preferences),
    "preferences, provenance": ("preferences", r"preferences\.json", preferences),
}


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    with HubServer() as hub, pytest.MonkeyPatch.context() as monkeypatch:
        hub.connect(monkeypatch, tmp_path_factory.mktemp("author"), token=hub.token)
        made = Author(hub, tmp_path_factory.mktemp("made"))
        close_session()
        yield made


@pytest.fixture
def cache(author, monkeypatch, tmp_path) -> Path:
    """The empty cache of a process that is connected to the author's Hub."""
    author.hub.state.faults.clear()
    author.hub.connect(monkeypatch, tmp_path / "hf-home")
    yield tmp_path / "hf-home" / "hub"
    close_session()


def cached(cache: Path) -> dict[str, Path]:
    """The files of all snapshots, after making sure that each has the content it is called by."""
    files = {}
    for path in cache.rglob("snapshots/*/**/*"):
        if path.is_symlink():
            assert path.exists(), f"{path} leads nowhere"
            files["/".join(path.relative_to(cache).parts[3:])] = path
    for blob in cache.rglob("blobs/*"):
        content = blob.read_bytes()
        assert blob.name in (sha256(content).hexdigest(), git_hash(content)), "a damaged file is in the cache"
    return files


@pytest.mark.parametrize("case", LOADS)
@pytest.mark.slow
def test_what_arrives_damaged_is_fetched_once_more(author, cache, case):
    repo, file, load = LOADS[case]
    fault = author.damage(repo, file, times=1)
    found = load(f"robots/{repo}", author)
    assert fault.hits == 1
    assert any(re.fullmatch(file, name) for name in cached(cache))
    shutil.rmtree(cache)
    assert found == load(f"robots/{repo}", author)


@pytest.mark.parametrize("case", LOADS)
@pytest.mark.slow
def test_what_always_arrives_damaged_is_one_error_and_not_kept(author, cache, case):
    repo, file, load = LOADS[case]
    fault = author.damage(repo, file, times=99)
    with pytest.raises(OSError, match="arrived damaged twice") as raised:
        load(f"robots/{repo}", author)
    assert re.search(rf"'{file}'", str(raised.value))
    assert fault.hits == 2
    assert not any(re.fullmatch(file, name) for name in cached(cache))
    author.hub.state.faults.clear()
    load(f"robots/{repo}", author)
    assert any(re.fullmatch(file, name) for name in cached(cache))


@pytest.mark.slow
def test_files_of_the_cache_are_not_read_again(author, cache, monkeypatch):
    loads = list(dict.fromkeys((repo, load) for repo, _, load in LOADS.values()))
    for repo, load in loads:
        load(f"robots/{repo}", author)
    verified_download._intact.clear()
    monkeypatch.setattr(verified_download, "_is_damaged", lambda *arguments: pytest.fail("a file was compared again"))
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        for repo, load in loads:
            load(f"robots/{repo}", author)


def test_a_large_file_is_compared_once(author, cache, monkeypatch):
    compared = []
    compare = verified_download._is_damaged
    monkeypatch.setattr(
        verified_download, "_is_damaged", lambda blob, inode: compared.append(blob.name) or compare(blob, inode)
    )
    AutoModel.from_pretrained("robots/policy")
    assert len(compared) == len(set(compared)) >= 2


def test_a_forced_download_is_compared(author, cache):
    Nora15ForActionPrediction.from_pretrained("robots/policy")
    fault = author.damage("policy", r"model\.safetensors", times=1)
    # Fetched again by each of the steps that ask for it; the first of them gets the damaged one.
    Nora15ForActionPrediction.from_pretrained("robots/policy", force_download=True)
    assert fault.hits == 1
    assert "model.safetensors" in cached(cache)


def test_an_interrupted_load_keeps_nothing_damaged(author, cache):
    author.damage("policy", r"model\.safetensors", times=1)

    def load():
        hf_hub_download("robots/policy", "config.json")
        hf_hub_download("robots/policy", "model.safetensors")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_verified(load, "robots/policy")
    assert set(cached(cache)) == {"config.json"}


FAULTS = {
    "server error": ("storage", {"status": 500}),
    "rate limit": ("storage", {"status": 429, "retry_after": 1}),
    "lost request": ("storage", {"lose_request": True}),
    "cut connection": ("storage", {"cut_after": 1000}),
    "timeout": ("storage", {"delay": 4.0}),
    "damage": ("storage", {"corrupt": True}),
    "damage of a small file": ("resolve", {"corrupt": True, "method": "GET", "where": "/resolve-cache/"}),
    "small file, overloaded": ("resolve", {"status": 503, "method": "HEAD"}),
    "small file, lost request": ("resolve", {"lose_request": True, "method": "HEAD"}),
    "small file, cut connection": ("resolve", {"cut_after": 10, "method": "GET", "where": "/resolve-cache/"}),
    "no information": ("info", {"status": 503}),
    "no list of files": ("tree", {"status": 503}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", ["policy, shard", "processor", "demonstrations", "preferences"])
@pytest.mark.slow
def test_every_fault_ends_in_success_or_one_error(author, cache, monkeypatch, case, fault):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 2)
    repo, _, load = LOADS[case]
    route, options = FAULTS[fault]
    author.hub.fail(route, **options)
    found = told = None
    try:
        found = load(f"robots/{repo}", author)
    except OSError as error:
        told = str(error)
    author.hub.state.faults.clear()
    cached(cache)
    again = load(f"robots/{repo}", author)
    assert found == again or re.search("made to fail|disconnected", told)
    assert cached(cache)


def test_what_auto_classes_read_first_is_fetched_again_on_request(author, cache):
    """`config.json` is read before any class of this package is known."""
    author.damage("policy", r"config\.json", times=1)
    for _ in range(2):
        with pytest.raises(OSError, match="not a valid JSON file"):
            AutoModel.from_pretrained("robots/policy")
    AutoModel.from_pretrained("robots/policy", force_download=True)
    assert "config.json" in cached(cache)


def test_every_revision_loses_the_damaged_file(author, cache):
    first = HfApi().repo_info("robots/policy", token=author.hub.token).sha
    HfApi(token=author.hub.token).create_commit(
        "robots/policy", [CommitOperationAdd("note.txt", b"another revision")], commit_message="Note"
    )
    author.damage("policy", r"model\.safetensors", times=99)

    def load():
        for revision in (first, "main"):
            hf_hub_download("robots/policy", "model.safetensors", revision=revision)

    with pytest.raises(OSError, match="arrived damaged twice"):
        load_verified(load, "robots/policy")
    assert cached(cache) == {}


def test_adapters_of_a_revision_are_merged(author, cache):
    """Of a branch without adapters there is nothing to merge; `main`, where there are, stays as it is for other tests."""
    api = HfApi(token=author.hub.token)
    api.create_branch("robots/adapter", branch="emptied")
    deletion = [CommitOperationDelete("adapter_model.safetensors")]
    api.create_commit("robots/adapter", deletion, commit_message="No adapters", revision="emptied")
    load_merged_policy("robots/base", "robots/adapter", adapter_revision="main")
    with pytest.raises(OSError, match=r"'robots/adapter@emptied' has no adapter_model\.safetensors"):
        load_merged_policy("robots/base", "robots/adapter", adapter_revision="emptied")


def test_errors_that_are_no_damage_stay_as_they_are(author, cache):
    fault = author.hub.fail("storage", status=500, times=99)
    with pytest.raises(HfHubHTTPError):
        load_verified(lambda: hf_hub_download("robots/policy", "model.safetensors"), "robots/policy")
    assert fault.hits == 1


def test_a_mirror_may_announce_other_checksums(author, cache):
    """Plain SHA-1 of the content, or nothing that is a checksum of it."""
    for name, content in (("", b"plain"), ("0" * 32, b"md5 or a version"), ("a" * 40, b"damaged")):
        name = name or sha1(content).hexdigest()
        blob = cache / "models--robots--mirrored" / "blobs" / name

        def load(blob=blob, content=content):
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)

        if content == b"damaged":
            with pytest.raises(OSError, match="arrived damaged twice"):
                load_verified(load, "robots/mirrored")
        else:
            load_verified(load, "robots/mirrored")
        assert blob.exists() == (content != b"damaged")
