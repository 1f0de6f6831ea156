# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluations with an output folder: files, kills, lost environments, videos, comparisons."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.failing_arm import FAULTY_STEP, FailingArm, failing_arm_in_the_table
from helpers.two_camera_arm import TASKS
from helpers.walking_policy import WalkingPolicy
from nora15_hf.evaluation import evaluation_run
from nora15_hf.evaluation.environment_choice import choose_dataset_key, environment_settings, recorded_environment
from nora15_hf.evaluation.episodes import Episode, EpisodeResult, Failure
from nora15_hf.evaluation.evaluation_run import run_evaluation
from nora15_hf.evaluation.recordings import write_contact_sheet
from nora15_hf.evaluation.results import EvaluationResults, compare_results
from nora15_hf.evaluation.rollout import rollout
from nora15_hf.evaluation.success import PairedComparison
from nora15_hf.evaluation.throughput import Throughput
from nora15_hf.simulation import simulation_pool
from nora15_hf.simulation.environment import Task
from nora15_hf.simulation.environment_table import ENVIRONMENTS, TableEntry, find_environment
from nora15_hf.simulation.simulation_pool import LostEnvironmentError, SimulationPool

EPISODES_PER_TASK = 5


@pytest.fixture(scope="module", autouse=True)
def arm_in_the_table():
    with failing_arm_in_the_table():
        yield


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def pool(faults):
    with SimulationPool("failing", num_workers=2, num_slots=4, faults=str(faults)) as pool:
        yield pool


@pytest.fixture(autouse=True)
def no_faults_are_left(faults):
    yield
    for file in faults.iterdir():
        file.unlink()


def run(pool, output, policy=None, **options) -> EvaluationResults:
    options = {"episodes_per_task": EPISODES_PER_TASK, "progress": False} | options
    return run_evaluation(policy or WalkingPolicy(pool.spec), list(TASKS), pool, output, **options)


def files(output) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in ("results.json", "episodes.parquet")}


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory):
    """An evaluation in two groups, as with a policy on an accelerator, that nothing has interrupted."""
    output = tmp_path_factory.mktemp("evaluation") / "finished"
    run(pool, output, WalkingPolicy(pool.spec, device="cuda"))
    return output


# -- what is written ---------------------------------------------------------------------------------------------------


