# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""An evaluation with an output folder: it can be interrupted and continued, and leaves results, videos and logs."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..control.policy_metadata import METADATA_KEYS
from ..data.video_decoder import import_av
from ..repo_files.json_files import read_json, write_json
from ..repo_files.run_folder import RUN_FILE, open_run_folder
from ..repo_files.settings import as_json
from ..runtime.cpu_threads import current_threads, keep_threads
from ..simulation.environment import FIRST_EVALUATION_SEED
from ..simulation.simulation_pool import SimulationPool
from .episodes import EpisodeResult, Failure
from .evaluate import Control, evaluation_episodes, num_groups_for, run_episodes
from .evaluated_policy import EvaluatedPolicy
from .recordings import video_steps, write_contact_sheet, write_recording
from .results import EvaluationResults, check_comparable
from .throughput import Throughput

STATE_FOLDER = ".evaluation"
LOGS_FOLDER = "logs"
THROUGHPUT_FILE = "throughput.json"
MAX_LOST = 5
"""So many environments may be lost before an evaluation is given up."""


def run_evaluation(
    policy: EvaluatedPolicy,
    tasks: Sequence[str],
    pool: SimulationPool,
    output: str | Path,
    *,
    episodes_per_task: int,
    first_seed: int = FIRST_EVALUATION_SEED,
    n_action_steps: int | None = None,
    control: Control | None = None,
    recorded_per_task: int = 0,
    max_lost: int = MAX_LOST,
    against: EvaluationResults | None = None,
    resume: bool = False,
    overwrite: bool = False,
    throughput: Throughput | None = None,
    progress: bool = True,
) -> EvaluationResults:
    """
    Evaluates a policy and writes `results.json`, `episodes.parquet`, `throughput.json` and, where asked for, videos.

    Every finished episode is kept at once; a run that is continued after a kill ends with the same files as one that was
    not interrupted.

    Args:
        policy, tasks, pool, episodes_per_task, first_seed, control: See [`evaluate_policy`].
        output (`str` or `Path`): The folder; new or empty unless `resume` or `overwrite` is given.
        n_action_steps (`int`, *optional*): Actions executed of each chunk; those of the environment's protocol by default, and
            otherwise the whole chunk.
        recorded_per_task (`int`, *optional*, defaults to 0): Videos of the first so many episodes of a task.
        max_lost (`int`, *optional*, defaults to 5): Environments that may be lost before the run is given up.
        against ([`EvaluationResults`], *optional*): Other results that these are to be compared with.
        resume (`bool`), overwrite (`bool`): Continue, or remove, the evaluation that the folder holds.
        throughput ([`Throughput`], *optional*): Is filled.
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar.

    Returns:
        [`EvaluationResults`]: With lost episodes, which are in no table.

    Raises:
        FileExistsError: The folder is not empty, or not an evaluation's.
        ValueError: The folder holds an evaluation with other settings, `against` cannot be compared with this one; and as
            [`evaluate_policy`].
        ImportError: Videos need PyAV.
        LostEnvironmentError: More than `max_lost` environments were lost; what is finished is kept.
    """
    output = Path(output)
    if recorded_per_task:
        import_av()
    spec = pool.spec
    episodes = evaluation_episodes(
        policy,
        tasks,
        spec,
        episodes_per_task=episodes_per_task,
        first_seed=first_seed,
        control=control,
        record_every=video_steps(spec.control_rate),
        recorded_per_task=recorded_per_task,
    )
    chunk_size = policy.metadata["chunk_size"]
    n_action_steps = n_action_steps or spec.n_action_steps or chunk_size
    if n_action_steps > chunk_size:
        raise ValueError(f"n_action_steps={n_action_steps} is more than the policy's chunk of {chunk_size} actions.")
    settings: dict[str, Any] = {
        "policy": {name: policy.metadata[name] for name in METADATA_KEYS},
        "environment": {
            "name": spec.name,
            "title": spec.title,
            "conventions": dict(spec.conventions),
            "packages": {package: version(package) for package in spec.packages},
        },
        "evaluation": {
            "tasks": list(tasks),
            "episodes_per_task": episodes_per_task,
            "first_seed": first_seed,
            "n_action_steps": n_action_steps,
            "control": control,
            "num_slots": pool.num_slots,
            "num_groups": num_groups_for(policy),
        },
    }
    settings = as_json(settings)
    if against is not None:
        check_comparable(settings, [(episode.task, episode.seed) for episode in episodes], against)
    state = open_run_folder(
        output, STATE_FOLDER, settings, made_by="nora15 evaluate", resume=resume, overwrite=overwrite
    )
    keep_threads(state / RUN_FILE)
    journal = _Journal(state, output, spec.control_rate)
    throughput = throughput or Throughput()
    finished = run_episodes(
        policy,
        episodes,
        pool,
        n_action_steps=n_action_steps,
        control=control,
        # Those whose pictures an episode was shown have to run again beside it.
        finished={} if control == "shuffled_images" else journal.finished(),
        on_result=journal.keep,
        max_lost=max_lost,
        throughput=throughput,
        progress=progress,
    )
    strips = [(episode, journal.strip(position)) for position, episode in enumerate(finished)]
    if strips := [(episode, strip) for episode, strip in strips if strip.exists()]:
        write_contact_sheet(output, strips)
    results = EvaluationResults(settings, finished)
    results.save(output)
    write_json(output / THROUGHPUT_FILE, throughput.to_dict() | {"threads": current_threads().record()})
    return results


class _Journal:
    """Finished episodes of a run, a file each, which appears whole or not at all."""

    def __init__(self, state: Path, output: Path, control_rate: int):
        self._folder, self._output, self._control_rate = state / "episodes", output, control_rate

    def finished(self) -> dict[int, EpisodeResult]:
        """Results by position. Episodes whose environment was lost are run again."""
        return {int(file.stem): _from_json(read_json(file)) for file in sorted(self._folder.glob("[0-9]*.json"))}

    def strip(self, position: int) -> Path:
        """Where the pictures of an episode for the contact sheet are, if it was recorded."""
        return self._folder / f"{position}.png"

    def keep(self, position: int, episode: EpisodeResult) -> None:
        """Writes a result, after the files that belong to it."""
        if not episode.counts:
            log = self._output / LOGS_FOLDER / f"{episode.file_name}.log"
            log.parent.mkdir(exist_ok=True)
            log.write_text(f"{episode.task}, seed {episode.seed}\n{episode.log}\n", encoding="utf-8")
            return
        if episode.frames:
            write_recording(self._output, episode, self._control_rate, self.strip(position))
        write_json(self._folder / f"{position}.json", _to_json(episode))


def _to_json(episode: EpisodeResult) -> dict[str, Any]:
    return {name: value for name, value in vars(episode).items() if name not in ("frames", "log")}


def _from_json(content: Mapping[str, Any]) -> EpisodeResult:
    failure = content["failure"]
    return EpisodeResult(**{**content, "failure": None if failure is None else Failure(failure)})


__all__ = ["LOGS_FOLDER", "MAX_LOST", "THROUGHPUT_FILE", "run_evaluation"]
