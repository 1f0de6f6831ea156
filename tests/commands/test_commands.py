# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The `nora15` command: its options, its defaults, its errors; and what `pip install` puts where without a checkout."""

import dataclasses
import importlib.util
import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from helpers.numbered_dataset import write_v30
from helpers.paths import EXAMPLES, ROOT
from nora15_hf.commands import main
from nora15_hf.commands.dispatcher import COMMANDS
from nora15_hf.commands.library_defaults import library_choices, library_defaults
from nora15_hf.commands.parser import CONFIGS, CommandParser, find_config
from nora15_hf.data.statistics_table import dataset_statistics
from nora15_hf.doctor import examine_policy
from nora15_hf.hub import AuthorFacts
from nora15_hf.imagine import imagine
from nora15_hf.preferences import (
    REWARD_PRESETS,
    FastSampler,
    GroundTruthActionReward,
    build_preferences,
    preset_reward,
    select_states,
)
from nora15_hf.preferences.pairs import PAIRINGS
from nora15_hf.preferences.states import STRATEGIES
from nora15_hf.runtime.thread_arguments import ThreadArguments
from nora15_hf.simulation.simulation_pool import SimulationPool
from nora15_hf.vjepa2_ac import VJEPA2ACConfig

MODULES = {name: importlib.import_module(f"nora15_hf.commands.{name.replace('-', '_')}") for name in COMMANDS}
# The options of transformers' TrainingArguments need torch.
LOADING = {"sft", "world-model", "dpo"}


