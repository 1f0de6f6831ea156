# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Making a preference dataset: candidates, rewards and pairs, file by file and process by process; and making its candidates again."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from ..cards.cards import CARD_FILE
from ..cards.dataset_configs import dataset_configs
from ..control.chunk_samplers import FastSampler, FlowSampler
from ..data.dataset_fingerprint import samples_fingerprint
from ..data.lerobot_dataset import LeRobotDataset
from ..data.policy_fit import fit_dataset
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from ..repo_files.fingerprint import artefact_name, fingerprint
from ..repo_files.written_whole import written_whole
from ..runtime.cpu_threads import current_threads, resume_threads
from ..runtime.prepared_ahead import default_num_workers
from ..runtime.shared_work import SECONDS_BETWEEN_LOOKS, ProcessPlace, SharedWork
from .candidates import Sampler, sampler_settings, weights_fingerprint
from .datasets_cache import check_datasets_cache
from .labelling import Labelling, PreparedStates, StateBatch, StatePreparation, all_candidates
from .pair_sources import GivenOrder, PairSource
from .pairs import check_pairing
from .preference_dataset import load_preferences, preference_features
from .preference_record import DATA_FILES, PROVENANCE_FILE, PreferenceCounts, PreferenceRecord, PreferenceSettings
from .preference_rows import read_outcome, write_rows
from .reward_check import REWARD_CHECK_FOLDER
from .reward_decisions import DecisionSums, RewardDecisions
from .rewards import WeightedReward

logger = logging.getLogger(__name__)

SECONDS_FOR_THE_RECORD = 600.0


class NoPairsError(ValueError):
    """
    Of all states of a preference set no pair is left.

    Attributes:
        why (`str`): What became of them.
    """

    def __init__(self, why: str, advice: str):
        super().__init__(f"{why} {advice}")
        self.why = why


