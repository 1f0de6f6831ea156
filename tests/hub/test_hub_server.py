# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The test Hub against the real client: what it accepts, refuses and lets go wrong."""

import threading
import warnings
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from helpers.hub_server import Fault, HubServer

LARGE = bytes(range(256)) * 200
FILES = {
    "config.json": b"{}\n",
    "model.safetensors": LARGE,
    "empty.txt": b"",
    "scheduler/scheduler_config.json": b"{}",
    "a/b/c/deep file.txt": b"deep",
    "README.md": b"---\nlicense: apache-2.0\n---\n# Card\n",
}


@pytest.fixture
def waits(monkeypatch):
    """The client's pauses between attempts, recorded instead of waited for."""
    recorded = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", recorded.append)
    return recorded


@pytest.fixture
def repo(hub) -> str:
    return HfApi().create_repo("robot").repo_id


def push(repo: str, files: dict[str, bytes] = FILES, **options):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return HfApi().create_commit(repo, operations, commit_message="Upload", **options)


def pulled(repo: str, **options) -> dict[str, bytes]:
    folder = Path(snapshot_download(repo, **options))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".gitattributes"
    }


def test_what_is_pushed_comes_back(hub, repo):
    info = push(repo)
    assert repo == "robots/robot"
    assert info.oid == HfApi().repo_info(repo).sha
    assert pulled(repo) == FILES
    listed = {entry.path: entry for entry in HfApi().list_repo_tree(repo, recursive=True)}
    assert listed["model.safetensors"].lfs.size == len(LARGE)
    assert listed["config.json"].lfs is None
    assert {"a", "a/b", "a/b/c"} < set(listed), "folders are listed, over several pages"
    assert [entry.path for entry in HfApi().list_repo_tree(repo, "scheduler")] == ["scheduler/scheduler_config.json"]


