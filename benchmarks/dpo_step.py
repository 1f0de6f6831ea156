# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Pairs per second and memory of a flow-DPO step, against a plain implementation in the same run.

    python benchmarks/dpo_step.py --threads 2 --output outputs/benchmarks/dpo_step.json
    python benchmarks/dpo_step.py --train full
    python benchmarks/dpo_step.py --size released --device cuda --dtype bfloat16 --train qlora --gradient_checkpointing
    python benchmarks/dpo_step.py --policy outputs/quickstart/policy-sft --preferences outputs/quickstart/preferences

`--train` says what learns: `frozen` the action expert alone, `full` everything, `lora` and `qlora` adapters in the
backbone (held in 4 bits with `qlora`) and the whole action expert. All contestants train the same parameters with the same
loss and optimizer on the same draws of noise and time; what differs is how often the networks run:

* `plain` is what one writes down first: a pass of backbone and expert for each of chosen and rejected under policy and
  reference, four in all, one for each draw of noise and time. Its reference is a complete copy, or the policy without its
  adapters.
* `ours, live reference` encodes every prompt once for the policy, and for the reference where that has another backbone,
  and asks the expert for all chunks and draws together.
* `ours, precomputed reference` asked the reference before the clock started.
* `ours, prefixes on disk`, for a frozen backbone, reads the backbone's keys and values of every prompt from files, inside
  the clock, as data loading does in training; with a live and with a precomputed reference. The other contestants get their
  batch for nothing: their images are decoded and cut into patches before.

Before anything is timed the gradients of all are compared. On a GPU the contestants run one after the other, since the 3 B
model fits there only once. Memory is that of weights, reference and optimizer state and of the tensors at the worst moment
of a step, the gradients among them.

The released code (declare-lab/nora-1.5) lies between plain and ours: it runs the backbone once for each half of a pair and
the expert of policy and reference on that.
"""

import copy
import gc
import importlib.util
import re
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, Features
from peft import PeftModel, get_peft_model
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from harness import Timing, add_threads_argument, peak_memory, save_results, set_threads, table, time_contestants
from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.nora15.flow_matching import draw_flow_samples
from nora15_hf.preferences import load_preferences, preference_features
from nora15_hf.trainers import FlowDPOConfig, FlowDPOTrainer, nf4_config, policy_lora_config
from nora15_hf.trainers.flow_dpo.flow_dpo_trainer import PRECOMPUTED
from nora15_hf.trainers.flow_dpo.preference_collator import ROW_INDEX, PreferenceCollator
from random_policy import random_policy_with_processor

BETA = 50.0
SEED = 0
BACKBONE = re.compile(r"\.visual$|\.language_model\.layers\.\d+$")
# So small that the policy stays beside its reference. A few steps of 1e-5 teach all weights these pairs so well that the
# gradients vanish, and products of denormal numbers take a CPU twenty times as long.
LEARNING_RATE = 1e-9
LORA_RANK = 16
PLAIN = "plain"
OURS = {
    "ours, live reference": {},
    "ours, precomputed reference": {"precompute_ref_log_probs": True},
}
PREFIXES_ON_DISK = {
    "ours, prefixes on disk": {"prefix_cache_dir": "prefixes"},
    "ours, prefixes on disk, precomputed reference": {
        "prefix_cache_dir": "prefixes",
        "precompute_ref_log_probs": True,
    },
}
# Of the norm of the gradient, in which chosen and rejected nearly cancel: bfloat16 leaves little of the difference exact.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}


def load_rows(
    options: Namespace,
    policy: Nora15ForActionPrediction,
    processor: Nora15Processor,
    instruction: str = "open the faucet",
) -> Dataset:
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
        "instruction": [instruction] * options.pairs,
        "chosen": list(random.normal(scale=0.5, size=shape).astype(np.float32)),
        "rejected": list(random.normal(scale=0.5, size=shape).astype(np.float32)),
        "dataset_key": [next(iter(processor.norm_stats))] * options.pairs,
    }
    features = preference_features(2, *shape[1:], ["none"])
    return Dataset.from_dict(rows, features=Features({name: features[name] for name in rows}))


def load_trained(
    options: Namespace, folder: str
) -> tuple[Nora15ForActionPrediction | PeftModel, Nora15Processor, str]:
    """The policy with its adapters, if it has any, its processor and an instruction."""
    if options.policy is not None:
        policy = Nora15ForActionPrediction.from_pretrained(options.policy, dtype=torch.float32).to(options.device)
        processor, instruction = Nora15Processor.from_pretrained(options.policy), "open the faucet"
    else:
        policy, processor, instruction = random_policy_with_processor(options.size, options.device)
    if options.train == "qlora":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModuleNotFoundError("--train qlora needs bitsandbytes: pip install 'nora15_hf[quant]'.")
        policy.save_pretrained(folder)
        policy = Nora15ForActionPrediction.from_pretrained(
            folder,
            dtype=torch.float32,
            quantization_config=nf4_config(getattr(torch, options.dtype)),
            device_map={"": options.device},
        )
    if options.train in ("lora", "qlora"):
        policy = get_peft_model(policy, policy_lora_config(policy.config, LORA_RANK))
    # Before its first pass: on a CPU, bitsandbytes rearranges what runs in evaluation mode, and cannot train it any more.
    return policy.train(), processor, instruction


class Step:
    """A step of training: `loss`, its gradient and the optimizer's step."""

    def __init__(self, policy: torch.nn.Module, reference: torch.nn.Module | None):
        self.policy, self.reference = policy, reference
        self.trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE, fused=True)

    def loss(self) -> torch.Tensor:
        raise NotImplementedError

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def held_bytes(self) -> int:
        """Of weights, reference and optimizer state, each once."""
        tensors = [*self.policy.parameters(), *(() if self.reference is None else self.reference.parameters())]
        tensors += [value for state in self.optimizer.state.values() for value in state.values()]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        return sum(storages.values())


