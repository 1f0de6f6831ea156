# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Flow DPO of a policy on a preference dataset.

    nora15 dpo --config dpo_tiny.yaml
    accelerate launch -m nora15_hf.commands.dpo --config dpo_tiny.yaml

Every option of `DPOArguments` and `FlowDPOConfig` can be set in the YAML file or on the command line. The same command
resumes an interrupted run.
"""

import dataclasses
from dataclasses import dataclass, field

from ..runtime.thread_arguments import ThreadArguments
from ..trainers import FlowDPOConfig, FlowDPOTrainer
from ..trainers.resume import find_checkpoint, is_finished
from . import option_types
from .adapter_arguments import AdapterArguments
from .execution import run_script
from .preference_training import policy_and_preferences, training_data

__all__ = ["ARGUMENTS", "DPOArguments", "main", "run"]


@dataclass
class DPOArguments(AdapterArguments):
    """Options of the command in addition to `FlowDPOConfig`."""

    policy: str = field(
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or Hub id of the policy that sampled the candidates.",
        }
    )
    preferences: str = field(
        metadata={"parse": option_types.folder_or_hub_id, "help": "Folder or Hub id of the preference dataset."}
    )
    policy_revision: str | None = field(
        default=None, metadata={"revision_of": ("policy",), "help": "Branch, tag or commit of the policy."}
    )
    preferences_revision: str | None = field(
        default=None, metadata={"revision_of": ("preferences",), "help": "Branch, tag or commit of the dataset."}
    )
    validation_fraction: float | None = field(
        default=None,
        metadata={"parse": option_types.share, "help": "Share of the episodes that are held out for evaluation."},
    )


ARGUMENTS = (DPOArguments, FlowDPOConfig, ThreadArguments)


def run(options: DPOArguments, config: FlowDPOConfig) -> None:
    data = training_data(options)
    checkpoint = find_checkpoint(config, dataclasses.asdict(options) | {"data": data})
    if is_finished(checkpoint):
        print(f"This run is finished; see {config.output_dir}. To repeat its last part, delete {checkpoint}.")
        return
    policy, processor, rows, eval_rows = policy_and_preferences(options, config)
    trainer = FlowDPOTrainer(
        model=policy,
        args=config,
        train_dataset=rows,
        eval_dataset=eval_rows,
        processing_class=processor,
        peft_config=options.peft_config(policy.config),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.create_model_card()


def main(arguments: list[str] | None = None) -> None:
    run_script(ARGUMENTS, run, __doc__, arguments)


if __name__ == "__main__":
    main()
