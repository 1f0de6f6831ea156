# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Reward-weighted supervised training: the weights, the loss that they make, and what is refused."""

import copy

import numpy as np
import pytest
import torch

from helpers.flow_dpo_runs import bit_equal, make_rows, snapshot
from helpers.preference_demonstrations import write_demonstrations
from nora15_hf.commands import sft
from nora15_hf.data import LeRobotDataset
from nora15_hf.preferences import GroundTruthActionReward, WeightedReward, build_preferences
from nora15_hf.trainers import Nora15SFTConfig, Nora15SFTTrainer
from nora15_hf.trainers.supervised.reward_weighting import CHUNK_WEIGHTS, CandidateCollator, RewardWeighting

ARGUMENTS = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
    "objective": "flow",
}


def rows_with(reward, **changes):
    count = len(reward)
    candidates = np.random.default_rng(1).normal(scale=0.5, size=(count, 2, 5, 4)).astype(np.float32)
    # One state's demonstration has ended after three steps.
    mask = np.arange(5) < np.array([3] + [5] * (count - 1))[:, None]
    columns = {
        "candidates": list(candidates),
        "chosen": list(candidates[:, 0]),
        "rejected": list(candidates[:, 1]),
        "reward": list(np.array(reward, dtype=np.float32)),
        "action_mask": list(mask),
    }
    return make_rows(count, **(columns | changes))