QUICKSTART = ("demonstrations", "policy-sft", "world-model", "preferences")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Folder with what the wheel holds, built from a copy, since a build leaves files beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("src", "model_cards"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheels = tmp_path_factory.mktemp("wheels")
    command = [
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        wheels,
        source,
    ]
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True)
    (wheel,) = wheels.glob("*.whl")
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_installed(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Runs Python with the wheel's files instead of the checkout's, in a folder without a checkout."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_wheel_holds_every_file_of_the_package(installed):
    source = ROOT / "src"
    files = {file.relative_to(source) for file in source.rglob("*") if file.is_file()}
    files = {file for file in files if not {"__pycache__", "nora15_hf.egg-info"} & {*file.parts}}
    assert {str(file) for file in files if not (installed / file).is_file()} == set()


def test_the_wheel_holds_commands_configurations_and_templates(installed):
    package = installed / "nora15_hf"
    for module in MODULES.values():
        assert (package / "commands" / Path(module.__file__).name).is_file()
    assert {file.name for file in (package / "commands" / "configs").iterdir()} == {
        file.name for file in (EXAMPLES / "configs").iterdir()
    }
    assert {file.name for file in (package / "model_cards").glob("*.md")} == {
        file.name for file in (ROOT / "model_cards").glob("*.md")
    }
    assert len(list((package / "quickstart").glob("*.html"))) == len(list((package / "imagine").glob("*.html"))) == 1
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "nora15 = nora15_hf_command:main" in entry_points.read_text()


SCRIPT = """
import sys
sys.argv = ["nora15", *{arguments!r}]
from nora15_hf_command import main
try:
    code = main()
finally:
    heavy = {{"torch", "transformers"}} & sys.modules.keys()
    assert bool(heavy) == {loads}, heavy
sys.exit(code)
"""


def shown_options(command: str) -> set[str]:
    fields = [
        field for arguments in MODULES[command].ARGUMENTS for field in dataclasses.fields(arguments) if field.init
    ]
    return {
        field.name if "positional" in field.metadata else f"--{field.name.replace('_', '-')}" for field in fields
    } | {"--config"}


def test_help_of_the_installed_script_lists_all_commands(installed, tmp_path):
    done = run_installed(installed, tmp_path, "-c", SCRIPT.format(arguments=["--help"], loads=False))
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert all(f"{name} {summary}" in text for name, summary in COMMANDS.items())


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - LOADING))
@pytest.mark.slow
def test_help_of_an_installed_command(installed, tmp_path, command):
    code = SCRIPT.format(arguments=[command, "--help"], loads=False)
    done = run_installed(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: nora15 {command} ")
    assert shown_options(command) <= set(re.findall(r"[\w-]+", done.stdout))


@pytest.mark.parametrize("command", sorted(LOADING))
def test_help_of_commands_that_load_the_library(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert shown_options(command) <= set(re.findall(r"[\w-]+", capsys.readouterr().out))


@pytest.mark.slow
def test_the_installed_script_runs_a_command(installed, tmp_path):
    write_v30(tmp_path / "numbers", top="image")
    arguments = ["stats", "numbers", "--dataset-key", "robot"]
    done = run_installed(installed, tmp_path, "-c", SCRIPT.format(arguments=arguments, loads=True))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("robot: 6 episodes, 41 frames")


@pytest.mark.slow
def test_the_installed_package_trains_in_two_processes(installed, tmp_path):
    """From the shipped configuration by its name, with `accelerate launch -m` as on several GPUs."""
    write_v30(tmp_path / "numbers", top="image")
    options = {"datasets": "numbers", "dataset_keys": "numbers", "output_dir": "run", "image_size": 28, "max_steps": 1}
    options |= {"per_device_train_batch_size": 2, "eval_strategy": "no", "save_steps": 1, "disable_tqdm": True}
    flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    launch = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0", "-m", "nora15_hf.commands.sft"]
    command = ["-m", "accelerate.commands.launch", *launch, "--config", "sft_tiny.yaml", *flags]
    done = run_installed(installed, tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"model.safetensors", "config.json", "README.md", "checkpoint-1"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    # The same batch of a step from one process, in which the run has ended.
    flags += ["--gradient_accumulation_steps", "2"]
    script = SCRIPT.format(arguments=["sft", "--config", "sft_tiny", *flags], loads=True)
    done = run_installed(installed, tmp_path, "-c", script)
    assert done.returncode == 0, done.stderr
    assert "This run is finished; see run." in done.stdout


def test_python_runs_the_package_of_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nora15", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("nora15_hf.commands", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: nora15 ")


def test_the_examples_are_the_commands():
    for file, name in {
        "sft": "sft",
        "world_model": "world-model",
        "build_preferences": "preferences",
        "dpo": "dpo",
        "push_to_hub": "push-all",
    }.items():
        assert len((EXAMPLES / f"{file}.py").read_text().splitlines()) < 12
        spec = importlib.util.spec_from_file_location(file, EXAMPLES / f"{file}.py")
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        assert example.main is MODULES[name].main
    assert (EXAMPLES / "configs").resolve() == CONFIGS.resolve()


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    """The working folder, with folders that commands read."""
    monkeypatch.chdir(tmp_path)
    for name in ("folder", *(f"outputs/quickstart/{name}" for name in QUICKSTART)):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def parsed(command: str, *arguments: str):
    return CommandParser(MODULES[command].ARGUMENTS, description=command).parse(arguments)[0]


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("push", ["--dry-run", "folder", "me/x"], {"folder": Path("folder"), "repo": "me/x", "dry_run": True}),
        ("push", ["folder", "me/x"], {"private": None, "dry_run": False, "with_code": False}),
        ("push", ["folder", "me/x", "--private", "--with_code"], {"private": True, "with_code": True}),
        ("push-all", ["--folder", "folder", "--namespace", "me", "--dry_run", "true"], {"dry_run": True, "private": False}),
        ("push-all", ["--folder=folder", "--namespace=me", "--dry-run"], {"dry_run": True}),
        ("stats", ["--delta-mask", "1,0", "data"], {"dataset": "data", "delta_mask": [True, False], "chunk_size": 5}),
        ("imagine", ["--model", "m", "--dataset", "d", "--output", "o", "--episodes", "0,5"], {"episodes": [0, 5], "cases": 256}),
        ("doctor", ["me/x", "--dataset", "me/d", "--image-keys", "top, wrist"], {"image_keys": ["top", "wrist"], "samples": 16}),
        ("evaluate", ["me/x", "--output=o", "--set", "a=1", "--set", "b=x", "--suite", "mt10,mt50"], {"set": {"a": 1, "b": "x"}, "suite": ["mt10", "mt50"]}),
        ("evaluate", ["ws://host:8000", "--output=o"], {"policy": "ws://host:8000", "set": {}, "slots": 16, "timeout": 600.0}),
        ("card", ["folder", "--datasets", "a/b,c/d", "--stage", "dpo"], {"datasets": ["a/b", "c/d"], "stage": "dpo"}),
        ("quickstart", ["--output", "o", "--tasks", "a,b", "--smoke"], {"tasks": ["a", "b"], "smoke": True, "seed": None}),
        ("serve", ["me/x", "--port", "0", "--compile"], {"policy": "me/x", "replay": None, "port": 0, "compile": True}),
        ("serve", ["--replay", "me/x"], {"policy": None, "replay": "me/x", "protocol": "openpi", "port": None}),
        ("demo", ["me/x", "--world-model", "me/w", "--set", "max_steps=9", "--environment=metaworld"], {"set": {"max_steps": 9}, "port": 7860, "candidates": 5}),
        ("view", ["folder", "--policy", "me/x", "--port", "0", "--open-browser"], {"preferences": "folder", "policy": "me/x", "open_browser": True}),
        ("convert", ["nora", "--output", "o", "--init-expert", "0"], {"init_expert": 0, "private": None}),
    ],
)  # fmt: skip
def test_command_lines(command, arguments, expected, inputs):
    options = vars(parsed(command, *arguments))
    assert {name: options[name] for name in expected} == expected


