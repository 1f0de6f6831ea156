# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Training the world model on clips of a blob that actions push around."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModel, AutoProcessor, TrainerCallback

from helpers.blobs import blob_clips, blob_model, resized, write_blobs, write_poses
from nora15_hf.clips.clip_conventions import ClipConventions
from nora15_hf.clips.episode_clips import EpisodeClips
from nora15_hf.data import LeRobotDataset
from nora15_hf.trainers.world_model.encoder_pretraining_config import EncoderPretrainingConfig
from nora15_hf.trainers.world_model.encoder_pretraining_trainer import EncoderPretrainingTrainer
from nora15_hf.trainers.world_model.world_model_metrics import ActionSensitivity, action_sensitivity, latent_statistics
from nora15_hf.trainers.world_model.world_model_trainer import WorldModelTrainer
from nora15_hf.trainers.world_model.world_model_training_config import WorldModelTrainingConfig
from nora15_hf.vjepa2_ac import normalize_latents


def arguments(tmp_path, **changes) -> dict:
    common = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 16,
        "learning_rate": 3e-3,
        "warmup_steps": 10,
        "logging_steps": 20,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "seed": 0,
        "disable_tqdm": True,
    }
    return common | changes


def logged(trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.slow
def test_pretraining_then_training_learns_what_actions_do(tmp_path):
    model, processor = blob_model()
    demonstrations = write_blobs(tmp_path / "blobs", 72)
    pairs, _ = blob_clips(demonstrations, num_frames=2, held_out=12)
    pretrainer = EncoderPretrainingTrainer(
        model,
        EncoderPretrainingConfig(**arguments(tmp_path, max_steps=120)),
        train_dataset=pairs,
        processing_class=processor,
    )
    pretrainer.train()
    assert logged(pretrainer, "reconstruction_loss")[-1] < 0.5 * logged(pretrainer, "reconstruction_loss")[0]
    assert logged(pretrainer, "latent_std")[-1] > 0.1
    assert logged(pretrainer, "latent_rank")[-1] > 2  # one disc on a plain ground

    encoder_before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    training, held_out = blob_clips(demonstrations, num_frames=5, held_out=12)
    trainer = WorldModelTrainer(
        model,
        WorldModelTrainingConfig(**arguments(tmp_path, max_steps=160), auto_steps=3, sensitivity_horizon=3),
        train_dataset=training,
        eval_dataset=held_out,
        processing_class=processor,
    )
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.8 * before["eval_loss"]
    assert logged(trainer, "autoregressive_loss")[-1] < logged(trainer, "autoregressive_loss")[0]
    # Predictions that shrink to a mean would deviate less than the truth does.
    assert logged(trainer, "predicted_latent_std")[-1] > 0.8 * logged(trainer, "latent_std")[-1] > 0.1
    assert after["eval_beats_other_chunk"] > 0.75
    assert after["eval_beats_noise_1"] > 0.6  # 0.5 without any notion of actions
    assert after["eval_noise_monotone"] == 1
    assert after["eval_energy_demonstrated"] < after["eval_energy_still"]
    assert all(torch.equal(value, encoder_before[name]) for name, value in model.encoder.state_dict().items())


def test_a_deaf_model_shows_no_action_sensitivity(tmp_path):
    model, processor = blob_model()
    model.predictor.action_encoder.weight.data.zero_()
    clips, _ = blob_clips(write_blobs(tmp_path / "blobs", 4), num_frames=4)
    with torch.no_grad():
        latents = [model.encode(processor(clips.episode_frames(e))["pixel_values"])[0] for e in range(4)]
    episodes = clips.with_latents(latents).latent_episodes()
    sensitivity = action_sensitivity(model, episodes, torch.ones(2), horizon=3, noise_levels=(0.5, 1))
    metrics = sensitivity.metrics()
    assert metrics["beats_other_chunk"] == metrics["beats_noise_0.5"] == metrics["beats_noise_1"] == 0.5
    assert metrics["noise_monotone"] == 0
    # The starts are the cases': each is the position of an episode and a frame with `horizon` successors in it.
    assert set(sensitivity.starts) == {(episode, frame) for episode in range(4) for frame in range(13)}
    with pytest.raises(ValueError, match="0 frames with `horizon`=16 successors"):
        action_sensitivity(model, episodes, torch.ones(2), horizon=16)


def test_sensitivity_counts_wins_and_ties_and_sees_a_dip():
    def sensitivity(*noise_means: float) -> ActionSensitivity:
        noise = {0.5 * (1 + i): torch.tensor([float(mean)] * 2) for i, mean in enumerate(noise_means)}
        return ActionSensitivity([(0, 0), (0, 1)], torch.ones(2), torch.tensor([1.0, 3.0]), noise, torch.ones(2))

    assert sensitivity(2, 3).wins("other_chunk") == 1.5
    assert sensitivity(2, 3).metrics()["beats_other_chunk"] == 0.75
    assert sensitivity(2, 3).is_monotone
    assert not sensitivity(3, 2).is_monotone
    assert not sensitivity(0.5, 2).is_monotone  # a little noise must not improve on the demonstration


def test_collapse_metric_reacts_to_a_collapsed_encoder(tmp_path):
    model, processor = blob_model()
    clips, _ = blob_clips(write_blobs(tmp_path / "blobs", 6), num_frames=4)
    frames = torch.cat([clips.episode_frames(episode) for episode in range(6)])
    with torch.no_grad():
        healthy = latent_statistics(model.encode(processor(frames)["pixel_values"])[0])
        model.encoder.embeddings.patch_embeddings.proj.weight.zero_()
        collapsed = latent_statistics(model.encode(processor(frames)["pixel_values"])[0])
    assert healthy["latent_std"] > 0.1
    assert collapsed["latent_std"] < 1e-3


def test_effective_rank_of_known_latents():
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(4000, 1, 8, generator=generator)
    assert latent_statistics(full)["latent_rank"] == pytest.approx(8, abs=0.1)
    assert latent_statistics(full[..., :1].expand(-1, -1, 8))["latent_rank"] == pytest.approx(1, abs=1e-3)
    assert latent_statistics(torch.ones(5, 2, 8)) == {"latent_std": 0.0, "latent_rank": 1.0}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return write_blobs(tmp_path_factory.mktemp("demonstrations") / "blobs", 5)


def make_trainer(blobs, tmp_path, num_frames: int = 4, **changes) -> WorldModelTrainer:
    model, processor = blob_model()
    training, held_out = blob_clips(blobs, num_frames, held_out=2)
    return WorldModelTrainer(
        model,
        WorldModelTrainingConfig(**arguments(tmp_path, **changes)),
        train_dataset=training,
        eval_dataset=held_out,
        processing_class=processor,
    )


def predictor_weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.predictor.parameters()])


