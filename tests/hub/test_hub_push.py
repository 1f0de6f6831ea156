# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pushes of folders: what is sent, what is refused, what happens when the Hub fails, on the test Hub."""

import importlib.util
import io
import json
from pathlib import Path

import pyarrow
import pytest
from huggingface_hub import HfApi, snapshot_download
from pyarrow import parquet

from helpers.paths import EXAMPLES
from helpers.preference_records import make_record
from helpers.small_demonstrations import write_demonstrations
from nora15_hf.commands import main
from nora15_hf.hub import Artefact, find_artefact, plan_push, push_folder

WEIGHTS = b"\x02\0\0\0\0\0\0\0{}" + bytes(20_000)
POLICY = {
    "config.json": b'{"model_type": "nora15"}',
    "processor_config.json": b'{"processor_class": "Nora15Processor"}',
    "scheduler/scheduler_config.json": b"{}",
    "action_codec/bpe_tokenizer/tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "README.md": b"---\nlicense: apache-2.0\n---\n# Card\n",
}
SHARDS = {
    "model-00001-of-00002.safetensors": WEIGHTS + b"1",
    "model-00002-of-00002.safetensors": WEIGHTS + b"2",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
}
STATE = (
    "checkpoint-5/optimizer.pt",
    "_latents/cache.json",
    "training_args.bin",
    "run.json",
    ".cache/x",
    "runs/events",
    "__pycache__/m.pyc",
)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture
def policy(tmp_path) -> Path:
    return write(tmp_path / "policy", POLICY)


