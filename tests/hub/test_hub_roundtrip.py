# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Seven artefacts, six ways to the Hub and back: pushed in one process, loaded in fresh ones with an empty cache."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.hub_roundtrip import ARTEFACTS
from helpers.hub_server import HubServer
from helpers.paths import TESTS

pytestmark = pytest.mark.slow

SCRIPT = TESTS / "helpers" / "hub_roundtrip.py"
WAYS = {
    "id": "v2",
    "revision": "v1",
    "private": "v2",
    "sharded": "v2",
    "offline": "v2",
    "interrupted": "v2",
}


def run(hub: HubServer, cache: Path, *arguments: str, **options) -> dict:
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=hub.environment(cache, **options),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-6000:]
    assert hub.token not in finished.stdout + finished.stderr
    (line,) = [line for line in finished.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Expected digests per version, found digests per way, the Hub, and how many requests the offline process made."""
    folder = tmp_path_factory.mktemp("roundtrip")
    with HubServer() as hub:
        for artefact in ARTEFACTS:
            hub.fail("commit", where=f"/{artefact}-interrupted/", lose_request=artefact == "policy", status=503)
        expected = run(hub, folder / "author", "push", str(folder / "made"), token=hub.token)
        # By id last: without a connection, `load_dataset` takes whatever revision it has loaded last.
        ways = ["revision", "sharded", "interrupted", "private=none", f"private={hub.token}", "id"]
        found = run(hub, folder / "reader", "pull", *ways)
        requests = len(hub.requests)
        found["offline"] = run(hub, folder / "reader", "pull", "id", offline=True)["id"]
        yield expected, found, hub, len(hub.requests) - requests


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_round_trip(matrix, artefact, way):
    expected, found, *_ = matrix
    assert found[way][artefact] == expected[WAYS[way]][artefact]


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_versions_differ_and_private_repos_are_closed(matrix, artefact):
    expected, found, *_ = matrix
    assert expected["v1"][artefact] != expected["v2"][artefact]
    assert "Error" in found["private without token"][artefact]


def test_sharded_repos_hold_shards_and_nothing_of_the_single_file_before(matrix):
    *_, hub, _ = matrix
    for repo in ("policy", "world-model"):
        names = {path for path in hub.files(f"robots/{repo}-sharded") if path.startswith("model")}
        assert "model.safetensors" not in names
        assert len(names) >= 3
    for repo, folder in (("demonstrations", "data/"), ("preferences", "data/")):
        assert sum(path.startswith(folder) for path in hub.files(f"robots/{repo}", repo_type="dataset")) == 2


def test_interrupted_pushes_left_no_half_commit(matrix):
    *_, hub, _ = matrix
    assert hub.commit_titles("robots/policy-interrupted") == ["initial commit", "Upload model", "Upload processor"]
    assert hub.commit_titles("robots/preferences-interrupted", repo_type="dataset") == [
        "initial commit",
        "Upload preference dataset",
    ]


def test_offline_means_no_request(matrix):
    assert matrix[-1] == 0
