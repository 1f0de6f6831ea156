# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a run of preference rounds does: where states come from, what ranks candidates, and the budget of a round."""

import dataclasses
from typing import Any

from ..runtime.noise_temperature import check_noise_temperature

STATES_FROM = ("demonstrations", "simulator", "episodes")
REFERENCES = ("previous", "first")
FIRST_REACHED_SEED = 5000
"""Of the episodes in which the policy collects states: behind those of demonstrations, and before those of evaluation."""
MOST_REACHED_EPISODES = 5000
_LEAST = {"num_candidates": 2, "refresh_steps": 0, "evaluation_episodes": 0, "seed": 0}
"""Of whole numbers that may be 0, or must be more than 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """
    A run of preference rounds.

    Args:
        policy (`str`): Folder or Hub id of the policy that the first round begins with.
        demonstrations (`str`):
            Folder or Hub id of a LeRobot dataset that the policy knows: what supervised training, the control, goes on with, and
            by its conventions the simulator.
        policy_revision (`str`, *optional*), demonstrations_revision (`str`, *optional*): Branch, tag or commit of them.
        dataset_key (`str`, *optional*): The policy's key of the demonstrations.
        rounds (`int`, *optional*, defaults to 3): Rounds at most; a finished run can be continued with more.
        states_from (`str`, *optional*, defaults to `"demonstrations"`):
            `"demonstrations"`: other states of them in each round. `"simulator"`: demonstrations of the scripted expert
            that begin where the policy of the round led. `"episodes"`: the next of the recordings of `episodes`.
        episodes (`tuple[str, ...]`, *optional*): For `"episodes"`: a LeRobot dataset for each round, folder or Hub id.
        reached_episodes (`int`, *optional*, defaults to 10): For `"simulator"`: episodes per task and round.
        max_policy_steps (`int`, *optional*, defaults to 60): For `"simulator"`: most steps of the policy in one of them.
        num_states (`int`, *optional*, defaults to 1500): States of a round, or all where there are fewer.
        num_candidates (`int`, *optional*, defaults to 5): Chunks sampled at each.
        reward (`str`, *optional*, defaults to `"paper"`): See [`~nora15_hf.preferences.reward_loading.load_reward`].
        world_model (`str`, *optional*): Folder or Hub id, for the reward presets.
        refresh_steps (`int`, *optional*, defaults to 0):
            Steps for which the world model's predictor is trained on the episodes of each round before they are judged.
        refresh_batch_size (`int`, *optional*, defaults to 8), refresh_learning_rate (`float`, *optional*, defaults to 1e-4):
            Of these steps.
        reference (`str`, *optional*, defaults to `"previous"`):
            Of flow DPO: the policy that the round began with, or the `"first"` policy of the run.
        steps (`int`), batch_size (`int`), learning_rate (`float`), beta (`float`):
            Flow DPO of a round; continued supervised training goes on for as long.
        tasks (`tuple[str, ...]`, *optional*): Of the simulator; those of the demonstrations by default.
        evaluation_episodes (`int`, *optional*, defaults to 25):
            Per task. With 0 nothing is evaluated and no control is trained, as for a robot without a simulator.
        n_action_steps (`int`, *optional*, defaults to 5): Actions executed of each chunk.
        temperature (`float`, *optional*, defaults to 1.0):
            Of the flow's noise when the policy acts in the simulator, see [`FlowSampler`]. Candidates are sampled at 1.
        tolerated_loss (`float`, *optional*, defaults to 0.0):
            By how much the success rate may fall in a round before the round counts as lost and the run stops.
        num_workers (`int`, *optional*): Simulator processes; one per CPU by default.
        hub_model_id (`str`, *optional*):
            Repo on the Hub. Each round that is not lost is pushed there with the tag `round-N`, its preferences to the dataset
            repo of that name with `-preferences` behind it.
        seed (`int`, *optional*, defaults to 0): Of states, candidates and training.

    Raises:
        ValueError: Options that exclude each other, one that needs another, or a number that is too small.
    """

    policy: str
    demonstrations: str
    policy_revision: str | None = None
    demonstrations_revision: str | None = None
    dataset_key: str | None = None
    rounds: int = 3
    states_from: str = "demonstrations"
    episodes: tuple[str, ...] = ()
    reached_episodes: int = 10
    max_policy_steps: int = 60
    num_states: int = 1500
    num_candidates: int = 5
    reward: str = "paper"
    world_model: str | None = None
    refresh_steps: int = 0
    refresh_batch_size: int = 8
    refresh_learning_rate: float = 1e-4
    reference: str = "previous"
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-5
    beta: float = 50.0
    tasks: tuple[str, ...] = ()
    evaluation_episodes: int = 25
    n_action_steps: int = 5
    temperature: float = 1.0
    tolerated_loss: float = 0.0
    num_workers: int | None = None
    hub_model_id: str | None = None
    seed: int = 0

    def __post_init__(self):
        check_noise_temperature(self.temperature)
        for field in dataclasses.fields(self):
            least = _LEAST.get(field.name, 1)
            value = getattr(self, field.name)
            if field.type is int and value < least:
                raise ValueError(f"{field.name}={value} must be at least {least}.")
        for name, choices in (("states_from", STATES_FROM), ("reference", REFERENCES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(choices)}.")
        if self.states_from == "episodes" and len(self.episodes) < self.rounds:
            raise ValueError(
                f"states_from='episodes' needs a recording for each of the {self.rounds} rounds, but episodes names "
                f"{len(self.episodes)}. Lower rounds; the run can be continued with more of both once they are recorded."
            )
        if self.states_from != "episodes" and self.episodes:
            raise ValueError(
                f"episodes={list(self.episodes)} is not looked at with states_from={self.states_from!r}. Set states_from to "
                "'episodes', or leave episodes out."
            )
        needs_world_model = self.reward not in ("ground_truth", "success")
        if needs_world_model and self.world_model is None:
            raise ValueError(f"reward={self.reward!r} needs world_model. Without one set reward to 'ground_truth'.")
        if not needs_world_model and self.world_model is not None:
            raise ValueError(
                f"world_model={self.world_model!r} has no effect with reward={self.reward!r}. Leave it out."
            )
        if self.refresh_steps and (not needs_world_model or self.states_from == "demonstrations"):
            raise ValueError(
                f"refresh_steps={self.refresh_steps} trains a world model on new episodes, but reward={self.reward!r} with "
                f"states_from={self.states_from!r} has none of the one or of the other. Leave it out."
            )
        if self.states_from == "simulator" and self.rounds * self.reached_episodes > MOST_REACHED_EPISODES:
            raise ValueError(
                f"{self.rounds} rounds of reached_episodes={self.reached_episodes} need more than the {MOST_REACHED_EPISODES} "
                "seeds between demonstrations and evaluation. Lower one of them."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What a run that is continued must have in common with its beginning: all but how far it goes."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in ("rounds", "episodes")}

    @property
    def needs_simulator(self) -> bool:
        """Whether episodes are run, to collect states, to judge or to evaluate."""
        return bool(self.evaluation_episodes) or self.states_from == "simulator" or self.reward == "success"


__all__ = ["FIRST_REACHED_SEED", "REFERENCES", "STATES_FROM", "RoundsConfig"]
