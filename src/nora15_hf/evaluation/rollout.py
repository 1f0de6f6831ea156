# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop episodes of a policy, many side by side, one batched policy call per round."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm.auto import tqdm

from ..actions.keyed_noise import NoiseKey, keyed_rng
from ..simulation.environment import Observation
from ..simulation.simulation_pool import SimulationPool
from .lockstep import ChunkPolicy, DrivenEpisode, drive_in_lockstep


@dataclass(frozen=True)
class Episode:
    """One episode to run.

    Attributes:
        task (`str`): a name of the environment's tasks.
        seed (`int`): start of the episode; evaluation uses 10000 and above.
        instruction (`str`, *optional*): what the policy is told; default: the task's own. Another task's instruction
            makes the control "swapped instructions". Success is judged by `task`.
    """

    task: str
    seed: int
    instruction: str | None = None


@dataclass(frozen=True)
class EpisodeResult:
    """What came of an [`Episode`].

    Attributes:
        task, seed, instruction: of the episode, the instruction as the policy was told.
        success (`bool`): the task succeeded in some step.
        num_steps (`int`): control steps until success, or the step limit.
        frames (`list[np.ndarray]`): recorded images of the first camera, uint8 `(height, width, 3)`.
    """

    task: str
    seed: int
    instruction: str
    success: bool
    num_steps: int
    frames: list[np.ndarray] = field(repr=False)


@dataclass
class _Running(DrivenEpisode):
    position: int
    episode: Episode
    instruction: str
    frames: list[np.ndarray] = field(default_factory=list)

    def look(self, observation: Observation) -> None:
        """Take in what is seen, with the instruction that the policy is to be told."""
        self.observation = replace(observation, instruction=self.instruction)

    def keep_frame(self) -> None:
        self.frames.append(next(iter(self.observation.images.values())))


class _Schedule:
    """Which episode a free slot takes: of its own task while there are any, else of the task with most left.

    Slots are shared out over the tasks, so that an environment seldom has to be built for another task; and nothing
    but the episodes' lengths enters, so that the same policy meets the same batches in every run.
    """

    def __init__(self, episodes: Sequence[Episode]):
        self._left: dict[str, deque[tuple[int, Episode]]] = {}
        for position, episode in enumerate(episodes):
            self._left.setdefault(episode.task, deque()).append((position, episode))
        self._tasks = list(self._left)

    def take(self, slot: int) -> tuple[int, Episode] | None:
        own = self._tasks[slot % len(self._tasks)]
        if not self._left[own]:
            own = max(self._tasks, key=lambda task: len(self._left[task]))
        return self._left[own].popleft() if self._left[own] else None


def rollout(
    policy: ChunkPolicy,
    episodes: Sequence[Episode],
    pool: SimulationPool,
    *,
    n_action_steps: int = 5,
    record_frames: int = 0,
    progress: bool = True,
) -> list[EpisodeResult]:
    """Run episodes in lockstep: what is seen in all live slots goes through the policy at once, then all simulators move.

    Args:
        policy (`ChunkPolicy`): `(observations, noise keys) -> actions (B, H, A)` in physical units; a noise key is
            `(episode seed, replan index)`.
        episodes (`Sequence[Episode]`): what to run.
        pool ([`SimulationPool`]): where to run it; its conventions belong to the result.
        n_action_steps (`int`, defaults to 5): actions of a chunk that are executed before the policy looks again.
        record_frames (`int`, defaults to 0): keep every `record_frames`-th image that the policy saw, and the last of
            the episode, of the first camera; 0 keeps none.
        progress (`bool`, defaults to `True`): show a progress bar.

    Returns:
        `list[EpisodeResult]`: in the order of `episodes`; an episode ends at its first success or at the step limit.

    Raises:
        ValueError: no episodes, an unknown task, a negative `record_frames`, and what [`drive_in_lockstep`] refuses.
    """
    if not episodes:
        raise ValueError("`episodes` is empty: give at least one Episode(task, seed).")
    if record_frames < 0:
        raise ValueError(f"`record_frames` is {record_frames}; it must be 0 or more.")
    for episode in episodes:
        pool.spec.task(episode.task)
    schedule = _Schedule(episodes)
    running: dict[int, _Running] = {}
    results: dict[int, EpisodeResult] = {}
    _fill_free_slots(schedule, running, pool)
    with tqdm(total=len(episodes), desc="episodes", disable=not progress) as bar:
        for actions in drive_in_lockstep(
            policy, running, n_action_steps=n_action_steps, action_dim=pool.spec.action_dim
        ):
            outcomes = pool.advance(list(actions.items()))
            for slot, outcome in zip(actions, outcomes, strict=True):
                run = running[slot]
                if record_frames and run.replan % record_frames == 0:
                    run.keep_frame()
                run.look(outcome.observation)
                if outcome.ended:
                    if record_frames:
                        run.keep_frame()
                    results[run.position] = EpisodeResult(
                        run.episode.task,
                        run.episode.seed,
                        run.instruction,
                        outcome.success,
                        outcome.num_steps,
                        run.frames,
                    )
                    del running[slot]
                    bar.update()
            bar.set_postfix(successes=sum(result.success for result in results.values()))
            _fill_free_slots(schedule, running, pool)
    return [results[position] for position in range(len(episodes))]


