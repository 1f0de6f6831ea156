# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Pushes seven artefacts to the Hub of the environment, or loads them from it, and prints what they are as JSON.

    python tests/helpers/hub_roundtrip.py push FOLDER           two versions of each, and variants for the ways of loading
    python tests/helpers/hub_roundtrip.py pull WAY [TOKEN]      the same artefacts from the Hub or, offline, from the cache

Run by `test_hub_roundtrip.py` in processes of their own, since the libraries fix the endpoint when they are imported.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from diffusers import FlowMatchHeunDiscreteScheduler
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, AutoProcessor

from nora15_hf import FastActionTokenizer, Nora15ForActionPrediction
from nora15_hf.data import LeRobotDataset, LeRobotWriter
from nora15_hf.hub import push_folder
from nora15_hf.nora15.flow_schedulers import load_flow_scheduler
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    FlowSampler,
    GroundTruthActionReward,
    WeightedReward,
    build_preferences,
    load_preferences,
)
from nora15_hf.vjepa2_ac.presets import tiny_world_model

ARTEFACTS = ("policy", "adapter", "world-model", "processor", "scheduler", "preferences", "demonstrations")
LORA = LoraConfig(
    r=2,
    target_modules=r"action_expert\.layers\.\d+\.self_attn\.[qv]_proj",
    modules_to_save=["action_out_proj"],
    init_lora_weights=False,
)
SHARD_SIZE = "2MB"


def digest(*values: object) -> str:
    """Same content, same digest: tensors and arrays by their bytes, the rest by its JSON."""
    content = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        is_array = isinstance(value, np.ndarray)
        content.update(value.tobytes() if is_array else json.dumps(value, sort_keys=True, default=str).encode())
    return content.hexdigest()[:16]


def weights(model: torch.nn.Module) -> list[object]:
    return [part for item in sorted(model.state_dict().items()) for part in item]


def policy_digest(model: Nora15ForActionPrediction, processor) -> str:
    """What the policy does: its chunk for one image and noise."""
    image = np.arange(84 * 84 * 3, dtype=np.uint32).astype(np.uint8).reshape(84, 84, 3)
    noise = torch.linspace(-1, 1, 20).reshape(1, 5, 4)
    actions = model.eval().sample_actions(**processor(images=image, text="open the faucet"), noise=noise)
    return digest(actions, processor.unnormalize_actions(actions))


def processor_digest(processor) -> str:
    chunks = np.linspace(-1, 1, 40).reshape(2, 5, 4)
    statistics = {key: value.to_dict() for key, value in processor.norm_stats.items()}
    inputs = processor(images=np.zeros((90, 120, 3), np.uint8), text="close the faucet", actions=chunks[0])
    return digest(processor.action_codec.encode(chunks), statistics, inputs["input_ids"], inputs["pixel_values"])


def dataset_digest(rows) -> str:
    columns = [name for name in ("chosen", "rejected", "margin", "action", "index") if name in rows.column_names]
    return digest(len(rows), [rows.with_format(None)[name][:] for name in sorted(columns)])


def scheduler_digest(scheduler) -> str:
    # diffusers also notes where a configuration came from.
    return digest({name: value for name, value in scheduler.config.items() if not name.startswith("_")})


def demonstrations_digest(dataset: LeRobotDataset) -> str:
    return digest(dataset.all_actions(), dataset.all_states(), dataset.frame(0), dataset.frame(len(dataset) - 1))