REWARD = [[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [0.5, 0.5]]


def make_trainer(policy, processor, folder, rows, **options):
    given = {
        name: options.pop(name) for name in ("data_collator", "processing_class", "eval_dataset") if name in options
    }
    args = Nora15SFTConfig(str(folder), **(ARGUMENTS | {"reward_weighting": {}} | options))
    return Nora15SFTTrainer(policy, args, train_dataset=rows, **({"processing_class": processor} | given))


def test_weights_against_values_by_hand():
    # Advantages of 0.5 and 1.5, whose root mean square is sqrt(1.25): exp(+-0.4472) and exp(+-1.3416), of which 3.825 is
    # clipped to 3; divided by their mean, 1.3662.
    found = RewardWeighting(max_weight=3.0).weights(np.array([[0, 1], [0, 3]], dtype=np.float32))
    np.testing.assert_allclose(found, [[0.46803, 1.14473], [0.19134, 2.19590]], atol=2e-5)
    assert found.dtype == np.float32
    # The scale of the rewards does not count, and a state's level does not either.
    unbounded = RewardWeighting(temperature=1e-3, max_weight=float("inf")).weights(np.array([[0.0, 1.0], [0.0, 3.0]]))
    np.testing.assert_allclose(unbounded, [[0, 0], [0, 4]])
    again = RewardWeighting(max_weight=3.0).weights(np.array([[7, 17], [-9, 21]], dtype=np.float32))
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_a_low_temperature_leaves_the_best_alone():
    found = RewardWeighting(temperature=1e-3).weights(np.array([[0.1, 0.2, 0.9], [3.0, 1.0, 1.5]]))
    np.testing.assert_allclose(found, [[0, 0, 3], [3, 0, 0]], atol=1e-6)


def test_the_loss_is_the_weighted_mean_of_what_the_policy_returns_per_chunk(policy, processor, tmp_path):
    trainer = make_trainer(policy, processor, tmp_path, rows_with(REWARD))
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    weights = torch.from_numpy(RewardWeighting().weights(np.array(REWARD, dtype=np.float32)))
    torch.testing.assert_close(batch[CHUNK_WEIGHTS], weights)
    model = trainer.model.train()
    draws = trainer._training_draws(batch["actions"])
    loss, outputs = trainer.compute_loss(model, batch, return_outputs=True)
    inputs = {name: value for name, value in batch.items() if name != CHUNK_WEIGHTS} | draws
    per_chunk = model(**inputs, loss_reduction="chunk_mean").flow_loss
    steps = batch["action_mask"].sum(1, keepdim=True)
    expected = (weights * steps * per_chunk).sum() / (2 * steps.sum())
    torch.testing.assert_close(outputs.flow_loss, expected)
    torch.testing.assert_close(loss, policy.config.flow_loss_weight * expected)
    assert not torch.isclose(expected, (steps * per_chunk).sum() / (2 * steps.sum()), rtol=1e-3)


class PlainCollator(CandidateCollator):
    """The same chunks, all alike."""

    def __call__(self, rows):
        batch = super().__call__([row | {CHUNK_WEIGHTS: [0.0]} for row in rows])
        del batch[CHUNK_WEIGHTS]
        return batch


def test_equal_rewards_are_plain_training_to_the_bit(tiny, processor, tmp_path):
    def trained(name, rows, **options):
        trainer = make_trainer(copy.deepcopy(tiny[0]), processor, tmp_path / name, rows, **options)
        trainer.train()
        return trainer.model

    equal = rows_with(np.repeat([[0.1], [-3.0], [0.7], [1e-5]], 2, axis=1))
    plain = trained("plain", equal, reward_weighting=None, data_collator=PlainCollator(processor))
    assert bit_equal(snapshot(plain), trained("equal", equal))
    assert not bit_equal(snapshot(plain), trained("unequal", rows_with(REWARD)))


def test_evaluates_held_out_rows_and_takes_a_state_once(policy, processor, tmp_path):
    rows = rows_with(REWARD)
    twice = rows.select([0, 0, 1, 2, 1])
    trainer = make_trainer(policy, processor, tmp_path, twice, eval_dataset={"held_out": rows.select([2, 3])})
    assert [row["reward"] for row in trainer.train_dataset] == REWARD[:3]
    metrics = trainer.evaluate()
    assert metrics["eval_held_out_flow_loss"] > 0
    assert metrics["eval_held_out_loss"] == pytest.approx(10 * metrics["eval_held_out_flow_loss"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "joint"}, "objective='joint' does not apply with reward_weighting.*Set objective to 'flow'"),
        ({"image_augmentation": {}}, "image_augmentation={} does not apply with reward_weighting"),
        ({"open_loop_episodes": 1}, "open_loop_episodes=1 does not apply with reward_weighting"),
        ({"reward_weighting": {"temperature": 0}}, "temperature=0 of reward_weighting must be greater than 0"),
        ({"reward_weighting": {"max_weight": 1}}, "max_weight=1 of reward_weighting must be greater than 1"),
        ({"reward_weighting": {"beta": 1}}, "reward_weighting={'beta': 1}: .*beta"),
        ({"data_collator": list}, "leave data_collator out"),
        ({"processing_class": None}, "give processing_class"),
        ({"reward_weighting": None}, "train_dataset holds preference rows, whose chunks are normalised already"),
    ],
)
def test_options_that_do_not_fit(policy, processor, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        make_trainer(policy, processor, tmp_path, rows_with(REWARD), **options)


def test_rows_that_do_not_fit(policy, processor, tmp_path):
    with pytest.raises(ValueError, match="Row 1 of train_dataset: reward holds a number that is not finite"):
        make_trainer(policy, processor, tmp_path, rows_with([[0, 1], [0, float("nan")]]))
    with pytest.raises(ValueError, match=r"train_dataset lacks the columns .*'reward'"):
        make_trainer(policy, processor, tmp_path, make_rows(4))
    demonstrations = LeRobotDataset(write_demonstrations(tmp_path / "demonstrations"), dataset_key="default")
    with pytest.raises(TypeError, match="train_dataset is a LeRobotDataset, expected"):
        make_trainer(policy, processor, tmp_path, demonstrations)


@pytest.mark.slow
def test_the_command_trains_on_preferences_and_its_card_tells_of_them(policy, processor, tmp_path):
    policy.save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    dataset = LeRobotDataset(write_demonstrations(tmp_path / "demonstrations"), dataset_key="default")
    build_preferences(
        tmp_path / "preferences",
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=range(0, 16, 2),
        reward=WeightedReward({"ground_truth": (GroundTruthActionReward(), 1.0)}),
        num_candidates=3,
        progress=False,
    )
    options = {"policy": tmp_path / "policy", "preferences": tmp_path / "preferences", "output_dir": tmp_path / "run"}
    options |= ARGUMENTS | {"reward_weighting": '{"temperature": 0.5}', "save_strategy": "steps", "save_steps": 2}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    sft.main(arguments)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "reward weighting" in card
    assert "preferences: counts" in card


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--preferences needs --policy"),
        (["--policy", "me/policy", "--datasets", "me/data"], "--datasets has no effect with --preferences"),
        (["--policy", "me/policy", "--stream", "true"], "--stream has no effect with --preferences"),
    ],
)
def test_options_of_the_command_that_exclude_each_other(options, words, tmp_path, capsys):
    command = ["--preferences", "me/preferences", "--output_dir", str(tmp_path), "--use_cpu", "true", *options]
    with pytest.raises(SystemExit):
        sft.main(command)
    assert words in capsys.readouterr().err
