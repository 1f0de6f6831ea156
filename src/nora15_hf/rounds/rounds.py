# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preference tuning in rounds, in one call and on as many processes as it was launched on."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers.utils import logging as transformers_logging

from ..data.dataset_fingerprint import samples_fingerprint
from ..simulation.simulation_pool import SimulationPool
from ..stages.stage_runner import StageRunner
from .config import RoundsConfig
from .publication import publish
from .report import RoundOutcome, RoundsReport
from .round_folders import CONTROL, POLICY, STATE_FOLDER, WORLD_MODEL, RoundsRun, round_name
from .round_stages import begin, collect_episodes, continue_control, evaluate, label, refresh_world_model, tune


def run_rounds(
    output: str | Path, config: RoundsConfig, *, resume: bool = False, overwrite: bool = False
) -> RoundsReport:
    """
    Runs rounds of states, candidates, rewards, pairs, flow DPO and evaluation until all are done or one is lost.

    A round is lost if its policy succeeds less often than that of the round before on the same episodes, by more than
    `tolerated_loss`. The run also stops at a round without a single pair. The results of earlier rounds stay as they are. All
    processes train; the first one also evaluates, labels and writes.

    Args:
        output (`str` or `Path`): The folder; new or empty unless one of the following is given.
        config ([`RoundsConfig`]): What a round is made of.
        resume (`bool`): Continue the run in the folder after its last finished stage.
        overwrite (`bool`): Remove the run in the folder.

    Returns:
        [`RoundsReport`]: The result of each round. `rounds.json` and `rounds.png` in the folder hold the same.

    Raises:
        FileExistsError: The folder is not empty.
        EmbodimentError: Policy, demonstrations, world model and simulator do not agree about actions or pictures.
        ValueError: The folder holds a run with other settings.
        ImportError: The simulator is not installed.
    """
    output = Path(output)
    transformers_logging.disable_progress_bar()
    processes = PartialState(cpu=not torch.cuda.is_available())
    with processes.main_process_first():
        runner = StageRunner(
            output,
            STATE_FOLDER,
            config.settings,
            made_by="nora15 rounds",
            resume=resume,
            overwrite=overwrite,
            num_stages=_num_stages(config),
            is_main_process=processes.is_main_process,
        )
    if runner.is_finished(f"{round_name(config.rounds + 1)}-episodes"):
        raise ValueError(
            f"rounds={config.rounds}, but {output} holds more that are finished or begun. Continue it with at least as many."
        )
    with ExitStack() as stack:
        run = RoundsRun(output, config)
        if config.needs_simulator and processes.is_main_process:
            conventions = run.demonstrations.conventions
            workers = {} if config.num_workers is None else {"num_workers": config.num_workers}
            run = replace(run, pool=stack.enter_context(SimulationPool.of_recording(conventions, **workers)))
        return _Rounds(run, runner).run()


def _num_stages(config: RoundsConfig) -> int:
    evaluated, refreshed = bool(config.evaluation_episodes), bool(config.refresh_steps)
    return 1 + evaluated + config.rounds * (4 + 2 * evaluated + refreshed)


class _Rounds:
    """The stages of a run in their order."""

    def __init__(self, run: RoundsRun, runner: StageRunner):
        self._run, self._runner = run, runner
        self._config = run.config
        self._report = RoundsReport()

    def run(self) -> RoundsReport:
        title = "Open policy, demonstrations and world model"
        opened = self._stage(0, "begin", title, begin, folders=(POLICY, WORLD_MODEL))
        self._run = replace(self._run, **opened)
        outcome = RoundOutcome(number=0)
        if self._config.evaluation_episodes:
            outcome.evaluation = self._stage(0, "evaluation", "Evaluate the policy", evaluate)
        self._keep(outcome)
        for number in range(1, self._config.rounds + 1):
            outcome = self._round(number)
            self._keep(outcome)
            if self._report.stopped is not None:
                break
            self._stage(number, "publication", "Write cards", publish)
        return self._report

    def _round(self, number: int) -> RoundOutcome:
        stage = partial(self._stage, number)
        found = stage("episodes", "Collect states", collect_episodes, folders=("episodes",))
        if self._config.states_from == "episodes":
            self._check_recording(number, found)
        if self._config.refresh_steps:
            title = "Train the world model on new episodes"
            stage("world-model", title, refresh_world_model, folders=(WORLD_MODEL,), on_all_processes=True)
        # The folder is not removed: a build that was killed continues with the shards that it has.
        labelled = stage("preferences", "Build the preference dataset", label)
        outcome = RoundOutcome(number=number, **labelled)
        if not outcome.pairs:
            return outcome
        tuned = stage("policy", "Tune the policy with flow DPO", tune, folders=(POLICY,), on_all_processes=True)
        outcome.accuracy = tuned["curves"]["rewards/accuracies"][-1][1]
        if self._config.evaluation_episodes:
            title = "Continue supervised training (control)"
            stage("control", title, continue_control, folders=(CONTROL,), on_all_processes=True)
            outcome.evaluation = stage("evaluation", "Evaluate both policies", evaluate)
        return outcome

    def _check_recording(self, number: int, found: dict[str, Any]) -> None:
        """Whether a round that is continued is given the recording that it began with; one that was moved away is no longer needed."""
        try:
            samples = samples_fingerprint(self._run.states_dataset(number))
        except FileNotFoundError:
            if self._runner.is_finished(f"{round_name(number)}-preferences"):
                return
            raise
        if samples != found["samples"]:
            raise ValueError(
                f"Round {number} took its states from {found['episodes']!r}, but episodes now names another recording, "
                f"{str(self._run.episodes(number))!r}. Name the recordings of finished rounds in the same order, and new ones after "
                "them."
            )

    def _stage(
        self,
        number: int,
        name: str,
        title: str,
        work: Callable[[RoundsRun, int], dict[str, Any]],
        *,
        folders: tuple[str, ...] = (),
        on_all_processes: bool = False,
    ) -> dict[str, Any]:
        return self._runner.run(
            f"{round_name(number)}-{name}",
            f"Round {number}: {title}",
            partial(work, self._run, number),
            tuple(f"{round_name(number)}/{folder}" for folder in folders),
            on_all_processes=on_all_processes,
        )

    def _keep(self, outcome: RoundOutcome) -> None:
        """Adds a round to the report, and says there why the run stops, if it does."""
        report = self._report
        outcome.seconds = sum(cost.seconds for cost in self._runner.costs) - sum(
            each.seconds for each in report.rounds
        )
        report.rounds.append(outcome)
        report.stopped = outcome.why_it_stops(self._config.tolerated_loss)
        report.policy = self._run.policy(report.best).relative_to(self._run.output).as_posix()
        if self._runner.is_main_process:
            report.save(self._run.output)


__all__ = ["run_rounds"]
