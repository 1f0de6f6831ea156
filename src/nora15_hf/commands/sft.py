# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Supervised training of a policy on a LeRobot dataset, on a mixture of several, or on the candidates of a preference dataset,
weighted by their rewards.

    nora15 sft --config sft_tiny.yaml
    accelerate launch -m nora15_hf.commands.sft --config sft_tiny.yaml

Every option of `SFTArguments` and `Nora15SFTConfig` can be set in the YAML file or on the command line. The same command
resumes an interrupted run.
"""

import dataclasses
import inspect
from dataclasses import dataclass, field

from torch.utils.data import Dataset
from transformers import set_seed

from ..data import LeRobotDataset, LeRobotMixture, LeRobotStream, LeRobotStreamMixture
from ..data.dataset_fingerprint import samples_fingerprint
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..runtime.thread_arguments import ThreadArguments
from ..trainers import (
    Nora15SFTConfig,
    Nora15SFTTrainer,
    dataset_members,
    find_checkpoint,
    is_finished,
    load_policy_for,
    tiny_policy_for,
)
from . import option_types
from .adapter_arguments import AdapterArguments
from .execution import run_script
from .feature_arguments import FeatureArguments
from .options_without_effect import refuse_without_effect
from .preference_training import policy_and_preferences, training_data

__all__ = ["ARGUMENTS", "SFTArguments", "main", "run"]


@dataclass
class SFTArguments(AdapterArguments, FeatureArguments):
    """Options of the command in addition to `Nora15SFTConfig`."""

    datasets: list[str] = field(
        default_factory=list,
        metadata={
            "each": option_types.folder_or_hub_id,
            "help": "Folders or Hub ids of LeRobot datasets; several are mixed and must have the same feature names.",
        },
    )
    preferences: str | None = field(
        default=None,
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or Hub id of a preference dataset to train on instead of --datasets: its candidates are the targets, "
            "weighted by their rewards. Needs --policy and --reward-weighting.",
        },
    )
    preferences_revision: str | None = field(
        default=None,
        metadata={"revision_of": ("preferences",), "help": "Branch, tag or commit of the preference dataset."},
    )
    dataset_revisions: list[str] | None = field(
        default=None,
        metadata={
            "revision_of": ("datasets",),
            "help": "Branch, tag or commit of each dataset; '' for one that has none, such as a folder.",
        },
    )
    dataset_keys: list[str] | None = field(
        default=None, metadata={"help": "Key of the statistics of each dataset; default: the last part of its name."}
    )
    dataset_weights: list[float] | None = field(
        default=None,
        metadata={
            "each": option_types.positive_number,
            "help": "Share of each dataset in the samples; default: its number of frames.",
        },
    )
    stream: bool = field(
        default=False, metadata={"help": "Read training data file by file, without keeping decoded images in memory."}
    )
    cache_images: bool = field(default=False, metadata={"help": "Keep decoded images in memory."})
    validation_fraction: float | None = field(
        default=None,
        metadata={"parse": option_types.share, "help": "Share of the episodes that are held out for evaluation."},
    )
    policy: str | None = field(
        default=None,
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or Hub id to start from; default: a tiny policy with random weights.",
        },
    )
    policy_revision: str | None = field(
        default=None, metadata={"revision_of": ("policy",), "help": "Branch, tag or commit of the policy."}
    )
    chunk_size: int = field(
        default=inspect.signature(LeRobotDataset).parameters["chunk_size"].default,
        metadata={
            "parse": option_types.positive,
            "help": "Actions per chunk; must match the policy if one is given.",
        },
    )
    image_size: int = field(
        default=inspect.signature(tiny_policy_for).parameters["image_size"].default,
        metadata={"parse": option_types.positive, "help": "Image side of the tiny policy."},
    )
    state_input: bool = field(default=False, metadata={"help": "Use the robot's state as an input of the policy."})
    range_floor: float | None = field(
        default=None,
        metadata={
            "parse": option_types.positive_number,
            "help": "Smallest range of a normalised dimension of actions and states, in the dataset's units, for dimensions that "
            "hardly vary.",
        },
    )
    strict: bool = field(
        default=False,
        metadata={
            "help": "Refuse data whose ranges differ from the policy's statistics of their key, instead of warning."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.preferences is None and not self.datasets:
            raise ValueError("datasets is empty: name at least one, or a preference dataset with --preferences.")
        if self.preferences is not None and self.policy is None:
            raise ValueError("--preferences needs --policy, the policy to train.")
        for name in ("dataset_revisions", "dataset_keys", "dataset_weights"):
            values, count = getattr(self, name), len(self.datasets)
            if values is not None and len(values) != count and self.preferences is None:
                raise ValueError(f"{name}: {len(values)} values for {count} datasets; give one for each, or none.")
        with_either = {"policy", "policy_revision", "preferences", "preferences_revision", "validation_fraction"}
        with_either |= {each.name for each in dataclasses.fields(AdapterArguments)}
        of_datasets = [each.name for each in dataclasses.fields(self) if each.name not in with_either]
        refuse_without_effect(
            self,
            {
                "image_size": (self.policy is None, "with --policy, which has its own"),
                "strict": (self.policy is not None, "without --policy"),
            },
        )
        if self.preferences is not None:
            refuse_without_effect(
                self, dict.fromkeys(of_datasets, (False, "with --preferences, which replaces --datasets"))
            )


ARGUMENTS = (SFTArguments, Nora15SFTConfig, ThreadArguments)


def per_dataset(options: SFTArguments) -> list[dict]:
    """The arguments of each dataset."""
    none = [None] * len(options.datasets)
    members = zip(options.datasets, options.dataset_revisions or none, options.dataset_keys or none, strict=True)
    return [
        {
            "root_or_repo": root,
            "revision": revision or None,
            "dataset_key": key,
            "chunk_size": options.chunk_size,
            **options.features(),
        }
        for root, revision, key in members
    ]


def open_datasets(options: SFTArguments) -> LeRobotDataset | LeRobotMixture:
    """The dataset, or the mixture of several."""
    datasets = [LeRobotDataset(**each, cache_images=options.cache_images) for each in per_dataset(options)]
    return datasets[0] if len(datasets) == 1 else LeRobotMixture(datasets, options.dataset_weights)


def open_streams(options: SFTArguments, seed: int) -> LeRobotStream | LeRobotStreamMixture:
    """The training part of the same datasets, as endless streams."""
    streams = [LeRobotStream(**each, seed=seed, repeat=True) for each in per_dataset(options)]
    if options.validation_fraction is not None:
        streams = [stream.split_by_episode(options.validation_fraction, seed)[0] for stream in streams]
    return streams[0] if len(streams) == 1 else LeRobotStreamMixture(streams, options.dataset_weights, seed=seed)


def run(options: SFTArguments, config: Nora15SFTConfig) -> None:
    dataset = open_datasets(options) if options.preferences is None else None
    data = training_data(options) if dataset is None else samples_fingerprint(dataset)
    checkpoint = find_checkpoint(config, dataclasses.asdict(options) | {"data": data})
    if is_finished(checkpoint):
        print(f"This run is finished; see {config.output_dir}. To repeat its last part, delete {checkpoint}.")
        return
    # New adapters and a new state projection are random.
    set_seed(config.seed)
    model, processor, train_dataset, eval_dataset = (
        policy_and_preferences(options, config)
        if dataset is None
        else policy_and_demonstrations(options, config, dataset)
    )
    trainer = Nora15SFTTrainer(
        model=model,
        args=config,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        peft_config=options.peft_config(model.config),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.create_model_card()


def policy_and_demonstrations(
    options: SFTArguments, config: Nora15SFTConfig, dataset: LeRobotDataset | LeRobotMixture
) -> tuple[Nora15ForActionPrediction, Nora15Processor, Dataset, Dataset | None]:
    """The policy with its processor, and the datasets for training and for evaluation."""
    train_dataset, eval_dataset = dataset, None
    if options.validation_fraction is not None:
        train_dataset, eval_dataset = dataset.split_by_episode(options.validation_fraction, config.seed)
    if options.stream:
        train_dataset = open_streams(options, config.seed)
    # Ranges and codec come from all episodes: an action outside of them could not be written in FAST tokens.
    if options.policy is None:
        instructions = {
            task for member in dataset_members(dataset) for tasks in member.episodes["tasks"] for task in tasks
        }
        model, processor = tiny_policy_for(
            dataset,
            sorted(instructions),
            image_size=options.image_size,
            state_input=options.state_input,
            range_floor=options.range_floor,
            seed=config.seed,
        )
    else:
        model, processor = load_policy_for(
            options.policy,
            dataset,
            state_input=options.state_input,
            range_floor=options.range_floor,
            quantization_config=options.quantization_config(config.bf16),
            revision=options.policy_revision,
            strict=options.strict,
        )
    return model, processor, train_dataset, eval_dataset


def main(arguments: list[str] | None = None) -> None:
    run_script(ARGUMENTS, run, __doc__, arguments)


if __name__ == "__main__":
    main()
