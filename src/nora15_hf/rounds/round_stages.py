# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The stages of a round: states, world model, preferences, flow DPO, its control, evaluation.

Each reads what it needs from the run's folder and returns what JSON can hold.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ..clips.clip_conventions import ClipConventions
from ..clips.episode_clips import EpisodeClips
from ..control.chunk_policy import Nora15ChunkPolicy
from ..control.chunk_samplers import FlowSampler
from ..data.dataset_fingerprint import dataset_fingerprint, samples_fingerprint
from ..data.lerobot_dataset import LeRobotDataset
from ..data.policy_fit import fit_dataset
from ..evaluation.environment_fit import check_policy_fits
from ..evaluation.evaluation_run import run_evaluation
from ..evaluation.results import EvaluationResults, compare_results
from ..nora15 import Nora15Processor
from ..preferences.dataset_builder import NoPairsError, build_preferences
from ..preferences.preference_dataset import load_preferences
from ..preferences.reached_states import check_policy_steps, record_reached_states
from ..preferences.reward_loading import load_reward
from ..preferences.states import select_states
from ..repo_files.fingerprint import artefact_name
from ..repo_files.written_whole import written_whole
from ..runtime.device import usable_device
from ..stages.loss_progress import show_losses
from ..stages.post_training import (
    continue_supervised,
    load_policy,
    save_policy,
    stage_arguments,
    tune_with_dpo,
)
from ..trainers.policy_setup import complete_chunk_indices
from ..trainers.world_model.world_model_trainer import WorldModelTrainer
from ..trainers.world_model.world_model_training_config import WorldModelTrainingConfig
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from .config import FIRST_REACHED_SEED
from .round_folders import CONTROL, POLICY, RoundsRun

EVALUATION = "evaluation"
# As the quickstart trains its world model.
AUTOREGRESSIVE_STEPS = 3


def begin(run: RoundsRun, number: int) -> dict[str, Any]:
    """
    Copies policy and world model into round 0, so that later stages need nothing else. Compares everything that meets in later
    stages first: policy, demonstrations, world model, simulator.

    Returns:
        `dict`: `dataset_key` and `chunk_size` of the policy.
    """
    config = run.config
    model, processor = load_policy(config.policy, revision=config.policy_revision)
    chunk_size = model.config.chunk_size
    dataset = fit_dataset(replace(run, chunk_size=chunk_size).demonstrations, processor)
    key = dataset.dataset_key
    if config.n_action_steps > chunk_size:
        raise ValueError(
            f"n_action_steps={config.n_action_steps} is more than the policy's chunk of {chunk_size} actions."
        )
    if run.pool is not None:
        check_policy_fits(processor, run.pool.spec, key)
        for task in run.tasks:
            run.pool.spec.task(task)
        if config.states_from == "simulator":
            check_policy_steps(run.pool.spec, config.max_policy_steps, config.n_action_steps)
    opened = replace(run, dataset_key=key, chunk_size=chunk_size)
    datasets = [dataset]
    if config.states_from == "episodes":
        datasets += [_recording(opened, 1 + index, processor) for index in range(len(config.episodes))]
    if config.world_model is not None:
        reward = load_reward(config.reward, processor, dataset, world_model=config.world_model)
        reward.check_policy(processor.embodiment(key))
        for each in datasets:
            reward.check_dataset(each)
        with written_whole(run.world_model(number)) as part:
            VJEPA2ACModel.from_pretrained(config.world_model).save_pretrained(part)
            VJEPA2ACProcessor.from_pretrained(config.world_model).save_pretrained(part)
            ClipConventions.from_pretrained(config.world_model).save_pretrained(part)
    save_policy(run.policy(number), model, processor)
    return {"dataset_key": key, "chunk_size": chunk_size}


def collect_episodes(run: RoundsRun, number: int) -> dict[str, Any]:
    """
    Episodes in which the policy of the round acts, with `states_from="simulator"`.

    Returns:
        `dict`: `episodes`, the name of the dataset, and of a recording the fingerprint of its samples as `samples`.
    """
    config = run.config
    if config.states_from == "simulator":
        record_reached_states(
            run.episodes(number),
            _chunk_policy(run, run.policy(number - 1)),
            run.tasks,
            config.reached_episodes,
            pool=run.pool,
            max_policy_steps=config.max_policy_steps,
            n_action_steps=config.n_action_steps,
            first_seed=FIRST_REACHED_SEED + (number - 1) * config.reached_episodes,
        )
    found = {"episodes": artefact_name(str(run.episodes(number)))}
    if config.states_from == "episodes":
        processor = Nora15Processor.from_pretrained(run.policy(0))
        found["samples"] = samples_fingerprint(_recording(run, number, processor))
    return found


def _recording(run: RoundsRun, number: int, processor: Nora15Processor) -> LeRobotDataset:
    """
    What was recorded for a round.

    Raises:
        FileNotFoundError: There is no such dataset.
        ValueError: The policy does not fit it.
    """
    return fit_dataset(run.states_dataset(number), processor)


