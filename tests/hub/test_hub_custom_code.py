# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Repos with code: loaded in an environment without this package, and without running their code where it is there."""

import ast
import importlib.util
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

import nora15_hf
from helpers.hub_roundtrip import policy_digest
from nora15_hf import Nora15ForActionPrediction, Nora15Processor, VJEPA2ACModel, VJEPA2ACProcessor
from nora15_hf.hub import plan_push
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.repo_files.flat_code import code_files
from nora15_hf.vjepa2_ac.presets import tiny_world_model

SOURCES = Path(nora15_hf.__file__).parent

# Loads both models in the environment without the package and prints what they are and do.
LOAD = """
import importlib.util, json, sys
import numpy as np, torch
from transformers import AutoModel, AutoProcessor

assert importlib.util.find_spec("nora15_hf") is None
policy = AutoModel.from_pretrained("robots/policy", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained("robots/policy", trust_remote_code=True)
image = np.arange(84 * 84 * 3, dtype=np.uint32).astype(np.uint8).reshape(84, 84, 3)
noise = torch.linspace(-1, 1, 20).reshape(1, 5, 4)
inputs = processor(images=image, text="open the faucet")
actions = processor.unnormalize_actions(policy.sample_actions(**inputs, noise=noise))
tokens = policy.generate_actions(**inputs)
world_model = AutoModel.from_pretrained("robots/world-model", trust_remote_code=True).eval()
frames = AutoProcessor.from_pretrained("robots/world-model", trust_remote_code=True)(image[None])
latents = world_model.encode(frames["pixel_values"])
policy.save_pretrained(sys.argv[1]); processor.save_pretrained(sys.argv[1])
plain = {}
for repo in ("robots/policy", "robots/plain"):
    try:
        AutoModel.from_pretrained(repo)
    except ValueError as error:
        plain[repo] = str(error)
print("RESULT " + json.dumps({"actions": actions.tolist(), "tokens": tokens, "latents": latents.mean().item(),
      "classes": [type(policy).__module__, type(processor).__module__], "errors": plain}))
"""


@pytest.fixture(scope="module")
def environment_without_package(tmp_path_factory) -> Path:
    """Python of a virtual environment with every installed package except this one."""
    folder = tmp_path_factory.mktemp("without") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for installed in Path(sysconfig.get_paths()["purelib"]).iterdir():
        # An editable installation is a .pth file and a finder module.
        if not installed.name.startswith(("nora15", "__editable__")) and installed.suffix != ".pth":
            (packages / installed.name).symlink_to(installed)
    return folder / "bin" / "python"


@pytest.fixture
def models(hub):
    """A policy and a world model, pushed with code; the policy also without."""
    policy, processor = tiny_policy()
    torch.manual_seed(0)
    world_model, world_model_processor = tiny_world_model()
    for part in (policy, processor):
        part.push_to_hub("policy", with_code=True)
        part.push_to_hub("plain")
    for part in (world_model, world_model_processor):
        part.push_to_hub("world-model", with_code=True)
    return policy, processor, world_model.eval(), world_model_processor


@pytest.mark.slow
def test_models_work_without_the_package(hub, models, environment_without_package, tmp_path):
    policy, processor, world_model, world_model_processor = models
    again = tmp_path / "saved-again"
    environment = hub.environment(tmp_path / "cache")
    environment.pop("PYTHONPATH", None)
    finished = subprocess.run(
        [environment_without_package, "-c", LOAD, str(again)],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(finished.stdout.split("RESULT ")[-1])
    assert all(name.startswith("transformers_modules.robots.policy.") for name in found["classes"])

    image = np.arange(84 * 84 * 3, dtype=np.uint32).astype(np.uint8).reshape(84, 84, 3)
    inputs = processor(images=image, text="open the faucet")
    noise = torch.linspace(-1, 1, 20).reshape(1, 5, 4)
    expected = processor.unnormalize_actions(policy.sample_actions(**inputs, noise=noise))
    assert torch.equal(torch.tensor(found["actions"]), expected)
    assert found["tokens"] == policy.generate_actions(**inputs)
    with torch.no_grad():
        latents = world_model.encode(world_model_processor(image[None])["pixel_values"])
    assert found["latents"] == pytest.approx(latents.mean().item(), abs=1e-6)

    # Both ways out: one in transformers' own message, both in the card that the first line of it leads to.
    assert "trust_remote_code=True" in found["errors"]["robots/policy"]
    assert "model type `nora15`" in found["errors"]["robots/plain"]
    # Saved again without the package, the code is still there, and the package reads it.
    assert (again / "modeling_nora15.py").is_file()
    reloaded = Nora15ForActionPrediction.from_pretrained(again)
    assert policy_digest(reloaded, Nora15Processor.from_pretrained(again)) == policy_digest(policy, processor)


@pytest.mark.parametrize("trust", [True, False, None])
def test_with_the_package_its_classes_win_and_no_remote_code_runs(hub, models, monkeypatch, tmp_path, trust):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("asked whether to run remote code"))
    options = {} if trust is None else {"trust_remote_code": trust}
    assert type(AutoModel.from_pretrained("robots/policy", **options)) is Nora15ForActionPrediction
    assert type(AutoProcessor.from_pretrained("robots/policy", **options)) is Nora15Processor
    assert type(AutoModel.from_pretrained("robots/world-model", **options)) is VJEPA2ACModel
    assert type(AutoProcessor.from_pretrained("robots/world-model", **options)) is VJEPA2ACProcessor
    assert type(AutoConfig.from_pretrained("robots/policy", **options)) is nora15_hf.Nora15Config
    assert not (tmp_path / "modules").exists()
    assert not any(request.path.endswith(".py") for request in hub.requests if request.method == "GET")


