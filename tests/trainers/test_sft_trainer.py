# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The supervised trainer: averaging, evaluation, open-loop error, checkpoints, card, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from helpers.small_demonstrations import INSTRUCTIONS, write_demonstrations
from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.data import LeRobotDataset, LeRobotMixture, LeRobotStream, LeRobotStreamMixture, PolicyCollator
from nora15_hf.trainers import Nora15SFTConfig, Nora15SFTTrainer, load_policy_for, tiny_policy_for
from nora15_hf.trainers.supervised.trainable_parameters import unreachable_parameters


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return LeRobotDataset(write_demonstrations(tmp_path_factory.mktemp("demonstrations") / "arm", lengths=(9, 4, 7)))


@pytest.fixture(scope="module")
def split(dataset):
    return dataset.split_by_episode(0.4, seed=0)


@pytest.fixture(scope="module")
def policy(dataset):
    return tiny_policy_for(dataset, INSTRUCTIONS, image_size=56, state_input=True)


def make_trainer(policy, split, folder, objective="joint", trainer_options=None, **options):
    model, processor = copy.deepcopy(policy[0]), policy[1]
    arguments = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "max_steps": 3,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return Nora15SFTTrainer(
        model=model,
        args=Nora15SFTConfig(output_dir=str(folder), objective=objective, **{**arguments, **options}),
        train_dataset=split[0],
        eval_dataset=split[1],
        **{"processing_class": processor, **(trainer_options or {})},
    )


def curve(trainer, *names):
    return [[log[name] for name in names] for log in trainer.state.log_history if "loss" in log]


class TestTraining:
    @pytest.mark.slow
    def test_accumulated_batches_equal_one(self, policy, split, tmp_path):
        """4 rows at once, or 2 x 2 with unequal numbers of tokens and valid steps."""
        names = ("loss", "lm_loss", "flow_loss", "grad_norm")
        curves = []
        for batch_size in (4, 2):
            trainer = make_trainer(
                policy,
                split,
                tmp_path,
                per_device_train_batch_size=batch_size,
                gradient_accumulation_steps=4 // batch_size,
            )
            trainer.train()
            curves.append(curve(trainer, *names))
        np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)

    @pytest.mark.parametrize("objective", ["joint", "flow", "fast"])
    def test_every_trainable_parameter_gets_a_gradient(self, policy, split, objective, tmp_path):
        """Otherwise DDP would wait for one; and nothing that gets one is left out."""
        trainer = make_trainer(policy, split, tmp_path, objective)
        trainable = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
        trainer.model.requires_grad_(True)
        batch = trainer.data_collator([split[0][i] for i in range(3)])
        trainer.compute_loss(trainer.model.train(), batch).backward()
        assert trainable == {name for name, p in trainer.model.named_parameters() if p.grad is not None}
        frozen = {name for name, _ in trainer.model.named_parameters()} - trainable
        assert all(name.startswith(unreachable_parameters(trainer.policy.config, objective)) for name in frozen)

    def test_insulated_backbone_learns_from_tokens_alone(self, policy, split, tmp_path):
        trainers = [
            make_trainer(policy, split, tmp_path, knowledge_insulation=True, max_steps=1, max_grad_norm=0.0),
            make_trainer(policy, split, tmp_path, "fast", max_steps=1, max_grad_norm=0.0),
        ]
        for trainer in trainers:
            trainer.train()
        insulated, tokens = (dict(trainer.model.named_parameters()) for trainer in trainers)
        for name, parameter in insulated.items():
            if name.startswith("vlm."):
                torch.testing.assert_close(parameter, tokens[name], atol=1e-6, rtol=1e-5)
        assert not torch.equal(insulated["action_in_proj.weight"], tokens["action_in_proj.weight"])

    @pytest.mark.slow
    def test_no_value_is_read_from_the_device_between_logs(self, policy, split, tmp_path, monkeypatch):
        """`Tensor.item` waits for the device: training calls it for the log alone, whatever the trainer collects."""
        calls = []
        original = torch.Tensor.item
        monkeypatch.setattr(torch.Tensor, "item", lambda tensor: calls.append(1) or original(tensor))
        counts = []
        for steps in (2, 5):
            calls.clear()
            make_trainer(policy, split, tmp_path, "flow", max_steps=steps, logging_steps=100).train()
            counts.append(len(calls))
        # The DataLoader draws a seed for each pass over the data.
        assert counts[1] - counts[0] == 1

    def test_prompts_are_padded_to_multiples(self, policy, split, tmp_path):
        trainer = make_trainer(policy, split, tmp_path, pad_to_multiple_of=32)
        batch = next(iter(trainer.get_train_dataloader()))
        assert batch["input_ids"].shape[1] % 32 == 0
        assert batch["labels"].shape == batch["attention_mask"].shape == batch["input_ids"].shape


