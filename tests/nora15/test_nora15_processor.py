# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Images, prompts, targets and units on their way into the policy and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from helpers.paths import FIXTURES
from helpers.pushed_files import pushed_files, written_files
from nora15_hf.actions import ActionStatistics
from nora15_hf.nora15 import Nora15Processor, processing_nora15
from nora15_hf.nora15.image_processing_nora15 import images_to_patches, resize_lanczos3
from nora15_hf.nora15.presets import tiny_policy

RESIZED = load_file(FIXTURES / "image_resize" / "resize.safetensors")
SIZES = sorted(name.removeprefix("in_") for name in RESIZED if name.startswith("in_"))
TEXT = "open the faucet"
# A template with a system prompt, as the backbone's own has one.
SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def statistics(low, high, mask=None):
    ends = np.array([low, high], dtype=np.float32)
    return ActionStatistics.from_actions(ends, mask=mask)


@pytest.fixture(scope="module")
def processor():
    return tiny_policy(seed=0)[1]


@pytest.fixture(scope="module")
def robots():
    """Two robots, the gripper of the second left in its own units."""
    norm_stats = {
        "arm": statistics([-1, -2, -3, 0], [1, 2, 3, 4]),
        "hand": statistics([0, 0, 0, 0], [2, 2, 2, 1], mask=np.array([True, True, True, False])),
    }
    conventions = {"arm": {"camera": "corner2", "control_hz": 12.5}}
    return tiny_policy(norm_stats=norm_stats, conventions=conventions, seed=0)[1]


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def chunk():
    return np.random.default_rng(1).uniform(-0.9, 0.9, (5, 4)).astype(np.float32)


class TestResize:
    @pytest.mark.parametrize("size", SIZES)
    def test_equals_tensorflow(self, size):
        """At most one level apart, in at most 4e-5 of the elements; Pillow is up to 20 levels off."""
        expected = RESIZED[f"out_{size}"].permute(2, 0, 1)[None].int()
        found = resize_lanczos3(RESIZED[f"in_{size}"].permute(2, 0, 1)[None], 224)
        assert found.dtype == torch.uint8
        distance = (found.int() - expected).abs()
        assert distance.max() <= 1
        assert (distance > 0).float().mean() <= 4e-5

    def test_the_bound_tells_pillow_apart(self):
        worst = 0
        for size in SIZES:
            pillow = Image.fromarray(RESIZED[f"in_{size}"].numpy()).resize((224, 224), Image.Resampling.LANCZOS)
            worst = max(worst, np.abs(np.array(pillow, dtype=int) - RESIZED[f"out_{size}"].numpy()).max())
        assert worst > 5

    def test_batch_equals_singles(self, image):
        batch = torch.from_numpy(np.stack([image, image[::-1], image[:, ::-1]])).permute(0, 3, 1, 2)
        singles = torch.cat([resize_lanczos3(one[None], 84) for one in batch])
        assert torch.equal(resize_lanczos3(batch, 84), singles)

    def test_the_right_size_is_left_alone(self, image):
        square = torch.from_numpy(image[:60, :60]).permute(2, 0, 1)[None]
        assert torch.equal(resize_lanczos3(square, 60), square)


