# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which action of which predicted chunk is executed at a step."""

import numpy as np


class ChunkBuffer:
    r"""
    The chunks that cover the present step of an episode.

    Without `decay`, the newest chunk's actions are executed in order until the next chunk is due (receding horizon).
    With it, all chunks that cover a step are averaged (temporal ensembling as in ACT, arXiv 2304.13705):

        a_t = sum_i w_i * chunk_i[t - start_i] / sum_i w_i,    w_i = exp(-decay * i),    i = 0 for the oldest chunk

    over the chunks with `start_i <= t < start_i + H`. ACT uses 0.01; a larger value trusts older plans more, 0 is the
    plain mean, a negative value trusts newer plans more.

    Args:
        n_action_steps (`int`): A new chunk is due after so many steps.
        decay (`float`, *optional*): See above.
    """

    def __init__(self, n_action_steps: int, decay: float | None):
        self.n_action_steps = n_action_steps
        self.decay = decay
        self.clear()

    def clear(self) -> None:
        """Back to the first step of an episode, without chunks."""
        self._step = self._due = 0
        self._chunks: list[tuple[int, np.ndarray]] = []

    @property
    def needs_chunk(self) -> bool:
        """Whether a new chunk is due at the present step."""
        return self._step >= self._due

    def add(self, chunk: np.ndarray) -> None:
        """Takes a chunk `(H, A)` that begins at the present step."""
        kept = [] if self.decay is None else self._chunks
        self._chunks = [(start, old) for start, old in kept if self._step < start + len(old)]
        self._chunks.append((self._step, chunk))
        self._due = self._step + self.n_action_steps

    def next_action(self) -> np.ndarray:
        """The action `(A,)` of the present step; the episode then moves on by one step."""
        plans = np.stack(
            [chunk[self._step - start] for start, chunk in self._chunks if self._step < start + len(chunk)]
        )
        self._step += 1
        if len(plans) == 1:
            return plans[0]
        exponent = -self.decay * np.arange(len(plans))
        # Only the ratios count; a large decay of either sign would overflow.
        weights = np.exp(exponent - exponent.max())
        return (weights / weights.sum()) @ plans

    def skip_step(self) -> None:
        """The episode moves on by one step without an action of a chunk; a due chunk stays due."""
        self._step += 1


__all__ = ["ChunkBuffer"]
