# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The reward from the simulator: does the episode succeed after this chunk?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin

from ..control.chunk_policy import Nora15ChunkPolicy
from ..data.lerobot_dataset import LeRobotDataset
from ..evaluation.demonstrations import require_expert
from ..evaluation.environment_fit import check_policy_fits, check_recording_fits
from ..evaluation.lockstep import DrivenEpisode, drive_in_lockstep
from ..repo_files.fingerprint import artefact_name, fingerprint
from ..simulation.simulation_pool import SimulationPool
from .rewards import RewardBatch
from .simulator_states import SimulatorState, SimulatorStates


@dataclass
class _Trial:
    """A candidate at its state."""

    position: tuple[int, int]
    state: SimulatorState
    instruction: str
    chunk: np.ndarray


class SimulatorSuccessReward:
    """
    Success of the episode that continues with a candidate: the state is reached again in the simulator, the whole chunk
    is executed, and then the policy or the expert goes on until success or the step limit.

    The score is `discount ** steps` with the control steps from the state to success, 0 without success; with the default
    discount 1 or 0. It is deterministic: the simulator repeats itself bit by bit, and the noise of the continuing policy
    depends on the episode's seed and the frame alone, so that the candidates of a state meet the same luck.

    Args:
        pool ([`SimulationPool`]): simulators under the dataset's conventions.
        processor ([`Nora15Processor`]): of the policy that sampled the candidates; knows their physical units.
        dataset ([`LeRobotDataset`]): the dataset of the states, with all its episodes.
        policy ([`Nora15ChunkPolicy`], *optional*): who continues; the scripted expert by default.
        discount (`float`, *optional*, defaults to 1.0): in (0, 1]; below 1 earlier success scores higher.
        n_action_steps (`int`, *optional*, defaults to 5): actions that the policy executes before it looks again.

    Raises:
        ValueError: another discount, a pool that does not agree with the dataset's conventions or that the candidates' or
            the continuing policy does not fit (see [`check_policy_fits`]), or no policy and no scripted expert.
    """

    def __init__(
        self,
        pool: SimulationPool,
        processor: ProcessorMixin,
        dataset: LeRobotDataset,
        *,
        policy: Nora15ChunkPolicy | None = None,
        discount: float = 1.0,
        n_action_steps: int = 5,
    ):
        if not 0 < discount <= 1:
            raise ValueError(f"discount={discount} must lie in (0, 1].")
        check_recording_fits(dataset, pool.spec)
        check_policy_fits(processor, pool.spec, dataset.dataset_key)
        if policy is None:
            require_expert(pool.spec)
        else:
            check_policy_fits(policy.processor, pool.spec, policy.dataset_key)
        self.pool = pool
        self.processor = processor
        self.states = SimulatorStates(dataset)
        self.policy = policy
        self.discount = discount
        self.n_action_steps = n_action_steps

    @property
    def settings(self) -> dict[str, Any]:
        settings = {"type": type(self).__name__, "discount": self.discount, "continued_by": "expert"}
        if self.policy is not None:
            model = self.policy.model
            settings |= {
                "continued_by": artefact_name(model.config.name_or_path),
                "continued_by_fingerprint": fingerprint(model.state_dict()),
                "n_action_steps": self.n_action_steps,
            }
        return settings | {"simulator": dict(self.pool.spec.conventions)}

    def score(self, batch: RewardBatch) -> torch.Tensor:
        scores = torch.zeros(batch.candidates.shape[:2])
        trials = []
        for row, sample in enumerate(batch.samples):
            state = self.states.state(sample["episode_index"], sample["frame_index"])
            chunks = self.processor.unnormalize_actions(
                batch.candidates[row].numpy(),
                sample["dataset_key"],
                state=np.stack([sample["state"]] * scores.shape[1]),
            )
            trials += [
                _Trial((row, number), state, sample["instruction"], chunk) for number, chunk in enumerate(chunks)
            ]
        for start in range(0, len(trials), self.pool.num_slots):
            group = trials[start : start + self.pool.num_slots]
            for trial, (success, num_steps) in zip(group, self._run(group), strict=True):
                if success:
                    scores[trial.position] = self.discount ** (num_steps - len(trial.state.executed))
        return scores

    def _run(self, trials: Sequence[_Trial]) -> list[tuple[bool, int]]:
        """Success and steps of the episode, of trials that have a slot each."""
        self.pool.restore(
            [(slot, trial.state.task, trial.state.seed, trial.state.executed) for slot, trial in enumerate(trials)]
        )
        outcomes = dict(enumerate(self.pool.advance([(slot, trial.chunk) for slot, trial in enumerate(trials)])))
        running = [slot for slot, outcome in outcomes.items() if not outcome.ended]
        if self.policy is None:
            ends = {slot: (outcome.success, outcome.num_steps) for slot, outcome in outcomes.items()}
            ends.update(zip(running, self.pool.finish_with_expert(running), strict=True))
            return list(ends.values())
        driven = {
            slot: DrivenEpisode(
                replace(outcomes[slot].observation, instruction=trials[slot].instruction),
                (trials[slot].state.seed, len(trials[slot].state.executed)),
                replan=1,  # the candidate was the first chunk
            )
            for slot in running
        }
        for actions in drive_in_lockstep(
            self.policy, driven, n_action_steps=self.n_action_steps, action_dim=self.pool.spec.action_dim
        ):
            for slot, outcome in zip(actions, self.pool.advance(list(actions.items())), strict=True):
                outcomes[slot] = outcome
                driven[slot].observation = replace(outcome.observation, instruction=trials[slot].instruction)
                if outcome.ended:
                    del driven[slot]
        return [(outcome.success, outcome.num_steps) for outcome in outcomes.values()]


__all__ = ["SimulatorSuccessReward"]
