# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preference rows to a batch for [`FlowDPOTrainer`]."""

import logging
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import ProcessorMixin

from ...nora15.alternative_answers import append_answers
from ...nora15.configuration_nora15 import Nora15Config
from ...preferences.preference_dataset import check_pairs
from ..preference_prompts import prompt_inputs, row_states
from .prefix_cache import PrefixStore

logger = logging.getLogger(__name__)

SIDES = ("chosen", "rejected")
ROW_INDEX = "row_index"
PREFIX_NAME = "prefix_name"
REFERENCE_COLUMNS = ("reference_velocity", "reference_log_probs")


class PreferenceCollator:
    """
    Makes a batch of preference rows, of which it reads `images`, `instruction`, `chosen`, `rejected` and, where they are
    there, `action_mask`, `row_index` and the reference's values, and for a policy that needs one `state`.

    Args:
        processor ([`Nora15Processor`]): makes the prompt and the FAST tokens.
        config ([`Nora15Config`]): of the policy, for the shape of a chunk.
        action_tokens (`bool`, *optional*, defaults to `False`):
            Whether the FAST tokens of both chunks follow the prompt. They spell the whole chunk, also past the end of the
            demonstration: that is what the policy said.

    Attributes:
        prefixes ([`PrefixStore`], *optional*):
            Where rows with `prefix_name` find their prompt's keys and values. Their `images` are not read.

    Returns:
        (of a call) what the processor, or [`PrefixStore.read`], returns for the prompts, with `chosen` and `rejected` (float32 `(B, H, A)`),
        `action_mask` (bool `(B, H)`), `row_index` (int64 `(B,)`), with `action_tokens` also `labels` and `answer_index`
        (1 on the chosen chunk, 2 on the rejected one), and the reference's values (float32, one flat row each).

    Raises:
        ValueError: (of a call) a chunk of another shape, a NaN, or chosen equal to rejected.
    """

    def __init__(self, processor: ProcessorMixin, config: Nora15Config, action_tokens: bool = False):
        self.processor = processor
        self.chunk_shape = (config.chunk_size, config.action_dim)
        self.action_tokens = action_tokens
        self.prefixes: PrefixStore | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pairs = {side: [np.asarray(row[side], dtype=np.float32) for row in rows] for side in SIDES}
        check_pairs(pairs["chosen"], pairs["rejected"], self.chunk_shape)
        all_valid = [True] * self.chunk_shape[0]
        batch = self._cached_prompts(rows) if PREFIX_NAME in rows[0] else prompt_inputs(rows, self.processor)
        if self.action_tokens:
            batch.update(append_answers(batch, self._answers(rows, pairs)))
        batch.update({side: torch.from_numpy(np.stack(pairs[side])) for side in SIDES})
        batch["action_mask"] = torch.tensor([row.get("action_mask", all_valid) for row in rows])
        batch[ROW_INDEX] = torch.tensor([row[ROW_INDEX] for row in rows])
        for name in REFERENCE_COLUMNS:
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch

    def _cached_prompts(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.prefixes.read([row[PREFIX_NAME] for row in rows])
        if self.processor.state_dim is not None:
            batch["state"] = self.processor.normalize_state(**row_states(rows), batch=len(rows))
        return batch

    def _answers(self, rows: list[dict[str, Any]], pairs: dict[str, list[np.ndarray]]) -> list[list[list[int]]]:
        """For each row the token ids of chosen and rejected, each with what closes the assistant's turn."""
        start = self.processor.first_action_token_id
        tokens = {side: self.processor.action_codec.encode(np.stack(pairs[side])) for side in SIDES}
        closings = [self.processor.prompt_ids(row["instruction"], len(row["images"]))[1] for row in rows]
        return [
            [[token + start for token in tokens[side][number]] + closing for side in SIDES]
            for number, closing in enumerate(closings)
        ]


def check_action_tokens(dataset: Dataset, processor: ProcessorMixin, *, name: str) -> None:
    """
    Checks that every chunk of a preference dataset can be spelled in FAST tokens; warns of pairs that are spelled alike.

    Args:
        dataset ([`~datasets.Dataset`]): preference rows.
        processor ([`Nora15Processor`]): of the policy; has the FAST codec.
        name (`str`): how messages call the dataset.

    Raises:
        ValueError: a chunk with values that the codec's vocabulary cannot spell.
    """
    pairs = dataset.select_columns(list(SIDES)).with_format("numpy")[:]
    tokens = {}
    for side in SIDES:
        try:
            tokens[side] = processor.action_codec.encode(pairs[side])
        except ValueError as error:
            raise ValueError(
                f'{name}, column {side!r}: {error} Or drop these rows, or train with objective="flow", which needs no FAST '
                "tokens."
            ) from error
    alike = sum(chosen == rejected for chosen, rejected in zip(*tokens.values(), strict=True))
    if alike:
        logger.warning(
            "%d of the %d pairs in %s have the same FAST tokens for chosen and rejected and cannot be learned from. A "
            "larger min_margin when building the preferences reduces their number.",
            alike,
            len(dataset),
            name,
        )


__all__ = ["PREFIX_NAME", "REFERENCE_COLUMNS", "ROW_INDEX", "SIDES", "PreferenceCollator", "check_action_tokens"]
