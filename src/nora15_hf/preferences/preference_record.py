# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The provenance of a preference set: `preferences.json` next to its rows, and the same record with the rows in memory."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from datasets import Dataset, DatasetInfo

from ..repo_files.json_files import checked_fields, read_json, write_json
from .pairs import PAIRINGS
from .reward_decisions import RewardDecisions

PROVENANCE_FILE = "preferences.json"
DATA_FILES = "data/train-*.parquet"

Part = TypeVar("Part")


@dataclass(frozen=True)
class PreferenceSettings:
    """
    Everything that decides which rows a labelling run writes.

    Attributes:
        policy (`str`), policy_fingerprint (`str`): The policy that sampled the candidates: name, digest of its weights.
        dataset_key (`str`): The policy's key of the demonstrations.
        num_states (`int`), states_fingerprint (`str`):
            How many states, and a digest of which, with all actions and the states that the policy needs.
        num_candidates (`int`): Sampled candidates per state.
        sampler (`dict`): How they were sampled, see [`~nora15_hf.preferences.candidates.sampler_settings`].
        num_noisy_negatives (`int`), noise_std (`float`, *optional*): Noisy copies per state, and their noise.
        chunk_size (`int`), action_dim (`int`): H and A.
        reward (`dict`): `settings` of the [`~nora15_hf.preferences.WeightedReward`].
        pairing (`str`), min_margin (`float`): See [`~nora15_hf.preferences.select_pairs`].
        shard_size (`int`), batch_size (`int`): States per file and per pass.
        seed (`int`): Of noise and random choices.
        embodiment (`dict`, *optional*): The policy's contract, see [`~nora15_hf.embodiment.Embodiment.to_dict`].
        cameras (`dict[str, str]`, *optional*): Name of each camera that the policy was shown to the dataset's feature.
        dtype (`str`): Type of the policy's weights while it sampled, `"float32"` or `"bfloat16"`.
        pairs_from (`dict`, *optional*): `settings` of the [`~nora15_hf.preferences.pair_sources.PairSource`]; `None` where a
            reward ranked candidates.
    """

    policy: str
    policy_fingerprint: str
    dataset_key: str
    num_states: int
    states_fingerprint: str
    num_candidates: int
    sampler: dict[str, Any]
    num_noisy_negatives: int
    noise_std: float | None
    chunk_size: int
    action_dim: int
    reward: dict[str, Any]
    pairing: str
    min_margin: float
    shard_size: int
    batch_size: int
    seed: int
    embodiment: dict[str, Any] | None = None
    cameras: dict[str, str] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    pairs_from: dict[str, Any] | None = None

    @property
    def chunks_per_state(self) -> int:
        """Candidates of a row, N: the sampled ones and their noisy copies."""
        return self.num_candidates + self.num_noisy_negatives

    @property
    def reward_weights(self) -> dict[str, float]:
        """Weight of each reward."""
        return {name: reward["weight"] for name, reward in self.reward["rewards"].items()}

    @property
    def world_model(self) -> str | None:
        """Name of the world model behind the reward, `None` without one."""
        return self.reward["rewards"].get("world_model", {}).get("world_model") or None