@pytest.fixture
def waits(monkeypatch):
    """The client's pauses between attempts are left out."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def parquet_file(*rows: int) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"row": rows}), buffer)
    return buffer.getvalue()


RECORD = json.dumps(make_record().to_json()).encode()


def files_of(hub, repo: str, **options) -> dict[str, bytes]:
    return {path: content for path, content in hub.files(repo, **options).items() if path != ".gitattributes"}


def test_a_folder_becomes_a_repo_in_one_commit(hub, policy):
    write(policy, dict.fromkeys(STATE, b"\x80 state of a training"))
    commit = push_folder(policy, "arm", private=True)
    assert files_of(hub, "robots/arm") == POLICY
    assert hub.commit_titles("robots/arm") == ["initial commit", "Upload policy"]
    assert hub.state.repos["model", "robots/arm"].private
    assert push_folder(policy, "arm").oid == commit.oid, "nothing has changed, no commit"


def test_shards_replace_a_single_file_and_the_other_way_round(hub, policy):
    push_folder(policy, "arm")
    HfApi().upload_file(
        path_or_fileobj=WEIGHTS, path_in_repo="adapter/adapter_model.safetensors", repo_id="robots/arm"
    )
    (policy / "model.safetensors").unlink()
    write(policy, SHARDS)
    push_folder(policy, "arm")
    sharded = files_of(hub, "robots/arm")
    assert "model.safetensors" not in sharded
    assert sharded.keys() >= SHARDS.keys()
    for shard in SHARDS:
        (policy / shard).unlink()
    write(policy, {"model.safetensors": WEIGHTS})
    push_folder(policy, "arm")
    assert files_of(hub, "robots/arm") == POLICY | {"adapter/adapter_model.safetensors": WEIGHTS}


def test_data_files_of_an_earlier_push_do_not_stay_among_the_new_ones(hub, tmp_path):
    rows = {
        "preferences.json": RECORD,
        "data/train-00000-of-00002.parquet": parquet_file(0),
        "data/train-00001-of-00002.parquet": parquet_file(1),
    }
    push_folder(write(tmp_path / "old", rows), "pairs")
    new = {"preferences.json": RECORD, "data/train-00000-of-00001.parquet": parquet_file(2)}
    push_folder(write(tmp_path / "new", new), "pairs")
    found = files_of(hub, "robots/pairs", repo_type="dataset")
    assert [path for path in found if path.startswith("data/")] == ["data/train-00000-of-00001.parquet"]


def test_demonstrations_are_tagged_with_their_format(hub, tmp_path):
    for lengths in ((3,), (4, 5)):
        commit = push_folder(write_demonstrations(tmp_path / str(len(lengths)), lengths), "demonstrations")
        repo = hub.state.repos["dataset", "robots/demonstrations"]
        assert repo.tags == {"v3.0": commit.oid}


def test_a_branch_is_made_when_missing(hub, policy):
    push_folder(policy, "arm", revision="experiment")
    assert files_of(hub, "robots/arm", revision="experiment") == POLICY
    assert files_of(hub, "robots/arm") == {}


@pytest.mark.parametrize(
    ("files", "artefact"),
    [
        ({"config.json": b'{"model_type": "nora15"}'}, Artefact.POLICY),
        ({"config.json": b'{"model_type": "vjepa2_ac"}'}, Artefact.WORLD_MODEL),
        ({"adapter_config.json": b"{}"}, Artefact.ADAPTER),
        ({"processor_config.json": b"{}"}, Artefact.PROCESSOR),
        ({"processor_config.json": b'{"min_token": -3}'}, Artefact.ACTION_CODEC),
        ({"scheduler_config.json": b"{}"}, Artefact.SCHEDULER),
        ({"preferences.json": b"{}"}, Artefact.PREFERENCES),
        ({"meta/info.json": b"{}"}, Artefact.DEMONSTRATIONS),
    ],
)
def test_artefacts_are_told_from_their_files(tmp_path, files, artefact):
    assert find_artefact(write(tmp_path, files)) is artefact


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pytorch_model.bin": b"\x80"}, r"pytorch_model\.bin.*type that is not published"),
        ({"deep/policy.pkl": b"\x80"}, r"deep/policy\.pkl"),
        ({"notes.md": b"token: hf_" + b"a" * 34}, r"notes\.md contains what looks like an access token"),
        ({"norm_stats.json": b'"SECRET-WITHOUT-PREFIX"'}, "access token"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../outside.safetensors"}}'},
            "not in the same folder",
        ),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "model-2.safetensors"}}'}, "not in the same folder"),
        ({"model.safetensors.index.json": b"{}"}, "has no weight_map"),
        ({"model.safetensors": WEIGHTS[:5]}, r"model\.safetensors is truncated or corrupted"),
        ({"action_codec/processor_config.json": b"{"}, r"processor_config\.json is damaged .*nobody could load it"),
        ({"tables/rows.parquet": b"PAR1 half a table"}, r"rows\.parquet is damaged"),
        ({"meta/info.json": b'{"codebase_version": "v3.0"}'}, r"info\.json lacks fps"),
        ({"preferences.json": b"{}"}, r"preferences\.json: the keys .* are missing"),
        ({"config.json": b"{"}, "is not valid JSON"),
        ({"config.json": b"[]"}, "expected a JSON object"),
        ({"config.json": b'{"model_type": "llama"}'}, "contains no artefact of this package"),
    ],
)
def test_what_is_not_published(policy, monkeypatch, files, message):
    monkeypatch.setenv("HF_TOKEN", "SECRET-WITHOUT-PREFIX")
    with pytest.raises(ValueError, match=message) as raised:
        plan_push(write(policy, files), "arm")
    assert "hf_aaa" not in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_links_that_lead_out_of_the_folder_are_refused(policy, tmp_path):
    write(tmp_path, {"secret.json": b"{}"})
    (policy / "extra.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match="leads out of"):
        plan_push(policy, "arm")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(NotADirectoryError, match="missing"):
        plan_push(tmp_path / "missing", "arm")


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("lfs_upload", {"status": 503}),
        ("lfs_upload", {"lose_request": True}),
        ("lfs_batch", {"status": 500, "times": 2}),
        ("preupload", {"status": 429, "retry_after": 1}),
    ],
)
def test_a_push_survives(hub, policy, waits, route, fault):
    planned = hub.fail(route, **fault)
    push_folder(policy, "arm")
    assert planned.hits == planned.times
    assert files_of(hub, "robots/arm") == POLICY


@pytest.mark.parametrize(
    ("route", "fault", "reason"),
    [
        ("commit", {"status": 500}, "500"),
        ("commit", {"status": 409}, "409"),
        ("commit", {"status": 429, "retry_after": 1}, "429"),
        ("commit", {"lose_request": True}, "disconnected"),
        ("create_repo", {"status": 503}, "503"),
        ("info", {"status": 503}, "503"),
        ("lfs_upload", {"status": 503, "times": 99}, "503"),
        ("lfs_upload", {"corrupt": True}, "XAmzContentSHA256Mismatch"),
        ("lfs_verify", {"status": 400}, "made to fail"),
    ],
)
def test_a_push_that_fails_is_one_error_that_leaves_nothing_and_can_be_repeated(
    hub, policy, waits, route, fault, reason
):
    HfApi().create_repo("arm")
    planned = hub.fail(route, **fault)
    with pytest.raises(ConnectionError, match=reason) as raised:
        push_folder(policy, "arm")
    assert "Run the same command again" in str(raised.value)
    assert hub.token not in str(raised.value)
    assert files_of(hub, "robots/arm") == {}
    planned.times = 0
    sent = sum(request.route == "lfs_upload" and request.status == 200 for request in hub.requests)
    push_folder(policy, "arm")
    assert files_of(hub, "robots/arm") == POLICY
    uploads = [request for request in hub.requests if request.route == "lfs_upload" and request.status == 200]
    assert len(uploads) == 1, "weights that have arrived are not sent twice"
    assert sent <= 1


def test_a_lost_answer_to_the_commit_does_no_harm(hub, policy):
    hub.fail("commit", lose_answer=True)
    with pytest.raises(ConnectionError):
        push_folder(policy, "arm")
    push_folder(policy, "arm")
    assert files_of(hub, "robots/arm") == POLICY
    assert hub.commit_titles("robots/arm") == ["initial commit", "Upload policy"], "the second push is recognised"


def test_a_commit_of_someone_else_in_between_is_not_overwritten(hub, policy, monkeypatch):
    real = HfApi.repo_info

    def then_someone_commits(api, repo_id, **options):
        info = real(api, repo_id, **options)
        monkeypatch.setattr(HfApi, "repo_info", real)
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id=repo_id)
        return info

    monkeypatch.setattr(HfApi, "repo_info", then_someone_commits)
    with pytest.raises(ConnectionError, match="A commit has happened since"):
        push_folder(policy, "arm")
    push_folder(policy, "arm")
    assert files_of(hub, "robots/arm") == POLICY | {"theirs.txt": b"theirs"}


def test_without_rights_the_reason_is_told(hub, policy):
    with pytest.raises(ConnectionError, match="rights to write"):
        push_folder(policy, "robots/arm", token=hub.read_token)
    with pytest.raises(ConnectionError, match="Invalid username or password"):
        push_folder(policy, "robots/arm", token=False)


def test_the_command_lists_and_sends(hub, policy, capsys):
    assert main(["push", str(policy), "robots/arm", "--dry-run"]) == 0
    listing = capsys.readouterr().out
    assert "model repo robots/arm (policy)" in listing
    assert "model.safetensors" in listing
    assert "20.0 kB" in listing
    assert hub.requests == []
    assert main(["push", str(policy), "robots/arm", "--private", "--revision", "try", "--message", "First"]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.url}/robots/arm/commit/")
    assert hub.commit_titles("robots/arm", revision="try") == ["initial commit", "First"]
    assert Path(snapshot_download("robots/arm", revision="try"), "model.safetensors").read_bytes() == WEIGHTS
    (policy / "model.pt").write_bytes(b"\x80")
    assert main(["push", str(policy), "robots/arm"]) == 2
    assert "model.pt" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(hub, policy, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", interrupt)
    assert main(["push", str(policy), "robots/arm"]) == 130
    assert "interrupted; run it again" in capsys.readouterr().err
    assert files_of(hub, "robots/arm") == {}


def test_code_comes_along_on_request(hub, policy):
    push_folder(policy, "arm", with_code=True)
    found = hub.files("robots/arm")
    assert {"modeling_nora15.py", "configuration_nora15.py", "processing_nora15.py"} <= found.keys()
    assert json.loads(found["config.json"])["auto_map"]["AutoModel"] == "modeling_nora15.Nora15ForActionPrediction"
    assert json.loads((policy / "config.json").read_text()) == {"model_type": "nora15"}, "the folder stays as it is"


def test_code_of_an_artefact_without_code_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a LoRA adapter is read without code of its own"):
        plan_push(write(tmp_path, {"adapter_config.json": b"{}"}), "arm", with_code=True)


def test_the_client_with_xet_fails_clearly_on_a_hub_without(hub, policy, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    with pytest.raises(ConnectionError, match="Run the same command again"):
        push_folder(policy, "arm")
    assert files_of(hub, "robots/arm") == {}


def test_the_example_pushes_all_artefacts_of_a_folder(hub, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("push_to_hub", EXAMPLES / "push_to_hub.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    write(tmp_path / "policy-sft", POLICY | {"README.md": b"---\nbase_model: policy-base\n---\n# Card\n"})
    write(tmp_path / "preferences", {"preferences.json": RECORD, "data/train-00000-of-00001.parquet": parquet_file(0)})
    write(tmp_path / "report", {"index.html": b""})
    # Where a quickstart keeps what it needs to be resumed.
    write(tmp_path / ".quickstart", {"preferences.json": b"{}", "rollouts-sft.npz": b"PK"})
    arguments = ["--folder", str(tmp_path), "--namespace", "robots"]
    example.main([*arguments, "--dry_run", "true"])
    assert hub.requests == []
    example.main([*arguments, "--private", "true"])
    assert set(hub.state.repos) == {("model", "robots/policy-sft"), ("dataset", "robots/preferences")}
    assert capsys.readouterr().out.count("robots/policy-sft (policy)") == 2
    with pytest.raises(SystemExit, match="2"):
        example.main(["--folder", str(tmp_path / "report"), "--namespace", "robots"])
    assert "contains no folder with an artefact" in capsys.readouterr().err
