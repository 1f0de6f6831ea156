# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether a reward is worth training on: how often it ranks the demonstrated chunk above spoiled ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from ..actions.keyed_noise import keyed_noise, keyed_rng
from ..cards.wilson_interval import wilson_interval
from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..data.policy_fit import fit_dataset
from ..repo_files.json_files import write_json
from .labelling import demonstrated_chunks, reward_batch
from .rewards import WeightedReward, WorldModelGoalReward

REWARD_CHECK_FOLDER = "reward_check"
RESULTS_FILE = "reward_check.json"
FIGURE_FILE = "reward_check.png"

NOISE_LEVELS = (0.1, 0.25, 0.5, 1.0)
"""Standard deviations of noise on the demonstrated chunk, in normalised units."""

COMBINED = "combined"
ALL = "all"

# What tells the random numbers of a state apart, beside those of preferences/candidates.py and control/chunk_samplers.py.
_NOISE, _ORDER = 4, 5


@dataclass(frozen=True)
class RewardCheck:
    """
    How often a reward ranks the demonstrated chunk above spoiled ones.

    Attributes:
        won (`dict[str, np.ndarray]`):
            Name of each reward, and `"combined"` where there are several, to bool `(n, K)`: whether the demonstrated chunk of a state
            scored higher than each of its K spoiled ones. Equal scores are not won.
        nears_goal (`dict[str, np.ndarray]`):
            Name of each reward that is a distance to the end of the episode to bool `(n,)`, see [`WorldModelGoalReward.nears_goal`].
        counts (`np.ndarray`): bool `(n, K)`, False where a spoiled chunk is the demonstrated one, as a constant one reversed.
        spoiled (`list[str]`): What the K are.
        instructions (`list[str]`): Of each state.
        episodes (`list[int]`): Indices of the episodes that the states come from.
        settings (`dict[str, Any]`): Of the [`WeightedReward`].
    """

    won: dict[str, np.ndarray]
    nears_goal: dict[str, np.ndarray]
    counts: np.ndarray
    spoiled: list[str]
    instructions: list[str]
    episodes: list[int]
    settings: dict[str, Any]

    def ranking(self) -> dict[str, dict[str, dict[str, tuple[int, int]]]]:
        """Reward -> instruction (and `"all"`) -> spoiled chunk -> (states won, states)."""
        groups = self._groups()
        return {
            name: {
                group: {
                    kind: (int((won & self.counts)[of_group, number].sum()), int(self.counts[of_group, number].sum()))
                    for number, kind in enumerate(self.spoiled)
                }
                for group, of_group in groups.items()
            }
            for name, won in self.won.items()
        }

    def progress(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Reward -> instruction (and `"all"`) -> (states whose demonstrated chunk ends nearer to the goal, states)."""
        groups = self._groups()
        return {
            name: {group: (int(nearer[of_group].sum()), int(of_group.sum())) for group, of_group in groups.items()}
            for name, nearer in self.nears_goal.items()
        }

    def _groups(self) -> dict[str, np.ndarray]:
        instructions = np.array(self.instructions)
        groups = {ALL: np.ones(len(instructions), dtype=bool)}
        return groups | {name: instructions == name for name in dict.fromkeys(self.instructions)}

    def to_dict(self) -> dict[str, Any]:
        """Figures as JSON values."""
        return {
            "states": len(self.instructions),
            "episodes": self.episodes,
            "reward": self.settings,
            "ranking": {
                name: {
                    group: {
                        kind: {
                            "won": won,
                            "states": states,
                            "interval_95": list(wilson_interval(won, states)) if states else None,
                        }
                        for kind, (won, states) in row.items()
                    }
                    for group, row in groups.items()
                }
                for name, groups in self.ranking().items()
            },
            "nears_goal": {
                name: {group: {"nearer": nearer, "states": states} for group, (nearer, states) in groups.items()}
                for name, groups in self.progress().items()
            },
        }

    def text(self) -> str:
        """A table for a terminal."""
        lines = [
            f"How often the demonstrated chunk scores higher than a spoiled one, at {len(self.instructions)} states of "
            f"{len(self.episodes)} episode{'s' * (len(self.episodes) > 1)} (Wilson 95 % interval of all):"
        ]
        width = max(map(len, (ALL, *self.instructions)))
        for name, groups in self.ranking().items():
            lines += ["", f"{name:<{width}}" + "".join(f"  {kind:>18}" for kind in self.spoiled)]
            for group, row in groups.items():
                cells = [_cell(*count, with_interval=group == ALL) for count in row.values()]
                lines.append(f"{group:<{width}}" + "".join(f"  {cell:>18}" for cell in cells))
        for name, groups in self.progress().items():
            lines += ["", f"How often the demonstrated chunk itself ends nearer to the goal of {name}:"]
            for group, (nearer, states) in groups.items():
                lines.append(f"{group:<{width}}  {_cell(nearer, states, with_interval=group == ALL):>18}")
        return "\n".join(lines)

    def figure(self) -> Figure:
        """A panel for each reward: all states as bars with their interval, each instruction as a dot."""
        ranking = self.ranking()
        figure = Figure(figsize=(1.2 + 0.8 * len(self.spoiled) * len(ranking), 3.2), layout="constrained")
        for axes, (name, groups) in zip(
            figure.subplots(1, len(ranking), squeeze=False)[0], ranking.items(), strict=True
        ):
            for place, kind in enumerate(self.spoiled):
                won, states = groups[ALL][kind]
                if states:
                    low, high = wilson_interval(won, states)
                    errors = [[max(won / states - low, 0)], [max(high - won / states, 0)]]
                    axes.bar(place, won / states, 0.7, yerr=errors, color="#818b98", capsize=3)
            for instruction in list(groups)[1:]:
                counts = [groups[instruction][kind] for kind in self.spoiled]
                shares = [won / states if states else np.nan for won, states in counts]
                axes.plot(range(len(shares)), shares, ".", color="#2f6fc4", alpha=0.7)
            axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
            axes.set_xticks(range(len(self.spoiled)), self.spoiled, rotation=45, ha="right", fontsize="small")
            axes.set_ylim(0, 1.05)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_title(name, fontsize="medium")
        figure.axes[0].set_ylabel("demonstrated chunk wins")
        return figure

    def save(self, folder: str | Path) -> None:
        """Writes `reward_check.json` and `reward_check.png`."""
        folder = Path(folder)
        write_json(folder / RESULTS_FILE, self.to_dict())
        self.figure().savefig(folder / FIGURE_FILE, dpi=90, metadata={"Software": None})


def check_reward(
    *,
    processor: ProcessorMixin,
    dataset: LeRobotDataset,
    indices: Sequence[int],
    reward: WeightedReward,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> RewardCheck:
    """
    Ranks the demonstrated chunk of some states against itself with noise of several levels, with its steps in a random order, and
    reversed. No policy samples anything: a reward that fails here would fail on candidates, too.

    Args:
        processor ([`Nora15Processor`]): Of the policy that is to be improved.
        dataset ([`LeRobotDataset`]): Demonstrations.
        indices (`Sequence[int]`): Positions of the states, best of episodes that neither policy nor world model was trained on; see
            [`~nora15_hf.preferences.select_states`], with `complete_chunks`.
        reward ([`WeightedReward`]): What is examined, each part of it and the whole.
        batch_size (`int`, *optional*, defaults to 32): States per pass.
        seed (`int`, *optional*, defaults to 0): Of noise and orders.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Raises:
        ValueError: No states, or a dataset or reward that does not fit the policy.
    """
    if len(indices) == 0:
        raise ValueError("indices is empty. Name at least one position of the dataset.")
    dataset = fit_dataset(dataset, processor)
    reward.check_policy(processor.embodiment(dataset.dataset_key))
    won: dict[str, list[np.ndarray]] = {}
    nearer: dict[str, list[np.ndarray]] = {}
    counts, instructions, episodes = [], [], set()
    for first in tqdm(range(0, len(indices), batch_size), desc="Reward check", unit="batch", disable=not progress):
        positions = list(indices[first : first + batch_size])
        samples = [dataset[position] for position in positions]
        chunks = demonstrated_chunks(dataset, processor, samples)
        ranked = torch.stack([chunks, *spoiled_chunks(chunks, samples, seed).values()], dim=1)
        batch = reward_batch(dataset, processor, positions, samples, ranked, {})
        scores = reward.score_each(batch)
        for name, (part, _) in reward.rewards.items():
            # After a sub-goal nothing is nearer than the demonstration.
            if isinstance(part, WorldModelGoalReward) and part.goal != "subgoal":
                nearer.setdefault(name, []).append(part.nears_goal(batch).numpy())
        if len(scores) > 1:
            scores[COMBINED] = reward.combine(scores)
        for name, score in scores.items():
            won.setdefault(name, []).append((score[:, :1] > score[:, 1:]).numpy())
        counts.append((ranked[:, 1:] != ranked[:, :1]).flatten(2).any(2).numpy())
        instructions += [sample["instruction"] for sample in samples]
        episodes |= {sample["episode_index"] for sample in samples}
    return RewardCheck(
        {name: np.concatenate(parts) for name, parts in won.items()},
        {name: np.concatenate(parts) for name, parts in nearer.items()},
        np.concatenate(counts),
        list(spoiled_chunks(chunks, samples, seed)),
        instructions,
        sorted(episodes),
        reward.settings,
    )


def spoiled_chunks(chunks: torch.Tensor, samples: Sequence[Sample], seed: int) -> dict[str, torch.Tensor]:
    """
    What demonstrated chunks are ranked against.

    Args:
        chunks (`torch.Tensor`): float32 `(B, H, A)`, normalised.
        samples (`Sequence[Sample]`): Their states, on whose rows the random numbers depend.
        seed (`int`): Of noise and orders.

    Returns:
        `dict[str, torch.Tensor]`: float32 `(B, H, A)` each, by name.
    """
    noise = keyed_noise([(seed, sample["index"], _NOISE) for sample in samples], chunks.shape[1:])
    spoiled = {f"noise {level:g}": chunks + level * noise for level in NOISE_LEVELS}
    orders = torch.stack([_other_order((seed, sample["index"], _ORDER), chunks.shape[1]) for sample in samples])
    spoiled["shuffled"] = chunks.gather(1, orders[..., None].expand_as(chunks))
    spoiled["reversed"] = chunks.flip(1)
    return spoiled


def _other_order(key: tuple[int, ...], steps: int) -> torch.Tensor:
    """Numbers of the steps in a random order, which is not their own."""
    order = torch.from_numpy(keyed_rng(key).permutation(steps))
    return order.roll(1) if torch.equal(order, torch.arange(steps)) else order


def _cell(won: int, states: int, *, with_interval: bool) -> str:
    if not states:
        return "-"
    if not with_interval:
        return f"{won / states:.0%}"
    low, high = wilson_interval(won, states)
    return f"{won / states:.0%} ({low:.0%} to {high:.0%})"


__all__ = ["REWARD_CHECK_FOLDER", "RewardCheck", "check_reward", "spoiled_chunks"]
