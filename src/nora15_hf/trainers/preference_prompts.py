# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preference rows as the policy's prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin


def prompt_inputs(rows: Sequence[dict[str, Any]], processor: ProcessorMixin) -> dict[str, torch.Tensor]:
    """
    What the processor returns for the prompts of preference rows.

    Args:
        rows (`Sequence[dict[str, Any]]`): With `images`, `instruction`, and `state` and `dataset_key` where the policy needs
            a state.
        processor ([`Nora15Processor`]): Of the policy.
    """
    return dict(
        processor(
            images=[[image.convert("RGB") for image in row["images"]] for row in rows],
            text=[row["instruction"] for row in rows],
            **(row_states(rows) if processor.needs_state else {}),
        )
    )


def row_states(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """States `(B, S)` of preference rows in physical units, and whose units these are, as the processor takes them."""
    return {
        "state": np.array([row["state"] for row in rows], dtype=np.float32),
        "dataset_key": [row["dataset_key"] for row in rows],
    }


__all__ = ["prompt_inputs", "row_states"]
