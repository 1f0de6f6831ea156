# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""World-model checkpoints as their authors publish them, read without loading their weights or running their pickles.

`vjepa2-ac-vitg.pt` (`facebookresearch/vjepa2`) is a training state with `encoder`, `predictor`, their optimiser and
more; the keys carry the prefixes of the wrappers they were trained in. NORA-1.5 keeps the encoder and saves its predictor
alone, as safetensors.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # the exception that torch.load raises; nothing is unpickled here

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..repo_files.stored_tensors import FLOAT_DTYPES, StoredTensor, read_header

_DTYPE_NAMES = {dtype: name for name, dtype in FLOAT_DTYPES.items()}
# Of DistributedDataParallel, of vjepa2's multi-sequence wrapper, and of torch.compile, in any order.
_WRAPPER_PREFIXES = re.compile(r"^(?:(?:module|backbone|_orig_mod)\.)+")
# Sinusoidal positions of the model before rotary ones; the released code ignores them, too.
_UNUSED_ENCODER_TENSORS = ("pos_embed",)


def read_released_world_model(file: Path) -> dict[str, dict[str, StoredTensor]]:
    """
    Where the tensors of a published checkpoint lie, by part and by name without wrapper prefixes.

    Args:
        file (`Path`): A training state of `facebookresearch/vjepa2` (`.pt`), or a predictor as safetensors.

    Returns:
        `{"encoder": {...}, "predictor": {...}}`, or `{"predictor": {...}}` of safetensors.

    Raises:
        OSError: There is no such file.
        ValueError: The file is damaged, holds more than tensors and numbers, lacks a part, or holds a tensor twice.
    """
    with open(file, "rb") as stream:
        is_zip = stream.read(2) == b"PK"
    if not is_zip or file.suffix == ".safetensors":
        return {"predictor": _without_prefixes(read_header(file), file)}
    try:
        # Fake tensors have no values: they only know where in the file these lie.
        with FakeTensorMode():
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors and numbers. Opening it could run any code, so it is refused. Download the file "
            f"from its authors again. torch says: {str(error).splitlines()[0]}"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"{file} is truncated or corrupted: {str(error).splitlines()[0]} Download it again."
        ) from error
    parts = {}
    for part in ("encoder", "predictor"):
        if not isinstance(content, Mapping) or not isinstance(content.get(part), Mapping):
            found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(
                f"{file} has no {part!r}, expected the training state that facebookresearch/vjepa2 publishes as "
                f"vjepa2-ac-vitg.pt. Found: {found}."
            )
        tensors = {name: _stored(file, name, tensor) for name, tensor in content[part].items()}
        parts[part] = _without_prefixes(tensors, file)
    return parts


def _stored(file: Path, name: str, tensor: torch.Tensor) -> StoredTensor:
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in _DTYPE_NAMES or not tensor.is_contiguous():
        kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise ValueError(f"{file} holds {name!r} as {kind}, expected a contiguous tensor of {sorted(FLOAT_DTYPES)}.")
    # Documented in torch's serialization semantics for torch.load under FakeTensorMode.
    start = tensor.untyped_storage()._checkpoint_offset + tensor.storage_offset() * tensor.element_size()
    return StoredTensor(
        file=file, dtype=_DTYPE_NAMES[tensor.dtype], shape=tuple(tensor.shape), start=start, end=start + tensor.nbytes
    )


def _without_prefixes(tensors: Mapping[str, StoredTensor], file: Path) -> dict[str, StoredTensor]:
    renamed = {_WRAPPER_PREFIXES.sub("", name): tensor for name, tensor in tensors.items()}
    if len(renamed) != len(tensors):
        twice = sorted(
            name for name in tensors if _WRAPPER_PREFIXES.match(name) and _WRAPPER_PREFIXES.sub("", name) in tensors
        )
        raise ValueError(f"{file} holds some tensors twice, with and without a wrapper's prefix: {twice[:5]}.")
    return renamed


def native_encoder_tensors(tensors: Mapping[str, StoredTensor]) -> tuple[dict[str, StoredTensor], list[str]]:
    """
    The encoder under the names of transformers' V-JEPA 2, with the fused query, key and value taken apart.

    Returns:
        `(dict[str, StoredTensor], list[str])`: tensors by native name, and what was left out with the reason.
    """
    native, dropped = {}, []
    for name, tensor in tensors.items():
        if name in _UNUSED_ENCODER_TENSORS:
            dropped.append(f"{name} of the encoder, whose positions are rotary")
            continue
        name = re.sub(r"^blocks\.", "layer.", name).replace(".attn.", ".attention.")
        name = re.sub(r"^patch_embed\.", "embeddings.patch_embeddings.", name)
        name = f"encoder.{re.sub(r'^norm.', 'layernorm.', name)}"
        if ".qkv." in name and tensor.shape[0] % 3 == 0:
            third = tensor.num_bytes // 3
            for index, part in enumerate(("query", "key", "value")):
                native[name.replace(".qkv.", f".{part}.")] = dataclasses.replace(
                    tensor,
                    shape=(tensor.shape[0] // 3, *tensor.shape[1:]),
                    start=tensor.start + index * third,
                    end=tensor.start + (index + 1) * third,
                )
        else:
            native[name] = tensor
    return native, dropped


__all__ = ["native_encoder_tensors", "read_released_world_model"]
