# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Several answers to one prompt in one row, for one backbone pass: each sees the prompt and itself, not the others.

`answer_index` `(batch, length)` tells which token belongs to what: 0 on the prompt and on padding, k on answer k.
"""

import torch


def answer_position_ids(
    position_ids: torch.LongTensor, attention_mask: torch.Tensor, answer_index: torch.LongTensor
) -> torch.LongTensor:
    """
    Positions under which every answer begins right behind the prompt.

    Args:
        position_ids (`torch.LongTensor` of shape `(3, batch, length)`): Positions as if the row were one text.
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding.
        answer_index (`torch.LongTensor` of shape `(batch, length)`): See the module.

    Returns:
        `torch.LongTensor` of shape `(3, batch, length)`.
    """
    is_prompt = attention_mask.bool() & (answer_index == 0)
    start = position_ids.masked_fill(~is_prompt, -1).amax((0, 2))[:, None] + 1
    for answer in range(1, int(answer_index.max()) + 1):
        tokens = answer_index == answer
        position_ids = torch.where(tokens, start + tokens.cumsum(-1) - 1, position_ids)
    return position_ids


def answer_attention_mask(
    attention_mask: torch.Tensor, answer_index: torch.LongTensor, dtype: torch.dtype
) -> torch.Tensor:
    """
    Causal mask that hides the answers of a row from one another.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding.
        answer_index (`torch.LongTensor` of shape `(batch, length)`): See the module.
        dtype (`torch.dtype`): Of the attention's scores.

    Returns:
        `torch.Tensor` of shape `(batch, 1, length, length)`: 0 where a token may look, else the smallest number.
    """
    length = answer_index.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=answer_index.device).tril()
    own = (answer_index[:, None, :] == 0) | (answer_index[:, None, :] == answer_index[:, :, None])
    visible = causal & own & attention_mask.bool()[:, None, :]
    # Additive, since eager attention adds the mask to the scores.
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def predicting_columns(attention_mask: torch.Tensor, answer_index: torch.LongTensor) -> torch.LongTensor:
    """
    The column `(batch, length)` whose hidden state predicts each token: the one before it, except that the first token of
    every answer is predicted at the end of the prompt.
    """
    column = torch.arange(answer_index.shape[1], device=answer_index.device).expand_as(answer_index)
    is_prompt = attention_mask.bool() & (answer_index == 0)
    prompt_end = column.masked_fill(~is_prompt, 0).amax(-1, keepdim=True)
    previous = answer_index.roll(1, dims=-1)
    is_first = (answer_index > 0) & (answer_index != previous)
    return torch.where(is_first, prompt_end, (column - 1).clamp(min=0))


__all__ = ["answer_attention_mask", "answer_position_ids", "predicting_columns"]