def _fill_free_slots(schedule: _Schedule, running: dict[int, _Running], pool: SimulationPool) -> None:
    taken = {}
    for slot in range(pool.num_slots):
        if slot not in running and (item := schedule.take(slot)) is not None:
            taken[slot] = item
    seen = pool.start([(slot, episode.task, episode.seed) for slot, (_, episode) in taken.items()])
    for (slot, (position, episode)), observation in zip(taken.items(), seen, strict=True):
        instruction = observation.instruction if episode.instruction is None else episode.instruction
        running[slot] = _Running(observation, (episode.seed,), position, episode, instruction)
        running[slot].look(observation)


class ShuffledImages:
    """The control "the policy must look": every episode's policy gets the image of another episode.

    At each look the images of a batch change places anew; none stays in its place, and each goes to an episode with
    another instruction where there are enough of those. (Pictures of the same task at the same stage would still tell
    the policy how far it should be.) When only one episode is left, it gets the last image seen of another one. The
    order depends on the noise keys and instructions alone.

    Args:
        policy (`ChunkPolicy`): the policy under test.

    Raises:
        ValueError: when called, if there never was a second episode.
    """

    def __init__(self, policy: ChunkPolicy):
        self._policy = policy
        self._last_foreign: dict[tuple[str, NoiseKey], dict[str, np.ndarray]] = {}

    def __call__(self, observations: Sequence[Observation], noise_keys: Sequence[NoiseKey]) -> np.ndarray:
        instructions = [observation.instruction for observation in observations]
        images = [observation.images for observation in observations]
        # A key ends with the number of the look; what stands before it is the same throughout an episode.
        episodes = [(text, key[:-1]) for text, key in zip(instructions, noise_keys, strict=True)]
        if len(images) > 1:
            random = keyed_rng(tuple(number for key in noise_keys for number in key))
            order = sorted(random.permutation(len(images)), key=lambda position: instructions[position])
            largest_group = max(Counter(instructions).values())
            sources = np.roll(order, largest_group if largest_group < len(images) else 1)
            shuffled = {position: images[source] for position, source in zip(order, sources, strict=True)}
            images = [shuffled[position] for position in range(len(images))]
            self._last_foreign = dict(zip(episodes, images, strict=True))
        elif self._last_foreign:
            # An episode that began alone is not in the table, so any image in it is foreign.
            images = [self._last_foreign.get(episodes[0], next(iter(self._last_foreign.values())))]
        else:
            raise ValueError("ShuffledImages got a single episode and has no other image to show: run two or more.")
        shown = [replace(observation, images=other) for observation, other in zip(observations, images, strict=True)]
        return self._policy(shown, noise_keys)


__all__ = ["Episode", "EpisodeResult", "ShuffledImages", "rollout"]
