# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The picture of docs/watching_training.md: what flow DPO logs in a run that works and in one that collapses.

    python benchmarks/training_curves.py --quickstart outputs/quickstart --output docs/assets

Starts from the supervised policy and the preferences of a quickstart's output folder. The two runs differ in their learning rate
alone.
"""

import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from transformers import set_seed

from harness import add_threads_argument, set_threads
from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.preferences import load_preferences
from nora15_hf.trainers import FlowDPOConfig, FlowDPOTrainer

LEARNING_RATES = {"works": 1e-5, "collapses": 1e-3}
COLOURS = {"works": "#2f81d6", "collapses": "#d9480f"}
PANELS = ("rewards/accuracies", "rewards/margins", "flow_error/chosen")
# Drawn dashed: what the policy's error should not exceed.
REFERENCES = {"flow_error/chosen": "flow_error/reference_chosen"}


def logged(quickstart: Path, steps: int, batch_size: int, learning_rate: float) -> list[dict[str, float]]:
    """What a run logs."""
    with tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        trainer = FlowDPOTrainer(
            Nora15ForActionPrediction.from_pretrained(quickstart / "policy-sft", dtype=torch.float32),
            FlowDPOConfig(
                folder,
                max_steps=steps,
                per_device_train_batch_size=batch_size,
                learning_rate=learning_rate,
                warmup_steps=steps // 10,
                beta=50,
                num_draws=4,
                freeze_backbone=True,
                logging_steps=max(1, steps // 25),
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=load_preferences(quickstart / "preferences"),
            processing_class=Nora15Processor.from_pretrained(quickstart / "policy-sft"),
        )
        trainer.train()
        return trainer.state.log_history


def draw(histories: dict[str, list[dict[str, float]]], file: Path) -> None:
    """One panel per logged key, with a curve for each run."""
    figure = Figure(figsize=(3.3 * len(PANELS), 2.6), layout="constrained")
    for name, axis in zip(PANELS, figure.subplots(1, len(PANELS)), strict=True):
        for run, history in histories.items():
            points = [(log["step"], log[name]) for log in history if name in log]
            axis.plot(*zip(*points, strict=True), color=COLOURS[run], linewidth=1.6, label=run)
        if reference := REFERENCES.get(name):
            points = [(log["step"], log[reference]) for log in histories["works"] if reference in log]
            axis.plot(*zip(*points, strict=True), "--", color="#59636e", linewidth=1.2, label=reference)
        axis.set_title(name, fontsize="medium", loc="left")
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize="x-small")
    # Text as text, and the same bytes for the same curves.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nora15_hf"}):
        figure.savefig(file, metadata={"Date": None, "Creator": None})


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--quickstart", type=Path, required=True, help="output folder of a quickstart")
    parser.add_argument("--output", type=Path, required=True, help="folder of the picture")
    parser.add_argument("--steps", type=int, default=100, help="of each run (default 100)")
    parser.add_argument("--batch-size", type=int, default=16, help="of each run (default 16)")
    add_threads_argument(parser)
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    histories = {
        run: logged(options.quickstart, options.steps, options.batch_size, rate)
        for run, rate in LEARNING_RATES.items()
    }
    options.output.mkdir(parents=True, exist_ok=True)
    draw(histories, options.output / "watching_dpo.svg")


if __name__ == "__main__":
    main()
