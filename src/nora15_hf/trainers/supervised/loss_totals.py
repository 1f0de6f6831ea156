# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses averaged over the whole batch of all processes, as if one process had seen it."""

import torch

from ...nora15 import Nora15Output

PARTS = ("lm_loss", "flow_loss")


def count_targets(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Supervised tokens and unmasked action steps of a batch of [`PolicyCollator`], `(2,)` float32 on its device."""
    device = inputs["input_ids"].device
    zero = torch.zeros((), device=device)
    tokens = (inputs["labels"][:, 1:] != -100).sum() if "labels" in inputs else zero
    steps = inputs["action_mask"].sum() if "actions" in inputs else zero
    return torch.stack([tokens, steps]).float()


def weigh_parts(
    outputs: Nora15Output, inputs: dict[str, torch.Tensor], totals: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """
    A batch's share of the token loss and of the flow loss over a larger batch; the shares of its parts add up to it.

    A mean per process would give the tokens of a process with few of them more weight.

    Args:
        outputs ([`Nora15Output`]): Of the batch.
        inputs (`dict[str, torch.Tensor]`): The batch.
        totals (`torch.Tensor` of shape `(2,)`): `count_targets` of the larger batch.

    Returns:
        Two scalars, None for a part that was not computed.
    """
    shares = count_targets(inputs) / totals.clamp(min=1)
    return tuple(
        None if (part := outputs.get(name)) is None else part * share
        for name, share in zip(PARTS, shares, strict=True)
    )


def add_parts(parts: tuple[torch.Tensor | None, ...], flow_loss_weight: float) -> torch.Tensor:
    """`lm_loss + flow_loss_weight * flow_loss` of the parts that were computed."""
    weighted = [part * weight for part, weight in zip(parts, (1.0, flow_loss_weight), strict=True) if part is not None]
    return torch.stack(weighted).sum()


__all__ = ["PARTS", "add_parts", "count_targets", "weigh_parts"]
