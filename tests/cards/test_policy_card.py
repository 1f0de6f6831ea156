# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whoever writes the card of a policy states the same facts about it: trainers, `nora15 card` and the converter."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.flow_dpo_runs import make_rows
from nora15_hf.actions.normalization import ActionStatistics
from nora15_hf.cards.card_info import NOT_STATED
from nora15_hf.cards.cards import save_card
from nora15_hf.cards.policy_card import EXAMPLE_INSTRUCTION, normalization_text, policy_card_info
from nora15_hf.hub import write_card
from nora15_hf.nora15 import convert_nora15_to_hf
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.simulation.metaworld.metaworld_env import MetaWorldEnv
from nora15_hf.trainers import FlowDPOConfig, Nora15SFTConfig
from nora15_hf.trainers.flow_dpo.flow_dpo_card import flow_dpo_card_info
from nora15_hf.trainers.supervised.sft_card import sft_card_info

SIMULATED = MetaWorldEnv.describe(image_size=84, renderer="raycast", max_steps=10).conventions
RECORDED = {"action_space": "joint angles in degrees | left arm", "gripper": "0 closes", "camera": "front"}


def statistics(*raw: int) -> ActionStatistics:
    """Of four dimensions, those of `raw` left in physical units."""
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    return ActionStatistics.from_actions(rows, mask=np.isin(np.arange(4), raw, invert=True))


def by_the_supervised_trainer(folder: Path, model, processor) -> Path:
    args = Nora15SFTConfig(str(folder), use_cpu=True)
    return save_card(folder, sft_card_info(model, processor, args, repo_id="arm", steps=3))


def by_the_dpo_trainer(folder: Path, model, processor) -> Path:
    args = FlowDPOConfig(str(folder), use_cpu=True)
    info = flow_dpo_card_info(model, processor, args, repo_id="arm", steps=3, rows=make_rows(2), preferences=None)
    return save_card(folder, info)


def by_the_command(folder: Path, model, processor) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return write_card(folder)


def by_the_converter(folder: Path, model, processor) -> Path:
    sources = SimpleNamespace(tokenizer="a/b", action_codec="a/c", norm_stats="a/d")
    report = convert_nora15_to_hf.ConversionReport(
        "owner/source", folder, (), (), (), sources, processor.norm_stats, seed=None
    )
    info = convert_nora15_to_hf._card_info(report, model.config, processor, type(model.scheduler).__name__, "arm")
    return save_card(folder, info)


WRITERS = (by_the_supervised_trainer, by_the_dpo_trainer, by_the_command, by_the_converter)
MEAN_STD = "each dimension to mean 0 and standard deviation 1"
QUANTILES = "each dimension from its 1 % and 99 % quantiles to [-1, 1]"
MIN_MAX = "each dimension from its minimum and maximum to [-1, 1]"
CASES = {
    "a simulator's conventions": (
        {"normalization_mode": "min_max", "conventions": {"sim": SIMULATED}, "norm_stats": {"sim": statistics()}},
        {"action space (4)": SIMULATED["action"], "gripper": NOT_STATED, "normalisation": MIN_MAX},
    ),
    "a dataset's conventions, one dimension raw": (
        {"normalization_mode": "mean_std", "conventions": {"arm": RECORDED}, "norm_stats": {"arm": statistics(3)}},
        {
            "action space (4)": RECORDED["action_space"].replace("|", r"\|"),
            "gripper": "0 closes",
            "normalisation": f"{MEAN_STD}; left in physical units: [3]",
        },
    ),
    "two keys that differ": (
        {
            "normalization_mode": "q01_q99",
            "conventions": {"sim": SIMULATED, "arm": RECORDED},
            "norm_stats": {"sim": statistics(), "arm": statistics(0, 3)},
        },
        {
            "action space (4)": f"sim: {SIMULATED['action']}; arm: joint angles in degrees \\| left arm",
            "gripper": "sim: not stated; arm: 0 closes",
            "normalisation": f'{QUANTILES}; left in physical units: {{"arm": [0, 3]}}',
            "statistics keys": "`sim`, `arm`",
        },
    ),
    "two keys that agree": (
        {
            "normalization_mode": "q01_q99",
            "conventions": {"one": RECORDED, "two": RECORDED},
            "norm_stats": {"one": statistics(3), "two": statistics(3)},
        },
        {"gripper": "0 closes", "normalisation": f"{QUANTILES}; left in physical units: [3]"},
    ),
    "nothing stated": (
        {"normalization_mode": "min_max", "norm_stats": {"arm": statistics()}},
        {"action space (4)": NOT_STATED, "gripper": NOT_STATED, "normalisation": MIN_MAX},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_states_the_same_conventions(writer, case, tmp_path):
    options, expected = CASES[case]
    model, processor = tiny_policy(**options)
    text = writer(tmp_path, model, processor).read_text(encoding="utf-8")
    for convention, value in expected.items():
        assert f"| {convention} | {value} |" in text
    assert f'text="{EXAMPLE_INSTRUCTION}"' in text
    several = len(options["norm_stats"]) > 1
    assert (f', dataset_key="{next(iter(options["norm_stats"]))}")' in text) == several


def test_what_an_author_tells_replaces_what_conventions_state():
    model, processor = tiny_policy(conventions={"default": RECORDED})
    info = policy_card_info(
        model.config,
        processor,
        repo_id="owner/arm",
        num_parameters=1,
        scheduler="Euler",
        gripper="+1 closes",
        example_instruction="open",
    )
    assert (info.name, info.gripper, info.example_instruction) == ("arm", "+1 closes", "open")
    assert info.action_space == RECORDED["action_space"]


def test_adapters_say_what_they_are_adapters_of(tmp_path):
    model, processor = tiny_policy()
    model.config.name_or_path = "owner/base"
    args = Nora15SFTConfig(str(tmp_path), use_cpu=True)
    info = sft_card_info(model, processor, args, repo_id="arm", steps=3, is_adapter=True)
    text = save_card(tmp_path, info.addressed("robots/arm")).read_text(encoding="utf-8")
    assert "base_model_relation: adapter" in text
    assert 'repo = "robots/arm"\nmodel, processor = load_merged_policy("owner/base", repo)' in text
    assert "- This repo holds adapters for owner/base and is of no use without it" in text


def test_statistics_of_every_mode():
    assert normalization_text("mean_std", {"arm": statistics()}) == MEAN_STD
    assert normalization_text("min_max", {"a": statistics(1), "b": statistics()}).endswith('units: {"a": [1]}')
