# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The whole pipeline in one call: demonstrations, policy, world model, preferences, flow DPO, evaluation, report."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from transformers.utils import logging as transformers_logging

from ..preferences.datasets_cache import check_datasets_cache
from ..runtime.progress import whole_run
from ..simulation.simulation_pool import SimulationPool
from ..stages.stage_runner import StageRunner
from .card_stage import write_cards
from .config import STATE_FOLDER, QuickstartConfig
from .evaluation_stages import evaluate_arm, evaluate_controls, record
from .policy_stages import train_continued_sft, train_dpo, train_sft
from .preference_stage import build_preference_dataset
from .report import write_report
from .report_data import ReportData
from .report_stage import collect_report
from .results import write_results
from .summary import command_line, summary_table
from .world_model_stage import train_world_model


def run_quickstart(
    output: str | Path, config: QuickstartConfig, *, resume: bool = False, overwrite: bool = False
) -> ReportData:
    """
    Runs all stages and writes artefacts, cards, `report.html` and `results.json` into a folder.

    Args:
        output (`str` or `Path`): The folder; new or empty unless one of the following is given.
        config ([`QuickstartConfig`]): Tasks and budgets.
        resume (`bool`): Continue the run that the folder holds from its last finished stage.
        overwrite (`bool`): Remove the run that the folder holds.

    Returns:
        [`ReportData`]: Everything the report shows.

    Raises:
        FileExistsError: The folder is not empty.
        ValueError: The folder holds a run with other settings.
        ImportError: The simulator is not installed.
        OSError: The cache of `datasets` cannot be written.
    """
    check_datasets_cache()
    output = Path(output)
    transformers_logging.disable_progress_bar()
    # The last number: seconds on two cores, a stage's part of the whole.
    stages = [
        ("demonstrations", "Record demonstrations", record, ("demonstrations",), True, 20),
        ("policy-sft", "Train the policy on demonstrations", train_sft, ("policy-sft",), False, 104),
        ("evaluation-random", "Evaluate random weights", partial(evaluate_arm, arm="random"), (), True, 26),
        ("evaluation-sft", "Evaluate the SFT policy", partial(evaluate_arm, arm="sft"), (), True, 15),
        ("controls", "Evaluate the controls", evaluate_controls, (), True, 18),
        ("world-model", "Train the world model", train_world_model, ("world-model",), False, 120),
        ("preferences", "Build the preference dataset", build_preference_dataset, ("preferences",), False, 42),
        ("policy-dpo", "Tune the policy with flow DPO", train_dpo, ("policy-dpo",), False, 72),
        (
            "policy-continued-sft",
            "Continue supervised training (control)",
            train_continued_sft,
            ("policy-continued-sft",),
            False,
            43,
        ),
        (
            "evaluation-continued_sft",
            "Evaluate continued SFT",
            partial(evaluate_arm, arm="continued_sft"),
            (),
            True,
            17,
        ),
        ("evaluation-dpo", "Evaluate the DPO policy", partial(evaluate_arm, arm="dpo"), (), True, 17),
    ]
    runner = StageRunner(
        output,
        STATE_FOLDER,
        asdict(config),
        made_by="a quickstart",
        resume=resume,
        overwrite=overwrite,
        num_stages=len(stages),
    )
    with SimulationPool(config.environment, num_workers=config.num_workers, **config.environment_settings) as pool:
        spec = pool.spec
        renderer = spec.conventions["renderer"]
        print(f"{spec.title} in {pool.num_workers} processes, renderer: {renderer}", flush=True)
        results = {}
        ahead = {name: seconds for name, *_, seconds in stages if not runner.is_finished(name)}
        with whole_run(sum(ahead.values()), "Quickstart") as whole:
            for name, title, stage, folders, needs_simulator, _ in stages:
                work = partial(stage, output, config, pool=pool) if needs_simulator else partial(stage, output, config)
                results[name] = runner.run(name, title, work, folders)
                whole.update(ahead.get(name, 0))
    report = collect_report(output, config, command_line(config), results, runner.costs, spec)
    print(summary_table(report, output))
    write_cards(output, config, report, results, spec)
    write_results(output / "results.json", report)
    write_report(output / "report.html", report)
    return report


__all__ = ["run_quickstart"]
