# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy whose chunks a world model ranks by how near they are imagined to lead to a goal."""

from dataclasses import dataclass

import numpy as np
import torch

from ..actions.keyed_noise import NoiseKey
from ..actions.normalization import select_dataset_key
from ..clips import ClipConventions
from ..control import predict_chunks
from ..embodiment.junctions import WORLD_MODEL, check_junction
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..simulation.environment import Observation, camera_name
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor


@dataclass(frozen=True)
class Proposal:
    """
    N chunks for one state.

    Attributes:
        chunks (`np.ndarray`): float32 `(N, H, A)`, physical units.
        distances (`np.ndarray`, *optional*): float32 `(N, H)`, of the goal from what the world model imagines after each
            action; `None` without a goal.
        distance_now (`float`, *optional*): Of the goal from the present picture.
    """

    chunks: np.ndarray
    distances: np.ndarray | None = None
    distance_now: float | None = None

    @property
    def ranking(self) -> list[int]:
        """The chunks by their reward, minus the distance after the last action, best first; as drawn without a goal."""
        if self.distances is None:
            return list(range(len(self.chunks)))
        return np.argsort(self.distances[:, -1], kind="stable").tolist()

    @property
    def best(self) -> np.ndarray:
        """The first of the ranking, `(H, A)`."""
        return self.chunks[self.ranking[0]]


class RankedPolicy:
    """
    A policy and the world model that judges its chunks.

    Args:
        policy ([`Nora15ForActionPrediction`]), processor ([`Nora15Processor`]): The policy; it is put into evaluation mode.
        world_model ([`VJEPA2ACModel`]), world_model_processor ([`VJEPA2ACProcessor`]), conventions ([`ClipConventions`]):
            A world model that was trained on actions in this policy's units.
        dataset_key (`str`, *optional*): Whose units the actions are in; may be omitted when there is only one.

    Attributes:
        cameras (`tuple[str, ...]`): The pictures that are needed, in the policy's order; that of the world model is one of them.

    Raises:
        ValueError: A world model of the metric convention, one whose actions mean something else, or an unknown dataset key.
    """

    def __init__(
        self,
        policy: Nora15ForActionPrediction,
        processor: Nora15Processor,
        world_model: VJEPA2ACModel,
        world_model_processor: VJEPA2ACProcessor,
        conventions: ClipConventions,
        dataset_key: str | None = None,
    ):
        if conventions.action_convention == "metric":
            raise ValueError(
                "The world model takes pose differences in metres and radians, which need the robot's poses; a page has none. "
                "Train one for this policy: nora15 world-model --policy ..."
            )
        self.dataset_key = select_dataset_key(processor.norm_stats, dataset_key)
        self.contract = processor.embodiment(self.dataset_key)
        check_junction(
            WORLD_MODEL, self.contract, conventions.contract, names=("policy", "world model"), leave_out=("cameras",)
        )
        self.policy, self.processor = policy.eval(), processor
        self.world_model, self.world_model_processor = world_model.eval(), world_model_processor
        known = None if conventions.embodiment is None else conventions.embodiment.cameras
        self.judged_camera = camera_name(conventions.image_key) if known is None else next(iter(known))
        self._policy_cameras = processor.camera_names(self.dataset_key) or (self.judged_camera,)
        self.cameras = tuple(dict.fromkeys((*self._policy_cameras, self.judged_camera)))

    @classmethod
    def from_pretrained(
        cls,
        policy: str,
        world_model: str,
        *,
        dataset_key: str | None = None,
        device: torch.device,
        revision: str | None = None,
        world_model_revision: str | None = None,
    ) -> "RankedPolicy":
        """Both from folders or Hub repos, to one device."""
        return cls(
            Nora15ForActionPrediction.from_pretrained(policy, revision=revision, device_map=device),
            Nora15Processor.from_pretrained(policy, revision=revision),
            VJEPA2ACModel.from_pretrained(world_model, revision=world_model_revision).to(device),
            VJEPA2ACProcessor.from_pretrained(world_model, revision=world_model_revision),
            ClipConventions.from_pretrained(world_model, revision=world_model_revision),
            dataset_key,
        )

    def propose(
        self, observation: Observation, goal: np.ndarray | None, num_candidates: int, noise_key: NoiseKey
    ) -> Proposal:
        """
        Draws chunks for a state and ranks them.

        Args:
            observation ([`Observation`]): With the pictures of `cameras`, and the state where the policy needs it.
            goal (`np.ndarray`, *optional*): Picture of the world model's camera when the task is done, uint8
                `(height, width, 3)`.
            num_candidates (`int`): N.
            noise_key (`tuple[int, ...]`): What the noise depends on, see [`keyed_noise`].
        """
        states = [observation.state] if self.processor.needs_state else None
        candidates = predict_chunks(
            self.policy,
            self.processor,
            [[observation.images[camera] for camera in self._policy_cameras]],
            [observation.instruction],
            [noise_key],
            states=states,
            dataset_key=self.dataset_key,
            num_candidates=num_candidates,
            unnormalize=False,
        )
        state = None if states is None else np.stack(states * num_candidates)
        chunks = self.processor.unnormalize_actions(candidates[0], self.dataset_key, state)
        if goal is None:
            return Proposal(chunks)
        return Proposal(chunks, *self._distances(observation.images[self.judged_camera], goal, candidates))

    @torch.no_grad()
    def _distances(self, picture: np.ndarray, goal: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, float]:
        """Distances to the goal, after each action of `(1, N, H, A)` and now."""
        model = self.world_model
        now, wanted = self._encode(picture), self._encode(goal)
        imagined = model.rollout(now, torch.from_numpy(candidates).to(model.device))
        after = [model.goal_energy(imagined[:, :, : step + 1], wanted)[0] for step in range(imagined.shape[2])]
        return torch.stack(after, dim=-1).cpu().numpy(), model.goal_energy(now, wanted).item()

    def _encode(self, picture: np.ndarray) -> torch.Tensor:
        pixel_values = self.world_model_processor(picture[None, None])["pixel_values"]
        return self.world_model.encode(pixel_values.to(self.world_model.device))


__all__ = ["Proposal", "RankedPolicy"]