def test_the_flag_holds_for_one_save(tmp_path):
    policy, processor = tiny_policy()
    for part in (policy, processor):
        part.save_pretrained(tmp_path / "with", with_code=True)
    for part in (
        policy,
        processor,
        Nora15ForActionPrediction.from_pretrained(tmp_path / "with"),
        Nora15Processor.from_pretrained(tmp_path / "with"),
    ):
        folder = tmp_path / f"without-{id(part)}"
        part.save_pretrained(folder)
        assert not list(folder.glob("*.py"))
        for file in folder.glob("*config.json"):
            assert "auto_map" not in json.loads(file.read_text()), file


@pytest.mark.parametrize("make", [tiny_policy, tiny_world_model])
def test_a_push_with_code_sends_what_save_pretrained_writes(tmp_path, make):
    for part in make():
        part.save_pretrained(tmp_path / "plain")
        part.save_pretrained(tmp_path / "code", with_code=True)
    planned = plan_push(tmp_path / "plain", "repo", with_code=True).files
    written = {
        path.relative_to(tmp_path / "code").as_posix() for path in (tmp_path / "code").rglob("*") if path.is_file()
    }
    assert planned.keys() == written
    for name in ("config.json", "processor_config.json"):
        assert json.loads(planned[name])["auto_map"] == json.loads((tmp_path / "code" / name).read_text())["auto_map"]


@pytest.mark.parametrize("make", [tiny_policy, tiny_world_model])
def test_pushed_modules_import_siblings_of_their_folder_only(tmp_path, make):
    for part in make():
        part.save_pretrained(tmp_path, with_code=True)
    modules = {path.stem for path in tmp_path.glob("*.py")}
    assert len(modules) > 5
    for path in tmp_path.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{path.name}, line {node.lineno}: imports from outside its folder"
                assert node.level == 0 or node.module in modules, f"{path.name}, line {node.lineno}: {node.module}"
                assert node.level == 1 or not node.module.startswith("nora15_hf"), f"{path.name}, line {node.lineno}"


def _model_class(folder: Path, files: dict[str, str]) -> type:
    """Class `Model` of the first of some modules, which are written into a package in `folder`."""
    for name, text in files.items():
        path = folder / "robot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    spec = importlib.util.spec_from_file_location("flat_code_example", folder / "robot" / next(iter(files)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Model


def test_imports_of_any_depth_become_siblings(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flat_code_example", None)
    files = {
        "models/model.py": "def load():\n    from ..files.weights import read\n    return read\n\n\nclass Model: ...\n",
        "files/weights.py": "TEXT = 'from ..x import y'\nfrom .deep.header import (\n    read,\n)\n",
        "files/deep/header.py": "from ...models.model import Model\nread = 1\n",
    }
    model = _model_class(tmp_path, files)
    (tmp_path / "config.json").write_text("{}")
    flat = code_files(tmp_path, {"config.json": {"AutoModel": model}, "absent.json": {"AutoConfig": model}})
    assert flat.keys() == {"config.json", "model.py", "weights.py", "header.py"}
    assert json.loads(flat["config.json"]) == {"auto_map": {"AutoModel": "model.Model"}}
    assert b"    from .weights import read\n" in flat["model.py"]
    assert flat["weights.py"] == b"TEXT = 'from ..x import y'\nfrom .header import (\n    read,\n)\n"
    assert flat["header.py"] == b"from .model import Model\nread = 1\n"


@pytest.mark.parametrize(
    ("imported", "other", "message"),
    [("..b", "b/__init__.py", "not a module but a package"), ("..b.model", "b/model.py", "would both be model.py")],
)
def test_code_that_cannot_be_flat_is_refused(tmp_path, monkeypatch, imported, other, message):
    monkeypatch.setitem(sys.modules, "flat_code_example", None)
    source = f"class Model: ...\n\n\ndef later():\n    from {imported} import thing\n"
    model = _model_class(tmp_path, {"a/model.py": source, other: ""})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        code_files(tmp_path, {"config.json": {"AutoModel": model}})


def test_no_code_of_repos_is_trusted_inside_the_package():
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.keyword) and node.arg == "trust_remote_code"), f"{path}, {node.lineno}"
