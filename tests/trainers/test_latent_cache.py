# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Latents on disk: read as they were written, continued after an interruption, never reused for something else."""

import pytest
import torch
from huggingface_hub import HfApi

from helpers.blobs import blob_clips, blob_model, write_blobs
from nora15_hf.clips import ClipConventions
from nora15_hf.clips.episode_clips import EpisodeClips
from nora15_hf.data import LeRobotDataset
from nora15_hf.runtime.shared_work import ProcessPlace
from nora15_hf.trainers.world_model.latent_cache import CachedLatents, LatentCache, cache_settings

pytestmark = pytest.mark.isa

EPISODES = 4


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return write_blobs(tmp_path_factory.mktemp("demonstrations") / "blobs", EPISODES, length=6)


def settings(clips, model=None, processor=None, dtype="float32", compute="no") -> dict[str, str]:
    own_model, own_processor = blob_model()
    return cache_settings(clips, model or own_model, processor or own_processor, dtype, compute)


class CountingEncoder:
    """Latents that tell the frames they are made of; fails at the `fail_at`-th episode."""

    def __init__(self, fail_at: int | None = None):
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        self.calls += 1
        return frames.float().flatten(1)[:, None, :48]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("bfloat16", 1 / 256)])
def test_reads_what_was_encoded(blobs, tmp_path, dtype, tolerance):
    clips, _ = blob_clips(blobs, num_frames=3)
    cache = LatentCache(tmp_path / "cache", settings(clips, dtype=dtype))
    encoder = CountingEncoder()
    cache.build(clips, encoder)
    encoded = cache.read(clips)
    for index in (0, 5, len(clips) - 1):
        latents = encoded[index]["latents"]
        assert latents.dtype == torch.float32
        torch.testing.assert_close(latents, encoder(clips[index]["frames"]), rtol=tolerance, atol=0)
    episode = encoded.latent_episodes()[2].latents
    assert len(episode) == 6
    assert episode[4].shape == (1, 48)
    torch.testing.assert_close(episode[4], episode[4:5][0], rtol=0, atol=0)


def test_an_interrupted_build_continues(blobs, tmp_path, monkeypatch):
    clips, _ = blob_clips(blobs, num_frames=3)
    with pytest.raises(KeyboardInterrupt):
        LatentCache(tmp_path, settings(clips)).build(clips, CountingEncoder(fail_at=2))

    def half_written(tensors, path):
        path.write_bytes(b"half an episode")
        raise KeyboardInterrupt

    # What a kill in the middle of writing leaves behind is not taken for an episode.
    cache = LatentCache(tmp_path, settings(clips))
    with monkeypatch.context() as patched:
        patched.setattr("nora15_hf.trainers.world_model.latent_cache.save_file", half_written)
        with pytest.raises(KeyboardInterrupt):
            cache.build(clips, CountingEncoder())
    encoder = CountingEncoder()
    cache = LatentCache(tmp_path, settings(clips))
    cache.build(clips, encoder)
    assert encoder.calls == EPISODES - 2
    torch.testing.assert_close(cache.read(clips)[-1]["latents"], encoder(clips[-1]["frames"]))
    again = CountingEncoder()
    cache.build(clips, again)
    assert again.calls == 0


def test_splits_share_a_folder(blobs, tmp_path):
    training, held_out = blob_clips(blobs, num_frames=3, held_out=1)
    everything, _ = blob_clips(blobs, num_frames=3)
    assert settings(training) == settings(held_out) == settings(everything)
    cache = LatentCache(tmp_path, settings(training))
    encoders = CountingEncoder(), CountingEncoder()
    # Alone, a process also encodes the share of those that are not there.
    cache.build(training, encoders[0], place=ProcessPlace(1, 2), num_workers=1)
    assert encoders[0].calls == 3
    cache.build(everything, encoders[1])
    assert encoders[1].calls == 1


def other_encoder(clips, blobs, tmp_path):
    model, _ = blob_model()
    model.encoder.layernorm.weight.data[0] += 1e-6
    return settings(clips, model=model)


