# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Time to label a state: five candidates of the policy, each imagined by the world model and scored against a goal picture.

    python benchmarks/label.py --threads 2 --output outputs/benchmarks/label.json

The reference samples one candidate after the other as the released policy does (`plain_policy.py`) and imagines them as the
released labelling does (`rollout.py`). Ours samples all candidates from one backbone pass and imagines them from one cached
context. Both have the same weights and noise and must agree on every energy.

    python benchmarks/label.py --processes 1 2 4 --states 32

labels a whole set instead, with `build_preferences` in so many processes of one thread each: states per second, pictures decoded,
pairs written and all. The sets must be the same to the byte.
"""

import multiprocessing
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
import torch

from harness import add_speed_arguments, compare, peak_memory, save_results, set_threads, table, time_contestants
from nora15_hf.data import LeRobotDataset, LeRobotWriter
from nora15_hf.preferences import FlowSampler, build_preferences, preset_reward
from nora15_hf.runtime.shared_work import ProcessPlace
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel, VJEPA2ACProcessor
from plain_policy import PlainPolicy
from random_policy import random_policy, random_policy_with_processor, random_prompt
from rollout import label_cached, label_released

CANDIDATES = 5
# Width, depth and picture of the world model that stands beside a policy of that size.
WORLD_MODELS = {"tiny": (32, 2, 32), "cpu": (256, 6, 128)}
TOLERANCE = 1e-4
PICTURE, FRAMES_PER_EPISODE, STATES_PER_FILE = 224, 16, 4


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


def write_demonstrations(root: Path, instruction: str, states: int) -> Path:
    """Random pictures and actions, at least that many frames."""
    random = np.random.default_rng(0)
    features = {
        "observation.image": {"dtype": "image", "shape": (PICTURE, PICTURE, 3)},
        "action": {"dtype": "float32", "shape": (7,)},
    }
    writer = LeRobotWriter(root, fps=10, features=features, robot_type="random")
    for _ in range(0, states, FRAMES_PER_EPISODE):
        frames = {
            "observation.image": random.integers(0, 256, (FRAMES_PER_EPISODE, PICTURE, PICTURE, 3), dtype=np.uint8),
            "action": random.uniform(-1, 1, (FRAMES_PER_EPISODE, 7)).astype(np.float32),
        }
        writer.add_episode(instruction, frames)
    return writer.finalize()


def label_sets(size: str, demonstrations: Path, states: int, steps: int, jobs, done) -> None:
    """Labels, in a process of its own, its share of each set that it is asked for: `(folder, index, count)`."""
    torch.set_num_threads(1)
    policy, processor, _ = random_policy_with_processor(size)
    world_model = random_world_model(size, policy.config.action_dim)
    world_model_processor = VJEPA2ACProcessor(size=WORLD_MODELS[size][2])
    dataset = LeRobotDataset(demonstrations, dataset_key="default", chunk_size=policy.config.chunk_size)
    done.put(None)
    for folder, index, count in iter(jobs.get, None):
        build_preferences(
            folder,
            policy=policy,
            processor=processor,
            dataset=dataset,
            indices=range(states),
            reward=preset_reward("paper", world_model, world_model_processor),
            num_candidates=CANDIDATES,
            sampler=FlowSampler(steps),
            shard_size=STATES_PER_FILE,
            batch_size=STATES_PER_FILE,
            place=ProcessPlace(index, count),
            progress=False,
        )
        done.put(index)


def compare_processes(options: Namespace) -> dict:
    """States per second of whole sets, each number of processes in every round."""
    context = multiprocessing.get_context("spawn")
    jobs, done = [context.Queue() for _ in range(max(options.processes))], context.Queue()
    with tempfile.TemporaryDirectory() as scratch:
        instruction = random_policy_with_processor("tiny")[2]
        demonstrations = write_demonstrations(Path(scratch, "demonstrations"), instruction, options.states)
        arguments = (options.size, demonstrations, options.states, options.steps)
        workers = [context.Process(target=label_sets, args=(*arguments, queue, done), daemon=True) for queue in jobs]
        for worker in workers:
            worker.start()
        for _ in workers:
            done.get()
        folders: list[Path] = []

        def label(count: int) -> None:
            folders.append(Path(scratch, f"set-{len(folders)}"))
            for index in range(count):
                jobs[index].put((folders[-1], index, count))
            for _ in range(count):
                done.get()

        timings = time_contestants(
            {count: (lambda count=count: label(count)) for count in options.processes}, options.rounds
        )
        for queue in jobs:
            queue.put(None)
        sets = [{file.name: file.read_bytes() for file in folder.glob("data/*")} for folder in folders]
        if any(each != sets[0] for each in sets):
            raise RuntimeError("The sets differ: times cannot be compared.")
    alone = timings[options.processes[0]].median
    header = ["processes", "seconds: median (fastest to slowest)", "states per second", "against the first"]
    rows = [
        [
            str(count),
            f"{timing.median:.1f} ({timing.fastest:.1f} to {timing.slowest:.1f})",
            f"{options.states / timing.median:.2f}",
            f"{alone / timing.median:.2f}x",
        ]
        for count, timing in timings.items()
    ]
    print(table(header, rows))
    print(
        f"\n{options.states} states of {CANDIDATES} candidates, one thread per process, float32; all sets are equal."
    )
    return {
        "size": options.size,
        "states": options.states,
        "processes": {count: {**vars(timing), "speedup": alone / timing.median} for count, timing in timings.items()},
    }


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_speed_arguments(parser, rounds=3)
    parser.add_argument("--states", type=int, default=4, help="states per round (default 4), of one episode")
    parser.add_argument("--steps", type=int, default=10, help="Euler steps (default 10)")
    parser.add_argument("--processes", type=int, nargs="+", help="label whole sets in so many processes instead")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    if options.processes:
        outcome = compare_processes(options)
        if options.output is not None:
            save_results(options.output, outcome)
        return outcome

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