def test_a_folder_is_pushed_and_files_are_deleted(hub, repo, tmp_path):
    for path, content in FILES.items():
        (tmp_path / "folder" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(content)
    HfApi().upload_folder(repo_id=repo, folder_path=tmp_path / "folder")
    HfApi().create_commit(repo, [CommitOperationDelete("a/"), CommitOperationDelete("empty.txt")], commit_message="-")
    assert sorted(pulled(repo)) == ["README.md", "config.json", "model.safetensors", "scheduler/scheduler_config.json"]


def test_unchanged_files_are_neither_uploaded_nor_committed_again(hub, repo):
    first = push(repo)
    uploads = sum(request.route == "lfs_upload" for request in hub.requests)
    assert push(repo).oid == first.oid
    assert uploads == sum(request.route == "lfs_upload" for request in hub.requests) == 1


def test_revisions(hub, repo):
    first = push(repo)
    HfApi().create_tag(repo, tag="v1")
    HfApi().create_branch(repo, branch="experiment/two")
    push(repo, {"config.json": b'{"changed": true}'}, revision="experiment/two")
    assert pulled(repo, revision="v1")["config.json"] == b"{}\n"
    assert pulled(repo, revision=first.oid)["config.json"] == b"{}\n"
    assert pulled(repo, revision="experiment/two")["config.json"] == b'{"changed": true}'
    references = HfApi().list_repo_refs(repo)
    assert {branch.name for branch in references.branches} == {"main", "experiment/two"}
    assert [tag.name for tag in references.tags] == ["v1"]
    assert [commit.title for commit in HfApi().list_repo_commits(repo)] == ["Upload", "initial commit"]
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(repo, "config.json", revision="v2")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(repo, "missing.json")
    with pytest.raises(HfHubHTTPError, match="commits go on top of branches"):
        push(repo, {"config.json": b"1"}, revision="v1")


def test_a_commit_on_an_old_parent_is_refused(hub, repo):
    old = HfApi().repo_info(repo).sha
    push(repo)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        push(repo, {"config.json": b"1"}, parent_commit=old)
    assert hub.files(repo)["config.json"] == FILES["config.json"]


def test_who_may_do_what(hub):
    HfApi().create_repo("secret", private=True)
    push("robots/secret")
    assert HfApi().whoami()["name"] == "robots"
    assert pulled("robots/secret", token=hub.read_token) == FILES
    for token in (hub.other_token, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi().repo_info("robots/secret", token=token)
    with pytest.raises(HfHubHTTPError, match="rights to write"):
        push("robots/secret", {"config.json": b"1"}, token=hub.read_token)
    with pytest.raises(HfHubHTTPError, match="rights to write"):
        HfApi().create_repo("robots/another", token=hub.other_token)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi().whoami(token="hf_wrong")


def test_the_token_stays_on_the_hub(hub, repo):
    push(repo)
    pulled(repo)
    at_storage = [request for request in hub.requests if request.route in ("storage", "lfs_upload")]
    assert len(at_storage) == 2
    assert not any(request.with_authorization for request in at_storage)


def test_cards_are_checked(hub, repo):
    with pytest.raises(ValueError, match="Invalid metadata"):
        push(repo, {"README.md": b"---\nlicense: [\n---\n"})
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        push(repo, {"README.md": b"# No metadata\n"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        push(repo, FILES)


@pytest.mark.parametrize(
    ("route", "fault", "expected_wait"),
    [
        ("preupload", {"status": 503}, 1),
        ("lfs_batch", {"status": 500}, 1),
        ("lfs_upload", {"status": 502}, 1),
        ("lfs_upload", {"lose_request": True}, 1),
        ("lfs_upload", {"lose_answer": True}, 1),
        ("lfs_verify", {"status": 504}, 1),
        ("preupload", {"status": 429, "retry_after": 7}, 8),
    ],
)
def test_uploads_survive(hub, repo, waits, route, fault, expected_wait):
    planned = hub.fail(route, **fault)
    push(repo)
    assert planned.hits == 1
    assert expected_wait in waits
    assert hub.files(repo) == FILES | {".gitattributes": hub.files(repo)[".gitattributes"]}


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("resolve", {"status": 503, "method": "HEAD"}),
        ("resolve", {"status": 429, "retry_after": 1, "method": "HEAD"}),
        ("storage", {"status": 429}),
        ("storage", {"lose_request": True}),
        ("storage", {"cut_after": 10_000}),
        ("storage", {"cut_after": 0}),
        ("tree", {"status": 503}),
    ],
)
def test_downloads_survive(hub, repo, waits, route, fault):
    push(repo)
    planned = hub.fail(route, **fault)
    assert pulled(repo) == FILES
    assert planned.hits == 1


@pytest.mark.parametrize(
    ("route", "fault", "error"),
    [
        ("info", {"status": 503}, LocalEntryNotFoundError),
        ("resolve", {"lose_request": True, "method": "HEAD"}, httpx.RemoteProtocolError),
        ("storage", {"status": 500}, HfHubHTTPError),
    ],
)
def test_what_the_client_does_not_try_twice_is_one_error_and_the_next_call_succeeds(hub, repo, route, fault, error):
    push(repo)
    hub.fail(route, **fault)
    with pytest.raises(error):
        pulled(repo, max_workers=1)
    assert pulled(repo) == FILES


def test_an_interrupted_download_is_resumed_where_it_stopped(hub, repo, waits, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1_000)
    push(repo)
    hub.fail("storage", cut_after=20_000)
    assert Path(hf_hub_download(repo, "model.safetensors")).read_bytes() == LARGE
    ranges = [request.byte_range for request in hub.requests if request.route == "storage"]
    assert len(ranges) == 2
    assert ranges[0] is None
    assert ranges[1] == "bytes=20000-"


@pytest.mark.parametrize("fault", [{"cut_after": 10}, {"lose_request": True}, {"status": 500}])
def test_a_download_that_never_succeeds_leaves_nothing_in_the_cache(hub, repo, waits, tmp_path, fault):
    push(repo)
    planned = hub.fail("storage", times=99, **fault)
    with pytest.raises((httpx.HTTPError, HfHubHTTPError)):
        pulled(repo, cache_dir=tmp_path, max_workers=1)
    assert not list(tmp_path.rglob("*.incomplete"))
    assert not any(path.stat().st_size > 1000 for path in tmp_path.rglob("blobs/*"))
    planned.times = 0
    assert pulled(repo, cache_dir=tmp_path) == FILES


def test_a_slow_hub_is_a_timeout(hub, repo, waits, monkeypatch):
    push(repo)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 2)
    slow = hub.fail("storage", until=threading.Event())
    assert Path(hf_hub_download(repo, "model.safetensors")).read_bytes() == LARGE
    assert slow.hits == 1
    slow.until.set()


def test_a_damaged_upload_is_refused_and_leaves_no_commit(hub, repo, waits):
    hub.fail("lfs_upload", corrupt=True)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'model\.safetensors'"):
        push(repo)
    assert hub.commit_titles(repo) == ["initial commit"]
    push(repo)
    assert pulled(repo) == FILES


def test_a_damaged_download_is_found_by_the_checksums(hub, repo):
    push(repo)
    hub.fail("storage", corrupt=True)
    pulled(repo)
    assert [mismatch["path"] for mismatch in HfApi().verify_repo_checksums(repo).mismatches] == ["model.safetensors"]


def test_unknown_faults_are_refused():
    with pytest.raises(ValueError, match="route='comit' is unknown"):
        Fault("comit")


def test_servers_do_not_share_anything(hub, repo):
    with HubServer() as other:
        assert other.url != hub.url
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=other.url, token=other.token).repo_info(repo)
