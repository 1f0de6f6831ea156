# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Digests are those that published cards and records name, on every machine and in every version."""

from types import SimpleNamespace

import torch

from nora15_hf.cards.dataset_configs import dataset_configs
from nora15_hf.data.dataset_fingerprint import dataset_fingerprint
from nora15_hf.repo_files.fingerprint import digest, file_digest, fingerprint


def test_weights():
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(3, dtype=torch.bfloat16)}
    assert fingerprint(tensors) == "d82afd412c61e07ea93d038ecda129a3"
    assert fingerprint(dict(reversed(tensors.items()))) == fingerprint(tensors)
    for change in ({"b": tensors["b"] + 1}, {"b": tensors["b"].view(3, 2)}, {"b": tensors["b"].double()}):
        assert fingerprint(tensors | change) != fingerprint(tensors)


def test_files_of_a_dataset(tmp_path):
    for path, content in (("data/x.parquet", b"abc"), ("data/y.parquet", b"def"), ("meta/i", b"q")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "README.md").write_text("may change")
    assert dataset_fingerprint(SimpleNamespace(revision=None, root=tmp_path)) == "f4a0c652cbe80bd727073505fc6c7f1c"
    assert dataset_configs(tmp_path, "data/*.parquet")[0]["config_name"] == "data-c2e89481"


def test_digests_of_parts_and_of_a_file(tmp_path):
    assert digest([b"ab", b"c"]) == digest([b"abc"]) != digest([b"abd"])
    assert len(digest([b"abc"], num_bytes=4)) == 8
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file").hex() == digest([b"abc"], num_bytes=64)