class TestEvaluation:
    def test_means_are_exact(self, policy, split, tmp_path):
        """Against the whole evaluation set as one batch."""
        trainer = make_trainer(policy, split, tmp_path)
        found = trainer.evaluate()
        assert trainer.evaluate()["eval_loss"] == found["eval_loss"]
        whole = make_trainer(policy, split, tmp_path, per_device_eval_batch_size=len(split[1])).evaluate()
        for name in ("eval_lm_loss", "eval_flow_loss"):
            assert found[name] == pytest.approx(whole[name], rel=1e-5)
        assert found["eval_loss"] == pytest.approx(found["eval_lm_loss"] + 10 * found["eval_flow_loss"], rel=1e-6)

    def test_images_are_augmented_in_training_only(self, policy, split, tmp_path):
        trainer = make_trainer(policy, split, tmp_path, image_augmentation={"crop_scale": 0.5})
        plain = make_trainer(policy, split, tmp_path)
        batches = [next(iter(t.get_eval_dataloader()))["pixel_values"] for t in (trainer, plain)]
        assert torch.equal(*batches)
        samples = [split[0][i] for i in range(2)]
        assert not torch.equal(*(t.data_collator(samples)["pixel_values"] for t in (trainer, plain)))

    def test_open_loop_error(self, policy, split, tmp_path):
        """Against chunks that are sampled one by one."""
        trainer = make_trainer(policy, split, tmp_path, open_loop_episodes=1)
        metrics = trainer.evaluate()
        model, processor = trainer.model.eval(), policy[1]
        held_out = split[1]
        first, last = held_out.episodes["from"][0], held_out.episodes["to"][0]
        errors = []
        for frame in range(first, last, 5):
            sample = held_out[frame]
            inputs = processor(images=[sample["images"]], text=[sample["instruction"]], state=sample["state"][None])
            noise = np.random.default_rng((trainer.args.seed, sample["index"])).standard_normal((1, 5, 4), np.float32)
            chunk = processor.unnormalize_actions(model.sample_actions(**inputs, noise=torch.from_numpy(noise)))[0]
            errors.append(np.abs(chunk.numpy() - sample["actions"])[sample["action_mask"]])
        expected = np.concatenate(errors).mean(0)
        np.testing.assert_allclose([metrics[f"eval_action_error/{i}"] for i in range(4)], expected, rtol=1e-4)
        assert metrics["eval_action_error"] == pytest.approx(expected.mean(), rel=1e-4)
        pictures = list((tmp_path / "open_loop").glob("*/*.png"))
        episode = held_out.episodes["index"][0]
        assert [picture.name for picture in pictures] == [f"arm-episode-{episode:06d}.png"]
        assert pictures[0].read_bytes().startswith(b"\x89PNG")

    def test_open_loop_error_needs_episodes(self, policy, split, tmp_path):
        subset = Subset(split[1], [0, 1])
        with pytest.raises(TypeError, match="evaluation dataset is a Subset"):
            make_trainer(policy, (split[0], {"held out": subset}), tmp_path, open_loop_episodes=1)
        trainer = make_trainer(policy, split, tmp_path, open_loop_episodes=1)
        with pytest.raises(TypeError, match="evaluation dataset is a Subset"):
            trainer.evaluate(subset)

    @pytest.mark.slow
    def test_the_moving_average_is_evaluated(self, policy, split, tmp_path):
        trainer = make_trainer(policy, split, tmp_path, ema_decay=0.9, eval_strategy="steps", eval_steps=3)
        trainer.train()
        during = next(log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log)
        # Training has put the average into the model.
        assert trainer.evaluate()["eval_loss"] == during
        raw = make_trainer(policy, split, tmp_path, eval_strategy="steps", eval_steps=3)
        raw.train()
        assert next(log["eval_loss"] for log in raw.state.log_history if "eval_loss" in log) != during


