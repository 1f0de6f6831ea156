# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Published checkpoints: loading them as they are, converting them, and what is refused."""

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoProcessor

from helpers.paths import FIXTURES, TESTS
from helpers.pushed_files import pushed_files, written_files
from helpers.released_golden import VELOCITY, released_config
from helpers.released_repos import (
    hub_cache,
    random_weights,
    scaled_config,
    write_norm_stats,
    write_tokenizer,
    write_weights,
)
from nora15_hf import commands
from nora15_hf.nora15 import Nora15Config, Nora15ForActionPrediction, Nora15Processor
from nora15_hf.nora15.convert_nora15_to_hf import convert_nora15_to_hf as convert
from nora15_hf.nora15.presets import tiny_tokenizer
from nora15_hf.nora15.released_checkpoint import check_tensors, native_name
from nora15_hf.nora15.released_checkpoint import released_config as released_layout_config
from nora15_hf.repo_files.checkpoint import Checkpoint

EMBEDDING, HEAD = "vlm.model.language_model.embed_tokens.weight", "vlm.lm_head.weight"
EXPERT = ("action_expert.", "action_in_", "action_out_", "action_time_")
TEXT = "open the faucet"


@pytest.fixture(scope="module")
def config():
    return scaled_config(layers=2, vision_blocks=2, width=64)


@pytest.fixture(scope="module")
def weights(config):
    return random_weights(config)


