# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The preference dataset as it lies on disk: its columns, how it is read, and what a policy checks before it trains."""

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, IterableDataset, List, Value, load_dataset
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from transformers import ProcessorMixin

from ..data.lerobot_source import split_positions
from ..embodiment.embodiment import Embodiment
from ..embodiment.junctions import PREFERENCES, STATE_ITEMS, check_junction
from ..nora15.configuration_nora15 import Nora15Config
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from ..repo_files.fingerprint import digest
from ..repo_files.verified_download import load_verified
from .candidates import weights_fingerprint
from .datasets_cache import check_datasets_cache
from .preference_record import DATA_FILES, PROVENANCE_FILE, PreferenceRecord, preference_info, with_preference_info

logger = logging.getLogger(__name__)


def preference_features(
    num_candidates: int, chunk_size: int, action_dim: int, reward_names: Sequence[str]
) -> Features:
    """
    The schema of a preference dataset.

    All chunks are in the policy's normalised units (`processor.unnormalize_actions(chunk, dataset_key, state)` gives physical
    ones); the state is in physical units, as recorded, since it is what delta actions are counted from.

    Args:
        num_candidates (`int`), chunk_size (`int`), action_dim (`int`): N, noise-injected negatives included, H and A.
        reward_names (`Sequence[str]`): fields of `rewards`.

    Returns:
        [`~datasets.Features`] with `images` (list of images, one per camera), `instruction`, `actions` (demonstrated
        chunk `[H, A]`, normalised), `action_mask` (`[H]`, False where the demonstration had ended), `candidates`
        (`[N, H, A]`, normalised), `rewards` (struct of `[N]`, higher is better), `reward` (`[N]`, what pairs were ranked
        by), `chosen` and `rejected` (`[H, A]`, normalised), `margin`, `state` (`[S]`, physical units), `dataset_key`,
        `episode_index`, `frame_index`; and what the random numbers of the candidates depend on: `seed`, `state_index`
        (row of the state in its whole dataset) and `sampling_batch` (number of the batch in which it was sampled, see
        [`~nora15_hf.preferences.regenerate_candidates`]).
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
            "state": List(Value("float32")),
            "seed": Value("int64"),
            "state_index": Value("int64"),
            "sampling_batch": Value("int64"),
        }
    )


def load_preferences(
    folder_or_repo: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    policy: Nora15ForActionPrediction | None = None,
    processor: ProcessorMixin | None = None,
) -> Dataset:
    """
    Reads what [`~nora15_hf.preferences.build_preferences`] wrote.

    Args:
        folder_or_repo (`str` or `Path`): the folder, or a dataset repo on the Hub.
        revision (`str`, *optional*): branch, tag or commit of the repo.
        token (`str`, *optional*): Hub token for private repos.
        policy ([`Nora15ForActionPrediction`], *optional*):
            What will be trained. The rows are checked against it, and a warning is given when the candidates are
            another policy's.
        processor ([`Nora15Processor`], *optional*): the policy's; given together with it.

    Returns:
        [`~datasets.Dataset`]. Its `info` is a [`PreferenceInfo`], which tells how the rows came about and, with a policy,
        whether the candidates are its own.

    Raises:
        FileNotFoundError: no preference set there, or an unfinished one.
        OSError: a file arrived damaged twice, or the cache of `datasets` cannot be written.
        ValueError: see [`check_preferences`], a damaged record, one of a newer version, or a revision of a folder.
    """
    check_datasets_cache()
    folder = _local_folder(folder_or_repo, revision, token)
    record = PreferenceRecord.read(folder)
    # Named file by file: `load_dataset(folder)` takes any earlier dataset from a folder of this name out of its cache.
    dataset = load_dataset("parquet", data_files={"train": str(folder / DATA_FILES)}, split="train")
    if policy is None:
        return with_preference_info(dataset, record, sampled_by_policy=None)
    dataset = with_preference_info(dataset, record, is_sampler(policy, record, name=str(folder_or_repo)))
    check_preferences(dataset, policy.config, processor, name=str(folder_or_repo))
    return dataset


def is_sampler(policy: Nora15ForActionPrediction, record: PreferenceRecord, *, name: str) -> bool:
    """Whether the candidates of a preference set were sampled from these weights, which DPO assumes; warns if not."""
    settings = record.settings
    found = weights_fingerprint(policy, settings.dtype) == settings.policy_fingerprint
    if not found:
        logger.warning(
            f"The candidates in {name} were sampled from other weights ({settings.policy!r}) than those of the policy "
            f"({policy.config.name_or_path!r}). DPO assumes that they are its own."
        )
    return found


def _local_folder(folder_or_repo: str | Path, revision: str | None, token: str | None) -> Path:
    folder = Path(folder_or_repo)
    if folder.is_dir() and revision is not None:
        raise ValueError(f"revision={revision!r} was given for the local folder {folder}, which has none. Omit it.")
    if folder.is_dir() or isinstance(folder_or_repo, Path):
        return folder
    try:
        download = partial(
            snapshot_download,
            folder_or_repo,
            repo_type="dataset",
            revision=revision,
            token=token,
            allow_patterns=[PROVENANCE_FILE, DATA_FILES],
        )
        return Path(load_verified(download, folder_or_repo, repo_type="dataset"))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"{folder_or_repo!r} is neither a folder nor a dataset repo that can be read. Check the spelling; a private "
            "repo also needs `token`."
        ) from error


def split_by_episode(rows: Dataset, validation_fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """
    Rows for training and for validation, which share no episode: rows of one state, or of two that follow one another, show
    the same pictures and may hold the same chunks.

    Args:
        rows ([`~datasets.Dataset`]): Preference rows, with `dataset_key` and `episode_index`.
        validation_fraction (`float`): Share of the episodes that is held out, between 0 and 1.
        seed (`int`): Which ones; of one dataset those that [`LeRobotDataset.split_by_episode`] holds out, where every episode
            has a row.

    Raises:
        ValueError: A column is missing, a fraction outside of these limits, or fewer than two episodes.
    """
    missing = {"dataset_key", "episode_index"} - set(rows.column_names)
    if missing:
        raise ValueError(
            f"The rows lack {sorted(missing)}, which identify their episodes. Split them yourself, by state."
        )
    of_rows = list(zip(rows["dataset_key"][:], rows["episode_index"][:], strict=True))
    episodes = sorted(set(of_rows))
    _, positions = split_positions(np.arange(len(episodes)), validation_fraction, seed)
    held_out = {episodes[position] for position in positions.tolist()}
    is_held_out = np.array([episode in held_out for episode in of_rows])
    return rows.select(np.flatnonzero(~is_held_out)), rows.select(np.flatnonzero(is_held_out))


def pairs_fingerprint(rows: Dataset) -> str:
    """
    Digest that is equal for runs on the same preferences: of the chunks, rewards, instructions and states of all rows, in their order.
    Pictures, which would take long to read, are not included.
    """
    of_training = ("dataset_key", "instruction", "state", "chosen", "rejected", "candidates", "reward")
    columns = [name for name in of_training if name in rows.column_names]
    batches = rows.select_columns(columns).with_format("arrow").iter(1_000)
    return digest(json.dumps(batch.to_pydict()).encode() for batch in batches)


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
        ValueError: a format that turns images into arrays, a missing column, no rows, candidates of a policy with another
            contract, another chunk shape or dataset key than the policy's, a number that is not finite,
            or a chosen chunk equal to the rejected one.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"{name} is a {type(dataset).__name__}, expected a datasets.Dataset of preference rows.")
    if dataset.format["type"] not in (None, "custom"):
        raise ValueError(
            f"{name} has the format {dataset.format['type']!r}, in which images are arrays or tensors; the processor takes them "
            "as they are stored. Call dataset.reset_format()."
        )
    needed = {"images", "instruction", "chosen", "rejected", "dataset_key"} | (
        {"state"} if processor.needs_state else set()
    )
    missing = needed - set(dataset.format["columns"])
    if missing:
        raise ValueError(f"{name} lacks the columns {sorted(missing)}; it has {dataset.format['columns']}.")
    if len(dataset) == 0:
        raise ValueError(f"{name} has no rows. Lower min_margin, or filter less.")
    unknown = set(dataset.unique("dataset_key")) - set(processor.norm_stats)
    if unknown:
        raise ValueError(
            f"{name} holds chunks normalised for dataset_key {sorted(unknown)}, but the policy has statistics for "
            f"{sorted(processor.norm_stats)}. Build the preferences with this policy and its processor."
        )
    info = preference_info(dataset)
    if info is not None and info.record.settings.dataset_key in processor.norm_stats:
        key, told = info.record.settings.dataset_key, info.record.settings.embodiment or {}
        check_junction(
            PREFERENCES,
            processor.embodiment(key),
            Embodiment.from_dict(told, f"settings.embodiment of {name}"),
            names=("policy", name),
            leave_out=() if processor.needs_state else STATE_ITEMS,
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


__all__ = [
    "check_pairs",
    "check_preferences",
    "is_sampler",
    "load_preferences",
    "pairs_fingerprint",
    "preference_features",
    "split_by_episode",
]
