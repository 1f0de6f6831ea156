# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Trains the predictor of a world model on a LeRobot dataset: a tiny model from random weights, or an existing one.

    nora15 world-model --config world_model_tiny.yaml
    accelerate launch -m nora15_hf.commands.world_model --config world_model_tiny.yaml

Every option of `WorldModelArguments` and `WorldModelTrainingConfig` can be set in the YAML file or on the command line. The same command
resumes an interrupted run.
"""

import inspect
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import TrainerState, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from ..actions.normalization import NormalizationMode
from ..clips import ClipConventions, EpisodeClips
from ..data import LeRobotDataset
from ..nora15 import Nora15Processor
from ..quickstart.config import QuickstartConfig
from ..repo_files.written_whole import written_whole
from ..runtime.thread_arguments import ThreadArguments
from ..trainers import (
    EncoderPretrainingConfig,
    EncoderPretrainingTrainer,
    WorldModelTrainer,
    WorldModelTrainingConfig,
)
from ..trainers.resume import find_checkpoint, is_finished
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor, tiny_world_model
from . import option_types
from .execution import run_script
from .feature_arguments import FeatureArguments
from .options_without_effect import refuse_without_effect

__all__ = ["ARGUMENTS", "WorldModelArguments", "main", "run"]

CLIPS = inspect.signature(EpisodeClips).parameters
QUICKSTART = QuickstartConfig()


@dataclass
class WorldModelArguments(FeatureArguments):
    """What the command needs besides `WorldModelTrainingConfig`."""

    dataset: str = field(
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or repo of a LeRobot dataset. A world model uses one camera and the actions that moved the "
            "robot, which may differ from the demonstrator's labels; see --image-keys and --action-key.",
        }
    )
    revision: str | None = field(
        default=None, metadata={"revision_of": ("dataset",), "help": "Branch, tag or commit of that repo."}
    )
    model: str | None = field(
        default=None,
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or repo of a world model; by default a tiny one from random weights.",
        },
    )
    policy: str | None = field(
        default=None,
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or repo of the policy whose statistics normalise actions; by default those of --model, or of the "
            "dataset.",
        },
    )
    policy_dataset_key: str | None = field(default=None, metadata={"help": "Which statistics of the policy to use."})
    normalization_mode: NormalizationMode = field(
        default="q01_q99", metadata={"help": "Normalisation of actions if neither a policy nor a model is given."}
    )
    validation_share: float = field(
        default=0.1, metadata={"parse": option_types.share, "help": "Share of the episodes that are held out."}
    )
    split_seed: int = field(default=0, metadata={"parse": option_types.seed, "help": "Which episodes are held out."})
    num_frames: int = field(
        default=CLIPS["num_frames"].default,
        metadata={"parse": option_types.positive, "help": "Frames per clip, at least two."},
    )
    stride: int = field(
        default=CLIPS["stride"].default,
        metadata={"parse": option_types.positive, "help": "Frames between the starts of neighbouring clips."},
    )
    cache_images: bool = field(default=False, metadata={"help": "Keep decoded frames in memory."})
    image_size: int = field(
        default=inspect.signature(tiny_world_model).parameters["image_size"].default,
        metadata={"parse": option_types.positive, "help": "Image side of the tiny model, a multiple of 14."},
    )
    encoder_steps: int = field(
        default=QUICKSTART.encoder_steps,
        metadata={"parse": option_types.positive, "help": "Steps that pre-train the encoder of the tiny model."},
    )
    encoder_batch_size: int = field(
        default=QUICKSTART.encoder_batch_size,
        metadata={"parse": option_types.positive, "help": "Clips per such step and process."},
    )
    encoder_learning_rate: float = field(
        default=QUICKSTART.encoder_learning_rate,
        metadata={"parse": option_types.positive_number, "help": "Peak learning rate of these steps."},
    )

    def __post_init__(self):
        refuse_without_effect(
            self,
            {
                **dict.fromkeys(
                    ("image_size", "encoder_steps", "encoder_batch_size", "encoder_learning_rate"),
                    (self.model is None, "with --model, whose encoder is not changed"),
                ),
                "policy_dataset_key": (self.policy is not None, "without --policy"),
                "normalization_mode": (
                    self.policy is None and self.model is None,
                    "with --policy or --model, which have their own",
                ),
            },
        )


ARGUMENTS = (WorldModelArguments, WorldModelTrainingConfig, ThreadArguments)


def open_dataset(options: WorldModelArguments) -> LeRobotDataset:
    return LeRobotDataset(
        options.dataset,
        revision=options.revision,
        cache_images=options.cache_images,
        **options.features(),
    )


def clip_conventions(
    options: WorldModelArguments,
    training: LeRobotDataset,
    held_out: list[int],
    metric: bool,
    known: ClipConventions | None,
) -> ClipConventions:
    """Those of the policy if there is one, otherwise those of the given model, otherwise those of the dataset."""
    if metric:
        return ClipConventions.metric(training, held_out)
    if options.policy is None and known is not None:
        return known.of_other_dataset(training, held_out)
    if options.policy is None:
        return ClipConventions.of_dataset(training, options.normalization_mode, held_out)
    processor = Nora15Processor.from_pretrained(options.policy)
    return ClipConventions.of_policy(training, processor, options.policy_dataset_key, held_out)


def pretrain_encoder(
    options: WorldModelArguments,
    config: WorldModelTrainingConfig,
    run: dict[str, object],
    model: VJEPA2ACModel,
    clips: EpisodeClips,
    processor: VJEPA2ACProcessor,
) -> VJEPA2ACModel:
    """Trains encoder and predictor of a model of random weights together, or takes the result of an earlier call."""
    steps = options.encoder_steps
    args = EncoderPretrainingConfig(
        # Uploads leave out what begins with an underscore.
        output_dir=str(Path(config.output_dir) / "_encoder"),
        max_steps=steps,
        per_device_train_batch_size=options.encoder_batch_size,
        learning_rate=options.encoder_learning_rate,
        warmup_steps=steps // 10,
        logging_steps=max(1, steps // 10),
        save_steps=steps,
        dataloader_drop_last=True,
        dataloader_num_workers=config.dataloader_num_workers,
        report_to="none",
        disable_tqdm=config.disable_tqdm,
        use_cpu=config.use_cpu,
        bf16=config.bf16,
        seed=config.seed,
    )
    checkpoint = find_checkpoint(args, run)
    finished = Path(args.output_dir) / "world-model"
    # Without the checkpoint nothing tells whether the same run left it there.
    if checkpoint is None or not finished.is_dir():
        trainer = EncoderPretrainingTrainer(model, args, train_dataset=clips, processing_class=processor)
        trainer.train(resume_from_checkpoint=checkpoint)
        if trainer.is_world_process_zero():
            shutil.rmtree(finished, ignore_errors=True)
            with written_whole(finished) as part:
                model.save_pretrained(part)
        trainer.accelerator.wait_for_everyone()
    return VJEPA2ACModel.from_pretrained(finished, dtype=torch.float32)


def run(options: WorldModelArguments, config: WorldModelTrainingConfig) -> None:
    dataset = open_dataset(options)
    # Before anything is trained, encoder included.
    training, validation = dataset.split_by_episode(options.validation_share, options.split_seed)
    held_out = validation.episodes["index"].tolist()

    set_seed(config.seed)
    if options.model is None:
        model, processor = tiny_world_model(options.image_size, dataset.action_dim)
    else:
        # Master weights in float32, also with bf16=True.
        model = VJEPA2ACModel.from_pretrained(options.model, dtype=torch.float32)
        processor = VJEPA2ACProcessor.from_pretrained(options.model)
    metric, known = model.config.action_convention == "metric", ClipConventions.of_model(model)
    conventions = clip_conventions(options, training, held_out, metric, known)
    run = asdict(options) | {"dataset_fingerprint": conventions.dataset_fingerprint}
    if options.model is None:
        # Two frames suffice to learn what changes; longer clips hold more of the same picture.
        pairs = EpisodeClips(training, conventions, num_frames=2)
        model = pretrain_encoder(options, config, run, model, pairs, processor)

    checkpoint = find_checkpoint(config, run)
    finished = is_finished(checkpoint)
    if finished:
        model = VJEPA2ACModel.from_pretrained(checkpoint, dtype=torch.float32)
    trainer = WorldModelTrainer(
        model,
        config,
        train_dataset=EpisodeClips(training, conventions, options.num_frames, options.stride),
        eval_dataset=EpisodeClips(validation, conventions, options.num_frames, options.stride),
        processing_class=processor,
    )
    if finished:
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    trainer.save_model()


def main(arguments: list[str] | None = None) -> None:
    run_script(ARGUMENTS, run, __doc__, arguments)


if __name__ == "__main__":
    main()
