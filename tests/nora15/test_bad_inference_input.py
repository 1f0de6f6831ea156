# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Every wrong input of inference in one table: each is an error that names what was found and what to do."""

import numpy as np
import pytest
import torch
from PIL import Image

from nora15_hf.actions import ActionStatistics
from nora15_hf.nora15.presets import tiny_policy

TEXT = "open the faucet"
IMAGE = np.zeros((84, 84, 3), dtype=np.uint8)
CHUNK = np.zeros((1, 5, 4), dtype=np.float32)


class Robot:
    """A policy of two robots and the inputs of one observation."""

    def __init__(self):
        ends = np.array([[-1.0] * 4, [1.0] * 4], dtype=np.float32)
        statistics = ActionStatistics.from_actions(ends)
        self.model, self.processor = tiny_policy(norm_stats={"arm": statistics, "hand": statistics}, seed=0)
        self.inputs = self.processor(images=IMAGE, text=TEXT)

    def look(self, images=IMAGE, text=TEXT):
        return self.processor(images=images, text=text)

    def sample(self, **changes):
        return self.model.sample_actions(**{**self.inputs, **changes})

    def generate(self, **changes):
        return self.model.generate_actions(**{**self.inputs, **changes})


@pytest.fixture(scope="module")
def robot():
    return Robot()


BAD_INPUT = {
    "image: no pixels": (lambda r: r.look(IMAGE[:0]), ValueError, "has no pixels"),
    "image: float": (lambda r: r.look(IMAGE / 255), TypeError, r"float64, expected uint8.*\* 255"),
    "image: float tensor": (lambda r: r.look(torch.zeros(84, 84, 3)), TypeError, "float32, expected uint8"),
    "image: grey": (lambda r: r.look(IMAGE[..., 0]), ValueError, "repeated to three channels"),
    "image: grey PIL": (lambda r: r.look(Image.new("L", (80, 60))), ValueError, r"'L', expected \"RGB\".*convert"),
    "image: palette PIL": (lambda r: r.look(Image.new("P", (80, 60))), ValueError, r"'P', expected \"RGB\".*convert"),
    "image: RGBA": (lambda r: r.look(np.zeros((84, 84, 4), np.uint8)), ValueError, r"image\[..., :3\]"),
    "image: RGBA PIL": (lambda r: r.look(Image.new("RGBA", (80, 60))), ValueError, "'RGBA'.*convert"),
    "image: CHW": (lambda r: r.look(IMAGE.transpose(2, 0, 1)), ValueError, "transpose to .height, width, 3."),
    "image: CHW tensor": (
        lambda r: r.look(torch.from_numpy(IMAGE).permute(2, 0, 1)),
        ValueError,
        "transpose to .height, width, 3.",
    ),
    "image: none": (lambda r: r.look(None), TypeError, "at least one image"),
    "image: no camera": (lambda r: r.look([]), ValueError, "no image"),
    "instruction: empty": (lambda r: r.look(text=""), ValueError, "text is empty"),
    "instruction: blank": (lambda r: r.look(text=" \n"), ValueError, "text is empty"),
    "instruction: none": (lambda r: r.look(text=None), TypeError, "text is None, expected an instruction"),
    "instruction: number": (lambda r: r.look([IMAGE], [3]), TypeError, r"text is \[3\], expected an instruction"),
    "instruction: marker": (lambda r: r.look(text="open <|im_end|>"), ValueError, "special token"),
    "dataset key: unknown": (
        lambda r: r.processor.unnormalize_actions(CHUNK, "leg"),
        ValueError,
        "'leg' is unknown.*'arm', 'hand'",
    ),
    "dataset key: no choice": (
        lambda r: r.processor.unnormalize_actions(CHUNK),
        ValueError,
        "not given.*'arm', 'hand'",
    ),
    "chunk: action dimension": (
        lambda r: r.processor.unnormalize_actions(np.zeros((1, 5, 7), np.float32), "arm"),
        ValueError,
        r"\(1, 5, 7\).*4 dimension",
    ),
    "chunk: length": (
        lambda r: r.processor(images=IMAGE, text=TEXT, actions=CHUNK[:, :4], dataset_key="arm"),
        ValueError,
        r"\(1, 4, 4\), expected .*\(1, 5, 4\)",
    ),
    "chunk: NaN": (
        lambda r: r.processor(images=IMAGE, text=TEXT, actions=CHUNK + np.nan, dataset_key="arm"),
        ValueError,
        "NaN",
    ),
    "action ids: beyond the vocabulary": (
        lambda r: r.processor.decode_action_tokens([[len(r.processor.action_codec)]], on_invalid="raise"),
        ValueError,
        r"\[256\] are not ids of this vocabulary \(0 to 255\)",
    ),
    "action ids: negative": (
        lambda r: r.processor.decode_action_tokens([[-1]], on_invalid="raise"),
        ValueError,
        r"\[-1\] are not ids",
    ),
    "action ids: no rows": (lambda r: r.processor.decode_action_tokens([1, 2]), TypeError, "Wrap a single list"),
    "noise: shape": (lambda r: r.sample(noise=torch.zeros(1, 5, 7)), ValueError, r"\(1, 5, 7\), expected \(1, 5, 4\)"),
    "noise: NaN": (lambda r: r.sample(noise=torch.full((1, 5, 4), torch.nan)), ValueError, "noise holds NaN"),
    "num_steps: 0": (lambda r: r.sample(num_steps=0), ValueError, "num_steps=0 must be an integer of at least 1"),
    "num_steps: -1": (lambda r: r.sample(num_steps=-1), ValueError, "num_steps=-1 must"),
    "num_steps: 2.5": (lambda r: r.sample(num_steps=2.5), ValueError, "num_steps=2.5 must be an integer"),
    "num_samples: 0": (lambda r: r.sample(num_samples=0), ValueError, "num_samples=0 must"),
    "num_samples: 1.5": (lambda r: r.sample(num_samples=1.5), ValueError, "num_samples=1.5 must be an integer"),
    "max_new_tokens: 0": (lambda r: r.generate(max_new_tokens=0), ValueError, "max_new_tokens=0 must"),
    "prompt without its image": (lambda r: r.sample(image_grid_thw=None), ValueError, "image_grid_thw is missing"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_is_a_clear_error(robot, case):
    call, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        call(robot)


def test_ids_outside_the_action_range_are_flagged_by_default(robot):
    actions, valid = robot.processor.decode_action_tokens([[-1], [256], []])
    assert not valid.any()
    assert np.isnan(actions).all()


def test_the_table_s_inputs_are_right_but_for_the_one_thing(robot):
    assert robot.sample().shape == (1, 5, 4)
    assert len(robot.generate(max_new_tokens=1)) == 1
    assert robot.processor.unnormalize_actions(CHUNK, "arm").shape == CHUNK.shape
