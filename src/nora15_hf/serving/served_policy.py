# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The source of a server's chunks: a policy on a device, with its metadata."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub import ResolvedRevision
from transformers.utils.hub import resolve_revision

from ..actions.keyed_noise import NoiseKey
from ..actions.normalization import select_dataset_key
from ..control import FlowSampler, Nora15ControlPolicy, predict_chunks
from ..control.policy_metadata import policy_metadata
from ..embodiment.embodiment import Embodiment
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..simulation.environment import Observation
from .serving_error import ServingError

# Side of made-up pictures of a camera whose size is not known.
PICTURE_SIZE = 224
# Longer than most, since what is compiled serves prompts that are as long or shorter.
WARM_UP_INSTRUCTION = "pick up the black bowl next to the ramekin and place it on the plate in the middle of the table"


@dataclass
class ChunkRequest:
    """
    One chunk to predict.

    Attributes:
        observation ([`~nora15_hf.simulation.environment.Observation`]): With the policy's cameras, in its order.
        noise_key (`tuple[int, ...]`): What the noise depends on.
        num_steps (`int`, *optional*): Solver steps; the server's by default.
        dataset_key (`str`, *optional*): Whose units state and actions are in; the server's by default.
    """

    observation: Observation
    noise_key: NoiseKey
    num_steps: int | None = None
    dataset_key: str | None = None


class ServedPolicy(Protocol):
    """
    What [`PolicyServer`] needs. All but `predict` and `warm_up` is asked in the event loop and must be quick.

    Attributes:
        metadata (`Mapping[str, Any]`): Plain values; at least those of [`policy_metadata`] that do not concern weights.
        dataset_keys (`Sequence[str]`): That a request may name.
        dataset_key (`str`): Of requests that name none.
        needs_state (`bool`): Whether an observation needs the robot's state.
    """

    metadata: Mapping[str, Any]
    dataset_keys: Sequence[str]
    dataset_key: str
    needs_state: bool

    def contract(self, dataset_key: str) -> Embodiment:
        """What the policy was trained on, for a dataset key."""

    def new_seed(self) -> int:
        """Seed of an episode to which a client gives none."""

    def predict(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray | Exception]:
        """A chunk `(H, A)`, float32 in physical units, or the error, of each request."""

    def warm_up(self) -> None:
        """Called once, before the first prediction."""


