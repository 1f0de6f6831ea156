# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The reference's values of preference rows on disk, tied to what they were computed from."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import ProcessorMixin

from ...repo_files.fingerprint import digest
from ...repo_files.written_whole import written_whole
from .preference_collator import SIDES
from .prompt_names import name_prompts


def rows_fingerprint(dataset: Dataset, processor: ProcessorMixin, *, action_tokens: bool) -> str:
    """
    Hexadecimal digest of what a reference reads of preference rows: prompts, chunks, normalised states, and their order.

    Args:
        dataset ([`~datasets.Dataset`]): Preference rows.
        processor ([`Nora15Processor`]): Of the policy.
        action_tokens (`bool`): Whether the FAST tokens of both chunks are read, too.
    """
    pairs = dataset.select_columns(list(SIDES)).with_format("numpy")[:]

    def parts() -> Iterator[bytes | np.ndarray]:
        yield json.dumps([prompt.name for prompt in name_prompts(dataset, processor)]).encode()
        for side in SIDES:
            yield np.ascontiguousarray(pairs[side], dtype=np.float32)
            if action_tokens:
                yield json.dumps(
                    [processor.first_action_token_id, processor.action_codec.encode(pairs[side])]
                ).encode()
        if action_tokens:
            closings = {text: processor.prompt_ids(text)[1] for text in dataset.unique("instruction")}
            yield json.dumps(closings, sort_keys=True).encode()
        if processor.state_dim is not None:
            states = np.array(dataset["state"][:], dtype=np.float32)
            yield processor.normalize_state(states, dataset["dataset_key"][:], len(dataset)).numpy()

    return digest(parts())


def load_reference_values(path: Path, fingerprints: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """
    Reads what [`save_reference_values`] wrote.

    Args:
        path (`Path`): the file.
        fingerprints (`Mapping[str, str]`): of what the values must belong to.

    Returns:
        `dict[str, torch.Tensor]`: one row per row of the dataset.

    Raises:
        ValueError: the values belong to something else; names what differs.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {})["fingerprints"])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Remove it; the values are then computed again.") from error
    differing = [name for name in fingerprints if found.get(name) != fingerprints[name]]
    if differing:
        details = "; ".join(f"{name}: stored {found.get(name)}, now {fingerprints[name]}" for name in differing)
        raise ValueError(
            f"The reference values in {path} were computed for another {', another '.join(differing)} ({details}). Delete "
            "the file, or name another precompute_ref_folder."
        )
    return load_file(path)


def save_reference_values(path: Path, values: Mapping[str, torch.Tensor], fingerprints: Mapping[str, str]) -> None:
    """
    Writes the reference's values, whole or not at all.

    Args:
        path (`Path`): the file, `.safetensors`.
        values (`Mapping[str, torch.Tensor]`): float32, one row per row of the dataset.
        fingerprints (`Mapping[str, str]`): of what they were computed from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        save_file(dict(values), part, metadata={"fingerprints": json.dumps(dict(fingerprints))})


__all__ = ["load_reference_values", "rows_fingerprint", "save_reference_values"]
