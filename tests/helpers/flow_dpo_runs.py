# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Small flow-DPO runs for the tests, in as many processes as there are."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features
from PIL import Image
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard

from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import preference_features
from nora15_hf.trainers.flow_dpo.flow_dpo_config import FlowDPOConfig
from nora15_hf.trainers.flow_dpo.flow_dpo_trainer import FlowDPOTrainer

__all__ = ["bit_equal", "gradients", "make_rows", "make_trainer", "snapshot", "train", "train_all"]


def make_rows(num_rows: int = 4, **changes) -> Dataset:
    rng = np.random.default_rng(0)
    rows = {
        "images": [[Image.fromarray(rng.integers(0, 256, (56, 56, 3), np.uint8))] for _ in range(num_rows)],
        "instruction": ["open the faucet"] * num_rows,
        # Small enough for the FAST codec of the tiny policy.
        "chosen": list(rng.normal(scale=0.5, size=(num_rows, 5, 4)).astype(np.float32)),
        "rejected": list(rng.normal(scale=0.5, size=(num_rows, 5, 4)).astype(np.float32)),
        "dataset_key": ["default"] * num_rows,
    }
    rows.update(changes)
    chunk_size, action_dim = np.shape(rows["chosen"][0]) if num_rows else (5, 4)
    features = preference_features(2, chunk_size, action_dim, ["unused"])
    return Dataset.from_dict(rows, features=Features({name: features[name] for name in rows}))


def make_trainer(
    policy, processor, output, dataset=None, ref_model=None, peft_config=None, eval_dataset=None, **options
):
    defaults = {
        "max_steps": 2,
        "learning_rate": 1e-4,
        "warmup_steps": 0,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return FlowDPOTrainer(
        policy,
        FlowDPOConfig(str(output), **{**defaults, **options}),
        ref_model=ref_model,
        train_dataset=make_rows() if dataset is None else dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        peft_config=peft_config,
    )


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def bit_equal(before: dict[str, torch.Tensor], module: torch.nn.Module) -> bool:
    after = module.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def train(output: str | Path, options: dict) -> None:
    """Trains the tiny policy on 8 rows and writes its log and its weights."""
    trainer = make_trainer(*tiny_policy(("open the faucet",), image_size=56), output, make_rows(8), **options)
    trainer.train()
    trainer.save_model()
    if trainer.accelerator.is_main_process:
        Path(output, "log.json").write_text(json.dumps(trainer.state.log_history))
        Path(output, "world_size").write_text(str(trainer.args.world_size))


def gradients(output: str | Path, options: dict, *, sharded: bool = False) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss of 8 rows, of which every process has its part when parameters are sharded."""
    trainer = make_trainer(*tiny_policy(("open the faucet",), image_size=56), output, **options)
    policy, rows = trainer.model, list(trainer._prepare_rows(make_rows(8), "rows"))
    # Away from the reference, where chosen and rejected would pull equally.
    with torch.no_grad():
        policy.action_out_proj.weight.add_(0.01)
        policy.vlm.get_input_embeddings().weight.mul_(1.1)
    if sharded:
        for module in reversed(list(policy.modules())):
            if type(module).__name__ in policy._no_split_modules:
                fully_shard(module)
        fully_shard(policy)
        share = len(rows) // trainer.args.world_size
        rows = rows[trainer.args.process_index * share :][:share]
    trainer.compute_loss(policy.train(), trainer.data_collator(rows)).backward()
    found = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return {name: grad.full_tensor() if sharded else grad for name, grad in found.items()}


def train_all(output: Path, runs: dict[str, dict], sharded: dict) -> None:
    """Trains each of `runs`, name to options, and writes the gradients under the options `sharded`."""
    for name, options in runs.items():
        train(Path(output, name), options)
    found = gradients(Path(output, "sharded"), sharded, sharded=True)
    if int(os.environ["RANK"]) == 0:
        save_file(found, Path(output, "gradients.safetensors"))
