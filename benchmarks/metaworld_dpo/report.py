# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Writes the tables and plots of docs/evidence.md from the raw results of the preference-tuning study.

    python benchmarks/metaworld_dpo/report.py
    python benchmarks/metaworld_dpo/report.py --check

Replaces what stands between `<!-- table: NAME -->` and `<!-- end -->`, and the files `assets/evidence-*.png` beside the page. With
`--check` nothing is written, and the exit status is 1 if a table on the page is not the one that the raw results give.
"""

import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd

import plots
from analysis import (
    MARGINS,
    STAGES,
    PairedDifference,
    SuccessRate,
    candidate_choice,
    holm,
    joint_p_value,
    paired_difference,
    reward_agreement,
    reward_quality,
    success_predictors,
    success_rate,
)
from nora15_hf.cards.wilson_interval import wilson_interval
from nora15_hf.repo_files.settings import flat_settings
from nora15_hf.repo_files.written_whole import written_whole
from raw_results import RESULTS, RawResults
from study import (
    CONTROLS,
    DEMONSTRATIONS,
    EXPLORATORY_ARMS,
    FINAL,
    LATER,
    LONGER,
    LONGER_CONTROLS,
    PRIMARY_ARMS,
    STUDIES,
    VARIANTS,
    WIDE,
)

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
TARGET_POINTS = 5.0
"""By which the best DPO arm is to beat each control; a world-model arm replaces the distance if it loses less than this."""

DEMONSTRATION_DISTANCE = "dpo-ground-truth"
WORLD_MODEL_ARMS = (
    "dpo-end-goal",
    "dpo-subgoal",
    "dpo-paper",
    "dpo-paper-subgoal",
    "dpo-equal-say",
    "dpo-equal-say-subgoal",
)
SECONDARY = (
    ("supervised-cold", "dpo-ground-truth"),
    ("continued-sft-cold", "supervised-cold"),
    ("dpo-ground-truth-cold", "supervised-cold"),
    ("dpo-ground-truth-cold", "continued-sft-cold"),
    ("dpo-equal-say-cold", "continued-sft-cold"),
    ("supervised-fast", "supervised-cold"),
    ("dpo-success-cold", "supervised-cold"),
    ("dpo-ground-truth-reached", "dpo-ground-truth"),
    ("dpo-ground-truth-reached", "continued-sft-reached"),
    ("reward-weighted", "dpo-ground-truth"),
    ("dpo-success", "dpo-ground-truth-rollouts"),
    ("dpo-rounds-3", "dpo-ground-truth-reached"),
    ("dpo-rounds-3", "dpo-ground-truth"),
    ("dpo-rounds-3", "continued-sft-3x"),
    ("dpo-rounds-3-cold", "supervised-cold"),
)
"""Questions of their own: an arm and what it is compared with."""

SAMPLE_FIGURES = ("samples/spread", "samples/error")
"""Measured after training at demonstrated states, see `sample_figures` in `train_arm.py`."""

NOTHING_YET = "No results yet."
AGAIN = "again"
_TRAINING_COLUMNS = ("steps", "batch_size", "learning_rate", "beta", "sft_weight", "rounds")
_OF_DPO = {"beta", "sft_weight", "standardize", "rounds"}
_OF_TRAINING = {"learning_rate", "steps", "batch_size", "states"} | _OF_DPO
_WITHOUT_EFFECT = {"supervised": _OF_TRAINING, "continued_sft": _OF_DPO, "reward_weighted": _OF_DPO, "dpo": set()}
"""Settings of an arm that do not move its numbers."""
_BLOCK = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n\n)(?P<body>.*?)(\n\n<!-- end -->)", re.DOTALL)


class Report:
    """
    The tables and plots of a study.

    Args:
        results ([`RawResults`]): What was measured, complete or not.
        study (`str`): Its name. The settings map is that of the pilot in any case.
    """

    def __init__(self, results: RawResults, study: str):
        self.results = results
        self.study = study
        self.difference = cache(self._difference)

    @cached_property
    def episodes(self) -> pd.DataFrame:
        return self.results.read_episodes(self.study)

    @cached_property
    def candidates(self) -> pd.DataFrame:
        return self.results.read_candidates(self.study)

    @cached_property
    def later(self) -> "Report | None":
        """The arms of this study that ran later, and what they are compared with."""
        return Report(self.results, LATER.name) if self.study == FINAL.name else None

    @cached_property
    def own_seeds(self) -> dict[str, set[int]]:
        """Arm to the training seeds that it was evaluated on, without [`Report.later`]."""
        return {arm: set(rows["training_seed"]) for arm, rows in self.episodes.groupby("arm")}

    @cached_property
    def seeds(self) -> dict[str, set[int]]:
        """Arm to the training seeds that it was evaluated on."""
        return (self.later.seeds if self.later else {}) | self.own_seeds

    def home(self, arm: str) -> "Report":
        """Where an arm was evaluated: here, unless it was only later."""
        return self.later if self.later and arm not in self.own_seeds else self

    def label(self, arm: str) -> str:
        """Its name, and where it was evaluated unless that was here."""
        return arm if self.home(arm) is self else f"{arm} ({LATER.name})"

    @cached_property
    def arms(self) -> list[str]:
        """Those with results, in the order of the plan."""
        planned = dict.fromkeys([*CONTROLS, *STUDIES[self.study].arms])
        return [arm for arm in (*planned, *sorted(self.seeds.keys() - planned.keys())) if arm in self.seeds]

    @cached_property
    def tuned(self) -> list[str]:
        """Those that are compared with both controls."""
        return [arm for arm in self.arms if arm not in CONTROLS]

    @cached_property
    def success(self) -> dict[str, SuccessRate]:
        return {arm: success_rate(self.home(arm).episodes, arm) for arm in self.arms}

    @cached_property
    def quality(self) -> pd.DataFrame:
        return reward_quality(self.candidates)

    def _difference(self, arm: str, control: str) -> PairedDifference | None:
        """On the training seeds that both have in the same study; `None` where there is none."""
        if common := self.own_seeds.get(arm, set()) & self.own_seeds.get(control, set()):
            return paired_difference(self.episodes, arm, control, seeds=sorted(common))
        return self.later.difference(arm, control) if self.later else None

    def differences(self, pairs: Iterable[tuple[str, str]]) -> list[PairedDifference]:
        """Those that can be told."""
        return [difference for pair in pairs if (difference := self.difference(*pair)) is not None]

    def joint_p_values(self, controls: Callable[[str], Sequence[str]]) -> dict[str, float]:
        """Of each primary arm against its controls, adjusted for the number of those that were planned (Holm)."""
        against = {arm: self.differences((arm, control) for control in controls(arm)) for arm in PRIMARY_ARMS}
        measured = {arm: joint_p_value(found) for arm, found in against.items() if len(found) == len(controls(arm))}
        adjusted = holm(dict.fromkeys(PRIMARY_ARMS, 1.0) | measured)
        return {arm: adjusted[arm] for arm in measured}

    def runs(self) -> str:
        """What is there and what of the plan is missing."""
        plan = STUDIES[self.study]
        planned = {arm: set(plan.seeds) for arm in dict.fromkeys([*CONTROLS, *plan.arms])}
        missing: dict[tuple[int, ...], list[str]] = {}
        for arm, seeds in planned.items():
            missing.setdefault(tuple(sorted(seeds - self.seeds.get(arm, set()))), []).append(arm)
        total = sum(map(len, planned.values()))
        there = total - sum(len(seeds) * len(arms) for seeds, arms in missing.items())
        episodes = sum(rate.episodes for rate in self.success.values())
        lines = [
            f"Finished: {there} of {total} planned runs ({len(planned)} arms on {len(plan.seeds)} training seeds) with "
            f"{episodes:,} evaluation episodes. {len(self.candidates):,} candidates were rolled out in the simulator."
        ]
        if later := [arm for arm in self.arms if self.home(arm) is not self]:
            lines.append(
                "Measured later on another processor, and compared with controls that were measured there too (study "
                f"`{LATER.name}`): {', '.join(later)}."
            )
        for seeds, arms in missing.items():
            if seeds:
                where = "all seeds" if len(seeds) == len(plan.seeds) else f"seeds {', '.join(map(str, seeds))}"
                lines.append(f"Missing on {where}: {', '.join(arms)}.")
        return "\n\n".join(lines)

    def success_table(self) -> str:
        """Each arm by itself."""
        return _table(
            ("arm", "training seeds", "episodes", "success", "bootstrap interval", "by training seed"),
            [
                (
                    self.label(arm),
                    f"{len(rate.per_seed)}",
                    f"{rate.episodes:,}",
                    f"{rate.rate:.1%}",
                    f"{rate.interval[0]:.1%} to {rate.interval[1]:.1%}",
                    ", ".join(f"{each:.1%}" for each in rate.per_seed.values()),
                )
                for arm, rate in self.success.items()
            ],
        )

    def difference_table(self) -> str:
        """Each arm against both controls."""
        return _difference_table(self.differences((arm, control) for arm in self.tuned for control in CONTROLS))

    def target_table(self) -> str:
        """Whether a DPO arm beats its controls, and by enough."""
        columns = (*CONTROLS, *LONGER_CONTROLS.values())
        planned, joint = self.joint_p_values(lambda arm: CONTROLS), self.joint_p_values(_controls)
        rows = []
        for arm in joint:
            against = {each.control: each for each in self.differences((arm, control) for control in _controls(arm))}
            points = min(each.points for each in against.values())
            cells = (_points(against[control]) if control in against else "" for control in columns)
            verdict = _target_verdict(list(against.values()))
            rows.append((points, (arm, *cells, _p(planned[arm]), _p(joint[arm]), verdict)))
        rows.sort(key=lambda row: -row[0])
        header = (
            "arm",
            *(f"against {control}" for control in columns),
            "p, planned controls (Holm)",
            "p, all (Holm)",
            "target",
        )
        return _table(header, [row for _, row in rows])

    def task_table(self) -> str:
        """Success of each arm in each task."""
        tasks = sorted(self.episodes["task"].unique())
        rows = [
            (self.label(arm), *(f"{rate.per_task[task]:.0%}" for task in tasks)) for arm, rate in self.success.items()
        ]
        return _table(("arm", *tasks), rows)

    def samples_table(self) -> str:
        """How far the samples of each arm's policy differ from each other and from the demonstration, beside its success."""
        curves = {report: report.results.read_curves(report.study) for report in set(map(self.home, self.arms))}
        rows = []
        for arm, rate in self.success.items():
            of_study = curves[self.home(arm)].items()
            own = [curve for (_, name), curve in of_study if name == arm and SAMPLE_FIGURES[0] in curve]
            if own:
                means = (np.mean([curve[figure][-1][1] for curve in own]) for figure in SAMPLE_FIGURES)
                rows.append((self.label(arm), *(f"{mean:.3f}" for mean in means), f"{rate.rate:.1%}"))
        return _table(("arm", *(f"`{name}`" for name in SAMPLE_FIGURES), "success"), rows)

    def world_model_table(self) -> str:
        """Arms with a world model against the distance to the demonstration."""
        differences = self.differences((arm, DEMONSTRATION_DISTANCE) for arm in WORLD_MODEL_ARMS)
        return _difference_table(differences, _world_model_verdict)

    def secondary_table(self) -> str:
        """The questions of [`SECONDARY`]."""
        return _difference_table(self.differences(SECONDARY))

    def repeats_table(self) -> str:
        """How the arms came out that were trained and evaluated again in [`Report.later`]."""
        rows = []
        for arm in self.arms:
            if self.later is None or not (arm in self.own_seeds and arm in self.later.seeds):
                continue
            again = self.later.episodes.query("arm == @arm").assign(arm=AGAIN)
            seeds = sorted(self.own_seeds[arm] & self.later.seeds[arm])
            found = paired_difference(pd.concat([self.episodes, again]), AGAIN, arm, seeds=seeds)
            alike = 1 - (found.won + found.lost) / found.episodes
            rates = (f"{report.success[arm].rate:.1%}" for report in (self, self.later))
            by_seed = ", ".join(f"{points:+.1f}" for points in found.per_seed.values())
            rows.append((arm, f"{found.seeds}", *rates, _points(found), by_seed, f"{alike:.1%}"))
        header = (
            "arm",
            "training seeds",
            "success",
            "again",
            "difference, points",
            "by training seed",
            "same outcome",
        )
        return _table(header, rows)

    def longer_table(self) -> str:
        """Supervised training as long as both trainings of the tuned arms together, against these."""
        longer = self.results.read_episodes(LONGER.name)
        longer["arm"] += f", {LONGER.base.sft_steps} steps"
        episodes = pd.concat([self.episodes, longer])
        differences = [
            paired_difference(episodes, arm, control, seeds=sorted(set(rows["training_seed"])))
            for arm, rows in longer.groupby("arm")
            for control in (
                "supervised",
                "continued-sft",
                "dpo-ground-truth",
                "supervised-cold",
                "dpo-ground-truth-cold",
            )
            if control in self.own_seeds
        ]
        return _difference_table(differences)

    def quality_table(self) -> str:
        """How often each reward prefers the candidate that succeeds."""
        rows = [
            (row.reward, _share(row), f"{row.low:.1%} to {row.high:.1%}", f"{row.pairs:,}", f"{row.states:,}")
            for row in self.quality.itertuples()
            if row.by == "all"
        ]
        return _table(("reward", "prefers the candidate that succeeds", "95 % interval", "pairs", "states"), rows)

    def choice_table(self) -> str:
        """How often the candidate succeeds that a reward chooses."""
        rows = [
            (
                row.rule,
                f"{row.share:.1%}",
                "" if row.rule == "any" else f"{row.points:+.1f} ({row.low:+.1f} to {row.high:+.1f})",
            )
            for row in candidate_choice(self.candidates).itertuples()
        ]
        return _table(("candidate", "success", "against any, points"), rows)

    def demonstrations_table(self) -> str:
        """Success, and what DPO gains on both controls, by the number of demonstrations."""
        rows = []
        for study in sorted((*DEMONSTRATIONS, FINAL), key=lambda study: study.base.demonstrations):
            report = self if study.name == self.study else Report(self.results, study.name)
            both = report.differences((DEMONSTRATION_DISTANCE, control) for control in CONTROLS)
            cold = report.differences(
                [("supervised-cold", "supervised"), ("dpo-ground-truth-cold", "supervised-cold")]
            )
            if len(both) + len(cold) == 4:
                rates = [f"{report.success[arm].rate:.1%}" for arm in (*CONTROLS, DEMONSTRATION_DISTANCE)]
                cells = (f"{study.base.demonstrations}", f"{both[0].seeds}", *rates, *map(_points, (*both, *cold)))
                rows.append(cells)
        header = (
            "demonstrations per task",
            "training seeds",
            *CONTROLS,
            DEMONSTRATION_DISTANCE,
            *(f"{DEMONSTRATION_DISTANCE} against {control}" for control in CONTROLS),
            "supervised-cold against supervised",
            "dpo-ground-truth-cold against supervised-cold",
        )
        return _table(header, rows)

    def goal_table(self) -> str:
        """How often demonstrations approach the end goal, beside what DPO by the distance to it does to each task."""
        goals = self.results.read_goals(self.study)
        if goals.empty:
            return NOTHING_YET
        third = np.minimum((goals["progress"] * len(STAGES)).astype(int), len(STAGES) - 1)
        shares = goals.groupby("task")["nears_goal"].mean()
        by_stage = goals.groupby(["task", third])["nears_goal"].mean().unstack()
        against = [(arm, CONTROLS[0]) for arm in ("dpo-end-goal", "dpo-subgoal", DEMONSTRATION_DISTANCE)]
        points = {each.arm: each.per_task for each in self.differences(against)}
        rows = [
            (
                task,
                f"{share:.0%}",
                *(f"{value:.0%}" for value in by_stage.loc[task]),
                *(f"{per_task[task]:+.1f}" for per_task in points.values()),
            )
            for task, share in shares.sort_values().items()
        ]
        return _table(("task", "all chunks", *STAGES, *(f"{arm}, points" for arm in points)), rows)

    @cached_property
    def variants(self) -> pd.DataFrame:
        """[`Report.quality`] of rewards by other world models, and by other ways to score what they imagine."""
        return reward_quality(self.results.read_candidates(VARIANTS))

    def variant_margins_table(self) -> str:
        """By margin, of the ensembles and of the study's own world model: a large margin of an ensemble is one that its members share."""
        same_ways = {name.split("/")[1] for name in self.variants["reward"] if name.startswith("ensemble/")}
        shown = [f"{model}/{way}" for way in sorted(same_ways) for model in ("steps1", "ensemble")]
        return _quality_by(self.variants[self.variants["reward"].isin(shown)], "margin", MARGINS)

    def variants_table(self) -> str:
        """How often each variant prefers the candidate that succeeds; world models are columns, ways to score are rows."""
        rows = self.variants.itertuples()
        cells = {row.reward: _share_with_interval(row) for row in rows if row.by == "all"}
        names = [name.split("/") for name in cells if "/" in name]
        models, ways = (list(dict.fromkeys(column)) for column in zip(*names, strict=True)) if names else ([], [])
        rows = [(way, *(cells.get(f"{model}/{way}", "") for model in models)) for way in ways]
        return _table(("score", *models), rows)

    def agreement_table(self) -> str:
        """How far each two rewards order candidates alike."""
        rows = [
            (
                f"{row.first}, {row.second}",
                "-" if isnan(row.tau) else f"{row.tau:.2f}",
                f"{row.same_best:.0%}",
                f"{row.same_worst:.0%}",
                f"{row.chance:.0%}",
                f"{row.states:,}",
            )
            for row in reward_agreement(self.candidates).itertuples()
        ]
        return _table(("rewards", "Kendall's tau", "same best", "same worst", "chance", "states"), rows)

    @cached_property
    def settings_map(self) -> pd.DataFrame:
        """The pilot's arms: kind, learning rate, beta and what else differs between them, and `success` in [0, 1]."""
        settings = {
            arm: {
                name: value for name, value in flat_settings(own).items() if name not in _WITHOUT_EFFECT[own["kind"]]
            }
            for arm, own in self.results.arm_settings("pilot").items()
        }
        if not settings:
            return pd.DataFrame()
        table = pd.DataFrame.from_dict(settings, orient="index")
        always = ("kind", "learning_rate", "beta")
        table = table[[name for name in table if name in always or table[name].dropna().map(repr).nunique() > 1]]
        outcomes = self.results.read_episodes("pilot").groupby("arm")["success"]
        return table.assign(success=outcomes.mean(), episodes=outcomes.size())

    @property
    def mapped(self) -> pd.DataFrame:
        """Those that were tuned by DPO."""
        found = self.settings_map
        return found if found.empty else found[found["kind"] == "dpo"].drop(columns=["kind", "episodes"])

    def settings_table(self) -> str:
        """Success of the pilot's arms, the best first."""
        found = self.settings_map
        if found.empty:
            return NOTHING_YET
        ordered = found.sort_values("success", ascending=False, kind="stable")
        names = [name for name in found if name not in ("success", "episodes")]
        rows = []
        for arm, row in ordered.iterrows():
            low, high = wilson_interval(round(row["success"] * row["episodes"]), row["episodes"])
            cells = (_setting(row[name]) for name in names)
            rows.append((arm, *cells, f"{row['success']:.1%}", f"{low:.1%} to {high:.1%}"))
        return _table(("arm", *names, "success", "95 % interval"), rows)

    def arm_table(self) -> str:
        """The settings of each arm."""
        own = self.results.arm_settings(self.study)
        settings = (self.later.results.arm_settings(LATER.name) if self.later else {}) | own
        names = ("kind", "states", "rewards", "standardize", *_TRAINING_COLUMNS, "temperature")
        rows = []
        for arm in self.arms:
            shown = {name: _setting(value) for name, value in settings[arm].items()}
            without = _WITHOUT_EFFECT[settings[arm]["kind"]]
            shown["rewards"] = ", ".join(f"{weight:g} {name}" for name, weight in settings[arm]["rewards"].items())
            rows.append((f"`{arm}`", *("" if name in without else shown.get(name, "") for name in names)))
        return _table(("arm", *names), rows)

    def predictor_table(self) -> str:
        """Which logged number predicts success, among arms that are evaluated as the control is."""
        if CONTROLS[0] not in self.own_seeds:
            return NOTHING_YET
        settings = self.results.arm_settings(self.study)
        alike = {arm for arm, own in settings.items() if own["temperature"] == settings[CONTROLS[0]]["temperature"]}
        curves = {run: curve for run, curve in self.results.read_curves(self.study).items() if run[1] in alike}
        found = success_predictors(self.episodes, curves, CONTROLS[0])
        rows = [
            (
                f"`{row.metric}`",
                f"{row.correlation:+.2f} ({row.runs})",
                f"{row.arm_correlation:+.2f} ({row.arms})",
                _p(row.p_value),
                _p(row.adjusted),
            )
            for row in found.itertuples()
        ]
        return _table(("last value of", "over runs", "over means of arms", "p", "p (Holm)"), rows)

    def shared_settings(self) -> str:
        """What all runs of the study have in common."""
        rows = [
            (f"`{name}`", _setting(value)) for name, value in flat_settings(self.results.settings(self.study)).items()
        ]
        return _table(("setting", "value"), rows)

    def tables(self) -> dict[str, Callable[[], str]]:
        """Name of each block of the page to what writes it."""
        wide = Report(self.results, WIDE.name)
        return {
            "runs": self.runs,
            "success": self.success_table,
            "differences": self.difference_table,
            "target": self.target_table,
            "tasks": self.task_table,
            "samples": self.samples_table,
            "world-model": self.world_model_table,
            "goals": self.goal_table,
            "secondary": self.secondary_table,
            "repeats": self.repeats_table,
            "longer": self.longer_table,
            "demonstrations": self.demonstrations_table,
            "reward-quality": self.quality_table,
            "reward-quality-tasks": lambda: _quality_by(self.quality, "task"),
            "reward-quality-stages": lambda: _quality_by(self.quality, "stage", STAGES),
            "reward-quality-margins": lambda: _quality_by(self.quality, "margin", MARGINS),
            "reward-choice": self.choice_table,
            "reward-variants": self.variants_table,
            "reward-variants-margins": self.variant_margins_table,
            "wide-quality": wide.quality_table,
            "wide-choice": wide.choice_table,
            "wide-differences": wide.difference_table,
            "reward-agreement": self.agreement_table,
            "settings-map": self.settings_table,
            "what-to-watch": self.predictor_table,
            "settings": self.shared_settings,
            "arm-settings": self.arm_table,
            **{f"plot-{name}": lambda name=name: self._link(name) for name in PLOTS},
        }

    def has(self, plot: str) -> bool:
        """Whether there are results to draw."""
        if plot == "differences":
            return bool(self.differences((arm, control) for arm in self.tuned for control in CONTROLS))
        if plot == "reward-quality":
            return not self.quality.empty
        return not (self.mapped if plot == "settings-map" else self.episodes).empty

    def _link(self, plot: str) -> str:
        return f"![{PLOTS[plot]}](assets/{_plot_file(plot)})" if self.has(plot) else NOTHING_YET

    def draw(self, folder: Path) -> None:
        """Writes the plots that there are results for."""
        figures = {
            "differences": lambda: plots.forest(
                {control: self.differences((arm, control) for arm in self.tuned) for control in CONTROLS},
                TARGET_POINTS,
            ),
            "tasks": lambda: plots.success_per_task({self.label(arm): rate for arm, rate in self.success.items()}),
            "reward-quality": lambda: plots.reward_quality(self.quality, {"stage": STAGES, "margin": MARGINS}),
            "settings-map": lambda: plots.settings_map(self.mapped),
        }
        for name, figure in figures.items():
            if self.has(name):
                with written_whole(folder / _plot_file(name)) as part:
                    figure().savefig(part, format="png", dpi=110, metadata={"Software": None})


