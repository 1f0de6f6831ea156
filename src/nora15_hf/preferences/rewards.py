# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Rewards of candidate chunks: the world model's distance to a goal, the distance to the demonstration, their sum.

A reward is a class with `score(batch) -> (B, N)`, float32, higher is better, and `settings`, what to write down about
it. Weights are those of arXiv 2511.14659 (section 3) and of its released code.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ..clips.clip_conventions import ClipConventions
from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..embodiment.embodiment import Embodiment
from ..embodiment.junctions import ACTION_ITEMS, NORMALIZATION_ITEMS, WORLD_MODEL, check_junction
from ..repo_files.fingerprint import artefact_name, fingerprint
from ..vjepa2_ac.modeling_vjepa2_ac import VJEPA2ACModel
from ..vjepa2_ac.processing_vjepa2_ac import VJEPA2ACProcessor
from .metric_actions import MetricActions

REWARD_PRESETS: dict[str, dict[str, float]] = {
    "paper": {"world_model": 1.0, "ground_truth": 0.5},
    "released": {"world_model": 1.0, "ground_truth": 0.1},
}
"""Weights of the end-goal distance and of the deviation from the demonstration."""

GOALS = ("end", "subgoal", "released_end")

RELEASED_TAIL_FRAMES = 8
"""The released labelling code takes the first of this many last frames of an episode for its end."""


@dataclass(frozen=True)
class DecodedFrames:
    """
    Frames of one camera that were decoded ahead.

    Attributes:
        positions (`list[int]`): In the dataset, F of them.
        pictures (`torch.Tensor`): uint8 `(F, height, width, 3)`.
    """

    positions: list[int]
    pictures: torch.Tensor


