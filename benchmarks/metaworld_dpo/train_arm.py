# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One arm on one training seed: training on from the base, and evaluation on the study's episodes."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from filelock import FileLock
from transformers import set_seed

from base import (
    FIRST_REACHED_SEED,
    POLICY,
    RECOVERIES,
    base_folder,
    candidates_folder,
    open_dataset,
    open_states,
    record_recoveries,
    score_candidates,
    simulators,
)
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.control.chunk_samplers import FlowSampler, GreedyFastSampler
from nora15_hf.evaluation.evaluate import evaluate_policy
from nora15_hf.nora15 import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.preferences import load_preferences, rerank_preferences, sample_candidates, select_states
from nora15_hf.preferences.labelling import demonstrated_chunks
from nora15_hf.quickstart.config import DEFAULT_ENVIRONMENT
from nora15_hf.quickstart.policy_stages import demonstrated_states
from nora15_hf.repo_files.fingerprint import digest
from nora15_hf.repo_files.json_files import read_json, write_json
from nora15_hf.stages.post_training import (
    PostTraining,
    continue_supervised,
    curves,
    load_policy,
    save_policy,
    tune_with_dpo,
)
from nora15_hf.trainers.policy_setup import complete_chunk_indices
from nora15_hf.trainers.supervised.sft_config import Nora15SFTConfig
from nora15_hf.trainers.supervised.sft_trainer import Nora15SFTTrainer
from raw_results import RawResults
from study import Arm, Study

N_ACTION_STEPS = 5
SAMPLED_STATES, SAMPLED_STATES_SEED, SAMPLING_BATCH = 256, 123, 32


def run_arm(study: Study, seed: int, name: str, output: Path, results: RawResults) -> str:
    """Trains and evaluates unless the result is there, and says how often the policy succeeded."""
    arm, settings = study.arms[name], study.settings(name)
    told = " (done before)"
    if not results.has_episodes(study.name, seed, name, settings=settings):
        began = time.perf_counter()
        model, processor, found = _trained(study, arm, seed, base_folder(output, study, seed))
        trained = time.perf_counter()
        episodes = evaluate_policy(
            Nora15ChunkPolicy(model, processor, DEFAULT_ENVIRONMENT, sampler_of(arm)),
            study.base.tasks,
            simulators(study.base),
            episodes_per_task=study.episodes_per_task,
            first_seed=study.first_episode(seed),
            n_action_steps=N_ACTION_STEPS,
        )
        lost = [each for each in episodes if not each.counts]
        if lost:
            raise RuntimeError(f"The simulator failed in {len(lost)} episodes of {name}: {lost[0].log}")
        if arm.decoder == "flow":
            found |= sample_figures(study, arm, base_folder(output, study, seed), model, processor)
        results.write_curves(study.name, seed, name, found)
        results.write_episodes(
            study.name,
            seed,
            name,
            [
                {"task": each.task, "episode_seed": each.seed, "success": each.success, "num_steps": each.num_steps}
                for each in episodes
            ],
            settings=settings,
        )
        told = f" ({trained - began:.0f} s of training, {time.perf_counter() - trained:.0f} s of evaluation)"
    success = pd.read_parquet(results.episodes_file(study.name, seed, name), columns=["success"])["success"]
    return f"{success.sum()}/{len(success)}{told}"


def sampler_of(arm: Arm) -> FlowSampler | GreedyFastSampler:
    """How an arm's policy is asked."""
    return FlowSampler(temperature=arm.temperature) if arm.decoder == "flow" else GreedyFastSampler(on_invalid="mask")


def sample_figures(
    study: Study, arm: Arm, folder: Path, model: Nora15ForActionPrediction, processor: Nora15Processor
) -> dict[str, list[tuple[int, float]]]:
    """
    How far the samples of a policy differ among themselves, and from the demonstrated chunk, at demonstrated states that are the
    same for all arms: standard deviation and mean absolute difference, in normalised units.
    """
    dataset = open_states(folder, "demonstrations")
    indices = select_states(
        dataset,
        min(SAMPLED_STATES, study.base.states),
        among=complete_chunk_indices(dataset).tolist(),
        seed=SAMPLED_STATES_SEED,
    )
    spread, error = [], []
    for start in range(0, len(indices), SAMPLING_BATCH):
        samples = [dataset[index] for index in indices[start : start + SAMPLING_BATCH]]
        candidates = sample_candidates(
            model,
            processor,
            samples,
            num_candidates=study.base.candidates,
            sampler=sampler_of(arm),
        )
        demonstrated = demonstrated_chunks(dataset, processor, samples)
        spread.append(candidates.std(1).mean((1, 2)))
        error.append((candidates - demonstrated[:, None]).abs().mean((1, 2, 3)))
    steps = arm.steps if arm.needed_states else 0
    return {
        "samples/spread": [(steps, float(torch.cat(spread).mean()))],
        "samples/error": [(steps, float(torch.cat(error).mean()))],
    }


