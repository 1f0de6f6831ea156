# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Time to a chunk of actions: this package's sampling, the released code's way, transformers' PI0 at matched sizes.

    python benchmarks/sample.py --threads 2 --output outputs/benchmarks/sample.json
    python benchmarks/sample.py --size released --device cuda --dtype bfloat16

All contestants run in turn in one process. `ours` is `sample_actions`; `warmed up` is the same after `warm_up`, which compiles
it; `modules` is this package's path through its modules, as in training; `reference` is `plain_policy.py`; the four must
agree. PI0 is another network: equally wide, deep and many-headed in all its parts,
with an equal number of steps, but other weights, so that only its time can be compared. It is run twice: with a prompt as
long as ours, for which its vision tower gets a quarter of our patches, and with as many patches, which make its prompt
three times as long.
"""

import copy
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch

from harness import add_threads_argument, compare, peak_memory, save_results, set_threads, time_contestants
from matched_pi0 import matched_pi0, pi0_inputs
from nora15_hf import Nora15ForActionPrediction
from plain_policy import PlainPolicy
from random_policy import PROMPT_TOKENS, random_policy, random_prompt

CANDIDATES = 5
# Between float32 paths that add up in another order, relative to the largest action.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def sample_by_modules(
    model: Nora15ForActionPrediction, inputs: dict[str, torch.Tensor], noise: torch.Tensor, num_steps: int
) -> torch.Tensor:
    """Our path as training runs it: every module called, Euler's loop around them."""
    with torch.no_grad():
        model.use_inference_path = False
        prefix = model.encode_prefix(**inputs)
        model.use_inference_path = True
        sample = noise
        for step in range(num_steps):
            time = torch.full(noise.shape[:-2], 1 - step / num_steps, device=noise.device)
            sample = sample - model.predict_velocity(sample, time, prefix) / num_steps
    return sample


def parameters(module: torch.nn.Module) -> float:
    """Millions of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def check_agreement(results: dict[str, torch.Tensor], tolerance: float) -> float:
    """The largest difference from the reference, relative to its largest entry; raises when that is above tolerance."""
    expected = results["reference"]
    differences = {
        name: ((found - expected).abs().max() / expected.abs().max()).item() for name, found in results.items()
    }
    worst = max(differences, key=differences.get)
    if not differences[worst] <= tolerance:
        raise RuntimeError(
            f"{worst} differs from the reference by {differences[worst]:.1e}: times cannot be compared."
        )
    return differences[worst]


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "cpu", "released"), default="cpu", help="default cpu, 107 M")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    add_threads_argument(parser)
    parser.add_argument("--steps", type=int, default=10, help="Euler steps (default 10)")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds (default 9)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    dtype = getattr(torch, options.dtype)
    model = random_policy(options.size, options.device, dtype)
    inputs = random_prompt(model)
    plain = PlainPolicy(model)
    compiled = copy.deepcopy(model)
    for num_samples in (1, CANDIDATES):
        compiled.warm_up(**inputs, num_samples=num_samples)
    shape = (1, CANDIDATES, model.config.chunk_size, model.config.action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    steps = options.steps
    with torch.no_grad():
        prefix = model.encode_prefix(**inputs)
    text_tokens = PROMPT_TOKENS - (inputs["input_ids"] == model.config.vlm_config.image_token_id).sum().item()
    pi0 = {patch: matched_pi0(model.config, patch, options.device, dtype) for patch in (28, 14)}
    pi0_prompt = {patch: pi0_inputs(network, text_tokens, 1) for patch, network in pi0.items()}
    pi0_noise = noise[:, 0].to(dtype)

    contestants = {
        "one chunk": {
            "reference": lambda: plain.sample_actions(inputs, noise[:, :1], steps)[:, 0],
            "modules": lambda: sample_by_modules(model, inputs, noise[:, 0], steps),
            "ours": lambda: model.sample_actions(**inputs, noise=noise[:, 0], num_steps=steps),
            "warmed up": lambda: compiled.sample_actions(**inputs, noise=noise[:, 0], num_steps=steps),
        },
        f"{CANDIDATES} candidates of one state": {
            "reference": lambda: plain.sample_actions(inputs, noise, steps),
            "modules": lambda: sample_by_modules(model, inputs, noise, steps),
            "ours": lambda: model.sample_actions(**inputs, noise=noise, num_steps=steps, num_samples=CANDIDATES),
            "warmed up": lambda: compiled.sample_actions(
                **inputs, noise=noise, num_steps=steps, num_samples=CANDIDATES
            ),
        },
    }
    difference = max(
        check_agreement({name: run() for name, run in group.items()}, TOLERANCE[dtype])
        for group in contestants.values()
    )
    for patch, network in pi0.items():
        tokens = pi0_prompt[patch]["input_ids"].shape[1]
        contestants["one chunk"][f"PI0, {tokens} tokens of prompt, patches of {patch} px"] = (
            lambda network=network, patch=patch: network.sample_actions(
                **pi0_prompt[patch], noise=pi0_noise, num_steps=steps
            )
        )
    contestants["prompt of one chunk"] = {
        "reference": torch.no_grad()(lambda: plain.prefill(inputs)),
        "ours": torch.no_grad()(lambda: model.encode_prefix(**inputs)),
        "warmed up": torch.no_grad()(lambda: compiled.encode_prefix(**inputs)),
    }
    contestants["denoising of one chunk"] = {
        "ours": lambda: model.sample_actions(prefix=prefix, noise=noise[:, 0], num_steps=steps),
        "warmed up": lambda: compiled.sample_actions(prefix=prefix, noise=noise[:, 0], num_steps=steps),
    }
    timed = {(work, name): run for work, group in contestants.items() for name, run in group.items()}
    timings, memory = time_contestants(timed, options.rounds), peak_memory(timed)
    results = {}
    for work, group in contestants.items():
        print(f"\n{work}\n")
        results[work] = compare(
            {name: timings[work, name] for name in group},
            "warmed up",
            {name: memory[work, name] for name in group},
        )
    sizes = {
        "policy_million": parameters(model),
        "policy_vision_million": parameters(model.vlm.model.visual),
        "policy_expert_million": parameters(model.action_expert),
        "pi0_million": {patch: parameters(network) for patch, network in pi0.items()},
        "pi0_vision_million": {patch: parameters(network.model.vlm.vision_tower) for patch, network in pi0.items()},
        "pi0_expert_million": {patch: parameters(network.model.dit.layers) for patch, network in pi0.items()},
        "prompt_tokens": PROMPT_TOKENS,
    }
    print(f"\nMillions of parameters: {sizes}")
    print(
        f"{steps} steps, {options.dtype}, {torch.get_num_threads()} threads, {options.rounds} rounds; all but PI0 "
        f"agree within {difference:.1e} of the largest action."
    )
    outcome = {
        "size": options.size,
        "device": options.device,
        "dtype": options.dtype,
        "steps": steps,
        "relative_difference": difference,
        "sizes": sizes,
        "results": results,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
