# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Rounds on an arm without physics: artefacts, kills, why a run stops, what is refused."""

import itertools
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file

from helpers.arm_rounds import make_inputs, run_arm, run_killed
from helpers.warm_processes import run_process, run_processes
from nora15_hf.commands import main
from nora15_hf.embodiment.junctions import EmbodimentError
from nora15_hf.evaluation.success import PairedComparison
from nora15_hf.preferences import PreferenceRecord, rewards
from nora15_hf.rounds import round_stages
from nora15_hf.rounds.config import RoundsConfig
from nora15_hf.rounds.report import RoundOutcome, RoundsReport

WEIGHTS = "model.safetensors"
# States of the simulator, a world model that is trained further, the first policy as reference.
WHOLE = {"states_from": "simulator", "refresh_steps": 2, "refresh_batch_size": 2, "reference": "first"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> tuple[Path, RoundsReport]:
    """Two rounds with all stages, without interruption."""
    output = tmp_path_factory.mktemp("rounds") / "run"
    return output, run_arm(inputs, output, rounds=2, **WHOLE)


def weights(output: Path) -> dict[str, bytes]:
    return {
        file.parent.relative_to(output).as_posix(): file.read_bytes() for file in sorted(output.glob(f"*/*/{WEIGHTS}"))
    }


@pytest.mark.slow
def test_every_round_is_a_folder_of_repos(whole):
    output, report = whole
    assert set(weights(output)) == {
        "round-00/policy",
        "round-00/world-model",
        *(f"round-0{n}/{name}" for n in (1, 2) for name in ("policy", "policy-continued-sft", "world-model")),
    }
    of_policy = [load_file(output / f"round-0{n}" / "policy" / WEIGHTS) for n in (0, 1, 2)]
    for before, after in itertools.pairwise(of_policy):
        differing = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert differing
        assert "vlm" not in differing
    for number in (1, 2):
        folder = output / f"round-0{number}"
        record = PreferenceRecord.read(folder / "preferences")
        assert record.provenance["round"] == number
        assert record.settings.reward["rewards"]["world_model"]["world_model"] == "world-model"
        assert json.loads((folder / "episodes/meta/info.json").read_text())["total_episodes"] >= 1
        assert "preference rounds" in (folder / "policy/README.md").read_text()
        for name in ("preferences", "episodes", "world-model"):
            assert (folder / name / "README.md").is_file()
    # Each round is labelled by its own policy and judged by its own world model.
    fingerprints = [
        (settings.policy_fingerprint, settings.reward["rewards"]["world_model"]["world_model_fingerprint"])
        for settings in (PreferenceRecord.read(output / f"round-0{n}" / "preferences").settings for n in (1, 2))
    ]
    assert all(first != second for first, second in zip(*fingerprints, strict=True))
    content = json.loads((output / "rounds.json").read_text())
    assert (content["best"], content["policy"], content["stopped"]) == (2, "round-02/policy", None)
    assert [outcome.number for outcome in report.rounds] == [0, 1, 2]
    assert {"policy", "policy-continued-sft", "against_before", "against_control"} == report.rounds[
        1
    ].evaluation.keys()
    assert (output / "rounds.png").read_bytes().startswith(b"\x89PNG")


STAGES = (
    "begin",
    "evaluation",
    "episodes",
    "world-model",
    "preferences",
    "policy",
    "control",
    "evaluation",
    "publication",
)
# Places of the stages that a run is killed in: one of each kind.
KILLED = (0, 2, 3, 4, 5, 7)


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_weights(whole, inputs, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    for before, place in itertools.pairwise((0, *KILLED)):
        code = run_process(run_killed, inputs, output, place - before, WHOLE, output=log)
        assert code == -signal.SIGKILL, log.read_text()
        assert len(list((output / ".rounds").glob("round-*.json"))) == place, STAGES[place]
    report = run_arm(inputs, output, resume=True, **WHOLE)
    expected = {name: found for name, found in weights(whole[0]).items() if not name.startswith("round-02")}
    assert weights(output) == expected
    assert [outcome.evaluation for outcome in report.rounds] == [outcome.evaluation for outcome in whole[1].rounds[:2]]


def trained(inputs: Path, output: Path) -> None:
    run_arm(inputs, output, reward="ground_truth", world_model=None, evaluation_episodes=0)


@pytest.mark.slow
def test_two_processes_train_what_one_does(inputs, tmp_path):
    run_processes(trained, inputs, tmp_path / "two")
    trained(inputs, tmp_path / "one")
    one, two = (load_file(tmp_path / name / "round-01" / "policy" / WEIGHTS) for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)
    records = [PreferenceRecord.read(tmp_path / name / "round-01" / "preferences") for name in ("one", "two")]
    assert records[0].settings == records[1].settings


@pytest.mark.slow
def test_a_round_that_loses_ends_the_run(inputs, tmp_path, monkeypatch, hub):
    alike, lost = PairedComparison(1, 0, 0, 0, 1.0), PairedComparison(0, 1, 0, 0, 1.0)
    # Of each round first with the round before, then with the control.
    comparisons = iter([alike, alike, lost, alike])
    monkeypatch.setattr(round_stages, "compare_results", lambda own, other: SimpleNamespace(paired=next(comparisons)))
    changes = {"reward": "ground_truth", "world_model": None, "tolerated_loss": 0.0, "hub_model_id": "robots/arm"}
    report = run_arm(inputs, tmp_path / "run", rounds=3, **changes)
    assert report.stopped.startswith(
        "Round 2 was lost: against the policy of the round before, 0 episodes were won and 1 lost"
    )
    assert (report.best, report.policy) == (1, "round-01/policy")
    assert report.stopped in report.describe()
    assert "Best policy: round-01/policy (round 1)" in report.describe()
    assert not (tmp_path / "run" / "round-03").exists()
    # What was not lost is on the Hub, each repo in a revision with a tag.
    for repo, repo_type in (("robots/arm", "model"), ("robots/arm-preferences", "dataset")):
        tags = HfApi(token=hub.token).list_repo_refs(repo, repo_type=repo_type).tags
        assert [tag.name for tag in tags] == ["round-1"]


@pytest.mark.slow
def test_a_round_without_pairs_ends_the_run(inputs, tmp_path, monkeypatch):
    changes = {"reward": "ground_truth", "world_model": None, "evaluation_episodes": 0}
    run_arm(inputs, tmp_path / "run", **changes)
    before = weights(tmp_path / "run")
    assert before.keys() == {"round-00/policy", "round-01/policy"}
    monkeypatch.setattr(
        rewards.GroundTruthActionReward, "score", lambda self, batch: torch.zeros(batch.candidates.shape[:2])
    )
    # A finished run is continued with more rounds.
    report = run_arm(inputs, tmp_path / "run", resume=True, rounds=3, **changes)
    assert report.stopped.startswith("Round 2 has no pairs: No pair is left of 4 states: ")
    assert (report.best, [outcome.pairs for outcome in report.rounds]) == (1, [0, 4, 0])
    assert weights(tmp_path / "run") == before
    assert report.describe() == run_arm(inputs, tmp_path / "run", resume=True, rounds=3, **changes).describe()


@pytest.mark.slow
def test_recordings_of_a_robot(inputs, tmp_path):
    recordings = [tmp_path / "first", tmp_path / "second"]
    for recording in recordings:
        shutil.copytree(inputs / "demonstrations", recording)
    info = json.loads((recordings[1] / "meta/info.json").read_text())
    (recordings[1] / "meta/info.json").write_text(json.dumps(info | {"robot_type": "second arm"}))
    changes = {"states_from": "episodes", "evaluation_episodes": 0, "reward": "ground_truth", "world_model": None}
    run_arm(inputs, tmp_path / "run", episodes=(str(recordings[0]),), **changes)
    with pytest.raises(ValueError, match="Round 1 took its states from 'first', but episodes now names another"):
        run_arm(inputs, tmp_path / "run", resume=True, episodes=(str(recordings[1]),), **changes)
    # A misspelt one is not remembered, and that of a finished round may be moved away.
    misspelt = (str(recordings[0]), str(tmp_path / "secnod"))
    with pytest.raises(FileNotFoundError, match="secnod"):
        run_arm(inputs, tmp_path / "run", resume=True, rounds=2, episodes=misspelt, **changes)
    recordings[0].rename(tmp_path / "elsewhere")
    run_arm(inputs, tmp_path / "run", resume=True, rounds=2, episodes=tuple(map(str, recordings)), **changes)
    with pytest.raises(ValueError, match=r"rounds=1, but .* holds more that are finished or begun"):
        run_arm(inputs, tmp_path / "run", resume=True, episodes=(str(recordings[1]),), **changes)
    provenance = PreferenceRecord.read(tmp_path / "run" / "round-02" / "preferences").provenance
    assert provenance["demonstrations"] == "second"


def test_a_policy_and_a_world_model_that_disagree_about_actions(inputs, tmp_path):
    other = tmp_path / "world-model"
    shutil.copytree(inputs / "world-model", other)
    content = json.loads((other / "clips.json").read_text())
    content["embodiment"]["gripper"] = "1 opens"
    (other / "clips.json").write_text(json.dumps(content))
    with pytest.raises(EmbodimentError, match="Policy and world model do not agree: gripper"):
        run_arm(inputs, tmp_path / "run", world_model=str(other))
    assert not list((tmp_path / "run").glob("round-*"))


def test_what_cannot_work_is_refused_before_anything_is_computed(inputs, tmp_path):
    clips = json.loads((inputs / "world-model" / "clips.json").read_text())
    shutil.copytree(inputs / "world-model", tmp_path / "world-model")
    (tmp_path / "world-model" / "clips.json").write_text(json.dumps(clips | {"image_key": "observation.images.top"}))
    simulator = {"states_from": "simulator", "reward": "ground_truth", "world_model": None}
    for changes, words in (
        ({"world_model": str(tmp_path / "world-model")}, "trained on the camera 'observation.images.top', but"),
        ({"n_action_steps": 99}, "n_action_steps=99 is more than the policy's chunk"),
        (simulator | {"max_policy_steps": 3}, "n_action_steps=5, max_policy_steps=3, but 1 <="),
        (simulator | {"max_policy_steps": 60}, "max_policy_steps < 25 must hold"),
        ({"states_from": "episodes", "episodes": (str(tmp_path / "missing"),)}, "missing"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            # In the same folder, which the refused runs leave free.
            run_arm(inputs, tmp_path / "run", **changes)
        assert not list((tmp_path / "run").glob("round-*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_candidates": 1}, "num_candidates=1 must be at least 2"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"states_from": "anywhere"}, "states_from='anywhere' must be one of demonstrations, simulator, episodes"),
        ({"states_from": "episodes", "episodes": ("a",)}, "needs a recording for each of the 3 rounds.* names 1"),
        ({"episodes": ("a",)}, "is not looked at with states_from='demonstrations'"),
        ({"world_model": None}, "reward='paper' needs world_model"),
        ({"reward": "ground_truth"}, "world_model='me/w' has no effect with reward='ground_truth'"),
        ({"refresh_steps": 5}, "refresh_steps=5 trains a world model on new episodes"),
        ({"states_from": "simulator", "reached_episodes": 2000}, "need more than the 5000 seeds"),
        ({"temperature": -0.5}, "temperature=-0.5 must be at least 0"),
        ({"reference": "last"}, "reference='last' must be one of previous, first"),
    ],
)
def test_options_that_exclude_each_other(changes, words):
    with pytest.raises(ValueError, match=words):
        RoundsConfig(**{"policy": "me/p", "demonstrations": "me/d", "world_model": "me/w"} | changes)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    command = ["rounds", "--policy", "me/p", "--demonstrations", "me/d", "--output", str(tmp_path / "run")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("nora15 rounds: reward='paper' needs world_model")
    assert error.count("\n") == 1


def test_the_table():
    total = {"successes": 3, "n": 4, "rate": 0.75, "interval": [0.3, 0.95]}
    paired = {"only_first": 0, "only_second": 1, "p_value": 1.0, "difference": 0.25}
    evaluation = {"policy": {"total": total}, "policy-continued-sft": {"total": total}}
    evaluation |= {"against_before": paired, "against_control": paired}
    rounds = [
        RoundOutcome(number=0, evaluation={"policy": {"total": total}}, seconds=2.4),
        RoundOutcome(number=1, states=5, pairs=4, evaluation=evaluation, seconds=61.0),
    ]
    lines = RoundsReport(rounds, policy="round-01/policy").describe().splitlines()
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
        "1", "4 of 5", "3/4", "30% to 95%", "3/4", "1 won, 0 lost, p = 1.00", "1 won, 0 lost, p = 1.00", "61",
    ]  # fmt: skip
    assert len({len(line) for line in lines[:4]}) == 1
    assert rounds[1].why_it_stops(0.0) is None
    lost = RoundOutcome(number=1, pairs=1, evaluation={"against_before": paired | {"difference": -0.04}})
    assert lost.why_it_stops(0.03).startswith("Round 1 was lost")
    assert lost.why_it_stops(0.05) is None
