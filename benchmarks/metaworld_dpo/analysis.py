# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The statistics of the study: success of arms and their paired differences over training seeds, corrections for many arms, the
quality of rewards, and which logged number predicts success.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import inf, isnan, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from nora15_hf.preferences.reward_decisions import kendall_tau
from raw_results import REWARD_PREFIX

RESAMPLES = 10_000
CONFIDENCE = 0.95
STAGES = ("first third", "second third", "last third")
MARGINS = ("smallest quarter", "second quarter", "third quarter", "largest quarter")

_EPISODE = ["training_seed", "task", "episode_seed"]
_STATE = ["training_seed", "state"]


@dataclass(frozen=True)
class SuccessRate:
    """
    How often an arm succeeds.

    Attributes:
        arm (`str`): Its name.
        rate (`float`): Mean over training seeds of the mean over tasks, in [0, 1].
        interval (`tuple[float, float]`): 95 % interval of the hierarchical bootstrap over training seeds and episodes.
        episodes (`int`): In all.
        per_seed (`dict[int, float]`), per_task (`dict[str, float]`): Rate of each training seed and of each task.
    """

    arm: str
    rate: float
    interval: tuple[float, float]
    episodes: int
    per_seed: dict[int, float]
    per_task: dict[str, float]


@dataclass(frozen=True)
class PairedDifference:
    """
    What an arm gains on a control, on the same episodes. Differences are in percentage points, positive where the arm is better.

    Attributes:
        arm (`str`), control (`str`): What is compared.
        points (`float`): Mean over training seeds of the mean over tasks.
        interval (`tuple[float, float]`):
            95 % interval of the test, see [`paired_difference`]. With one training seed that of the bootstrap,
            which then covers the episodes only.
        bootstrap_interval (`tuple[float, float]`): 95 % interval of the hierarchical bootstrap over training seeds and episodes.
        p_value (`float`): Two-sided, of "no difference"; NaN with one training seed.
        won (`int`), lost (`int`), episodes (`int`): Episodes in which only the arm succeeded, only the control, and all.
        per_seed (`dict[int, float]`), per_task (`dict[str, float]`): Points of each training seed and of each task.
    """

    arm: str
    control: str
    points: float
    interval: tuple[float, float]
    bootstrap_interval: tuple[float, float]
    p_value: float
    won: int
    lost: int
    episodes: int
    per_seed: dict[int, float]
    per_task: dict[str, float]

    @classmethod
    def of(
        cls, arm: str, control: str, cells: "OutcomeCells", *, resamples: int = RESAMPLES, seed: int = 0
    ) -> "PairedDifference":
        """
        That of counted outcomes, see [`paired_difference`].

        Args:
            arm (`str`), control (`str`): Names of what is compared.
            cells ([`OutcomeCells`]): Of 1 where only the arm succeeded, -1 where only the control did, and 0.
            resamples (`int`, *optional*, defaults to 10,000), seed (`int`, *optional*, defaults to 0): Of the bootstrap.
        """
        per_seed, count = cells.means.mean(1), len(cells.seeds)
        points = per_seed.mean()
        interval = bootstrap = cells.bootstrap(resamples, seed)
        p_value = nan
        if count > 1:
            of_seeds, of_episodes = (sqrt(each / count) for each in (per_seed.var(ddof=1), cells.sampling_variance))
            level = (1 + CONFIDENCE) / 2
            half = max(stdtrit(count - 1, level) * of_seeds, ndtri(level) * of_episodes)
            interval = (points - half, points + half)
            p_value = 2 * float(max(stdtr(count - 1, _tail(points, of_seeds)), ndtr(_tail(points, of_episodes))))
        return cls(
            arm,
            control,
            100 * float(points),
            _percent(interval),
            _percent(bootstrap),
            p_value,
            int(cells.won.sum()),
            int(cells.lost.sum()),
            int(cells.n.sum()),
            dict(zip(cells.seeds, (100 * per_seed).tolist(), strict=True)),
            dict(zip(cells.tasks, (100 * cells.means.mean(0)).tolist(), strict=True)),
        )

    @property
    def seeds(self) -> int:
        """Number of training seeds."""
        return len(self.per_seed)

    def text(self) -> str:
        """The figures in one line."""
        low, high = self.interval
        wins = f"{self.won} won and {self.lost} lost of {self.episodes} episodes"
        if self.seeds == 1:
            return (
                f"{self.points:+.1f} points ({low:+.1f} to {high:+.1f} over episodes), {wins}. With one training seed neither the "
                "interval nor any test covers how much another seed would differ."
            )
        p_value = f"p = {self.p_value:.3f}" if self.p_value >= 0.001 else "p < 0.001"
        return f"{self.points:+.1f} points ({low:+.1f} to {high:+.1f} over {self.seeds} training seeds), {wins}, {p_value}"


