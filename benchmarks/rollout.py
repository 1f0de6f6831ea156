# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Labelling states with the world model: cached rollouts of this package against the released way of computing them.

    python benchmarks/rollout.py --threads 2

Both label states with 5 candidates of 4 steps, encoder included, with the same weights, and must agree. The released way
(written out below from its description, `facebookresearch/vjepa2` and NORA-1.5) takes one state at a time, encodes its
frame and its goal, and predicts the whole clip again at every step, all candidates in one batch, under a mask; positions
and rotations are computed anew in every layer. This package caches keys and values, attends frame by frame without a
mask, and encodes a goal once: "one by one" labels states singly, "batched" all of them in one call.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from torch import nn

from harness import add_threads_argument, median_seconds, peak_memory, save_results, set_threads, table
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel, normalize_latents


def rotate_axis(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One axis of the released rotary embedding, its angles computed at every call."""
    width = hidden.shape[-1]
    angles = positions[:, None] * 1.0 / 10000 ** (torch.arange(width // 2) / (width / 2))
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    even, odd = hidden.unflatten(-1, (-1, 2)).unbind(-1)
    return hidden * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin


def released_attention(
    attention: nn.Module, hidden: torch.Tensor, num_frames: int, grid: tuple[int, int], mask: torch.Tensor
) -> torch.Tensor:
    """Condition tokens and patches are projected and rotated apart, merged, and attend under a mask."""
    axis = 2 * (attention.head_dim // 3 // 2)
    patches = grid[0] * grid[1]
    frames = hidden.unflatten(1, (num_frames, -1))
    ids = torch.arange(num_frames * patches)
    positions = (ids // patches, ids % patches // grid[1], ids % patches % grid[1] * (grid[0] / grid[1]))
    parts = []
    for token in range(frames.shape[2] - patches):
        qkv = attention.qkv(frames[:, :, token]).unflatten(-1, (3, -1, attention.head_dim)).permute(2, 0, 3, 1, 4)
        when = torch.arange(num_frames)
        turned = [torch.cat([rotate_axis(x[..., :axis], when), x[..., axis:]], dim=-1) for x in qkv[:2]]
        parts.append([x.unflatten(2, (num_frames, 1)) for x in (*turned, qkv[2])])
    qkv = attention.qkv(frames[:, :, -patches:].flatten(1, 2))
    qkv = qkv.unflatten(-1, (3, -1, attention.head_dim)).permute(2, 0, 3, 1, 4)
    turned = [
        torch.cat(
            [*(rotate_axis(x[..., i * axis : (i + 1) * axis], positions[i]) for i in range(3)), x[..., 3 * axis :]],
            dim=-1,
        )
        for x in qkv[:2]
    ]
    parts.append([x.unflatten(2, (num_frames, patches)) for x in (*turned, qkv[2])])
    query, key, value = (torch.cat(kind, dim=3).flatten(2, 3) for kind in zip(*parts, strict=True))
    attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attention.proj(attended.transpose(1, 2).reshape(hidden.shape))


def released_prediction(
    model: VJEPA2ACModel, latents: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Next-frame latents of a clip, computed the released way with this package's weights."""
    predictor, num_frames = model.predictor, latents.shape[1]
    states = latents.new_zeros(*latents.shape[:2], model.config.state_dim)
    tokens = torch.stack([predictor.action_encoder(actions), predictor.state_encoder(states)], dim=2)
    hidden = torch.cat([tokens, predictor.predictor_embed(latents)], dim=2).flatten(1, 2)
    seen = mask[: hidden.shape[1], : hidden.shape[1]]
    for block in predictor.predictor_blocks:
        hidden = hidden + released_attention(block.attn, block.norm1(hidden), num_frames, model.config.grid_size, seen)
        hidden = hidden + block.mlp(block.norm2(hidden))
    patches = hidden.unflatten(1, (num_frames, -1))[:, :, model.config.num_condition_tokens :]
    return normalize_latents(predictor.predictor_proj(predictor.predictor_norm(patches)))


def label_released(
    model: VJEPA2ACModel, current: torch.Tensor, goals: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
    """Energies `(B, N)`, one state after the other, everything recomputed."""
    num_candidates, num_steps = candidates.shape[1:3]
    frame = torch.arange(num_steps).repeat_interleave(model.config.tokens_per_frame)
    mask = frame[:, None] >= frame[None, :]
    energies = []
    for image, goal_image, actions in zip(current, goals, candidates, strict=True):
        clip = model.encode(image[None, None]).repeat(num_candidates, 1, 1, 1)
        goal = model.encode(goal_image[None, None])[0]
        for step in range(1, num_steps + 1):
            prediction = released_prediction(model, clip, actions[:, :step], mask)
            clip = torch.cat([clip, prediction[:, -1:]], dim=1)
        energies.append((clip[:, -1] - goal).abs().mean(dim=(1, 2)))
    return torch.stack(energies)


def label_cached(
    model: VJEPA2ACModel, current: torch.Tensor, goals: torch.Tensor, candidates: torch.Tensor, batch: int
) -> torch.Tensor:
    """Energies `(B, N)`, `batch` states per call; the states share the first goal, which is encoded once."""
    goal = model.encode(goals[None, :1])[0]
    energies = []
    for images, actions in zip(current.split(batch), candidates.split(batch), strict=True):
        imagined = model.rollout(model.encode(images[:, None]), actions, last_only=True)
        energies.append(model.goal_energy(imagined, goal.expand(len(images), -1, -1)))
    return torch.cat(energies)


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=4, help="states of one episode, which share their goal")
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=256, help="16 pixels per patch: 256 gives 256 patches")
    parser.add_argument("--width", type=int, default=256, help="of encoder and predictor")
    parser.add_argument("--depth", type=int, default=6, help="of encoder and predictor")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=None, help="JSON file for the results")
    add_threads_argument(parser)
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    torch.manual_seed(0)
    config = VJEPA2ACConfig(
        encoder_config={
            "hidden_size": options.width,
            "num_hidden_layers": options.depth,
            "num_attention_heads": 4,
            "mlp_ratio": 4.0,
            "crop_size": options.image_size,
            "patch_size": 16,
            "tubelet_size": 2,
            "frames_per_clip": 2,
        },
        predictor_hidden_size=options.width,
        predictor_num_hidden_layers=options.depth,
        predictor_num_attention_heads=4,
        # Large enough that a mistake in the positions would show in the energies.
        initializer_range=0.1,
    )
    model = VJEPA2ACModel(config).eval()
    current = torch.randn(options.states, 3, options.image_size, options.image_size)
    goals = torch.randn(1, 3, options.image_size, options.image_size).expand_as(current)
    candidates = torch.randn(options.states, options.candidates, options.steps, config.action_dim)
    states = (current, goals, candidates)

    with torch.inference_mode():
        reference = label_released(model, *states)
        difference = max(
            (label_cached(model, *states, batch) - reference).abs().max().item() for batch in (1, options.states)
        )
        if difference > 1e-5:
            raise RuntimeError(f"The two ways disagree by {difference:.2e}: there is nothing to compare.")
        contestants = {
            "released": lambda: label_released(model, *states),
            "cached, one by one": lambda: label_cached(model, *states, batch=1),
            "cached, batched": lambda: label_cached(model, *states, batch=options.states),
        }
        seconds = median_seconds(contestants, options.repeats)
        memory = peak_memory(contestants)
    rows = [
        [
            name,
            f"{1000 * value / options.states:.0f}",
            f"{seconds['released'] / value:.2f}x",
            f"{memory[name] / 2**20:.0f}",
        ]
        for name, value in seconds.items()
    ]
    print(table(["per state", "ms", "speed-up", "peak MiB"], rows))
    print(f"\nEnergies differ by at most {difference:.1e}.")
    outcome = {
        **{name: value for name, value in vars(options).items() if name != "output"},
        "max_energy_difference": difference,
        "seconds_per_state": {name: value / options.states for name, value in seconds.items()},
        "peak_bytes": memory,
        "speed_up": {name: seconds["released"] / value for name, value in seconds.items()},
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
