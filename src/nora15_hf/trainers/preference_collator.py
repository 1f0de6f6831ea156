# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preference rows to a batch for [`FlowDPOTrainer`]."""

from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin

from ..nora15.configuration_nora15 import Nora15Config
from ..preferences.preference_dataset import check_pairs


class PreferenceCollator:
    """
    Makes a batch of preference rows, of which it reads `images`, `instruction`, `chosen`, `rejected` and, when it is
    there, `action_mask`.

    Args:
        processor ([`Nora15Processor`]): makes the prompt.
        config ([`Nora15Config`]): of the policy, for the shape of a chunk.

    Returns:
        (of a call) what the processor returns for the prompts, with `chosen` and `rejected` (float32 `(B, H, A)`) and
        `action_mask` (bool `(B, H)`).

    Raises:
        ValueError: (of a call) a chunk of another shape, a NaN, or chosen equal to rejected.
    """

    def __init__(self, processor: ProcessorMixin, config: Nora15Config):
        self.processor = processor
        self.chunk_shape = (config.chunk_size, config.action_dim)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pairs = {side: [np.asarray(row[side], dtype=np.float32) for row in rows] for side in ("chosen", "rejected")}
        check_pairs(pairs["chosen"], pairs["rejected"], self.chunk_shape)
        all_valid = [True] * self.chunk_shape[0]
        batch = self.processor(
            images=[[image.convert("RGB") for image in row["images"]] for row in rows],
            text=[row["instruction"] for row in rows],
            return_tensors="pt",
        )
        return {
            **batch,
            "chosen": torch.from_numpy(np.stack(pairs["chosen"])),
            "rejected": torch.from_numpy(np.stack(pairs["rejected"])),
            "action_mask": torch.tensor([row.get("action_mask", all_valid) for row in rows]),
        }


__all__ = ["PreferenceCollator"]
