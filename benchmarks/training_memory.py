# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
GPU memory of a training step, by method, from the shapes of the 3 B policy; nothing of it is allocated.

    python benchmarks/training_memory.py --batch_size 8 --output training_memory.json

Weights, gradients and optimizer state are counted tensor by tensor. Activations are what autograd saves for the backward
pass: one layer of each kind runs under bf16 autocast on fake tensors at batch sizes 1 and 2, which tells what grows with
the batch from what does not (bf16 copies of weights). With gradient checkpointing a layer keeps its input, its keys and
values, and its copies of trainable weights, and the largest layer is present whole. The total adds everything up as if it
existed at one time, which it does not quite: it is an upper bound but for the allocator's gaps and the libraries' buffers.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from peft import get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from harness import save_results, table
from nora15_hf import Nora15Config, Nora15ForActionPrediction
from nora15_hf.trainers import policy_lora_config

GIB = 2**30
PATCHES_PER_IMAGE = 256


@dataclass(frozen=True)
class Method:
    """One way of training: which weights learn, how the frozen ones are held, and the optimizer's state."""

    name: str
    lora_rank: int | None = None
    quantized: bool = False
    optimizer_bits: int = 32


METHODS = (
    Method("full"),
    Method("full, 8-bit AdamW", optimizer_bits=8),
    Method("LoRA r=16", lora_rank=16),
    Method("LoRA r=16, 8-bit AdamW", lora_rank=16, optimizer_bits=8),
    Method("QLoRA r=16, 8-bit AdamW", lora_rank=16, quantized=True, optimizer_bits=8),
)


def policy_for(config: Nora15Config, method: Method) -> Nora15ForActionPrediction:
    """The policy on the meta device, with adapters where the method has them."""
    with torch.device("meta"):
        model = Nora15ForActionPrediction(config)
        if method.lora_rank is not None:
            model = get_peft_model(model, policy_lora_config(config, method.lora_rank)).get_base_model()
    return model.train()


def is_quantized(name: str, parameter: nn.Parameter) -> bool:
    """Whether QLoRA holds a parameter in 4 bits: the frozen linear layers of the backbone's language model."""
    inside = name.startswith("vlm.model.language_model.layers.")
    return inside and parameter.ndim == 2 and not parameter.requires_grad


