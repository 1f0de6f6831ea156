# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Random crops and colours: what they change, what they leave, and what they depend on."""

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from nora15_hf.data import ImageAugmentation

NOTHING = {"crop_scale": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(40, 200, (30, 40, 3), dtype=np.uint8)


def augmented(images, index=0, epoch=0, **options):
    augmentation = ImageAugmentation(**{**NOTHING, **options})
    augmentation.set_epoch(epoch)
    return augmentation(images, "arm", index)


def test_nothing_switched_on_changes_nothing():
    assert np.array_equal(augmented([IMAGE])[0], IMAGE)


def test_crops_keep_the_share_of_the_area_and_lie_inside():
    # A picture of its own coordinates.
    rows, columns = np.mgrid[0:100, 0:200]
    picture = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    corners, areas = set(), []
    for index in range(200):
        crop = augmented([picture], index, crop_scale=0.5)[0]
        height, width, _ = crop.shape
        top, left = crop[0, 0, :2]
        assert np.array_equal(crop, picture[top : top + height, left : left + width])
        assert height / width == pytest.approx(0.5, abs=0.01)
        corners.add((top, left))
        areas.append(height * width / 20000)
    assert 0.49 < min(areas) < 0.53
    assert 0.97 < max(areas) <= 1.0
    assert len(corners) > 150


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_change_one_property_each(name):
    rgb = IMAGE.astype(float)
    changed = augmented([IMAGE], 3, **{name: 0.3 if name != "hue" else 0.1})[0].astype(float)
    assert np.abs(changed - rgb).max() > 3
    luminance = np.array([0.299, 0.587, 0.114])
    if name == "brightness":
        ratio = changed / rgb
        assert ratio.std() < 0.01
    elif name == "contrast":
        mean = (rgb @ luminance).mean()
        ratio = (changed - mean)[np.abs(rgb - mean) > 40] / (rgb - mean)[np.abs(rgb - mean) > 40]
        assert ratio.std() < 0.02
    else:
        # Brightness stays; only colours move.
        inside = ((changed > 0) & (changed < 255)).all(-1)
        np.testing.assert_allclose((changed @ luminance)[inside], (rgb @ luminance)[inside], atol=1.5)


def test_hue_turns_the_way_round_of_the_colour_circle():
    red = np.full((4, 4, 3), (200, 80, 80), np.uint8)
    hues = []
    for index in range(100):
        pixel = augmented([red], index, hue=0.1)[0][0, 0] / 255
        hue = colorsys.rgb_to_hsv(*pixel)[0]
        hues.append(hue - 1 if hue > 0.5 else hue)
    assert min(hues) < -0.05
    assert max(hues) > 0.05


def test_grey_stays_grey():
    grey = np.repeat(RNG.integers(0, 256, (20, 20, 1), dtype=np.uint8), 3, axis=-1)
    changed = augmented([grey], saturation=0.5, hue=0.3)[0]
    assert np.abs(changed.astype(int) - grey).max() <= 1


def test_cameras_of_a_sample_share_one_draw():
    first, second = augmented([IMAGE, IMAGE.copy()], crop_scale=0.5, brightness=0.5, hue=0.2)
    assert np.array_equal(first, second)


@given(index=st.integers(0, 10**6), epoch=st.integers(0, 1000), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_same_draw_for_the_same_sample_epoch_and_seed(index, epoch, seed):
    options = {"crop_scale": 0.5, "brightness": 0.5, "seed": seed}
    again = [augmented([IMAGE], index, epoch, **options)[0] for _ in range(2)]
    assert np.array_equal(*again)
    others = [(index + 1, epoch, seed), (index, epoch + 1, seed), (index, epoch, seed + 1)]
    for other_index, other_epoch, other_seed in others:
        other = augmented([IMAGE], other_index, other_epoch, **{**options, "seed": other_seed})[0]
        assert not np.array_equal(other, again[0])


def test_workers_that_stay_alive_follow_the_epoch():
    augmentation = ImageAugmentation()
    loader = DataLoader(
        range(2),
        batch_size=2,
        num_workers=1,
        persistent_workers=True,
        collate_fn=lambda rows: augmentation([IMAGE], "arm", rows[0])[0],
    )
    first = next(iter(loader))
    augmentation.set_epoch(1)
    second = next(iter(loader))
    expected = ImageAugmentation()
    assert np.array_equal(first, expected([IMAGE], "arm", 0)[0])
    expected.set_epoch(1)
    assert np.array_equal(second, expected([IMAGE], "arm", 0)[0])


@pytest.mark.parametrize(
    "options", [{"crop_scale": 0.0}, {"crop_scale": 1.1}, {"brightness": -0.1}, {"saturation": 1.5}, {"hue": 0.6}]
)
def test_impossible_ranges(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ImageAugmentation(**options)