@pytest.mark.slow
def test_precomputed_latents_change_nothing(blobs, tmp_path):
    runs = {}
    for name, changes in {
        "disk": {},
        "on_the_fly": {"precompute_latents": False},
        "halved": {"latent_dtype": "bfloat16"},
    }.items():
        trainer = make_trainer(blobs, tmp_path / name, max_steps=3, **changes)
        trainer.train()
        runs[name] = predictor_weights(trainer), trainer.evaluate()
    torch.testing.assert_close(runs["disk"][0], runs["on_the_fly"][0], rtol=0, atol=1e-5)
    for metric in ("eval_loss", "eval_energy_demonstrated", "eval_latent_std"):
        assert runs["on_the_fly"][1][metric] == pytest.approx(runs["disk"][1][metric], rel=1e-4)
        assert runs["halved"][1][metric] == pytest.approx(runs["disk"][1][metric], rel=1e-2)
    assert not (tmp_path / "on_the_fly" / "_latents").exists()
    sizes = {
        name: sum(file.stat().st_size for file in (tmp_path / name / "_latents").iterdir())
        for name in ("disk", "halved")
    }
    assert sizes["halved"] < 0.55 * sizes["disk"]


@pytest.mark.slow
def test_schedules(blobs, tmp_path):
    def rates(**changes) -> list[float]:
        trainer = make_trainer(blobs, tmp_path, max_steps=8, warmup_steps=2, logging_steps=1, **changes)
        trainer.train()
        return [rate / 3e-3 for rate in logged(trainer, "learning_rate")]

    decay = [math.cos(math.pi / 2 * step / 6) ** 2 for step in range(6)]
    assert rates() == pytest.approx([0, 0.5, *decay], abs=1e-9)
    wsd = rates(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs={"num_decay_steps": 2})
    assert wsd == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 0.5], abs=1e-9)


