# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The preference dataset: candidates, rewards and the chosen and rejected chunk of each state, as parquet on disk."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, Image, IterableDataset, List, Value, load_dataset
from huggingface_hub import DatasetCardData, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from ..data.dataset_configs import dataset_configs
from ..data.lerobot_dataset import LeRobotDataset
from ..nora15.configuration_nora15 import Nora15Config
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from .candidates import sample_candidates
from .fingerprint import artefact_name, fingerprint
from .rewards import RewardBatch, WeightedReward

logger = logging.getLogger(__name__)

PROVENANCE_FILE = "preferences.json"
DATA_FILES = "data/train-*.parquet"


def preference_features(
    num_candidates: int, chunk_size: int, action_dim: int, reward_names: Sequence[str]
) -> Features:
    """
    The schema of a preference dataset.

    Args:
        num_candidates (`int`), chunk_size (`int`), action_dim (`int`): N, H and A.
        reward_names (`Sequence[str]`): fields of `rewards`.

    Returns:
        [`~datasets.Features`] with `images` (list of images, one per camera), `instruction`, `actions` (demonstrated
        chunk `[H, A]`, normalised), `action_mask` (`[H]`, False where the demonstration had ended), `candidates`
        (`[N, H, A]`), `rewards` (struct of `[N]`, higher is better), `reward` (`[N]`, what pairs were ranked by),
        `chosen` and `rejected` (`[H, A]`), `margin`, `dataset_key`, `episode_index`, `frame_index`.
    """
    chunk = List(List(Value("float32"), length=action_dim), length=chunk_size)
    per_candidate = List(Value("float32"), length=num_candidates)
    return Features(
        {
            "images": List(Image()),
            "instruction": Value("string"),
            "actions": chunk,
            "action_mask": List(Value("bool"), length=chunk_size),
            "candidates": List(chunk, length=num_candidates),
            "rewards": dict.fromkeys(reward_names, per_candidate),
            "reward": per_candidate,
            "chosen": chunk,
            "rejected": chunk,
            "margin": Value("float32"),
            "dataset_key": Value("string"),
            "episode_index": Value("int64"),
            "frame_index": Value("int64"),
        }
    )


