# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Several answers to one prompt in one row, for one backbone pass: each sees the prompt and itself, not the others.

`answer_index` `(batch, length)` tells which token belongs to what: 0 on the prompt and on padding, k on answer k.
"""

from collections.abc import Mapping, Sequence

import torch


def append_answers(
    prompts: Mapping[str, torch.Tensor], answers: Sequence[Sequence[Sequence[int]]]
) -> dict[str, torch.Tensor]:
    """
    Prompts followed by their answers.

    Args:
        prompts (`Mapping[str, torch.Tensor]`): `input_ids` and `attention_mask` `(batch, length)`, left-padded.
        answers (sequence of rows, each of K answers, each a list of token ids): The same K in every row.

    Returns:
        `dict[str, torch.Tensor]`: `input_ids`, `attention_mask`, `labels` (-100 on prompt and padding) and `answer_index`,
        `(batch, length + the longest answer 1 + ... + the longest answer K)`.
    """
    prompt_ids, prompt_mask = prompts["input_ids"], prompts["attention_mask"]
    widths = [max(map(len, column)) for column in zip(*answers, strict=True)]
    total = prompt_ids.shape[1] + sum(widths)
    input_ids = prompt_ids.new_zeros(len(prompt_ids), total)
    attention_mask, answer_index = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    input_ids[:, : prompt_ids.shape[1]] = prompt_ids
    attention_mask[:, : prompt_ids.shape[1]] = prompt_mask
    for row, row_answers in enumerate(answers):
        start = prompt_ids.shape[1]
        for number, (answer, width) in enumerate(zip(row_answers, widths, strict=True), start=1):
            tokens = slice(start, start + len(answer))
            input_ids[row, tokens] = torch.tensor(answer)
            attention_mask[row, tokens] = 1
            answer_index[row, tokens] = number
            start += width
    labels = torch.where(answer_index > 0, input_ids, -100)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
        "answer_index": answer_index,
    }


def answer_log_probs(token_log_probs: torch.Tensor, answer_index: torch.LongTensor, num_answers: int) -> torch.Tensor:
    """The log-likelihood `(batch, num_answers)` of each answer: the sum over its tokens `(batch, length)`."""
    return torch.stack(
        [token_log_probs.masked_fill(answer_index != k, 0.0).sum(-1) for k in range(1, num_answers + 1)], dim=1
    )


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


__all__ = [
    "answer_attention_mask",
    "answer_log_probs",
    "answer_position_ids",
    "append_answers",
    "predicting_columns",
]