@dataclass(frozen=True)
class OutcomeCells:
    """
    Outcomes of episodes, 1, 0 or -1, counted by training seed and task.

    Attributes:
        seeds (`list[int]`), tasks (`list[str]`): Their order.
        won (`np.ndarray`), lost (`np.ndarray`), n (`np.ndarray`): int `(seeds, tasks)`: outcomes that are 1, that are -1, and all.
    """

    seeds: list[int]
    tasks: list[str]
    won: np.ndarray
    lost: np.ndarray
    n: np.ndarray

    @classmethod
    def of(cls, outcomes: pd.Series) -> "OutcomeCells":
        """
        Of values indexed by training seed, task and episode seed.

        Raises:
            ValueError: A training seed has no episode of one of the tasks.
        """
        by_cell = pd.DataFrame({"won": outcomes == 1, "lost": outcomes == -1, "n": True}).groupby(level=_EPISODE[:2])
        counts = by_cell.sum().unstack("task")
        if counts.isna().any(axis=None):
            seed, task = counts["n"].isna().stack().idxmax()
            raise ValueError(
                f"Training seed {seed} has no episode of {task!r}; every seed needs episodes of all tasks."
            )
        counts = counts.astype(int)
        arrays = (counts[name].to_numpy() for name in ("won", "lost", "n"))
        return cls(counts.index.tolist(), counts["n"].columns.tolist(), *arrays)

    @property
    def means(self) -> np.ndarray:
        """Mean outcome of each cell, `(seeds, tasks)`."""
        return (self.won - self.lost) / self.n

    @property
    def sampling_variance(self) -> float:
        """Variance of a training seed's mean over tasks that is due to its episodes, averaged over seeds."""
        variances = ((self.won + self.lost) / self.n - self.means**2) / np.maximum(self.n - 1, 1)
        return float(variances.sum(1).mean()) / len(self.tasks) ** 2

    def bootstrap(self, resamples: int, seed: int) -> tuple[float, float]:
        """
        Interval of the mean: training seeds are drawn with replacement, then in each of them the episodes of each task.

        Episodes of a cell are alike but for their outcome, so that numbers of outcomes are drawn instead of episodes.
        """
        generator = np.random.default_rng(seed)
        drawn = generator.integers(len(self.seeds), size=(resamples, len(self.seeds)))
        n = self.n[drawn]
        won = generator.binomial(n, (self.won / self.n)[drawn])
        others = self.n - self.won
        lost_of_others = np.divide(self.lost, others, out=np.zeros(self.n.shape), where=others > 0)
        lost = generator.binomial(n - won, lost_of_others[drawn])
        return _interval(((won - lost) / n).mean((1, 2)))


def success_rate(episodes: pd.DataFrame, arm: str, *, resamples: int = RESAMPLES, seed: int = 0) -> SuccessRate:
    """
    How often an arm succeeds.

    Args:
        episodes (`pd.DataFrame`): Of [`RawResults.read_episodes`].
        arm (`str`): Its name.
        resamples (`int`, *optional*, defaults to 10,000), seed (`int`, *optional*, defaults to 0): Of the bootstrap.

    Raises:
        ValueError: The arm has no episodes, one of them twice, or a training seed that lacks a task.
    """
    cells = OutcomeCells.of(_successes(episodes, arm))
    return SuccessRate(
        arm,
        float(cells.means.mean()),
        cells.bootstrap(resamples, seed),
        int(cells.n.sum()),
        dict(zip(cells.seeds, cells.means.mean(1).tolist(), strict=True)),
        dict(zip(cells.tasks, cells.means.mean(0).tolist(), strict=True)),
    )


