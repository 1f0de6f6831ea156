# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The report and results.json, made from a synthetic run."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from helpers.paths import ROOT
from nora15_hf.quickstart.animation import animated_data_uri
from nora15_hf.quickstart.figures import success_over_all_tasks, training_curves
from nora15_hf.quickstart.report import verdict, write_report
from nora15_hf.quickstart.report_data import (
    Control,
    CurvePanel,
    PairedOutcome,
    PreferenceExample,
    ReportData,
    Rollout,
)
from nora15_hf.quickstart.results import write_results
from nora15_hf.stages.stage_runner import StageCost

TASKS = ("faucet-open", "faucet-close", "button-press-topdown", "handle-press")
SECTIONS = (
    "pipeline",
    "success",
    "paired",
    "controls",
    "curves",
    "rewards",
    "preferences",
    "rollouts",
    "cost",
    "conventions",
)
VOID_TAGS = {"meta", "img", "br", "source", "link", "input", "hr"}


def outcomes(*successes: int) -> dict[str, tuple[int, int]]:
    return {task: (count, 25) for task, count in zip(TASKS, successes, strict=True)}


def frame(step: int) -> np.ndarray:
    """A tidy little scene: table, wall, a target and a hand that comes nearer."""
    picture = np.full((84, 84, 3), (196, 204, 212), dtype=np.uint8)
    picture[42:] = (150, 112, 78)
    picture[50:64, 56:68] = (190, 40, 40)
    column = 12 + 2 * step
    picture[20:46, column : column + 10] = (60, 66, 76)
    picture[46:52, column - 2 : column + 12] = (30, 33, 38)
    return picture


def decay(start: float, end: float, noise: float, rng: np.random.Generator) -> list[tuple[int, float]]:
    steps = np.arange(0, 201, 5)
    values = end + (start - end) * np.exp(-steps / 50) + rng.normal(0, noise, len(steps))
    return [(int(step), float(value)) for step, value in zip(steps, values, strict=True)]


