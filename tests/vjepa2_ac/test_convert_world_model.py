# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Published world-model checkpoints: converting them, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoProcessor

from helpers.paths import TESTS
from helpers.pushed_files import pushed_files, written_files
from helpers.released_world_model_size import QUARTER
from helpers.small_world_models import ENCODER_PARITY, GOLDEN, PARITY, fixture, small_config
from nora15_hf import commands
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel
from nora15_hf.vjepa2_ac.convert_vjepa2_ac_to_hf import convert_vjepa2_ac_to_hf as convert

pytestmark = pytest.mark.isa


def training_state(encoder, predictor, prefixes=("module.", "module.backbone.")):
    """What `facebookresearch/vjepa2` saves: two wrapped models, the optimiser's state, and numbers."""
    state = {
        "encoder": {prefixes[1] + name: tensor for name, tensor in encoder.items()},
        "predictor": {prefixes[0] + name: tensor for name, tensor in predictor.items()},
        "opt": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4}]},
        "scaler": None,
        "epoch": 315,
        "loss": 0.5,
        "batch_size": 8,
        "world_size": 32,
        "lr": 1e-4,
    }
    return state | {"target_encoder": state["encoder"]}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The golden weights in the released layout."""
    file = tmp_path_factory.mktemp("released") / "vjepa2-ac-vitg.pt"
    torch.save(training_state(fixture("encoder_weights"), fixture("predictor_A_weights")), file)
    return file


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """The golden predictor as NORA-1.5's code saves it."""
    file = tmp_path_factory.mktemp("nora") / "vjepa_ac_predictor.safetensors"
    save_file(fixture("predictor_A_weights"), file)
    return file


@pytest.fixture(scope="module")
def converted(tmp_path_factory, released):
    output = tmp_path_factory.mktemp("converted") / "my-world-model"
    return output, convert(released, output, config=small_config(action_convention="metric"), max_shard_size=200_000)


def rolled_out(folder):
    io = fixture("rollout_A")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        now, goal = (model.encode(io[name].transpose(1, 2)) for name in ("cur_frame", "goal_frame"))
        states = torch.zeros(1, 1, 7) if model.config.action_convention == "metric" else None
        return model.goal_energy(model.rollout(now, io["actions"][None, :, :4], states), goal)


