# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Training the world model on clips of a blob that actions push around."""

import numpy as np
import pytest
import torch

from nora15_hf.data.clips import EpisodeClips
from nora15_hf.trainers.encoder_pretraining import EncoderPretrainingConfig, EncoderPretrainingTrainer
from nora15_hf.trainers.world_model_config import WorldModelConfig
from nora15_hf.trainers.world_model_metrics import action_sensitivity, latent_statistics
from nora15_hf.trainers.world_model_trainer import WorldModelTrainer
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel, VJEPA2ACProcessor, normalize_latents

SIZE = 28


def blob_episodes(count: int, length: int = 16, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Episodes of a bright disc that a 2-D action moves by up to three pixels per frame."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    episodes = []
    for _ in range(count):
        position, frames = rng.uniform(6, SIZE - 6, 2), []
        actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        for action in actions:
            disc = np.clip(5 - np.hypot(rows - position[0], columns - position[1]), 0, 1)
            frames.append(np.stack([40 + 200 * disc, 40 + 100 * disc, np.full(disc.shape, 90.0)], axis=-1))
            position = np.clip(position + 3 * action, 3, SIZE - 3)
        episodes.append((np.stack(frames).astype(np.uint8), actions))
    return episodes


def blob_model() -> tuple[VJEPA2ACModel, VJEPA2ACProcessor]:
    torch.manual_seed(0)
    config = VJEPA2ACConfig(
        encoder_config={
            "hidden_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mlp_ratio": 2.0,
            "crop_size": SIZE,
            "patch_size": 7,
            "tubelet_size": 1,
            "frames_per_clip": 1,
        },
        predictor_hidden_size=48,
        predictor_num_hidden_layers=2,
        predictor_num_attention_heads=2,
        predictor_identity_init=True,
        action_dim=2,
        state_dim=2,
    )
    return VJEPA2ACModel(config), VJEPA2ACProcessor(size=SIZE)


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


def test_pretraining_then_training_learns_what_actions_do(tmp_path):
    model, processor = blob_model()
    train, held_out = blob_episodes(60), blob_episodes(12, seed=1)
    pretrainer = EncoderPretrainingTrainer(
        model,
        EncoderPretrainingConfig(**arguments(tmp_path, max_steps=120)),
        train_dataset=EpisodeClips(train, num_frames=2),
        processor=processor,
    )
    pretrainer.train()
    assert logged(pretrainer, "reconstruction_loss")[-1] < 0.5 * logged(pretrainer, "reconstruction_loss")[0]
    assert logged(pretrainer, "latent_std")[-1] > 0.1
    assert logged(pretrainer, "latent_rank")[-1] > 2  # one disc on a plain ground

    encoder_before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    trainer = WorldModelTrainer(
        model,
        WorldModelConfig(**arguments(tmp_path, max_steps=160), auto_steps=3, sensitivity_horizon=3),
        train_dataset=EpisodeClips(train, num_frames=5),
        eval_dataset=EpisodeClips(held_out, num_frames=5),
        processor=processor,
    )
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.8 * before["eval_loss"]
    assert logged(trainer, "autoregressive_loss")[-1] < logged(trainer, "autoregressive_loss")[0]
    assert after["eval_beats_other_chunk"] > 0.75
    assert after["eval_beats_noise_1"] > 0.6  # 0.5 without any notion of actions
    assert after["eval_energy_demonstrated"] < after["eval_energy_still"]
    assert all(torch.equal(value, encoder_before[name]) for name, value in model.encoder.state_dict().items())


def test_an_untrained_or_deaf_model_shows_no_action_sensitivity():
    model, processor = blob_model()
    model.predictor.action_encoder.weight.data.zero_()
    with torch.no_grad():
        episodes = [
            (model.encode(processor(frames)["pixel_values"])[0], torch.from_numpy(actions))
            for frames, actions in blob_episodes(4)
        ]
    metrics = action_sensitivity(model, episodes, torch.ones(2), horizon=3, noise_levels=(0.5, 1))
    assert metrics["beats_other_chunk"] == metrics["beats_noise_0.5"] == metrics["beats_noise_1"] == 0.5


def test_collapse_metric_reacts_to_a_collapsed_encoder():
    model, processor = blob_model()
    frames = torch.from_numpy(np.concatenate([frames for frames, _ in blob_episodes(6)]))
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


def test_precomputed_latents_change_nothing(tmp_path):
    weights = []
    for precompute in (True, False):
        model, processor = blob_model()
        WorldModelTrainer(
            model,
            WorldModelConfig(**arguments(tmp_path, max_steps=3), precompute_latents=precompute),
            train_dataset=EpisodeClips(blob_episodes(3), num_frames=4),
            processor=processor,
        ).train()
        weights.append(model.predictor.predictor_proj.weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)


def test_clips_never_cross_episodes():
    episodes = [(np.full((5, 4, 4, 3), index, np.uint8), np.full((5, 2), index)) for index in range(3)]
    clips = EpisodeClips([*episodes, (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 2)))], num_frames=3, stride=2)
    assert len(clips) == 6
    for index in range(len(clips)):
        item = clips[index]
        assert item["frames"].shape == (3, 4, 4, 3)
        assert item["actions"].shape == (2, 2)
        assert (item["frames"] == index // 2).all()
        assert (item["actions"] == index // 2).all()
    encoded = clips.encoded(lambda frames: frames.float().mean((1, 2, 3))[:, None, None])
    assert set(encoded[3]) == {"latents", "actions"}
    assert (encoded[3]["latents"] == 1).all()
    assert "frames" in clips[3]


@pytest.mark.parametrize(
    ("episodes", "arguments", "message"),
    [
        ([(np.zeros((5, 4, 4, 3), np.uint8), np.zeros((4, 2)))], {}, "one action per frame"),
        ([(np.zeros((5, 4, 4, 3), np.float32), np.zeros((5, 2)))], {}, "expected uint8"),
        ([(np.zeros((5, 4, 4, 3), np.uint8), np.full((5, 2), np.nan))], {}, "NaN"),
        ([(np.zeros((5, n, 4, 3), np.uint8), np.zeros((5, 2))) for n in (4, 5)], {}, "must have one size"),
        ([(np.zeros((5, 4, 4, 3), np.uint8), np.zeros((5, 2)))], {"num_frames": 6}, "the longest has 5"),
        ([(np.zeros((5, 4, 4, 3), np.uint8), np.zeros((5, 2)))], {"num_frames": 1}, "at least 2"),
        ([], {}, "None of the 0"),
    ],
)
def test_clips_refuse(episodes, arguments, message):
    with pytest.raises(ValueError, match=message):
        EpisodeClips(episodes, **{"num_frames": 3} | arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: WorldModelConfig(output_dir=d, use_cpu=True, auto_steps=0), "auto_steps=0"),
        (lambda d: WorldModelConfig(output_dir=d, use_cpu=True, loss_exponent=0.5), "loss_exponent=0.5"),
        (lambda d: EncoderPretrainingConfig(output_dir=d, use_cpu=True, reconstruction_weight=0), "must be positive"),
    ],
)
def test_configs_refuse(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        make(str(tmp_path))


def test_trainers_refuse_what_does_not_fit(tmp_path):
    model, processor = blob_model()
    args = WorldModelConfig(**arguments(tmp_path))
    clips = EpisodeClips(blob_episodes(2), num_frames=2)
    with pytest.raises(ValueError, match="auto_steps=2 needs clips"):
        WorldModelTrainer(model, args, clips, processor)
    wide = EpisodeClips([(frames, np.zeros((16, 3))) for frames, _ in blob_episodes(2)], num_frames=4)
    with pytest.raises(ValueError, match="actions of 3 dimensions"):
        WorldModelTrainer(model, args, wide, processor)
    encoded = clips.encoded(lambda frames: normalize_latents(torch.randn(len(frames), 16, 48)))
    with pytest.raises(ValueError, match="holds latents"):
        EncoderPretrainingTrainer(model, EncoderPretrainingConfig(**arguments(tmp_path)), encoded, processor)
    with pytest.raises(ValueError, match="small updates would be rounded"):
        WorldModelTrainer(model.to(torch.bfloat16), args, EpisodeClips(blob_episodes(2), num_frames=4), processor)