class ModelPolicy:
    """
    NORA-1.5 as a server asks it: many requests, one pass through the backbone.

    Args:
        model ([`Nora15ForActionPrediction`]): The policy; it is put into evaluation mode.
        processor ([`Nora15Processor`]): Its processor.
        dataset_key (`str`, *optional*): Of requests that name none; may be omitted when there is only one.
        num_steps (`int`, *optional*): Solver steps of requests that name none; the model's default otherwise.
        temperature (`float`, *optional*, defaults to 1.0): Of the flow's noise, see [`FlowSampler`].
        revision (`str`, *optional*): Commit of the policy's repo, for clients to know.
        compile (`bool`, *optional*, defaults to `False`): Compile the policy when it is warmed up.

    Raises:
        ValueError: An unknown dataset key, or several and no choice; a negative temperature.
    """

    def __init__(
        self,
        model: Nora15ForActionPrediction,
        processor: Nora15Processor,
        *,
        dataset_key: str | None = None,
        num_steps: int | None = None,
        temperature: float = 1.0,
        revision: str | None = None,
        compile: bool = False,
    ):
        self.model, self.processor = model.eval(), processor
        self.dataset_keys = list(processor.norm_stats)
        self.dataset_key = select_dataset_key(processor.norm_stats, dataset_key)
        self.sampler = FlowSampler(num_steps, temperature)
        self.compile = compile
        self.needs_state = processor.needs_state
        self.metadata = policy_metadata(
            model, processor, dataset_key=self.dataset_key, sampler=self.sampler, revision=revision
        )

    @classmethod
    def from_pretrained(
        cls, repo: str | Path, *, device: str | torch.device | None = None, revision: str | None = None, **options: Any
    ) -> "ModelPolicy":
        """
        Loads a policy.

        Args:
            repo (`str` or `Path`): Hub id or folder.
            device (`str` or `torch.device`, *optional*): Where it runs; the CPU by default.
            revision (`str`, *optional*): Branch, tag or commit.
            options: As for the class.
        """
        revision = resolve_revision(repo, revision)
        model = Nora15ForActionPrediction.from_pretrained(repo, device_map=device, revision=revision)
        processor = Nora15Processor.from_pretrained(repo, revision=revision)
        commit = revision.resolved if isinstance(revision, ResolvedRevision) else revision
        return cls(model, processor, revision=commit, **options)

    def contract(self, dataset_key: str) -> Embodiment:
        """See [`ServedPolicy`]."""
        return self.processor.embodiment(dataset_key)

    def new_seed(self) -> int:
        """Another one for every episode."""
        return secrets.randbits(63)

    def predict(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray | Exception]:
        """
        Predicts together what has the same number of solver steps. A request that the policy refuses, and actions that are not
        finite, are errors of that request alone.

        Args:
            requests (`Sequence[ChunkRequest]`): At least one.

        Returns:
            `list[np.ndarray or Exception]`: of each request the chunk `(H, A)`, float32 in physical units, or the error.
        """
        results: dict[int, np.ndarray | Exception] = {}
        for num_steps in dict.fromkeys(request.num_steps for request in requests):
            rows = [row for row, request in enumerate(requests) if request.num_steps == num_steps]
            results |= zip(rows, self._predict_together([requests[row] for row in rows], num_steps), strict=True)
        return [results[row] for row in range(len(requests))]

    def _predict_together(
        self, requests: Sequence[ChunkRequest], num_steps: int | None
    ) -> list[np.ndarray | Exception]:
        try:
            chunks = predict_chunks(
                self.model,
                self.processor,
                [list(request.observation.images.values()) for request in requests],
                [request.observation.instruction for request in requests],
                [request.noise_key for request in requests],
                states=[request.observation.state for request in requests],
                dataset_key=[request.dataset_key or self.dataset_key for request in requests],
                sampler=self.sampler if num_steps is None else replace(self.sampler, num_steps=num_steps),
            )
        except Exception as error:
            # Alone, so that none fails by another's fault, or for want of memory for all together.
            if len(requests) > 1:
                return [self._predict_together([request], num_steps)[0] for request in requests]
            return [ServingError(str(error)) if isinstance(error, ValueError) else error]
        return [chunk if np.isfinite(chunk).all() else ServingError(NOT_FINITE) for chunk in chunks]

    def warm_up(self) -> None:
        """Predicts a made-up observation, and compiles the policy for such ones where it was asked to."""
        key, contract = self.dataset_key, self.contract(self.dataset_key)
        sizes = [
            (camera.height or PICTURE_SIZE, camera.width or PICTURE_SIZE)
            for camera in (contract.cameras or {}).values()
        ]
        observation: dict[str, Any] = {
            "images": [np.zeros((*size, 3), dtype=np.uint8) for size in sizes or [(PICTURE_SIZE, PICTURE_SIZE)]],
            "instruction": WARM_UP_INSTRUCTION,
        }
        if self.needs_state:
            observation["state"] = np.zeros(contract.state_dim or contract.action_dim, dtype=np.float32)
            if self.processor.state_dim is not None:
                statistics = self.processor.state_stats[key]
                observation["state"] = (statistics.q01 + statistics.q99) / 2
        policy = Nora15ControlPolicy(self.model, self.processor, dataset_key=key, num_steps=self.sampler.num_steps)
        policy.warm_up(observation, compile=self.compile)


NOT_FINITE = (
    "The policy predicted NaN or infinity, which is not sent. Its weights or their dtype are damaged: `nora15 doctor` tells "
    "which."
)


__all__ = ["ChunkRequest", "ModelPolicy", "ServedPolicy"]