PLOTS = {
    "differences": "Difference in success between each arm and both controls, with 95 % intervals",
    "tasks": "Success of each arm in each task",
    "reward-quality": "How often each reward prefers the candidate that succeeds, by stage of the episode and by margin",
    "settings-map": "Success over learning rate and beta",
}
"""Name of each plot to what it shows."""


def _plot_file(plot: str) -> str:
    return f"evidence-{plot}.png"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return NOTHING_YET
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _quality_by(quality: pd.DataFrame, by: str, groups: Sequence[str] | None = None) -> str:
    """How often each reward prefers the candidate that succeeds within groups, a column each."""
    of_kind = quality[quality["by"] == by]
    groups = list(groups or dict.fromkeys(of_kind["group"]))
    rows = []
    for reward, own in of_kind.groupby("reward", sort=False):
        cells = {row.group: _share_with_interval(row) for row in own.itertuples()}
        rows.append((reward, *(cells[group] for group in groups)))
    return _table(("reward", *groups), rows)


def _difference_table(
    differences: Sequence[PairedDifference], verdict: Callable[[PairedDifference], str] | None = None
) -> str:
    """One row per difference, with the p-values adjusted for as many planned arms as share a control."""
    adjusted = {}
    planned = [each for each in differences if each.arm not in EXPLORATORY_ARMS]
    for control in dict.fromkeys(each.control for each in planned):
        family = {(each.arm, control): each.p_value for each in planned if each.control == control}
        adjusted |= holm(family)
    header = [
        "arm",
        "against",
        "points",
        "95 % interval",
        "bootstrap",
        "won : lost",
        "by training seed",
        "p",
        "p (Holm)",
    ]
    rows = []
    for each in differences:
        rows.append(
            [
                each.arm,
                each.control,
                f"{each.points:+.1f}",
                _range(each.interval) if each.seeds > 1 else "one training seed",
                _range(each.bootstrap_interval),
                f"{each.won} : {each.lost}",
                ", ".join(f"{points:+.1f}" for points in each.per_seed.values()),
                _p(each.p_value),
                _p(adjusted.get((each.arm, each.control), nan)),
            ]
        )
        if verdict is not None:
            rows[-1].append(verdict(each))
    return _table(header + (["world model"] if verdict is not None else []), rows)


