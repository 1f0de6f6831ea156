# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policy as a control loop calls it: stateful within an episode, one action per call."""

import contextlib
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ..actions.normalization import select_dataset_key
from ..embodiment.embodiment import Embodiment
from ..embodiment.junctions import CONTROL, STATE_ITEMS, check_junction
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from ..nora15.processing_nora15 import Nora15Processor
from .chunk_buffer import ChunkBuffer
from .chunk_prediction import CameraImages, predict_chunks, prepare_inputs
from .chunk_samplers import FlowSampler, GreedyFastSampler, InvalidChunkError
from .observation import check_observation
from .timing import ControlTiming, Stopwatch, TimingSummary, summarize_timings

# Enough for percentiles; a robot that runs for days must not fill the memory.
REMEMBERED_TIMINGS = 10_000


class Nora15ControlPolicy:
    r"""
    NORA-1.5 in a control loop.

    Call `reset` when an episode begins and `select_action` at every control step. Nothing is carried from one episode
    to the next, and with a `seed` an episode is reproduced exactly.

    Args:
        model ([`Nora15ForActionPrediction`]): The policy; it is put into evaluation mode.
        processor ([`Nora15Processor`]): Its processor.
        dataset_key (`str`, *optional*): Whose units the actions are in; may be omitted when there is only one.
        n_action_steps (`int`, *optional*):
            Steps between two predictions, 1 to the chunk size. Default: the whole chunk is executed; with temporal
            ensembling 1.
        temporal_ensemble_decay (`float`, *optional*):
            Average the chunks that cover a step with weights `exp(-decay * i)`, `i = 0` for the oldest, as in ACT (which
            uses 0.01); see [`ChunkBuffer`]. It needs `n_action_steps` below the chunk size. All dimensions are averaged,
            a gripper's too.
        num_steps (`int`, *optional*): Solver steps of the flow; the model's default otherwise.
        temperature (`float`, *optional*, defaults to 1.0): Of the flow's noise, see [`FlowSampler`].
        decoder (`str`, *optional*, defaults to `"flow"`):
            `"flow"`: the action expert. `"fast"`: greedy FAST tokens of the backbone.
        seed (`int`, *optional*): Of the flow's noise, the same in every episode. Default: new noise in every episode.
        on_invalid (`str`, *optional*, defaults to `"raise"`):
            What follows FAST tokens that do not spell a chunk, or actions that are not finite: `"raise"` an
            [`InvalidChunkError`], or repeat the `"previous"` action for one step and predict again at the next. An invalid
            output never becomes an action of zeros; at the first step of an episode there is no previous action, and
            `"previous"` raises, too.
        robot ([`~nora15_hf.embodiment.Embodiment`], *optional*):
            What is known of the robot. It is compared with what the policy was trained on before anything moves.

    Attributes:
        last_timing ([`ControlTiming`] or `None`): Of the latest `select_action` or `predict_chunk`.
        invalid_chunks (`int`): Invalid outputs since `reset`.

    Raises:
        ValueError: Contradictory arguments, an unknown dataset key, a processor of another policy, or another robot.

    Example:

    ```python
    >>> policy = Nora15ControlPolicy(model, processor, n_action_steps=3, seed=0)
    >>> policy.reset()
    >>> policy.select_action({"image": np.zeros((84, 84, 3), np.uint8), "instruction": "open the faucet"}).shape
    (4,)
    ```
    """

    def __init__(
        self,
        model: Nora15ForActionPrediction,
        processor: Nora15Processor,
        *,
        dataset_key: str | None = None,
        n_action_steps: int | None = None,
        temporal_ensemble_decay: float | None = None,
        num_steps: int | None = None,
        temperature: float = 1.0,
        decoder: Literal["flow", "fast"] = "flow",
        seed: int | None = None,
        on_invalid: Literal["raise", "previous"] = "raise",
        robot: Embodiment | None = None,
    ):
        config = model.config
        chunk_size = config.chunk_size
        processor.check_model(config)
        if n_action_steps is None:
            n_action_steps = chunk_size if temporal_ensemble_decay is None else 1
        if not 1 <= n_action_steps <= chunk_size:
            raise ValueError(f"n_action_steps={n_action_steps} must lie between 1 and the chunk size {chunk_size}.")
        if temporal_ensemble_decay is not None:
            if not math.isfinite(temporal_ensemble_decay):
                raise ValueError(f"temporal_ensemble_decay={temporal_ensemble_decay} must be a finite number.")
            if n_action_steps == chunk_size:
                raise ValueError(
                    f"temporal_ensemble_decay={temporal_ensemble_decay} averages chunks that overlap, but with "
                    f"n_action_steps={n_action_steps} and chunks of {chunk_size} steps none do. Lower n_action_steps (1 is "
                    "usual) or leave temporal_ensemble_decay out."
                )
        if decoder not in ("flow", "fast"):
            raise ValueError(f"decoder={decoder!r} is unknown, expected 'flow' or 'fast'.")
        if num_steps is not None and decoder == "fast":
            raise ValueError(f"num_steps={num_steps} applies to the flow decoder; omit it with decoder='fast'.")
        if temperature != 1 and decoder == "fast":
            raise ValueError(f"temperature={temperature} applies to the flow decoder; omit it with decoder='fast'.")
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_steps={num_steps} must be at least 1.")
        if on_invalid not in ("raise", "previous"):
            raise ValueError(f"on_invalid={on_invalid!r} is unknown, expected 'raise' or 'previous'.")
        self.model = model.eval()
        self.processor = processor
        self.dataset_key = select_dataset_key(processor.norm_stats, dataset_key)
        if robot is not None:
            check_junction(
                CONTROL,
                processor.embodiment(self.dataset_key),
                robot,
                names=("policy", "robot"),
                leave_out=() if processor.needs_state else STATE_ITEMS,
                arranged=True,
            )
        self.n_action_steps = n_action_steps
        self.temporal_ensemble_decay = temporal_ensemble_decay
        self.num_steps = num_steps
        self.decoder = decoder
        self.seed = seed
        self.on_invalid = on_invalid
        self.last_timing: ControlTiming | None = None
        self._timings: deque[ControlTiming] = deque(maxlen=REMEMBERED_TIMINGS)
        self._sampler = FlowSampler(num_steps, temperature) if decoder == "flow" else GreedyFastSampler()
        self._buffer = ChunkBuffer(n_action_steps, temporal_ensemble_decay)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """
        Begins an episode: drops planned actions and restarts the noise. Timings are kept.

        Args:
            seed (`int`, *optional*): Of this episode's noise; default: the constructor's.
        """
        seed = self.seed if seed is None else seed
        if seed is not None and seed < 0:
            raise ValueError(f"seed={seed} must not be negative.")
        self._episode_seed = np.random.SeedSequence().entropy if seed is None else seed
        self._predictions = 0
        self._previous_action: np.ndarray | None = None
        self.invalid_chunks = 0
        self._buffer.clear()

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """
        The action of the present control step.

        A chunk is predicted when one is due, otherwise the action comes from an earlier one. The observation is checked
        in either case. A changed instruction counts from the next prediction on; `reset` makes it count at once.

        Args:
            observation (`Mapping`): `{"image" or "images", "instruction"}`, and `"state"` for a policy that reads it or whose
                actions are differences from it; see [`check_observation`].

        Returns:
            `np.ndarray` of shape `(A,)`, float32, physical units of `dataset_key`.

        Raises:
            ValueError, TypeError: The observation is not as expected; the key is named.
            InvalidChunkError: See `on_invalid`.
        """
        watch = Stopwatch(self.model.device)
        inputs = self._check(observation)
        try:
            if self._buffer.needs_chunk:
                self._buffer.add(self._predict_next(*inputs, watch))
            action = self._buffer.next_action()
        except InvalidChunkError as error:
            if self.on_invalid == "raise":
                raise
            if self._previous_action is None:
                raise InvalidChunkError(
                    f"{error} There is no previous action to repeat at the first step of an episode."
                ) from error
            self._buffer.skip_step()
            action = self._previous_action
        finally:
            self._record(watch)
        self._previous_action = action
        # A copy, so that a caller who clips it in place does not change what is repeated.
        return action.astype(np.float32)

    def predict_chunk(self, observation: Mapping[str, Any]) -> np.ndarray:
        """
        A whole chunk, for loops that keep a queue of their own; the queue of `select_action` is left alone.

        Args:
            observation (`Mapping`): See `select_action`.

        Returns:
            `np.ndarray` of shape `(H, A)`, float32, physical units.

        Raises:
            InvalidChunkError: Whatever `on_invalid` says.
        """
        watch = Stopwatch(self.model.device)
        try:
            return self._predict_next(*self._check(observation), watch).astype(np.float32)
        finally:
            self._record(watch)

    def warm_up(self, observation: Mapping[str, Any], compile: bool = False) -> None:
        """
        Predicts twice and forgets the result, so that allocations do not fall into the first control step.

        Neither the episode nor the timings notice.

        Args:
            observation (`Mapping`): Of the size and with the cameras of the real ones.
            compile (`bool`, *optional*, defaults to `False`):
                Also compile the policy for such observations, with instructions as long as this one's or shorter; see
                [`Nora15ForActionPrediction.warm_up`].
        """
        images, instruction, state = self._check(observation)
        if compile:
            inputs = prepare_inputs(
                self.processor,
                [images],
                [instruction],
                states=None if state is None else [state],
                dataset_key=self.dataset_key,
                device=self.model.device,
            )
            self.model.warm_up(**inputs, decoder=self.decoder)
        for _ in range(2):
            with contextlib.suppress(InvalidChunkError):
                self._predict(images, instruction, state, Stopwatch(self.model.device))

    def timing_summary(self) -> TimingSummary:
        """Median and 95th percentile of the calls that predicted a chunk, of the last 10,000 calls."""
        return summarize_timings(self._timings)

    def _record(self, watch: Stopwatch) -> None:
        self.last_timing = watch.read()
        self._timings.append(self.last_timing)

    def _check(self, observation: Mapping[str, Any]) -> tuple[CameraImages, str, np.ndarray | None]:
        return check_observation(observation, needs_state=self.processor.needs_state)

    def _predict_next(
        self, images: CameraImages, instruction: str, state: np.ndarray | None, watch: Stopwatch
    ) -> np.ndarray:
        """`_predict`, counted: the next prediction of this episode has other noise."""
        try:
            return self._predict(images, instruction, state, watch)
        except InvalidChunkError:
            self.invalid_chunks += 1
            raise
        finally:
            self._predictions += 1

    def _predict(
        self, images: CameraImages, instruction: str, state: np.ndarray | None, watch: Stopwatch
    ) -> np.ndarray:
        """A chunk `(H, A)` in physical units."""
        try:
            chunk = predict_chunks(
                self.model,
                self.processor,
                [images],
                [instruction],
                # As in closed-loop evaluation: the episode's seed and the prediction's number.
                [(self._episode_seed, self._predictions)],
                states=None if state is None else [state],
                dataset_key=self.dataset_key,
                sampler=self._sampler,
                lap=watch.lap,
            )[0]
        except InvalidChunkError as error:
            raise InvalidChunkError(
                f"The policy's FAST tokens for {instruction!r} do not decode to a chunk: {error} Use decoder='flow', or "
                "on_invalid='previous' to repeat the previous action."
            ) from error
        if not np.isfinite(chunk).all():
            raise InvalidChunkError(
                f"The policy predicted NaN or infinity for {instruction!r}. Its weights or their dtype are damaged: "
                "`nora15 doctor` names them."
            )
        return chunk


__all__ = ["Nora15ControlPolicy"]
