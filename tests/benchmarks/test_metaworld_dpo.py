# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The analysis of the preference-tuning study finds effects that were planted and none where there are none; its report checks itself."""

import re
from math import isnan, nan
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import analysis
import report
import simulated_studies
from raw_results import RawResults

TASKS = ("close", "open", "press", "push")
SHARED = {"tasks": list(TASKS), "base": {"sft_steps": 250}}


def planted_study(effects, *, between=0.0, episodes_per_task=25, seeds=5, seed=0):
    """
    Episodes of a control with a success rate of 40 to 70 % and of arms with planted effects, in [0, 1]. Half of the episodes are as
    difficult for all, and `between` is the standard deviation of an effect between training seeds.
    """
    generator = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [range(seeds), TASKS, range(episodes_per_task)], names=["training_seed", "task", "episode_seed"]
    )
    base = np.linspace(0.4, 0.7, len(TASKS))[index.codes[1]]
    common, alike = generator.random(len(index)), generator.random(len(index)) < 0.5
    parts = []
    for arm, effect in {"supervised": 0.0, **effects}.items():
        deviation = between * generator.standard_normal(seeds) * (arm != "supervised")
        difficulty = np.where(alike, common, generator.random(len(index)))
        success = difficulty < base + effect + deviation[index.codes[0]]
        parts.append(index.to_frame(index=False).assign(study="final", arm=arm, success=success, num_steps=9))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("between", [0.0, 0.1])
def test_effects_that_do_not_exist_are_seldom_found(between):
    """`between`: standard deviation, over training seeds, of an effect whose mean is zero."""
    generator = np.random.default_rng(1)
    studies = 700
    found = found_by_bootstrap = 0
    for seed in range(studies):
        cells = simulated_studies.simulated_study(
            generator, effect=0, between=between, seeds=5, episodes=50, tasks=len(TASKS)
        )
        difference = analysis.PairedDifference.of("dpo", "supervised", cells, resamples=100, seed=seed)
        excludes_zero = [low > 0 or high < 0 for low, high in (difference.interval, difference.bootstrap_interval)]
        assert excludes_zero[0] == (difference.p_value < 0.05)
        found += excludes_zero[0]
        found_by_bootstrap += excludes_zero[1]
    assert found <= 0.06 * studies
    # Why the bootstrap is not the test.
    if between:
        assert found_by_bootstrap > 0.09 * studies


