# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 card`: cards from what a folder tells, and cards under the name of their repo."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from helpers.card_facts import DEMONSTRATIONS, POLICY, save_policy, save_world_model, write_demonstrations
from nora15_hf.cards.card_info import Evaluation
from nora15_hf.cards.cards import save_card
from nora15_hf.clips import ClipConventions
from nora15_hf.commands import main
from nora15_hf.data import LeRobotDataset, LeRobotWriter
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.hub import AuthorFacts, push_folder, read_evaluation, write_card
from nora15_hf.hub.card_address import addressed_card
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import FlowSampler, GroundTruthActionReward, WeightedReward, build_preferences
from nora15_hf.trainers import FlowDPOConfig
from nora15_hf.trainers.resume import find_checkpoint

EVALUATION = {
    "environment": "Meta-World 3.1.1",
    "environment_id": "metaworld",
    "results": {"faucet-open": [22, 25], "faucet-close": [16, 25]},
    "conventions": {"renderer": "raycast"},
}


def save_adapter(folder: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path="robots/base")
    get_peft_model(tiny_policy()[0], config).save_pretrained(folder)


def save_preferences(folder: Path) -> None:
    policy, processor = tiny_policy()
    write_demonstrations(folder.parent / "source")
    build_preferences(
        folder,
        policy=policy,
        processor=processor,
        dataset=LeRobotDataset(folder.parent / "source", dataset_key="default"),
        indices=[0, 3],
        reward=WeightedReward({"distance": (GroundTruthActionReward(), 0.5)}),
        num_candidates=2,
        sampler=FlowSampler(num_steps=1),
        progress=False,
    )


