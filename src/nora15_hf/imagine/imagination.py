# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What was found when a world model was looked at, and its figures as table, JSON and text."""

from dataclasses import dataclass

from ..cards.wilson_interval import wilson_interval
from ..trainers.world_model.world_model_metrics import ActionSensitivity
from .film_strip import FilmStrip


@dataclass(frozen=True)
class Imagination:
    """
    What [`~nora15_hf.imagine.imagine`] found.

    Args:
        model, dataset (`str`): Names of the artefacts.
        steps (`int`): Frames imagined per rollout; also the length of the ranked chunks.
        fps (`float`): Of the dataset.
        strips (`list[FilmStrip]`): The film strips.
        sensitivity ([`ActionSensitivity`]): Distances for every case.
        instructions (`list[str]`): Of each case.
        episodes (`list[int]`): Indices of the episodes that the cases come from.
        trained_on (`list[int]`): Those among them that the model was trained on.
    """

    model: str
    dataset: str
    steps: int
    fps: float
    strips: list[FilmStrip]
    sensitivity: ActionSensitivity
    instructions: list[str]
    episodes: list[int]
    trained_on: list[int]

    def ranking(self) -> dict[str, dict[str, tuple[int, int]]]:
        """
        How often the demonstrated chunk was ranked above each contestant: contestant -> instruction (and `"all"`) ->
        (cases won, cases). Ties are not won.
        """
        groups = {"all": list(range(len(self.instructions)))}
        for case, instruction in enumerate(self.instructions):
            groups.setdefault(instruction, []).append(case)
        table = {}
        for name, energies in self.sensitivity.contestants.items():
            won = energies > self.sensitivity.demonstrated
            table[name] = {group: (int(won[cases].sum()), len(cases)) for group, cases in groups.items()}
        return table

    def to_dict(self) -> dict:
        """Figures as JSON values."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "steps": self.steps,
            "episodes": self.episodes,
            "episodes_trained_on": self.trained_on,
            "metrics": self.sensitivity.metrics(),
            "ranking": {
                name: {
                    group: {"won": won, "cases": cases, "interval_95": list(wilson_interval(won, cases))}
                    for group, (won, cases) in row.items()
                }
                for name, row in self.ranking().items()
            },
            "film_strips": [
                {
                    "episode_index": strip.episode_index,
                    "first_frame": strip.first_frame,
                    "trained_on": strip.trained_on,
                    "energies": strip.energies,
                    "still_energies": strip.still_energies,
                    "retrieved": [[frame.episode_index, frame.frame_index] for frame in strip.retrieved],
                }
                for strip in self.strips
            ],
        }

    def summary(self) -> str:
        """The ranking of all cases, for a terminal."""
        rows = [f"The demonstrated chunk of {self.steps} actions is ranked above"]
        for name, row in self.ranking().items():
            won, cases = row["all"]
            low, high = wilson_interval(won, cases)
            rows.append(
                f"  {contestant_label(name):32} {won / cases:6.1%}  of {cases} (95 %: {low:.1%} to {high:.1%})"
            )
        monotone = "grows" if self.sensitivity.is_monotone else "does NOT grow"
        rows.append(f"The mean distance to the truth {monotone} with every noise level.")
        seen = f"{len(self.trained_on)} of them trained on" if self.trained_on else "none of them trained on"
        rows.append(f"{len(self.episodes)} episodes, {seen}.")
        return "\n".join(rows)


def contestant_label(name: str) -> str:
    """`noise_0.5` and the like, as people read them."""
    if name.startswith("noise_"):
        return f"itself plus noise of {name.removeprefix('noise_')} std"
    return "another frame's chunk"


__all__ = ["Imagination", "contestant_label"]
