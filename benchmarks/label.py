# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Time to label a state: five candidates of the policy, each imagined by the world model and scored against a goal picture.

    python benchmarks/label.py --threads 2 --output outputs/benchmarks/label.json

The reference samples one candidate after the other as the released policy does (`plain_policy.py`) and imagines them as the
released labelling does (`rollout.py`). Ours samples all candidates from one backbone pass and imagines them from one cached
context. Both have the same weights and noise and must agree on every energy.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch

from harness import add_speed_arguments, compare, peak_memory, save_results, set_threads, time_contestants
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel
from plain_policy import PlainPolicy
from random_policy import random_policy, random_prompt
from rollout import label_cached, label_released

CANDIDATES = 5
# Width, depth and picture of the world model that stands beside a policy of that size.
WORLD_MODELS = {"tiny": (32, 2, 32), "cpu": (256, 6, 128)}
TOLERANCE = 1e-4


def random_world_model(size: str, action_dim: int) -> VJEPA2ACModel:
    """A world model with random weights."""
    width, depth, picture = WORLD_MODELS[size]
    torch.manual_seed(0)
    config = VJEPA2ACConfig(
        encoder_config={
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": 4,
            "mlp_ratio": 4.0,
            "crop_size": picture,
            "patch_size": 16,
            "tubelet_size": 2,
            "frames_per_clip": 2,
        },
        predictor_hidden_size=width,
        predictor_num_hidden_layers=depth,
        predictor_num_attention_heads=4,
        action_dim=action_dim,
    )
    return VJEPA2ACModel(config).eval()


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_speed_arguments(parser, rounds=3)
    parser.add_argument("--states", type=int, default=4, help="states per round (default 4), of one episode")
    parser.add_argument("--steps", type=int, default=10, help="Euler steps (default 10)")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    policy = random_policy(options.size)
    plain = PlainPolicy(policy)
    world_model = random_world_model(options.size, policy.config.action_dim)
    inputs = random_prompt(policy, options.states)
    picture = WORLD_MODELS[options.size][2]
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(options.states, 3, picture, picture, generator=generator)
    goals = torch.randn(1, 3, picture, picture, generator=generator).expand_as(frames)
    shape = (options.states, CANDIDATES, policy.config.chunk_size, policy.config.action_dim)
    noise = torch.randn(shape, generator=generator)

    @torch.no_grad()
    def reference() -> torch.Tensor:
        candidates = plain.sample_actions(inputs, noise, options.steps)
        return label_released(world_model, frames, goals, candidates)

    @torch.no_grad()
    def ours() -> torch.Tensor:
        candidates = policy.sample_actions(**inputs, noise=noise, num_steps=options.steps, num_samples=CANDIDATES)
        return label_cached(world_model, frames, goals, candidates, options.states)

    difference = (reference() - ours()).abs().max().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"The energies differ by {difference:.1e}: times cannot be compared.")
    contestants = {"reference": reference, "ours": ours}
    results = compare(time_contestants(contestants, options.rounds), "ours", peak_memory(contestants))
    print(
        f"\n{options.states} states of {CANDIDATES} candidates per round, {torch.get_num_threads()} threads, float32; "
        f"energies agree within {difference:.1e}."
    )
    outcome = {"size": options.size, "states": options.states, "energy_difference": difference, "results": results}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