@dataclass(frozen=True)
class RewardBatch:
    """
    States and their candidates.

    Attributes:
        dataset ([`LeRobotDataset`]): where the states come from.
        indices (`Sequence[int]`): their positions in it, B of them.
        samples (`Sequence[Sample]`): `dataset[index]` of each.
        candidates (`torch.Tensor`): float32 `(B, N, H, A)`, normalised.
        actions (`torch.Tensor`): float32 `(B, H, A)`, the demonstrated chunks, normalised.
        action_mask (`torch.Tensor`): bool `(B, H)`, False where the demonstration had ended.
        decoded (`Mapping[str, DecodedFrames]`, *optional*):
            Frames that [`pictures`] need not decode, by the camera's feature, `None` for the first one.
    """

    dataset: LeRobotDataset
    indices: Sequence[int]
    samples: Sequence[Sample]
    candidates: torch.Tensor
    actions: torch.Tensor
    action_mask: torch.Tensor
    decoded: Mapping[str | None, DecodedFrames] = field(default_factory=dict)

    def pictures(
        self, positions: Sequence[int], key: str | None = None, device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """
        Frames of the dataset.

        Args:
            positions (`Sequence[int]`): Which.
            key (`str`, *optional*): Of which camera; of the first by default.
            device (`torch.device`, *optional*): Where they are wanted.

        Returns:
            `torch.Tensor`: uint8 `(len(positions), height, width, 3)`.
        """
        ahead = self.decoded.get(key)
        if ahead is None or not set(positions) <= set(ahead.positions):
            return torch.from_numpy(np.stack([self.dataset.frame(position, key) for position in positions])).to(device)
        rows = [ahead.positions.index(position) for position in positions]
        # Moved before rows are picked, which would copy them out of pinned memory.
        return ahead.pictures.to(device, non_blocking=True)[rows]


class Reward(Protocol):
    """What every reward offers."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that moves the score, in JSON types."""

    def score(self, batch: RewardBatch) -> torch.Tensor:
        """float32 `(B, N)`, higher is better."""


@runtime_checkable
class PolicyBoundReward(Protocol):
    """A reward that can only judge some policies."""

    def check_policy(self, policy: Embodiment) -> None:
        """Raises a `ValueError` when it cannot judge a policy of this contract."""


@runtime_checkable
class FrameReward(Protocol):
    """A reward that looks at frames of the dataset, which are then decoded before it asks for them."""

    def frames_to_decode(self, dataset: LeRobotDataset, indices: Sequence[int]) -> tuple[str | None, list[int]]:
        """The camera's feature, `None` for the first one, and positions of the frames that `score` needs for these states."""


class GroundTruthActionReward:
    """
    Minus the mean absolute deviation from the demonstrated chunk ("GTA"), in normalised units, over the steps before
    the demonstration's end.

    Args:
        gripper_weight (`float`, *optional*, defaults to 1.0):
            Weight of the gripper beside 1 for every other dimension; 0 leaves it out. The mean is weighted.
        gripper_dim (`int`, *optional*):
            Which dimension the gripper is. By default each whose name tells so; the last one where dimensions have no names.
        masked_dims (`Sequence[int]`, *optional*, defaults to `()`): dimensions that are left out.

    Raises:
        ValueError: a negative weight; (of `score`) the gripper among the masked dimensions with a weight of its own, a
            gripper that the names of the dimensions contradict or do not tell, a dimension that actions have not, or none left.
    """

    def __init__(self, gripper_weight: float = 1.0, gripper_dim: int | None = None, masked_dims: Sequence[int] = ()):
        if gripper_weight < 0:
            raise ValueError(f"gripper_weight={gripper_weight} must not be negative.")
        self.gripper_weight = gripper_weight
        self.gripper_dim = gripper_dim
        self.masked_dims = tuple(masked_dims)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            "gripper_weight": self.gripper_weight,
            "gripper_dim": self.gripper_dim,
            "masked_dims": list(self.masked_dims),
        }

    def weights(self, action_dim: int, action_names: Sequence[str] | None = None) -> torch.Tensor:
        """float32 `(A,)`, the weight of every dimension; `action_names` tell which is the gripper."""
        given = () if self.gripper_dim is None else (self.gripper_dim,)
        for name, dims in (("gripper_dim", given), ("masked_dims", self.masked_dims)):
            unknown = [dim for dim in dims if not -action_dim <= dim < action_dim]
            if unknown:
                raise ValueError(f"{name} names {unknown}, but an action has {action_dim} dimensions.")
        weights = torch.ones(action_dim)
        if self.gripper_weight != 1.0:
            weights[self._gripper_dims(action_dim, action_names)] = self.gripper_weight
        weights[list(self.masked_dims)] = 0.0
        if not weights.any():
            raise ValueError(
                f"masked_dims={list(self.masked_dims)} and gripper_weight={self.gripper_weight} leave none of the "
                f"{action_dim} dimensions to compare."
            )
        return weights

    def _gripper_dims(self, action_dim: int, action_names: Sequence[str] | None) -> list[int]:
        """The dimensions that `gripper_weight` applies to."""
        given = None if self.gripper_dim is None else self.gripper_dim % action_dim
        found = [dim for dim, name in enumerate(action_names or ()) if "gripper" in name.lower()]
        if action_names is not None and given is None and not found:
            raise ValueError(
                f"gripper_weight={self.gripper_weight} needs gripper_dim, since none of the dimensions {list(action_names)} is "
                "called a gripper. Pass it, or keep the weight at 1."
            )
        if found and given not in (None, *found):
            raise ValueError(
                f"gripper_dim={self.gripper_dim} is {action_names[given]!r}, but the gripper is "
                f"{' and '.join(f'{action_names[dim]!r}, dimension {dim}' for dim in found)}. Omit gripper_dim."
            )
        dims = found if given is None and found else [action_dim - 1 if given is None else given]
        masked = {dim % action_dim for dim in self.masked_dims}
        if masked.issuperset(dims):
            raise ValueError(
                f"gripper_weight={self.gripper_weight} has no effect, since masked_dims={list(self.masked_dims)} excludes the "
                "gripper. Pass only one of the two."
            )
        return dims

    def score(self, batch: RewardBatch) -> torch.Tensor:
        weights = self.weights(batch.actions.shape[-1], batch.dataset.action_names)
        deviation = (batch.candidates - batch.actions[:, None]).abs() @ weights / weights.sum()
        valid = batch.action_mask[:, None].float()
        return -(deviation * valid).sum(-1) / valid.sum(-1)