@pytest.fixture(scope="module")
def nora(tmp_path_factory, weights):
    """Like `declare-lab/nora`: backbone in two shards with legacy names, tokenizer and statistics."""
    folder = write_norm_stats(write_tokenizer(tmp_path_factory.mktemp("nora")))
    legacy = {legacy_name(name): tensor for name, tensor in weights.items() if not name.startswith(EXPERT)}
    names = sorted(legacy)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in shards.items():
        save_file({name: legacy[name] for name in members}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    scaled_config(layers=2, vision_blocks=2, width=64).vlm_config.save_pretrained(folder)
    return folder


def legacy_name(name):
    name = name.removeprefix("vlm.").replace("model.visual.", "visual.")
    return name.replace("model.language_model.", "model.")


@pytest.fixture(scope="module")
def policy(tmp_path_factory, weights):
    """Like `declare-lab/nora-1.5`: one file of weights and nothing else."""
    return write_weights(tmp_path_factory.mktemp("nora-1.5"), weights)


@pytest.fixture(scope="module")
def codec():
    return FIXTURES / "tokenization_fast" / "fit_5x7_v256_v4layout"


@pytest.fixture(scope="module")
def cache(tmp_path_factory, nora, policy, codec):
    repos = {"declare-lab/nora": nora, "declare-lab/nora-1.5": policy, "physical-intelligence/fast": codec}
    return hub_cache(tmp_path_factory.mktemp("cache"), repos)


@pytest.fixture(scope="module")
def sources(nora, codec):
    return {"tokenizer_source": nora, "action_codec_source": codec, "norm_stats_source": nora}


@pytest.fixture(scope="module")
def converted(tmp_path_factory, policy, config, sources):
    output = tmp_path_factory.mktemp("converted") / "my-nora"
    return output, convert(policy, output, config=config, **sources, max_shard_size=8_000_000)


@pytest.fixture
def inputs(converted):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    return AutoProcessor.from_pretrained(converted[0])(images=image, text=TEXT)


class TestReleasedPolicy:
    def test_golden_numbers(self, tmp_path):
        """The recorded weights of the released code, in the released layout, give the recorded velocity."""
        folder = FIXTURES / "nora15"
        shutil.copy(folder / "state_dict.safetensors", tmp_path / "model.safetensors")
        model = Nora15ForActionPrediction.from_pretrained(tmp_path, config=released_config())
        batch, expected = load_file(folder / "batch.safetensors"), load_file(folder / "forward.safetensors")
        prefix = model.encode_prefix(
            *(batch[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"))
        )
        time = batch["time"][:, None, None]
        noisy = time * batch["noise"] + (1 - time) * batch["actions"]
        with torch.no_grad():
            velocity = model.predict_velocity(noisy, batch["time"], prefix)
        assert (velocity - expected["velocity"]).abs().max() < VELOCITY
        assert model.vlm.lm_head.weight is model.get_input_embeddings().weight
        assert model.scheduler.config.shift == 1.0

    @pytest.mark.parametrize("options", [{}, {"local_files_only": True}, {"revision": "main", "token": False}])
    def test_by_hub_id(self, cache, config, weights, options):
        model = Nora15ForActionPrediction.from_pretrained(
            "declare-lab/nora-1.5", config=config, cache_dir=cache, **options
        )
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        found = model.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())

    def test_unknown_revision(self, cache, config):
        with pytest.raises(OSError, match=r"nora-1\.5"):
            Nora15ForActionPrediction.from_pretrained(
                "declare-lab/nora-1.5", config=config, cache_dir=cache, revision="no-such-branch"
            )

    def test_dtype_and_device_map(self, policy, config):
        model = Nora15ForActionPrediction.from_pretrained(policy, config=config, dtype=torch.float32, device_map="cpu")
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}

    def test_legacy_backbone_names(self, tmp_path, config, weights):
        old = {("vlm." if name.startswith("vlm.") else "") + legacy_name(name): t for name, t in weights.items()}
        assert "vlm.visual.patch_embed.proj.weight" in old
        found = Nora15ForActionPrediction.from_pretrained(write_weights(tmp_path, old), config=config).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())

    def test_only_the_head_of_the_tied_pair(self, tmp_path, config, weights):
        changed = {HEAD if name == EMBEDDING else name: tensor for name, tensor in weights.items()}
        model = Nora15ForActionPrediction.from_pretrained(write_weights(tmp_path, changed), config=config)
        assert torch.equal(model.get_input_embeddings().weight, weights[EMBEDDING])

    def test_another_architecture_without_config(self, policy):
        """Without `config` it has to be the released model: what differs is named, and nothing is allocated."""
        message = "text width 64 instead of 2048.*text layers 2 instead of 36.*expert layers 2 instead of 36"
        with pytest.raises(ValueError, match=message):
            Nora15ForActionPrediction.from_pretrained(policy)

    def test_other_action_dimensions(self, tmp_path, config, weights):
        changed = weights | {"action_in_proj.weight": torch.zeros(32, 9), "action_out_proj.weight": torch.zeros(9, 32)}
        with pytest.raises(ValueError, match="action dimensions 9 instead of 7"):
            Nora15ForActionPrediction.from_pretrained(write_weights(tmp_path, changed), config=config)

    @pytest.mark.parametrize("vocabulary", [153713, 153728])
    def test_released_configuration(self, tmp_path, vocabulary):
        """The real sizes pass, from the header of a file of 8 GB of which the disk stores nothing."""
        shapes = {
            name: list(shape) for name, shape in Nora15ForActionPrediction.expected_shapes(Nora15Config()).items()
        }
        assert len(shapes) == 1266
        del shapes[HEAD]
        shapes[EMBEDDING] = [vocabulary, 2048]
        header, end = {}, 0
        for name, shape in shapes.items():
            header[name] = {
                "dtype": "BF16",
                "shape": shape,
                "data_offsets": [end, end := end + 2 * np.prod(shape).item()],
            }
        encoded = json.dumps(header).encode()
        with open(tmp_path / "model.safetensors", "wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            file.truncate(8 + len(encoded) + end)
        tensors = Checkpoint(tmp_path).tensors
        config = released_layout_config(tensors)
        assert config.vlm_config.text_config.vocab_size == vocabulary
        expected = Nora15ForActionPrediction.expected_shapes(config)
        check_tensors({name: tensor.shape for name, tensor in tensors.items()}, expected, "declare-lab/nora-1.5")


class TestReleasedProcessor:
    def test_default_sources(self, cache, caplog):
        logger = logging.getLogger("transformers")
        logger.addHandler(caplog.handler)
        own = logging.getLogger("nora15_hf")
        own.addHandler(caplog.handler)
        processor = Nora15Processor.from_pretrained("declare-lab/nora-1.5", cache_dir=cache)
        logger.removeHandler(caplog.handler)
        own.removeHandler(caplog.handler)
        for source in ("declare-lab/nora'", "physical-intelligence/fast"):
            assert source in caplog.text
        assert processor.first_action_token_id == 151665
        assert list(processor.norm_stats) == ["bridge_orig", "fractal20220817_data"]
        assert (processor.image_size, processor.chunk_size, processor.action_dim) == (224, 5, 7)
        assert processor.normalization_mode == "q01_q99"
        with pytest.raises(ValueError, match=r"2 to choose from.*bridge_orig"):
            processor.unnormalize_actions(np.zeros((1, 5, 7)))
        gripper = processor.unnormalize_actions(np.full((5, 7), 0.5), "bridge_orig")[:, 6]
        assert (gripper == 0.5).all()

    def test_the_repo_s_own_parts_come_first(self, nora, codec):
        processor = Nora15Processor.from_pretrained(nora, action_codec_source=codec, chunk_size=1)
        assert processor.chunk_size == 1

    def test_a_native_repo_takes_no_sources(self, converted, nora):
        with pytest.raises(ValueError, match=r"tokenizer_source.*has one"):
            Nora15Processor.from_pretrained(converted[0], tokenizer_source=nora)

    def test_native_weights_without_a_processor(self, converted, tmp_path, sources):
        shutil.copy(converted[0] / "config.json", tmp_path)
        with pytest.raises(OSError, match=r"processor_config\.json"):
            Nora15Processor.from_pretrained(tmp_path, **sources)

    def test_a_folder_without_weights(self, tmp_path, sources):
        with pytest.raises(OSError, match="right folder"):
            Nora15Processor.from_pretrained(tmp_path, **sources)

    def test_chat_template_in_its_own_file(self, nora, policy, codec, tmp_path):
        for file in nora.glob("*token*"):
            shutil.copy(file, tmp_path)
        template = (nora / "chat_template.jinja").read_text()
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
        processor = Nora15Processor.from_pretrained(
            policy, tokenizer_source=tmp_path, action_codec_source=codec, norm_stats_source=nora / "norm_stats.json"
        )
        assert processor.chat_template == template

    @pytest.mark.parametrize(
        ("break_it", "message"),
        [
            (lambda folder: write_norm_stats(folder, dimensions=6), "describes 6 dimensions, but action_dim=7"),
            (lambda folder: (folder / "norm_stats.json").unlink(), r"norm_stats\.json"),
            (lambda folder: (folder / "norm_stats.json").write_text("{}"), "does not hold statistics"),
            (lambda folder: (folder / "norm_stats.json").write_text("{"), "not valid JSON"),
        ],
    )
    def test_bad_statistics(self, policy, sources, tmp_path, break_it, message):
        break_it(write_norm_stats(tmp_path))
        with pytest.raises((ValueError, OSError), match=message):
            Nora15Processor.from_pretrained(policy, **sources | {"norm_stats_source": tmp_path})

    def test_another_tokenizer(self, policy, sources, tmp_path):
        tiny_tokenizer([TEXT], 256).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"<robot_action_0> at id .*, expected 151665"):
            Nora15Processor.from_pretrained(policy, **sources | {"tokenizer_source": tmp_path})


