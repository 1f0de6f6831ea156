# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 evaluate` from its options to its files, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from helpers.failing_arm import failing_arm_in_the_table
from helpers.paths import ROOT
from helpers.two_camera_arm import TASKS
from nora15_hf.actions import ActionStatistics
from nora15_hf.commands import main
from nora15_hf.control.policy_metadata import METADATA_KEYS, policy_metadata
from nora15_hf.evaluation.results import EvaluationResults
from nora15_hf.hub import add_evaluation, read_evaluation
from nora15_hf.nora15 import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.nora15.presets import tiny_policy


@pytest.fixture(scope="module", autouse=True)
def arm_in_the_table():
    with failing_arm_in_the_table():
        yield


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Folder of a policy for the arm, of two datasets."""
    folder = tmp_path_factory.mktemp("policies") / "policy"
    instructions = [task.instruction for task in TASKS.values()]
    statistics = ActionStatistics.from_actions(np.stack([-np.ones(3), np.ones(3)]).astype(np.float32))
    conventions = {"arm": {"simulator": "failing", "gripper": "1 closes"}, "robot": {}}
    model, processor = tiny_policy(
        instructions,
        image_size=56,
        action_dim=3,
        norm_stats={"arm": statistics, "robot": statistics},
        conventions=conventions,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def evaluate(policy, output, *options: str) -> int:
    tasks = ["--suite", "corners", "--episodes", "2", "--slots", "4", "--workers", "1", "--set", "max_steps=10"]
    return main(["evaluate", str(policy), "--output", str(output), *tasks, *options])


@pytest.fixture(scope="module")
def finished(policy, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluations") / "finished"
    assert evaluate(policy, output) == 0
    return output


def test_the_policy_knows_its_environment_and_statistics(finished):
    settings = EvaluationResults.load(finished).settings
    assert settings["environment"]["name"] == "failing"
    assert settings["environment"]["conventions"]["max_steps"] == 10
    policy = settings["policy"]
    assert (policy["policy"], policy["dataset_key"], policy["decoder"], policy["num_steps"]) == (
        "policy", "arm", "flow", 10,
    )  # fmt: skip
    assert len(policy["policy_fingerprint"]) == 32
    assert policy.keys() == set(METADATA_KEYS)
    assert {"python", "torch", "transformers", "nora15_hf"} <= policy["versions"].keys()


def test_it_prints_rules_table_utilisation_and_comparison(policy, finished, tmp_path, capsys):
    assert evaluate(policy, tmp_path / "run", "--num-steps", "2", "--compare", str(finished)) == 0
    printed = capsys.readouterr().out
    for words in (
        "Two-camera arm: 2 tasks x 2 episodes, seeds 10000 to 10001",
        "decoder flow, 2 steps of FlowMatchEulerDiscreteScheduler",
        "gripper 1 closes",
        "| **total** | 0/4     | 0.0% | 0.0% to 49.0%",
        "Failures: 4 not done by the end of the episode.",
        "the policy worked",
        "0 won, 0 lost, 4 alike",
        "policy.num_steps: 10 there, 2 here",
    ):
        assert words in printed, words
    assert json.loads((tmp_path / "run" / "comparison.json").read_text())["paired"]["neither"] == 4


def test_the_fast_decoder(policy, tmp_path):
    assert evaluate(policy, tmp_path / "run", "--decoder", "fast") == 0
    results = EvaluationResults.load(tmp_path / "run")
    assert results.settings["policy"]["decoder"] == "fast"
    assert len(results.counted) == 4


def test_the_result_is_written_into_the_card(policy, finished, tmp_path):
    assert not (policy / "README.md").exists()
    assert evaluate(policy, finished, "--resume", "--write-card") == 0
    card = ModelCard.load(policy / "README.md")
    found = {result.task_name: result.metric_value for result in card.data.eval_results}
    assert found == {"left": 0.0, "right": 0.0}
    assert "0 of 2" in card.text
    # Of a card that somebody has edited, the text stays.
    (policy / "README.md").write_text((policy / "README.md").read_text() + "\nBy hand.\n")
    evaluation = EvaluationResults.load(finished).card_evaluation()
    better = dict.fromkeys(evaluation.results, (2, 2))
    add_evaluation(policy, type(evaluation)(**vars(evaluation) | {"results": better}))
    card = ModelCard.load(policy / "README.md")
    assert {result.metric_value for result in card.data.eval_results} == {1.0}
    assert card.text.endswith("By hand.\n")
    (policy / "README.md").unlink()
    assert main(["card", str(policy), "--evaluation", str(finished / "results.json")]) == 0
    assert len(ModelCard.load(policy / "README.md").data.eval_results) == 2
    (policy / "README.md").unlink()


def other_weights(model, processor):
    model.action_out_proj.bias.data += 1


def other_statistics(model, processor):
    wider = ActionStatistics.from_actions(np.stack([-2 * np.ones(3), np.ones(3)]).astype(np.float32))
    processor.norm_stats = dict.fromkeys(processor.norm_stats, wider)


def without_the_key(model, processor):
    processor.norm_stats = {"robot": processor.norm_stats["robot"]}


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (other_weights, r"weights \(\w{32} were evaluated, \w{32} are in the folder\)"),
        (other_statistics, "action_statistics"),
        (without_the_key, r"dataset_key \('arm' was evaluated, 'robot' in the folder\)"),
    ],
)
def test_a_card_takes_no_results_of_another_policy(policy, finished, tmp_path, capsys, change, differing):
    model, processor = (kind.from_pretrained(policy) for kind in (Nora15ForActionPrediction, Nora15Processor))
    change(model, processor)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "other")
    assert main(["card", str(tmp_path / "other"), "--evaluation", str(finished / "results.json")]) == 2
    said = capsys.readouterr().err
    assert (
        f"results.json holds the results of the policy 'policy', which is not the one in {tmp_path / 'other'}" in said
    )
    assert re.search(f"They differ in: {differing}\\. ", said), said
    assert not (tmp_path / "other" / "README.md").exists()


def test_a_card_takes_results_in_the_precision_of_their_evaluation(policy, finished, tmp_path):
    """Weights that were rounded for the evaluation are those of the folder."""
    rounded = Nora15ForActionPrediction.from_pretrained(policy, dtype=torch.bfloat16)
    results = EvaluationResults.load(finished)
    metadata = policy_metadata(rounded, Nora15Processor.from_pretrained(policy), dataset_key="arm")
    EvaluationResults({**results.settings, "policy": metadata}, results.episodes).save(tmp_path)
    assert read_evaluation(tmp_path / "results.json", policy).environment_id == "failing"
    # A results.json that lies beside the episodes of another evaluation.
    (tmp_path / "results.json").write_bytes((finished / "results.json").read_bytes())
    with pytest.raises(ValueError, match=r"episodes.parquet beside it are of different evaluations"):
        read_evaluation(tmp_path / "results.json", policy)


def test_episodes_that_cannot_be_run_give_exit_code_1(policy, tmp_path, capsys):
    (tmp_path / "raise-10001").touch()
    options = ["--set", f"faults={tmp_path}"]
    assert evaluate(policy, tmp_path / "run", *options) == 1
    assert "NOT RUN: 2 of 4 episodes" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "results.json").read_text())["success"]["total"]["n"] == 2
    for seed in (10_000, *range(10_002, 10_006)):
        (tmp_path / f"raise-{seed}").touch()
    assert evaluate(policy, tmp_path / "all", *options, "--episodes", "6") == 1
    printed = capsys.readouterr()
    assert "6 of 6 episodes could not be run" in printed.err
    assert "--resume continues" in printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--environment", "metaword"], "Unknown environment 'metaword'. Nearest: metaworld"),
        (["--environment", "failing", "--suite", "corner"], "Unknown suite 'corner'. Nearest: corners"),
        (["--environment", "failing", "--tasks", "lft"], "Unknown task 'lft'. Nearest: left"),
        (["--environment", "failing", "--tasks", "left", "--protocol", "x"], "Unknown protocol 'x'. Nearest: strict"),
        (["--tasks", "left", "--protocol", "strict", "--set", "protocol=lax"], "--set protocol=lax: give one of them"),
        (["--environment", "failing"], "Name --tasks or --suite of failing, which has 2 tasks. Suites: corners."),
        (["--tasks", "left", "--set", "max_step=3"], "Unknown setting 'max_step'. Nearest: max_steps"),
        (["--tasks", "left", "--set", "max_steps"], "'max_steps' is not NAME=VALUE"),
        (["--tasks", "left", "--dataset-key", "arms"], "`dataset_key` 'arms' is unknown"),
        (["--tasks", "left", "--n-action-steps", "6"], "more than the policy's chunk of 5 actions"),
        (["--tasks", "left", "--decoder", "fast", "--num-steps", "3"], "--num-steps 3 applies to the flow decoder"),
        (["--tasks", "left", "--decoder", "fast", "--temperature", "0.5"], "--temperature 0.5 applies to the flow"),
        (["--tasks", "left", "--temperature", "-1"], "'-1' is not a number of at least 0"),
        (["--environment", "failing", "--tasks", "left", "--control", "swapped_instruction"], "share a scene"),
        (["--tasks", "left", "--compare", "."], "holds no results of nora15 evaluate"),
        (["--tasks", "left", "--compare", "no"], "neither an existing file nor an existing folder"),
    ],
)
def test_what_is_refused(policy, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["evaluate", str(policy), "--output", "run", *options])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_options_of_the_policy_belong_to_its_server(tmp_path, capsys):
    options = ["--output", str(tmp_path / "run"), "--environment", "failing", "--tasks", "left", "--num-steps", "2"]
    assert main(["evaluate", "ws://127.0.0.1:1", *options]) == 2
    assert "--num-steps: the server of ws://127.0.0.1:1 decides this" in capsys.readouterr().err
    assert main(["evaluate", "me/x", *options, "--write-card"]) == 2
    assert "nora15 card --evaluation results.json" in capsys.readouterr().err


# The command, killed with its simulators when it writes down its third episode.
KILLED = """
import os, signal, sys
from helpers.failing_arm import failing_arm_in_the_table
from nora15_hf.commands import main
from nora15_hf.evaluation import evaluation_run

