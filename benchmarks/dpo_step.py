# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Pairs per second of a flow-DPO step with a frozen backbone, against a plain implementation in the same run.

    python benchmarks/dpo_step.py --policy outputs/quickstart/policy-sft --preferences outputs/quickstart/preferences

Both train the same action expert with the same loss and optimizer on the same draws of noise and time; what differs is how
often the networks run. The plain step is what one writes down first: a pass of backbone and expert for each of chosen and
rejected under policy and reference, four in all, one for each draw of noise and time. Ours encodes every prompt once and
asks the expert for all chunks and draws together, with the reference computed before the clock starts ("precomputed") or
at every step ("live"). Before anything is timed the gradients of all three are compared.

The released code (declare-lab/nora-1.5) lies between the two: it runs the backbone once for each half of a pair and the
expert of policy and reference on that.
"""

import copy
import re
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, Features
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from harness import median_seconds, save_results, table
from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.preferences import load_preferences, preference_features
from nora15_hf.trainers import FlowDPOConfig, FlowDPOTrainer
from nora15_hf.trainers.flow_dpo_trainer import PRECOMPUTED
from observed_policy import load_policy

BETA = 50.0
BACKBONE = re.compile(r"\.visual$|\.language_model\.layers\.\d+$")
LEARNING_RATE = 1e-5


def load_rows(options: Namespace, policy: Nora15ForActionPrediction, processor: Nora15Processor) -> Dataset:
    """Pairs of a preference set, or of random pictures and chunks."""
    if options.preferences is not None:
        return load_preferences(options.preferences).select(range(options.pairs))
    random = np.random.default_rng(0)
    size = processor.image_size
    shape = (options.pairs, policy.config.chunk_size, policy.config.action_dim)
    rows = {
        "images": [
            [Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8))] for _ in range(options.pairs)
        ],
        "instruction": ["open the faucet"] * options.pairs,
        "chosen": list(random.normal(scale=0.5, size=shape).astype(np.float32)),
        "rejected": list(random.normal(scale=0.5, size=shape).astype(np.float32)),
        "dataset_key": [next(iter(processor.norm_stats))] * options.pairs,
    }
    features = preference_features(2, *shape[1:], ["none"])
    return Dataset.from_dict(rows, features=Features({name: features[name] for name in rows}))


class PlainStep:
    """Separate passes for chosen, rejected, policy and reference, each of backbone and expert, one draw at a time."""

    def __init__(self, policy: Nora15ForActionPrediction, trainer: FlowDPOTrainer, batch: dict[str, torch.Tensor]):
        self.policy = policy
        self.policy.vlm.requires_grad_(False)
        self.reference = copy.deepcopy(policy).requires_grad_(False)
        self.trainer, self.batch = trainer, batch
        self.prompt = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")}
        self.optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=LEARNING_RATE)

    def error(self, model: Nora15ForActionPrediction, side: str, noise: torch.Tensor, time: torch.Tensor):
        chunk = self.batch[side]
        velocity = model(**self.prompt, actions=chunk, noise=noise, timestep=time).velocity
        return (velocity - (noise - chunk)).square().mean((1, 2))

    def loss(self) -> torch.Tensor:
        draws = self.trainer._draws(self.batch, PRECOMPUTED)
        logratios = {}
        for side in ("chosen", "rejected"):
            gains = []
            for draw in range(draws.noise.shape[2]):
                noise, time = draws.noise[:, 0, draw], draws.timestep[:, 0, draw]
                with torch.no_grad():
                    reference = self.error(self.reference, side, noise, time)
                gains.append(reference - self.error(self.policy, side, noise, time))
            logratios[side] = torch.stack(gains).mean(0)
        return -F.logsigmoid(BETA * (logratios["chosen"] - logratios["rejected"])).mean()

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


class OurStep:
    """A step of the trainer, without its logging and schedule."""

    def __init__(self, trainer: FlowDPOTrainer, batch: dict[str, torch.Tensor]):
        self.trainer, self.batch, self.policy = trainer, batch, trainer.model.train()
        self.optimizer = torch.optim.AdamW([p for p in self.policy.parameters() if p.requires_grad], lr=LEARNING_RATE)

    def loss(self) -> torch.Tensor:
        return self.trainer.compute_loss(self.policy, self.batch)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        # The trainer collects metrics until it logs.
        self.trainer._preference_metrics["train"].clear()


def backbone_flops(function) -> int:
    """Floating-point operations inside the backbone, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    counts = counter.get_flop_counts()
    return sum(sum(ops.values()) for name, ops in counts.items() if BACKBONE.search(name))


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="folder of a policy; default: the tiny preset with random weights")
    parser.add_argument("--preferences", type=Path, help="folder of a preference set; default: random pairs")
    parser.add_argument("--pairs", type=int, default=32, help="pairs in the batch (default 32)")
    parser.add_argument("--draws", type=int, default=1, help="draws of noise and time per pair (default 1)")
    parser.add_argument("--repeats", type=int, default=10, help="timed rounds (default 10)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)

    policy, processor = load_policy(options)
    rows = load_rows(options, policy, processor)
    with tempfile.TemporaryDirectory() as folder:
        steps = {}
        for name, precompute in (("live reference", False), ("precomputed reference", True)):
            trainer = FlowDPOTrainer(
                copy.deepcopy(policy),
                FlowDPOConfig(
                    f"{folder}/{name}",
                    beta=BETA,
                    num_draws=options.draws,
                    freeze_backbone=True,
                    precompute_ref_log_probs=precompute,
                    use_cpu=True,
                    report_to="none",
                    disable_tqdm=True,
                ),
                rows,
                processor,
            )
            batch = trainer.data_collator(list(trainer.train_dataset))
            steps[name] = OurStep(trainer, batch)
    # All on the draws that the precomputed values belong to.
    steps["live reference"].trainer._draws = lambda inputs, purpose: trainer._draws(inputs, PRECOMPUTED)
    steps = {"plain": PlainStep(copy.deepcopy(policy).train(), trainer, batch), **steps}

    check_same_gradients(steps)
    flops = {name: backbone_flops(step) for name, step in steps.items()}
    with torch.no_grad():
        one_pass = backbone_flops(lambda: policy(**steps["plain"].prompt, actions=batch["chosen"]))
    seconds = median_seconds(steps, options.repeats)

    results = [
        {
            "step": name,
            "pairs_per_second": options.pairs / seconds[name],
            "speed_up": seconds["plain"] / seconds[name],
            "backbone_passes": flops[name] / one_pass,
        }
        for name in steps
    ]
    print(
        table(
            ["step", "pairs/s", "speed-up", "backbone passes"],
            [
                [
                    row["step"],
                    f"{row['pairs_per_second']:.1f}",
                    f"{row['speed_up']:.2f}",
                    f"{row['backbone_passes']:.2f}",
                ]
                for row in results
            ],
        )
    )
    outcome = {
        "policy": "tiny preset, random weights" if options.policy is None else options.policy.name,
        "preferences": "random pairs" if options.preferences is None else options.preferences.name,
        "pairs": options.pairs,
        "draws": options.draws,
        "repeats": options.repeats,
        "results": results,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


def check_same_gradients(steps: dict) -> None:
    """Raises when the steps do not train the same loss. Moved off the reference first, where gradients are small."""
    gradients = {}
    for name, step in steps.items():
        with torch.no_grad():
            step.policy.action_out_proj.weight.mul_(1.01)
        step.loss().backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in step.policy.parameters() if p.grad is not None])
        with torch.no_grad():
            step.policy.action_out_proj.weight.div_(1.01)
    for name, gradient in gradients.items():
        if not torch.allclose(gradient, gradients["plain"], atol=1e-3 * gradients["plain"].norm().item(), rtol=0):
            raise RuntimeError(f"The step with {name} trains another loss than the plain one.")


if __name__ == "__main__":
    main()