class WorldModelGoalReward:
    """
    Minus the distance between the latent that the world model imagines after a candidate chunk and that of a goal
    frame (arXiv 2511.14659, section 3).

    Args:
        world_model ([`VJEPA2ACModel`]):
            In the `"normalized"` convention, trained on actions that are normalised as the policy's. In the `"metric"`
            one (DROID) it takes the candidates as pose differences and imagines from the robot's pose.
        processor ([`VJEPA2ACProcessor`]): its processor.
        goal (`str`, *optional*, defaults to `"end"`):
            `"end"`: the last frame of the episode. `"subgoal"`: the frame to which the last imagined action leads, at
            most the last. `"released_end"`: what the released labelling code takes for the end, the eighth frame from
            the end (of a shorter episode the first frame), also for the states that come after it.
        released_horizon (`bool`, *optional*, defaults to `False`):
            Whether to ignore the last action of every chunk, as the released labelling code does (it imagines four
            steps of a chunk of five). By default all actions count.
        conventions ([`ClipConventions`], *optional*):
            What the world model was trained on. It is then shown the camera that it knows, whichever the policy sees, and a
            policy of other units, normalisation or control rate is refused.
        metric_actions ([`MetricActions`], *optional*):
            With a metric world model only: turns the candidates into pose differences and knows the poses of the states.

    Raises:
        ValueError: another goal; (of `check_policy`) a policy whose actions mean something else; a metric world model without `metric_actions`, or they for another world model; (of
            `score`) a world model of another action dimension than the candidates, or chunks too short for
            `released_horizon`.

    Example:

    ```python
    >>> conventions = ClipConventions.from_pretrained("owner/vjepa2-ac-droid")  # doctest: +SKIP
    >>> reward = WorldModelGoalReward(
    ...     world_model,
    ...     world_model_processor,
    ...     conventions=conventions,
    ...     metric_actions=MetricActions(policy_processor, demonstrations, conventions.state_key),
    ... )  # doctest: +SKIP
    ```
    """

    def __init__(
        self,
        world_model: VJEPA2ACModel,
        processor: VJEPA2ACProcessor,
        goal: str = "end",
        released_horizon: bool = False,
        *,
        conventions: ClipConventions | None = None,
        metric_actions: MetricActions | None = None,
    ):
        if goal not in GOALS:
            raise ValueError(
                f'goal="{goal}" must be "end" (last frame of the episode), "subgoal" (one chunk later) or "released_end" '
                f"(the frame {RELEASED_TAIL_FRAMES - 1} before the last, as in the released labels)."
            )
        is_metric = world_model.config.action_convention == "metric"
        if is_metric and metric_actions is None:
            raise ValueError(
                "The world model takes pose differences in metres and radians (action_convention='metric'), the policy "
                "makes normalised actions: metric_actions must be given, MetricActions(policy_processor, dataset, pose_key) "
                "with the dataset of the states."
            )
        if metric_actions is not None and not is_metric:
            raise ValueError(
                "metric_actions must not be given: the world model's action_convention is 'normalized', it takes the "
                "candidates as they are and imagines with zero states. Only a 'metric' one needs physical units and poses."
            )
        self.world_model = world_model.eval()
        self.processor = processor
        self.goal = goal
        self.released_horizon = released_horizon
        self.conventions = conventions
        self._metric = metric_actions
        self._fingerprint = fingerprint(world_model.state_dict())
        # One goal serves all states of an episode. Kept on the CPU: a real model's latents take 1.4 MB each.
        self._end_goals: dict[tuple[LeRobotDataset, int], torch.Tensor] = {}

    @property
    def settings(self) -> dict[str, Any]:
        settings = {
            "type": type(self).__name__,
            "goal": self.goal,
            "released_horizon": self.released_horizon,
            "world_model": artefact_name(self.world_model.config.name_or_path),
            "world_model_fingerprint": self._fingerprint,
            "dtype": str(self.world_model.dtype).removeprefix("torch."),
        }
        if self.conventions is not None:
            settings["camera"] = self.conventions.image_key
        return settings if self._metric is None else settings | {"pose_key": self._metric.pose_key}

    def check_policy(self, policy: Embodiment) -> None:
        """
        Compares a policy's contract with that of the world model.

        Raises:
            EmbodimentError: The same numbers mean other motions to the two.
        """
        contract = Embodiment() if self.conventions is None else self.conventions.contract
        # Pose differences are made for the world model, from whatever the policy's actions are.
        of_numbers = () if self._metric is None else (*NORMALIZATION_ITEMS, *ACTION_ITEMS)
        check_junction(
            WORLD_MODEL, policy, contract, names=("policy", "world model"), leave_out=("cameras", *of_numbers)
        )

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> torch.Tensor:
        model = self.world_model
        action_dim = batch.candidates.shape[-1]
        if model.config.action_dim != action_dim:
            raise ValueError(
                f"The world model takes {model.config.action_dim} action dimensions, the candidates have {action_dim}. "
                "Use a world model that was trained on the same dataset as the policy."
            )
        candidates, states = batch.candidates, None
        if self._metric is not None:
            candidates = self._metric.unnormalize(candidates, batch.samples)
            states = self._metric.poses_of(batch.dataset, batch.indices)[:, None].to(model.device)
        if self.released_horizon:
            if candidates.shape[2] < 2:
                raise ValueError(
                    "released_horizon=True ignores the last action of a chunk, but the chunks have "
                    f"{candidates.shape[2]} action(s)."
                )
            candidates = candidates[:, :, :-1]
        positions = self._goal_positions(batch.dataset, batch.indices, candidates.shape[2])
        goals = self._encode(batch, positions) if self.goal == "subgoal" else self._encode_end_goals(batch, positions)
        current = self._encode(batch, batch.indices)
        imagined = model.rollout(current[:, None], candidates.to(model.device), states, last_only=True)
        return -model.goal_energy(imagined, goals.to(model.device)).float().cpu()

    @torch.no_grad()
    def nears_goal(self, batch: RewardBatch) -> torch.Tensor:
        """
        Whether demonstrated chunks end nearer to the goal than they begin. Nothing is imagined: the frames of the demonstration are
        encoded. Where they do not, the distance to this goal cannot tell good candidates from bad ones, however well the world
        model predicts.

        Args:
            batch ([`RewardBatch`]): States; their candidates only say how long a chunk is.

        Returns:
            `torch.Tensor`: bool `(B,)`.
        """
        horizon = batch.candidates.shape[2]
        goals = self._encode(batch, self._goal_positions(batch.dataset, batch.indices, horizon))
        before = self._encode(batch, batch.indices)
        after = self._encode(batch, [batch.dataset.subgoal_index(index, horizon) for index in batch.indices])
        energies = [self.world_model.goal_energy(latents[:, None], goals) for latents in (before, after)]
        return (energies[1] < energies[0]).cpu()

    def frames_to_decode(self, dataset: LeRobotDataset, indices: Sequence[int]) -> tuple[str | None, list[int]]:
        """See [`FrameReward`]: the states and their goals."""
        goals = self._goal_positions(dataset, indices, dataset.chunk_size - self.released_horizon)
        return self._camera, sorted({*indices, *goals})

    @property
    def _camera(self) -> str | None:
        """The camera that the world model was trained on; the first one where that is not known."""
        return None if self.conventions is None else self.conventions.image_key

    def _goal_positions(self, dataset: LeRobotDataset, indices: Sequence[int], horizon: int) -> list[int]:
        if self.goal == "subgoal":
            return [dataset.subgoal_index(index, horizon) for index in indices]
        tail = RELEASED_TAIL_FRAMES - 1 if self.goal == "released_end" else 0
        return [max(dataset.last_frame_index(index) - tail, dataset.first_frame_index(index)) for index in indices]

    def _encode(self, batch: RewardBatch, positions: Sequence[int]) -> torch.Tensor:
        clips = batch.pictures(positions, self._camera, self.world_model.device)[:, None]
        return self.world_model.encode(self.processor(clips)["pixel_values"])[:, 0]

    def _encode_end_goals(self, batch: RewardBatch, positions: Sequence[int]) -> torch.Tensor:
        keys = [(batch.dataset, position) for position in positions]
        for key in dict.fromkeys(keys):
            if key not in self._end_goals:
                # Each alone: rounding must not depend on which goals happened to be new at the same time.
                self._end_goals[key] = self._encode(batch, [key[1]])[0].cpu()
        return torch.stack([self._end_goals[key] for key in keys])