@dataclass(frozen=True)
class PairSelection:
    """
    Which candidates of each state become a pair.

    Attributes:
        chosen, rejected (`np.ndarray`): int64 `(B,)`, candidate numbers.
        margin (`np.ndarray`): float32 `(B,)`, reward of chosen minus that of rejected.
        is_tie (`np.ndarray`): bool `(B,)`, equal rewards or equal chunks.
        is_close (`np.ndarray`): bool `(B,)`, no tie, but a margin below the minimum.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    margin: np.ndarray
    is_tie: np.ndarray
    is_close: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """bool `(B,)`: neither a tie nor too close."""
        return ~(self.is_tie | self.is_close)


def select_pairs(
    reward: np.ndarray,
    candidates: np.ndarray,
    *,
    rejected: str = "worst",
    min_margin: float = 0.0,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> PairSelection:
    """
    Pairs the best candidate of each state with the worst or with a random other one.

    Args:
        reward (`np.ndarray`): `(B, N)`, higher is better.
        candidates (`np.ndarray`): `(B, N, H, A)`.
        rejected (`str`, *optional*, defaults to `"worst"`): `"worst"` or `"random"`.
        min_margin (`float`, *optional*, defaults to 0.0): smallest difference of rewards that makes a pair.
        seed (`int`, *optional*, defaults to 0): of the random choice.
        indices (`Sequence[int]`, *optional*): `Sample["index"]` of each state, which the random choice depends on;
            needed for `"random"`.

    Returns:
        [`PairSelection`]
    """
    if rejected not in ("worst", "random"):
        raise ValueError(f'rejected="{rejected}" must be "worst" or "random".')
    if min_margin < 0:
        raise ValueError(f"min_margin={min_margin} must not be negative.")
    rows = np.arange(len(reward))
    best = reward.argmax(1)
    if rejected == "worst":
        other = reward.argmin(1)
    else:
        # A second number after the seed keeps this stream apart from the candidates' noise.
        offset = [np.random.default_rng([seed, 1, index]).integers(1, reward.shape[1]) for index in indices]
        other = (best + np.array(offset, dtype=np.int64)) % reward.shape[1]
    margin = reward[rows, best] - reward[rows, other]
    is_tie = (margin == 0) | (candidates[rows, best] == candidates[rows, other]).all((1, 2))
    return PairSelection(best, other, margin, is_tie, ~is_tie & (margin < min_margin))


def build_preferences(
    folder: str | Path,
    *,
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    dataset: LeRobotDataset,
    indices: Sequence[int],
    reward: WeightedReward,
    num_candidates: int = 5,
    num_steps: int | None = None,
    rejected: str = "worst",
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
        indices (`Sequence[int]`): positions of the states in it.
        reward ([`WeightedReward`]): what candidates are ranked by.
        num_candidates (`int`, *optional*, defaults to 5): candidates per state.
        num_steps (`int`, *optional*): solver steps; the policy's own by default.
        rejected (`str`, *optional*, defaults to `"worst"`): `"worst"` or `"random"` other candidate.
        min_margin (`float`, *optional*, defaults to 0.0): pairs with a smaller difference of rewards are dropped.
        shard_size (`int`, *optional*, defaults to 1000): states per file.
        batch_size (`int`, *optional*, defaults to 32): states per pass.
        seed (`int`, *optional*, defaults to 0): of noise and random choices.
        provenance (`dict[str, Any]`, *optional*): more to write down, in JSON types: repos, revisions.
        progress (`bool`, *optional*, defaults to `True`): whether to show progress bars.

    Returns:
        [`~datasets.Dataset`] of the pairs, see [`preference_features`]. `preferences.json` in the folder tells how
        they came about and how many states were dropped as ties or as too close.

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
    settings = {
        "policy": artefact_name(policy.config.name_or_path),
        "policy_fingerprint": fingerprint(policy.state_dict()),
        "dataset_key": dataset.dataset_key,
        "num_states": len(indices),
        "states_fingerprint": fingerprint(
            {"indices": torch.tensor(indices), "actions": torch.from_numpy(dataset.all_actions())}
        ),
        "num_candidates": num_candidates,
        "num_steps": policy.config.num_inference_steps if num_steps is None else num_steps,
        "chunk_size": chunk_shape[0],
        "action_dim": chunk_shape[1],
        "reward": reward.settings,
        "rejected": rejected,
        "min_margin": min_margin,
        "shard_size": shard_size,
        "seed": seed,
    }
    record = _open_record(folder, settings, provenance or {})
    features = preference_features(num_candidates, *chunk_shape, list(reward.rewards))
    num_shards = -(-len(indices) // shard_size)
    for shard in range(num_shards):
        path = folder / "data" / f"train-{shard:05d}-of-{num_shards:05d}.parquet"
        if path.exists():
            continue
        positions = indices[shard * shard_size : (shard + 1) * shard_size]
        candidates = sample_candidates(
            policy,
            processor,
            dataset,
            positions,
            num_candidates=num_candidates,
            num_steps=num_steps,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        rows: dict[str, list] = {name: [] for name in features}
        counts = {"states": len(positions), "ties": 0, "too_close": 0, "pairs": 0}
        starts = range(0, len(positions), batch_size)
        for start in tqdm(starts, desc="Rewards", unit="batch", disable=not progress):
            batch = _reward_batch(
                dataset, processor, positions[start : start + batch_size], candidates[start : start + batch_size]
            )
            scores = reward.score_each(batch)
            selection = select_pairs(
                reward.combine(scores).numpy(),
                batch.candidates.numpy(),
                rejected=rejected,
                min_margin=min_margin,
                seed=seed,
                indices=[sample["index"] for sample in batch.samples],
            )
            _append_rows(rows, batch, scores, reward.combine(scores), selection)
            counts["ties"] += int(selection.is_tie.sum())
            counts["too_close"] += int(selection.is_close.sum())
            counts["pairs"] += int(selection.kept.sum())
        # First the count, then the file: after a kill in between the shard is made again and counted the same.
        record["shards"][path.name] = counts
        _write_json(folder / PROVENANCE_FILE, record)
        table = Dataset.from_dict(rows, features=features).with_format("arrow")[:]
        part = path.with_suffix(".part")
        with pq.ParquetWriter(part, table.schema) as writer:
            # A row group without rows is more than `load_dataset` can read; a file without row groups is not.
            if len(table):
                writer.write_table(table)
        os.replace(part, path)

    record["counts"] = {
        key: sum(counts[key] for counts in record["shards"].values())
        for key in ("states", "ties", "too_close", "pairs")
    }
    _write_json(folder / PROVENANCE_FILE, record)
    _write_front_matter(folder, record)
    if record["counts"]["pairs"] == 0:
        raise ValueError(
            f"No pair is left of {len(indices)} states: {record['counts']['ties']} are ties and "
            f"{record['counts']['too_close']} have a margin below min_margin={min_margin}. Lower min_margin, or look "
            f"at the rewards in a new folder: {folder} holds none."
        )
    return load_preferences(folder)


def load_preferences(
    folder_or_repo: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    policy: Nora15ForActionPrediction | None = None,
    processor: ProcessorMixin | None = None,
) -> Dataset:
    """
    Reads what [`build_preferences`] wrote.

    Args:
        folder_or_repo (`str` or `Path`): the folder, or a dataset repo on the Hub.
        revision (`str`, *optional*): branch, tag or commit of the repo.
        token (`str`, *optional*): Hub token for private repos.
        policy ([`Nora15ForActionPrediction`], *optional*):
            What will be trained. The rows are checked against it, and a warning is given when the candidates are
            another policy's.
        processor ([`Nora15Processor`], *optional*): the policy's; given together with it.

    Returns:
        [`~datasets.Dataset`], with the provenance as JSON in `info.description`.

    Raises:
        FileNotFoundError: no preference set there, or an unfinished one.
        ValueError: see [`check_preferences`], or a revision of a folder.
    """
    folder = _local_folder(folder_or_repo, revision, token)
    if not (folder / PROVENANCE_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no {PROVENANCE_FILE}. Make a preference set with build_preferences.")
    record = json.loads((folder / PROVENANCE_FILE).read_text())
    if "counts" not in record:
        raise FileNotFoundError(
            f"The preference set in {folder} is unfinished: {len(record['shards'])} shards were begun for "
            f"{record['settings']['num_states']} states. Call build_preferences again with the same arguments."
        )
    # Named file by file: `load_dataset(folder)` takes any earlier dataset from a folder of this name out of its cache.
    dataset = load_dataset("parquet", data_files={"train": str(folder / DATA_FILES)}, split="train")
    dataset.info.description = json.dumps({key: record[key] for key in ("settings", "provenance", "counts")})
    if policy is not None:
        check_preferences(dataset, policy.config, processor, name=str(folder_or_repo))
        if fingerprint(policy.state_dict()) != record["settings"]["policy_fingerprint"]:
            logger.warning(
                "The candidates in %s were sampled from other weights (%r) than those of the policy (%r). DPO assumes "
                "that they are its own.",
                folder_or_repo,
                record["settings"]["policy"],
                policy.config.name_or_path,
            )
    return dataset


def _local_folder(folder_or_repo: str | Path, revision: str | None, token: str | None) -> Path:
    folder = Path(folder_or_repo)
    if folder.is_dir() and revision is not None:
        raise ValueError(
            f"revision={revision!r} was given for the local folder {folder}, which has none. Leave it out."
        )
    if folder.is_dir() or isinstance(folder_or_repo, Path):
        return folder
    try:
        return Path(
            snapshot_download(
                folder_or_repo,
                repo_type="dataset",
                revision=revision,
                token=token,
                allow_patterns=[PROVENANCE_FILE, DATA_FILES],
            )
        )
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"{folder_or_repo!r} is neither a folder nor a dataset repo that can be read. Check the spelling; a private "
            "repo also needs `token`."
        ) from error


def check_preferences(
    dataset: Dataset | IterableDataset, config: Nora15Config, processor: ProcessorMixin, *, name: str
) -> None:
    """
    Checks that a policy can be trained on a preference dataset.

    Args:
        dataset ([`~datasets.Dataset`]): preference rows, see [`preference_features`].
        config ([`Nora15Config`]): of the policy.
        processor ([`Nora15Processor`]): of the policy; knows its dataset keys.
        name (`str`): how errors call the dataset.

    Raises:
        TypeError: not a [`~datasets.Dataset`].
        ValueError: a missing column, no rows, another chunk shape or dataset key than the policy's, a number that is
            not finite, or a chosen chunk equal to the rejected one.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"{name} is a {type(dataset).__name__}, expected a datasets.Dataset of preference rows.")
    missing = {"images", "instruction", "chosen", "rejected", "dataset_key"} - set(dataset.column_names)
    if missing:
        raise ValueError(f"{name} lacks the columns {sorted(missing)}; it has {dataset.column_names}.")
    if len(dataset) == 0:
        raise ValueError(f"{name} has no rows. Lower min_margin, or filter less.")
    unknown = set(dataset.unique("dataset_key")) - set(processor.norm_stats)
    if unknown:
        raise ValueError(
            f"{name} holds chunks normalised for dataset_key {sorted(unknown)}, but the policy knows "
            f"{sorted(processor.norm_stats)}. Build the preferences with this policy and its processor."
        )
    pairs = dataset.select_columns(["chosen", "rejected"]).with_format(None)[:]
    check_pairs(pairs["chosen"], pairs["rejected"], (config.chunk_size, config.action_dim), name=name)


