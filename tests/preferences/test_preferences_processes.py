# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One preference set made by several processes: the same bytes, whatever happens to them."""

import os
import signal
from pathlib import Path

import pytest
import torch

from helpers.preference_demonstrations import write_demonstrations
from helpers.small_world_models import listening_world_model
from helpers.warm_processes import run_process, run_processes
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    FlowSampler,
    GroundTruthActionReward,
    WeightedReward,
    build_preferences,
    labelling,
    load_preferences,
    preference_info,
    preset_reward,
    regenerate_candidates,
    sample_candidates,
)
from nora15_hf.runtime import cpu_threads
from nora15_hf.runtime.shared_work import ProcessPlace, process_place


@pytest.fixture(scope="module", autouse=True)
def no_threads_chosen():
    """The record of a set holds the threads that a command has chosen, here one of an earlier test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_threads, "_run", None)
        yield


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    return write_demonstrations(tmp_path_factory.mktemp("data") / "demonstrations", lengths=(7, 9, 8))


def build(folder: Path, demonstrations: Path, *, workers: int = 0, dtype: torch.dtype = torch.float32, **changes):
    """24 states in six files, imagined by a world model; the same in every process."""
    policy, processor = tiny_policy(("open the faucet",), image_size=56)
    world_model, world_model_processor = listening_world_model(56, 4)
    arguments = {
        "reward": preset_reward("paper", world_model.to(dtype), world_model_processor),
        "place": process_place(),
        "shard_size": 4,
        "batch_size": 2,
    }
    return build_preferences(
        folder,
        policy=policy.to(dtype),
        processor=processor,
        dataset=LeRobotDataset(demonstrations, dataset_key="default"),
        indices=range(24),
        num_candidates=3,
        sampler=FlowSampler(num_steps=2),
        dataloader_num_workers=workers,
        progress=False,
        **{**arguments, **changes},
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def whole(demonstrations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "preferences"
    rows = build(folder, demonstrations)
    assert len(rows) == 24
    return files_of(folder)


@pytest.mark.slow
def test_a_process_that_finds_no_other_makes_all_files(demonstrations, whole, tmp_path):
    folder = tmp_path / "preferences"
    assert len(build(folder, demonstrations, place=ProcessPlace(0, 3), workers=1)) == 24
    assert files_of(folder) == whole


def killed_in_the_fourth_batch(folder: Path, demonstrations: Path) -> None:
    calls = []

    def sample(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample_candidates(*args, **kwargs)

    labelling.sample_candidates = sample
    build(folder, demonstrations)


@pytest.mark.slow
def test_a_killed_process_is_replaced_by_any_number_of_others(demonstrations, whole, tmp_path):
    folder, place = tmp_path / "preferences", {"RANK": "0", "WORLD_SIZE": "3"}
    output = tmp_path / "output.txt"
    code = run_process(killed_in_the_fourth_batch, folder, demonstrations, output=output, **place)
    assert code == -signal.SIGKILL, output.read_text()
    with pytest.raises(FileNotFoundError, match="is unfinished: 1 files are there, not yet those of all 24 states"):
        load_preferences(folder)
    assert len(build(folder, demonstrations, place=ProcessPlace(0))) == 24
    assert files_of(folder) == whole


@pytest.mark.slow
def test_processes_make_the_same_bytes_together(demonstrations, whole, tmp_path):
    run_processes(build, tmp_path / "preferences", demonstrations, num_processes=3)
    assert files_of(tmp_path / "preferences") == whole


class NotFiniteAt:
    """The distance to the demonstration, but for one state."""

    settings: dict = {}

    def __init__(self, position: int):
        self.position = position

    def score(self, batch):
        score = GroundTruthActionReward().score(batch)
        score[[index == self.position for index in batch.indices]] = float("nan")
        return score


@pytest.mark.slow
def test_a_reward_that_is_not_finite_names_its_file_and_loses_no_other(demonstrations, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"1 of 6 files could not be made.* train-00002-of-00006\.parquet: Reward 'odd' is .*nan.* position 9",
    ):
        build(tmp_path / "p", demonstrations, reward=WeightedReward({"odd": (NotFiniteAt(9), 1.0)}))
    assert len(list((tmp_path / "p" / "data").glob("*.parquet"))) == 5
    rows = build(tmp_path / "p", demonstrations, reward=WeightedReward({"odd": (NotFiniteAt(-1), 1.0)}))
    assert rows["state_index"][:] == list(range(24))


@pytest.mark.slow
def test_in_bfloat16_the_weights_are_recognised_in_either_type(demonstrations, tmp_path, caplog):
    rows = build(tmp_path / "p", demonstrations, dtype=torch.bfloat16)
    settings = preference_info(rows).record.settings
    assert settings.dtype == settings.reward["rewards"]["world_model"]["dtype"] == "bfloat16"
    policy, processor = tiny_policy(("open the faucet",), image_size=56)
    rows = load_preferences(tmp_path / "p", policy=policy, processor=processor)
    assert preference_info(rows).sampled_by_policy is True
    asked = {"processor": processor, "dataset": LeRobotDataset(demonstrations, dataset_key="default")}
    with pytest.raises(ValueError, match=r"in float32\. Load the revision .* with dtype=torch\.bfloat16"):
        regenerate_candidates(tmp_path / "p", rows[3], policy=policy, **asked)
    again = regenerate_candidates(tmp_path / "p", rows[3], policy=policy.to(torch.bfloat16), **asked)
    assert torch.equal(again, torch.tensor(rows[3]["candidates"]))
