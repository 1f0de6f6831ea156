# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Flow DPO of a policy on a preference dataset.

    accelerate launch --num_processes 1 examples/dpo.py --config examples/configs/dpo_tiny.yaml

Every option of `FlowDPOConfig` can stand in the YAML file or on the command line.
"""

from dataclasses import dataclass, field

import torch
from peft import LoraConfig
from trl import TrlParser

from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.preferences import load_preferences
from nora15_hf.trainers import FlowDPOConfig, FlowDPOTrainer

__all__ = ["DPOArguments", "main"]


@dataclass
class DPOArguments:
    """What the script needs besides `FlowDPOConfig`."""

    policy: str = field(metadata={"help": "Folder or repo of the policy that sampled the candidates."})
    preferences: str = field(metadata={"help": "Folder of the preference dataset."})
    lora_rank: int | None = field(
        default=None, metadata={"help": "Train adapters of this rank on backbone and expert instead of all weights."}
    )


def main(arguments: list[str] | None = None) -> None:
    options, config = TrlParser((DPOArguments, FlowDPOConfig)).parse_args_and_config(arguments)
    # Master weights in float32, also with bf16=True: smaller types round steps of 5e-7 away.
    policy = Nora15ForActionPrediction.from_pretrained(options.policy, dtype=torch.float32)
    processor = Nora15Processor.from_pretrained(options.policy)
    peft_config = None
    if options.lora_rank is not None:
        parts = r"action_expert" if config.freeze_backbone else r"(action_expert|vlm\.model\.language_model)"
        peft_config = LoraConfig(
            r=options.lora_rank,
            lora_alpha=2 * options.lora_rank,
            target_modules=parts + r"\.layers\.\d+\.(self_attn|mlp)\.\w+_proj",
            modules_to_save=["action_in_proj", "action_out_proj", "action_time_mlp_in", "action_time_mlp_out"],
        )
    trainer = FlowDPOTrainer(
        model=policy,
        args=config,
        train_dataset=load_preferences(options.preferences, policy=policy, processor=processor),
        processing_class=processor,
        peft_config=peft_config,
    )
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.save_model()


if __name__ == "__main__":
    main()