def paired_difference(
    episodes: pd.DataFrame,
    arm: str,
    control: str,
    *,
    seeds: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """
    Compares an arm with a control on the same episodes.

    The unit is the training seed: all episodes of a seed share its policies, so that their number says nothing about how much
    the next training would differ. The test is Student's t over the differences of the training seeds. It keeps its level for
    any number of seeds from two, also where their variances differ (Ibragimov and Mueller 2010, after Bakirov and Szekely 2005). With
    about five seeds, alternatives do not: percentiles of a bootstrap over seeds are too narrow, sign flips and the wild cluster
    bootstrap have 2^5 different samples and hence no p-value below 0.06, and flipping seed x task cells takes what the tasks of a
    seed have in common for chance that averages out. A few seeds also agree by luck: a difference has therefore to be significant
    against the chance of the episodes of these seeds as well (normal distribution), the p-value is the larger of the two, and the
    interval the wider one. This cannot raise the share of false positives.

    Args:
        episodes (`pd.DataFrame`): Of [`RawResults.read_episodes`].
        arm (`str`), control (`str`): Names of what is compared.
        seeds (`Sequence[int]`, *optional*): Training seeds to compare on; default: all, which both need to have.
        resamples (`int`, *optional*, defaults to 10,000), seed (`int`, *optional*, defaults to 0): Of the bootstrap.

    Raises:
        ValueError: One of them has no episodes, an episode twice, or one that the other lacks.
    """
    cells = _paired_cells(episodes, arm, control, seeds)
    return PairedDifference.of(arm, control, cells, resamples=resamples, seed=seed)


def joint_p_value(differences: Sequence[PairedDifference]) -> float:
    """
    p-value of "the arm does not differ from all of these controls in the same direction": the largest of theirs, or 1 where the
    signs differ. No correction is needed, since all of them have to be rejected.
    """
    if len({difference.points > 0 for difference in differences}) > 1:
        return 1.0
    return float(np.max([difference.p_value for difference in differences]))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """
    Adjusts the p-values of a family (Holm 1979), whatever their dependence: those below 0.05 include a wrong one in at most 5 % of
    studies. NaN, of what could not be tested, stays NaN and does not count.
    """
    tested = sorted((name for name in p_values if not isnan(p_values[name])), key=p_values.__getitem__)
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted.get(name, nan) for name in p_values}


def reward_names(candidates: pd.DataFrame) -> list[str]:
    """Names of the rewards that candidates were scored by."""
    return [name.removeprefix(REWARD_PREFIX) for name in candidates if name.startswith(REWARD_PREFIX)]