def sample_report() -> ReportData:
    rng = np.random.default_rng(0)
    candidates = rng.normal(-0.3, 0.08, (300, 5)).astype(np.float32)
    demonstrated = np.array([[0.8, 0.5, -0.1, 0.2]] * 5, dtype=np.float32)
    examples = [
        PreferenceExample(
            image=frame(step),
            instruction="open the faucet",
            chosen=demonstrated + rng.normal(0, 0.1, (5, 4)).astype(np.float32),
            rejected=demonstrated * (1, -0.8, 1, 1) + rng.normal(0, 0.2, (5, 4)),
            demonstrated=demonstrated,
            rewards={"world-model goal": (-0.21, -0.34), "GTA": (-0.12, -0.41), "combination": (-0.27, -0.55)},
            origin=(0.2 + 0.03 * step, 0.6),
        )
        for step in (0, 8, 14)
    ]
    return ReportData(
        title="From demonstrations to a preference-tuned policy",
        command="nora15 quickstart --seed 0 --output <folder>",
        success={
            "random": outcomes(0, 0, 1, 2),
            "sft": outcomes(20, 14, 15, 21),
            "continued_sft": outcomes(21, 17, 16, 20),
            "dpo": outcomes(22, 16, 18, 20),
        },
        paired=PairedOutcome(both=66, only_dpo=10, only_continued_sft=8, neither=16, p_value=0.8145),
        controls=[
            Control(
                name="Swapped instruction",
                explanation="The two tasks that share a scene, each with the other's words.",
                intact={task: outcomes(20, 14, 0, 0)[task] for task in TASKS[:2]},
                spoiled={task: outcomes(0, 1, 0, 0)[task] for task in TASKS[:2]},
            ),
            Control(
                name="Shuffled images",
                explanation="Every episode is shown the camera image of another one.",
                intact=outcomes(20, 14, 15, 21),
                spoiled=outcomes(1, 0, 2, 5),
            ),
        ],
        curves={
            "Supervised training": [
                CurvePanel(
                    title="Flow-matching loss",
                    explanation="Falls steeply, then slowly; a plateau near 1 means the expert ignores the image.",
                    curves={"flow_loss": decay(1.6, 0.3, 0.02, rng)},
                ),
                CurvePanel(
                    title="FAST cross-entropy",
                    explanation="The backbone's own prediction of the action tokens.",
                    curves={"lm_loss": decay(6.0, 1.2, 0.1, rng)},
                ),
            ],
            "World model": [
                CurvePanel(
                    title="Prediction losses",
                    explanation="Both fall; the rollout stays a little above teacher forcing.",
                    curves={
                        "teacher forcing": decay(0.8, 0.2, 0.01, rng),
                        "rollout": decay(0.9, 0.27, 0.01, rng),
                    },
                ),
                CurvePanel(
                    title="Spread of the latents",
                    explanation="Standard deviation over frames: near 0 the encoder has collapsed to a constant.",
                    curves={"latent std": decay(0.2, 0.6, 0.01, rng)},
                    reference=("collapsed", 0.0),
                ),
            ],
            "DPO": [
                CurvePanel(
                    title="Margin and its parts",
                    explanation="The margin grows; a falling chosen reward means that both chunks become less likely.",
                    curves={
                        "margin": decay(0.0, 1.4, 0.05, rng),
                        "chosen": decay(0.0, 0.5, 0.05, rng),
                        "rejected": decay(0.0, -0.9, 0.05, rng),
                    },
                ),
                CurvePanel(
                    title="Accuracy",
                    explanation="Share of pairs that the policy ranks as the rewards do; it does not predict success.",
                    curves={"accuracy": decay(0.5, 0.75, 0.02, rng)},
                    reference=("chance", 0.5),
                ),
                CurvePanel(
                    title="Flow error against the reference",
                    explanation="Collapse shows here: both errors rise while the margin grows.",
                    curves={
                        "chosen": decay(0.0, -0.002, 0.001, rng),
                        "rejected": decay(0.0, 0.028, 0.001, rng),
                    },
                    reference=("reference", 0.0),
                ),
            ],
        },
        rewards={
            "world-model goal": candidates,
            "GTA": candidates * 0.8,
            "combination": candidates + 0.5 * 0.8 * candidates,
        },
        examples=examples,
        rollouts=[
            Rollout(
                arm=arm,
                task=task,
                instruction=task.replace("-", " "),
                seed=10_000 + index,
                success=success,
                num_steps=75 if success else 150,
                frames=np.stack([frame(step) for step in range(15)]),
            )
            for index, (arm, task, success) in enumerate(
                [
                    ("sft", "faucet-open", True),
                    ("sft", "faucet-close", False),
                    ("continued_sft", "handle-press", True),
                    ("dpo", "faucet-open", True),
                    ("dpo", "handle-press", True),
                    ("dpo", "button-press-topdown", False),
                ]
            )
        ],
        stages=[
            StageCost(name="demonstrations", seconds=41.2, peak_memory_mib=640),
            StageCost(name="supervised training", seconds=66.0, peak_memory_mib=1240),
            StageCost(name="world model", seconds=98.7, peak_memory_mib=1410),
            StageCost(name="preferences", seconds=44.0, peak_memory_mib=1180),
            StageCost(name="DPO", seconds=38.5, peak_memory_mib=1300),
            StageCost(name="evaluation", seconds=88.1, peak_memory_mib=1520),
        ],
        conventions={
            "environment": {"renderer": "raycast", "image size": 84, "step limit": 150, "success": "at any step"},
            "policy": {"chunk": 5, "executed per chunk": 5, "sampler": "Euler, 10 steps", "gripper": "+1 closes"},
            "seeds": {"training": 0, "evaluation": "10000 – 10024"},
        },
        versions={"nora15_hf": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        action_names=["x", "y", "z", "gripper"],
    )


class PageChecker(HTMLParser):
    """Collects what a page refers to and checks that its tags are closed."""

    def __init__(self):
        super().__init__()
        self.open_tags, self.ids, self.images, self.loads, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes)
        self.loads += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        if tag in {"script", "link", "iframe", "object"}:
            self.loads.append(f"<{tag}>")
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[str, PageChecker]:
    path = write_report(tmp_path_factory.mktemp("report") / "report.html", sample_report())
    html = path.read_text(encoding="utf-8")
    checker = PageChecker()
    checker.feed(html)
    return html, checker


def test_page_is_well_formed_small_and_complete(page):
    html, checker = page
    assert checker.open_tags == []
    assert len(html.encode()) < 5_000_000
    assert [name for name in checker.ids if name in SECTIONS] == list(SECTIONS)
    assert len(checker.ids) == len(set(checker.ids))
    assert html.count('class="how"') == len(SECTIONS)
    assert all(image["alt"] for image in checker.images)


def test_text_from_the_run_is_escaped(page):
    assert "--output &lt;folder&gt;" in page[0]
    assert "<folder>" not in page[0]


def test_page_loads_nothing_from_elsewhere(page):
    html, checker = page
    assert checker.loads
    assert [load[:40] for load in checker.loads if not load.startswith("data:image/")] == []
    assert re.findall(r"@import|url\((?!#)", html) == []
    for uri in checker.loads:
        if uri.startswith("data:image/svg+xml"):
            svg = base64.b64decode(uri.partition(",")[2]).decode()
            assert [link for link in re.findall(r'href="([^"]*)"', svg) if not link.startswith(("#", "data:"))] == []


