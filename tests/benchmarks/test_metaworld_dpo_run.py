# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The study's command, each kind of arm as small as it can be: raw results, comparison with both controls, resuming."""

from dataclasses import replace

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import reward_variants
from raw_results import RawResults
from reward_variants import Training, score_variants
from run import main
from study import STUDIES, VARIANTS, Arm, Base, Study

BASE = Base(
    tasks=("faucet-open",),
    demonstrations=3,
    sft_steps=2,
    encoder_steps=2,
    predictor_steps=2,
    states=8,
    candidates=3,
    reached_episodes=1,
    rollout_states=2,
)
SHORT = Arm(kind="continued_sft", steps=2, batch_size=4)
DPO = replace(SHORT, kind="dpo", rewards={"ground_truth": 1.0})
ARMS = {
    "supervised": Arm(kind="supervised"),
    "continued-sft": SHORT,
    "dpo-equal-say": replace(DPO, rewards={"end_goal": 1.0, "ground_truth": 1.0}, standardize=True),
    "dpo-rounds-2-cold": replace(DPO, states="recoveries", rounds=2, temperature=0.0),
    "dpo-rollouts": replace(DPO, states="rollouts", rewards={"subgoal": 1.0}, batch_size=2),
    "supervised-fast": Arm(kind="supervised", decoder="fast"),
    "reward-weighted": replace(DPO, kind="reward_weighted"),
}


@pytest.mark.slow
def test_every_kind_of_arm(tmp_path, monkeypatch, capsys):
    pytest.importorskip("metaworld", reason="needs the simulator")
    study = Study(
        name="tiny", base=BASE, seeds=(3,), episodes_per_task=1, first_episode_seed=7, episode_seed_step=10, arms=ARMS
    )
    monkeypatch.setitem(STUDIES, "tiny", study)
    options = ["--study", "tiny", "--jobs", "1", "--output", str(tmp_path)]
    main(options)
    printed = capsys.readouterr().out
    assert "dpo-equal-say against continued-sft: " in printed
    assert "of 1 episodes" in printed
    results = RawResults(tmp_path / "results")
    episodes = results.read_episodes("tiny")
    assert episodes.groupby("arm").size().to_dict() == dict.fromkeys(ARMS, 1)
    assert set(episodes["episode_seed"]) == {37}
    assert results.arm_settings("tiny")["dpo-rollouts"] == ARMS["dpo-rollouts"].settings
    curves = results.read_curves("tiny")
    assert curves[3, "dpo-rounds-2-cold"].keys() > {"loss", "round 2: loss"}
    assert (
        curves[3, "dpo-rounds-2-cold"]["samples/spread"][0][1] < 1e-5 < curves[3, "supervised"]["samples/spread"][0][1]
    )
    goals = results.read_goals("tiny")
    assert set(goals["task"]) == {"faucet-open"}
    assert goals["progress"].between(0, 1).all()
    candidates = results.read_candidates("tiny")
    assert len(candidates) == BASE.rollout_states * BASE.candidates
    assert {"reward/end_goal", "reward/subgoal", "reward/ground_truth"} < set(candidates.columns)
    assert (candidates["success"] == (candidates["num_steps"] >= 0)).all()

    shorter = Training(demonstrations=2, encoder_steps=2, predictor_steps=2)
    monkeypatch.setattr(reward_variants, "TRAININGS", {"own": Training(), "shorter": shorter})
    score_variants(study, 3, tmp_path, results)
    variants = results.read_candidates(VARIANTS)
    assert len(variants) == len(candidates)
    # The study's own world model gives what its rewards gave.
    for way, reward in (("end", "end_goal"), ("subgoal1", "subgoal"), ("ground_truth", "ground_truth")):
        column = "reward/ground_truth" if way == "ground_truth" else f"reward/own/{way}"
        np.testing.assert_allclose(variants[column], candidates[f"reward/{reward}"], rtol=1e-4, atol=1e-6)
    assert {
        "reward/shorter/progress",
        "reward/ensemble/end",
        "reward/own/end_pooled",
        "reward/own/end_with_policy",
    } < set(variants.columns)
    assert not variants.isna().any(axis=None)

    candidates["reward/ground_truth"] -= 0.1
    results.write_candidates("tiny", 3, candidates.drop(columns=["study", "training_seed"]).to_dict("records"), {})
    with pytest.raises(ValueError, match="not those of the candidates in the study's folder"):
        score_variants(study, 3, tmp_path, results)
    # Raw results that are gone are written again from what is in the study's folder.
    for kind in ("candidates", "goals"):
        (results.folder / kind / "tiny-3.parquet").unlink()

    files = {file: file.stat().st_mtime_ns for file in results.folder.rglob("*.parquet")}
    main([*options, "--arms", "dpo-rollouts"])
    assert "(done before)" in capsys.readouterr().out
    now = {file: file.stat().st_mtime_ns for file in results.folder.rglob("*.parquet")}
    assert {file.parent.name for file in now.keys() - files.keys()} == {"candidates", "goals"}
    assert now.items() > files.items()
    assert_frame_equal(results.read_goals("tiny"), goals)