def reward_quality(candidates: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """
    How often each reward ranks the candidate that succeeds above one of the same state that fails; equal scores count half.

    Args:
        candidates (`pd.DataFrame`): Of [`RawResults.read_candidates`]. Pairs with a score that is NaN are left out of that reward.
        resamples (`int`, *optional*, defaults to 10,000), seed (`int`, *optional*, defaults to 0):
            Of the hierarchical bootstrap over training seeds and states.

    Returns:
        `pd.DataFrame`: A row per `reward`, `by` and `group`: `"all"`; `"task"` and each task; `"stage"` and each third of the
        episode's progress; `"margin"` and each quarter of the score differences, from small to large. Its columns are `share`, `low` and
        `high` (95 % interval), `pairs` and `states`; without any pair the first three are NaN.
    """
    pairs = candidates[candidates["success"]].merge(candidates[~candidates["success"]], on=_STATE)
    states = pairs[_STATE].drop_duplicates(ignore_index=True)
    state_of_pair = pd.MultiIndex.from_frame(states).get_indexer(pd.MultiIndex.from_frame(pairs[_STATE]))
    stage = np.minimum((pairs["progress_x"].to_numpy() * len(STAGES)).astype(int), len(STAGES) - 1)
    tasks = sorted(candidates["task"].unique())
    rows: list[dict[str, Any]] = []
    won_sums, pair_sums = [], []
    for reward in reward_names(candidates):
        difference = (pairs[f"{REWARD_PREFIX}{reward}_x"] - pairs[f"{REWARD_PREFIX}{reward}_y"]).to_numpy(float)
        scored = ~np.isnan(difference)
        won = np.where(scored, (np.sign(difference) + 1) / 2, 0)
        size = np.abs(difference)
        bounds = np.quantile(size[scored], [0.25, 0.5, 0.75]) if scored.any() else np.zeros(3)
        quarter = np.searchsorted(bounds, size)
        groups = [("all", "all", scored)]
        groups += [("task", task, scored & (pairs["task_x"] == task).to_numpy()) for task in tasks]
        groups += [("stage", name, scored & (stage == number)) for number, name in enumerate(STAGES)]
        groups += [("margin", name, scored & (quarter == number)) for number, name in enumerate(MARGINS)]
        for by, group, members in groups:
            won_sums.append(np.bincount(state_of_pair, won * members, minlength=len(states)))
            pair_sums.append(np.bincount(state_of_pair, members, minlength=len(states)))
            rows.append(
                {
                    "reward": reward,
                    "by": by,
                    "group": group,
                    "pairs": int(members.sum()),
                    "states": int((pair_sums[-1] > 0).sum()),
                }
            )
    if not rows or states.empty:
        return pd.DataFrame(columns=["reward", "by", "group", "share", "low", "high", "pairs", "states"])
    sums = np.array([*won_sums, *pair_sums]).T
    totals = _resampled_sums(sums, states["training_seed"].to_numpy(), resamples, seed)
    shares = _ratio(*np.split(totals, 2, axis=1))
    found = _ratio(*np.split(sums.sum(0), 2))
    table = pd.DataFrame(rows)
    table["share"] = found
    intervals = [
        _interval(column[~np.isnan(column)]) if (~np.isnan(column)).any() else (nan, nan) for column in shares.T
    ]
    table["low"], table["high"] = zip(*intervals, strict=True)
    return table[["reward", "by", "group", "share", "low", "high", "pairs", "states"]]


def reward_agreement(candidates: pd.DataFrame) -> pd.DataFrame:
    """
    How far each two rewards order the candidates of a state alike.

    Args:
        candidates (`pd.DataFrame`): Of [`RawResults.read_candidates`]. States where one of the two has a NaN are left out.

    Returns:
        `pd.DataFrame`: A row per `first` and `second` reward: `tau`, Kendall's tau-b averaged over states at which both tell candidates
        apart; `same_best` and `same_worst`, the shares of states where both have the same best and the same worst candidate if ties are
        broken at random; `chance`, what these shares are for two random orders; `states`.
    """
    ordered = candidates.sort_values([*_STATE, "candidate"])
    sizes = ordered.groupby(_STATE)["candidate"].transform("size")
    rows = []
    for first, second in combinations(reward_names(candidates), 2):
        tau, best, worst, chance = [], [], [], []
        for size, members in ordered.groupby(sizes):
            scores = members[[REWARD_PREFIX + first, REWARD_PREFIX + second]].to_numpy(float).reshape(-1, size, 2)
            one, other = np.moveaxis(scores[~np.isnan(scores).any((1, 2))], 2, 0)
            left, right = np.triu_indices(size, 1)
            tau.append(kendall_tau(np.sign(one[:, left] - one[:, right]), np.sign(other[:, left] - other[:, right])))
            best.append(_same_extreme(one, other))
            worst.append(_same_extreme(-one, -other))
            chance.append(np.full(len(one), 1 / size))
        columns = {"tau": tau, "same_best": best, "same_worst": worst, "chance": chance}
        joined = pd.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()})
        rows.append({"first": first, "second": second, **joined.mean(), "states": len(joined)})
    return pd.DataFrame(rows, columns=["first", "second", "tau", "same_best", "same_worst", "chance", "states"])


