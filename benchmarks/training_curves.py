# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The pictures of docs/watching_training.md: what each trainer logs in a run that works and in one that collapses.

    python benchmarks/training_curves.py --quickstart outputs/quickstart --output docs/assets

Starts from the demonstrations, the supervised policy, the preferences and the encoder of a quickstart's output folder. The two
runs of a trainer differ in their learning rate alone.
"""

import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from transformers import Trainer, set_seed

from harness import add_threads_argument, set_threads
from nora15_hf import Nora15ForActionPrediction, Nora15Processor, VJEPA2ACModel, VJEPA2ACProcessor
from nora15_hf.clips import ClipConventions, EpisodeClips
from nora15_hf.data import LeRobotDataset
from nora15_hf.preferences import load_preferences
from nora15_hf.trainers import (
    FlowDPOConfig,
    FlowDPOTrainer,
    Nora15SFTConfig,
    Nora15SFTTrainer,
    WorldModelTrainer,
    WorldModelTrainingConfig,
    tiny_policy_for,
)

# Drawn dashed in the panel of the first: what it must not exceed, or what it should come near.
REFERENCES = {"flow_error/chosen": "flow_error/reference_chosen", "predicted_latent_std": "latent_std"}
COLOURS = {"works": "#2f81d6", "collapses": "#d9480f"}


def arguments(folder: str, steps: int, learning_rate: float, batch_size: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "warmup_steps": steps // 10,
        "logging_steps": max(1, steps // 25),
        "eval_steps": max(1, steps // 8),
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    }


def supervised(quickstart: Path, common: dict[str, Any]) -> Trainer:
    dataset = LeRobotDataset(quickstart / "demonstrations", chunk_size=5, dataset_key="metaworld")
    training, validation = dataset.split_by_episode(0.1, seed=0)
    model, processor = tiny_policy_for(
        training, sorted({text for texts in training.episodes["tasks"] for text in texts}), image_size=84
    )
    return Nora15SFTTrainer(
        model,
        Nora15SFTConfig(**common, eval_strategy="steps", open_loop_episodes=2, max_grad_norm=1e9),
        train_dataset=training,
        eval_dataset=validation,
        processing_class=processor,
    )


def dpo(quickstart: Path, common: dict[str, Any]) -> Trainer:
    model = Nora15ForActionPrediction.from_pretrained(quickstart / "policy-sft", dtype=torch.float32)
    return FlowDPOTrainer(
        model,
        FlowDPOConfig(**common, beta=50, num_draws=4, freeze_backbone=True),
        train_dataset=load_preferences(quickstart / "preferences"),
        processing_class=Nora15Processor.from_pretrained(quickstart / "policy-sft"),
    )


def world_model(quickstart: Path, common: dict[str, Any]) -> Trainer:
    trained = VJEPA2ACModel.from_pretrained(quickstart / "world-model")
    model = VJEPA2ACModel(trained.config)
    model.encoder.load_state_dict(trained.encoder.state_dict())
    conventions = ClipConventions.from_pretrained(quickstart / "world-model")
    held_out = conventions.held_out_episodes
    dataset = conventions.open_dataset(quickstart / "demonstrations")
    episodes = [index for index in dataset.episodes["index"].tolist() if index not in held_out]
    training, validation = (
        EpisodeClips(conventions.open_dataset(quickstart / "demonstrations", episodes=chosen), conventions, 6)
        for chosen in (episodes, held_out)
    )
    return WorldModelTrainer(
        model,
        WorldModelTrainingConfig(**common, eval_strategy="steps", auto_steps=3, sensitivity_horizon=5),
        train_dataset=training,
        eval_dataset=validation,
        processing_class=VJEPA2ACProcessor.from_pretrained(quickstart / "world-model"),
    )


# Trainer, the learning rates of the run that works and of the one that collapses, and the panels of its picture.
RUNS = {
    "supervised": (supervised, 1e-3, 3e-2, ("flow_loss", "grad_norm", "eval_action_error")),
    "dpo": (dpo, 1e-5, 1e-3, ("rewards/accuracies", "rewards/margins", "flow_error/chosen")),
    "world_model": (
        world_model,
        1.5e-3,
        5e-2,
        ("autoregressive_loss", "predicted_latent_std", "eval_beats_noise_1"),
    ),
}


def logged(
    make: Callable[[Path, dict[str, Any]], Trainer], quickstart: Path, **options: Any
) -> list[dict[str, float]]:
    """What a run logs."""
    with tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        trainer = make(quickstart, arguments(folder, **options))
        trainer.train()
        return trainer.state.log_history


def draw(histories: dict[str, list[dict[str, float]]], panels: tuple[str, ...], file: Path) -> None:
    """One panel per logged key, with a curve for each run."""
    figure = Figure(figsize=(3.3 * len(panels), 2.6), layout="constrained")
    for name, axis in zip(panels, figure.subplots(1, len(panels)), strict=True):
        for run, history in histories.items():
            points = [(log["step"], log[name]) for log in history if name in log]
            axis.plot(*zip(*points, strict=True), color=COLOURS[run], linewidth=1.6, label=run)
        if reference := REFERENCES.get(name):
            points = [(log["step"], log[reference]) for log in histories["works"] if reference in log]
            axis.plot(*zip(*points, strict=True), "--", color="#59636e", linewidth=1.2, label=reference)
        values = [log[name] for history in histories.values() for log in history if name in log]
        if min(values) > 0 and max(values) > 20 * min(values):
            axis.set_yscale("log")
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
    parser.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--trainers", nargs="+", choices=RUNS, default=list(RUNS), help="default: all")
    parser.add_argument("--steps", type=int, default=150, help="of each run (default 150)")
    parser.add_argument("--batch-size", type=int, default=16, help="of each run (default 16)")
    add_threads_argument(parser)
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.trainers:
        make, *rates, panels = RUNS[name]
        histories = {
            run: logged(
                make, options.quickstart, steps=options.steps, learning_rate=rate, batch_size=options.batch_size
            )
            for run, rate in zip(COLOURS, rates, strict=True)
        }
        file = options.output / f"watching_{name}.svg"
        draw(histories, panels, file)
        print(f"{file}, learning rates {rates[0]:g} and {rates[1]:g}")


if __name__ == "__main__":
    main()