def _controls(arm: str) -> tuple[str, ...]:
    """What an arm has to beat."""
    return (*CONTROLS, *([LONGER_CONTROLS[arm]] if arm in LONGER_CONTROLS else []))


def _target_verdict(against: Sequence[PairedDifference]) -> str:
    if min(each.seeds for each in against) == 1:
        return "one training seed"
    if min(each.interval[0] for each in against) > 0:
        return "met" if min(each.points for each in against) >= TARGET_POINTS else "missed, but better than all"
    return "worse than all" if max(each.interval[1] for each in against) < 0 else "missed"


def _world_model_verdict(difference: PairedDifference) -> str:
    low, high = difference.interval
    if difference.seeds == 1:
        return "one training seed"
    if low > 0:
        return "adds"
    if high < 0:
        return "costs, but can replace" if low > -TARGET_POINTS else "costs"
    return "can replace" if low > -TARGET_POINTS else "open"


def _points(difference: PairedDifference) -> str:
    return f"{difference.points:+.1f} ({_range(difference.interval)})"


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def _p(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _share(row) -> str:
    return "-" if isnan(row.share) else f"{row.share:.1%}"


def _share_with_interval(row) -> str:
    return "-" if isnan(row.share) else f"{row.share:.0%} ({row.low:.0%} to {row.high:.0%}; {row.pairs:,})"


def _setting(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return (
        ""
        if value is None or (isinstance(value, float) and isnan(value))
        else f"{value:g}"
        if isinstance(value, float)
        else f"{value}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=sorted(STUDIES), default="final", help="whose results (default final)")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the raw results (default: beside this file)"
    )
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="Markdown file with the tables (default docs/evidence.md)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table differs")
    options = parser.parse_args(arguments)
    report = Report(RawResults(options.results), options.study)
    tables = report.tables()
    differing = []

    def regenerated(block: re.Match) -> str:
        name = block["name"]
        if name not in tables:
            parser.error(f"{options.page} has a table {name!r}; there are {', '.join(tables)}.")
        body = tables[name]()
        if body != block["body"]:
            differing.append(name)
        return f"{block[1]}{body}{block[4]}"

    page = options.page.read_text(encoding="utf-8")
    markers = page.count("<!-- table:")
    text, found = _BLOCK.subn(regenerated, page)
    if found < markers:
        parser.error(
            f"{options.page} has {markers} tables, but {markers - found} of them lack an empty line or `<!-- end -->`."
        )
    if options.check:
        if differing:
            parser.exit(1, f"Tables that differ from the raw results: {', '.join(differing)}.\n")
        print(f"All {found} tables are those of the raw results.")
        return
    with written_whole(options.page) as part:
        part.write_text(text, encoding="utf-8")
    report.draw(options.page.parent / "assets")
    print(f"{options.page}: {', '.join(differing) or 'nothing'} changed.")


if __name__ == "__main__":
    main()