def refresh_world_model(run: RoundsRun, number: int) -> dict[str, Any]:
    """
    Trains the predictor of the last round's world model on the episodes of this one; the encoder stays as it is.

    Raises:
        EmbodimentError: The episodes were recorded otherwise than what the world model was trained on.
    """
    config, before = run.config, run.world_model(number - 1)
    model = VJEPA2ACModel.from_pretrained(before, dtype=torch.float32)
    processor = VJEPA2ACProcessor.from_pretrained(before)
    conventions = ClipConventions.from_pretrained(before)
    dataset = conventions.open_dataset(run.episodes(number))
    conventions.check_dataset(dataset)
    conventions = replace(
        conventions,
        dataset=artefact_name(str(run.episodes(number))),
        dataset_fingerprint=dataset_fingerprint(dataset),
        held_out_episodes=(),
    )
    trainer = WorldModelTrainer(
        model,
        WorldModelTrainingConfig(
            **stage_arguments(
                run.trainer(number, "world-model"),
                config.refresh_steps,
                config.refresh_batch_size,
                config.seed + number,
            ),
            learning_rate=config.refresh_learning_rate,
            warmup_steps=config.refresh_steps // 10,
            weight_decay=0.01,
            adam_beta2=0.95,
            auto_steps=AUTOREGRESSIVE_STEPS,
            # So few steps do not look at every frame.
            precompute_latents=False,
        ),
        train_dataset=EpisodeClips(dataset, conventions, num_frames=AUTOREGRESSIVE_STEPS + 2),
        processing_class=processor,
    )
    show_losses(trainer, "World model", ("teacher_forcing_loss", "autoregressive_loss"))
    trainer.train()
    if PartialState().is_main_process:
        with written_whole(run.world_model(number)) as part:
            model.save_pretrained(part)
            processor.save_pretrained(part)
            conventions.save_pretrained(part)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {"first_loss": losses[0], "last_loss": losses[-1]}


def label(run: RoundsRun, number: int) -> dict[str, Any]:
    """Candidates of the round's policy at its states, ranked by the reward and paired."""
    config, device = run.config, usable_device()
    model, processor = load_policy(run.policy(number - 1))
    dataset = fit_dataset(run.states_dataset(number), processor)
    allowed = complete_chunk_indices(dataset).tolist()
    num_states = min(config.num_states, len(allowed))
    if not num_states:
        return {"states": 0, "pairs": 0, "reason": "no state is followed by a complete chunk."}
    reward = load_reward(
        config.reward, processor, dataset, world_model=run.world_model(number), pool=run.pool, device=device
    )
    try:
        rows = build_preferences(
            run.folder(number) / "preferences",
            policy=model.to(device),
            processor=processor,
            dataset=dataset,
            indices=select_states(dataset, num_states, among=allowed, seed=config.seed + number),
            reward=reward,
            num_candidates=config.num_candidates,
            seed=config.seed + number,
            provenance={"demonstrations": artefact_name(str(run.episodes(number))), "round": number},
        )
    except NoPairsError as error:
        reason = f"{error.why} Start again with another reward or more candidates, in another folder."
        return {"states": num_states, "pairs": 0, "reason": reason}
    return {"states": num_states, "pairs": len(rows)}


def tune(run: RoundsRun, number: int) -> dict[str, Any]:
    """Flow DPO from the policy of the round before."""
    model, processor = load_policy(run.policy(number - 1))
    reference = load_policy(run.policy(0))[0] if run.config.reference == "first" else None
    rows = load_preferences(run.folder(number) / "preferences", policy=model, processor=processor)
    found = tune_with_dpo(model, processor, rows, run.trainer(number, "dpo"), run.budget(number), reference=reference)
    save_policy(run.policy(number), model, processor)
    return {"curves": found}


def continue_control(run: RoundsRun, number: int) -> dict[str, Any]:
    """The control: as many steps of supervised training on the demonstrations, from the control of the round before."""
    model, processor = load_policy(run.control(number - 1))
    dataset = fit_dataset(run.demonstrations, processor)
    states = complete_chunk_indices(dataset).tolist()
    found = continue_supervised(
        model, processor, dataset, states, run.trainer(number, "continued-sft"), run.budget(number)
    )
    save_policy(run.control(number), model, processor)
    return {"curves": found}


def evaluate(run: RoundsRun, number: int) -> dict[str, Any]:
    """
    Success of the round's policy and of its control, and the paired comparison of the policy with that of the round before and
    with the control.
    """
    found = {name: _evaluated(run, number, name) for name in ((POLICY, CONTROL) if number else (POLICY,))}
    outcome = {name: results.success.to_dict() for name, results in found.items()}
    if number:
        before = EvaluationResults.load(run.folder(number - 1) / EVALUATION / POLICY)
        outcome["against_before"] = compare_results(found[POLICY], before).paired.to_dict()
        outcome["against_control"] = compare_results(found[POLICY], found[CONTROL]).paired.to_dict()
    return outcome


def _evaluated(run: RoundsRun, number: int, name: str) -> EvaluationResults:
    folder = run.folder(number)
    return run_evaluation(
        _chunk_policy(run, folder / name),
        run.tasks,
        run.pool,
        folder / EVALUATION / name,
        episodes_per_task=run.config.evaluation_episodes,
        n_action_steps=run.config.n_action_steps,
        # Finished episodes of a killed run are kept.
        resume=True,
    )


def _chunk_policy(run: RoundsRun, folder: Path) -> Nora15ChunkPolicy:
    model, processor = load_policy(folder)
    sampler = FlowSampler(temperature=run.config.temperature)
    return Nora15ChunkPolicy(model.to(usable_device()), processor, run.dataset_key, sampler)


__all__ = [
    "EVALUATION",
    "begin",
    "collect_episodes",
    "continue_control",
    "evaluate",
    "label",
    "refresh_world_model",
    "tune",
]
