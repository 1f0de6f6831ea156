# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What came of the rounds: a table, a plot, and the same for programs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..repo_files.json_files import write_json
from .round_folders import CONTROL, POLICY

ROUNDS_FILE = "rounds.json"
PLOT_FILE = "rounds.png"
_CURVES = {POLICY: ("preference rounds", "#1a9367"), CONTROL: ("continued supervised training", "#d97f00")}


@dataclass
class RoundOutcome:
    """
    What came of a round.

    Attributes:
        number (`int`): Of the round; 0 is the policy that the run begins with.
        states (`int`), pairs (`int`): States that were labelled, and pairs that came of them.
        reason (`str`, *optional*): Why there are no pairs.
        accuracy (`float`, *optional*): At the end of flow DPO, the share of pairs whose chosen chunk gained on the rejected one.
        evaluation (`dict`, *optional*):
            Success of `policy` and `policy-continued-sft`, and the paired comparisons `against_before` and `against_control`.
        seconds (`float`): Time of all its stages.
    """

    number: int
    states: int = 0
    pairs: int = 0
    reason: str | None = None
    accuracy: float | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def why_it_stops(self, tolerated_loss: float) -> str | None:
        """Why no further round follows; `None` where one can."""
        if self.number and not self.pairs:
            return f"Round {self.number} has no pairs: {self.reason}"
        against = self.evaluation.get("against_before")
        if against is not None and against["difference"] < -tolerated_loss:
            return (
                f"Round {self.number} was lost: against the policy of the round before, {against['only_second']} episodes were won "
                f"and {against['only_first']} lost (exact McNemar p = {against['p_value']:.2g})."
            )
        return None


@dataclass
class RoundsReport:
    """
    What came of a run.

    Attributes:
        rounds (`list[RoundOutcome]`): From round 0 on.
        stopped (`str`, *optional*): Why the run ended before its last round.
        policy (`str`): Folder of the best policy in the run's folder: that of the last round that was not lost.
    """

    rounds: list[RoundOutcome] = field(default_factory=list)
    stopped: str | None = None
    policy: str = ""

    @property
    def best(self) -> int:
        """The last round that was not lost."""
        return self.rounds[-1].number - (self.stopped is not None)

    def describe(self) -> str:
        """The table, why the run stopped, and where the best policy is."""
        header = (
            "round",
            "pairs",
            "success",
            "95 % interval",
            "continued SFT",
            "against before",
            "against SFT",
            "seconds",
        )
        rows = [header, *(_cells(outcome) for outcome in self.rounds)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, tuple("-" * width for width in widths))
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
        if self.stopped is not None:
            lines += ["", self.stopped]
        return "\n".join([*lines, "", f"Best policy: {self.policy} (round {self.best})"])

    def save(self, folder: Path) -> None:
        """Writes `rounds.json`, and `rounds.png` where something was evaluated."""
        write_json(folder / ROUNDS_FILE, asdict(self) | {"best": self.best})
        if self.rounds[0].evaluation:
            self._draw().savefig(folder / PLOT_FILE, dpi=90, metadata={"Software": None})

    def _draw(self) -> Figure:
        """Success over the rounds with 95 % intervals, of the tuned policies and of the control."""
        figure = Figure(figsize=(5.0, 3.2), layout="constrained")
        axis = figure.subplots()
        for name, (label, colour) in _CURVES.items():
            # Both begin with the same policy.
            totals = {
                outcome.number: outcome.evaluation[name if outcome.number else POLICY]["total"]
                for outcome in self.rounds
                if outcome.evaluation
            }
            rates = [total["rate"] for total in totals.values()]
            below = [total["rate"] - total["interval"][0] for total in totals.values()]
            above = [total["interval"][1] - total["rate"] for total in totals.values()]
            axis.errorbar(list(totals), rates, yerr=(below, above), color=colour, label=label, marker="o", capsize=3)
        axis.set_xticks([outcome.number for outcome in self.rounds])
        axis.set_ylim(0, 1)
        axis.set_xlabel("round")
        axis.set_ylabel("success rate")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
        return figure


def _cells(outcome: RoundOutcome) -> tuple[str, ...]:
    pairs = f"{outcome.pairs} of {outcome.states}" if outcome.number else ""
    found = outcome.evaluation
    success = interval = control = ""
    if found:
        total = found[POLICY]["total"]
        success = f"{total['successes']}/{total['n']}"
        interval = "{:.0%} to {:.0%}".format(*total["interval"])
        control = f"{found[CONTROL]['total']['successes']}/{total['n']}" if CONTROL in found else ""
    paired = [_paired(found.get(name)) for name in ("against_before", "against_control")]
    return (str(outcome.number), pairs, success, interval, control, *paired, f"{outcome.seconds:.0f}")


def _paired(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return ""
    won, lost, p_value = (comparison[name] for name in ("only_second", "only_first", "p_value"))
    return f"{won} won, {lost} lost, p = {p_value:.2f}"


__all__ = ["PLOT_FILE", "ROUNDS_FILE", "RoundOutcome", "RoundsReport"]
