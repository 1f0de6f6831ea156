# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What headers of safetensors files tell."""

import pytest
import torch
from safetensors.torch import save_file

from nora15_hf.repo_files.stored_tensors import read_header


@pytest.mark.parametrize("first_bytes", [b"\x80", b"PK"], ids=["pickle", "zip archive"])
def test_a_length_that_reads_like_the_beginning_of_a_pickle(first_bytes, tmp_path):
    """A header's length comes first; lengths are multiples of eight, of which one in 32 begins with the byte of a pickle."""
    file, tensors = tmp_path / "model.safetensors", {"weight": torch.arange(3.0)}
    for shorter in range(160, -256, -8):
        padding = max(0, int.from_bytes(first_bytes, "little") - shorter)
        save_file(tensors, file, metadata={"padding": "x" * padding})
        if file.read_bytes()[: len(first_bytes)] == first_bytes:
            break
    assert file.read_bytes().startswith(first_bytes)
    assert read_header(file)["weight"].shape == (3,)
    file.write_bytes(first_bytes + b"\x03\x04 not a length")
    with pytest.raises(ValueError, match="is a pickle with the name of a safetensors file"):
        read_header(file)