def test_every_figure_of_the_run_is_on_the_page(page):
    _, checker = page
    text = " ".join(checker.text)
    for expected in (
        "70 of 100",
        "76 of 100",
        "0.815",
        "Swapped instruction",
        "Shuffled images",
        "Flow-matching loss",
        "Spread of the latents",
        "world-model goal -0.210 / -0.340",
        "✗ failure",
        "supervised training",
        "1520",
        "raycast",
        "2.13.0",
        "nora15 quickstart --seed 0",
    ):
        assert expected in text, expected


def test_same_run_gives_the_same_bytes():
    panel = sample_report().curves["DPO"][0]
    assert training_curves(panel) == training_curves(panel)
    frames = sample_report().rollouts[0].frames
    assert animated_data_uri(frames) == animated_data_uri(frames)


def test_verdict_claims_no_more_than_the_episodes_support():
    report = sample_report()
    assert "chance alone could make (p\u00a0=\u00a00.815)" in verdict(report)
    clear = dataclasses.replace(report.paired, p_value=0.0004)
    assert "better than chance would explain (p\u00a0<\u00a00.001)" in verdict(
        dataclasses.replace(report, paired=clear)
    )
    worse = dataclasses.replace(
        report,
        paired=PairedOutcome(both=10, only_dpo=0, only_continued_sft=64, neither=26, p_value=1e-9),
        success=report.success | {"dpo": outcomes(1, 2, 3, 4)},
    )
    assert "worse than chance would explain (p\u00a0<\u00a00.001)" in verdict(worse)


def test_charts_follow_the_colour_scheme():
    svg = base64.b64decode(success_over_all_tasks(sample_report().success).partition(",")[2]).decode()
    assert "prefers-color-scheme:dark" in svg
    assert "fill: var(--ink)" in svg
    assert "#010203" not in svg


def test_animation_keeps_every_frame_and_loops():
    frames = np.stack([frame(step) for step in range(6)])
    uri = animated_data_uri(frames, frames_per_second=5)
    animation = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (animation.n_frames, animation.info["loop"], animation.size) == (6, 0, (84, 84))
    animation.seek(3)
    assert np.abs(np.asarray(animation.convert("RGB"), dtype=int) - frames[3]).mean() < 4


def test_results_hold_intervals_conventions_and_versions(tmp_path):
    results = json.loads(write_results(tmp_path / "results.json", sample_report()).read_text(encoding="utf-8"))
    row = results["success"]["dpo"]["all"]
    assert (row["successes"], row["episodes"], row["rate"]) == (76, 100, 0.76)
    assert row["interval"] == pytest.approx([0.6677, 0.8331], abs=1e-3)
    assert results["conventions"]["environment"]["renderer"] == "raycast"
    assert results["versions"]["torch"] == "2.13.0"
    assert results["dpo_against_continued_sft"]["p_value"] == 0.8145
    assert results["controls"]["Swapped instruction"]["spoiled"]["all"]["successes"] == 1


def test_pipeline_diagram_of_the_readme_is_the_one_in_the_report():
    repository = ROOT
    in_readme = (repository / "docs/assets/pipeline.svg").read_bytes()
    assert in_readme == (repository / "src/nora15_hf/quickstart/pipeline.svg").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: dataclasses.replace(r, success={"sft": outcomes(1, 1, 1, 1)}), "has the arms .'sft'.; expected"),
        (lambda r: dataclasses.replace(r, success=r.success | {"dpo": {"reach": (1, 2)}}), "the same tasks"),
        (
            lambda r: dataclasses.replace(r, paired=dataclasses.replace(r.paired, both=65)),
            "`paired` counts 75 successes",
        ),
        (lambda r: dataclasses.replace(r, paired=dataclasses.replace(r.paired, neither=0)), "out of 84 episodes"),
        (lambda r: dataclasses.replace(r, action_names=["x"]), "one name per dimension"),
        (lambda r: dataclasses.replace(r, rollouts=[dataclasses.replace(r.rollouts[0], arm="ppo")]), "arm 'ppo'"),
        (lambda r: dataclasses.replace(r.rollouts[0], frames=np.zeros((0, 8, 8, 3), np.uint8)), "at least one frame"),
        (lambda r: dataclasses.replace(r.examples[0], image=np.zeros((8, 8, 3))), "expected uint8"),
        (lambda r: dataclasses.replace(r.examples[0], chosen=np.zeros((4, 4))), "the same .steps, dimensions."),
        (lambda r: dataclasses.replace(r.controls[0], spoiled={}), "the same tasks in both"),
        (lambda r: CurvePanel(title="loss", explanation="", curves={"lm_loss": []}), "no points for .'lm_loss'."),
    ],
)
def test_contradictory_data_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change(sample_report())