def build_preferences(
    folder: str | Path,
    *,
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    dataset: LeRobotDataset,
    indices: Sequence[int],
    reward: WeightedReward | None = None,
    pairs_from: PairSource | None = None,
    num_candidates: int = 5,
    sampler: Sampler | None = None,
    num_noisy_negatives: int = 0,
    noise_std: float = 0.5,
    pairing: str = "best_worst",
    min_margin: float = 0.0,
    shard_size: int = 256,
    batch_size: int = 32,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
    place: ProcessPlace | None = None,
    dataloader_num_workers: int | None = None,
    progress: bool = True,
) -> Dataset:
    """
    Samples candidates, scores them, pairs them and writes the pairs, file by file.

    A run that was killed loses the file it was working on; called again with the same arguments it continues and ends with the
    same files. Several processes can build one set: each calls this function with the same arguments and its own `place`. They
    share the files through the folder, see [`SharedWork`], and all return when the set is finished. Their number may change between
    runs, and the rows are the same to the bit on machines of the same kind. The folder is then a dataset repo:
    `load_dataset(folder)` reads it anywhere.

    Policy and world model compute on the device and in the type that they have. On a GPU, a batch is scored while the next one is
    sampled.

    Args:
        folder (`str` or `Path`): new, or left behind by a run with the same arguments.
        policy ([`Nora15ForActionPrediction`]): what is to be improved.
        processor ([`Nora15Processor`]): its processor.
        dataset ([`LeRobotDataset`]): demonstrations; its chunk size must be the policy's.
        indices (`Sequence[int]`): positions of the states in it, see [`~nora15_hf.preferences.select_states`].
        reward ([`WeightedReward`], *optional*): what candidates are ranked by.
        pairs_from ([`~nora15_hf.preferences.pair_sources.PairSource`], *optional*):
            In place of `reward`: where pairs come from that need none. A row's candidates are its two chunks, the better one
            first, and `action_mask` is False also where they are not compared.
        num_candidates (`int`, *optional*, defaults to 5): candidates per state; two with `pairs_from`.
        sampler ([`FlowSampler`] or [`FastSampler`], *optional*): how they are sampled; by flow matching by default.
        num_noisy_negatives (`int`, *optional*, defaults to 0):
            Noisy copies of candidates per state. They are scored like the others and stand behind them in `candidates`,
            but can only be rejected.
        noise_std (`float`, *optional*, defaults to 0.5): standard deviation of their noise, in normalised units.
        pairing (`str`, *optional*, defaults to `"best_worst"`): or `"best_random"`, `"all"`, see
            [`~nora15_hf.preferences.select_pairs`].
        min_margin (`float`, *optional*, defaults to 0.0): pairs with a smaller difference of rewards are dropped.
        shard_size (`int`, *optional*, defaults to 256): states per file, which one process labels.
        batch_size (`int`, *optional*, defaults to 32): states per pass.
        seed (`int`, *optional*, defaults to 0): of noise and random choices.
        provenance (`dict[str, Any]`, *optional*): more to write down, in JSON types: repos, revisions.
        place ([`ProcessPlace`], *optional*): which of several processes this is; the only one by default.
        dataloader_num_workers (`int`, *optional*):
            Processes that decode and prepare images while the models compute; 0 does so in between. By default 4 beside a policy
            on a GPU, and none on the CPU.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar, and at the end how long the models waited for images.

    Returns:
        [`~datasets.Dataset`] of the pairs, see [`~nora15_hf.preferences.preference_features`]. `preferences.json` in the
        folder tells how they came about, at which states, how many states gave undecodable tokens, how many pairs
        were dropped as ties or as too close, and what each reward decided.

    Raises:
        FileExistsError: the folder holds something else, or a run with other arguments.
        OSError: a full disk, or the cache of `datasets` cannot be written.
        TimeoutError: the first process has not begun the folder.
        ValueError: neither `reward` nor `pairs_from`, or both; no states, or one without a pair; another chunk size or action dimension, a dataset or a reward that does not fit the policy, a
            reward that is not finite (the error names the file, the others are made).
        NoPairsError: no pair is left.
    """
    check_datasets_cache()
    folder = Path(folder)
    sampler = sampler or FlowSampler()
    processor.check_model(policy.config)
    if (reward is None) == (pairs_from is None):
        raise ValueError("Give either reward, which ranks candidates, or pairs_from, whose pairs need none.")
    _check_arguments(policy, dataset, indices, num_noisy_negatives, noise_std)
    check_pairing(pairing, min_margin)
    _check_numbers(num_candidates + num_noisy_negatives, shard_size, batch_size, dataloader_num_workers)
    if pairs_from is not None:
        _check_source(pairs_from, dataset, indices, num_noisy_negatives, pairing)
        reward, num_candidates = WeightedReward({pairs_from.name: (GivenOrder(), 1.0)}), 2
    dataset = fit_dataset(dataset, processor)
    embodiment = processor.embodiment(dataset.dataset_key)
    reward.check_policy(embodiment)
    reward.check_dataset(dataset)
    dtype = str(policy.dtype).removeprefix("torch.")
    settings = PreferenceSettings(
        policy=artefact_name(policy.config.name_or_path),
        policy_fingerprint=weights_fingerprint(policy, dtype),
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
        dtype=dtype,
        pairs_from=None if pairs_from is None else pairs_from.settings,
    )
    place = place or ProcessPlace()
    record = _open_record(folder, settings, list(indices), provenance or {}, place)
    shards = _shards(record, dataset, reward)
    _label(
        folder,
        shards,
        Labelling(policy, processor, dataset, reward, sampler, settings, pairs_from),
        place,
        default_num_workers(policy.device) if dataloader_num_workers is None else dataloader_num_workers,
        progress and place.is_main,
    )
    _finish(folder, record, list(shards), reward, place)
    record = PreferenceRecord.read(folder)
    if record.counts.pairs == 0:
        raise NoPairsError(
            f"No pair is left of {len(indices)} states: {record.counts.undecodable} gave tokens that do not decode to a chunk, "
            f"{record.counts.ties} pairs are ties and {record.counts.too_close} have a margin below min_margin={min_margin}.",
            f"Lower min_margin, or inspect the rewards. {folder} contains no pairs, so use a new folder.",
        )
    if place.is_main and (warning := record.decisions.warning()):
        logger.warning(warning)
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
        ValueError: a policy with other weights than those that sampled the row, another dataset, or rows of a pair source.
    """
    record = PreferenceRecord.read(folder, unfinished=True)
    settings = record.settings
    if settings.pairs_from is not None:
        raise ValueError(
            f"The chunks of {folder} are no candidates that were sampled together, but pairs: {settings.pairs_from['pairs']}."
        )
    found = weights_fingerprint(policy, settings.dtype)
    dtype = str(policy.dtype).removeprefix("torch.")
    if (found, dtype) != (settings.policy_fingerprint, settings.dtype):
        raise ValueError(
            f"The row was sampled by {settings.policy!r} with the weights {settings.policy_fingerprint} in {settings.dtype}, "
            f"policy has {found} in {dtype}. Load the revision that sampled it, with dtype=torch.{settings.dtype}."
        )
    options = {key: value for key, value in settings.sampler.items() if key != "type"}
    sampler = {kind.__name__: kind for kind in (FlowSampler, FastSampler)}[settings.sampler["type"]](**options)
    dataset = fit_dataset(dataset, processor)
    if _states_fingerprint(dataset, record.states, processor) != settings.states_fingerprint:
        raise ValueError(
            f"The row was sampled at states of another dataset than the given one, {dataset.dataset_key!r}: actions or "
            "states differ. Open the dataset that the preference set was built on, with the same episodes."
        )
    (batch,) = [
        batch
        for shard in _shards(record, dataset).values()
        for batch in shard
        if batch.number == row["sampling_batch"]
    ]
    states = StatePreparation(dataset, processor)(batch)
    candidates = all_candidates(policy, processor, states, settings, sampler)
    return candidates[[sample["index"] for sample in states.samples].index(row["state_index"])]


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


def _check_numbers(num_chunks: int, shard_size: int, batch_size: int, num_workers: int | None) -> None:
    if num_chunks < 2:
        raise ValueError(
            f"num_candidates and num_noisy_negatives give {num_chunks} chunks per state, but a pair needs two. Raise one of them."
        )
    for name, value, least in (
        ("shard_size", shard_size, 1),
        ("batch_size", batch_size, 1),
        ("dataloader_num_workers", num_workers or 0, 0),
    ):
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}.")


def _check_source(
    source: PairSource, dataset: LeRobotDataset, indices: Sequence[int], num_noisy_negatives: int, pairing: str
) -> None:
    if num_noisy_negatives or pairing != "best_worst":
        raise ValueError(
            f"num_noisy_negatives={num_noisy_negatives} and pairing={pairing!r} are for candidates, which pairs_from has none of: "
            "leave them out."
        )
    if source.samples != samples_fingerprint(dataset):
        raise ValueError(
            f"{type(source).__name__} was made of other frames than those of dataset {dataset.dataset_key!r}. Give both the same "
            "dataset, with the same episodes."
        )
    without = sorted(set(indices) - set(source.positions))
    if without:
        raise ValueError(
            f"indices names {without[0]} and {len(without) - 1} others at which {type(source).__name__} has no pair. Choose "
            "states among its positions: select_states(..., among=source.positions)."
        )


def _open_record(
    folder: Path, settings: PreferenceSettings, states: list[int], provenance: dict[str, Any], place: ProcessPlace
) -> PreferenceRecord:
    """The record of the run to continue, or a new one, which the first process makes and the others wait for."""
    file = folder / PROVENANCE_FILE
    began = time.monotonic()
    while not place.is_main and not file.is_file():
        if time.monotonic() - began > SECONDS_FOR_THE_RECORD:
            raise TimeoutError(
                f"Process {place.index} of {place.count} has waited {SECONDS_FOR_THE_RECORD:.0f} s for {file}, which process 0 "
                "writes first. Look at the messages of process 0, and check that all machines see the same folder."
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if file.is_file():
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
    if folder.is_dir() and any(each.name != REWARD_CHECK_FOLDER for each in folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no preference set. Choose another folder.")
    packages = {name: version(name) for name in ("nora15_hf", "torch", "transformers")}
    record = PreferenceRecord(
        settings,
        provenance | {"packages": packages},
        [int(state) for state in states],
        threads=current_threads().record(),
    )
    record.write(folder)
    return record


def _shards(
    record: PreferenceRecord, dataset: LeRobotDataset, reward: WeightedReward | None = None
) -> dict[str, list[StateBatch]]:
    """Name of each file to its batches: `batch_size` states, never of two files."""
    states, settings = record.states, record.settings
    starts = range(0, len(states), settings.shard_size)
    shards, number = {}, count()
    for index, first in enumerate(starts):
        shard = states[first : first + settings.shard_size]
        parts = [shard[start : start + settings.batch_size] for start in range(0, len(shard), settings.batch_size)]
        shards[f"train-{index:05d}-of-{len(starts):05d}.parquet"] = [
            StateBatch(next(number), part, {} if reward is None else reward.frames_to_decode(dataset, part))
            for part in parts
        ]
    return shards


def _label(
    folder: Path,
    shards: Mapping[str, list[StateBatch]],
    labelling: Labelling,
    place: ProcessPlace,
    num_workers: int,
    progress: bool,
) -> None:
    """Makes the files of rows that are missing, together with the other processes."""
    settings = labelling.settings
    features = preference_features(
        settings.chunks_per_state, settings.chunk_size, settings.action_dim, list(labelling.reward.rewards)
    )
    work = SharedWork([folder / "data" / name for name in shards], place)
    num_states = {name: sum(len(batch.positions) for batch in batches) for name, batches in shards.items()}
    began, labelled_here = time.perf_counter(), 0

    def num_labelled() -> int:
        return sum(num_states[file.name] for file in work.files if file.exists())

    def make(file: Path, prepared: Iterator[PreparedStates]) -> None:
        nonlocal labelled_here
        labelled = labelling.label(shards[file.name], prepared)
        outcome = {"counts": asdict(labelled.counts), "decisions": asdict(labelled.decisions)}
        write_rows(file, labelled.rows, features, outcome, process=place.index)
        labelled_here += num_states[file.name]

    with tqdm(
        total=settings.num_states, initial=num_labelled(), desc="Preferences", unit="state", disable=not progress
    ) as bar:
        waited = work.run(
            StatePreparation(labelling.dataset, labelling.processor),
            make,
            shards,
            num_workers=num_workers,
            device=labelling.policy.device,
            # Those of other processes count, too.
            after_each=lambda: bar.update(num_labelled() - bar.n),
        )
    if progress and labelled_here:
        seconds = time.perf_counter() - began
        tqdm.write(
            f"{labelled_here} states labelled here in {seconds:.1f} s, {labelled_here / seconds:.2f} per second; the models "
            f"waited for images {waited / seconds:.1%} of the time.",
            file=sys.stderr,
        )


def _finish(
    folder: Path, record: PreferenceRecord, names: Sequence[str], reward: WeightedReward, place: ProcessPlace
) -> None:
    """Completes `preferences.json` by what the files of rows tell about their states, and writes the front matter of a card."""

    def make(card: Path, _: Iterator) -> None:
        outcomes = {name: read_outcome(folder / "data" / name) for name in names}
        record.shards = {name: PreferenceCounts(**outcome["counts"]) for name, outcome in outcomes.items()}
        record.counts = sum(record.shards.values(), PreferenceCounts())
        sums = sum(
            (DecisionSums(**outcome["decisions"]) for outcome in outcomes.values()),
            DecisionSums.none(list(reward.rewards)),
        )
        record.decisions = RewardDecisions.of(sums, record.settings.reward_weights, reward.standardize)
        record.threads = current_threads().record()
        record.write(folder)
        _write_front_matter(card, record)

    # One more file, which one of the processes makes.
    SharedWork([folder / CARD_FILE], place).run(str, make, {CARD_FILE: ()})


def _write_front_matter(card: Path, record: PreferenceRecord) -> None:
    """What the Hub and `load_dataset` need to find the rows; the card's text is written elsewhere."""
    content = record.to_json()
    metadata = DatasetCardData(
        task_categories=["robotics"],
        tags=["preferences", "nora15"],
        configs=dataset_configs(card.parent, DATA_FILES),
        provenance={key: content[key] for key in ("settings", "provenance", "counts")},
    )
    title = f"# Preferences over action chunks, {record.counts.pairs} pairs"
    with written_whole(card) as part:
        part.write_text(f"---\n{metadata.to_yaml()}\n---\n\n{title}\n")


__all__ = ["NoPairsError", "build_preferences", "regenerate_candidates"]
