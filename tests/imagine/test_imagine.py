# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Looking at a world model: which frames are retrieved, what is counted, what is written, what is refused."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.blobs import blob_clips, blob_model, resized, write_blobs, write_poses
from nora15_hf import commands
from nora15_hf.clips.clip_conventions import ClipConventions
from nora15_hf.data import LeRobotDataset
from nora15_hf.imagine.film_strip import film_strips
from nora15_hf.imagine.imagination import Imagination
from nora15_hf.imagine.imagine import imagine
from nora15_hf.trainers.world_model.world_model_metrics import ActionSensitivity

EPISODES, HELD_OUT, LENGTH = 6, [4, 5], 12


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    """An untrained world model, which imagines that nothing changes, and the dataset it calls its own."""
    root = tmp_path_factory.mktemp("imagine")
    dataset = write_blobs(root / "blobs", EPISODES, length=LENGTH)
    training, _ = blob_clips(dataset, num_frames=4, held_out=len(HELD_OUT))
    model, processor = blob_model()
    for part in (model, processor, training.conventions):
        part.save_pretrained(root / "world-model")
    return root / "world-model", dataset


class Oracle:
    """Imagines exactly what follows."""

    device = torch.device("cpu")

    def __init__(self, episodes: list[torch.Tensor]):
        self.episodes = episodes

    def rollout(self, latents, actions, states=None):
        for episode in self.episodes:
            for frame in range(len(episode) - actions.shape[1]):
                if torch.equal(episode[frame], latents[0, 0]):
                    return episode[None, frame + 1 : frame + 1 + actions.shape[1]]
        raise AssertionError("asked to imagine from a frame that is not in the dataset")


def encoder(model, processor):
    def encode_frames(frames: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.encode(processor(frames)["pixel_values"])[0]

    return encode_frames


@pytest.mark.parametrize("who", ["oracle", "standstill"])
def test_strips_show_what_is_imagined(artefacts, who):
    clips, _ = blob_clips(artefacts[1], num_frames=2)
    model, processor = blob_model()
    encode_frames = encoder(model, processor)
    oracle = Oracle([encode_frames(clips.episode_frames(episode)) for episode in range(EPISODES)])
    strips = film_strips(
        oracle if who == "oracle" else model,
        clips,
        encode_frames,
        [1, 4],
        [True, False],
        3,
        gallery_size=20,
        progress=False,
    )
    assert [(strip.episode_index, strip.trained_on) for strip in strips] == [(1, True), (4, False)]
    for strip in strips:
        frames = clips.episode_frames(strip.episode_index).numpy()
        for step in (1, 2, 3):
            true, retrieved = frames[strip.first_frame + step], strip.retrieved[step - 1]
            assert np.array_equal(strip.true_images[step], true)
            if who == "oracle":
                assert strip.lag(step) == 0
                assert np.array_equal(retrieved.image, true)
                # Batches of other sizes round otherwise.
                assert max(retrieved.distance, strip.energies[step - 1]) < 1e-5
            else:
                assert strip.lag(step) == -step
                assert np.array_equal(retrieved.image, frames[strip.first_frame])
                assert strip.energies[step - 1] == pytest.approx(strip.still_energies[step - 1], abs=1e-2)
                assert strip.energies[step - 1] > 0.05


@pytest.mark.slow
def test_command_writes_page_pictures_and_figures(artefacts, tmp_path, capsys):
    model, dataset = artefacts
    command = [
        "imagine",
        "--model",
        model,
        "--dataset",
        dataset,
        "--output",
        tmp_path,
        "--steps",
        "3",
        "--cases",
        "12",
    ]
    assert commands.main([*map(str, command), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "ranked above" in printed
    assert "2 episodes, none of them trained on" in printed

    results = json.loads((tmp_path / "imagine.json").read_text())
    assert results["episodes"] == HELD_OUT
    assert results["model"] == "world-model"
    ranking = results["ranking"]["noise_1"]
    assert ranking["all"]["cases"] == ranking["push"]["cases"] == 12
    low, high = ranking["all"]["interval_95"]
    assert low <= ranking["all"]["won"] / 12 <= high
    assert [strip["episode_index"] for strip in results["film_strips"]] == HELD_OUT

    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "was trained on" not in page
    for name in ("film-strip-000004.png", "film-strip-000005.png", "energy.png", "ranking.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 600
    assert str(tmp_path.parent) not in page

    # Another call replaces the strips, and says what was trained on.
    assert commands.main([*map(str, command), "--episodes", "0,5", "--strips", "1"]) == 0
    assert "2 episodes, 1 of them trained on" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("film-strip-*")] == ["film-strip-000000.png"]
    assert "was trained on 1 of these episodes" in (tmp_path / "index.html").read_text()


def test_another_dataset_was_not_trained_on(artefacts, tmp_path):
    other = write_blobs(tmp_path / "other", 3, length=8, seed=9)
    result = imagine(artefacts[0], other, tmp_path / "out", steps=2, num_cases=6, num_strips=1, progress=False)
    assert result.episodes == [0, 1, 2]
    assert result.trained_on == []


def test_metric_model_imagines_from_poses(tmp_path):
    model, processor = blob_model()
    dataset = write_poses(tmp_path / "arm")
    conventions = ClipConventions.metric(LeRobotDataset(dataset))
    for part in (resized(model, 7, action_convention="metric"), processor, conventions):
        part.save_pretrained(tmp_path / "world-model")
    result = imagine(
        tmp_path / "world-model", dataset, tmp_path / "out", episodes=[0], steps=2, num_cases=4, progress=False
    )
    assert result.trained_on == [0]
    assert len(result.strips[0].retrieved) == 2


def test_ranking_counts_per_instruction_and_gives_ties_to_nobody():
    noise = {1.0: torch.tensor([2.0, 0.5, 1.0, 2.0])}
    sensitivity = ActionSensitivity([(0, 0)] * 4, torch.ones(4), torch.full((4,), 3.0), noise, torch.ones(4))
    result = Imagination("m", "d", 5, 10.0, [], sensitivity, ["push", "pull", "push", "push"], [0], [])
    assert result.ranking() == {
        "other_chunk": {"all": (4, 4), "push": (3, 3), "pull": (1, 1)},
        "noise_1": {"all": (2, 4), "push": (2, 3), "pull": (0, 1)},
    }
    assert "another frame's chunk            100.0%  of 4" in result.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "7"], r"\[7\] are not among the 6 episodes"),
        (["--episodes", "0", "--steps", "12"], r"\[0\] have no more than `steps`=12 frames"),
        (["--steps", "12"], "held out from training has more than `steps`=12 frames"),
        (["--model", "."], r"has no clips\.json"),
    ],
)
def test_refusals(artefacts, tmp_path, capsys, options, message):
    command = ["imagine", "--model", artefacts[0], "--dataset", artefacts[1], "--output", tmp_path, *options]
    assert commands.main([*map(str, command)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["steps", "num_strips", "num_cases", "gallery_size", "batch_size"])
def test_counts_are_at_least_one(artefacts, tmp_path, name):
    with pytest.raises(ValueError, match=rf"`{name}`=0.* must each be at least 1"):
        imagine(*artefacts, tmp_path, **{name: 0})