def candidate_choice(candidates: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """
    How often the candidate succeeds that a rule chooses among those of a state; ties are broken at random.

    Args:
        candidates (`pd.DataFrame`): Of [`RawResults.read_candidates`], equally many and at least three for each state. Rewards with a NaN
            are left out.
        resamples (`int`, *optional*, defaults to 10,000), seed (`int`, *optional*, defaults to 0):
            Of the hierarchical bootstrap over training seeds and states.

    Returns:
        `pd.DataFrame`: A row per `rule`: `"any"`; `"best by R"` and `"worst by R"` for each reward R; `"not the two worst by R, then
        best by S"` for each two; `"one that succeeds"`, if there is one. Its columns are `share`, and `low` and `high` (95 % interval) of the
        difference to `"any"`, named `points`, in percentage points.
    """
    if candidates.empty:
        return pd.DataFrame(columns=["rule", "share", "points", "low", "high"])
    ordered = candidates.sort_values([*_STATE, "candidate"])
    size = ordered["candidate"].nunique()
    success = ordered["success"].to_numpy(float).reshape(-1, size)
    complete = ordered.dropna(axis="columns")
    scores = {
        name: complete[REWARD_PREFIX + name].to_numpy(float).reshape(-1, size) for name in reward_names(complete)
    }
    chosen = {"any": success.mean(1)}
    for name, values in scores.items():
        chosen[f"best by {name}"] = _success_of_best(success, values)
        chosen[f"worst by {name}"] = _success_of_best(success, -values)
    for first, second in permutations(scores, 2):
        # Ranks of the first, so that exactly two are left out.
        kept = scores[first].argsort(1, kind="stable").argsort(1) >= 2
        rule = f"not the two worst by {first}, then best by {second}"
        chosen[rule] = _success_of_best(success, np.where(kept, scores[second], -inf))
    chosen["one that succeeds"] = success.max(1)
    sums = np.array(list(chosen.values())).T
    seeds = ordered["training_seed"].to_numpy()[::size]
    totals = _resampled_sums(np.column_stack([sums, np.ones(len(sums))]), seeds, resamples, seed)
    shares = totals[:, :-1] / totals[:, -1:]
    intervals = [_percent(_interval(column)) for column in (shares - shares[:, :1]).T]
    found = sums.mean(0)
    return pd.DataFrame(
        {
            "rule": list(chosen),
            "share": found,
            "points": 100 * (found - found[0]),
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
        }
    )


def success_predictors(
    episodes: pd.DataFrame,
    curves: Mapping[tuple[int, str], Mapping[str, Sequence[Sequence[float]]]],
    control: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """
    Which logged number predicts what an arm gains: Spearman's correlation of its last value with the difference to a control.

    Runs of an arm on several training seeds are no independent evidence about a metric, hence the test permutes the arms' means.

    Args:
        episodes (`pd.DataFrame`): Of [`RawResults.read_episodes`].
        curves (`Mapping`): Of [`RawResults.read_curves`]. Runs without episodes, here or of the control, are left out.
        control (`str`): Arm that differences are taken to.
        resamples (`int`, *optional*, defaults to 10,000), seed (`int`, *optional*, defaults to 0): Of the permutations.

    Returns:
        `pd.DataFrame`: A row per `metric`, the strongest first: `correlation` over `runs`; `arm_correlation`, that of the means of
        `arms`, with `p_value` and its [`holm`] adjustment `adjusted`. Metrics that are constant or that fewer than three arms log
        are left out.
    """
    measured = {arm: set(rows["training_seed"]) for arm, rows in episodes.groupby("arm")}
    points: dict[tuple[int, str], float] = {}
    for arm in sorted({arm for _, arm in curves} & measured.keys() - {control}):
        if seeds := sorted(measured[arm] & measured.get(control, set())):
            cells = _paired_cells(episodes, arm, control, seeds)
            points |= {(each, arm): mean for each, mean in zip(cells.seeds, cells.means.mean(1), strict=True)}
    logged = [
        {"metric": metric, "arm": run[1], "value": values[-1][1], "points": points[run]}
        for run, metrics in curves.items()
        if run in points
        for metric, values in metrics.items()
        if values
    ]
    rows = []
    generator = np.random.default_rng(seed)
    for metric, runs in pd.DataFrame(logged, columns=["metric", "arm", "value", "points"]).groupby("metric"):
        means = runs.groupby("arm")[["value", "points"]].mean()
        if len(means) < 3 or means["value"].nunique() == 1 or means["points"].nunique() == 1:
            continue
        value, gain = ((ranks - ranks.mean()) / ranks.std(ddof=0) for _, ranks in means.rank().items())
        correlation = (value * gain).mean()
        permuted = generator.permuted(np.tile(gain.to_numpy(), (resamples, 1)), axis=1) @ value.to_numpy() / len(means)
        as_extreme = (np.abs(permuted) >= abs(correlation) - 1e-9).sum()
        rows.append(
            {
                "metric": metric,
                "correlation": runs["value"].rank().corr(runs["points"].rank()),
                "runs": len(runs),
                "arm_correlation": correlation,
                "arms": len(means),
                "p_value": (as_extreme + 1) / (resamples + 1),
            }
        )
    table = pd.DataFrame(rows, columns=["metric", "correlation", "runs", "arm_correlation", "arms", "p_value"])
    table["adjusted"] = list(holm(dict(zip(table["metric"], table["p_value"], strict=True))).values())
    return table.sort_values("arm_correlation", key=np.abs, ascending=False, ignore_index=True)


def _successes(episodes: pd.DataFrame, arm: str) -> pd.Series:
    found = episodes[episodes["arm"] == arm].set_index(_EPISODE)["success"]
    if found.empty:
        raise ValueError(f"There are no episodes of {arm!r}; there are some of {sorted(episodes['arm'].unique())}.")
    if found.index.has_duplicates:
        raise ValueError(f"{arm!r} has {_episode_text(found.index[found.index.duplicated()][:1])} more than once.")
    return found.astype(int)


def _paired_cells(episodes: pd.DataFrame, arm: str, control: str, seeds: Sequence[int] | None) -> OutcomeCells:
    if seeds is not None:
        episodes = episodes[episodes["training_seed"].isin(seeds)]
    one, other = _successes(episodes, arm), _successes(episodes, control)
    # Both have the same order as a rule.
    for name, unpaired in (
        ()
        if one.index.equals(other.index)
        else ((arm, other.index.difference(one.index)), (control, one.index.difference(other.index)))
    ):
        if len(unpaired):
            raise ValueError(
                f"{arm!r} and {control!r} are compared on the same episodes, but {name!r} lacks {len(unpaired)} of them: "
                f"{_episode_text(unpaired[:3])}. Run them, or compare on the training seeds that both have."
            )
    return OutcomeCells.of(one - other)


def _episode_text(index: pd.MultiIndex) -> str:
    return ", ".join(f"training seed {seed} {task} episode seed {episode}" for seed, task, episode in index)


def _resampled_sums(sums: np.ndarray, seeds: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """
    Sums over states `(states, columns)` in resamples `(resamples, columns)`: training seeds are drawn with replacement, then in each
    of them as many states as it has.
    """
    generator = np.random.default_rng(seed)
    different = np.unique(seeds)
    drawn = generator.integers(len(different), size=(resamples, len(different)))
    totals = np.zeros((resamples, sums.shape[1]))
    for number, each in enumerate(different):
        own = sums[seeds == each]
        resample, _ = np.nonzero(drawn == number)
        # How often each state is drawn: those of a draw are counted in bins of its own.
        states = generator.integers(len(own), size=(len(resample), len(own)))
        states += len(own) * np.arange(len(resample))[:, None]
        times = np.bincount(states.ravel(), minlength=states.size).reshape(states.shape)
        np.add.at(totals, resample, times.astype(float) @ own)
    return totals


def _ratio(won: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.divide(won, pairs, out=np.full(won.shape, nan), where=pairs > 0)


def _same_extreme(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Probability that both have the same maximum along the last axis, `(B,)`, if each breaks its ties at random."""
    first, second = (scores == scores.max(1, keepdims=True) for scores in (one, other))
    return (first & second).sum(1) / (first.sum(1) * second.sum(1))


def _success_of_best(success: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Success of the candidate with the highest score, `(B,)`, averaged over those that tie."""
    best = scores == scores.max(1, keepdims=True)
    return (success * best).sum(1) / best.sum(1)


def _tail(points: float, error: float) -> float:
    """How many standard errors a difference is from zero, as a negative number."""
    if error == 0:
        return 0.0 if points == 0 else -inf
    return -abs(points) / error


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _percent(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    return 100 * float(low), 100 * float(high)


__all__ = [
    "MARGINS",
    "STAGES",
    "OutcomeCells",
    "PairedDifference",
    "SuccessRate",
    "candidate_choice",
    "holm",
    "joint_p_value",
    "paired_difference",
    "reward_agreement",
    "reward_names",
    "reward_quality",
    "success_predictors",
    "success_rate",
]
