# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The Hub's JSON routes that `huggingface_hub` 2 calls, one function each: state and request in, JSON out."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlencode

import yaml

from .repository import Blob, Commit, Repository
from .state import HubError, HubState, User

__all__ = ["API_ROUTES", "TREE_PAGE", "Answer", "Call"]

TREE_PAGE = 5
"""Entries per page of a tree: 1,000 on the Hub, few here, so that every listing is paginated."""

LFS_SUFFIXES = {".safetensors", ".parquet", ".arrow", ".png", ".jpg", ".mp4", ".npz", ".bin", ".pt", ".pkl"}
LFS_SIZE = 10_000


@dataclass(frozen=True)
class Answer:
    """JSON that needs a status or headers of its own."""

    json: Any
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request to a JSON route."""

    state: HubState
    url: str
    storage_url: str
    user: User | None
    query: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def whoami(call: Call) -> dict:
    if call.user is None:
        raise HubError(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
    role = "write" if call.user.can_write else "read"
    return {
        "type": "user",
        "name": call.user.name,
        "fullname": call.user.name,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}},
    }


def create_repo(call: Call) -> dict | Answer:
    wanted = call.json()
    repo_type = wanted.get("type") or "model"
    namespace = wanted.get("organization") or (call.user.name if call.user else "")
    repo_id = f"{namespace}/{wanted['name']}"
    call.state.require_write(call.user, repo_id)
    url = f"{call.url}/{'' if repo_type == 'model' else repo_type + 's/'}{repo_id}"
    with call.state.lock:
        if (repo_type, repo_id) in call.state.repos:
            return Answer({"error": "You already created this repo", "url": url}, HTTPStatus.CONFLICT)
        call.state.repos[repo_type, repo_id] = Repository(repo_type, repo_id, wanted.get("visibility") == "private")
    return {"url": url, "name": repo_id}


def delete_repo(call: Call) -> dict:
    wanted = call.json()
    repo_type = wanted.get("type") or "model"
    repo_id = f"{wanted.get('organization') or call.user.name}/{wanted['name']}"
    call.state.writable(repo_type, repo_id, call.user)
    with call.state.lock:
        del call.state.repos[repo_type, repo_id]
    return {}


def validate_yaml(call: Call) -> dict | Answer:
    parts = call.json()["content"].split("---\n")
    if len(parts) < 3 or parts[0].strip():
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
    try:
        metadata = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        return Answer({"errors": [{"message": str(error)}], "warnings": []}, HTTPStatus.BAD_REQUEST)
    wrong = [key for key in ("tags", "datasets") if not isinstance(metadata.get(key, []), (list, str))]
    if wrong:
        return Answer({"errors": [{"message": f"{wrong} must be lists"}], "warnings": []}, HTTPStatus.BAD_REQUEST)
    return {"errors": [], "warnings": []}


def repo_info(call: Call, repo_type: str, repo_id: str, revision: str = "main") -> dict:
    repo = call.state.readable(repo_type, repo_id, call.user)
    commit = call.state.commit_at(repo, revision)
    return {
        "_id": repo_id,
        "id": repo_id,
        "author": repo_id.split("/")[0],
        "sha": commit.oid,
        "lastModified": _date(commit),
        "createdAt": _date(repo.history(commit)[-1]),
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
    }


def refs(call: Call, repo_type: str, repo_id: str) -> dict:
    repo = call.state.readable(repo_type, repo_id, call.user)
    return {
        "branches": _refs("heads", repo.branches),
        "tags": _refs("tags", repo.tags),
        "converts": [],
        "pullRequests": [],
    }


def commits(call: Call, repo_type: str, repo_id: str, revision: str) -> list:
    repo = call.state.readable(repo_type, repo_id, call.user)
    return [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": _date(commit),
            "authors": [{"user": commit.author}],
        }
        for commit in repo.history(call.state.commit_at(repo, revision))
    ]


def tree(call: Call, repo_type: str, repo_id: str, revision: str, folder: str = "") -> Answer:
    repo = call.state.readable(repo_type, repo_id, call.user)
    commit = call.state.commit_at(repo, revision)
    entries = _entries(commit, folder, recursive=call.query.get("recursive", "").lower() in ("true", "1"))
    if folder and not entries:
        raise HubError(
            HTTPStatus.NOT_FOUND,
            f"{folder} does not exist on {revision!r}",
            "EntryNotFound",
            **{"X-Repo-Commit": commit.oid},
        )
    start = int(call.query.get("cursor", 0))
    headers = {}
    if start + TREE_PAGE < len(entries):
        query = urlencode(call.query | {"cursor": start + TREE_PAGE})
        path = f"/api/{repo_type}s/{repo_id}/tree/{commit.oid}" + (f"/{folder}" if folder else "")
        headers["Link"] = f'<{call.url}{path}?{query}>; rel="next"'
    return Answer(entries[start : start + TREE_PAGE], headers=headers)


def paths_info(call: Call, repo_type: str, repo_id: str, revision: str) -> list:
    repo = call.state.readable(repo_type, repo_id, call.user)
    commit = call.state.commit_at(repo, revision)
    wanted = set(call.json()["paths"]) if call.body.startswith(b"{") else _form_paths(call.body)
    everything = {entry["path"]: entry for entry in _entries(commit, "", recursive=True)}
    return [everything[path] for path in sorted(wanted) if path in everything]


def preupload(call: Call, repo_type: str, repo_id: str, revision: str) -> dict:
    repo = call.state.writable(repo_type, repo_id, call.user)
    present = call.state.commit_at(repo, revision).files
    answers = []
    for file in call.json()["files"]:
        large = PurePosixPath(file["path"]).suffix in LFS_SUFFIXES or file["size"] > LFS_SIZE
        mode = "lfs" if large else "regular"
        known = present.get(file["path"])
        answers.append(
            {
                "path": file["path"],
                "uploadMode": mode,
                "shouldIgnore": False,
                "oid": known.oid if known and known.is_lfs == large else None,
            }
        )
    return {"files": answers}


def lfs_batch(call: Call, prefix: str, repo_id: str) -> dict:
    call.state.writable("dataset" if prefix else "model", repo_id, call.user)
    objects = []
    for wanted in call.json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in call.state.objects:
            answer["actions"] = {
                "upload": {"href": f"{call.storage_url}/upload/{wanted['oid']}?signature=test"},
                "verify": {"href": f"{call.url}/{prefix}{repo_id}.git/info/lfs/objects/verify"},
            }
        objects.append(answer)
    return {"transfer": "basic", "objects": objects}


def lfs_verify(call: Call, prefix: str, repo_id: str) -> dict:
    call.state.writable("dataset" if prefix else "model", repo_id, call.user)
    wanted = call.json()
    stored = call.state.objects.get(wanted["oid"])
    if stored is None or len(stored) != wanted["size"]:
        raise HubError(HTTPStatus.NOT_FOUND, f"object {wanted['oid']} was not uploaded", "EntryNotFound")
    return {}


def commit(call: Call, repo_type: str, repo_id: str, revision: str) -> dict:
    repo = call.state.writable(repo_type, repo_id, call.user)
    lines = [json.loads(line) for line in call.body.splitlines()]
    header = lines[0]["value"]
    with call.state.lock:
        head = call.state.commit_at(repo, revision)
        if revision not in repo.branches:
            raise HubError(HTTPStatus.BAD_REQUEST, f"{revision!r} is no branch: commits go on top of branches.")
        parent = header.get("parentCommit")
        if parent is not None and not head.oid.startswith(parent):
            raise HubError(
                HTTPStatus.PRECONDITION_FAILED, f"A commit has happened since {parent}. Please refresh and try again."
            )
        files = dict(head.files)
        for line in lines[1:]:
            _apply(call.state, files, line["key"], line["value"])
        new = repo.add_commit(revision, files, header["summary"], header.get("description", ""), call.user.name)
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    return {
        "success": True,
        "commitOid": new.oid,
        "commitUrl": f"{call.url}/{prefix}{repo_id}/commit/{new.oid}",
        "hookOutput": "",
    }


def create_branch(call: Call, repo_type: str, repo_id: str, branch: str) -> dict:
    repo = call.state.writable(repo_type, repo_id, call.user)
    start = call.json().get("startingPoint") if call.body else None
    with call.state.lock:
        if branch in repo.branches:
            raise HubError(HTTPStatus.CONFLICT, f"Reference already exists: refs/heads/{branch}")
        repo.branches[branch] = call.state.commit_at(repo, start or "main").oid
    return {}


def delete_branch(call: Call, repo_type: str, repo_id: str, branch: str) -> dict:
    repo = call.state.writable(repo_type, repo_id, call.user)
    with call.state.lock:
        if branch == "main" or repo.branches.pop(branch, None) is None:
            raise HubError(HTTPStatus.NOT_FOUND, f"Invalid branch {branch}", "RevisionNotFound")
    return {}


def create_tag(call: Call, repo_type: str, repo_id: str, revision: str) -> dict:
    repo = call.state.writable(repo_type, repo_id, call.user)
    name = call.json()["tag"]
    with call.state.lock:
        if name in repo.tags:
            raise HubError(HTTPStatus.CONFLICT, f"Reference already exists: refs/tags/{name}")
        repo.tags[name] = call.state.commit_at(repo, revision).oid
    return {}


def delete_tag(call: Call, repo_type: str, repo_id: str, name: str) -> dict:
    repo = call.state.writable(repo_type, repo_id, call.user)
    with call.state.lock:
        if repo.tags.pop(name, None) is None:
            raise HubError(HTTPStatus.NOT_FOUND, f"Invalid tag {name}", "RevisionNotFound")
    return {}


def settings(call: Call, repo_type: str, repo_id: str) -> dict:
    repo = call.state.writable(repo_type, repo_id, call.user)
    repo.private = call.json().get("visibility") == "private"
    return {"private": repo.private}


def _apply(state: HubState, files: dict[str, Blob], operation: str, value: dict) -> None:
    """One line of a commit, on a copy of the tree: a bad line leaves the repo as it was."""
    path = value["path"]
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise HubError(HTTPStatus.BAD_REQUEST, f"Invalid path {path!r}")
    if operation == "file":
        try:
            files[path] = Blob(base64.b64decode(value["content"], validate=True), is_lfs=False)
        except binascii.Error:
            raise HubError(HTTPStatus.BAD_REQUEST, f"{path} is not base64") from None
    elif operation == "lfsFile":
        content = state.objects.get(value["oid"])
        if content is None:
            raise HubError(HTTPStatus.BAD_REQUEST, f"LFS object {value['oid']} of {path} was not uploaded")
        files[path] = Blob(content, is_lfs=True)
    elif operation == "deletedFile":
        if files.pop(path, None) is None:
            raise HubError(HTTPStatus.NOT_FOUND, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    elif operation == "deletedFolder":
        for inside in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            del files[inside]
    else:
        raise HubError(HTTPStatus.BAD_REQUEST, f"Unknown operation {operation!r}")


def _entries(commit: Commit, folder: str, recursive: bool) -> list[dict]:
    """Files and folders below `folder`, as the tree route lists them."""
    prefix = f"{folder.strip('/')}/" if folder else ""
    entries: dict[str, dict] = {}
    for path, blob in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        depth = len(parts) - 1 if recursive else min(1, len(parts) - 1)
        for level in range(1, depth + 1):
            inner = prefix + "/".join(parts[:level])
            entries[inner] = {"type": "directory", "oid": commit.oid, "size": 0, "path": inner}
        if recursive or len(parts) == 1:
            entries[path] = {"type": "file", "oid": blob.git_oid, "size": len(blob.content), "path": path}
            if blob.is_lfs:
                entries[path]["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
    return list(entries.values())


def _form_paths(body: bytes) -> set[str]:
    return set(parse_qs(body.decode())["paths"])


def _refs(kind: str, references: dict[str, str]) -> list[dict]:
    return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in references.items()]


def _date(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


_REPO = r"/api/(model|dataset)s/([\w.-]+/[\w.-]+)"
_GIT = r"/((?:datasets/)?)([\w.-]+/[\w.-]+)\.git/info/lfs/objects"

API_ROUTES: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("GET", "/api/whoami-v2", "whoami", whoami),
    ("POST", "/api/repos/create", "create_repo", create_repo),
    ("DELETE", "/api/repos/delete", "delete_repo", delete_repo),
    ("POST", "/api/validate-yaml", "validate_yaml", validate_yaml),
    ("GET", f"{_REPO}", "info", repo_info),
    ("GET", f"{_REPO}/revision/([^/]+)", "info", repo_info),
    ("GET", f"{_REPO}/refs", "refs", refs),
    ("GET", f"{_REPO}/commits/([^/]+)", "commits", commits),
    ("GET", f"{_REPO}/tree/([^/]+)", "tree", tree),
    ("GET", f"{_REPO}/tree/([^/]+)/(.+)", "tree", tree),
    ("POST", f"{_REPO}/paths-info/([^/]+)", "paths_info", paths_info),
    ("POST", f"{_REPO}/preupload/([^/]+)", "preupload", preupload),
    ("POST", f"{_REPO}/commit/([^/]+)", "commit", commit),
    ("POST", f"{_REPO}/branch/(.+)", "branch", create_branch),
    ("DELETE", f"{_REPO}/branch/(.+)", "branch", delete_branch),
    ("POST", f"{_REPO}/tag/(.+)", "tag", create_tag),
    ("DELETE", f"{_REPO}/tag/(.+)", "tag", delete_tag),
    ("PUT", f"{_REPO}/settings", "settings", settings),
    ("POST", f"{_GIT}/batch", "lfs_batch", lfs_batch),
    ("POST", f"{_GIT}/verify", "lfs_verify", lfs_verify),
)
"""Method, pattern of the path, name for [`Fault`], function; patterns match the whole path, still quoted."""