class WeightedReward:
    """
    A weighted sum of rewards.

    Args:
        rewards (`Mapping[str, tuple[Reward, float]]`): name to reward and weight.
        standardize (`bool`, *optional*, defaults to `False`):
            Whether each reward is first brought to mean 0 and standard deviation 1 over the candidates of a state, so
            that weights mean the same whatever the scales. A reward that is the same for all candidates becomes 0.

    Example:

    ```python
    >>> reward = WeightedReward({"ground_truth": (GroundTruthActionReward(), 1.0)})
    ```
    """

    def __init__(self, rewards: Mapping[str, tuple[Reward, float]], standardize: bool = False):
        if not rewards:
            raise ValueError("rewards is empty. Name at least one reward and its weight.")
        for name, (_, weight) in rewards.items():
            if not math.isfinite(weight):
                raise ValueError(f"The weight of the reward {name!r} is {weight}, expected a finite number.")
        self.rewards = dict(rewards)
        self.standardize = standardize

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "standardize": self.standardize,
            "rewards": {
                name: {"weight": weight, **reward.settings} for name, (reward, weight) in self.rewards.items()
            },
        }

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each reward."""
        return {name: weight for name, (_, weight) in self.rewards.items()}

    def score(self, batch: RewardBatch) -> torch.Tensor:
        return self.combine(self.score_each(batch))

    def check_policy(self, policy: Embodiment) -> None:
        """See [`PolicyBoundReward`]; calls every reward that is one."""
        for reward, _ in self.rewards.values():
            if isinstance(reward, PolicyBoundReward):
                reward.check_policy(policy)

    def check_dataset(self, dataset: LeRobotDataset) -> None:
        """
        Raises:
            ValueError: A reward looks at frames of a camera that the dataset does not have open.
        """
        for camera in self.frames_to_decode(dataset, [0]):
            if camera not in (None, *dataset.opened_keys):
                raise ValueError(
                    f"The world model was trained on the camera {camera!r}, but the dataset is opened with "
                    f"{', '.join(dataset.opened_keys)}. Open it with that camera, or use a world model that was trained on one of "
                    "these."
                )

    def frames_to_decode(self, dataset: LeRobotDataset, indices: Sequence[int]) -> dict[str | None, list[int]]:
        """Camera to the frames that the rewards need, see [`FrameReward`]."""
        frames: dict[str | None, list[int]] = {}
        for reward, _ in self.rewards.values():
            if isinstance(reward, FrameReward):
                key, positions = reward.frames_to_decode(dataset, indices)
                frames[key] = sorted({*frames.get(key, ()), *positions})
        return frames

    def score_each(self, batch: RewardBatch) -> dict[str, torch.Tensor]:
        """
        The rewards before weighting, `(B, N)` each.

        Raises:
            ValueError: a reward of another shape, or with a value that is not finite.
        """
        scores = {name: reward.score(batch) for name, (reward, _) in self.rewards.items()}
        expected = batch.candidates.shape[:2]
        for name, score in scores.items():
            if score.shape != expected:
                raise ValueError(
                    f"Reward {name!r} returned shape {tuple(score.shape)}, expected one value per candidate, "
                    f"{tuple(expected)}."
                )
            if not score.isfinite().all():
                row = int((~score.isfinite()).any(1).nonzero()[0])
                raise ValueError(
                    f"Reward {name!r} is {score[row].tolist()} for the candidates at dataset position "
                    f"{batch.indices[row]}. Check the reward's model and the candidates for NaN."
                )
        return scores

    def combine(self, scores: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum `(B, N)` of what `score_each` returned."""
        return combined_scores(scores, self.weights, self.standardize)


