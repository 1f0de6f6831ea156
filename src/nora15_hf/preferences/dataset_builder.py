# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Making a preference dataset: candidates, rewards and pairs, shard by shard, and making its candidates again."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from ..cards.dataset_configs import dataset_configs
from ..control.chunk_samplers import FastSampler, FlowSampler
from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..data.policy_fit import fit_dataset
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from ..repo_files.fingerprint import artefact_name, fingerprint
from ..runtime.cpu_threads import current_threads, resume_threads
from .candidates import Sampler, noisy_negatives, sample_candidates, sampler_settings
from .datasets_cache import check_datasets_cache
from .pairs import select_pairs
from .preference_dataset import DATA_FILES, load_preferences, preference_features
from .preference_record import PROVENANCE_FILE, PreferenceCounts, PreferenceRecord, PreferenceSettings
from .preference_rows import preference_rows, write_rows
from .rewards import RewardBatch, WeightedReward


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
        OSError: the cache of `datasets` cannot be written.
        ValueError: no states, another chunk size or action dimension, a dataset or a reward that does not fit the policy, or
            no pair left.
    """
    check_datasets_cache()
    folder = Path(folder)
    sampler = sampler or FlowSampler()
    processor.check_model(policy.config)
    _check_arguments(policy, dataset, indices, num_noisy_negatives, noise_std)
    dataset = fit_dataset(dataset, processor)
    embodiment = processor.embodiment(dataset.dataset_key)
    reward.check_policy(embodiment)
    settings = PreferenceSettings(
        policy=artefact_name(policy.config.name_or_path),
        policy_fingerprint=fingerprint(policy.state_dict()),
        dataset_key=dataset.dataset_key,
        num_states=len(indices),
        states_fingerprint=_states_fingerprint(dataset, indices, processor),
        cameras=dict(zip(dataset.camera_names, dataset.image_keys, strict=True)),
        num_candidates=num_candidates,
        sampler=sampler_settings(sampler, policy),
        num_noisy_negatives=num_noisy_negatives,
        noise_std=noise_std if num_noisy_negatives else None,
        chunk_size=policy.config.chunk_size,
        action_dim=policy.config.action_dim,
        reward=reward.settings,
        pairing=pairing,
        min_margin=min_margin,
        shard_size=shard_size,
        batch_size=batch_size,
        seed=seed,
        embodiment=embodiment.to_dict(),
    )
    record = _open_record(folder, settings, list(indices), provenance or {})
    labelling = _Labelling(policy, processor, dataset, reward, sampler, settings)
    features = preference_features(
        settings.chunks_per_state, settings.chunk_size, settings.action_dim, list(reward.rewards)
    )
    shards = _shards(record)
    with tqdm(total=len(indices), desc="Preferences", unit="state", disable=not progress) as bar:
        for shard, batches in enumerate(shards):
            path = folder / "data" / f"train-{shard:05d}-of-{len(shards):05d}.parquet"
            if path.exists():
                bar.update(record.shards[path.name].states)
                continue
            rows, counts = [], PreferenceCounts()
            for number, positions in batches:
                labelled, outcome = labelling.label(positions, number)
                rows += labelled
                counts += outcome
                bar.update(outcome.states)
            # First the count, then the file: after a kill in between the shard is made again and counted the same.
            record.shards[path.name] = counts
            record.threads = current_threads().record()
            record.write(folder)
            write_rows(path, rows, features)

    record.threads = current_threads().record()
    record.counts = sum(record.shards.values(), PreferenceCounts())
    record.write(folder)
    _write_front_matter(folder, record)
    if record.counts.pairs == 0:
        raise ValueError(
            f"No pair is left of {len(indices)} states: {record.counts.undecodable} gave tokens that do not decode to a chunk, "
            f"{record.counts.ties} pairs are ties and {record.counts.too_close} have a margin below "
            f"min_margin={min_margin}. Lower min_margin, or inspect the rewards. {folder} contains no pairs, so use a new folder."
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
        ValueError: a policy with other weights than those that sampled the row, or another dataset.
    """
    record = PreferenceRecord.read(folder, unfinished=True)
    settings = record.settings
    found = fingerprint(policy.state_dict())
    if found != settings.policy_fingerprint:
        raise ValueError(
            f"The row was sampled by {settings.policy!r} with the weights {settings.policy_fingerprint}, policy has "
            f"{found}. Load the revision that sampled it."
        )
    options = {key: value for key, value in settings.sampler.items() if key != "type"}
    sampler = {kind.__name__: kind for kind in (FlowSampler, FastSampler)}[settings.sampler["type"]](**options)
    batches = dict(batch for shard in _shards(record) for batch in shard)
    dataset = fit_dataset(dataset, processor)
    if _states_fingerprint(dataset, record.states, processor) != settings.states_fingerprint:
        raise ValueError(
            f"The row was sampled at states of another dataset than the given one, {dataset.dataset_key!r}: actions or "
            "states differ. Open the dataset that the preference set was built on, with the same episodes."
        )
    samples = [dataset[position] for position in batches[row["sampling_batch"]]]
    candidates = _sampled(policy, processor, samples, settings, sampler)
    return candidates[[sample["index"] for sample in samples].index(row["state_index"])]


def _states_fingerprint(dataset: LeRobotDataset, indices: Sequence[int], processor: ProcessorMixin) -> str:
    """Digest that is equal if candidates are sampled at the same states."""
    tensors = {"indices": torch.tensor(indices), "actions": torch.from_numpy(dataset.all_actions())}
    if processor.needs_state:
        tensors["states"] = torch.from_numpy(dataset.all_states())
    return fingerprint(tensors)