class TestConversion:
    def test_loads_through_auto_classes_alone(self, converted, policy, config, inputs):
        output, _ = converted
        assert AutoConfig.from_pretrained(output).model_type == "nora15"
        model, processor = AutoModel.from_pretrained(output), AutoProcessor.from_pretrained(output)
        reference = Nora15ForActionPrediction.from_pretrained(policy, config=config)
        assert {name: t.dtype for name, t in model.state_dict().items()} == {
            name: t.dtype for name, t in reference.state_dict().items()
        }
        assert all(torch.equal(t, reference.state_dict()[name]) for name, t in model.state_dict().items())
        noise = torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(0))
        actions = model.sample_actions(**inputs, noise=noise)
        assert torch.equal(actions, reference.sample_actions(**inputs, noise=noise))
        assert processor.unnormalize_actions(actions, "bridge_orig").shape == (1, 5, 7)
        assert processor.action_codec.vocab_size == 256
        tokens = model.generate_actions(**inputs, max_new_tokens=3)
        assert tokens == reference.generate_actions(**inputs, max_new_tokens=3)

    def test_files_are_those_of_save_pretrained(self, converted, tmp_path):
        """Whatever the model and processor classes would have written is there, with the same configuration."""
        output, report = converted
        AutoModel.from_pretrained(output).save_pretrained(tmp_path)
        AutoProcessor.from_pretrained(output).save_pretrained(tmp_path)
        files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        written = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
        assert written - files == {*report.files, "model.safetensors.index.json", "README.md"}
        assert files - written == {"model.safetensors"}
        for name in files - {"model.safetensors"}:
            if name.endswith(".json"):
                assert json.loads((output / name).read_text()) == json.loads((tmp_path / name).read_text()), name
        index = json.loads((output / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == set(report.files)
        assert len(report.files) > 1

    def test_report_and_card(self, converted, weights):
        output, report = converted
        text = str(report)
        assert f"{sum(t.numel() for t in weights.values()):,} parameters" in text
        assert re.search(r"vlm\.model\.visual\.blocks\.\*\.attn\.qkv\.weight +2 x \[120, 40\] +BF16", text)
        assert "bridge_orig: 7 dimensions, [6] left raw" in text
        card = (output / "README.md").read_text()
        assert 'dataset_key="bridge_orig"' in card
        assert "| `bridge_orig` | [6] |" in card
        assert "newly initialised" not in card
        assert str(output.parent) not in card
        assert "a local folder" in card

    @pytest.mark.slow
    def test_backbone_with_a_new_expert(self, nora, codec, weights, tmp_path, inputs):
        report = convert(nora, tmp_path / "out", init_expert=3, chunk_size=1, action_codec_source=codec)
        model = AutoModel.from_pretrained(tmp_path / "out")
        found = model.state_dict()
        backbone = {name: tensor for name, tensor in weights.items() if not name.startswith(EXPERT)}
        assert all(torch.equal(found[name], tensor) for name, tensor in backbone.items())
        assert (model.config.chunk_size, model.config.action_dim) == (1, 7)
        assert model.config.action_expert_config.hidden_size == 32
        assert model.action_in_proj.weight.float().std().item() == pytest.approx(0.02, rel=0.2)
        assert (model.action_expert.norm.weight == 1).all()
        assert (model.action_in_proj.bias == 0).all()
        assert model.sample_actions(**inputs).isfinite().all()
        assert "NEWLY INITIALISED (seed 3)" in str(report)
        assert "newly initialised (seed 3)" in (tmp_path / "out" / "README.md").read_text()
        again = convert(nora, tmp_path / "again", init_expert=3, chunk_size=1, action_codec_source=codec)
        for one, other in zip(report.files, again.files, strict=True):
            assert (tmp_path / "out" / one).read_bytes() == (tmp_path / "again" / other).read_bytes()

    def test_the_expert_is_asked_for(self, nora, policy, config, tmp_path, sources):
        with pytest.raises(ValueError, match="--init-expert SEED"):
            convert(nora, tmp_path / "out", **sources)
        with pytest.raises(ValueError, match="discard"):
            convert(policy, tmp_path / "out", config=config, init_expert=0, **sources)
        with pytest.raises(ValueError, match=r"nora15 convert .* --init-expert 0"):
            Nora15ForActionPrediction.from_pretrained(nora)

    def test_native_source_and_full_output(self, converted, policy, config, tmp_path, sources):
        with pytest.raises(ValueError, match="already a native repo"):
            convert(converted[0], tmp_path / "out")
        with pytest.raises(FileExistsError, match="not an empty folder"):
            convert(policy, converted[0], config=config, **sources)

    def test_command_and_push(self, hub, nora, codec, tmp_path, capsys):
        output = tmp_path / "out"
        command = f"convert {nora} --output {output} --push my-nora --init-expert 0 --action-codec {codec}"
        assert commands.main(command.split()) == 0
        assert "NEWLY INITIALISED" in capsys.readouterr().out
        assert pushed_files(hub, "robots/my-nora") == written_files(output)
        assert hub.commit_titles("robots/my-nora") == ["initial commit", f"Convert {nora.name}"]
        with pytest.raises(SystemExit, match="2"):
            commands.main(command.split())
        assert "is not empty: choose another folder" in capsys.readouterr().err


def renamed(name, other):
    return lambda weights: weights.update({other: weights.pop(name)})


def replaced(name, change):
    return lambda weights: weights.update({name: change(weights[name].clone())})


def with_nan(tensor):
    tensor.view(-1)[-1] = torch.nan
    return tensor


class TestBadCheckpoints:
    """The loader and the converter refuse the same things with the same words, and leave nothing behind."""

    def refused(self, folder, config, sources, message, error=ValueError):
        with pytest.raises(error, match=message):
            Nora15ForActionPrediction.from_pretrained(folder, config=config)
        output = folder / "out"
        with pytest.raises(error, match=message):
            convert(folder, output, config=config, **sources)
        assert not [path for path in folder.iterdir() if "out" in path.name]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (renamed("action_out_proj.bias", "action_head.bias"), r"1 missing: .'action_out_proj.bias.*1 unexpected"),
            (lambda weights: weights.pop("action_expert.norm.weight"), "1 missing: .'action_expert.norm.weight'"),
            (lambda weights: weights.pop(EMBEDDING), "2 missing.*embed_tokens"),
            (lambda weights: weights.update(extra=torch.zeros(1)), "1 unexpected: .'extra'"),
            (replaced("action_time_mlp_in.weight", lambda t: t.T.contiguous()), r"\(64, 32\) instead of \(32, 64\)"),
            (replaced("action_in_proj.bias", with_nan), "hold NaN or infinity: .'action_in_proj.bias'"),
            (replaced("action_in_proj.bias", lambda t: t / 0), "hold NaN or infinity"),
            (lambda weights: weights.update({HEAD: weights[EMBEDDING] * 2}), "differs from the embedding"),
            (replaced("action_in_proj.bias", lambda t: t.to(torch.int8)), "as I8, expected one of .*Quantised"),
        ],
        ids=[
            "renamed",
            "missing",
            "no-embedding",
            "unexpected",
            "shape",
            "nan",
            "infinity",
            "wrong-tied-head",
            "quantised",
        ],
    )
    def test_tensors(self, tmp_path, config, weights, sources, change, message):
        changed = dict(weights)
        change(changed)
        self.refused(write_weights(tmp_path, changed), config, sources, message)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data[:-1000], "truncated or corrupted: the header describes"),
            (lambda data: data[:4], "4 bytes do not even hold the header"),
            (lambda data: data[:100], "do not even hold the header"),
            (lambda data: data[:8] + b"!" * 50 + data[58:], "header is not readable"),
            (lambda data: data + b"\0" * 8, "the header describes"),
            (lambda data: b"", "0 bytes"),
        ],
        ids=["truncated", "four-bytes", "only-header-start", "header-overwritten", "too-long", "empty"],
    )
    def test_files(self, policy, tmp_path, config, sources, change, message):
        (tmp_path / "model.safetensors").write_bytes(change((policy / "model.safetensors").read_bytes()))
        self.refused(tmp_path, config, sources, message)

    def test_a_pickle_instead(self, tmp_path, config, sources):
        torch.save({"weight": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
        self.refused(tmp_path, config, sources, r"Found .'pytorch_model.bin'.: a pickle can run any code", OSError)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_under_the_name_of_safetensors(self, tmp_path, config, sources, zipped):
        file = tmp_path / "model.safetensors"
        torch.save({"weight": torch.zeros(2)}, file, _use_new_zipfile_serialization=zipped)
        self.refused(tmp_path, config, sources, "is a pickle with the name of a safetensors file")

    def test_no_weights(self, tmp_path, config, sources):
        self.refused(tmp_path, config, sources, r"neither model\.safetensors nor", OSError)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: (f / "model-00002-of-00002.safetensors").unlink(), "lacks model-00002-of-00002"),
            (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "not the index"),
            (
                lambda f: shutil.copy(f / "model-00001-of-00002.safetensors", f / "model-00002-of-00002.safetensors"),
                "the shards disagree",
            ),
        ],
    )
    def test_shards(self, nora, tmp_path, config, sources, change, message):
        shutil.copytree(nora, tmp_path / "nora")
        (tmp_path / "nora" / "config.json").unlink()
        change(tmp_path / "nora")
        self.refused(tmp_path / "nora", config, sources, message, (ValueError, OSError))