def weighted_scores(
    scores: Mapping[str, torch.Tensor], weights: Mapping[str, float], standardize: bool
) -> dict[str, torch.Tensor]:
    """
    What each reward adds to the sum that candidates are ranked by.

    Args:
        scores (`Mapping[str, torch.Tensor]`): Name of each reward to its scores before weighting, `(B, N)`.
        weights (`Mapping[str, float]`): Its weight.
        standardize (`bool`): See [`WeightedReward`].

    Returns:
        `dict[str, torch.Tensor]`: `(B, N)` each.
    """
    parts = {}
    for name, weight in weights.items():
        score = scores[name]
        if standardize:
            standardized = (score - score.mean(1, keepdim=True)) / score.std(1, correction=0, keepdim=True)
            # Compared exactly: the standard deviation of equal numbers is rounding noise, not always 0.
            is_constant = score.amax(1, keepdim=True) == score.amin(1, keepdim=True)
            score = standardized.masked_fill(is_constant, 0.0)
        parts[name] = weight * score
    return parts


def combined_scores(
    scores: Mapping[str, torch.Tensor], weights: Mapping[str, float], standardize: bool
) -> torch.Tensor:
    """What candidates are ranked by, `(B, N)`: the sum of [`weighted_scores`], with the same arguments."""
    return sum(weighted_scores(scores, weights, standardize).values(), torch.zeros(()))