class TestCheckpoints:
    @pytest.mark.slow
    def test_the_best_and_the_last_are_kept(self, policy, split, tmp_path):
        trainer = make_trainer(
            policy,
            split,
            tmp_path,
            max_steps=4,
            learning_rate=1.0,
            save_strategy="steps",
            save_steps=1,
            save_total_limit=2,
            eval_strategy="steps",
            eval_steps=1,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
        )
        trainer.train()
        losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
        best = int(np.argmin(losses)) + 1
        assert best < 4, "the learning rate is meant to diverge"
        assert {folder.name for folder in tmp_path.glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-4"}

    def test_a_checkpoint_is_a_complete_repo(self, policy, split, tmp_path):
        trainer = make_trainer(policy, split, tmp_path, save_strategy="steps", save_steps=3)
        trainer.train()
        model = Nora15ForActionPrediction.from_pretrained(tmp_path / "checkpoint-3").eval()
        processor = Nora15Processor.from_pretrained(tmp_path / "checkpoint-3")
        assert processor.norm_stats.keys() == policy[1].norm_stats.keys()
        assert all(torch.equal(v, trainer.model.state_dict()[k]) for k, v in model.state_dict().items())

    @pytest.mark.slow
    def test_pushed_at_every_save_with_processor_scheduler_and_card(self, policy, split, tmp_path, hub):
        trainer = make_trainer(
            policy,
            split,
            tmp_path / "arm-policy",
            push_to_hub=True,
            hub_model_id="robots/arm-policy",
            hub_strategy="every_save",
            hub_always_push=True,
            save_strategy="steps",
            save_steps=2,
        )
        trainer.train()
        assert any("step 2" in title for title in hub.commit_titles("robots/arm-policy"))
        interim = Nora15ForActionPrediction.from_pretrained("robots/arm-policy")
        assert interim.config.state_dim == 3
        assert b"| steps | 3 |" in hub.files("robots/arm-policy")["README.md"]
        trainer.push_to_hub()
        files = hub.files("robots/arm-policy")
        assert not [file for file in files if file.endswith((".bin", ".pt", ".pth"))]
        card = files["README.md"].decode()
        assert "# arm-policy" in card
        assert "| knowledge" not in card
        assert "| steps | 3 |" in card
        model = Nora15ForActionPrediction.from_pretrained("robots/arm-policy", force_download=True)
        assert all(torch.equal(v, trainer.model.state_dict()[k]) for k, v in model.state_dict().items())
        processor = Nora15Processor.from_pretrained("robots/arm-policy")
        assert processor.norm_stats.keys() == processor.state_stats.keys() == {"arm"}


class TestPolicySetup:
    def test_a_checkpoint_gets_the_statistics_of_a_new_dataset(self, dataset, tmp_path):
        model, processor = tiny_policy_for(dataset, INSTRUCTIONS, image_size=56, range_floor=9.0)
        for part in (model, processor):
            part.save_pretrained(tmp_path)
        renamed = LeRobotDataset(dataset.root, dataset_key="other")
        model, processor = load_policy_for(tmp_path, renamed, range_floor=9.0)
        assert set(processor.norm_stats) == {"arm", "other"}
        for statistics in processor.norm_stats.values():
            assert (statistics.max - statistics.min >= 8.99).all()
        assert model.dtype == torch.float32

        model, processor = load_policy_for(tmp_path, renamed, state_input=True)
        assert set(processor.norm_stats) == set(processor.state_stats) == {"other"}
        assert model.config.state_dim == processor.state_dim == 3
        batch = PolicyCollator(processor)([renamed[0], renamed[5]])
        assert model(**batch).loss.isfinite()


def test_a_state_input_needs_a_state(dataset):
    with pytest.raises(ValueError, match=r"state_input=True, but the datasets .* are opened without a state"):
        tiny_policy_for(LeRobotDataset(dataset.root, state_key=None), INSTRUCTIONS, image_size=56, state_input=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "both"}, "objective='both'"),
        ({"freeze": ["backbone"], "objective": "fast"}, "nothing would be trained"),
        ({"knowledge_insulation": True, "objective": "flow"}, "freeze=..backbone"),
        ({"knowledge_insulation": True, "freeze": ["vision_tower"]}, "nothing frozen"),
        ({"image_augmentation": {"zoom": 1}}, "image_augmentation=.*zoom"),
        ({"image_augmentation": {"crop_scale": 0}}, "crop_scale=0"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1 does not apply"),
        ({"remove_unused_columns": True}, "remove_unused_columns=True does not apply"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant=True"),
        ({"gradient_checkpointing_kwargs": "x"}, "activation_checkpointing_kwargs='x' is a str"),
        ({"open_loop_episodes": -1}, "open_loop_episodes=-1"),
        (
            {"ema_decay": 0.9, "load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"},
            "either the best",
        ),
    ],
)
def test_refused_configurations(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Nora15SFTConfig(output_dir=str(tmp_path), **options)


@pytest.mark.parametrize(
    ("options", "trainer_options", "message"),
    [
        ({"optim": "paged_adamw_8bit"}, {}, 'optim="adamw_8bit"'),
        ({}, {"compute_metrics": len}, "compute_metrics needs logits"),
        ({"image_augmentation": {}}, {"data_collator": len}, "data_collator is given"),
        ({"pad_to_multiple_of": 8}, {"data_collator": len}, "data_collator is given"),
        ({"push_to_hub": True}, {"processing_class": None, "data_collator": len}, "processing_class is missing"),
        ({}, {"processing_class": None}, "pass one"),
    ],
)
def test_refused_trainers(policy, split, options, trainer_options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(policy, split, tmp_path, trainer_options=trainer_options, **options)


@pytest.fixture(scope="module")
def mixture(dataset, tmp_path_factory):
    other = write_demonstrations(tmp_path_factory.mktemp("other") / "hand", lengths=(6, 8))
    return LeRobotMixture([dataset, LeRobotDataset(other)], weights=[0.8, 0.2], samples_per_epoch=20)


class IterableSamples(torch.utils.data.IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return (self.dataset[index] for index in range(len(self.dataset)))


class TestMixturesAndStreams:
    @pytest.mark.slow
    def test_a_mixture_trains_and_is_replayed_member_by_member(self, mixture, tmp_path):
        policy = tiny_policy_for(mixture, INSTRUCTIONS, image_size=56, state_input=True)
        assert set(policy[1].norm_stats) == set(policy[1].state_stats) == {"arm", "hand"}
        trainer = make_trainer(policy, mixture.split_by_episode(0.4, seed=0), tmp_path, open_loop_episodes=1)
        trainer.train()
        assert np.isfinite(trainer.evaluate()["eval_action_error"])
        names = {picture.name.split("-")[0] for picture in (tmp_path / "open_loop").glob("*/*.png")}
        assert names == {"arm", "hand"}

    @pytest.mark.slow
    def test_a_resumed_stream_goes_on_where_it_was(self, policy, dataset, split, tmp_path):
        stream = LeRobotStream(dataset.root, dataset_key="arm", shuffle_buffer_size=5, seed=1, repeat=True)
        options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4, "image_augmentation": {}}
        whole = make_trainer(policy, (stream, split[1]), tmp_path, **options)
        whole.train()
        resumed = make_trainer(policy, (stream, split[1]), tmp_path, **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert curve(resumed, "loss", "grad_norm") == curve(whole, "loss", "grad_norm")

    @pytest.mark.slow
    def test_a_resumed_mixture_sees_the_rest_of_its_epochs_draw(self, mixture, policy, tmp_path):
        """Five steps make an epoch, which draws 16 of the 20 frames of one member anew."""
        pair = (mixture, None)
        policy = tiny_policy_for(mixture, INSTRUCTIONS, image_size=56)
        options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 7}
        whole = make_trainer(policy, pair, tmp_path, **options)
        whole.train()
        mixture.set_epoch(0)
        resumed = make_trainer(policy, pair, tmp_path, **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
        assert curve(resumed, "loss", "grad_norm") == curve(whole, "loss", "grad_norm")

    def test_a_stream_is_evaluated_as_its_dataset(self, policy, dataset, split, tmp_path):
        """A LeRobotStream, and an iterable dataset of anybody's, which also trains."""
        stream = LeRobotStream(dataset.root, dataset_key="arm", shuffle_buffer_size=0)
        foreign = IterableSamples(dataset)
        trainer = make_trainer(policy, (foreign, stream), tmp_path, max_steps=6, per_device_eval_batch_size=8)
        expected = trainer.evaluate(dataset)
        for found in (trainer.evaluate(), trainer.evaluate(foreign)):
            for name in ("eval_loss", "eval_lm_loss", "eval_flow_loss"):
                assert found[name] == pytest.approx(expected[name], rel=1e-5)
        trainer.train()
        # Once round the dataset and on: 20 rows, 4 in a step.
        assert trainer.state.global_step == 6
        assert np.isfinite(curve(trainer, "loss", "grad_norm")).all()

    def test_an_evaluation_without_end_is_refused(self, policy, dataset, split, tmp_path):
        stream = LeRobotStream(dataset.root, dataset_key="arm", repeat=True)
        for endless in (stream, LeRobotStreamMixture([stream])):
            with pytest.raises(ValueError, match=r"without end.*repeat=False"):
                make_trainer(policy, (split[0], {"stream": endless}), tmp_path)
        with pytest.raises(ValueError, match=r"without end"):
            make_trainer(policy, split, tmp_path).evaluate(stream)

    def test_a_stream_that_ends_is_refused(self, policy, dataset, split, tmp_path):
        stream = LeRobotStream(dataset.root, dataset_key="arm")
        with pytest.raises(ValueError, match="repeat=True"):
            make_trainer(policy, (stream, split[1]), tmp_path)

    def test_a_dataset_of_another_robot_is_refused(self, policy, dataset, split, tmp_path):
        with pytest.raises(ValueError, match="chunk_size=3"):
            make_trainer(policy, (LeRobotDataset(dataset.root, chunk_size=3, dataset_key="arm"), split[1]), tmp_path)
