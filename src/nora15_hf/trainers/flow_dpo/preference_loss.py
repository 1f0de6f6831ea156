# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses of a preference pair, given how much policy and reference differ on each of its halves."""

import torch
import torch.nn.functional as F


def preference_loss(delta: torch.Tensor, loss_type: str, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """
    The loss of each pair.

    Args:
        delta (`torch.Tensor`): `(B,)`, log-ratio of chosen minus that of rejected, each policy against reference.
        loss_type (`str`):
            `"sigmoid"` (DPO, arXiv 2305.18290), `"robust"` (arXiv 2403.00409), `"hinge"` (SLiC, arXiv 2309.06657) or
            `"ipo"` (arXiv 2310.12036).
        beta (`float`): strength of the preference.
        label_smoothing (`float`, *optional*, defaults to 0.0): share of wrong labels that `"robust"` assumes.

    Returns:
        `torch.Tensor` `(B,)`.
    """
    logits = beta * delta
    match loss_type:
        case "sigmoid":
            return -F.logsigmoid(logits)
        case "robust":
            expected = label_smoothing * F.logsigmoid(-logits) - (1 - label_smoothing) * F.logsigmoid(logits)
            return expected / (1 - 2 * label_smoothing)
        case "hinge":
            return torch.relu(1 - logits)
        case "ipo":
            return (delta - 1 / (2 * beta)) ** 2
        case _:
            raise ValueError(f'loss_type="{loss_type}" must be one of "sigmoid", "robust", "hinge", "ipo".')


def proximal_penalty(rewards: torch.Tensor, bound: float) -> torch.Tensor:
    """
    How far implicit rewards lie outside `[-bound, bound]`, squared.

    A margin can grow while both halves become less likely. This term holds each half near the reference: inside the
    bound it is 0 and without gradient, outside it pulls back.

    Args:
        rewards (`torch.Tensor`): `(B, 2)`, implicit rewards of chosen and rejected.
        bound (`float`): of their absolute values.

    Returns:
        `torch.Tensor` `(B,)`: the mean over both halves.
    """
    return torch.relu(rewards.abs() - bound).square().mean(1)


__all__ = ["preference_loss", "proximal_penalty"]
