# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The base of a training seed: demonstrations, supervised policy, world model, candidates and their scores."""

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nora15_hf.clips.clip_conventions import ClipConventions
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.control.chunk_samplers import FlowSampler
from nora15_hf.data import LeRobotDataset
from nora15_hf.evaluation.demonstrations import record_demonstrations
from nora15_hf.nora15 import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.preferences import (
    GroundTruthActionReward,
    Reward,
    RewardBatch,
    WeightedReward,
    WorldModelGoalReward,
    build_preferences,
    load_preferences,
    select_states,
)
from nora15_hf.preferences.reached_states import record_reached_states
from nora15_hf.preferences.simulator_reward import SimulatorSuccessReward
from nora15_hf.preferences.simulator_states import SimulatorStates
from nora15_hf.quickstart.config import DEFAULT_ENVIRONMENT
from nora15_hf.quickstart.policy_stages import CHUNK_SIZE, train_sft
from nora15_hf.quickstart.world_model_stage import train_world_model
from nora15_hf.repo_files.fingerprint import digest
from nora15_hf.repo_files.written_whole import written_whole
from nora15_hf.simulation.simulation_pool import SimulationPool
from nora15_hf.stages.post_training import load_policy
from nora15_hf.stages.stage_runner import StageRunner
from nora15_hf.trainers.policy_setup import complete_chunk_indices
from nora15_hf.vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from raw_results import REWARD_PREFIX, RawResults
from study import REWARDS, Base, Study

DEMONSTRATIONS, POLICY, WORLD_MODEL, RECOVERIES = "demonstrations", "policy-sft", "world-model", "recoveries"
FIRST_REACHED_SEED = 5000
DISCOUNT = 0.99
GOAL_STATES, GOAL_STATES_SEED, GOAL_BATCH = 1600, 321, 32


@cache
def simulators(base: Base) -> SimulationPool:
    """Those of this process, which end with it."""
    settings = base.pipeline(0).environment_settings
    return SimulationPool(DEFAULT_ENVIRONMENT, num_workers=1, **settings)


def base_folder(output: Path, study: Study, seed: int) -> Path:
    """Of a training seed."""
    return output / study.name / f"seed-{seed}"


def recorded_demonstrations(base: Base, folder: Path) -> Path:
    """Demonstrations for all training seeds, which are recorded unless they are there."""
    recording = json.dumps([base.tasks, base.demonstrations])
    root = folder / f"{DEMONSTRATIONS}-{digest([recording.encode()])}"
    if not root.exists():
        with written_whole(root) as part:
            record_demonstrations(part, base.tasks, base.demonstrations, pool=simulators(base))
    return root


def make_base(study: Study, seed: int, states: Collection[str], output: Path, results: RawResults) -> str:
    """Policy, world model, and candidates with scores at those states that arms need."""
    folder = base_folder(output, study, seed)
    runner = StageRunner(
        folder,
        ".study",
        {"base": study.base.settings, "seed": seed},
        made_by="the study",
        resume=folder.exists(),
        overwrite=False,
        num_stages=1 + study.base.world_model + len(states),
    )
    if not (folder / DEMONSTRATIONS).exists():
        demonstrations = recorded_demonstrations(study.base, folder.parent)
        (folder / DEMONSTRATIONS).symlink_to(Path("..") / demonstrations.name)
    config = study.base.pipeline(seed)
    runner.run("policy", "Policy", lambda: train_sft(folder, config), (POLICY,))
    if study.base.world_model:
        runner.run("world-model", "World model", lambda: train_world_model(folder, config), (WORLD_MODEL,))
        if not results.goals_file(study.name, seed).exists():
            _measure_goals(study, folder, seed, results)
    if "demonstrations" in states:
        runner.run("candidates", "Candidates", lambda: _score_demonstrated(study, folder, seed))
    if RECOVERIES in states:
        runner.run(RECOVERIES, "Recoveries", lambda: _score_recoveries(study, folder, seed), (RECOVERIES,))
    if "rollouts" in states:
        runner.run("rollouts", "Rolled-out candidates", lambda: _roll_out(study, folder, seed))
        if not results.candidates_file(study.name, seed).exists():
            _write_rollouts(study, folder, seed, results)
    return ", ".join(f"{cost.name.lower()} {cost.seconds:.0f} s" for cost in runner.costs)


