# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Three steps of training a tiny policy, sharded over the processes with FSDP2, or whole in one process.

accelerate does not shard on the CPU; this does what it does on GPUs with `fsdp_version: 2`: `fully_shard` on every
module that `_no_split_modules` names and on the root.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from nora15_hf.nora15.flow_matching import draw_flow_samples
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.trainers.ema import EmaCallback
from nora15_hf.trainers.supervised.loss_totals import add_parts, count_targets, weigh_parts

__all__ = ["train", "train_both"]

TEXTS = ["open the faucet", "close the faucet, please", "press the button", "press the handle down"]


def train(objective: str, rank: int = 0, world_size: int = 1) -> tuple[torch.nn.Module, dict]:
    """Trains on this process's rows of four; returns the policy and what it saw."""
    torch.manual_seed(0)
    model, processor = tiny_policy(TEXTS, image_size=56, num_flow_samples=2, state_dim=3, seed=0)
    random = np.random.default_rng(0)
    data = {
        "images": list(random.integers(0, 256, (4, 56, 56, 3), dtype=np.uint8)),
        "text": TEXTS,
        "state": random.uniform(-1, 1, (4, 3)),
    }
    targets = {
        "actions": random.uniform(-0.9, 0.9, (4, 5, 4)).astype(np.float32),
        "action_mask": np.array([[True] * 5, [True, True, False, False, False], [True] * 5, [True] * 5]),
    }
    noise, timestep = draw_flow_samples(model.config, [(row,) for row in range(4)], (2,))
    rows = slice(rank * 4 // world_size, (rank + 1) * 4 // world_size)
    batch = processor(**{name: value[rows] for name, value in (data | targets).items()})
    batch |= {"noise": noise[rows], "timestep": timestep[rows]}
    if objective == "flow":
        del batch["labels"]

    model.train().activation_checkpointing_enable()
    if world_size > 1:
        for module in list(model.modules()):
            if type(module).__name__ in model._no_split_modules:
                fully_shard(module)
        fully_shard(model)
        register_fsdp_forward_method(model, "sample_actions")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    totals = count_targets(batch)
    if world_size > 1:
        dist.all_reduce(totals)
    average = EmaCallback(0.9)
    state = type("State", (), {"global_step": 0, "is_world_process_zero": rank == 0})()
    average.on_train_begin(None, state, None, model=model)
    losses = []
    for state.global_step in range(1, 4):
        optimizer.zero_grad()
        parts = weigh_parts(model(**batch), batch, totals / world_size)
        loss = add_parts(parts, model.config.flow_loss_weight)
        loss.backward()
        optimizer.step()
        average.on_step_end(None, state, None, model=model)
        loss = loss.detach()
        if world_size > 1:
            dist.all_reduce(loss)
        losses.append(loss.item() / world_size)
    observation = processor(**data).to("cpu")
    actions = model.eval().sample_actions(**observation, noise=noise[:, 0])
    return model, {"losses": losses, "actions": actions.tolist(), "average": average}


def train_both(output: Path) -> None:
    """Trains for both objectives, in as many processes as there are, and leaves what was seen and a repo of each."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for objective in ("joint", "flow"):
        folder = output / objective
        model, seen = train(objective, rank, dist.get_world_size())
        seen["sharded"] = sum(isinstance(module, FSDPModule) for module in model.modules())
        seen.pop("average").save(folder, rank == 0)
        whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        model.save_pretrained(folder, is_main_process=rank == 0, state_dict=whole)
        if rank == 0:
            (folder / "seen.json").write_text(json.dumps(seen))
    dist.destroy_process_group()
