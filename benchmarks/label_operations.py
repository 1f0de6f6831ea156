# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Floating-point operations that labelling takes per state: the 3 B policy with five candidates, and the released world model.

    python benchmarks/label_operations.py

PyTorch counts the products and attention (two operations per multiplication and addition) of models of the released widths and
few layers, run on one observation with a 224 px picture and a prompt of 90 tokens; since layers of a kind are alike, the count is
linear in their number and is continued to the released depth. From the sum follow GPU hours for a share of a GPU's peak.
"""

import copy
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness import save_results, table
from nora15_hf import Nora15Config
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel
from random_policy import random_policy, random_prompt

CANDIDATES, STEPS, STATES = 5, 10, 10_000
# Dense bfloat16, TFLOP/s, as the vendor gives them.
PEAKS = {"A100": 312, "H100": 989}
SHARE_OF_PEAK = 0.3


def operations(run: Callable[[], object]) -> int:
    """Of one call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def extended(
    count: Callable[[tuple[int, ...]], int], few: tuple[int, ...], steps: tuple[int, ...], depths: tuple[int, ...]
):
    """A count that is linear in several depths, measured at `few` and one step beyond of each, at other depths."""
    start = count(few)
    total = start
    for kind, step in enumerate(steps):
        beyond = tuple(depth + step * (kind == number) for number, depth in enumerate(few))
        total += (count(beyond) - start) * (depths[kind] - few[kind]) // step
    return total


def policy_operations(config: Nora15Config, text_layers: int, vision_blocks: int) -> int:
    """Candidates of one state, by a policy of that depth."""
    config = copy.deepcopy(config)
    config.vlm_config.text_config.num_hidden_layers = text_layers
    config.vlm_config.text_config.layer_types = config.vlm_config.text_config.layer_types[:text_layers]
    config.vlm_config.vision_config.depth = vision_blocks
    config._attn_implementation = "eager"
    policy = random_policy("released", dtype=torch.bfloat16, config=config)
    policy.use_inference_path = False
    shape = (1, CANDIDATES, config.chunk_size, config.action_dim)
    inputs = random_prompt(policy)
    return operations(
        lambda: policy.sample_actions(**inputs, noise=torch.zeros(shape), num_steps=STEPS, num_samples=CANDIDATES)
    )


def world_model_operations(config: VJEPA2ACConfig, blocks: int, encoder_layers: int) -> int:
    """One picture encoded, and candidates imagined from it, by a world model of that depth."""
    config = copy.deepcopy(config)
    config.predictor_num_hidden_layers = blocks
    config.encoder_config.num_hidden_layers = encoder_layers
    config._attn_implementation = "eager"
    model = VJEPA2ACModel(config).eval().to(torch.bfloat16)
    side = config.encoder_config.crop_size
    actions = torch.zeros(1, CANDIDATES, 5, config.action_dim)

    def run() -> None:
        latents = model.encode(torch.zeros(1, 1, 3, side, side))
        model.rollout(latents, actions, last_only=True)

    return operations(run)


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    policy, world_model = Nora15Config(), VJEPA2ACConfig()
    vision = policy.vlm_config.vision_config
    # Of the vision blocks, one in so many attends to the whole picture.
    period = vision.depth // len(vision.fullatt_block_indexes)
    parts = {
        "policy": extended(
            lambda depths: policy_operations(policy, *depths),
            (1, period),
            (1, period),
            (policy.vlm_config.text_config.num_hidden_layers, vision.depth),
        ),
        "world model": extended(
            lambda depths: world_model_operations(world_model, *depths),
            (1, 1),
            (1, 1),
            (world_model.predictor_num_hidden_layers, world_model.encoder_config.num_hidden_layers),
        ),
    }
    parts["both"] = sum(parts.values())
    hours = {
        name: {gpu: count * STATES / (SHARE_OF_PEAK * peak * 1e12) / 3600 for gpu, peak in PEAKS.items()}
        for name, count in parts.items()
    }
    header = ["", "TFLOP per state", *(f"{gpu}, hours per {STATES:,} states" for gpu in PEAKS)]
    rows = [
        [name, f"{count / 1e12:.2f}", *(f"{hours[name][gpu]:.2f}" for gpu in PEAKS)] for name, count in parts.items()
    ]
    print(table(header, rows))
    print(f"\nAt {SHARE_OF_PEAK:.0%} of the GPU's dense bfloat16 peak; {CANDIDATES} candidates, {STEPS} Euler steps.")
    outcome = {"operations_per_state": parts, "gpu_hours": hours, "share_of_peak": SHARE_OF_PEAK}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