class TestPatches:
    @pytest.mark.parametrize("size", [84, 224])
    def test_equal_transformers(self, size):
        images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
        stock = Qwen2VLImageProcessorPil(do_resize=False)(
            images=[Image.fromarray(i) for i in images], return_tensors="pt"
        )
        patches, grid = images_to_patches(torch.from_numpy(images).permute(0, 3, 1, 2))
        assert torch.equal(grid, stock["image_grid_thw"])
        assert patches.shape == (3 * (size // 14) ** 2, 1176)
        torch.testing.assert_close(patches, torch.as_tensor(stock["pixel_values"]).float(), atol=1e-6, rtol=0)

    @pytest.mark.filterwarnings("error")
    def test_inputs_of_one_meaning_give_the_same_patches(self, processor, image):
        expected = processor(images=image, text=TEXT)["pixel_values"]
        read_only = image.copy()
        read_only.flags.writeable = False
        for same in (Image.fromarray(image), torch.from_numpy(image.copy()), [image], read_only, image[::-1][::-1]):
            assert torch.equal(processor(images=same, text=TEXT)["pixel_values"], expected)

    def test_everything_lies_on_the_device_asked_for(self, processor, image):
        on_meta = processor(images=image, text="open the faucet", device="meta")
        usual = processor(images=image, text="open the faucet")
        assert {name: value.shape for name, value in on_meta.items()} == {n: v.shape for n, v in usual.items()}
        assert {value.device.type for value in on_meta.values()} == {"meta"}
        assert {value.device.type for value in usual.values()} == {"cpu"}

    def test_images_of_different_sizes_keep_their_order(self, processor, image):
        images = [image, image[:40], image[:, :50], image]
        together = processor(images=images, text=[TEXT] * 4)["pixel_values"]
        alone = [processor(images=one, text=TEXT)["pixel_values"] for one in images]
        assert torch.equal(together, torch.cat(alone))


class TestPrompt:
    def test_tokens_are_those_of_the_rendered_template(self, processor, image):
        rendered = (
            f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * 9}<|vision_end|>{TEXT}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        inputs = processor(images=image, text=TEXT)
        assert inputs["input_ids"].tolist() == [processor.tokenizer(rendered)["input_ids"]]
        assert inputs["attention_mask"].all()
        assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]

    def test_another_template(self, processor, image):
        with_system = Nora15Processor(
            processor.tokenizer,
            processor.action_codec,
            processor.norm_stats,
            image_size=84,
            action_dim=4,
            chat_template=SYSTEM_TEMPLATE,
        )
        ids = with_system(images=image, text=TEXT)["input_ids"][0].tolist()
        own = processor(images=image, text=TEXT)["input_ids"][0].tolist()
        system = processor.tokenizer("<|im_start|>system\nBe brief.<|im_end|>\n")["input_ids"]
        assert ids == system + own

    def test_two_cameras(self, processor, image):
        ids = processor(images=[image, image], text=TEXT)["input_ids"][0]
        block = f"<|vision_start|>{'<|image_pad|>' * 9}<|vision_end|>"
        rendered = f"<|im_start|>user\n{block * 2}{TEXT}<|im_end|>\n<|im_start|>assistant\n"
        assert ids.tolist() == processor.tokenizer(rendered)["input_ids"]

    def test_left_padding(self, processor, image):
        texts = [TEXT, "press the button and then close the faucet"]
        batch = processor(images=[image, image], text=texts)
        for row, mask, text in zip(batch["input_ids"], batch["attention_mask"], texts, strict=True):
            alone = processor(images=image, text=text)["input_ids"][0]
            pads = len(row) - len(alone)
            assert mask.tolist() == [0] * pads + [1] * len(alone)
            assert row[pads:].tolist() == alone.tolist()
            assert (row[:pads] == processor.tokenizer.pad_token_id).all()
        assert batch["attention_mask"][0].sum() != batch["attention_mask"][1].sum()

    @settings(max_examples=40, deadline=None)
    @given(text=st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=40).filter(str.strip))
    def test_any_instruction_survives(self, processor, text):
        prompt, _ = processor.prompt_ids(text)
        assert text in processor.tokenizer.decode(prompt)
        assert sum(token == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>") for token in prompt) == 9

    def test_remembered_prompts_do_not_pile_up(self, processor, monkeypatch):
        monkeypatch.setattr(processing_nora15, "REMEMBERED_PROMPTS", 3)
        monkeypatch.setattr(processor, "_prompts", {})
        prompts = [processor.prompt_ids(f"push {number}") for number in range(8)]
        assert len(processor._prompts) <= 3
        assert [processor.prompt_ids(f"push {number}") for number in range(8)] == prompts

    def test_lowercase(self, processor):
        lower = Nora15Processor(
            processor.tokenizer,
            processor.action_codec,
            processor.norm_stats,
            image_size=84,
            action_dim=4,
            lowercase_instruction=True,
        )
        assert lower.prompt_ids("Open The Faucet") == processor.prompt_ids("open the faucet")
        assert processor.prompt_ids("Open The Faucet") != processor.prompt_ids("open the faucet")

    def test_a_template_whose_prompt_is_no_prefix_is_refused(self, processor):
        broken = Nora15Processor(
            processor.tokenizer,
            processor.action_codec,
            processor.norm_stats,
            image_size=84,
            action_dim=4,
            chat_template=SYSTEM_TEMPLATE.replace(
                "<|im_start|>assistant\n{% endif %}", "<|im_start|>robot\n{% endif %}"
            ),
        )
        with pytest.raises(ValueError, match="not a prefix"):
            broken.prompt_ids(TEXT)

    def test_a_damaged_template_does_not_load(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        file = tmp_path / "chat_template.jinja"
        template = file.read_text()
        file.write_text(template[: len(template) // 2])
        with pytest.raises(
            ValueError, match=rf"processor in .*{tmp_path.name}.* cannot be used: .*damaged or incomplete"
        ):
            Nora15Processor.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda template: template[: template.index("{% if add_generation_prompt")], "not a prefix"),
            (lambda template: "", r"renders 0 image\(s\) of 1, no instruction|not a prefix"),
            (lambda template: template.replace("<|image_pad|>", ""), r"renders 0 image\(s\) of 1, the instruction"),
            (lambda template: template.replace("<|im_end|>\n", ""), "'' as the end of the answer"),
        ],
        ids=["without its end", "empty", "without images", "without ends of turns"],
    )
    def test_a_template_without_prompts_is_said_and_not_used(self, processor, tmp_path, caplog, change, message):
        processor.save_pretrained(tmp_path)
        file = tmp_path / "chat_template.jinja"
        file.write_text(change(file.read_text()))
        loaded = Nora15Processor.from_pretrained(tmp_path)
        assert "has a chat template that cannot be used for prompts" in caplog.text
        with pytest.raises(ValueError, match=message):
            loaded.prompt_ids(TEXT)


class TestTargets:
    def test_labels_begin_with_the_first_fast_token(self, processor, image, chunk):
        batch = processor(images=image, text=TEXT, actions=chunk)
        prompt = processor(images=image, text=TEXT)["input_ids"][0].tolist()
        row, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        fast = [token + processor.first_action_token_id for token in processor.action_codec.encode(chunk)[0]]
        closing = processor.tokenizer("<|im_end|>\n")["input_ids"]
        assert row == prompt + fast + closing
        assert labels == [-100] * len(prompt) + fast + closing

    def test_fast_tokens_give_the_chunk_back(self, processor, image, chunk):
        labels = processor(images=image, text=TEXT, actions=chunk)["labels"][0]
        first = processor.first_action_token_id
        ids = [token - first for token in labels.tolist() if token >= first]
        decoded, valid = processor.decode_action_tokens([ids])
        assert valid.all()
        assert np.abs(decoded[0] - chunk).max() < 0.5 / processor.action_codec.scale * 5**0.5

    def test_labels_of_a_ragged_batch(self, processor, image):
        chunks = np.random.default_rng(2).uniform(-0.9, 0.9, (4, 5, 4)).astype(np.float32)
        chunks[1:3] = 0
        texts = [TEXT, "press the handle down", "go", TEXT]
        batch = processor(images=[image] * 4, text=texts, actions=chunks)
        for i, text in enumerate(texts):
            alone = processor(images=image, text=text, actions=chunks[i])
            real = batch["attention_mask"][i].bool()
            assert batch["input_ids"][i][real].tolist() == alone["input_ids"][0].tolist()
            assert batch["labels"][i][real].tolist() == alone["labels"][0].tolist()
            assert (batch["labels"][i][~real] == -100).all()

    def test_padded_chunks_get_no_fast_tokens(self, processor, image, chunk):
        mask = np.array([[True] * 5, [True] * 4 + [False]])
        batch = processor(images=[image] * 2, text=[TEXT] * 2, actions=np.stack([chunk] * 2), action_mask=mask)
        first = processor.first_action_token_id
        assert (batch["input_ids"][0] >= first).any()
        assert not (batch["input_ids"][1] >= first).any()
        assert (batch["labels"][1] == -100).all()
        assert torch.equal(batch["action_mask"], torch.from_numpy(mask))

    def test_without_action_tokens(self, processor, image, chunk):
        batch = processor(images=image, text=TEXT, actions=chunk, action_tokens=False)
        assert "labels" not in batch
        assert torch.equal(batch["input_ids"], processor(images=image, text=TEXT)["input_ids"])
        assert batch["actions"].shape == (1, 5, 4)
        assert batch["actions"].dtype == torch.float32

    def test_shapes_and_dtypes(self, processor, image, chunk):
        batch = processor(images=[image] * 2, text=[TEXT] * 2, actions=np.stack([chunk] * 2))
        assert set(batch) == {*processor.model_input_names, "labels", "actions", "action_mask"}
        assert set(processor(images=image, text=TEXT)) == set(processor.model_input_names)
        assert batch["input_ids"].dtype == batch["labels"].dtype == batch["attention_mask"].dtype == torch.int64
        assert batch["pixel_values"].dtype == torch.float32
        assert batch["action_mask"].dtype == torch.bool
        assert batch["pixel_values"].shape == (72, 1176)


class TestUnits:
    def test_the_sample_s_own_statistics(self, robots, image, chunk):
        batch = robots(
            images=[image] * 2,
            text=[TEXT] * 2,
            actions=np.stack([chunk, np.abs(chunk)]),
            dataset_key=["arm", "hand"],
        )
        for row, actions, key in zip(batch["actions"], (chunk, np.abs(chunk)), ("arm", "hand"), strict=True):
            torch.testing.assert_close(row, robots.normalize_actions(torch.from_numpy(actions), key))
            back = robots.unnormalize_actions(row, key)
            torch.testing.assert_close(back, torch.from_numpy(actions), atol=1e-6, rtol=1e-6)
        assert torch.equal(batch["actions"][1, :, 3], torch.from_numpy(np.abs(chunk))[:, 3])

    @pytest.mark.parametrize("method", ["normalize_actions", "unnormalize_actions"])
    def test_several_keys_and_no_choice(self, robots, chunk, method):
        with pytest.raises(ValueError, match="'arm', 'hand'"):
            getattr(robots, method)(chunk)
        with pytest.raises(ValueError, match=r"'leg' is unknown.*'arm', 'hand'"):
            getattr(robots, method)(chunk, "leg")

    def test_several_keys_and_no_choice_in_training(self, robots, image, chunk):
        with pytest.raises(ValueError, match="'arm', 'hand'"):
            robots(images=image, text=TEXT, actions=chunk)

    def test_one_key_is_the_default(self, processor, chunk):
        assert np.array_equal(processor.normalize_actions(chunk), processor.normalize_actions(chunk, "default"))


BAD_IMAGES = {
    "no pixels": (np.zeros((0, 80, 3), dtype=np.uint8), "has no pixels"),
    "float": (np.zeros((60, 80, 3), dtype=np.float32), "expected uint8"),
    "grey": (np.zeros((60, 80), dtype=np.uint8), "repeated to three channels"),
    "grey with a channel": (np.zeros((60, 80, 1), dtype=np.uint8), "repeated to three channels"),
    "RGBA": (np.zeros((60, 80, 4), dtype=np.uint8), r"\[..., :3\]"),
    "channels first": (np.zeros((3, 60, 80), dtype=np.uint8), "transpose"),
    "five axes": (np.zeros((1, 1, 60, 80, 3), dtype=np.uint8), "expected .height, width, 3."),
    "grey PIL": (Image.new("L", (80, 60)), 'convert."RGB".'),
    "RGBA PIL": (Image.new("RGBA", (80, 60)), 'convert."RGB".'),
    "file name": ("image.png", "expected a PIL image"),
    "uint16": (np.zeros((60, 80, 3), dtype=np.uint16), "expected uint8"),
    "NaN": (np.full((60, 80, 3), np.nan), "expected uint8"),
    "no camera": ([], "no image"),
}


class TestBadInput:
    @pytest.mark.parametrize("case", BAD_IMAGES)
    def test_image(self, processor, case):
        bad, message = BAD_IMAGES[case]
        with pytest.raises((ValueError, TypeError), match=message):
            processor(images=[bad], text=[TEXT])

    @pytest.mark.parametrize("text", ["", "  ", "\n"])
    def test_empty_instruction(self, processor, image, text):
        with pytest.raises(ValueError, match="text is empty"):
            processor(images=image, text=text)

    @pytest.mark.parametrize("marker", ["<|image_pad|>", "<|im_end|>", "<robot_action_3>"])
    def test_markers_in_the_instruction(self, processor, image, marker):
        with pytest.raises(ValueError, match="special token"):
            processor(images=image, text=f"open {marker} the faucet")

    @pytest.mark.parametrize(
        ("count", "texts"),
        [(1, [TEXT] * 2), (3, [TEXT] * 2), (0, [TEXT]), (0, [])],
        ids=["few", "many", "none", "empty"],
    )
    def test_images_and_texts_do_not_match(self, processor, image, count, texts):
        with pytest.raises(ValueError, match=r"images|text"):
            processor(images=[image] * count, text=texts)

    def test_one_image_for_two_texts(self, processor, image):
        with pytest.raises(ValueError, match="one image for 2 texts"):
            processor(images=image, text=[TEXT] * 2)

    @pytest.mark.parametrize(
        ("change", "arguments", "message"),
        [
            (lambda a: a[:4], {}, r"\(1, 5, 4\)"),
            (lambda a: a[:, :3], {}, r"\(1, 5, 4\)"),
            (lambda a: a[None, None], {}, r"\(1, 5, 4\)"),
            (lambda a: np.where(np.arange(4) == 1, np.nan, a), {}, "NaN"),
            (lambda a: np.where(np.arange(4) == 1, np.inf, a), {}, "NaN or inf"),
            (lambda a: a, {"action_mask": np.ones(4, dtype=bool)}, "action_mask"),
            (lambda a: a, {"action_mask": np.ones((1, 5))}, "action_mask.*bool"),
            (lambda a: a, {"action_mask": np.zeros((1, 5), dtype=bool)}, "action_mask"),
            (lambda a: a, {"dataset_key": ["default", "default"]}, "dataset_key has 2"),
            (lambda a: a, {"dataset_key": "robot"}, "'robot' is unknown"),
            (lambda a: a, {"return_tensors": "np"}, "return_tensors"),
        ],
    )
    def test_actions(self, processor, image, chunk, change, arguments, message):
        with pytest.raises(ValueError, match=message):
            processor(images=image, text=TEXT, actions=change(chunk), **arguments)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"image_size": 100}, "multiple of patch_size"),
            ({"action_dim": 7}, "those of another robot"),
        ],
    )
    def test_construction(self, processor, change, message):
        arguments = {"image_size": 84, "action_dim": 4, **change}
        with pytest.raises(ValueError, match=message):
            Nora15Processor(processor.tokenizer, processor.action_codec, processor.norm_stats, **arguments)

    def test_ids_outside_the_action_range(self, processor):
        with pytest.raises(ValueError, match="not ids of this vocabulary"):
            processor.decode_action_tokens([[processor.action_codec.vocab_size]], on_invalid="raise")