def _check_arguments(
    policy: Nora15ForActionPrediction,
    dataset: LeRobotDataset,
    indices: Sequence[int],
    num_noisy_negatives: int,
    noise_std: float,
) -> None:
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


def _open_record(
    folder: Path, settings: PreferenceSettings, states: list[int], provenance: dict[str, Any]
) -> PreferenceRecord:
    """The record of the run to continue, or a new one."""
    if (folder / PROVENANCE_FILE).is_file():
        record = PreferenceRecord.read(folder, unfinished=True)
        wanted, found = vars(settings), vars(record.settings)
        changed = [f"{key}={found[key]!r}, now {wanted[key]!r}" for key in wanted if wanted[key] != found[key]]
        if changed:
            raise FileExistsError(
                f"{folder} holds a preference set that was built with other arguments: {'; '.join(changed)}. "
                "Choose another folder, or delete it."
            )
        if record.threads is not None:
            resume_threads(record.threads)
        return record
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no preference set. Choose another folder.")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    packages = {name: version(name) for name in ("nora15_hf", "torch", "transformers")}
    record = PreferenceRecord(settings, provenance | {"packages": packages}, [int(state) for state in states])
    record.write(folder)
    return record


def _shards(record: PreferenceRecord) -> list[list[tuple[int, list[int]]]]:
    """The batches of each file, `(number, positions)`: `batch_size` states, never of two files."""
    states, settings = record.states, record.settings
    shards, number = [], count()
    for first in range(0, len(states), settings.shard_size):
        shard = states[first : first + settings.shard_size]
        starts = range(0, len(shard), settings.batch_size)
        shards.append([(next(number), shard[start : start + settings.batch_size]) for start in starts])
    return shards


@dataclass(frozen=True)
class _Labelling:
    """What is the same for all batches of a run."""

    policy: Nora15ForActionPrediction
    processor: ProcessorMixin
    dataset: LeRobotDataset
    reward: WeightedReward
    sampler: Sampler
    settings: PreferenceSettings

    def label(self, positions: Sequence[int], number: int) -> tuple[list[dict[str, Any]], PreferenceCounts]:
        """Candidates of the states at some positions, scored and paired: their rows, and what became of the states."""
        settings = self.settings
        samples = [self.dataset[position] for position in positions]
        candidates = _sampled(self.policy, self.processor, samples, settings, self.sampler)
        usable = (~candidates.isnan().flatten(1).any(1)).nonzero().flatten().tolist()
        counts = PreferenceCounts(states=len(samples), undecodable=len(samples) - len(usable))
        if not usable:
            return [], counts
        batch = self._reward_batch([positions[i] for i in usable], [samples[i] for i in usable], candidates[usable])
        scores = self.reward.score_each(batch)
        reward = self.reward.combine(scores)
        selection = select_pairs(
            reward.numpy(),
            batch.candidates.numpy(),
            pairing=settings.pairing,
            min_margin=settings.min_margin,
            num_negatives=settings.num_noisy_negatives,
            seed=settings.seed,
            indices=[sample["index"] for sample in batch.samples],
        )
        counts += PreferenceCounts(
            ties=int(selection.is_tie.sum()), too_close=int(selection.is_close.sum()), pairs=int(selection.kept.sum())
        )
        return preference_rows(batch, scores, reward, selection, seed=settings.seed, sampling_batch=number), counts

    def _reward_batch(
        self, positions: Sequence[int], samples: Sequence[Sample], candidates: torch.Tensor
    ) -> RewardBatch:
        actions = self.processor.normalize_actions(
            np.stack([sample["actions"] for sample in samples]),
            self.dataset.dataset_key,
            state=np.stack([sample["state"] for sample in samples]),
        )
        return RewardBatch(
            dataset=self.dataset,
            indices=positions,
            samples=samples,
            candidates=candidates,
            actions=torch.as_tensor(actions, dtype=torch.float32),
            action_mask=torch.from_numpy(np.stack([sample["action_mask"] for sample in samples])),
        )


def _sampled(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    settings: PreferenceSettings,
    sampler: Sampler,
) -> torch.Tensor:
    """Sampled candidates, followed by noise-injected negatives, `(B, N, H, A)`."""
    candidates = sample_candidates(
        policy, processor, samples, num_candidates=settings.num_candidates, sampler=sampler, seed=settings.seed
    )
    if not settings.num_noisy_negatives:
        return candidates
    negatives = noisy_negatives(
        candidates,
        [sample["index"] for sample in samples],
        count=settings.num_noisy_negatives,
        std=settings.noise_std,
        seed=settings.seed,
    )
    return torch.cat([candidates, negatives], dim=1)


def _write_front_matter(folder: Path, record: PreferenceRecord) -> None:
    """What the Hub and `load_dataset` need to find the rows; the card's text is written elsewhere."""
    content = record.to_json()
    metadata = DatasetCardData(
        task_categories=["robotics"],
        tags=["preferences", "nora15"],
        configs=dataset_configs(folder, DATA_FILES),
        provenance={key: content[key] for key in ("settings", "provenance", "counts")},
    )
    title = f"# Preferences over action chunks, {record.counts.pairs} pairs"
    (folder / "README.md").write_text(f"---\n{metadata.to_yaml()}\n---\n\n{title}\n")


__all__ = ["build_preferences", "regenerate_candidates"]
