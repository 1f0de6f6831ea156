# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the doctor found, as data and as text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..cards.card_settings import setting_text
from ..repo_files.json_files import write_json


@dataclass(frozen=True)
class Finding:
    """
    Something to look at.

    Args:
        level (`str`): `"error"`: the policy cannot be used like this. `"warning"`: it can, but perhaps not as meant.
        section (`str`): The section of the report with the numbers.
        message (`str`): What was found and what to do about it.
    """

    level: Literal["warning", "error"]
    section: str
    message: str


@dataclass(frozen=True)
class Section:
    """
    One part of the report.

    Args:
        title (`str`): Its heading.
        values (`dict`, *optional*): Name to value, one line each.
        rows (`list[dict]`, *optional*): A table; all rows have the same keys, the column titles.
    """

    title: str
    values: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class DoctorReport:
    """
    Result of [`examine_policy`].

    Args:
        repo (`str`): The policy's.
        dataset (`str`, *optional*): The dataset's.
        sections (`dict[str, Section]`): `versions`, `load`, `conventions`, `statistics`, `actions`, `latency` and
            `ablation`; what could not be examined is missing, and an error says why.
        findings (`list[Finding]`): Warnings and errors, in the order of the sections.
    """

    repo: str
    dataset: str | None = None
    sections: dict[str, Section] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings for which the policy cannot be used."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The other findings."""
        return [finding for finding in self.findings if finding.level == "warning"]

    def to_text(self) -> str:
        """The report as people read it."""
        lines = [f"nora15 doctor: {self.repo}" + (f" with {self.dataset}" if self.dataset else "")]
        for section in self.sections.values():
            lines += ["", section.title]
            width = max(map(len, section.values), default=0)
            lines += [f"  {name:<{width}}  {setting_text(value)}" for name, value in section.values.items()]
            if section.rows:
                lines += _table_lines(section.rows)
        lines += ["", f"{len(self.errors)} error(s), {len(self.warnings)} warning(s)"]
        lines += [f"  {finding.level} [{finding.section}]: {finding.message}" for finding in self.findings]
        return "\n".join(lines)

    def write_json(self, path: str | Path) -> None:
        """Writes everything to a JSON file."""
        write_json(path, asdict(self))


def _table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    texts = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  " + "  ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
        for line in texts
    ]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else setting_text(value)


__all__ = ["DoctorReport", "Finding", "Section"]