SAVERS = {
    "policy": save_policy,
    "world-model": save_world_model,
    "adapter": save_adapter,
    "preferences": save_preferences,
    "demonstrations": write_demonstrations,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Each artefact in a folder, without a card."""
    root = tmp_path_factory.mktemp("saved")
    for name, save in SAVERS.items():
        save(root / name)
        (root / name / "README.md").unlink(missing_ok=True)
    return root


@pytest.mark.parametrize("name", SAVERS)
def test_metadata_passes_the_validation_of_the_hub(hub, saved, name):
    dataset = name in ("preferences", "demonstrations")
    base = {"base_model": "robots/base"} if name == "adapter" else {}
    card = (DatasetCard if dataset else ModelCard).load(write_card(saved / name, AuthorFacts(**base)))
    card.validate(repo_type="dataset" if dataset else "model")
    assert [request.route for request in hub.requests] == ["validate_yaml"]


@pytest.mark.parametrize("name", SAVERS)
def test_a_card_is_made_of_what_the_folder_tells(saved, name, capsys, monkeypatch):
    monkeypatch.chdir(saved)
    base = ["--base-model", "robots/base"] if name == "adapter" else []
    assert main(["card", name, "--repo-id", f"robots/{name}", *base]) == 0
    card_class = DatasetCard if name in ("preferences", "demonstrations") else ModelCard
    card = card_class.load(saved / name / "README.md")
    assert f'"robots/{name}"' in card.text
    assert card.text.lstrip().startswith(f"# {name}\n")
    assert "None" not in card.text
    assert str(saved) not in str(card), "no path of this machine"
    assert capsys.readouterr().out.strip() == f"{name}/README.md"


TOP = "observation.images.top"


def described(**changes):
    """A change of `info.json` that changes the description of the first camera."""
    return lambda info: info["features"][TOP].update(changes)


FOREIGN = {
    "as written": (lambda info: None, f"| image `{TOP}` | 8 × 6 (width × height) RGB, PNG |"),
    "channels first": (
        described(shape=[3, 6, 8], names=["channels", "height", "width"]),
        f"| image `{TOP}` | 8 × 6 (width × height) RGB, PNG |",
    ),
    "depth": (
        described(shape=[6, 8, 1], info={"is_depth_map": True}),
        f"| image `{TOP}` | 8 × 6 (width × height) depth map, PNG |",
    ),
    "no size": (described(shape=[1]), f"| image `{TOP}` | size not stated, PNG |"),
    "second camera": (lambda info: None, "| image `observation.images.wrist` | 4 × 2 (width × height) RGB, PNG |"),
    "no robot": (lambda info: info.pop("robot_type"), "| robot | not stated |"),
    "robot null": (lambda info: info.update(robot_type=None), "format: robot not stated."),
    "a robot": (lambda info: None, "2 frames, in the LeRobot v3.0 format: recorded on so100."),
}


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory) -> Path:
    sizes = {TOP: (6, 8), "observation.images.wrist": (2, 4)}
    features = {key: {"dtype": "image", "shape": (*size, 3)} for key, size in sizes.items()}
    features["action"] = {"dtype": "float32", "shape": (2,)}
    writer = LeRobotWriter(tmp_path_factory.mktemp("foreign") / "d", fps=10, features=features, robot_type="so100")
    frames = {key: np.zeros((2, *size, 3), np.uint8) for key, size in sizes.items()}
    writer.add_episode("open | it", frames | {"action": np.zeros((2, 2), np.float32)})
    return writer.finalize()


@pytest.mark.parametrize(("change", "line"), FOREIGN.values(), ids=FOREIGN.keys())
def test_card_of_a_dataset_of_another_writer(two_cameras, tmp_path, change, line):
    folder = Path(shutil.copytree(two_cameras, tmp_path / "d"))
    info = json.loads((folder / "meta/info.json").read_text())
    change(info)
    (folder / "meta/info.json").write_text(json.dumps(info))
    text = write_card(folder, AuthorFacts()).read_text()
    assert line in text
    assert "None" not in text
    assert "| open \\| it | 1 |" in text


def test_card_of_video_and_of_a_table_without_tasks(tmp_path):
    features = {TOP: {"dtype": "video", "shape": (32, 64, 3)}, "action": {"dtype": "float32", "shape": (2,)}}
    writer = LeRobotWriter(tmp_path / "d", fps=10, features=features, robot_type="so100")
    writer.add_episode("open", {TOP: np.zeros((2, 32, 64, 3), np.uint8), "action": np.zeros((2, 2), np.float32)})
    folder = writer.finalize()
    assert (
        f"| image `{TOP}` | 64 × 32 (width × height) RGB, video, h264 |"
        in write_card(folder, AuthorFacts()).read_text()
    )
    table = folder / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["tasks"]), table)
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"][TOP].pop("info")
    (folder / "meta/info.json").write_text(json.dumps(info))
    text = write_card(folder, AuthorFacts()).read_text()
    assert "64 × 32 (width × height) RGB, video, codec not stated" in text
    assert "| open | not stated |" in text
    assert "1 robot demonstrations" in text


def test_policy_card_tells_sizes_training_and_results(saved, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(saved / "policy", folder)
    args = FlowDPOConfig(output_dir=str(folder), beta=50.0, learning_rate=3e-6, max_steps=7, bf16=False, use_cpu=True)
    find_checkpoint(args, {"policy": "robots/sft"})
    (tmp_path / "results.json").write_text(json.dumps(EVALUATION))
    facts = AuthorFacts(
        base_model="robots/sft",
        datasets=("robots/demonstrations", "robots/preferences"),
        gripper="positive closes",
        evaluation=read_evaluation(tmp_path / "results.json"),
    )
    card = ModelCard.load(write_card(folder, facts))
    num_parameters = sum(parameter.numel() for parameter in tiny_policy()[0].parameters())
    assert f"| parameters | {num_parameters:,} |" in card.text
    assert "| stage | dpo |" in card.text
    assert "| beta | 50 |" in card.text
    assert "| learning rate | 3e-06 |" in card.text
    assert "| max steps | 7 |" in card.text
    assert "output dir" not in card.text
    assert "| action space (4) | not stated |" in card.text
    assert "| gripper | positive closes |" in card.text
    assert "FlowMatchEulerDiscreteScheduler, 10 steps" in card.text
    assert card.data.base_model == "robots/sft"
    assert [result.metric_value for result in card.data.eval_results] == [0.88, 0.64]


def test_without_a_record_the_training_is_not_stated(saved):
    card = ModelCard.load(write_card(saved / "policy"))
    assert "| stage | not stated |" in card.text
    assert "| started from | not stated |" in card.text
    assert "sft" not in card.data.tags


def test_supervised_runs_are_told_from_dpo(saved, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(saved / "policy", folder)
    find_checkpoint(TrainingArguments(output_dir=str(folder), use_cpu=True), {})
    assert "| stage | sft |" in write_card(folder).read_text()


def test_preference_card_tells_provenance(saved):
    text = write_card(saved / "preferences", AuthorFacts(base_model="robots/sft")).read_text()
    assert "| candidates from | robots/sft |" in text
    assert "| world model | not stated |" in text
    assert "| distance | 0.5 |" in text
    assert "| pair | best against worst of the candidates |" in text


def test_demonstration_card_counts_episodes(saved):
    text = write_card(saved / "demonstrations").read_text()
    for instruction in DEMONSTRATIONS.tasks:
        assert f"| {instruction} | 1 |" in text
    assert "Simulated" not in text, "nothing says that these were"


def test_an_adapter_needs_a_base_that_others_can_load(saved, tmp_path):
    shutil.copytree(saved / "adapter", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "somewhere" / "policy")
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"not a Hub id.*--base-model"):
        write_card(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"results": {"reach": 3}}, r"each task to \[successes, episodes\]"),
        ({"results": {"reach": [3, 2]}}, "is \\(3, 2\\)"),
        ({"seed": 0}, "has the fields"),
    ],
)
def test_results_of_another_form_are_refused(tmp_path, change, message):
    (tmp_path / "results.json").write_text(json.dumps(EVALUATION | change))
    with pytest.raises(ValueError, match=message):
        read_evaluation(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("world-model", {"stage": "dpo"}),
        ("adapter", {"example_instruction": "open the door"}),
        ("preferences", {"gripper": "1 closes"}),
        ("demonstrations", {"base_model": "robots/base"}),
        ("demonstrations", {"evaluation": Evaluation(**EVALUATION)}),
    ],
)
def test_facts_that_a_card_does_not_state_are_refused(saved, name, fact):
    base = {"base_model": "robots/base"} if name == "adapter" else {}
    with pytest.raises(ValueError, match=f"does not state {next(iter(fact))}. Omit it"):
        write_card(saved / name, AuthorFacts(**base | fact))


@pytest.mark.parametrize("name", ["world-model", "preferences", "demonstrations"])
def test_results_belong_to_a_policy(saved, name, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(EVALUATION))
    with pytest.raises(ValueError, match=r"those of a policy, but .* holds"):
        read_evaluation(tmp_path / "results.json", saved / name)


def test_results_that_do_not_name_weights_are_told_once(saved, tmp_path, caplog):
    (tmp_path / "results.json").write_text(json.dumps(EVALUATION))
    assert main(["card", str(saved / "policy"), "--evaluation", str(tmp_path / "results.json")]) == 0
    (said,) = [record.getMessage() for record in caplog.records if "weights" in record.getMessage()]
    assert "does not record the weights that were evaluated" in said
    assert str(saved / "policy") in said


def test_artefacts_without_a_card_are_refused(tmp_path):
    (tmp_path / "scheduler_config.json").write_text("{}")
    with pytest.raises(ValueError, match="a scheduler, which has no card of its own"):
        write_card(tmp_path)


def test_a_pushed_card_names_its_repo_and_its_neighbours(hub, tmp_path):
    save_policy(tmp_path / "policy-dpo")
    save_card(tmp_path / "policy-dpo", POLICY)
    push_folder(tmp_path / "policy-dpo", "tuned")
    card = ModelCard(hub.files("robots/tuned")["README.md"].decode())
    assert 'repo = "robots/tuned"' in card.text
    assert card.data.base_model == "robots/policy-sft"
    assert card.data.datasets == ["robots/demonstrations", "robots/preferences"]
    assert "| started from | robots/policy-sft |" in card.text
    assert "| trained on | robots/demonstrations, robots/preferences |" in card.text
    assert [result.metric_value for result in card.data.eval_results] == [0.88, 0.64]
    assert 'repo = "policy-dpo"' in (tmp_path / "policy-dpo/README.md").read_text(), "the folder's own stays as it is"


def test_world_model_card_tells_how_clips_are_read(saved, tmp_path):
    shutil.copytree(saved / "world-model", tmp_path / "world-model")
    assert "| action space (4) | not stated |" in write_card(tmp_path / "world-model").read_text()
    ClipConventions.of_dataset(LeRobotDataset(saved / "demonstrations"), "min_max").save_pretrained(
        tmp_path / "world-model"
    )
    text = write_card(tmp_path / "world-model").read_text()
    assert "| action space (4) | column `action` |" in text
    assert "| action scale | minimum and maximum of the training actions, as stored in `clips.json` |" in text
    assert "| dataset | demonstrations |" in text
    assert "| camera | observation.image |" in text


def test_a_pushed_preference_card_names_its_neighbours(saved, tmp_path):
    shutil.copytree(saved / "preferences", tmp_path / "mine")
    write_card(tmp_path / "mine", AuthorFacts(datasets=("a",), base_model="other/b"))
    addressed = DatasetCard(addressed_card(tmp_path / "mine", "robots/mine"))
    assert "| observations from | robots/a |" in addressed.text
    assert "| candidates from | other/b |" in addressed.text
    assert "| world model | not stated |" in addressed.text
    assert "| pair | best against worst of the candidates |" in addressed.text
    assert 'load_dataset("robots/mine", split="train")' in addressed.text
    assert addressed.data.source_datasets == ["robots/a"]
    again = addressed_card(tmp_path / "mine", "robots/mine")
    (tmp_path / "mine/README.md").write_text(again)
    assert addressed_card(tmp_path / "mine", "robots/mine") == again, "a card with full names stays as it is"


def test_full_names_and_texts_without_metadata_stay(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    text = '---\nbase_model: other/policy\ndatasets:\n- mine\n- data\n---\nfrom_pretrained("other/policy")\n'
    (folder / "README.md").write_text(text)
    addressed = addressed_card(folder, "robots/arm")
    assert addressed == text.replace("- mine", "- robots/arm").replace("- data", "- robots/data")
    (folder / "README.md").write_text("# Notes")
    assert addressed_card(folder, "robots/mine") == "# Notes"


def test_what_somebody_wrote_into_a_card_is_pushed_as_it_is(tmp_path, caplog):
    save_policy(tmp_path / "policy-dpo")
    file = save_card(tmp_path / "policy-dpo", POLICY)
    file.write_text(file.read_text().replace("## Evaluation", "We also tried it on a real arm.\n\n## Evaluation"))
    written = ModelCard.load(file)
    addressed = ModelCard(addressed_card(tmp_path / "policy-dpo", "robots/tuned"))
    assert addressed.text == written.text
    assert addressed.data.base_model == "robots/policy-sft"
    assert "call `nora15 card` with --repo-id robots/tuned" in caplog.text


@pytest.mark.parametrize("cameras", [1, 2], ids=["one camera", "two cameras, state and actions relative to it"])
def test_the_card_of_a_pushed_policy_runs_as_it_reads(hub, cameras, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # With a state, it has the actions' four dimensions.
    model, processor = tiny_policy(
        embodiments={"default": Embodiment(cameras={name: Camera() for name in ("wrist", "top")[:cameras]})},
        **({"state_dim": 4, "state_stats": tiny_policy()[1].norm_stats} if cameras == 2 else {}),
    )
    if cameras == 2:
        processor.delta_action_mask = [True, True, True, False]
    for part in (model, processor):
        part.save_pretrained(tmp_path / "policy")
    write_card(tmp_path / "policy")
    push_folder(tmp_path / "policy", "arm")
    card = hub.files("robots/arm")["README.md"].decode()
    (snippet,) = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("torch.Size([1, 5, 4])")