def _trained(
    study: Study, arm: Arm, seed: int, folder: Path
) -> tuple[Nora15ForActionPrediction, Nora15Processor, dict[str, Any]]:
    """The arm's policy and its training curves; arms that differ in how they are evaluated alone share them."""
    if arm.kind == "supervised":
        return *load_policy(folder / POLICY), {}
    policy = (
        folder / "policies" / digest([json.dumps(replace(arm, temperature=1.0).settings, sort_keys=True).encode()])
    )
    policy.parent.mkdir(exist_ok=True)
    # Arms of a training seed may run side by side, and share policies and encoded prompts.
    with FileLock(folder / "training.lock"):
        if not policy.exists():
            work = policy.with_name(f"{policy.name}-training")
            shutil.rmtree(work, ignore_errors=True)
            model, processor = load_policy(folder / POLICY)
            found = _train(study, arm, seed, folder, work, model, processor)
            write_json(folder / "policies" / f"{policy.name}.json", found)
            save_policy(policy, model, processor)
            shutil.rmtree(work, ignore_errors=True)
    return *load_policy(policy), read_json(folder / "policies" / f"{policy.name}.json")


def _train(
    study: Study,
    arm: Arm,
    seed: int,
    folder: Path,
    work: Path,
    model: Nora15ForActionPrediction,
    processor: Nora15Processor,
) -> dict[str, Any]:
    budget = PostTraining(
        steps=arm.steps,
        batch_size=arm.batch_size,
        learning_rate=arm.learning_rate,
        beta=arm.beta,
        sft_weight=arm.sft_weight,
        seed=seed,
    )
    match arm.kind:
        case "continued_sft":
            dataset = open_states(folder, arm.states)
            states = demonstrated_states(dataset, load_preferences(candidates_folder(folder, arm.states)))
            return continue_supervised(model, processor, dataset, states, work, budget)
        case "reward_weighted":
            rows = _ranked(candidates_folder(folder, arm.states), arm)
            return _train_reward_weighted(model, processor, rows, work, budget)
        case "dpo":
            found = {}
            for number in range(arm.rounds):
                source = candidates_folder(folder, arm.states)
                if number:
                    source = work / f"candidates-{number}"
                    _sample_again(study, arm, seed, folder, work, source, model, processor, number)
                round_found = tune_with_dpo(
                    model,
                    processor,
                    _ranked(source, arm),
                    work / "trainer",
                    budget,
                    prefix_cache=folder / "prefixes" / arm.states,
                )
                found |= {f"round {number + 1}: {key}" if number else key: curve for key, curve in round_found.items()}
            return found
    raise ValueError(f"kind={arm.kind!r} of an arm is unknown.")


def _ranked(source: Path, arm: Arm) -> Dataset:
    return rerank_preferences(load_preferences(source), arm.rewards, standardize=arm.standardize)


def _train_reward_weighted(
    model: Nora15ForActionPrediction, processor: Nora15Processor, rows: Dataset, work: Path, budget: PostTraining
) -> dict[str, Any]:
    """Advantage-weighted regression on all candidates of the states that the other arms see."""
    set_seed(budget.seed)
    trainer = Nora15SFTTrainer(
        model=model,
        args=Nora15SFTConfig(**budget.arguments(work), objective="flow", freeze=["backbone"], reward_weighting={}),
        train_dataset=rows,
        processing_class=processor,
    )
    trainer.train()
    return curves(trainer.state.log_history, ("flow_loss",))


def _sample_again(
    study: Study,
    arm: Arm,
    seed: int,
    folder: Path,
    work: Path,
    target: Path,
    model: Nora15ForActionPrediction,
    processor: Nora15Processor,
    number: int,
) -> None:
    """Candidates of the policy as it is now, at other states: demonstrated ones, or recoveries from where it leads."""
    if arm.states == RECOVERIES:
        root = work / f"{RECOVERIES}-{number}"
        # Other episodes than those of the first round, for training seeds below 100.
        first_seed = FIRST_REACHED_SEED + (100 * number + seed) * study.base.reached_episodes
        record_recoveries(study, root, model, processor, first_seed)
        dataset = open_dataset(root)
    else:
        dataset = open_states(folder, arm.states)
    seed = 1000 * number + seed
    score_candidates(study, folder, target, model, processor, dataset, seed=seed, names=arm.rewards)