@pytest.mark.slow
def test_bf16_keeps_float32_masters_and_the_same_loss(blobs, tmp_path):
    losses = {}
    for bf16 in (False, True):
        trainer = make_trainer(blobs, tmp_path / str(bf16), max_steps=4, logging_steps=1, bf16=bf16)
        trainer.train()
        losses[bf16] = logged(trainer, "teacher_forcing_loss")
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        assert {s["exp_avg"].dtype for s in trainer.optimizer.state.values()} == {torch.float32}
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert losses[True] != losses[False]


def test_gradient_checkpointing_changes_no_gradient(blobs, tmp_path):
    gradients = {}
    for checkpointing in (False, True):
        trainer = make_trainer(blobs, tmp_path / "run", num_frames=5, auto_steps=3, max_steps=1)
        if checkpointing:
            trainer.model.activation_checkpointing_enable()
        assert all(block.gradient_checkpointing == checkpointing for block in trainer.model.predictor.predictor_blocks)
        batch = torch.utils.data.default_collate([trainer.train_dataset[index] for index in range(4)])
        trainer.compute_loss(trainer.model.train(), batch).backward()
        gradients[checkpointing] = [p.grad for p in trainer.model.predictor.parameters() if p.requires_grad]
    for plain, checkpointed in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_resumed_training_ends_with_the_same_bits(blobs, tmp_path):
    whole = make_trainer(blobs, tmp_path / "whole", max_steps=6)
    whole.train()
    interrupted = make_trainer(blobs, tmp_path / "parts", max_steps=6, save_strategy="steps", save_steps=3)
    interrupted.add_callback(StopAt(3))
    interrupted.train()
    resumed = make_trainer(blobs, tmp_path / "parts", max_steps=6)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    assert torch.equal(predictor_weights(resumed), predictor_weights(whole))
    assert not torch.equal(predictor_weights(interrupted), predictor_weights(whole))


