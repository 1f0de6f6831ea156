# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Making a preference dataset: candidates, rewards and pairs, shard by shard, and making its candidates again."""

import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features
from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from ..cards.dataset_configs import dataset_configs
from ..control.chunk_samplers import FastSampler, FlowSampler
from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from ..repo_files.fingerprint import artefact_name, fingerprint
from ..repo_files.written_whole import write_json, written_whole
from .candidates import Sampler, noisy_negatives, sample_candidates, sampler_settings
from .pairs import PairSelection, select_pairs
from .preference_dataset import DATA_FILES, PROVENANCE_FILE, load_preferences, preference_features
from .rewards import RewardBatch, WeightedReward

_COUNTS = ("states", "undecodable", "ties", "too_close", "pairs")


def build_preferences(
    folder: str | Path,
    *,
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    dataset: LeRobotDataset,
    indices: Sequence[int],
    reward: WeightedReward,
    num_candidates: int = 5,
    sampler: Sampler | None = None,
    num_noisy_negatives: int = 0,
    noise_std: float = 0.5,
    pairing: str = "best_worst",
    min_margin: float = 0.0,
    shard_size: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
    progress: bool = True,
) -> Dataset:
    """
    Samples candidates, scores them, pairs them and writes the pairs, shard by shard.

    A run that was killed loses the shard it was working on; called again with the same arguments it continues and
    ends with the same files. The folder is then a dataset repo: `load_dataset(folder)` reads it anywhere.

    Args:
        folder (`str` or `Path`): new, or left behind by a run with the same arguments.
        policy ([`Nora15ForActionPrediction`]): what is to be improved.
        processor ([`Nora15Processor`]): its processor.
        dataset ([`LeRobotDataset`]): demonstrations; its chunk size must be the policy's.
        indices (`Sequence[int]`): positions of the states in it, see [`~nora15_hf.preferences.select_states`].
        reward ([`WeightedReward`]): what candidates are ranked by.
        num_candidates (`int`, *optional*, defaults to 5): candidates per state.
        sampler ([`FlowSampler`] or [`FastSampler`], *optional*): how they are sampled; by flow matching by default.
        num_noisy_negatives (`int`, *optional*, defaults to 0):
            Noisy copies of candidates per state. They are scored like the others and stand behind them in `candidates`,
            but can only be rejected.
        noise_std (`float`, *optional*, defaults to 0.5): standard deviation of their noise, in normalised units.
        pairing (`str`, *optional*, defaults to `"best_worst"`): or `"best_random"`, `"all"`, see
            [`~nora15_hf.preferences.select_pairs`].
        min_margin (`float`, *optional*, defaults to 0.0): pairs with a smaller difference of rewards are dropped.
        shard_size (`int`, *optional*, defaults to 1000): states per file.
        batch_size (`int`, *optional*, defaults to 32): states per pass.
        seed (`int`, *optional*, defaults to 0): of noise and random choices.
        provenance (`dict[str, Any]`, *optional*): more to write down, in JSON types: repos, revisions.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        [`~datasets.Dataset`] of the pairs, see [`~nora15_hf.preferences.preference_features`]. `preferences.json` in the
        folder tells how they came about, at which states, how many states gave undecodable tokens, and how many pairs
        were dropped as ties or as too close.

    Raises:
        FileExistsError: the folder holds something else, or a run with other arguments.
        ValueError: no states, another chunk size or action dimension, or no pair left.
    """
    folder = Path(folder)
    if len(indices) == 0:
        raise ValueError("indices is empty. Name at least one position of the dataset.")
    chunk_shape = (policy.config.chunk_size, policy.config.action_dim)
    if (dataset.chunk_size, dataset.action_dim) != chunk_shape:
        raise ValueError(
            f"dataset has chunks of (chunk_size, action_dim) = {(dataset.chunk_size, dataset.action_dim)}, the policy "
            f"of {chunk_shape}. Open the dataset with chunk_size={chunk_shape[0]}, or use the policy's own dataset."
        )
    if num_noisy_negatives < 0 or (num_noisy_negatives and not noise_std > 0):
        raise ValueError(
            f"num_noisy_negatives={num_noisy_negatives} must not be negative, and with any of them "
            f"noise_std={noise_std} must be greater than 0."
        )
    sampler = sampler or FlowSampler()
    settings = {
        "policy": artefact_name(policy.config.name_or_path),
        "policy_fingerprint": fingerprint(policy.state_dict()),
        "dataset_key": dataset.dataset_key,
        "num_states": len(indices),
        "states_fingerprint": fingerprint(
            {"indices": torch.tensor(indices), "actions": torch.from_numpy(dataset.all_actions())}
        ),
        "num_candidates": num_candidates,
        "sampler": sampler_settings(sampler, policy),
        "num_noisy_negatives": num_noisy_negatives,
        "noise_std": noise_std if num_noisy_negatives else None,
        "chunk_size": chunk_shape[0],
        "action_dim": chunk_shape[1],
        "reward": reward.settings,
        "pairing": pairing,
        "min_margin": min_margin,
        "shard_size": shard_size,
        "batch_size": batch_size,
        "seed": seed,
    }
    record = _open_record(folder, settings, list(indices), provenance or {})
    features = preference_features(num_candidates + num_noisy_negatives, *chunk_shape, list(reward.rewards))
    batches = _batches(record)
    batches_per_shard = -(-shard_size // batch_size)
    num_shards = -(-len(indices) // shard_size)
    with tqdm(total=len(indices), desc="Preferences", unit="state", disable=not progress) as bar:
        for shard in range(num_shards):
            path = folder / "data" / f"train-{shard:05d}-of-{num_shards:05d}.parquet"
            if path.exists():
                bar.update(record["shards"][path.name]["states"])
                continue
            rows: dict[str, list] = {name: [] for name in features}
            counts = Counter(dict.fromkeys(_COUNTS, 0))
            first_batch = shard * batches_per_shard
            for number, positions in enumerate(batches[first_batch : first_batch + batches_per_shard], first_batch):
                samples = [dataset[position] for position in positions]
                candidates = _candidates(policy, processor, samples, settings, sampler)
                is_decodable = ~candidates.isnan().flatten(1).any(1)
                counts.update(states=len(samples), undecodable=int((~is_decodable).sum()))
                usable = is_decodable.nonzero().flatten().tolist()
                if usable:
                    batch = _reward_batch(
                        dataset,
                        processor,
                        [positions[i] for i in usable],
                        [samples[i] for i in usable],
                        candidates[usable],
                    )
                    scores = reward.score_each(batch)
                    selection = select_pairs(
                        reward.combine(scores).numpy(),
                        batch.candidates.numpy(),
                        pairing=pairing,
                        min_margin=min_margin,
                        num_negatives=num_noisy_negatives,
                        seed=seed,
                        indices=[sample["index"] for sample in batch.samples],
                    )
                    _append_rows(rows, batch, scores, reward.combine(scores), selection, seed, number)
                    counts.update(
                        ties=int(selection.is_tie.sum()),
                        too_close=int(selection.is_close.sum()),
                        pairs=int(selection.kept.sum()),
                    )
                bar.update(len(samples))
            # First the count, then the file: after a kill in between the shard is made again and counted the same.
            record["shards"][path.name] = dict(counts)
            write_json(folder / PROVENANCE_FILE, record)
            _write_shard(path, rows, features)

    record["counts"] = {key: sum(counts[key] for counts in record["shards"].values()) for key in _COUNTS}
    write_json(folder / PROVENANCE_FILE, record)
    _write_front_matter(folder, record)
    counts = record["counts"]
    if counts["pairs"] == 0:
        raise ValueError(
            f"No pair is left of {len(indices)} states: {counts['undecodable']} gave tokens that spell no chunk, "
            f"{counts['ties']} pairs are ties and {counts['too_close']} have a margin below min_margin={min_margin}. Lower "
            f"min_margin, or look at the rewards in a new folder: {folder} holds none."
        )
    return load_preferences(folder)


def regenerate_candidates(
    folder: str | Path,
    row: dict[str, Any],
    *,
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    dataset: LeRobotDataset,
) -> torch.Tensor:
    """
    Samples the candidates of a row again, in the batch they came from: the same bits on the same machine and versions.

    Args:
        folder (`str` or `Path`): of the preference dataset.
        row (`dict[str, Any]`): one of its rows.
        policy, processor, dataset: as for [`build_preferences`]; the policy with the same weights.

    Returns:
        `torch.Tensor`: float32 `(N, H, A)`, noise-injected negatives included.

    Raises:
        ValueError: a policy with other weights than those that sampled the row.
    """
    record = json.loads((Path(folder) / PROVENANCE_FILE).read_text())
    settings = record["settings"]
    found = fingerprint(policy.state_dict())
    if found != settings["policy_fingerprint"]:
        raise ValueError(
            f"The row was sampled by {settings['policy']!r} with the weights {settings['policy_fingerprint']}, policy has "
            f"{found}. Load the revision that sampled it."
        )
    options = {key: value for key, value in settings["sampler"].items() if key != "type"}
    sampler = {kind.__name__: kind for kind in (FlowSampler, FastSampler)}[settings["sampler"]["type"]](**options)
    samples = [dataset[position] for position in _batches(record)[row["sampling_batch"]]]
    candidates = _candidates(policy, processor, samples, settings, sampler)
    return candidates[[sample["index"] for sample in samples].index(row["state_index"])]


def _batches(record: dict[str, Any]) -> list[list[int]]:
    """The states of each pass: `batch_size` of them, never of two shards."""
    states, settings = record["states"], record["settings"]
    shard_size, batch_size = settings["shard_size"], settings["batch_size"]
    shards = [states[start : start + shard_size] for start in range(0, len(states), shard_size)]
    return [shard[start : start + batch_size] for shard in shards for start in range(0, len(shard), batch_size)]


def _candidates(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    settings: dict[str, Any],
    sampler: Sampler,
) -> torch.Tensor:
    """Sampled candidates, followed by noise-injected negatives, `(B, N, H, A)`."""
    candidates = sample_candidates(
        policy,
        processor,
        samples,
        num_candidates=settings["num_candidates"],
        sampler=sampler,
        seed=settings["seed"],
    )
    if not settings["num_noisy_negatives"]:
        return candidates
    negatives = noisy_negatives(
        candidates,
        [sample["index"] for sample in samples],
        count=settings["num_noisy_negatives"],
        std=settings["noise_std"],
        seed=settings["seed"],
    )
    return torch.cat([candidates, negatives], dim=1)


def _reward_batch(
    dataset: LeRobotDataset,
    processor: ProcessorMixin,
    positions: Sequence[int],
    samples: Sequence[Sample],
    candidates: torch.Tensor,
) -> RewardBatch:
    actions = processor.normalize_actions(
        np.stack([sample["actions"] for sample in samples]),
        dataset.dataset_key,
        state=np.stack([sample["state"] for sample in samples]),
    )
    return RewardBatch(
        dataset=dataset,
        indices=positions,
        samples=samples,
        candidates=candidates,
        actions=torch.as_tensor(actions, dtype=torch.float32),
        action_mask=torch.from_numpy(np.stack([sample["action_mask"] for sample in samples])),
    )


def _append_rows(
    rows: dict[str, list],
    batch: RewardBatch,
    scores: dict[str, torch.Tensor],
    reward: torch.Tensor,
    selection: PairSelection,
    seed: int,
    sampling_batch: int,
) -> None:
    candidates = batch.candidates.numpy()
    for pair in np.flatnonzero(selection.kept):
        state = selection.state[pair]
        sample = batch.samples[state]
        row = {
            # As PIL images: `datasets` would turn nested arrays into lists of numbers first.
            "images": [PIL.Image.fromarray(image) for image in sample["images"]],
            "instruction": sample["instruction"],
            "actions": batch.actions[state].numpy(),
            "action_mask": sample["action_mask"],
            "candidates": candidates[state],
            "rewards": {name: score[state].numpy() for name, score in scores.items()},
            "reward": reward[state].numpy(),
            "chosen": candidates[state, selection.chosen[pair]],
            "rejected": candidates[state, selection.rejected[pair]],
            "margin": selection.margin[pair],
            "dataset_key": sample["dataset_key"],
            "episode_index": sample["episode_index"],
            "frame_index": sample["frame_index"],
            "state": sample["state"],
            "seed": seed,
            "state_index": sample["index"],
            "sampling_batch": sampling_batch,
        }
        for name, value in row.items():
            rows[name].append(value)


def _open_record(
    folder: Path, settings: dict[str, Any], states: list[int], provenance: dict[str, Any]
) -> dict[str, Any]:
    """The record of the run to continue, or a new one."""
    path = folder / PROVENANCE_FILE
    if path.is_file():
        record = json.loads(path.read_text())
        changed = [key for key in settings if settings[key] != record["settings"].get(key)]
        if changed:
            found = "; ".join(f"{key}={record['settings'].get(key)!r}, now {settings[key]!r}" for key in changed)
            raise FileExistsError(
                f"{folder} holds a preference set that was made with other arguments: {found}. "
                "Choose another folder, or delete it."
            )
        return record
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no preference set. Choose another folder.")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    packages = {name: version(name) for name in ("nora15_hf", "torch", "transformers")}
    record = {
        "settings": settings,
        "provenance": {**provenance, "packages": packages},
        "states": [int(state) for state in states],
        "shards": {},
    }
    write_json(path, record)
    return record


def _write_shard(path: Path, rows: dict[str, list], features: Features) -> None:
    table = Dataset.from_dict(rows, features=features).with_format("arrow")[:]
    with written_whole(path) as part, pq.ParquetWriter(part, table.schema) as writer:
        # A row group without rows is more than `load_dataset` can read; a file without row groups is not.
        if len(table):
            writer.write_table(table)


def _write_front_matter(folder: Path, record: dict[str, Any]) -> None:
    """What the Hub and `load_dataset` need to find the rows; the card's text is written elsewhere."""
    metadata = DatasetCardData(
        task_categories=["robotics"],
        tags=["preferences", "nora15"],
        configs=dataset_configs(folder, DATA_FILES),
        provenance={key: record[key] for key in ("settings", "provenance", "counts")},
    )
    title = f"# Preferences over action chunks, {record['counts']['pairs']} pairs"
    (folder / "README.md").write_text(f"---\n{metadata.to_yaml()}\n---\n\n{title}\n")


__all__ = ["build_preferences", "regenerate_candidates"]
