# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Nothing from a repo runs, leaves its folder or takes a token along; dependencies are listed where they are audited."""

import ast
import configparser
import functools
import gc
import json
import logging
import re
import shutil
from pathlib import Path

import huggingface_hub
import psutil
import pytest
import torch
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoModel, AutoProcessor

import nora15_hf
from helpers.paths import ROOT
from nora15_hf import Nora15ForActionPrediction
from nora15_hf.commands import main
from nora15_hf.data import LeRobotDataset
from nora15_hf.hub import AuthorFacts, push_folder, write_card
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.repo_files.checkpoint import Checkpoint
from nora15_hf.trainers import (
    EncoderPretrainingConfig,
    FlowDPOConfig,
    Nora15SFTConfig,
    WorldModelTrainingConfig,
)
from nora15_hf.trainers.resume import find_checkpoint
from nora15_hf.vjepa2_ac.presets import tiny_world_model

SOURCES = [*Path(nora15_hf.__file__).parent.rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
SOURCES += (ROOT / "benchmarks").rglob("*.py")


@functools.cache
def tree(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    """Every call of a function of this (dotted) name."""
    found = []
    for path in SOURCES:
        for node in tree(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
                found.append((path, node))
    return found


@pytest.mark.slow
def test_pickles_are_opened_for_conversion_only_and_as_weights_only():
    for path, call in calls("torch.load"):
        assert path.parts[-2:] == ("vjepa2_ac", "released_world_model.py"), path
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("weights_only") == "True", f"{path}, line {call.lineno}"


def test_nothing_else_that_could_run_content_is_used():
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in SOURCES:
        for node in tree(path):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names}
                # The exception of a refused pickle, to be caught.
                imported = {getattr(node, "module", None)} if names != {"UnpicklingError"} else set()
                assert not (names | imported) & modules, f"{path}, line {node.lineno}"
            assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle"), path
    for name in ("eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        assert calls(name) == []


@pytest.fixture(params=["policy", "world model"])
def sharded(request, tmp_path):
    """A model's class and a folder with its shards."""
    model = tiny_policy()[0] if request.param == "policy" else tiny_world_model()[0]
    model.save_pretrained(tmp_path / "model", max_shard_size="1MB")
    return type(model), tmp_path / "model"


@pytest.mark.parametrize("where", ["../stolen.safetensors", "/tmp/stolen.safetensors", r"..\stolen.safetensors"])
def test_shards_outside_of_the_folder_are_not_read(sharded, where):
    model_class, folder = sharded
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    (shard, *_) = sorted(set(content["weight_map"].values()))
    shutil.move(folder / shard, folder.parent / "stolen.safetensors")
    content["weight_map"] = {name: where if file == shard else file for name, file in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lead out of its folder"):
        model_class.from_pretrained(folder)
    if model_class is Nora15ForActionPrediction:
        with pytest.raises(ValueError, match="lead out of its folder"):
            len(Checkpoint(folder).tensors)


def test_repos_with_paths_that_lead_out_write_nothing(hub, sharded, tmp_path):
    model_class, folder = sharded
    index = folder / "model.safetensors.index.json"
    index.write_text(re.sub(r"model-00001-of-\d+", "../../../escaped", index.read_text()))
    HfApi().upload_folder(repo_id=HfApi().create_repo("bad").repo_id, folder_path=folder)
    with pytest.raises((ValueError, OSError)):
        model_class.from_pretrained("robots/bad")
    assert not list(tmp_path.rglob("escaped*"))


def test_datasets_do_not_lead_out_of_their_folder(hub, tmp_path):
    info = {"codebase_version": "v3.0", "data_path": "../../{chunk_index}/{file_index}.parquet"}
    info |= {"fps": 10, "features": {}, "total_episodes": 0, "total_frames": 0, "chunks_size": 1000}
    (tmp_path / "bad/meta").mkdir(parents=True)
    (tmp_path / "bad/meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="leaves the dataset's folder"):
        push_folder(tmp_path / "bad", "bad")
    repo = HfApi().create_repo("bad", repo_type="dataset").repo_id
    HfApi().upload_folder(repo_id=repo, repo_type="dataset", folder_path=tmp_path / "bad")
    with pytest.raises(ValueError, match="leaves the dataset's folder"):
        LeRobotDataset("robots/bad")


@pytest.mark.parametrize("make", [tiny_policy, tiny_world_model])
def test_weights_in_a_pickle_are_not_loaded(hub, tmp_path, monkeypatch, make):
    model = make()[0]
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "model/pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("a pickle was opened"))
    HfApi().upload_folder(repo_id=HfApi().create_repo("bad").repo_id, folder_path=tmp_path / "model")
    for source in (tmp_path / "model", "robots/bad"):
        with pytest.raises(OSError, match=r"safetensors"):
            AutoModel.from_pretrained(source)


@pytest.mark.slow
def test_the_token_is_written_nowhere(hub, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    policy, processor = tiny_policy()
    for part in (policy, processor):
        part.save_pretrained(tmp_path / "policy")
    write_card(tmp_path / "policy", AuthorFacts(repo_id="robots/arm"))
    find_checkpoint(Nora15SFTConfig(output_dir=str(tmp_path / "policy"), use_cpu=True), {})
    push_folder(tmp_path / "policy", "arm", private=True, token=hub.token)
    policy.push_to_hub("second", token=hub.token)
    AutoModel.from_pretrained("robots/arm", token=hub.token)
    AutoProcessor.from_pretrained("robots/arm", token=hub.token)
    main(["doctor", "robots/arm"])
    hub.fail("storage", corrupt=True, times=99)
    with pytest.raises(OSError, match="damaged twice") as raised:
        AutoModel.from_pretrained("robots/second", token=hub.token, cache_dir=tmp_path / "second")
    assert hub.token not in str(raised.value)
    for failing in (lambda: push_folder(tmp_path / "policy", "other/arm"), lambda: LeRobotDataset("robots/none")):
        with pytest.raises(OSError) as raised:
            failing()
        assert hub.token not in str(raised.value)
    printed = capfd.readouterr()
    assert "robots/arm" in printed.out, "the report"
    assert hub.token not in printed.out + printed.err + caplog.text
    published = [*hub.files("robots/arm").values(), *hub.files("robots/second").values()]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not any(hub.token.encode() in content for content in [*published, *written])


@pytest.mark.parametrize(
    "config", [Nora15SFTConfig, FlowDPOConfig, WorldModelTrainingConfig, EncoderPretrainingConfig]
)
def test_a_token_among_the_training_arguments_is_refused(tmp_path, config):
    with pytest.raises(ValueError, match="HF_TOKEN") as raised:
        config(output_dir=str(tmp_path), hub_token="hf_secret", use_cpu=True, bf16=False)
    assert "hf_secret" not in str(raised.value)


@pytest.mark.slow
def test_two_hundred_pushes_and_pulls_leave_nothing_open(hub, tmp_path):
    folder = tmp_path / "scheduler"
    folder.mkdir()
    process = psutil.Process()

    def push_and_pull(number: int) -> None:
        (folder / "scheduler_config.json").write_text(json.dumps({"number": number}))
        push_folder(folder, "tiny")
        # The same place every time, since the cache keeps all versions.
        pulled = Path(snapshot_download("robots/tiny", local_dir=tmp_path / "pulled"))
        assert json.loads((pulled / "scheduler_config.json").read_text()) == {"number": number}

    for number in range(10):
        push_and_pull(number)
    hub.requests.clear()
    gc.collect()
    files, threads, memory = process.num_fds(), process.num_threads(), process.memory_info().rss
    for number in range(10, 200):
        push_and_pull(number)
    hub.requests.clear()
    gc.collect()
    assert process.num_fds() <= files + 2
    assert process.num_threads() <= threads + 2
    assert process.memory_info().rss - memory < 30 * 2**20


def test_every_dependency_is_in_the_audited_list():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"] + "".join(setup["options.extras_require"].values())
    names = {re.match(r"[\w.-]+", line)[0] for line in required.split("\n") if line.strip()}
    listed = set(re.findall(r"^\| `([\w.-]+)` \|", (ROOT / "SECURITY.md").read_text(), flags=re.M))
    assert listed == names
    pinned = {line.split("==")[0] for line in (ROOT / "requirements/constraints.txt").read_text().splitlines()}
    normalised = {name.lower().replace("_", "-") for name in pinned}
    assert {name.lower().replace("_", "-") for name in names} <= normalised


def test_the_client_is_one_that_refuses_paths_out_of_the_cache():
    with pytest.raises(ValueError, match=r"\.\."):
        huggingface_hub.hf_hub_download("robots/arm", "../../escaped.json")
