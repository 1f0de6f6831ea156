# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LeRobot datasets as streams: file after file, shared out over processes and workers, through a shuffle buffer."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from .lerobot_dataset import LeRobotDataset
from .lerobot_layout import DEFAULT_STATE_KEY
from .lerobot_mixture import MixtureReader, arranged_members, normalized_weights
from .lerobot_source import LeRobotReader, Sample, open_source, split_positions

# Files differ in length. With many shards the readers get about equal shares: none waits for another at the end of an
# epoch, and with `repeat` all episodes are seen about equally often.
SHARDS_PER_READER = 8


class LeRobotStream(LeRobotReader, torch.utils.data.IterableDataset):
    """LeRobot dataset read shard by shard, for datasets that are too large for the memory or should not be fetched whole.

    A shard is a data file with its videos, or a part of its episodes when there are few files for the readers. Readers are
    the data-loading workers of all processes; each shard goes to one of them, and is fetched from the Hub when its turn
    comes.
    Same seed, epoch and number of readers, same samples in the same order.

    Args:
        root_or_repo, revision, token, image_keys, state_key, action_key, action_names, state_names, chunk_size, episodes,
        dataset_key: As for [`LeRobotDataset`].
        shuffle_buffer_size (`int`, defaults to 1000):
            Decoded samples held back by each worker, of which one is drawn at random; shards and the episodes in them are
            shuffled, too. With 0 everything comes in the order of the dataset.
        seed (`int`, defaults to 0): Of the shuffling.
        repeat (`bool`, defaults to `False`):
            Begin the next epoch at the end of one, without end. Processes of a distributed run then never run dry at
            different steps.
        skip_bad_episodes (`bool`, defaults to `False`): As for [`LeRobotDataset`]; each is reported by a warning.

    Raises:
        FileNotFoundError, ValueError: As for [`LeRobotDataset`]; inconsistent rows are found when their shard is read.

    Example:
        ```python
        stream = LeRobotStream("user/kitchen", chunk_size=5, shuffle_buffer_size=2000, repeat=True)
        loader = DataLoader(stream.shard(rank, world_size), batch_size=32, num_workers=8, collate_fn=collator)
        ```
    """

    def __init__(
        self,
        root_or_repo: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        image_keys: Sequence[str] | Mapping[str, str] | None = None,
        state_key: str | None = DEFAULT_STATE_KEY,
        action_key: str | None = None,
        action_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        chunk_size: int = 5,
        episodes: Sequence[int] | None = None,
        dataset_key: str | None = None,
        shuffle_buffer_size: int = 1000,
        seed: int = 0,
        repeat: bool = False,
        skip_bad_episodes: bool = False,
    ):
        if shuffle_buffer_size < 0:
            raise ValueError(f"`shuffle_buffer_size` is {shuffle_buffer_size}; it must be 0 (no shuffling) or more.")
        self._source = open_source(
            root_or_repo,
            revision,
            token,
            image_keys,
            state_key,
            action_key,
            chunk_size,
            dataset_key,
            action_names,
            state_names,
        )
        self._positions = self._source.episode_positions(episodes)
        self.shuffle_buffer_size = shuffle_buffer_size
        self.seed = seed
        self.repeat = repeat
        self.skip_bad_episodes = skip_bad_episodes
        self.rank, self.world_size = 0, 1
        # Shared, so that persistent data-loading workers see the epoch, too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def num_episodes(self) -> int:
        """Number of selected episodes, over all processes."""
        return len(self._positions)

    @property
    def num_frames(self) -> int:
        """Samples per epoch, over all processes."""
        return int(self._source.metadata.episodes.length[self._positions].sum())

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; transformers' Trainer and accelerate call it."""
        self._epoch.fill_(epoch)

    def shard(self, rank: int, world_size: int) -> "LeRobotStream":
        """The part of the stream that one process of a distributed run reads.

        Args:
            rank (`int`): Number of the process, `0 ... world_size - 1`.
            world_size (`int`): Number of processes.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` {rank} must lie between 0 and `world_size` - 1 = {world_size - 1}.")
        part = copy.copy(self)
        part.rank, part.world_size = rank, world_size
        return part

    def split_by_episode(self, validation_fraction: float, seed: int) -> tuple["LeRobotStream", "LeRobotStream"]:
        """Two streams that share no episode; the same episodes as [`LeRobotDataset.split_by_episode`] chooses."""
        train, validation = copy.copy(self), copy.copy(self)
        train._positions, validation._positions = split_positions(self._positions, validation_fraction, seed)
        return train, validation

    def beginning(self) -> LeRobotDataset:
        """The episodes of the first shard, to check what the stream holds; empty if all of them are bad."""
        return LeRobotDataset.from_source(
            self._source, self._shards(1)[0], skip_bad_episodes=self.skip_bad_episodes, check_precision=True
        )

    def __iter__(self) -> Iterator[Sample]:
        reader, readers = reader_number(self.rank, self.world_size)
        epoch = int(self._epoch)
        while True:
            empty = True
            for sample in self._epoch_samples(epoch, reader, readers):
                empty = False
                yield sample
            if not self.repeat:
                return
            if empty:
                raise ValueError(
                    f"{self._source.files.root}: each episode of reader {reader} of {readers} is bad; the reasons are in "
                    "the warnings above. Repair the dataset or use fewer workers."
                )
            epoch += 1

    def _epoch_samples(self, epoch: int, reader: int, readers: int) -> Iterator[Sample]:
        shards = self._shards(readers)
        if self.shuffle_buffer_size > 0:
            # The same order for all readers, each of which then takes its own shards.
            order = np.random.default_rng([self.seed, epoch]).permutation(len(shards))
            shards = [shards[number] for number in order]
        random = np.random.default_rng([self.seed, epoch, reader])
        samples = self._read_shards(shards[reader::readers], random)
        return shuffled(samples, self.shuffle_buffer_size, random) if self.shuffle_buffer_size > 0 else samples

    def _shards(self, readers: int) -> list[np.ndarray]:
        """Positions of episodes that are read together."""
        if len(self._positions) < readers:
            raise ValueError(
                f"{len(self._positions)} episodes cannot be distributed over {readers} readers ({self.world_size} "
                "process(es) and their data-loading workers). Use fewer workers or processes."
            )
        files: dict[str, list[int]] = {}
        for position in self._positions.tolist():
            files.setdefault(self._source.metadata.episodes.file[position], []).append(position)
        parts = -(-SHARDS_PER_READER * readers // len(files))
        return [part for positions in files.values() for part in np.array_split(positions, min(parts, len(positions)))]

    def _read_shards(self, shards: list[np.ndarray], random: np.random.Generator) -> Iterator[Sample]:
        for positions in shards:
            dataset = LeRobotDataset.from_source(self._source, positions, skip_bad_episodes=self.skip_bad_episodes)
            episodes = np.arange(dataset.num_episodes)
            if self.shuffle_buffer_size > 0:
                random.shuffle(episodes)
            for episode in episodes.tolist():
                for index in range(dataset.episodes["from"][episode], dataset.episodes["to"][episode]):
                    yield dataset[index]


class LeRobotStreamMixture(MixtureReader, torch.utils.data.IterableDataset):
    """Weighted mixture of streams, without end: each sample comes from a member drawn at random.

    Args:
        streams (`Sequence[LeRobotStream]`): Members, opened with `repeat=True`; samples keep their own `dataset_key`.
        weights (`Sequence[float]`, *optional*):
            Probability of each member, up to a common factor. Defaults to the number of frames.
        seed (`int`, defaults to 0): Of the draws; the members shuffle with their own seeds.
        allow_mixed_fps (`bool`, defaults to `False`): As for [`LeRobotMixture`].

    Raises:
        ValueError: As for [`LeRobotMixture`], or a member that ends.
    """

    def __init__(
        self,
        streams: Sequence[LeRobotStream],
        weights: Sequence[float] | None = None,
        *,
        seed: int = 0,
        allow_mixed_fps: bool = False,
    ):
        streams = arranged_members(streams, allow_mixed_fps)
        for stream in streams:
            if not stream.repeat:
                raise ValueError(
                    f"Member {stream.dataset_key!r} ends after one epoch, which would change the mixture. Open it with "
                    "`repeat=True`."
                )
        self.members = list(streams)
        frames = [stream.num_frames for stream in streams]
        self.weights = normalized_weights(frames if weights is None else weights, len(self.members))
        self.seed = seed

    def shard(self, rank: int, world_size: int) -> "LeRobotStreamMixture":
        """The part that one process of a distributed run reads; see [`LeRobotStream.shard`]."""
        part = copy.copy(self)
        part.members = [member.shard(rank, world_size) for member in self.members]
        return part

    def __iter__(self) -> Iterator[Sample]:
        reader, _ = reader_number(self.members[0].rank, self.members[0].world_size)
        random = np.random.default_rng([self.seed, reader])
        samples = [iter(member) for member in self.members]
        while True:
            yield next(samples[random.choice(len(samples), p=self.weights)])


def reader_number(rank: int, world_size: int) -> tuple[int, int]:
    """Number of this reader and the number of all: every data-loading worker of every process is one."""
    worker = torch.utils.data.get_worker_info()
    if worker is None:
        return rank, world_size
    return rank * worker.num_workers + worker.id, world_size * worker.num_workers


def shuffled(samples: Iterable[Sample], size: int, random: np.random.Generator) -> Iterator[Sample]:
    """The samples, each drawn at random from the `size` that are read ahead."""
    held = []
    for sample in samples:
        if len(held) < size:
            held.append(sample)
            continue
        drawn = int(random.integers(size))
        yield held[drawn]
        held[drawn] = sample
    random.shuffle(held)
    yield from held


__all__ = ["LeRobotStream", "LeRobotStreamMixture"]