def nf4_bytes(numel: int) -> int:
    """4 bits each, one byte of scale for 64, one float32 for 256 scales, and two code books and an offset."""
    blocks = -(-numel // 64)
    return -(-numel // 2) + blocks + 4 * -(-blocks // 256) + 4 * (16 + 256 + 1)


def weight_bytes(model: nn.Module, quantized: bool) -> int:
    """Of all parameters, float32 but for the quantised ones."""
    return sum(
        nf4_bytes(p.numel()) if quantized and is_quantized(name, p) else 4 * p.numel()
        for name, p in model.named_parameters()
    )


def optimizer_bytes(model: nn.Module, bits: int) -> int:
    """AdamW's two moments; in 8 bits with a float32 scale for 256 numbers, small tensors as they are."""
    total = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        numel = parameter.numel()
        small = bits == 32 or numel < 4096
        total += 2 * (4 * numel if small else numel + 4 * -(-numel // 256))
    return total


@dataclass(frozen=True)
class LayerMemory:
    """Bytes that one layer keeps for the backward pass."""

    count: int  # such layers in the model
    saved: int  # per sample
    copies: int  # of weights, whatever the batch
    trainable_copies: int  # of those weights, the ones that autocast keeps until the forward pass ends
    checkpoint: int  # per sample, with gradient checkpointing


def saved_bytes(run: Callable[[], torch.Tensor], parameters: set[int]) -> int:
    """Bytes of distinct tensors that autograd saves while `run` computes, parameters aside."""
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(t.untyped_storage().nbytes() for key, t in saved.items() if key not in parameters)


def layer_memories(
    model: Nora15ForActionPrediction, prompt_length: int, num_targets: int, num_images: int, dtype: torch.dtype
) -> dict[str, LayerMemory]:
    """What each kind of layer keeps; `model` is on the CPU, its tensors may be fake."""
    config = model.config
    text, vision = config.vlm_config.text_config, config.vlm_config.vision_config
    expert = config.action_expert_config
    head_dim = text.hidden_size // text.num_attention_heads
    patches = PATCHES_PER_IMAGE * num_images
    draws = config.num_flow_samples * config.chunk_size
    language_model, visual = model.vlm.model.language_model, model.vlm.model.visual
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    item = dtype.itemsize

    def vision_block(block: nn.Module, batch: int, length: int):
        hidden = torch.empty(batch * patches, vision.hidden_size, dtype=dtype, requires_grad=True)
        # The block makes a list of them, which no fake tensor can give.
        boundaries = np.arange(0, batch * patches + 1, length)
        rotary = torch.empty(batch * patches, vision.hidden_size // vision.num_heads)
        return block(hidden, cu_seqlens=boundaries, position_embeddings=(rotary, rotary))

    def backbone_layer(batch: int):
        hidden = torch.empty(batch, prompt_length, text.hidden_size, requires_grad=True)
        rotary = torch.empty(batch, prompt_length, head_dim)
        mask = torch.empty(batch, 1, prompt_length, prompt_length, dtype=torch.bool)
        return language_model.layers[0](
            hidden, return_key_values=True, attention_mask=mask, position_embeddings=(rotary, rotary)
        )

    def expert_layer(batch: int):
        hidden = torch.empty(batch, draws, expert.hidden_size, requires_grad=True)
        prefix = torch.empty(batch, text.num_key_value_heads, prompt_length, head_dim, dtype=dtype, requires_grad=True)
        mask = torch.empty(batch, 1, draws, prompt_length + draws)
        rotary = torch.empty(1, draws, head_dim)
        return model.action_expert.layers[0](hidden, prefix, prefix, mask, (rotary, rotary))

    def head(batch: int):
        hidden = torch.empty(batch * num_targets, text.hidden_size, requires_grad=True)
        targets = torch.zeros(batch * num_targets, dtype=torch.long)
        return F.cross_entropy(model.vlm.lm_head(hidden).float(), targets, reduction="sum")

    window = (vision.window_size // vision.patch_size) ** 2
    num_full = len(vision.fullatt_block_indexes)
    kinds = {
        "vision block, windows": (
            vision.depth - num_full, lambda b: vision_block(visual.blocks[0], b, window), patches * vision.hidden_size * item,
            visual.blocks[0],
        ),
        "vision block, whole image": (
            num_full, lambda b: vision_block(visual.blocks[0], b, PATCHES_PER_IMAGE), patches * vision.hidden_size * item,
            visual.blocks[0],
        ),
        "backbone layer": (
            text.num_hidden_layers, backbone_layer,
            prompt_length * (text.hidden_size * 4 + 2 * text.num_key_value_heads * head_dim * item), language_model.layers[0],
        ),
        "expert layer": (
            text.num_hidden_layers, expert_layer, draws * expert.hidden_size * 4, model.action_expert,
        ),
        "LM head": (1, head, None, model.vlm.lm_head),
    }  # fmt: skip
    memories = {}
    for name, (count, run, checkpoint, module) in kinds.items():
        one, two = (saved_bytes(functools.partial(run, batch), parameters) for batch in (1, 2))
        weights = [p for p in module.parameters() if p.ndim == 2]
        trainable = sum(item * p.numel() for p in weights if p.requires_grad) if dtype != torch.float32 else 0
        copies = 2 * one - two
        memories[name] = LayerMemory(
            count, two - one, copies, min(trainable, copies), two - one if checkpoint is None else checkpoint
        )
    return memories


def activation_bytes(memories: dict[str, LayerMemory], batch_size: int, checkpointing: bool, quantized: bool) -> int:
    """What autograd keeps at the end of the forward pass, and with checkpointing the largest layer beside it."""
    total, largest = 0, 0
    for name, memory in memories.items():
        # bitsandbytes' layers keep their 4-bit weights, of which there are no copies.
        copies = memory.trainable_copies if quantized and name == "backbone layer" else memory.copies
        whole = batch_size * memory.saved + copies
        if checkpointing:
            total += memory.count * (batch_size * memory.checkpoint + memory.trainable_copies)
            largest = max(largest, whole)
        else:
            total += memory.count * whole
    return total + largest


def rows(
    config: Nora15Config, batch_size: int, prompt_length: int, num_targets: int, num_images: int
) -> Iterator[dict[str, float | str | bool]]:
    """One row of the table for each method with and without checkpointing, sizes in bytes."""
    for method in METHODS:
        model = policy_for(config, method)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        fixed = {
            "weights": weight_bytes(model, method.quantized),
            "gradients": 4 * trainable,
            "optimizer": optimizer_bytes(model, method.optimizer_bits),
        }
        with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cpu", torch.bfloat16):
            model.to_empty(device="cpu")
            memories = layer_memories(model, prompt_length, num_targets, num_images, torch.bfloat16)
        for checkpointing in (False, True):
            sizes = {**fixed, "activations": activation_bytes(memories, batch_size, checkpointing, method.quantized)}
            yield {
                "method": method.name,
                "checkpointing": checkpointing,
                "trainable": trainable,
                **sizes,
                "total": sum(sizes.values()),
            }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8, help="samples per GPU and step (default: 8)")
    parser.add_argument("--prompt_length", type=int, default=112, help="tokens of prompt and answer (default: 112)")
    parser.add_argument("--num_targets", type=int, default=16, help="supervised tokens of them (default: 16)")
    parser.add_argument("--num_images", type=int, default=1, help="cameras of 224 pixels (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("training_memory.json"), help="result file")
    options = parser.parse_args(arguments)
    sizes = ("batch_size", "prompt_length", "num_targets", "num_images")
    found = list(rows(Nora15Config(), **{name: vars(options)[name] for name in sizes}))
    columns = ("weights", "gradients", "optimizer", "activations", "total")
    print(
        table(
            ("method", "checkpointing", "trainable", *(f"{column}, GiB" for column in columns)),
            [
                (
                    str(row["method"]),
                    "yes" if row["checkpointing"] else "no",
                    f"{row['trainable'] / 1e6:,.0f} M",
                    *(f"{row[column] / GIB:.1f}" for column in columns),
                )
                for row in found
            ],
        )
    )
    save_results(options.output, {"rows": found, "settings": {name: vars(options)[name] for name in sizes}})


if __name__ == "__main__":
    main()