def preset_reward(
    preset: str,
    world_model: VJEPA2ACModel,
    processor: VJEPA2ACProcessor,
    *,
    goal: str = "end",
    released_horizon: bool = False,
    standardize: bool = False,
    ground_truth: GroundTruthActionReward | None = None,
    conventions: ClipConventions | None = None,
    metric_actions: MetricActions | None = None,
    weights: Mapping[str, float] | None = None,
) -> WeightedReward:
    """
    World-model goal plus deviation from the demonstration, with published weights.

    Args:
        preset (`str`): `"paper"` (1 and 0.5) or `"released"` (1 and 0.1).
        world_model ([`VJEPA2ACModel`]): see [`WorldModelGoalReward`].
        processor ([`VJEPA2ACProcessor`]): see [`WorldModelGoalReward`].
        goal (`str`, *optional*, defaults to `"end"`): see [`WorldModelGoalReward`].
        released_horizon (`bool`, *optional*, defaults to `False`): see [`WorldModelGoalReward`].
        standardize (`bool`, *optional*, defaults to `False`): see [`WeightedReward`].
        ground_truth ([`GroundTruthActionReward`], *optional*): with other weights of its dimensions than the default.
        conventions ([`ClipConventions`], *optional*): see [`WorldModelGoalReward`].
        metric_actions ([`MetricActions`], *optional*): see [`WorldModelGoalReward`].
        weights (`Mapping[str, float]`, *optional*): other ones than the published, by the same names.

    Raises:
        ValueError: an unknown preset, or weights of other rewards than its own.
    """
    if preset not in REWARD_PRESETS:
        raise ValueError(f"preset={preset!r} is unknown. Known: {', '.join(REWARD_PRESETS)}.")
    published = REWARD_PRESETS[preset]
    if weights is not None and weights.keys() != published.keys():
        raise ValueError(f"weights={dict(weights)} must give one weight each for {', '.join(published)}.")
    rewards = {
        "world_model": WorldModelGoalReward(
            world_model, processor, goal, released_horizon, conventions=conventions, metric_actions=metric_actions
        ),
        "ground_truth": ground_truth or GroundTruthActionReward(),
    }
    weighted = {name: (each, (weights or published)[name]) for name, each in rewards.items()}
    return WeightedReward(weighted, standardize)


__all__ = [
    "GOALS",
    "RELEASED_TAIL_FRAMES",
    "REWARD_PRESETS",
    "GroundTruthActionReward",
    "Reward",
    "RewardBatch",
    "WeightedReward",
    "WorldModelGoalReward",
    "combined_scores",
    "preset_reward",
    "weighted_scores",
]