@dataclass(frozen=True)
class PreferenceCounts:
    """
    What became of states.

    Attributes:
        states (`int`): States sampled at.
        undecodable (`int`): Of them, those with FAST tokens that spell no chunk.
        ties (`int`), too_close (`int`): Pairs that were dropped.
        pairs (`int`): Pairs that were written.
    """

    states: int = 0
    undecodable: int = 0
    ties: int = 0
    too_close: int = 0
    pairs: int = 0

    def __add__(self, other: "PreferenceCounts") -> "PreferenceCounts":
        return PreferenceCounts(*map(sum, zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass
class PreferenceRecord:
    """
    What `preferences.json` holds.

    Attributes:
        settings ([`PreferenceSettings`]): What the rows depend on.
        provenance (`dict[str, Any]`): What else is known: repos, revisions, versions of packages.
        states (`list[int]`): Positions of the states in the dataset of demonstrations.
        shards (`dict[str, PreferenceCounts]`): Name of each file to what became of its states; of a finished set.
        counts ([`PreferenceCounts`], *optional*): Their sum; `None` while the set is unfinished.
        decisions ([`RewardDecisions`], *optional*): What each reward had to do with the pairs; of a finished set.
        threads (`dict[str, Any]`, *optional*): Threads of the run, see [`~nora15_hf.runtime.cpu_threads.ThreadUse.record`].
    """

    settings: PreferenceSettings
    provenance: dict[str, Any]
    states: list[int]
    shards: dict[str, PreferenceCounts] = field(default_factory=dict)
    counts: PreferenceCounts | None = None
    threads: dict[str, Any] | None = None
    decisions: RewardDecisions | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of `preferences.json`."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: Any, source: str) -> "PreferenceRecord":
        """
        The record that a JSON object holds.

        Args:
            content: What `to_json` returned.
            source (`str`): How errors call it.

        Raises:
            ValueError: Something else than a record, a key that is missing, or one that only a newer version knows.
        """
        record = _part(cls, content, source)
        record.settings = _settings(record.settings, f"settings of {source}")
        shards = _objects(record.shards, f"shards of {source}")
        record.shards = {name: _counts(counts, f"shard {name} of {source}") for name, counts in shards.items()}
        if record.counts is not None:
            record.counts = _counts(record.counts, f"counts of {source}")
        if record.decisions is not None:
            where = f"decisions of {source}"
            record.decisions = checked_fields(_part(RewardDecisions, record.decisions, where), where)
        return checked_fields(record, source)

    @classmethod
    def read(cls, folder: str | Path, *, unfinished: bool = False) -> "PreferenceRecord":
        """
        The record of a folder.

        Args:
            folder (`str` or `Path`): Of a preference set.
            unfinished (`bool`, *optional*, defaults to `False`): Whether an unfinished set is welcome.

        Raises:
            FileNotFoundError: No preference set there, or an unfinished one.
            ValueError: See [`~PreferenceRecord.from_json`].
        """
        file = Path(folder, PROVENANCE_FILE)
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {PROVENANCE_FILE}. Build a preference set with build_preferences."
            )
        record = cls.from_json(read_json(file), str(file))
        if record.counts is None and not unfinished:
            raise FileNotFoundError(
                f"The preference set in {folder} is unfinished: {len(list(Path(folder).glob(DATA_FILES)))} files are there, "
                f"not yet those of all {record.settings.num_states} states. Call build_preferences again with the same arguments."
            )
        return record

    def write(self, folder: str | Path) -> None:
        """Writes `preferences.json` into a folder, whole or not at all."""
        write_json(Path(folder, PROVENANCE_FILE), self.to_json())


@dataclass
class PreferenceInfo(DatasetInfo):
    """
    `dataset.info` of preference rows whose origin is known.

    `select`, `shuffle`, `filter`, `map` and the like keep it. Rows that were concatenated with those of another set, or that
    another function than [`~nora15_hf.preferences.load_preferences`] has read, come with a plain `DatasetInfo`.

    Attributes:
        record ([`PreferenceRecord`]): How the set that the rows were taken from came about.
        sampled_by_policy (`bool`, *optional*): Whether the candidates are those of the policy that
            `load_preferences` was given; `None` when it was given none.
    """

    record: PreferenceRecord | None = None
    sampled_by_policy: bool | None = None


def preference_info(dataset: Dataset) -> PreferenceInfo | None:
    """What is known of how preference rows came about; `None` when nothing is."""
    return dataset.info if isinstance(dataset.info, PreferenceInfo) else None


def with_preference_info(dataset: Dataset, record: PreferenceRecord, sampled_by_policy: bool | None) -> Dataset:
    """The same rows with a [`PreferenceInfo`]."""
    known = {each.name: vars(dataset.info)[each.name] for each in dataclasses.fields(DatasetInfo)}
    info = PreferenceInfo(**known, record=record, sampled_by_policy=sampled_by_policy)
    return Dataset(dataset.data, info=info, split=dataset.split)


def _part(kind: type[Part], content: Any, source: str) -> Part:
    content = _objects(content, source)
    fields = dataclasses.fields(kind)
    unknown = sorted(content.keys() - {each.name for each in fields})
    if unknown:
        raise ValueError(
            f"{source}: unknown keys {unknown}. A newer version of nora15_hf wrote it: update nora15_hf to read it."
        )
    required = {each.name for each in fields if each.default is dataclasses.MISSING is each.default_factory}
    missing = sorted(required - content.keys())
    if missing:
        raise ValueError(f"{source}: the keys {missing} are missing. Fetch or build the preference set again.")
    return kind(**content)


def _counts(content: Any, source: str) -> PreferenceCounts:
    return checked_fields(_part(PreferenceCounts, content, source), source)


def _settings(content: Any, source: str) -> PreferenceSettings:
    settings = checked_fields(_part(PreferenceSettings, content, source), source)
    rewards = settings.reward.get("rewards")
    if not (
        isinstance(rewards, dict) and all(isinstance(each, dict) and "weight" in each for each in rewards.values())
    ):
        raise ValueError(
            f"{source}: reward is {settings.reward!r}, expected an object with the weight of each of its rewards."
        )
    if settings.pairs_from is None and settings.pairing not in PAIRINGS:
        raise ValueError(f"{source}: pairing is {settings.pairing!r}, expected one of {', '.join(PAIRINGS)}.")
    return settings


def _objects(content: Any, source: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{source} is a {type(content).__name__}, expected a JSON object.")
    return content


__all__ = [
    "DATA_FILES",
    "PROVENANCE_FILE",
    "PreferenceCounts",
    "PreferenceInfo",
    "PreferenceRecord",
    "PreferenceSettings",
    "preference_info",
    "with_preference_info",
]