class TestConversion:
    def test_golden_numbers(self, released, predictor, converted, tmp_path):
        """A predictor alone, with the encoder of the published file or of the converted repo, gives the recorded energies."""
        for name, encoder in (("file", released), ("repo", converted[0])):
            convert(predictor, tmp_path / name, encoder_source=encoder, config=small_config())
            torch.testing.assert_close(rolled_out(tmp_path / name)[0], fixture("rollout_A")["goal_energy"], **PARITY)

    def test_whole_model(self, converted):
        output, report = converted
        config = AutoConfig.from_pretrained(output)
        assert (config.model_type, config.action_convention) == ("vjepa2_ac", "metric")
        model, processor = AutoModel.from_pretrained(output), AutoProcessor.from_pretrained(output)
        expected = fixture("predictor_A_weights")
        found = model.predictor.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        frames = np.random.default_rng(0).integers(0, 256, (2, 1, 90, 120, 3), dtype=np.uint8)
        assert model.encode(**processor(frames)).shape == (2, 1, 16, 48)
        assert len(report.files) > 1

    def test_encoder_equals_the_reference(self, converted):
        io = fixture("encoder_io")
        with torch.no_grad():
            latents = AutoModel.from_pretrained(converted[0]).double().encode(io["clips"].transpose(1, 2).double())
        torch.testing.assert_close(latents.flatten(1, 2), io["forward_target"], **ENCODER_PARITY)

    def test_files_are_those_of_save_pretrained(self, converted, tmp_path):
        output, report = converted
        AutoModel.from_pretrained(output).save_pretrained(tmp_path)
        AutoProcessor.from_pretrained(output).save_pretrained(tmp_path)
        files = {path.name for path in tmp_path.iterdir()}
        written = {path.name for path in output.iterdir()}
        assert written - files == {*report.files, "model.safetensors.index.json", "README.md"}
        assert files - written == {"model.safetensors"}
        for name in ("config.json", "processor_config.json"):
            assert json.loads((output / name).read_text()) == json.loads((tmp_path / name).read_text())

    def test_report_and_card(self, converted):
        output, report = converted
        text = str(report)
        assert "encoder.layer.*.attention.query.weight" in text
        assert f"predictor: {sum(t.numel() for t in fixture('predictor_A_weights').values()):,} parameters" in text
        card = (output / "README.md").read_text()
        assert "pose differences" in card
        assert "rollout(latents[:, :1], candidates, pose)" in card
        assert str(output.parent) not in card

    @pytest.mark.parametrize(
        "prefixes", [("", ""), ("module.", "module.backbone."), ("_orig_mod.module.", "backbone.")]
    )
    def test_prefixes(self, prefixes, tmp_path, converted):
        state = training_state(fixture("encoder_weights"), fixture("predictor_A_weights"), prefixes)
        torch.save(state, tmp_path / "state.pt")
        convert(tmp_path / "state.pt", tmp_path / "out", config=small_config(action_convention="metric"))
        weights, expected = (
            AutoModel.from_pretrained(folder).state_dict() for folder in (tmp_path / "out", converted[0])
        )
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
    def test_prefixes_of_a_predictor_alone(self, prefix, released, tmp_path):
        weights = fixture("predictor_A_weights")
        save_file({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "predictor.safetensors")
        convert(tmp_path / "predictor.safetensors", tmp_path / "out", encoder_source=released, config=small_config())
        found = AutoModel.from_pretrained(tmp_path / "out").predictor.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())

    def test_positions_of_old_files_are_dropped(self, tmp_path):
        encoder = fixture("encoder_weights") | {"pos_embed": torch.zeros(1, 64, 48)}
        torch.save(training_state(encoder, fixture("predictor_A_weights")), tmp_path / "old.pt")
        report = convert(tmp_path / "old.pt", tmp_path / "out", config=small_config(action_convention="metric"))
        assert report.dropped == ("pos_embed of the encoder, whose positions are rotary",)
        assert "not written: pos_embed" in str(report)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_dtypes_are_kept(self, dtype, tmp_path):
        parts = (
            {name: t.to(dtype) for name, t in fixture(f).items()} for f in ("encoder_weights", "predictor_A_weights")
        )
        torch.save(training_state(*parts), tmp_path / "half.pt")
        convert(tmp_path / "half.pt", tmp_path / "out", config=small_config(action_convention="metric"))
        assert {p.dtype for p in AutoModel.from_pretrained(tmp_path / "out").parameters()} == {dtype}


def released_shapes(config):
    """Names and shapes in the released layout, from the model on the meta device."""
    with torch.device("meta"):
        model = VJEPA2ACModel(config)
    predictor = {name: list(tensor.shape) for name, tensor in model.predictor.state_dict().items()}
    encoder = {}
    for name, tensor in model.encoder.state_dict().items():
        name = name.replace("embeddings.patch_embeddings.", "patch_embed.").replace("layer.", "blocks.")
        name = name.replace("layernorm.", "norm.").replace("attention.", "attn.")
        shape = list(tensor.shape)
        for part in ("query", "key", "value"):
            if f".{part}." in name:
                name, shape = name.replace(part, "qkv"), [3 * shape[0], *shape[1:]]
        encoder[name] = shape
    return encoder, predictor


def test_released_sizes_and_names():
    """Names and shapes of the published files, recorded from the original code at full size."""
    keys = json.loads((GOLDEN / "full_model_keys.json").read_text())
    encoder, predictor = released_shapes(VJEPA2ACConfig())
    assert encoder == keys["encoder"]
    assert predictor == keys["predictor"]
    for part, shapes in (("encoder_params", encoder), ("predictor_params", predictor)):
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == keys[part]