def open_states(folder: Path, states: str) -> LeRobotDataset:
    """The dataset that a set of candidates belongs to."""
    return open_dataset(folder / (RECOVERIES if states == RECOVERIES else DEMONSTRATIONS))


def candidates_folder(folder: Path, states: str) -> Path:
    """The preference set of demonstrated states, of those that were rolled out, or of the expert's recoveries."""
    return folder / f"preferences-{states}"


def rewards_without_simulator(folder: Path) -> dict[str, Reward]:
    """The distance to the demonstration and, where there is a world model, to both goals."""
    rewards: dict[str, Reward] = {"ground_truth": GroundTruthActionReward()}
    if (folder / WORLD_MODEL).exists():
        model = VJEPA2ACModel.from_pretrained(folder / WORLD_MODEL)
        processor = VJEPA2ACProcessor.from_pretrained(folder / WORLD_MODEL)
        conventions = ClipConventions.from_pretrained(folder / WORLD_MODEL)
        for name, goal in (("end_goal", "end"), ("subgoal", "subgoal")):
            rewards[name] = WorldModelGoalReward(model, processor, goal, conventions=conventions)
    return rewards


def score_candidates(
    study: Study,
    folder: Path,
    target: Path,
    policy: Nora15ForActionPrediction,
    processor: Nora15Processor,
    dataset: LeRobotDataset,
    *,
    seed: int,
    names: Collection[str] = REWARDS,
) -> dict[str, Any]:
    """Candidates at some of the states with a whole chunk behind them, scored by those of the named rewards that there are."""
    complete = complete_chunk_indices(dataset).tolist()
    indices = select_states(dataset, min(study.base.states, len(complete)), among=complete, seed=seed)
    rewards = {name: reward for name, reward in rewards_without_simulator(folder).items() if name in names}
    return _build(study, target, rewards, policy, processor, dataset, indices, seed)


def _build(
    study: Study,
    target: Path,
    rewards: dict[str, Reward],
    policy: Nora15ForActionPrediction,
    processor: Nora15Processor,
    dataset: LeRobotDataset,
    indices: list[int],
    seed: int,
) -> dict[str, Any]:
    """Each reward has the weight 1; arms weight them anew."""
    rows = build_preferences(
        target,
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=indices,
        reward=WeightedReward({name: (reward, 1.0) for name, reward in rewards.items()}),
        num_candidates=study.base.candidates,
        sampler=FlowSampler(temperature=study.base.candidate_temperature),
        seed=seed,
    )
    return {"pairs": len(rows), "states": len(indices)}


def _score_demonstrated(study: Study, folder: Path, seed: int) -> dict[str, Any]:
    target, dataset = candidates_folder(folder, "demonstrations"), open_states(folder, "demonstrations")
    return score_candidates(study, folder, target, *load_policy(folder / POLICY), dataset, seed=seed)


def record_recoveries(
    study: Study, root: Path, policy: Nora15ForActionPrediction, processor: Nora15Processor, first_seed: int
) -> None:
    """Demonstrations that begin where the policy led."""
    record_reached_states(
        root,
        Nora15ChunkPolicy(policy, processor, DEFAULT_ENVIRONMENT),
        study.base.tasks,
        study.base.reached_episodes,
        pool=simulators(study.base),
        first_seed=first_seed,
    )


def open_dataset(root: Path) -> LeRobotDataset:
    """Demonstrations, or the episodes of [`record_recoveries`]."""
    return LeRobotDataset(root, chunk_size=CHUNK_SIZE, dataset_key=DEFAULT_ENVIRONMENT)