class PlainStep(Step):
    """Separate passes for chosen, rejected, policy and reference, each of backbone and expert, one draw at a time."""

    def __init__(self, policy: torch.nn.Module, processor: Nora15Processor, rows: Dataset, options: Namespace):
        reference = None if isinstance(policy, PeftModel) else copy.deepcopy(policy).requires_grad_(False)
        if options.train == "frozen":
            policy.vlm.requires_grad_(False)
        super().__init__(policy.train(), reference)
        batch = PreferenceCollator(processor, policy.config)(list(rows.add_column(ROW_INDEX, list(range(len(rows))))))
        self.batch = {name: tensor.to(options.device) for name, tensor in batch.items()}
        self.prompt = {
            key: self.batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
        }
        keys = [(SEED, PRECOMPUTED, 0, row) for row in range(len(rows))]
        self.draws = draw_flow_samples(policy.config, keys, (1, options.draws), stratified=True)
        self.autocast = torch.autocast(options.device, torch.bfloat16, enabled=options.dtype == "bfloat16")

    def error(self, model: torch.nn.Module, side: str, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        chunk = self.batch[side]
        velocity = model(**self.prompt, actions=chunk, noise=noise, timestep=time).velocity
        return (velocity - (noise - chunk)).square().mean((1, 2))

    @torch.no_grad()
    def one_pass(self) -> None:
        """Of the policy, without gradients."""
        with self.autocast:
            self.policy(**self.prompt, actions=self.batch["chosen"])

    def reference_error(self, *arguments) -> torch.Tensor:
        without = self.policy.disable_adapter() if self.reference is None else nullcontext()
        with torch.no_grad(), without:
            return self.error(self.reference or self.policy, *arguments)

    def loss(self) -> torch.Tensor:
        draws, logratios = self.draws, {}
        with self.autocast:
            for side in ("chosen", "rejected"):
                gains = []
                for draw in range(draws.noise.shape[2]):
                    noise, time = (x[:, 0, draw].to(self.batch[side]) for x in (draws.noise, draws.timestep))
                    reference = self.reference_error(side, noise, time)
                    gains.append(reference - self.error(self.policy, side, noise, time))
                logratios[side] = torch.stack(gains).mean(0)
        return -F.logsigmoid(BETA * (logratios["chosen"] - logratios["rejected"])).mean()


class OurStep(Step):
    """A step of the trainer, without its logging and schedule. With prefixes on disk it reads them at every step."""

    def __init__(self, trainer: FlowDPOTrainer):
        super().__init__(trainer.model.train(), trainer.ref_model)
        self.trainer = trainer
        # All contestants on the draws that precomputed values belong to.
        draw = trainer._draws
        trainer._draws = lambda inputs, purpose: draw(inputs, PRECOMPUTED)
        self.batch = self.read() if trainer.args.prefix_cache_dir is None else None

    def read(self) -> dict[str, torch.Tensor]:
        rows = self.trainer.train_dataset
        return self.trainer._prepare_inputs(self.trainer.data_collator([rows[row] for row in range(len(rows))]))

    def loss(self) -> torch.Tensor:
        loss = self.trainer.compute_loss(self.policy, self.read() if self.batch is None else self.batch)
        # The trainer collects metrics until it logs.
        self.trainer._metrics["train"].clear()
        return loss


def make_step(
    name: str,
    policy: torch.nn.Module,
    processor: Nora15Processor,
    rows: Dataset,
    options: Namespace,
    folder: str,
) -> Step:
    """The contestant of that name, on a copy of the policy."""
    if options.device == "cpu":
        policy = copy.deepcopy(policy)
    if options.gradient_checkpointing:
        # Of both: the trainer would do it only when its training begins.
        policy.activation_checkpointing_enable()
    if name == PLAIN:
        return PlainStep(policy, processor, rows, options)
    settings = {**OURS, **PREFIXES_ON_DISK}[name]
    if "prefix_cache_dir" in settings:
        settings = settings | {"prefix_cache_dir": f"{folder}/{settings['prefix_cache_dir']}"}
    config = FlowDPOConfig(
        f"{folder}/{name}",
        beta=BETA,
        seed=SEED,
        num_draws=options.draws,
        freeze_backbone=options.train == "frozen",
        bf16=options.dtype == "bfloat16",
        gradient_checkpointing=options.gradient_checkpointing,
        per_device_train_batch_size=options.pairs,
        use_cpu=options.device == "cpu",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    return OurStep(FlowDPOTrainer(policy, config, train_dataset=rows, processing_class=processor))


def backbone_flops(function: Callable[[], object]) -> int:
    """Floating-point operations inside the backbone, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    counts = counter.get_flop_counts()
    return sum(sum(ops.values()) for name, ops in counts.items() if BACKBONE.search(name))


def gradient(step: Step) -> torch.Tensor:
    """
    What the gradients are compared by: all of them, or their norms where they are many. Moved off the reference first, where
    adapters are zero and half of their gradients too.
    """
    moved = [
        parameter
        for name, parameter in step.policy.named_parameters()
        if parameter.requires_grad and ("action_out_proj" in name or "lora_B" in name)
    ]
    with torch.no_grad():
        kept = [parameter.clone() for parameter in moved]
        for parameter in moved:
            parameter.add_(1e-3)
    step.loss().backward()
    gradients = [p.grad for p in step.trained if p.grad is not None]
    if sum(grad.numel() for grad in gradients) > 10**9:
        found = torch.stack([grad.norm() for grad in gradients])
    else:
        found = torch.cat([grad.flatten() for grad in gradients])
    step.optimizer.zero_grad()
    with torch.no_grad():
        for parameter, value in zip(moved, kept, strict=True):
            parameter.copy_(value)
    return found.cpu()


def measure(steps: dict[str, Step], rounds: int) -> tuple[dict[str, Timing], dict[str, int], dict[str, int]]:
    """Times, bytes and backbone operations of contestants that stand side by side in memory."""
    timings = time_contestants(steps, rounds)
    peaks = peak_memory(steps)
    memory = {name: peaks[name] + step.held_bytes() for name, step in steps.items()}
    return timings, memory, {name: backbone_flops(step) for name, step in steps.items()}


def check_same_gradients(gradients: dict[str, torch.Tensor], tolerance: float) -> float:
    """The largest difference from the plain gradient, relative to its norm; raises when it is above tolerance."""
    plain = gradients[PLAIN]
    differences = {name: ((found - plain).norm() / plain.norm()).item() for name, found in gradients.items()}
    worst = max(differences, key=differences.get)
    if not differences[worst] <= tolerance:
        raise RuntimeError(
            f"The step with {worst} trains another loss than the plain one: its gradient differs by "
            f"{differences[worst]:.1e} of the norm."
        )
    return differences[worst]


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "cpu", "released"), default="cpu", help="default cpu, 107 M")
    parser.add_argument("--train", choices=("frozen", "full", "lora", "qlora"), default="frozen")
    parser.add_argument("--policy", type=Path, help="folder of a policy; default: random weights of --size")
    parser.add_argument("--preferences", type=Path, help="folder of a preference set; default: random pairs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of products; weights are float32"
    )
    parser.add_argument("--gradient_checkpointing", action="store_true", help="recompute activations to save memory")
    add_threads_argument(parser)
    parser.add_argument("--pairs", type=int, default=8, help="pairs in the batch (default 8)")
    parser.add_argument("--draws", type=int, default=1, help="draws of noise and time per pair (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    names = [PLAIN, *OURS, *(PREFIXES_ON_DISK if options.train == "frozen" else {})]
    # Side by side, so that rounds alternate, or one after the other.
    groups = [names] if options.device == "cpu" else [[name] for name in names]
    gradients, timings, memory, flops = {}, {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for group in groups:
            policy, processor, instruction = load_trained(options, f"{folder}/policy")
            rows = load_rows(options, policy, processor, instruction)
            steps = {name: make_step(name, policy, processor, rows, options, folder) for name in group}
            gradients |= {name: gradient(step) for name, step in steps.items()}
            difference = check_same_gradients(gradients, TOLERANCE[options.dtype])
            for found, part in zip((timings, memory, flops), measure(steps, options.rounds), strict=True):
                found.update(part)
            if PLAIN in steps:
                one_pass = backbone_flops(steps[PLAIN].one_pass)
            del policy, steps
            gc.collect()
            torch.cuda.empty_cache()

    results, lines = {}, []
    for name in names:
        timing = timings[name]
        results[name] = row = {
            **vars(timing),
            "pairs_per_second": options.pairs / timing.median,
            "speed_up": timings[PLAIN].median / timing.median,
            "cpu_speed_up": timings[PLAIN].cpu_median / timing.cpu_median,
            "backbone_passes": flops[name] / one_pass,
            "memory_bytes": memory[name],
        }
        lines.append(
            [
                name,
                timing.text(),
                f"{row['pairs_per_second']:.1f}",
                f"{row['speed_up']:.2f}x",
                f"{row['cpu_speed_up']:.2f}x",
                f"{row['backbone_passes']:.2f}",
                f"{memory[name] / 2**20:.0f}",
            ]
        )
    header = ["", "ms: median (fastest to slowest)", "pairs/s", "speed-up", "of CPU time", "backbone passes", "MiB"]
    print(table(header, lines))
    print(
        f"\n{options.train} training, {options.pairs} pairs, {options.draws} draws, {options.dtype}, {options.device}, "
        f"{torch.get_num_threads()} threads; gradients agree within {difference:.1e} of their norm."
    )
    outcome = {
        "size": options.size if options.policy is None else options.policy.name,
        "preferences": "random pairs" if options.preferences is None else options.preferences.name,
        **{name: vars(options)[name] for name in ("train", "device", "dtype", "gradient_checkpointing")},
        **{name: vars(options)[name] for name in ("pairs", "draws", "rounds")},
        "gradient_difference": difference,
        "results": results,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