class Executed:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def changed(part, change):
    """A training state of which one part is changed."""

    def make(file):
        parts = {"encoder": fixture("encoder_weights"), "predictor": fixture("predictor_A_weights")}
        change(parts[part])
        torch.save(training_state(**parts), file)

    return make


def changed_state(change):
    def make(file):
        state = training_state(fixture("encoder_weights"), fixture("predictor_A_weights"))
        change(state)
        torch.save(state, file)

    return make


def truncated(file):
    torch.save(training_state(fixture("encoder_weights"), fixture("predictor_A_weights")), file)
    file.write_bytes(file.read_bytes()[:-5000])


REFUSED = {
    "missing": (
        changed("predictor", lambda p: p.pop("predictor_norm.bias")),
        r"1 missing: .'predictor.predictor_norm.bias",
    ),
    "unexpected": (changed("encoder", lambda e: e.update(extra=torch.zeros(1))), r"1 unexpected: .'encoder.extra'"),
    "unknown prefix": (
        changed_state(lambda s: s.update(predictor={f"wrapped.{n}": t for n, t in s["predictor"].items()})),
        r"48 missing.*48 unexpected: .'predictor.wrapped",
    ),
    "shape": (
        changed("predictor", lambda p: p.update({"predictor_norm.bias": torch.zeros(47)})),
        r"predictor_norm.bias \(47,\) instead of \(48,\)",
    ),
    "depth": (
        changed("encoder", lambda e: [e.pop(n) for n in list(e) if n.startswith("blocks.2.")]),
        r"16 missing: .'encoder.layer.2",
    ),
    "encoder does not match": (
        changed("predictor", lambda p: p.update({"predictor_embed.weight": torch.zeros(48, 64)})),
        "latents of 48 dimensions, but the predictor .* reads 64",
    ),
    "twice": (
        changed("predictor", lambda p: p.update({"backbone.predictor_norm.bias": p["predictor_norm.bias"]})),
        "some tensors twice",
    ),
    "NaN": (
        changed("predictor", lambda p: p["predictor_norm.bias"].fill_(torch.nan)),
        "NaN or infinity: .'predictor.predictor_norm.bias'",
    ),
    "integers": (
        changed("encoder", lambda e: e.update({"norm.bias": torch.zeros(48, dtype=torch.int64)})),
        "'module.backbone.norm.bias' as torch.int64",
    ),
    "not a tensor": (
        changed("encoder", lambda e: e.update({"norm.bias": 1.0})),
        "'module.backbone.norm.bias' as float",
    ),
    "transposed": (
        changed("encoder", lambda e: e.update({"x": torch.zeros(2, 3).T})),
        "'module.backbone.x' as torch.float32, expected a contiguous",
    ),
    "no predictor": (changed_state(lambda s: s.pop("predictor")), "has no 'predictor'.*Found: .'batch_size'"),
    "a bare state dict": (lambda file: torch.save(fixture("encoder_weights"), file), "has no 'encoder'"),
    "a tensor": (lambda file: torch.save(torch.zeros(2), file), "Found: (FakeTensor|Tensor)"),
    "code": (changed_state(lambda s: s.update(hook=Executed())), "could run any code"),
    "legacy format": (
        lambda file: torch.save({"encoder": {}}, file, _use_new_zipfile_serialization=False),
        "is a pickle with the name of a safetensors file",
    ),
    "truncated": (truncated, "truncated or corrupted"),
    "empty": (lambda file: file.write_bytes(b""), "do not even hold the header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_checkpoints(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = REFUSED[case]
    make(tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "bad.pt", tmp_path / "out", config=small_config(action_convention="metric"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


def test_encoder_is_asked_for_exactly_when_it_is_missing(released, predictor, converted, tmp_path):
    with pytest.raises(ValueError, match="--encoder"):
        convert(predictor, tmp_path / "out", config=small_config())
    with pytest.raises(ValueError, match="Omit it"):
        convert(released, tmp_path / "out", encoder_source=released, config=small_config())
    with pytest.raises(ValueError, match="holds no encoder"):
        convert(predictor, tmp_path / "out", encoder_source=predictor, config=small_config())
    with pytest.raises(FileExistsError, match="not an empty folder"):
        convert(released, converted[0], config=small_config())


def test_another_size_without_config(released, tmp_path):
    with pytest.raises(ValueError, match=r"not those of the expected V-JEPA 2-AC configuration.*\d+ missing"):
        convert(released, tmp_path / "out")


class TestCommand:
    @pytest.fixture(autouse=True)
    def small_sizes(self, monkeypatch):
        """The released sizes are the small ones here."""
        monkeypatch.setattr("nora15_hf.vjepa2_ac.convert_vjepa2_ac_to_hf.VJEPA2ACConfig", small_config)

    def test_conventions_follow_the_source(self, released, predictor, tmp_path, capsys):
        whole, alone = tmp_path / "whole", tmp_path / "alone"
        assert commands.main(["convert", str(released), "--output", str(whole)]) == 0
        assert "'metric' convention" in capsys.readouterr().out
        assert commands.main(["convert", str(predictor), "--output", str(alone), "--encoder", str(whole)]) == 0
        assert "'normalized' convention" in capsys.readouterr().out
        weights = [AutoModel.from_pretrained(folder).state_dict() for folder in (whole, alone)]
        assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())

    def test_options_of_the_other_kind_are_refused(self, released, tmp_path, capsys):
        command = [
            "convert",
            str(released),
            "--output",
            str(tmp_path / "out"),
            "--chunk-size",
            "5",
            "--tokenizer",
            "x",
        ]
        assert commands.main(command) == 2
        assert "--chunk-size, --tokenizer: for policies only" in capsys.readouterr().err
        command = ["convert", str(released.parent), "--output", str(tmp_path / "out"), "--encoder", "x"]
        assert commands.main(command) == 2
        assert "--encoder is for a world model's predictor" in capsys.readouterr().err

    def test_push(self, hub, released, tmp_path):
        output = tmp_path / "out"
        assert commands.main(["convert", str(released), "--output", str(output), "--push", "my-world-model"]) == 0
        assert pushed_files(hub, "robots/my-world-model") == written_files(output)


MEASURE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.released_world_model_size import QUARTER
from nora15_hf.vjepa2_ac import VJEPA2ACConfig
from nora15_hf.vjepa2_ac.convert_vjepa2_ac_to_hf import convert_vjepa2_ac_to_hf

def memory(field):
    status = Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) * 1024

config = VJEPA2ACConfig(**QUARTER)
before = memory("VmRSS")
convert_vjepa2_ac_to_hf({source!r}, {output!r}, config=config)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux' /proc")
@pytest.mark.slow
def test_conversion_never_holds_the_weights(tmp_path):
    """At the released depth and key set, in a process of its own."""
    generator = torch.Generator().manual_seed(0)
    encoder, predictor = (
        {name: torch.empty(shape).normal_(0, 0.02, generator=generator) for name, shape in shapes.items()}
        for shapes in released_shapes(VJEPA2ACConfig(**QUARTER))
    )
    source, output = tmp_path / "vjepa2-ac-vitg.pt", tmp_path / "out"
    torch.save(training_state(encoder, predictor), source)
    code = MEASURE.format(tests=str(TESTS), source=str(source), output=str(output))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    peak, size = int(run.stdout.split()[-1]), source.stat().st_size
    assert size > 300 * 10**6
    assert peak < 0.4 * size, f"{peak / size:.3f} of the checkpoint, {peak / 2**20:.0f} MiB"
    with safe_open(output / "model.safetensors", "pt") as written:
        third = encoder["blocks.39.attn.qkv.weight"].chunk(3)[2]
        assert torch.equal(written.get_tensor("encoder.layer.39.attention.value.weight"), third)
        assert torch.equal(written.get_tensor("predictor.predictor_proj.bias"), predictor["predictor_proj.bias"])