write_json, written = evaluation_run.write_json, []

def killing(file, content):
    if file.parent.name == "episodes":
        written.append(file)
        if len(written) == 3:
            os.killpg(os.getpgrp(), signal.SIGKILL)
    write_json(file, content)

evaluation_run.write_json = killing
with failing_arm_in_the_table():
    main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_command_is_resumed(policy, finished, tmp_path):
    output = tmp_path / "run"
    options = ["--suite", "corners", "--episodes", "2", "--slots", "4", "--workers", "1", "--set", "max_steps=10"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "evaluate", str(policy), "--output", str(output), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        start_new_session=True,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((output / ".evaluation" / "episodes").glob("*.json"))) == 2
    assert evaluate(policy, output, "--resume") == 0
    for name in ("results.json", "episodes.parquet"):
        assert (output / name).read_bytes() == (finished / name).read_bytes()


def test_a_served_policy_is_evaluated_as_one_in_this_process(policy, finished, tmp_path, capsys):
    pytest.importorskip("websockets", reason="pip install 'nora15_hf[serve]'")
    from nora15_hf.serving.served_policy import ModelPolicy
    from nora15_hf.serving.server import PolicyServer

    with PolicyServer(ModelPolicy.from_pretrained(policy, dataset_key="arm"), port=0) as server:
        assert evaluate(server.url, tmp_path / "run", "--compare", str(finished)) == 0
        assert "Differs in: nothing." in capsys.readouterr().out
        for name in ("results.json", "episodes.parquet"):
            assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