class StopAt(TrainerCallback):
    """Ends training after a step, as an interruption would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_saved_folder_loads_with_auto_classes(blobs, tmp_path):
    trainer = make_trainer(blobs, tmp_path / "world-model", max_steps=1, sensitivity_horizon=3)
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()
    model = AutoModel.from_pretrained(tmp_path / "world-model")
    assert torch.equal(model.predictor.predictor_proj.weight, trainer.model.predictor.predictor_proj.weight)
    assert AutoProcessor.from_pretrained(tmp_path / "world-model").size == trainer.processor.size
    assert ClipConventions.from_pretrained(tmp_path / "world-model").held_out_episodes == (3, 4)
    card = (tmp_path / "world-model" / "README.md").read_text()
    assert (
        f"| demonstrated chunk comes closer than that chunk with noise of 1 | {metrics['eval_beats_noise_1']:.1%} |"
        in card
    )
    assert "| mean distance grows with every noise level | " in card
    assert "runtime" not in card
    assert "| schedule | cosine |" in card
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_push_holds_the_model_and_nothing_of_the_run(hub, blobs, tmp_path):
    changes = {"push_to_hub": True, "hub_model_id": "robots/world", "hub_strategy": "every_save"}
    trainer = make_trainer(blobs, tmp_path / "run", max_steps=2, save_strategy="steps", save_steps=1, **changes)
    trainer.train()
    trainer.save_model()
    pushed = hub.files("robots/world")
    assert {"config.json", "model.safetensors", "processor_config.json", "clips.json", "README.md"} <= set(pushed)
    assert not [path for path in pushed if path.startswith(("_latents", "checkpoint"))]
    assert b"# world" in pushed["README.md"]
    assert b"robots/world" in pushed["README.md"]
    model = AutoModel.from_pretrained("robots/world")
    assert torch.equal(model.predictor.predictor_proj.weight, trainer.model.predictor.predictor_proj.weight)
    assert ClipConventions.from_pretrained("robots/world").held_out_episodes == (3, 4)


def test_metric_convention_learns_from_poses(tmp_path):
    dataset = LeRobotDataset(write_poses(tmp_path / "arm"))
    clips = EpisodeClips(dataset, ClipConventions.metric(dataset), num_frames=4)
    model, processor = blob_model()
    with pytest.raises(ValueError, match=r"actions are metric, the model's config.action_convention is 'normalized'"):
        WorldModelTrainer(
            resized(model, 7),
            WorldModelTrainingConfig(**arguments(tmp_path / "run")),
            train_dataset=clips,
            processing_class=processor,
        )
    model = resized(model, 7, action_convention="metric")
    args = WorldModelTrainingConfig(**arguments(tmp_path / "run", max_steps=2), sensitivity_horizon=2)
    trainer = WorldModelTrainer(model, args, train_dataset=clips, eval_dataset=clips, processing_class=processor)
    before = model.predictor.state_encoder.weight.detach().clone()
    trainer.train()
    assert not torch.equal(before, model.predictor.state_encoder.weight)
    assert trainer.evaluate()["eval_energy_demonstrated"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: WorldModelTrainingConfig(output_dir=d, use_cpu=True, auto_steps=0), "auto_steps=0"),
        (lambda d: WorldModelTrainingConfig(output_dir=d, use_cpu=True, loss_exponent=0.5), "loss_exponent=0.5"),
        (lambda d: WorldModelTrainingConfig(output_dir=d, use_cpu=True, latent_dtype="int4"), "latent_dtype='int4'"),
        (
            lambda d: WorldModelTrainingConfig(
                output_dir=d, use_cpu=True, latent_cache_dir=d, precompute_latents=False
            ),
            "is not used with precompute_latents=False",
        ),
        (lambda d: WorldModelTrainingConfig(output_dir=d, use_cpu=True, label_smoothing_factor=0.1), "does not apply"),
        (lambda d: EncoderPretrainingConfig(output_dir=d, use_cpu=True, neftune_noise_alpha=5.0), "does not apply"),
        (lambda d: EncoderPretrainingConfig(output_dir=d, use_cpu=True, reconstruction_weight=0), "must be positive"),
        (
            lambda d: EncoderPretrainingConfig(output_dir=d, use_cpu=True, push_to_hub=True),
            "push_to_hub=True does not",
        ),
    ],
)
def test_configs_refuse(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        make(str(tmp_path))


@pytest.mark.parametrize(
    ("mode", "camera", "message"),
    [
        ("q01_q99", "observation.image", "normalization: training 'min_max', evaluation 'q01_q99'"),
        ("min_max", None, "action statistics: training "),
        ("min_max", "blob", r"cameras: training clips \['image'\], evaluation clips \['blob'\]"),
    ],
)
def test_evaluation_clips_mean_what_the_training_clips_mean(blobs, tmp_path, mode, camera, message):
    """Statistics of the held-out episodes would be other units, in which every loss could be compared."""
    training, held_out = LeRobotDataset(blobs).split_by_episode(0.4, seed=0)
    clips = EpisodeClips(training, ClipConventions.of_dataset(training, "min_max"), 4)
    own = ClipConventions.of_dataset(held_out if camera is None else training, mode)
    if camera == "blob":
        renamed = replace(own.embodiment, cameras={"blob": own.embodiment.cameras["image"]})
        own = replace(own, embodiment=renamed)
    others = EpisodeClips(held_out, own, 4)
    model, processor = blob_model()
    options = {"train_dataset": clips, "processing_class": processor}
    args = WorldModelTrainingConfig(**arguments(tmp_path), precompute_latents=False)
    with pytest.raises(ValueError, match=message):
        WorldModelTrainer(model, args, eval_dataset=others, **options)
    with pytest.raises(ValueError, match=message):
        WorldModelTrainer(model, args, **options).evaluate(others)


def test_trainers_refuse_what_does_not_fit(blobs, tmp_path):
    model, processor = blob_model()
    args = WorldModelTrainingConfig(**arguments(tmp_path / "run"))
    clips, _ = blob_clips(blobs, num_frames=2)
    with pytest.raises(ValueError, match="auto_steps=2 needs clips"):
        WorldModelTrainer(model, args, train_dataset=clips, processing_class=processor)
    longer, _ = blob_clips(blobs, num_frames=4)
    with pytest.raises(ValueError, match=r"actions of 2 dimensions, the model's config.action_dim is 3"):
        WorldModelTrainer(resized(model, 3), args, train_dataset=longer, processing_class=processor)
    encoded = clips.with_latents([normalize_latents(torch.randn(16, 16, 48))] * 5)
    with pytest.raises(ValueError, match="holds latents"):
        EncoderPretrainingTrainer(
            model, EncoderPretrainingConfig(**arguments(tmp_path)), train_dataset=encoded, processing_class=processor
        )
    with pytest.raises(ValueError, match="small updates would be rounded"):
        WorldModelTrainer(model.to(torch.bfloat16), args, train_dataset=longer, processing_class=processor)