def vary(model: torch.nn.Module, seed: int) -> None:
    """Another version of the same model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))


class Version:
    """All artefacts of one version, made in memory and in folders."""

    def __init__(self, number: int, folder: Path):
        self.folder = folder / str(number)
        self.policy, self.processor = tiny_policy()
        self.world_model, self.world_model_processor = tiny_world_model()
        vary(self.policy, number)
        vary(self.world_model, number)
        self.policy.scheduler = FlowMatchHeunDiscreteScheduler(shift=float(number))
        statistics = self.processor.norm_stats["default"]
        self.processor.set_norm_stats({f"version{number}": statistics})
        torch.manual_seed(number)
        self.adapter = get_peft_model(tiny_policy()[0], LORA)
        self.write_demonstrations(number)
        self.write_preferences(number)
        self.policy.scheduler.save_pretrained(self.folder / "scheduler" / "scheduler")
        self.policy.scheduler.save_pretrained(self.folder / "scheduler")

    def write_demonstrations(self, number: int) -> None:
        features = {
            "observation.image": {"dtype": "image", "shape": (84, 84, 3)},
            "observation.state": {"dtype": "float32", "shape": (4,)},
            "action": {"dtype": "float32", "shape": (4,)},
        }
        writer = LeRobotWriter(
            self.folder / "demonstrations", fps=10, features=features, robot_type="arm", max_file_size_mb=1
        )
        rng = np.random.default_rng(number)
        for task in ("open the faucet", "close the faucet"):
            frames = {
                "observation.image": rng.integers(0, 255, (40, 84, 84, 3), dtype=np.uint8),
                "observation.state": rng.normal(size=(40, 4)).astype(np.float32),
                "action": rng.uniform(-1, 1, (40, 4)).astype(np.float32),
            }
            writer.add_episode(task, frames)
        writer.finalize()

    def write_preferences(self, number: int) -> None:
        dataset = LeRobotDataset(self.folder / "demonstrations", dataset_key=f"version{number}")
        build_preferences(
            self.folder / "preferences",
            policy=self.policy,
            processor=self.processor,
            dataset=dataset,
            indices=[0, 20],
            reward=WeightedReward({"ground_truth": (GroundTruthActionReward(), 1.0)}),
            num_candidates=2,
            sampler=FlowSampler(num_steps=2),
            shard_size=1,
            progress=False,
        )

    def digests(self) -> dict[str, str]:
        return {
            "policy": policy_digest(self.policy, self.processor),
            "adapter": policy_digest(self.adapter, tiny_policy()[1]),
            "world-model": digest(*weights(self.world_model), self.world_model_processor.to_dict()["size"]),
            "processor": processor_digest(self.processor),
            "scheduler": scheduler_digest(self.policy.scheduler),
            "preferences": dataset_digest(load_preferences(self.folder / "preferences")),
            "demonstrations": demonstrations_digest(LeRobotDataset(self.folder / "demonstrations")),
        }

    def push(self, artefact: str, repo: str, private: bool | None, **options: str) -> None:
        """The way in which a user would push it."""
        if artefact == "policy":
            self.policy.push_to_hub(repo, private=private, **options)
            self.processor.push_to_hub(repo, private=private)
        elif artefact == "world-model":
            self.world_model.push_to_hub(repo, private=private, **options)
            self.world_model_processor.push_to_hub(repo, private=private)
        elif artefact == "adapter":
            self.adapter.push_to_hub(repo, private=private)
        elif artefact == "processor":
            self.processor.push_to_hub(repo, private=private)
        else:
            push_folder(self.folder / artefact, repo, private=private)


def push_everything(folder: Path) -> dict[str, dict[str, str]]:
    """Repos `<artefact>` with tag v1 and branch main, `<artefact>-private`, `-sharded` and `-interrupted`."""
    base, base_processor = tiny_policy()
    base.push_to_hub("base")
    base_processor.push_to_hub("base")
    versions = [Version(1, folder), Version(2, folder)]
    for artefact in ARTEFACTS:
        repo_type = "dataset" if artefact in ("preferences", "demonstrations") else "model"
        versions[0].push(artefact, artefact, private=None)
        HfApi().create_tag(f"robots/{artefact}", tag="v1", repo_type=repo_type)
        versions[1].push(artefact, artefact, private=None)
        versions[1].push(artefact, f"{artefact}-private", private=True)
        if artefact in ("policy", "world-model"):
            versions[0].push(artefact, f"{artefact}-sharded", private=None)
            versions[1].push(artefact, f"{artefact}-sharded", private=None, max_shard_size=SHARD_SIZE)
        # The test lets the first commit to this repo fail.
        with contextlib.suppress(OSError, httpx.HTTPError):
            versions[1].push(artefact, f"{artefact}-interrupted", private=None)
            raise AssertionError(f"the push of {artefact} was not interrupted")
        versions[1].push(artefact, f"{artefact}-interrupted", private=None)
    return {f"v{number}": version.digests() for number, version in enumerate(versions, 1)}


def load_policy(repo: str, **options) -> str:
    return policy_digest(AutoModel.from_pretrained(repo, **options), AutoProcessor.from_pretrained(repo, **options))


def load_adapter(repo: str, **options) -> str:
    base = AutoModel.from_pretrained("robots/base")
    return policy_digest(
        PeftModel.from_pretrained(base, repo, **options), AutoProcessor.from_pretrained("robots/base")
    )


def load_world_model(repo: str, **options) -> str:
    model, processor = AutoModel.from_pretrained(repo, **options), AutoProcessor.from_pretrained(repo, **options)
    return digest(*weights(model), processor.to_dict()["size"])


def load_processor(repo: str, **options) -> str:
    processor = AutoProcessor.from_pretrained(repo, **options)
    codec = FastActionTokenizer.from_pretrained(repo, subfolder="action_codec", **options)
    assert codec.vocab_size == processor.action_codec.vocab_size
    return processor_digest(processor)


def load_scheduler(repo: str, **options) -> str:
    alone = FlowMatchHeunDiscreteScheduler.from_pretrained(repo, subfolder="scheduler", **options)
    scheduler = load_flow_scheduler(repo, **options)
    assert scheduler_digest(alone) == scheduler_digest(scheduler)
    return scheduler_digest(scheduler)


def load_preference_rows(repo: str, **options) -> str:
    plain = dataset_digest(load_dataset(repo, split="train", **options))
    own = dataset_digest(load_preferences(repo, **options))
    assert plain == own
    return own


def load_demonstrations(repo: str, **options) -> str:
    dataset = LeRobotDataset(repo, **options)
    rows = load_dataset(repo, split="train", **options)
    assert np.array_equal(np.array(rows["action"][:], np.float32), dataset.all_actions())
    return demonstrations_digest(dataset)


LOADERS: dict[str, Callable[..., str]] = dict(
    zip(
        ARTEFACTS,
        (
            load_policy,
            load_adapter,
            load_world_model,
            load_processor,
            load_scheduler,
            load_preference_rows,
            load_demonstrations,
        ),
        strict=True,
    )
)


def pull_everything(way: str, token: str | None) -> dict[str, str]:
    """Digest of each artefact, or how it failed."""
    found = {}
    for artefact, load in LOADERS.items():
        options = {"revision": "v1"} if way == "revision" else {}
        options |= {"token": token} if token is not None else {}
        suffix = f"-{way}" if way in ("private", "interrupted") else ""
        if way == "sharded" and artefact in ("policy", "world-model"):
            suffix = "-sharded"
        try:
            found[artefact] = load(f"robots/{artefact}{suffix}", **options)
        except Exception as error:
            found[artefact] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    command, *arguments = sys.argv[1:]
    if command == "push":
        result = push_everything(Path(arguments[0]))
    else:
        result = {}
        for request in arguments:
            way, _, token = request.partition("=")
            result[way if token != "none" else f"{way} without token"] = pull_everything(
                way, token if token not in ("", "none") else None
            )
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