class TestSavingAndLoading:
    @pytest.fixture(scope="class")
    def folder(self, robots, tmp_path_factory):
        folder = tmp_path_factory.mktemp("processor")
        robots.save_pretrained(folder)
        return folder

    def test_round_trip(self, robots, folder, image, chunk):
        for loaded in (Nora15Processor.from_pretrained(folder), AutoProcessor.from_pretrained(folder)):
            assert type(loaded) is Nora15Processor
            arguments = {"images": image, "text": TEXT, "actions": chunk, "dataset_key": "arm"}
            expected, found = robots(**arguments), loaded(**arguments)
            assert set(found) == set(expected)
            assert all(torch.equal(found[name], value) for name, value in expected.items())
            for key in ("arm", "hand"):
                assert np.array_equal(loaded.unnormalize_actions(chunk, key), robots.unnormalize_actions(chunk, key))
            assert loaded.conventions == robots.conventions
            for name in ("image_size", "chunk_size", "action_dim", "normalization_mode", "clip_actions", "image_mean"):
                assert getattr(loaded, name) == getattr(robots, name), name

    def test_what_is_in_the_folder(self, folder):
        settings_file = json.loads((folder / "processor_config.json").read_text())
        assert settings_file["processor_class"] == "Nora15Processor"
        assert settings_file["conventions"]["arm"]["camera"] == "corner2"
        assert "norm_stats" not in settings_file
        assert "action_codec" not in settings_file
        assert set(json.loads((folder / "norm_stats.json").read_text())) == {"arm", "hand"}
        assert (folder / "action_codec" / "processor_config.json").exists()

    def test_every_setting_survives(self, processor, tmp_path):
        changed = Nora15Processor(
            processor.tokenizer,
            processor.action_codec,
            processor.norm_stats,
            image_size=56,
            image_mean=(0.1, 0.2, 0.3),
            image_std=(0.4, 0.5, 0.6),
            chunk_size=5,
            action_dim=4,
            normalization_mode="min_max",
            clip_actions=True,
            lowercase_instruction=True,
            chat_template=SYSTEM_TEMPLATE,
        )
        changed.save_pretrained(tmp_path)
        loaded = Nora15Processor.from_pretrained(tmp_path)
        assert loaded.to_dict() == changed.to_dict()
        assert loaded.prompt_ids("Open") == changed.prompt_ids("Open")
        assert loaded.chat_template == SYSTEM_TEMPLATE

    @pytest.mark.parametrize(
        ("setting", "value", "message"),
        [
            ("image_size", None, "image_size is None, expected a whole number above 0"),
            ("merge_size", -1, "merge_size is -1, expected a whole number"),
            ("temporal_patch_size", 1.5, "temporal_patch_size is 1.5, expected a whole number"),
            ("chunk_size", True, "chunk_size is True"),
            ("state_dim", 0, "state_dim is 0"),
            ("image_mean", [0.5], r"image_mean is \[0.5\], expected three numbers"),
            ("image_std", [1, 0, 1], "three numbers above 0"),
            ("image_std", ["x", 1, 1], "three numbers above 0"),
            ("delta_action_mask", -1, "delta_action_mask is -1, expected a list of true and false"),
            ("angle_action_mask", [1, 0, 1, 0], "expected a list of true and false"),
            ("clip_actions", "no", "clip_actions is 'no', expected true or false"),
            ("normalization_mode", [], "expected one of q01_q99, min_max, mean_std"),
            ("embodiments", "x", "embodiments is 'x', expected an object"),
            ("conventions", [1], r"conventions is \[1\], expected an object"),
        ],
    )
    def test_settings_of_other_kinds_are_refused(self, robots, tmp_path, setting, value, message):
        robots.save_pretrained(tmp_path)
        file = tmp_path / "processor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
        with pytest.raises(
            ValueError, match=rf"{tmp_path.name}.* cannot be used: .*{message}.*processor_config\.json"
        ):
            Nora15Processor.from_pretrained(tmp_path)

    def test_everything_reaches_the_hub(self, hub, robots, folder):
        robots.push_to_hub("robots/policy")
        pushed = pushed_files(hub, "robots/policy")
        assert pushed == written_files(folder)
        assert "action_codec/bpe_tokenizer/tokenizer.json" in pushed

    def test_pushing_while_saving_is_refused(self, robots, tmp_path):
        with pytest.raises(ValueError, match="call push_to_hub"):
            robots.save_pretrained(tmp_path, push_to_hub=True)

    @pytest.mark.parametrize("missing", ["norm_stats.json", "action_codec/processor_config.json"])
    def test_missing_file(self, robots, tmp_path, missing):
        robots.save_pretrained(tmp_path)
        (tmp_path / missing).unlink()
        with pytest.raises(OSError, match=Path(missing).name):
            Nora15Processor.from_pretrained(tmp_path)

    def test_damaged_statistics(self, robots, tmp_path):
        robots.save_pretrained(tmp_path)
        (tmp_path / "norm_stats.json").write_text("{")
        with pytest.raises(ValueError, match=r"norm_stats\.json"):
            Nora15Processor.from_pretrained(tmp_path)