@pytest.mark.parametrize(
    ("stored", "native"),
    [
        ("visual.blocks.0.norm1.weight", "vlm.model.visual.blocks.0.norm1.weight"),
        ("model.layers.3.mlp.up_proj.weight", "vlm.model.language_model.layers.3.mlp.up_proj.weight"),
        ("model.embed_tokens.weight", EMBEDDING),
        ("model.norm.weight", "vlm.model.language_model.norm.weight"),
        ("model.language_model.norm.weight", "vlm.model.language_model.norm.weight"),
        ("lm_head.weight", HEAD),
        (EMBEDDING, EMBEDDING),
        ("action_expert.norm.weight", "action_expert.norm.weight"),
        ("extra", "extra"),
    ],
)
def test_native_name(stored, native):
    assert native_name(stored) == native


MEASURE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.released_repos import scaled_config
from nora15_hf.nora15 import Nora15ForActionPrediction
from nora15_hf.nora15.convert_nora15_to_hf import convert_nora15_to_hf

def memory(field):
    status = Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) * 1024

config = scaled_config()
before = memory("VmRSS")
{statement}
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux' /proc")
@pytest.mark.slow
class TestMemory:
    """At the released depth, key set and vocabulary and 1/8 of the width, in a process of its own."""

    @pytest.fixture(scope="class")
    def eighth(self, tmp_path_factory):
        return write_weights(tmp_path_factory.mktemp("eighth"), random_weights(scaled_config()))

    def peak(self, statement):
        code = MEASURE.format(tests=str(TESTS), statement=statement)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return int(run.stdout.split()[-1])

    def test_loading_takes_little_more_than_the_checkpoint(self, eighth):
        assert len(Checkpoint(eighth).tensors) == 1265
        checkpoint = (eighth / "model.safetensors").stat().st_size
        peak = self.peak(f"model = Nora15ForActionPrediction.from_pretrained({str(eighth)!r}, config=config)")
        assert peak <= 1.15 * checkpoint, f"{peak / checkpoint:.3f}"

    def test_conversion_holds_no_shard(self, eighth, nora, codec, tmp_path):
        sources = (
            f"tokenizer_source={str(nora)!r}, action_codec_source={str(codec)!r}, norm_stats_source={str(nora)!r}"
        )
        peak = self.peak(f"convert_nora15_to_hf({str(eighth)!r}, {str(tmp_path / 'out')!r}, config=config, {sources})")
        shard = (tmp_path / "out" / "model.safetensors").stat().st_size
        assert peak <= 1.5 * shard, f"{peak / shard:.3f}"
        # The weights themselves pass through 16 MiB at a time; the rest is tokenizer and libraries.
        assert peak <= 2 * 153713 * 256 * 2 + 200 * 2**20
