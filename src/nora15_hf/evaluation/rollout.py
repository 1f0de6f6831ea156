# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop episodes of a policy, many side by side, one batched policy call per round."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from ..simulation.metaworld_tasks import get_task
from ..simulation.simulation_pool import SimulationPool

# (images uint8 (B, height, width, 3), instructions, (episode seed, replan index) pairs) -> actions (B, H, A), physical
ChunkPolicy = Callable[[np.ndarray, list[str], list[tuple[int, int]]], np.ndarray]


@dataclass(frozen=True)
class Episode:
    """One episode to run.

    Attributes:
        task (`str`): a key of `METAWORLD_TASKS`.
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
        frames (`list[np.ndarray]`): recorded images, uint8 `(size, size, 3)`.
    """

    task: str
    seed: int
    instruction: str
    success: bool
    num_steps: int
    frames: list[np.ndarray] = field(repr=False)


@dataclass
class _Running:
    position: int
    episode: Episode
    instruction: str
    image: np.ndarray
    replan: int
    frames: list[np.ndarray]


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
    """Run episodes in lockstep: all live slots' images go through the policy at once, then all simulators move.

    Args:
        policy (`ChunkPolicy`): `(images, instructions, noise_keys) -> actions (B, H, A)` in physical units, with
            images uint8 `(B, size, size, 3)` and noise keys `(episode seed, replan index)`.
        episodes (`Sequence[Episode]`): what to run.
        pool ([`SimulationPool`]): where to run it; its conventions belong to the result.
        n_action_steps (`int`, defaults to 5): actions of a chunk that are executed before the policy looks again.
        record_frames (`int`, defaults to 0): keep every `record_frames`-th image that the policy saw, and the last of
            the episode; 0 keeps none.
        progress (`bool`, defaults to `True`): show a progress bar.

    Returns:
        `list[EpisodeResult]`: in the order of `episodes`; an episode ends at its first success or at the step limit.

    Raises:
        ValueError: no episodes, an unknown task, a negative `record_frames`, `n_action_steps` below 1, or a policy
            output that is not finite or not of shape `(B, H >= n_action_steps, 4)`.
    """
    if not episodes:
        raise ValueError("`episodes` is empty: give at least one Episode(task, seed).")
    if n_action_steps < 1 or record_frames < 0:
        raise ValueError(
            f"`n_action_steps` ({n_action_steps}) must be 1 or more, `record_frames` ({record_frames}) 0 or more."
        )
    own_instructions = {episode.task: get_task(episode.task).instruction for episode in episodes}
    schedule = _Schedule(episodes)
    running: dict[int, _Running] = {}
    results: dict[int, EpisodeResult] = {}
    with tqdm(total=len(episodes), desc="episodes", disable=not progress) as bar:
        while True:
            _fill_free_slots(schedule, running, pool, own_instructions)
            if not running:
                break
            slots = sorted(running)
            live = [running[slot] for slot in slots]
            for run in live:
                if record_frames and run.replan % record_frames == 0:
                    run.frames.append(run.image)
            actions = _policy_actions(policy, live, n_action_steps)
            outcomes = pool.advance(list(zip(slots, actions, strict=True)))
            for slot, run, (success, num_steps, image) in zip(slots, live, outcomes, strict=True):
                run.image = image
                run.replan += 1
                if success or num_steps == pool.max_steps:
                    if record_frames:
                        run.frames.append(image)
                    results[run.position] = EpisodeResult(
                        run.episode.task, run.episode.seed, run.instruction, success, num_steps, run.frames
                    )
                    del running[slot]
                    bar.update()
            bar.set_postfix(successes=sum(result.success for result in results.values()))
    return [results[position] for position in range(len(episodes))]


def _fill_free_slots(
    schedule: _Schedule, running: dict[int, _Running], pool: SimulationPool, own_instructions: dict[str, str]
) -> None:
    taken = {}
    for slot in range(pool.num_slots):
        if slot not in running and (item := schedule.take(slot)) is not None:
            taken[slot] = item
    images = pool.start([(slot, episode.task, episode.seed) for slot, (_, episode) in taken.items()])
    for (slot, (position, episode)), image in zip(taken.items(), images, strict=True):
        instruction = own_instructions[episode.task] if episode.instruction is None else episode.instruction
        running[slot] = _Running(position, episode, instruction, image, replan=0, frames=[])


def _policy_actions(policy: ChunkPolicy, live: list[_Running], n_action_steps: int) -> np.ndarray:
    """The first `n_action_steps` actions of every chunk, float32 `(B, n_action_steps, 4)`."""
    chunks = np.asarray(
        policy(
            np.stack([run.image for run in live]),
            [run.instruction for run in live],
            [(run.episode.seed, run.replan) for run in live],
        ),
        dtype=np.float32,
    )
    if chunks.ndim != 3 or chunks.shape[0] != len(live) or chunks.shape[1] < n_action_steps or chunks.shape[2] != 4:
        raise ValueError(
            f"The policy returned actions of shape {chunks.shape} for {len(live)} images; expected "
            f"({len(live)}, H, 4) with H at least n_action_steps={n_action_steps}."
        )
    if not np.isfinite(chunks).all():
        raise ValueError("The policy returned actions that are not finite (NaN or infinity).")
    return chunks[:, :n_action_steps]


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
        self._last_foreign: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, images: np.ndarray, instructions: list[str], noise_keys: list[tuple[int, int]]) -> np.ndarray:
        episodes = [(text, seed) for text, (seed, _) in zip(instructions, noise_keys, strict=True)]
        if len(images) > 1:
            random_order = np.random.default_rng(noise_keys).permutation(len(images))
            order = np.array(sorted(random_order, key=lambda position: instructions[position]))
            largest_group = max(Counter(instructions).values())
            shuffled = np.empty_like(images)
            shuffled[order] = images[np.roll(order, largest_group if largest_group < len(images) else 1)]
            images = shuffled
            self._last_foreign = dict(zip(episodes, images, strict=True))
        elif self._last_foreign:
            # An episode that began alone is not in the table, so any image in it is foreign.
            images = self._last_foreign.get(episodes[0], next(iter(self._last_foreign.values())))[None]
        else:
            raise ValueError("ShuffledImages got a single episode and has no other image to show: run two or more.")
        return self._policy(images, instructions, noise_keys)


__all__ = ["ChunkPolicy", "Episode", "EpisodeResult", "ShuffledImages", "rollout"]