def _score_recoveries(study: Study, folder: Path, seed: int) -> dict[str, Any]:
    policy, processor = load_policy(folder / POLICY)
    first_seed = FIRST_REACHED_SEED + seed * study.base.reached_episodes
    record_recoveries(study, folder / RECOVERIES, policy, processor, first_seed)
    target, dataset = candidates_folder(folder, RECOVERIES), open_states(folder, RECOVERIES)
    return score_candidates(study, folder, target, policy, processor, dataset, seed=seed)


def _measure_goals(study: Study, folder: Path, seed: int, results: RawResults) -> None:
    """Whether demonstrated chunks end nearer to the end of their episode than they begin, as the world model's encoder sees it."""
    dataset = open_states(folder, "demonstrations")
    complete = complete_chunk_indices(dataset).tolist()
    indices = select_states(
        dataset, min(GOAL_STATES, len(complete)), strategy="per_task", among=complete, seed=GOAL_STATES_SEED
    )
    reward = rewards_without_simulator(folder)["end_goal"]
    tasks = {study.base.pipeline(seed).task(name).instruction: name for name in study.base.tasks}
    table = []
    for start in range(0, len(indices), GOAL_BATCH):
        positions = indices[start : start + GOAL_BATCH]
        samples = [dataset[position] for position in positions]
        chunks = torch.from_numpy(np.stack([sample["actions"] for sample in samples]))
        batch = RewardBatch(dataset, positions, samples, chunks[:, None], chunks, torch.ones(chunks.shape[:2]) > 0)
        for sample, nearer in zip(samples, reward.nears_goal(batch).tolist(), strict=True):
            position = sample["index"]
            length = 1 + dataset.last_frame_index(position) - dataset.first_frame_index(position)
            table.append(
                {
                    "task": tasks[sample["instruction"]],
                    "state": position,
                    "progress": sample["frame_index"] / length,
                    "nears_goal": nearer,
                }
            )
    results.write_goals(study.name, seed, table, settings=study.settings())


def _roll_out(study: Study, folder: Path, seed: int) -> dict[str, Any]:
    """Candidates, and whether the policy succeeds after each of them."""
    policy, processor = load_policy(folder / POLICY)
    dataset = open_states(folder, "rollouts")
    complete = complete_chunk_indices(dataset).tolist()
    indices = select_states(dataset, study.base.rollout_states, strategy="per_task", among=complete, seed=seed)
    success = SimulatorSuccessReward(
        simulators(study.base),
        processor,
        dataset,
        policy=Nora15ChunkPolicy(policy, processor, DEFAULT_ENVIRONMENT),
        discount=DISCOUNT,
    )
    rewards = {"success": success} | rewards_without_simulator(folder)
    target = candidates_folder(folder, "rollouts")
    return _build(study, target, rewards, policy, processor, dataset, indices, seed)


def _write_rollouts(study: Study, folder: Path, seed: int, results: RawResults) -> None:
    """What became of the candidates, beside what the rewards say about them, as raw results."""
    dataset, target = open_states(folder, "rollouts"), candidates_folder(folder, "rollouts")
    states = SimulatorStates(dataset)
    table = []
    lengths = (dataset.episodes["to"] - dataset.episodes["from"]).tolist()
    for number, row in enumerate(load_preferences(target).remove_columns(["images"])):
        episode, frame = row["episode_index"], row["frame_index"]
        state = states.state(episode, frame)
        scores = dict(row["rewards"])
        for candidate, value in enumerate(scores.pop("success")):
            table.append(
                {
                    "state": number,
                    "task": state.task,
                    "episode_seed": state.seed,
                    "frame": frame,
                    "progress": frame / lengths[episode],
                    "candidate": candidate,
                    "success": value > 0,
                    "num_steps": round(float(np.log(value) / np.log(DISCOUNT))) if value > 0 else -1,
                    **{f"{REWARD_PREFIX}{name}": values[candidate] for name, values in scores.items()},
                }
            )
    results.write_candidates(study.name, seed, table, settings=study.settings())