def check_pairs(
    chosen: Sequence[Any], rejected: Sequence[Any], chunk_shape: tuple[int, int], *, name: str = "the batch"
) -> None:
    """
    Checks chunks row by row.

    Args:
        chosen, rejected (sequences of array-likes): one chunk per row.
        chunk_shape (`tuple[int, int]`): `(chunk_size, action_dim)` of the policy.
        name (`str`, *optional*): how errors call the rows.

    Raises:
        ValueError: names the first row with another shape, a number that is not finite, or equal chunks.
    """
    for row, pair in enumerate(zip(chosen, rejected, strict=True)):
        for side, chunk in zip(("chosen", "rejected"), pair, strict=True):
            if np.shape(chunk) != chunk_shape:
                raise ValueError(
                    f"Row {row} of {name}: {side} has shape {np.shape(chunk)}, the policy's chunks have {chunk_shape}. "
                    "Build the preferences with this policy."
                )
            if not np.isfinite(chunk).all():
                raise ValueError(f"Row {row} of {name}: {side} holds a number that is not finite. Drop the row.")
        if np.array_equal(*pair):
            raise ValueError(f"Row {row} of {name}: chosen and rejected are the same chunk. Drop ties.")


def _reward_batch(
    dataset: LeRobotDataset, processor: ProcessorMixin, positions: Sequence[int], candidates: torch.Tensor
) -> RewardBatch:
    samples = [dataset[index] for index in positions]
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
) -> None:
    candidates = batch.candidates.numpy()
    for state in np.flatnonzero(selection.kept):
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
            "chosen": candidates[state, selection.chosen[state]],
            "rejected": candidates[state, selection.rejected[state]],
            "margin": selection.margin[state],
            "dataset_key": sample["dataset_key"],
            "episode_index": sample["episode_index"],
            "frame_index": sample["frame_index"],
        }
        for name, value in row.items():
            rows[name].append(value)


def _open_record(folder: Path, settings: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
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
    record = {"settings": settings, "provenance": {**provenance, "packages": packages}, "shards": {}}
    _write_json(path, record)
    return record


def _write_json(path: Path, record: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(part, path)


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


__all__ = [
    "DATA_FILES",
    "PROVENANCE_FILE",
    "PairSelection",
    "build_preferences",
    "check_pairs",
    "check_preferences",
    "load_preferences",
    "preference_features",
    "select_pairs",
]