def test_simulated_studies_are_told(capsys):
    simulated_studies.main(["--studies", "20", "--other-studies", "10"])
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in told] == [
        "| test, no effect", "| ---", "| primary", "| bootstrap", "| over_cells", "",
        "| primary test, 3 points between seeds", "| ---", "| 5 seeds of 400 episodes", "| 10 seeds of 200 episodes",
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        simulated_studies.main(["--studies", "0"])


def test_a_planted_effect_of_eight_points_is_found():
    episodes = planted_study({"dpo": 0.08, "nothing": 0.0}, between=0.01, episodes_per_task=100)
    found = analysis.paired_difference(episodes, "dpo", "supervised")
    for low, high in (found.interval, found.bootstrap_interval):
        assert 0 < low < 8 < high
    assert found.p_value < 0.05
    assert (found.seeds, found.episodes) == (5, 2000)
    assert found.points == pytest.approx(100 * (found.won - found.lost) / found.episodes)
    assert found.points == pytest.approx(np.mean(list(found.per_seed.values())))
    assert found.points == pytest.approx(np.mean(list(found.per_task.values())))
    rates = {arm: analysis.success_rate(episodes, arm) for arm in ("dpo", "supervised")}
    assert found.points == pytest.approx(100 * (rates["dpo"].rate - rates["supervised"].rate))
    assert rates["dpo"].interval[0] < 0.63 < rates["dpo"].interval[1]
    assert "over 5 training seeds" in found.text()
    assert analysis.paired_difference(episodes, "nothing", "supervised").p_value > 0.05


def test_the_bootstrap_draws_seeds_and_then_episodes_of_each_task():
    episodes = planted_study({"dpo": 0.1}, between=0.2, episodes_per_task=10, seeds=3)
    wide = episodes.pivot_table(index=["training_seed", "task", "episode_seed"], columns="arm", values="success")
    outcomes = (wide["dpo"].astype(int) - wide["supervised"].astype(int)).to_numpy().reshape(3, len(TASKS), 10)
    generator = np.random.default_rng(0)
    drawn = generator.integers(3, size=(4000, 3))
    episode = generator.integers(10, size=(4000, 3, len(TASKS), 10))
    means = np.take_along_axis(outcomes[drawn], episode, axis=3).mean((1, 2, 3))
    found = analysis.paired_difference(episodes, "dpo", "supervised").bootstrap_interval
    assert found == pytest.approx(tuple(100 * np.quantile(means, [0.025, 0.975])), abs=1.5)


def test_seeds_that_agree_by_luck_are_no_certainty():
    episodes = planted_study({"dpo": 0.05}, seeds=1)
    twice = pd.concat([episodes, episodes.assign(training_seed=1)])
    found = analysis.paired_difference(twice, "dpo", "supervised")
    assert len(set(found.per_seed.values())) == 1
    # What the episodes alone leave open.
    deviation = np.sqrt((found.won + found.lost) / found.episodes / found.episodes)
    assert found.interval[1] - found.interval[0] == pytest.approx(100 * 2 * 1.96 * deviation, rel=0.05)
    assert 0.05 < found.p_value < 1
    alone = analysis.paired_difference(twice, "dpo", "supervised", seeds=[1])
    assert isnan(alone.p_value)
    assert alone.interval == alone.bootstrap_interval
    assert "one training seed" in alone.text()
    same = analysis.paired_difference(twice, "dpo", "dpo")
    assert (same.points, same.interval, same.bootstrap_interval, same.p_value) == (0, (0, 0), (0, 0), 1)


def test_unpaired_episodes_are_refused():
    episodes = planted_study({"dpo": 0.1})
    incomplete = episodes.drop(episodes[episodes["arm"] == "dpo"].index[7])
    message = r"'dpo' lacks 1 of them: training seed 0 close episode seed 7\."
    with pytest.raises(ValueError, match=message):
        analysis.paired_difference(incomplete, "dpo", "supervised")
    with pytest.raises(ValueError, match=message):
        analysis.paired_difference(incomplete, "supervised", "dpo")
    with pytest.raises(ValueError, match=r"has training seed 0 close episode seed 0 more than once"):
        analysis.success_rate(pd.concat([episodes, episodes[:1]]), "supervised")
    with pytest.raises(ValueError, match=r"no episodes of 'other'; there are some of \['dpo', 'supervised'\]"):
        analysis.paired_difference(episodes, "other", "supervised")
    with pytest.raises(ValueError, match=r"Training seed 3 has no episode of 'open'"):
        analysis.success_rate(episodes[(episodes["training_seed"] != 3) | (episodes["task"] != "open")], "dpo")


def test_holm():
    # By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which must not be less than the one before.
    found = analysis.holm({"a": 0.01, "b": 0.04, "untested": nan, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "untested": nan, "c": 0.06, "d": 0.02}, nan_ok=True)
    assert list(found) == ["a", "b", "untested", "c", "d"]


def test_both_controls_have_to_be_beaten():
    episodes = planted_study({"dpo": 0.3, "continued-sft": 0.15, "better": 0.45}, episodes_per_task=50)
    both = [analysis.paired_difference(episodes, "dpo", each) for each in ("supervised", "continued-sft")]
    assert analysis.joint_p_value(both) == max(each.p_value for each in both)
    both[1] = analysis.paired_difference(episodes, "dpo", "better")
    assert both[1].p_value < 0.05
    assert analysis.joint_p_value(both) == 1


def planted_candidates(seeds=3, states=60, candidates=4):
    generator = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([range(seeds), range(states), range(candidates)])
    success, count = generator.random(len(index)) < 0.5, len(index)
    noise, state = generator.random(count), index.codes[1]
    return pd.DataFrame(
        {
            "training_seed": index.codes[0],
            "state": state,
            "task": np.array(TASKS)[state % len(TASKS)],
            "episode_seed": state,
            "frame": state,
            "progress": (state / (states - 1)).astype(np.float32),
            "candidate": index.codes[2],
            "success": success,
            "num_steps": 9,
            "reward/planted": success + noise / 2,
            "reward/reversed": -(success + noise / 2),
            "reward/random": generator.random(count),
            "reward/constant": 1.0,
            "reward/late": np.where(state >= states * 2 / 3, success + noise / 2, generator.random(count)),
            # Right where it tells candidates far apart.
            "reward/decisive": np.where(noise < 0.5, 5.0 * success, noise),
            "reward/missing": np.where(state % 2 == 0, success, nan),
        }
    )


def test_reward_quality():
    candidates = planted_candidates()
    found = analysis.reward_quality(candidates, resamples=500).set_index(["reward", "by", "group"])
    total = found.xs(("all", "all"), level=("by", "group"))
    assert total.loc[["planted", "reversed", "constant", "missing"], "share"].tolist() == [1, 0, 0.5, 1]
    assert total.loc[["planted", "reversed"], ["low", "high"]].to_numpy().tolist() == [[1, 1], [0, 0]]
    assert total.loc["random", "low"] < 0.5 < total.loc["random", "high"]
    assert 0.02 < total.loc["random", "high"] - total.loc["random", "low"] < 0.2
    successes = candidates.groupby(["training_seed", "state"])["success"].sum()
    assert (total["pairs"].drop("missing") == (successes * (4 - successes)).sum()).all()
    assert total.loc["missing", "pairs"] < total.loc["planted", "pairs"]
    for by in ("task", "stage", "margin"):
        groups = found.xs(by, level="by").groupby("reward")["pairs"].sum()
        assert groups.to_dict() == total["pairs"].to_dict()
    stages = found.xs(("late", "stage"), level=("reward", "by"))["share"]
    assert stages["last third"] == 1
    assert (stages.drop("last third") < 0.7).all()
    margins = found.xs(("decisive", "margin"), level=("reward", "by"))["share"]
    assert margins["largest quarter"] > margins["smallest quarter"] + 0.2


def test_reward_quality_without_a_pair_that_tells():
    candidates = planted_candidates()
    assert analysis.reward_quality(candidates[candidates["success"]]).empty
    assert analysis.reward_quality(candidates[:0]).empty


def test_candidate_choice():
    candidates = planted_candidates()
    found = analysis.candidate_choice(candidates, resamples=500).set_index("rule")
    success = candidates.groupby(["training_seed", "state"])["success"]
    assert found.loc["any", "share"] == pytest.approx(candidates["success"].mean())
    assert found.loc["any", ["points", "low", "high"]].tolist() == [0, 0, 0]
    assert found.loc["best by planted", "share"] == found.loc["one that succeeds", "share"] == success.max().mean()
    assert found.loc["worst by planted", "share"] == found.loc["best by reversed", "share"] == success.min().mean()
    assert found.loc["best by planted", "low"] > 30
    assert found.loc["best by constant", "share"] == pytest.approx(candidates["success"].mean())
    assert found.loc["best by random", "low"] < 0 < found.loc["best by random", "high"]
    # Among those that a reward of no use leaves, the best is still the best; a reversed one takes it away.
    assert found.loc["not the two worst by random, then best by planted", "points"] > 15
    two_worst = success.apply(lambda values: sorted(values)[1]).mean()
    assert found.loc["not the two worst by reversed, then best by planted", "share"] == pytest.approx(two_worst)
    assert not found.index.str.contains("missing").any()
    assert analysis.candidate_choice(candidates[:0]).empty


def test_reward_agreement():
    found = analysis.reward_agreement(planted_candidates()).set_index(["first", "second"])
    opposite = found.loc["planted", "reversed"]
    assert (opposite["tau"], opposite["same_best"], opposite["same_worst"]) == (-1, 0, 0)
    unrelated = found.loc["planted", "random"]
    assert unrelated["tau"] == pytest.approx(0, abs=0.1)
    assert unrelated["same_best"] == pytest.approx(unrelated["chance"], abs=0.1)
    # All candidates of a constant reward tie for the best.
    assert found.loc["planted", "constant"]["same_best"] == pytest.approx(0.25)
    assert isnan(found.loc["planted", "constant"]["tau"])
    assert found.loc["planted", "missing"]["states"] == 90


def test_the_metric_that_predicts_success_is_found():
    effects = {f"arm-{number}": 0.05 * number for number in range(7)}
    episodes = planted_study(effects, episodes_per_task=40, seeds=2)
    generator = np.random.default_rng(0)
    curves = {
        (seed, arm): {
            "useful": [[1, 0.0], [2, -effect]],
            "useless": [[2, generator.random()]],
            "constant": [[2, 1.0]],
            "rare": [[2, effect]] if arm == "arm-1" else [],
        }
        for seed in range(2)
        for arm, effect in effects.items()
    }
    curves[9, "arm-1"] = {"useful": [[2, 100.0]]}  # has no episodes
    found = analysis.success_predictors(episodes, curves, "supervised", resamples=2000).set_index("metric")
    assert list(found.index) == ["useful", "useless"]
    assert found.loc["useful", "arm_correlation"] < -0.9
    assert found.loc["useful", "adjusted"] < 0.05 < found.loc["useless", "adjusted"]
    assert found.loc["useful", ["runs", "arms"]].tolist() == [14, 7]


def write_study(results, episodes, settings=SHARED, study="final"):
    for (seed, arm), rows in episodes.groupby(["training_seed", "arm"]):
        columns = ["task", "episode_seed", "success", "num_steps"]
        kind = "dpo" if arm.startswith("dpo") else arm.replace("-", "_")
        own = {"kind": kind, "learning_rate": 1e-5, "beta": 10.0 * len(arm), "rewards": {arm: 1.0}, "temperature": 1.0}
        results.write_episodes(study, seed, arm, rows[columns].to_dict("records"), {**settings, "arm": own})


def test_raw_results_are_read_as_they_were_written(tmp_path):
    results = RawResults(tmp_path)
    assert results.read_episodes("final").empty
    assert results.read_candidates("final").empty
    assert results.read_curves("final") == results.settings("final") == results.arm_settings("final") == {}
    episodes = planted_study({"dpo-a-b": 0.1}, episodes_per_task=2, seeds=2)
    write_study(results, episodes)
    keys = ["arm", "training_seed", "task", "episode_seed"]
    read = results.read_episodes("final")
    pd.testing.assert_frame_equal(
        read.sort_values(keys, ignore_index=True),
        episodes.sort_values(keys, ignore_index=True)[read.columns],
        check_dtype=False,
    )
    assert results.settings("final") == SHARED
    assert results.arm_settings("final")["dpo-a-b"]["rewards"] == {"dpo-a-b": 1.0}

    candidates = planted_candidates(seeds=1, states=3)
    rows = candidates.drop(columns="training_seed").to_dict("records")
    results.write_candidates("final", 0, rows, SHARED)
    results.write_candidates("final", 1, [{**row, "reward/new": 0.5} for row in rows], SHARED)
    read = results.read_candidates("final")
    assert analysis.reward_names(read)[-1] == "new"
    assert read["reward/new"].isna().sum() == len(rows)
    assert read["reward/planted"].dtype == np.float32

    results.write_curves("final", 1, "dpo-a-b", {"loss": [[1, 0.5]]})
    assert results.read_curves("final") == {(1, "dpo-a-b"): {"loss": [[1, 0.5]]}}


def test_raw_results_that_do_not_belong_together_are_refused(tmp_path):
    results = RawResults(tmp_path)
    episodes = planted_study({}, episodes_per_task=1, seeds=2)
    write_study(results, episodes)
    write_study(results, episodes.assign(arm="dpo")[:4], {**SHARED, "base": {"sft_steps": 300}})
    with pytest.raises(ValueError, match=r"final-0-supervised.*base\.sft_steps is 300 there and 250 here"):
        results.read_episodes("final")
    results.episodes_file("final", 0, "dpo").unlink()
    row = {"task": "open", "episode_seed": 1, "success": True, "num_steps": 3}
    arm = {"kind": "supervised", "beta": 3.0}
    results.write_episodes("final", 2, "supervised", [row], {**SHARED, "arm": arm})
    with pytest.raises(ValueError, match=r"final-2-supervised.*arm\.beta is 100\.0 there and 3\.0 here"):
        results.read_episodes("final")

    def write(rows, settings=None):
        results.write_episodes("final", 3, "dpo", rows, settings or {"arm": {}})

    for rows, message in (
        ([], "no rows"),
        ([row, row], r"'task': 'open', 'episode_seed': 1\} 2 times"),
        ([{**row, "succes": True}], "lacks or adds succes;"),
        ([{name: row[name] for name in ("task", "success")}], "lacks or adds episode_seed, num_steps;"),
        ([{**row, "success": None}], "'success' is None"),
    ):
        with pytest.raises(ValueError, match=message):
            write(rows)
    with pytest.raises(ValueError, match="lack the section 'arm'"):
        write([row], SHARED)
    with pytest.raises(ValueError, match="has a hyphen"):
        results.episodes_file("final-2", 0, "dpo")
    assert not results.episodes_file("final", 3, "dpo").exists()


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page of the documentation, and the arguments of a report on a folder of raw results without any yet."""
    plan = SimpleNamespace(arms={"dpo-ground-truth": None, "dpo-paper": None}, seeds=(0, 1))
    nothing = SimpleNamespace(arms={}, seeds=())
    monkeypatch.setattr(report, "STUDIES", {"pilot": nothing, "final": plan, "later": nothing, "wide": nothing})
    page = tmp_path / "evidence.md"
    page.write_text(report.PAGE.read_text())
    return page


def test_report(page, tmp_path, capsys):
    arguments = ["--page", str(page), "--results", str(tmp_path / "results")]
    results = RawResults(tmp_path / "results")
    report.main(arguments)
    assert "Missing on all seeds: supervised, continued-sft, dpo-ground-truth, dpo-paper." in page.read_text()
    assert not list(tmp_path.glob("assets/*"))

    arms = {"continued-sft": 0.0, "dpo-ground-truth": 0.2, "dpo-paper": 0.05}
    episodes = planted_study(arms, seeds=2, episodes_per_task=10)
    # The last arm has one seed only.
    write_study(results, episodes[(episodes["arm"] != "dpo-paper") | (episodes["training_seed"] == 0)])
    write_study(results, planted_study({"dpo-x": 0.1, "dpo-yy": 0.2}, seeds=1), study="pilot")
    candidates = planted_candidates(seeds=1, states=20).drop(columns=["training_seed"])
    results.write_candidates("final", 0, candidates.to_dict("records"), SHARED)
    results.write_candidates("wide", 0, candidates.to_dict("records"), SHARED)
    variants = candidates.assign(
        **{f"reward/{name}/end": candidates["reward/planted"] for name in ("steps1", "ensemble")}
    )
    results.write_candidates("variants", 0, variants.to_dict("records"), SHARED)
    results.write_curves("final", 0, "dpo-paper", {"loss": [[1, 0.5]]})
    report.main(arguments)
    text = page.read_text()
    assert "7 of 8 planned runs" in text
    assert "Missing on seeds 1: dpo-paper." in text
    assert "| dpo-paper | continued-sft |" in text
    assert text.count("| planted | 100.0% | 100.0% to 100.0% |") == 2
    assert re.search(r"\| steps1/end \| 100% .*\n\| ensemble/end \| 100% ", text)
    assert "| dpo-yy | dpo | 1e-05 | 60 |" in text
    assert {path.name for path in tmp_path.glob("assets/*")} == {f"evidence-{name}.png" for name in report.PLOTS}
    assert all(f"(assets/evidence-{name}.png)" in text for name in report.PLOTS)
    capsys.readouterr()
    # Of all tables the one that is not what the raw results give.
    page.write_text(text.replace("| planted | 100.0% |", "| planted | 99.0% |", 1))
    with pytest.raises(SystemExit) as stop:
        report.main([*arguments, "--check"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "Tables that differ from the raw results: reward-quality.\n"


def test_arms_that_ran_later_are_compared_with_controls_of_their_own(tmp_path):
    results = RawResults(tmp_path)
    write_study(results, planted_study({"dpo-ground-truth": 0.1}))
    again = planted_study({"dpo-ground-truth": 0.1, "dpo-rounds-3": 0.3}, seed=1)
    write_study(results, again, study="later")
    found = report.Report(results, "final")
    first = results.read_episodes("final")
    here = analysis.paired_difference(first, "dpo-ground-truth", "supervised")
    there = analysis.paired_difference(again, "dpo-rounds-3", "supervised")
    assert found.difference("dpo-ground-truth", "supervised") == here
    assert found.difference("dpo-rounds-3", "supervised") == there
    assert found.difference("dpo-rounds-3", "continued-sft") is None
    assert found.arms == ["supervised", "dpo-ground-truth", "dpo-rounds-3"]
    assert found.success["dpo-rounds-3"] == analysis.success_rate(again, "dpo-rounds-3")
    assert "measured there too (study `later`): dpo-rounds-3." in found.runs()
    _, _, supervised, tuned = found.repeats_table().splitlines()
    assert supervised.startswith("| supervised | 5 |")
    assert tuned.startswith("| dpo-ground-truth | 5 |")
    # Nothing is later than the later arms themselves.
    assert report.Report(results, "later").repeats_table() == report.NOTHING_YET


def test_three_rounds_have_to_beat_the_control_of_as_many_steps(tmp_path):
    results = RawResults(tmp_path)
    arms = {"continued-sft": 0.0, "dpo-rounds-3": 0.3}
    write_study(results, planted_study(arms))
    assert report.Report(results, "final").target_table() == report.NOTHING_YET
    write_study(results, planted_study(arms | {"continued-sft-3x": 0.25}))
    found = report.Report(results, "final")
    *_, planned, joint, verdict, _ = found.target_table().splitlines()[-1].split("|")
    assert float(joint) == round(min(1, 5 * found.difference("dpo-rounds-3", "continued-sft-3x").p_value), 3)
    both = [found.difference("dpo-rounds-3", control) for control in ("supervised", "continued-sft")]
    assert float(planned) == round(5 * analysis.joint_p_value(both), 3) < 0.05 < float(joint)
    assert verdict.strip() == "missed"


def test_arms_added_later_leave_the_adjusted_p_values_alone(tmp_path):
    results = RawResults(tmp_path)
    arms = {"dpo-ground-truth": 0.05, "dpo-success": 0.05}
    write_study(results, planted_study(arms))
    before = report.Report(results, "final").difference_table()
    write_study(results, planted_study(arms | {"dpo-success-cold": 0.1}))
    *rows, added = report.Report(results, "final").difference_table().splitlines()
    assert "\n".join(rows) == before
    assert added.startswith("| dpo-success-cold |")
    assert added.endswith("| - |")


def test_supervised_training_that_is_longer_from_the_start(tmp_path):
    results = RawResults(tmp_path)
    write_study(results, planted_study({"dpo-ground-truth": 0.1}))
    longer = planted_study({}, seeds=2).assign(success=True)
    write_study(results, longer, study="longer")
    rows = report.Report(results, "final").longer_table().splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| supervised, 380 steps", "supervised"], ["| supervised, 380 steps", "dpo-ground-truth"],
    ]  # fmt: skip
    share = results.read_episodes("final").query("arm == 'supervised' and training_seed < 2")["success"].mean()
    assert f"| {100 * (1 - share):+.1f} |" in rows[0]


def test_the_page_names_known_tables_only(page, tmp_path, capsys):
    names = report.Report(RawResults(tmp_path), "final").tables()
    assert all(f"<!-- table: {name} -->" in page.read_text() for name in names)
    for edited, message in (
        ("<!-- table: other -->\n\nx\n\n<!-- end -->", "'other'"),
        ("<!-- table: runs -->", "1 of them"),
    ):
        page.write_text(edited)
        with pytest.raises(SystemExit) as stop:
            report.main(["--page", str(page), "--results", str(tmp_path / "none")])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_documentation_is_that_of_the_raw_results(capsys):
    report.main(["--check"])
    assert "are those of the raw results" in capsys.readouterr().out