def other_processor(clips, blobs, tmp_path):
    _, processor = blob_model()
    processor.image_mean = [0.5, 0.5, 0.5]
    return settings(clips, processor=processor)


def other_heads(clips, blobs, tmp_path):
    # The same weights, but another computation.
    model, _ = blob_model()
    model.config.encoder_config.num_attention_heads = 4
    return settings(clips, model=model)


def other_tubelets(clips, blobs, tmp_path):
    # Any field of the configuration may count, known by name or not.
    model, _ = blob_model()
    model.config.encoder_config.tubelet_size = 2
    return settings(clips, model=model)


def other_dataset(clips, blobs, tmp_path):
    return settings(blob_clips(write_blobs(tmp_path / "other", EPISODES, length=6, seed=1), num_frames=3)[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_encoder, "encoder"),
        (other_processor, "processor"),
        (other_heads, "encoder_config"),
        (other_tubelets, "encoder_config"),
        (other_dataset, "dataset"),
        (lambda clips, blobs, tmp_path: settings(clips, dtype="bfloat16"), "dtype"),
        (lambda clips, blobs, tmp_path: settings(clips, compute="bf16"), "compute"),
        (lambda clips, blobs, tmp_path: settings(clips) | {"camera": "wrist"}, "camera"),
    ],
)
def test_refuses_latents_of_something_else(blobs, tmp_path, change, named):
    clips, _ = blob_clips(blobs, num_frames=3)
    LatentCache(tmp_path / "cache", settings(clips))
    with pytest.raises(ValueError, match=rf"created from something else: {named} was .*Remove that folder") as refusal:
        LatentCache(tmp_path / "cache", change(clips, blobs, tmp_path))
    assert str(refusal.value).count(" was ") == 1


def test_how_an_encoder_was_loaded_does_not_count(blobs, tmp_path):
    clips, _ = blob_clips(blobs, num_frames=3)
    model, _ = blob_model()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float32)
    loaded.config.use_cache = False
    assert settings(clips, model=loaded) == settings(clips, model=model)


def test_refuses_latents_of_another_revision_on_the_hub(hub, blobs, tmp_path):
    """The commit counts, also where only files changed that the frames do not show."""
    repo = HfApi().create_repo("blobs", repo_type="dataset").repo_id
    first = HfApi().upload_folder(repo_id=repo, folder_path=blobs, repo_type="dataset").oid
    second = (
        HfApi()
        .upload_file(repo_id=repo, repo_type="dataset", path_or_fileobj=b"{}", path_in_repo="meta/corrections.json")
        .oid
    )

    def at(revision: str | None) -> EpisodeClips:
        dataset = LeRobotDataset(repo, revision=revision)
        return EpisodeClips(dataset, ClipConventions.of_dataset(dataset, "min_max"), num_frames=3)

    LatentCache(tmp_path / "cache", settings(at(first)))
    LatentCache(tmp_path / "cache", settings(at(first)))
    for other in (second, "main", None):
        with pytest.raises(ValueError, match=rf"something else: dataset was '{first}', is '{second}'"):
            LatentCache(tmp_path / "cache", settings(at(other)))


def test_refuses_a_folder_of_other_things_and_damaged_files(blobs, tmp_path):
    clips, _ = blob_clips(blobs, num_frames=3)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not a cache of latents"):
        LatentCache(tmp_path, settings(clips))
    cache = LatentCache(tmp_path / "cache", settings(clips))
    cache.build(clips, CountingEncoder())
    file = tmp_path / "cache" / "episode-000001.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"episode-000001\.safetensors is damaged"):
        cache.read(clips)
    # A file of another length belongs to another dataset.
    (tmp_path / "cache" / "episode-000000.safetensors").rename(file)
    short, _ = blob_clips(write_blobs(tmp_path / "short", EPISODES, length=5), num_frames=3)
    with pytest.raises(ValueError, match="of episodes of"):
        short.with_latents([CachedLatents(file)] * EPISODES)
