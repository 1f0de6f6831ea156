# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Model and dataset cards: complete, valid metadata, and usage snippets that run on the real artefacts."""

import dataclasses
import functools
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard, ModelCard
from peft import LoraConfig, get_peft_model

from helpers.card_facts import (
    ACTION_SPACE,
    DEMONSTRATIONS,
    EVALUATION,
    POLICY,
    save_policy,
    save_world_model,
    write_demonstrations,
)
from nora15_hf.cards.card_info import (
    AdapterCardInfo,
    PreferenceCardInfo,
    WorldModelCardInfo,
)
from nora15_hf.cards.card_settings import setting_text
from nora15_hf.cards.cards import save_card
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences.preference_dataset import preference_features
from nora15_hf.preferences.preference_record import DATA_FILES

ADAPTER = AdapterCardInfo(
    repo_id="adapter",
    name="nora15-metaworld-lora",
    base_model="policy-dpo",
    num_parameters=12_345,
    rank=2,
    alpha=4,
    target_modules=r"action_expert\.layers\.\d+\.(self_attn|mlp)\.\w+_proj",
    modules_to_save=("action_out_proj",),
    training={"steps": 200},
    datasets=("demonstrations",),
    evaluation=EVALUATION,
    limits=("Trained on 80 demonstrations of four tasks.",),
)

WORLD_MODEL = WorldModelCardInfo(
    repo_id="world-model",
    name="vjepa2-ac-metaworld",
    num_parameters=1_500_000,
    image_size=84,
    action_dim=4,
    horizon=5,
    encoder="trained from random weights on the same demonstrations, then frozen",
    frame_step="one control step, 1/80 s",
    action_space=ACTION_SPACE,
    action_scale="as the policy's",
    state_input="zeros",
    datasets=("demonstrations",),
    training={"steps": 400},
    metrics={"latent standard deviation": 0.61, "demonstrated chunk closer than a noisy one": "78 %"},
)

PREFERENCES = PreferenceCardInfo(
    repo_id="preferences",
    name="metaworld-preferences",
    data_files=DATA_FILES,
    num_rows=2_970,
    num_candidates=5,
    chunk_size=5,
    action_dim=4,
    demonstrations="demonstrations",
    policy="policy-sft",
    world_model="world-model",
    rewards={"world-model goal": 1.0, "GTA": 0.5},
    selection="best against worst of the candidates",
    min_margin=0.0,
    num_dropped=30,
    provenance={"sampler": "Euler, 10 steps", "seed": 0},
    decisions={"world-model goal": ["1", "0.00132", "0%", "31%", "96%"], "GTA": ["0.5", "0.0342", "0%", "96%", "31%"]},
    agreement={"world-model goal, GTA": 0.125},
    warning="The reward 'GTA' decides: alone it would choose 96% of the 2970 pairs as they are.",
)


def write_preferences(folder: Path) -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(5, 5, 4)).astype(np.float32)
    row = {
        "images": [np.zeros((84, 84, 3), np.uint8)],
        "instruction": "open the faucet",
        "actions": candidates[0],
        "action_mask": [True] * 5,
        "candidates": candidates,
        "rewards": {"goal": [0.0] * 5, "gta": [0.0] * 5},
        "reward": [0.0] * 5,
        "chosen": candidates[0],
        "rejected": candidates[1],
        "margin": 0.1,
        "dataset_key": "metaworld",
        "episode_index": 0,
        "frame_index": 0,
        "state": [0.0] * 4,
        "seed": 0,
        "state_index": 0,
        "sampling_batch": 0,
    }
    (folder / "data").mkdir(parents=True)
    rows = Dataset.from_list([row], features=preference_features(5, 5, 4, ["goal", "gta"]))
    rows.to_parquet(folder / "data/train-00000-of-00001.parquet")


def save_adapter(folder: Path) -> None:
    config = LoraConfig(r=2, target_modules=ADAPTER.target_modules, modules_to_save=list(ADAPTER.modules_to_save))
    get_peft_model(tiny_policy()[0], config).save_pretrained(folder)


CARDS = {
    "policy-dpo": (save_policy, POLICY, ModelCard),
    "adapter": (save_adapter, ADAPTER, ModelCard),
    "world-model": (save_world_model, WORLD_MODEL, ModelCard),
    "preferences": (write_preferences, PREFERENCES, DatasetCard),
    "demonstrations": (write_demonstrations, DEMONSTRATIONS, DatasetCard),
}


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """The artefacts with their cards, as a quickstart leaves them."""
    root = tmp_path_factory.mktemp("output")
    for name, (save, info, _) in CARDS.items():
        save(root / name)
        save_card(root / name, info)
    return root


@pytest.mark.parametrize("name", CARDS)
def test_card_is_complete_and_its_metadata_survives_a_round_trip(output, name):
    *_, card_class = CARDS[name]
    card = card_class.load(output / name / "README.md")
    assert card.data.license == "apache-2.0"
    assert "robotics" in card.data.tags
    assert card_class(str(card)).data.to_dict() == card.data.to_dict()
    # outside code and mathematics nothing may be left of a template, nor of an empty value
    assert re.findall(r"\{[{%]|[%}]\}|\bNone\b|Undefined", re.sub(r"```.*?```", "", card.text, flags=re.S)) == []
    for line in card.text.splitlines():
        assert not re.search(r"\|\s*\|$", line.replace("| | |", "")), f"empty cell: {line}"
    for table in re.findall(r"(?:^\|.*\n)+", card.text, flags=re.M):
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(columns) == 1, f"ragged table:\n{table}"