def test_a_yaml_file_gives_every_option_and_the_command_line_wins(tmp_path):
    file = tmp_path / "stats.yaml"
    file.write_text(
        "dataset: me/robot\noutput: stats.json\ndelta_mask: 1,1,0\nskip_bad_episodes: true\nsample_episodes: 2\n"
        "seed: 3\nchunk_size: 4\n"
    )
    options = parsed("stats", "--config", str(file), "--chunk-size", "7")
    assert (options.dataset, options.output) == ("me/robot", Path("stats.json"))
    assert options.delta_mask == [True, True, False]
    assert (options.skip_bad_episodes, options.seed, options.chunk_size) == (True, 3, 7)
    assert parsed("stats", f"--config={file}", "me/other").dataset == "me/other"
    file.write_text("policy: me/x\noutput: o\nset:\n  a: 1\n  b: [2]\n")
    assert parsed("evaluate", "--config", str(file)).set == {"a": 1, "b": [2]}
    assert parsed("evaluate", "--config", str(file), "--set", "a=2", "--set", "c=3").set == {"a": 2, "c": 3}


def test_shipped_configurations_are_found_by_name_and_files_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = CONFIGS / "sft_tiny.yaml"
    assert find_config("sft_tiny") == find_config("sft_tiny.yaml") == shipped
    Path("sft_tiny.yaml").write_text("")
    assert find_config("sft_tiny.yaml") == Path("sft_tiny.yaml")
    with pytest.raises(
        FileNotFoundError, match=r"--config configs/sft_tiny\.yaml is neither .*: dpo_frozen_backbone, "
    ):
        find_config("configs/sft_tiny.yaml")


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_configurations_are_accepted(file, inputs):
    """bf16 apart, which a machine without a GPU refuses."""
    command = "world-model" if file.stem.startswith("world_model") else file.stem.split("_")[0]
    elsewhere = (
        {} if command in ("preferences", "rounds") else {"bf16": "false", "use_cpu": "true", "output_dir": str(inputs)}
    )
    options = [part for name, value in elsewhere.items() for part in (f"--{name}", value)]
    found = {}
    for part in CommandParser(MODULES[command].ARGUMENTS, description=command).parse(
        ["--config", str(file), *options]
    ):
        found |= vars(part)
    written = {"output": None} | yaml.safe_load(file.read_text())
    for key in written.keys() - elsewhere.keys() - {"report_to"}:
        assert found.get(key) == (Path(written[key]) if key == "output" and written[key] else written[key]), key


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "the following arguments are required: command"),
        (["fly"], 2, "invalid choice: 'fly'"),
        (["stats"], 2, "the following arguments are required: dataset"),
        (
            ["stats", "x", "--chunk-size", "many"],
            2,
            "argument --chunk-size: 'many' is not a whole number of at least 1",
        ),
        (["stats", "x", "--colour", "red"], 2, "nora15 stats: unrecognized arguments: --colour red"),
        (["stats", "x", "--config"], 2, "argument --config: expected one argument"),
        (["stats", "x", "--config", "no.yaml"], 2, "nora15 stats: --config no.yaml is neither a file nor one of"),
        (
            ["stats", "x", "--config", "sft_tiny"],
            2,
            "nora15 stats: sft_tiny has keys that are not options: datasets, ",
        ),
        (["card", "folder", "--stage", "bc"], 2, "argument --stage: invalid choice: 'bc'"),
        (["sft", "--config", "sft_tiny", "--max_steps", "x"], 2, "argument --max-steps: invalid int value: 'x'"),
        (
            ["sft", "--config", "sft_tiny", "--quantize_backbone", "true"],
            2,
            "sft: quantize_backbone needs lora_rank: ",
        ),
    ],
)
def test_wrong_command_lines(arguments, code, message, inputs, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == code
    assert message in capsys.readouterr().err


def test_errors_and_interruptions_are_one_line(tmp_path, monkeypatch, capsys):
    assert main(["stats", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nora15 stats: ")
    assert error.count("\n") == 1

    def misconfigured(options):
        VJEPA2ACConfig(encoder_config={"crop_size": 50, "patch_size": 14})

    monkeypatch.setattr(MODULES["stats"], "run", misconfigured)
    assert main(["stats", "x"]) == 2
    error = capsys.readouterr().err
    assert "crop_size=50 is not a multiple of patch_size=14" in error
    assert error.count("\n") == 1

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULES["stats"], "run", interrupted)
    assert main(["stats", "x"]) == 130
    assert capsys.readouterr().err == "\nnora15 stats: interrupted; run it again.\n"


def test_commands_that_compute_take_threads(monkeypatch, capsys):
    """Set in one place, before the command's own work, and not one of its own arguments."""
    takers = {name for name in COMMANDS if ThreadArguments in MODULES[name].ARGUMENTS}
    assert takers == {
        "quickstart",
        "evaluate",
        "sft",
        "world-model",
        "preferences",
        "dpo",
        "rounds",
        "imagine",
        "doctor",
        "serve",
        "demo",
    }
    assert main(["doctor", "x", "--threads", "0"]) == 2
    assert "--threads 0 must be 1 or more" in capsys.readouterr().err
    calls = []
    monkeypatch.setattr("nora15_hf.runtime.cpu_threads.choose_threads", lambda number: calls.append(number))
    monkeypatch.setattr(MODULES["doctor"], "run", lambda options: calls.append(options.repo))
    assert main(["doctor", "me/x", "--threads", "3"]) == 0
    assert calls == [3, "me/x"]


@pytest.mark.parametrize(
    ("file", "function"),
    [
        ("data/statistics_table.py", dataset_statistics),
        ("doctor/doctor.py", examine_policy),
        ("imagine/imagine.py", imagine),
        ("simulation/simulation_pool.py", SimulationPool),
        ("hub/describe.py", AuthorFacts),
        ("preferences/dataset_builder.py", build_preferences),
        ("preferences/rewards.py", preset_reward),
        ("preferences/rewards.py", GroundTruthActionReward),
        ("preferences/states.py", select_states),
        ("control/chunk_samplers.py", FastSampler),
    ],
)
def test_library_defaults_are_those_of_the_imported_function(file, function):
    parameters = inspect.signature(function).parameters.values()
    expected = {parameter.name: parameter.default for parameter in parameters}
    found = library_defaults(file, function.__name__)
    assert found.keys() <= expected.keys()
    assert all(value == expected[name] for name, value in found.items())


def test_library_choices_are_those_of_the_imported_constant():
    assert library_choices("preferences/pairs.py", "PAIRINGS") == list(PAIRINGS)
    assert library_choices("preferences/rewards.py", "REWARD_PRESETS") == list(REWARD_PRESETS)
    assert library_choices("preferences/states.py", "STRATEGIES") == list(STRATEGIES)
    with pytest.raises(LookupError, match=r"preferences/states\.py defines no CHOICES"):
        library_choices("preferences/states.py", "CHOICES")


def test_every_option_has_help():
    for module in MODULES.values():
        assert all(field.metadata["help"] for field in dataclasses.fields(module.ARGUMENTS[0]))