def test_every_episode_is_a_row_beside_all_settings(pool, finished):
    results = EvaluationResults.load(finished)
    assert [(row.task, row.seed) for row in results.episodes] == [
        (task, 10_000 + number) for task in TASKS for number in range(EPISODES_PER_TASK)
    ]
    assert {row.success for row in results.episodes} == {True, False}
    for row in pq.read_table(finished / "episodes.parquet").to_pylist():
        assert row["failure"] == (None if row["success"] else "not done by the end of the episode")
        assert row["success"] or row["num_steps"] == 40
        assert row["num_looks"] == -(-row["num_steps"] // 5)
        assert row["instruction"] == TASKS[row["task"]].instruction
    settings = results.settings
    assert settings["environment"]["conventions"] == pool.spec.conventions
    assert settings["environment"]["packages"].keys() == {"numpy"}
    assert settings["policy"]["policy_fingerprint"] == "w"
    assert settings["evaluation"] == {
        "tasks": list(TASKS),
        "episodes_per_task": EPISODES_PER_TASK,
        "first_seed": 10_000,
        "n_action_steps": 5,
        "control": None,
        "num_slots": 4,
        "num_groups": 2,
    }
    content = json.loads((finished / "results.json").read_text())
    assert content["settings"] == settings
    assert content["success"] == results.success.to_dict()
    assert content["lost"] == []
    assert sum(content["failures"]["left"].values()) + content["success"]["tasks"]["left"]["successes"] == 5
    assert results.success.to_markdown() in results.describe()
    throughput = json.loads((finished / "throughput.json").read_text())
    assert throughput["episodes"] == 10
    assert throughput["threads"]


def test_results_do_not_depend_on_the_number_of_processes(finished, tmp_path, faults):
    with SimulationPool("failing", num_workers=1, num_slots=4, faults=str(faults)) as single:
        run(single, tmp_path / "run", WalkingPolicy(single.spec, device="cuda"))
    assert files(tmp_path / "run") == files(finished)


def test_half_of_the_slots_move_while_the_policy_looks_at_the_others(pool, monkeypatch):
    policy, events = WalkingPolicy(pool.spec), []
    begin_advance, wait = pool.begin_advance, pool.results

    def watched_wait(calls):
        events.extend(["wait"] * any(call.method == "advance" for call in calls))
        return wait(calls)

    def watched_policy(observations, keys):
        events.append("look")
        return policy(observations, keys)

    monkeypatch.setattr(pool, "begin_advance", lambda steps: events.append("move") or begin_advance(steps))
    monkeypatch.setattr(pool, "results", watched_wait)
    rollout(watched_policy, [Episode("left", seed) for seed in (1, 2, 4, 5)], pool, num_groups=2, progress=False)
    assert [[key[0] for key in batch] for batch in policy.batches[:4]] == [[1, 2], [4, 5]] * 2
    assert events[:4] == ["look", "move", "look", "move"]
    assert events[4:10] == ["wait", "look", "move"] * 2


def test_throughput_counts_who_worked():
    ticks = itertools.count()
    throughput = Throughput(
        clock=lambda: float(next(ticks)), episodes=3, seconds=20.0, simulator_seconds=30.0, num_workers=2
    )
    with throughput.asking():
        pass
    throughput.policy_seconds += 4
    assert throughput.describe() == (
        "3 episodes in 20 s, 9.0 a minute; the policy worked 25% of the time, each of 2 simulator processes 75%."
    )


# -- interruptions -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize(("device", "before"), itertools.product(["cpu", "cuda"], [True, False]))
def test_a_run_that_is_killed_at_any_episode_and_resumed_has_the_same_files(
    pool, tmp_path, monkeypatch, device, before
):
    """Killed after every new episode, before or after its file is there: the batches are those of one run."""
    policy = WalkingPolicy(pool.spec, device=device)
    run(pool, tmp_path / "whole", policy)
    write_json, written = evaluation_run.write_json, []

    def killing(file, content):
        if file.parent.name == "episodes":
            if before and written:
                raise Killed
            written.append(file)
        write_json(file, content)
        if file in written and not before:
            raise Killed

    monkeypatch.setattr(evaluation_run, "write_json", killing)
    kills, results = 0, None
    while results is None:
        written.clear()
        try:
            results = run(pool, tmp_path / "run", policy, resume=True)
        except Killed:
            kills += 1
    assert kills == (9 if before else 10)
    assert len(results.episodes) == 10
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_a_run_that_is_resumed_when_it_is_finished_asks_nobody(pool, finished, tmp_path):
    policy, output = WalkingPolicy(pool.spec, device="cuda"), tmp_path / "run"
    shutil.copytree(finished, output)
    run(pool, output, policy, resume=True)
    assert policy.batches == []
    assert files(output) == files(finished)


def test_other_settings_are_not_resumed(pool, finished, tmp_path):
    with pytest.raises(ValueError, match=r"other settings \(evaluation\.n_action_steps: 5, now 3\)"):
        run(pool, finished, WalkingPolicy(pool.spec, device="cuda"), resume=True, n_action_steps=3)
    with pytest.raises(FileExistsError, match="--resume"):
        run(pool, finished)
    (tmp_path / "thesis").write_text("")
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(FileExistsError, match="was not created by nora15 evaluate"):
            run(pool, tmp_path, **options)
    assert (tmp_path / "thesis").exists()


def test_nothing_is_written_for_what_cannot_be_run(pool, tmp_path):
    other = WalkingPolicy(pool.spec)
    other.metadata["contract"]["action_dim"] = 7
    del other.metadata["contract"]["action_names"]
    silent = WalkingPolicy(pool.spec)
    del silent.metadata["chunk_size"], silent.metadata["solver"]
    for policy, options, message in (
        (silent, {}, "metadata of WalkingPolicy lacks chunk_size, solver"),
        (other, {}, "action dimension: policy 7, simulator 3"),
        (None, {"n_action_steps": 6}, "more than the policy's chunk of 5"),
        (None, {"episodes_per_task": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            run(pool, tmp_path / "run", policy, **options)
    assert not (tmp_path / "run").exists()


# -- lost environments -------------------------------------------------------------------------------------------------


def test_a_process_that_dies_once_leaves_no_trace(pool, finished, faults, tmp_path):
    """Its environments come back to where they were, those of the other group, too."""
    (faults / "die_once-10001").touch()
    run(pool, tmp_path / "run", WalkingPolicy(pool.spec, device="cuda"))
    assert not (faults / "die_once-10001").exists()
    assert files(tmp_path / "run") == files(finished)


@pytest.mark.parametrize(("fault", "words"), [("die", "exit code -9"), ("raise", "the arm is jammed")])
def test_an_episode_that_cannot_be_run_is_reported_and_not_counted(pool, faults, tmp_path, fault, words):
    (faults / f"{fault}-10001").touch()
    output = tmp_path / "run"
    results = run(pool, output)
    assert [(episode.task, episode.seed) for episode in results.lost] == [("left", 10_001), ("right", 10_001)]
    assert {(episode.failure, episode.num_steps) for episode in results.lost} == {(Failure.ENVIRONMENT_LOST, 5)}
    assert FAULTY_STEP < 10
    assert results.success.total.n == 8
    text = results.describe()
    assert "NOT RUN: 2 of 10 episodes" in text
    log = (output / "logs" / "left-10001.log").read_text()
    assert words in log
    assert ("about to die" in log) == (fault == "die")
    rows = pq.read_table(output / "episodes.parquet").to_pylist()
    assert [row["success"] for row in rows if row["seed"] == 10_001] == [None, None]
    assert EvaluationResults.load(output).success == results.success
    # Mended, they are run, and only they.
    (faults / f"{fault}-10001").unlink()
    policy = WalkingPolicy(pool.spec)
    again = run(pool, output, policy, resume=True)
    assert again.lost == []
    assert again.success.total.n == 10


def test_an_environment_that_hangs_is_ended(faults, tmp_path, monkeypatch):
    """Its log tells where it was."""
    monkeypatch.setattr(simulation_pool, "SECONDS_BETWEEN_LOOKS", 0.05)
    (faults / "hang-10000").touch()

    seconds = itertools.count(step=1000)

    def clock():
        """Stands still, unless a process hangs."""
        pids = [int(file.name.removeprefix("hanging-")) for file in faults.glob("hanging-*")]
        return next(seconds) if any(map(psutil.pid_exists, pids)) else 0

    with SimulationPool("failing", num_workers=1, num_slots=2, timeout=600, clock=clock, faults=str(faults)) as pool:
        results = run_evaluation(
            WalkingPolicy(pool.spec), ["left"], pool, tmp_path / "run", episodes_per_task=2, progress=False
        )
    assert [episode.seed for episode in results.lost] == [10_000]
    assert len(list(faults.glob("hanging-*"))) == 2
    log = (tmp_path / "run" / "logs" / "left-10000.log").read_text()
    assert "gave no answer for 600 seconds" in log
    assert "in wait" in log


def test_too_many_lost_environments_end_a_run(pool, faults, tmp_path):
    """What is finished is kept."""
    for seed in (10_001, 10_002):
        (faults / f"raise-{seed}").touch()
    with pytest.raises(
        LostEnvironmentError, match=r"(?s)2 of \d+ episodes could not be run, the last of them .* jammed"
    ):
        run(pool, tmp_path / "run", max_lost=1)
    assert not (tmp_path / "run" / "results.json").exists()
    for seed in (10_001, 10_002):
        (faults / f"raise-{seed}").unlink()
    assert run(pool, tmp_path / "run", resume=True).success.total.n == 10


def test_without_a_single_episode_there_is_no_rate(faults, tmp_path):
    with SimulationPool("failing", num_workers=1, num_slots=1, faults=str(faults)) as pool:
        (faults / "raise-10000").touch()
        results = run(pool, tmp_path / "run", episodes_per_task=1)
        assert json.loads((tmp_path / "run" / "results.json").read_text())["success"] is None
        assert "%" not in results.describe()
        with pytest.raises(ValueError, match="nothing to count"):
            _ = results.success


def test_a_process_that_cannot_even_be_started_is_reported_at_once():
    with SimulationPool("failing", num_workers=1, num_slots=1) as pool:
        pool.start([(0, "left", 1)])
        pool._worker_arguments["environment"] = "no_such_module:Environment"
        pool._workers[0].process.kill()
        with pytest.raises(
            LostEnvironmentError, match=r"(?s)'failing' cannot be started.*No module named 'no_such_module'"
        ):
            pool.advance([(0, np.zeros((1, 3)))])


def test_invalid_tokens_end_an_episode_and_are_told(pool, tmp_path):
    policy = WalkingPolicy(pool.spec, decoder="fast", invalid_seeds=[10_002])
    results = run(pool, tmp_path / "run", policy)
    assert [episode.failure for episode in results.episodes if episode.seed == 10_002] == [Failure.INVALID_ACTIONS] * 2
    assert "2 invalid actions" in results.describe()
    assert results.success.total.n == 10
    with pytest.raises(ValueError, match="not finite"):
        run(pool, tmp_path / "flow", WalkingPolicy(pool.spec, invalid_seeds=[10_002]))


def test_no_success_at_all_is_not_taken_for_granted():
    results = EvaluationResults({}, [EpisodeResult("left", 1, "", False, 40, failure=Failure.NOT_DONE)])
    assert "No episode succeeded" in results.describe()


# -- videos ------------------------------------------------------------------------------------------------------------


def test_recorded_episodes_become_videos_and_a_contact_sheet(pool, tmp_path):
    av = pytest.importorskip("av", reason="pip install 'nora15_hf[video]'")
    output = tmp_path / "run"
    results = run(pool, output, recorded_per_task=1)
    assert {file.name for file in (output / "videos").iterdir()} == {"left-10000.mp4", "right-10000.mp4"}
    first = results.episodes[0]
    with av.open(str(output / "videos" / "left-10000.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 10
    # One a step, at the environment's ten steps a second.
    assert len(frames) == first.num_steps + 1
    env = FailingArm("left")
    env.reset(10_000)
    assert np.abs(frames[0].astype(int) - env.observation().first_image).mean() < 8
    with Image.open(output / "contact_sheet.png") as sheet:
        assert sheet.size == (6 * 56, 2 * (56 + 14))
        sheet.save(tmp_path / "strip.png")
    write_contact_sheet(tmp_path, [(replace(first, task="left" * 20), tmp_path / "strip.png")])
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        title = np.asarray(sheet)[:14]
    # Nothing of a long title is cut off at the right.
    assert title.shape[1] > 6 * 56
    assert title[:, -10:].min() < 128
    assert title[:, -2:].min() == 255
    assert files(output) == files_of_a_run_without_videos(pool, tmp_path / "plain")


def files_of_a_run_without_videos(pool, output) -> dict[str, bytes]:
    run(pool, output)
    return files(output)


# -- comparison --------------------------------------------------------------------------------------------------------


def test_two_policies_are_compared_on_the_same_episodes(pool, finished, tmp_path):
    other = EvaluationResults.load(finished / "results.json")
    policy = WalkingPolicy(pool.spec)
    policy.metadata["policy_fingerprint"] = "x"
    own = run(pool, tmp_path / "run", policy, against=other)
    comparison = compare_results(own, other)
    assert comparison.differing == {
        "policy.policy_fingerprint": ("w", "x"),
        "policy.device": ("cuda", "cpu"),
        "evaluation.num_groups": (2, 1),
    }
    paired = comparison.paired
    assert paired.both + paired.only_first == other.success.total.successes
    assert paired.both + paired.only_second == own.success.total.successes
    assert "policy.policy_fingerprint: w there, x here" in comparison.describe()
    with pytest.raises(
        ValueError, match=r"other episodes: 2 are only in one of them, for example \[\('left', 10004\)"
    ):
        run(pool, tmp_path / "fewer", against=other, episodes_per_task=4)
    with (
        SimulationPool("failing", num_workers=1, num_slots=1, max_steps=20) as shorter,
        pytest.raises(ValueError, match=r"another environment \(.*conventions\.max_steps: 40 there, 20 here"),
    ):
        run(shorter, tmp_path / "shorter", against=other)
    assert not (tmp_path / "fewer").exists()
    with pytest.raises(FileNotFoundError, match="holds no results of nora15 evaluate"):
        EvaluationResults.load(tmp_path)


def test_the_interval_of_a_paired_difference_covers_it():
    """In 95 of 100 samples of 40 pairs, with rates of 60 % and 75 % of which the outcomes are correlated."""
    random = np.random.default_rng(0)
    probabilities, covered = (0.5, 0.1, 0.25, 0.15), 0
    for counts in random.multinomial(40, probabilities, size=1000).tolist():
        low, high = PairedComparison(*counts, p_value=1.0).interval
        covered += low <= 0.15 <= high
    assert 0.93 < covered / 1000 < 0.98
    assert PairedComparison(20, 0, 0, 0, p_value=1.0).interval == pytest.approx((-0.161, 0.161), abs=1e-3)


# -- what is chosen where nobody says ----------------------------------------------------------------------------------


def test_the_environment_and_its_settings_are_those_of_the_training():
    recorded = {"simulator": "arm", "gripper": "-1 closes", "max_steps": 7}
    assert recorded_environment({"a": recorded, "b": {}}) == "arm"
    with pytest.raises(ValueError, match=r"names no simulator.*--environment"):
        recorded_environment({"a": {}})
    with pytest.raises(ValueError, match="names arm, failing"):
        recorded_environment({"a": recorded, "b": {"simulator": "failing"}})
    entry = TableEntry("helpers.two_camera_arm:TwoCameraArm", TASKS)
    assert environment_settings(entry, ["left"], {"max_steps": 9}, recorded) == {
        "gripper": "-1 closes",
        "max_steps": 9,
    }
    assert environment_settings(entry, ["left"], {}, recorded | {"simulator": "failing"}) == {}
    with pytest.raises(ValueError, match=r"Unknown setting 'max_step'\. Nearest: max_steps"):
        environment_settings(entry, ["left"], {"max_step": 9}, {})


class KeyedTask(Task):
    @property
    def dataset_keys(self):
        return (f"{self.scene}_no_noops", self.scene)


def test_the_dataset_key_is_that_of_the_tasks(monkeypatch):
    tasks = {name: KeyedTask(name, name, scene) for name, scene in (("a", "one"), ("b", "one"), ("c", "two"))}
    monkeypatch.setitem(ENVIRONMENTS, "keyed", TableEntry("nowhere:Nothing", tasks))
    assert choose_dataset_key({"only": {}}, "keyed", ["a"]) == "only"
    keys = {"one": {}, "one_no_noops": {}, "two": {}, "robot": {"simulator": "keyed"}}
    assert choose_dataset_key(keys, "keyed", ["a", "b"]) == "one_no_noops"
    assert choose_dataset_key(keys, "keyed", ["c"]) == "two"
    with pytest.raises(ValueError, match="evaluate them separately, or choose one with --dataset-key"):
        choose_dataset_key(keys, "keyed", ["a", "c"])
    assert choose_dataset_key({"x": {}, "robot": {"simulator": "keyed"}}, "keyed", ["a"]) == "robot"
    assert choose_dataset_key({"x": {}, "y": {}}, "keyed", ["a"]) is None


def test_tasks_are_selected_by_suite_and_name():
    entry = find_environment("failing")
    assert entry.select_tasks([], ["corners"]) == entry.select_tasks(["right"], ["corners"]) == ["left", "right"]
    assert entry.select_tasks(["right"]) == ["right"]
    with pytest.raises(ValueError, match=r"Unknown suite 'corner'\. Nearest: corners"):
        entry.select_tasks([], ["corner"])
    with pytest.raises(ValueError, match=r"Unknown protocol 'stric'\. Nearest: strict"):
        entry.check_protocol("stric")
    with pytest.raises(ValueError, match="Unknown suite 'x': there is none here"):
        TableEntry("nowhere:Nothing", TASKS).select_tasks([], ["x"])