@pytest.mark.parametrize("name", CARDS)
def test_template_uses_only_what_it_is_given(output, tmp_path, monkeypatch, name):
    # an unknown variable renders as nothing by default; here it raises
    monkeypatch.setattr(jinja2, "Template", functools.partial(jinja2.Template, undefined=jinja2.StrictUndefined))
    save, info, _ = CARDS[name]
    save(tmp_path / name)
    card = save_card(tmp_path / name, info)
    assert card.read_text(encoding="utf-8") == (output / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CARDS)
def test_usage_snippets_run(output, monkeypatch, name, capsys):
    monkeypatch.chdir(output)
    snippets = re.findall(
        r"```python\n(.*?)```", (output / name / "README.md").read_text(encoding="utf-8"), flags=re.S
    )
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, f"{name}/README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", ["preferences", "demonstrations"])
def test_load_dataset_finds_the_rows_through_the_card(output, name):
    rows = load_dataset(str(output / name), split="train")
    assert len(rows) == {"preferences": 1, "demonstrations": 6}[name]


def test_evaluation_becomes_a_model_index(output):
    card = ModelCard.load(output / "policy-dpo" / "README.md")
    assert card.data.model_name == "nora15-metaworld-dpo"
    assert [(result.task_name, result.metric_value) for result in card.data.eval_results] == [
        ("faucet-open", 0.88),
        ("faucet-close", 0.64),
    ]
    assert card.data.base_model == "policy-sft"
    assert card.data.datasets == ["demonstrations", "preferences"]
    assert "| **all** | 76.0% | 38 of 50 | 62.6% – 85.7% |" in card.text
    assert r"| seeds | 10000 \| 10024 |" in card.text
    assert "| crop | field 114, left 20 |" in card.text


def test_policy_card_before_evaluation_and_with_several_keys(tmp_path):
    info = dataclasses.replace(
        POLICY, stage="sft", evaluation=None, rewards={}, base_model=None, statistics_keys=("libero", "metaworld")
    )
    card = ModelCard.load(save_card(tmp_path, info))
    assert card.data.eval_results is None
    assert card.data.base_model is None
    assert "Not evaluated in closed loop" in card.text
    assert "Preference pairs are" not in card.text
    assert 'model.sample_actions(**inputs), dataset_key="libero")' in card.text


def test_setting_text():
    assert setting_text({"a": 1e-5, "b": [1, True, None]}) == "a 1e-05, b 1, yes, –"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: dataclasses.replace(POLICY, stage="rl"),
            "`stage` is 'rl'; expected one of sft, continued-sft, dpo, not stated",
        ),
        (lambda: dataclasses.replace(POLICY, base_model="/home/me/policy"), "`base_model` is .* not a path"),
        (lambda: dataclasses.replace(POLICY, datasets=("a", "./b/c/d")), r"`datasets\[1\]` is './b/c/d'"),
        (lambda: dataclasses.replace(PREFERENCES, policy="../policy-sft/"), "`policy` is"),
        (lambda: dataclasses.replace(POLICY, statistics_keys=()), "`statistics_keys` is empty"),
        (lambda: dataclasses.replace(EVALUATION, results={}), "`results` is empty"),
        (lambda: dataclasses.replace(EVALUATION, results={"reach": (3, 2)}), r"`results\['reach'\]` is \(3, 2\)"),
    ],
)
def test_information_that_would_make_a_wrong_card_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change()


def test_card_needs_its_artefact(tmp_path):
    with pytest.raises(NotADirectoryError, match="save the model or dataset there first"):
        save_card(tmp_path / "missing", POLICY)
    with pytest.raises(FileNotFoundError, match="Write the data first"):
        save_card(tmp_path, PREFERENCES)


def test_a_preference_card_tells_which_reward_decides(tmp_path):
    write_preferences(tmp_path)
    text = save_card(tmp_path, PREFERENCES).read_text()
    rows = [
        "| reward | weight | spread within states | ties | same pairs with it alone | same pairs without it |",
        "|---|---|---|---|---|---|",
        "| world-model goal | 1 | 0.00132 | 0% | 31% | 96% |",
        "| GTA | 0.5 | 0.0342 | 0% | 96% | 31% |",
        "",
        "Kendall's tau of world-model goal, GTA, averaged over states: 0.125.",
        "",
        "**The reward 'GTA' decides: alone it would choose 96% of the 2970 pairs as they are.**",
        "",
        "Sources and settings:",
    ]
    assert "\n".join(rows) in text
    unknown = save_card(
        tmp_path, dataclasses.replace(PREFERENCES, decisions={}, agreement={}, warning=None)
    ).read_text()
    assert "| GTA | 0.5 |\n\nSources and settings:" in unknown
