# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""lerobot's own commands with the plugin, in an environment of lerobot's."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

try:
    LEROBOT = version("lerobot")
except PackageNotFoundError:
    pytest.skip(
        "needs lerobot, which shares no environment with nora15_hf: python3.12 -m venv lerobot-venv && lerobot-venv/bin/pip "
        "install 'lerobot[evaluation,hardware]==0.6.1' pytest plugins/lerobot_policy_nora15 && "
        "lerobot-venv/bin/python -m pytest plugins/lerobot_policy_nora15",
        allow_module_level=True,
    )

from lerobot.scripts import lerobot_eval, lerobot_rollout

from lerobot_doubles import JOINTS, CountingArm, CountingEnv
from lerobot_policy_nora15 import Nora15Config
from lerobot_policy_nora15.modeling_nora15 import Nora15Policy


def test_lerobot_eval(server, tmp_path, monkeypatch):
    server.metadata["state_dim"] = 3
    CountingEnv.executed.clear()
    arguments = [
        "--policy.type=nora15",
        f"--policy.url={server.url}",
        "--policy.seed=100",
        "--policy.device=cpu",
        "--env.type=counting",
        "--eval.n_episodes=4",
        "--eval.batch_size=2",
        "--eval.use_async_envs=false",
        "--seed=100",
        f"--output_dir={tmp_path}",
    ]
    monkeypatch.setattr(sys, "argv", ["lerobot-eval", *arguments])
    lerobot_eval.main()
    results = json.loads((tmp_path / "eval_info.json").read_text())
    assert results["overall"]["pc_success"] == 100
    # The noise of an episode is the one of its seed, whatever it ran beside.
    expected = [0, 1, 2, 3, 4, 10, 11]
    for seed in range(100, 104):
        steps = seed % 5 + 3
        assert CountingEnv.executed[seed][:steps] == [1000 * seed + number for number in expected[:steps]]
    assert {row["prompt"] for row in server.requests} == {"press the button"}
    assert server.requests[0]["images/wrist"].shape == (8, 12, 3)


def test_lerobot_rollout(server, monkeypatch):
    server.metadata["state_dim"] = len(JOINTS)
    server.metadata["action_names"] = list(JOINTS)
    CountingArm.sent.clear()
    arguments = [
        "--policy.type=nora15",
        f"--policy.url={server.url}",
        "--policy.seed=1",
        "--policy.n_action_steps=2",
        "--policy.device=cpu",
        "--robot.type=counting_arm",
        "--task=open the drawer",
        "--fps=50",
        "--duration=1",
        "--return_to_initial_position=false",
        "--play_sounds=false",
    ]
    monkeypatch.setattr(sys, "argv", ["lerobot-rollout", *arguments])
    lerobot_rollout.main()
    assert [action["pan.pos"] for action in CountingArm.sent[:5]] == [1000, 1001, 1010, 1011, 1020]
    assert {row["prompt"] for row in server.requests} == {"open the drawer"}
    # The state that the second request was made in is what the robot was told last.
    assert server.requests[1]["state"].tolist() == [1001.0] * 4


def test_a_saved_policy_is_its_configuration(server, tmp_path):
    config = Nora15Config(url=server.url, device="cpu", seed=3, cameras={"wrist": "observation.images.wrist"})
    Nora15Policy(config).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["type"] == "nora15"
    loaded = Nora15Policy.from_pretrained(tmp_path)
    assert (loaded.config.seed, loaded.config.cameras) == (3, {"wrist": "observation.images.wrist"})
