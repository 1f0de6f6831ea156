# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Wrong values of every option of every command, on the command line and in a YAML file: exit code 2, and one line that names the
option, before anything is loaded.
"""

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import SafetensorError
from transformers import TrainingArguments

from nora15_hf.commands import main, option_types
from nora15_hf.commands.dispatcher import COMMANDS
from nora15_hf.commands.execution import exit_code
from nora15_hf.commands.parser import _TRAINING_TYPES, CommandParser
from nora15_hf.runtime.thread_arguments import ThreadArguments

MODULES = {name: importlib.import_module(f"nora15_hf.commands.{name.replace('-', '_')}") for name in COMMANDS}

# A command line that parses, in a folder with `there/`, which holds a file, and `file`.
VALID = {
    "quickstart": ["--output=new"],
    "demonstrations": ["--output=new", "--environment=metaworld"],
    "sft": ["--datasets=me/data", "--use-cpu=true"],
    "world-model": ["--dataset=me/data", "--use-cpu=true"],
    "preferences": ["--policy=me/x", "--demonstrations=me/x", "--output=new", "--world-model=me/x"],
    "dpo": ["--policy=me/x", "--preferences=me/x", "--use-cpu=true"],
    "rounds": ["--policy=me/x", "--demonstrations=me/x", "--output=new", "--world-model=me/x"],
    "imagine": ["--model=me/x", "--dataset=me/x", "--output=new"],
    "evaluate": ["me/x", "--output=new"],
    "serve": ["me/x"],
    "demo": ["me/x", "--world-model=me/x"],
    "view": ["me/x"],
    "doctor": ["me/x"],
    "stats": ["me/x"],
    "convert": ["me/x", "--output=new"],
    "card": ["there"],
    "push": ["there", "me/x"],
    "push-all": ["--folder=there", "--namespace=me"],
}
# For every type of option: texts that are wrong, and a part of what is said.
WRONG = {
    option_types.positive: {"0": "at least 1", "-1": "at least 1", "1.5": "at least 1", "many": "at least 1"},
    option_types.non_negative: {"-1": "at least 0", "x": "at least 0"},
    option_types.port: {"-1": "from 0 to 65535", "65536": "from 0 to 65535", "http": "a port"},
    option_types.seed: {"-3": "from 0 to 2**32 - 1", "4294967296": "from 0 to 2**32 - 1", "x": "a seed"},
    option_types.positive_number: {"0": "above 0", "-1": "above 0", "nan": "above 0", "inf": "above 0"},
    option_types.non_negative_number: {"-1": "at least 0", "nan": "at least 0"},
    option_types.share: {"0": "between 0 and 1", "1": "between 0 and 1", "20": "between 0 and 1", "nan": "between"},
    option_types.comma_separated: {"": "comma-separated list", "a,,b": "comma-separated list"},
    option_types.cameras: {
        "": "comma-separated features",
        "a,,b": "features",
        "a=b,c": "features",
        "a=b=c": "pairs",
        "a,a": "names 'a' twice",
        "t=a,t=b": "names 't' twice",
    },
    option_types.indices: {
        "1-3": "comma-separated numbers, for example 1,2,3",
        "-1": "numbers",
        "": "numbers",
        "1,2,1": "names 1 twice",
    },
    option_types.flags: {"yes": "comma-separated 0 and 1", "": "comma-separated 0 and 1"},
    option_types.hub_id: {"": "not a Hub id", "me/my policy!": "not a Hub id", "me/x/y/z": "not a Hub id"},
    option_types.namespace: {"": "not a Hub id", "me/x": "user or an organisation", "me!": "not a Hub id"},
    option_types.folder_or_hub_id: {"file": "is a file", "no/such/folder": "neither an existing", "": "neither"},
    option_types.policy: {"file": "is a file", "no/such/folder": "neither an existing", "": "neither"},
    option_types.environment: {"metaword": "Nearest: metaworld", "": "Unknown environment"},
    option_types.environment_or_none: {"metaword": "Nearest: metaworld", "nothing": "Unknown environment"},
    option_types.environment_setting: {"x": "not NAME=VALUE", "=1": "not NAME=VALUE", "a b=1": "not NAME=VALUE"},
    option_types.existing_path: {"no": "neither an existing file nor", "": "neither an existing file nor"},
    option_types.path_or_hub_id: {"no/such/file": "neither an existing folder nor a Hub id"},
    option_types.existing_folder: {"file": "not an existing folder", "no": "not an existing folder", "": "not an"},
    option_types.existing_file: {"there": "not an existing file", "no": "not an existing file"},
    option_types.output_folder: {"file": "is a file", "file/below": "is a file", "": "not a path"},
    option_types.new_folder: {"file": "is a file", "file/below": "is a file", "there": "is not empty"},
    option_types.output_file: {"there": "is a folder", "file/below": "is a file", "": "not a path"},
}


def option_type(field: dataclasses.Field):
    return field.metadata.get("parse") or field.metadata.get("each") or _TRAINING_TYPES.get(field.name)


def own_fields(command: str) -> list[dataclasses.Field]:
    """Those of this package's dataclasses, and those of transformers' that have a type here."""
    return [
        field
        for arguments in MODULES[command].ARGUMENTS
        if arguments is not ThreadArguments
        for field in dataclasses.fields(arguments)
        if field.init and (not issubclass(arguments, TrainingArguments) or field.name in _TRAINING_TYPES)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    """What a command says that ends with exit code 2 and one line, without a result."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith(f"nora15 {arguments[0]}: ")
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def test_every_number_and_path_has_a_type():
    for module in MODULES.values():
        for arguments in set(module.ARGUMENTS) - {ThreadArguments}:
            if not issubclass(arguments, TrainingArguments):
                kinds = {field: str(field.type) for field in dataclasses.fields(arguments) if not option_type(field)}
                untyped = [
                    field.name
                    for field, kind in kinds.items()
                    if {"int", "float", "Path"} & set(re.findall(r"\w+", kind))
                ]
                assert untyped == []


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_values_on_the_command_line(command, folder, capsys):
    tried = 0
    for field in own_fields(command):
        for text, message in WRONG.get(option_type(field), {}).items():
            name = f"--{field.name.replace('_', '-')}"
            arguments = list(VALID[command])
            if "positional" in field.metadata:
                positions = [each.name for each in own_fields(command) if "positional" in each.metadata]
                arguments[positions.index(field.name)] = text
                name = field.name
            else:
                arguments += [f"{name}={text}"]
            said = refused(capsys, command, *arguments)
            assert f"argument {name}: " in said
            assert message in said, (arguments, said)
            tried += 1
    assert tried >= 3
    assert sorted(path.name for path in folder.rglob("*")) == ["file", "file", "there"]


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_values_in_a_yaml_file(command, folder, capsys):
    """One of each type: a file is read as the command line is."""
    by_type = {option_type(field): field for field in own_fields(command) if "positional" not in field.metadata}
    for kind, field in by_type.items():
        for text, message in list(WRONG.get(kind, {}).items())[:1]:
            name = f"--{field.name.replace('_', '-')}="
            options = [each for each in VALID[command] if not each.startswith(name)]
            wrong = yaml.safe_load(text) if text else text
            wrong = [wrong] if "each" in field.metadata else wrong
            Path("options.yaml").write_text(yaml.safe_dump({field.name: wrong}))
            said = refused(capsys, command, *options, "--config", "options.yaml")
            assert f"{field.name} in the YAML file: " in said
            assert message in said


@pytest.mark.parametrize(
    ("command", "content", "message"),
    [
        ("evaluate", "set: [image_size=84]", "set in the YAML file: expected one value"),
        ("stats", "a: [", "options.yaml is not valid YAML: while parsing"),
        ("stats", "- a", "must contain a YAML mapping"),
        ("stats", "", "must contain a YAML mapping"),
        ("stats", "chunk_size: null", "chunk_size in the YAML file: expected a value, found None"),
        ("stats", "chunk_size: 2.5", "'2.5' is not a whole number"),
        ("stats", "chunk_size: [2, 3]", "chunk_size in the YAML file: expected one value, found [2, 3]"),
        ("stats", "revision: {a: 1}", "revision in the YAML file: expected a value, found {'a': 1}"),
        ("stats", "skip_bad_episodes: 5", "expected true or false, found 5"),
        ("card", "stage: bc", "stage in the YAML file: invalid choice: 'bc'"),
        ("quickstart", "renderer: crayon", "invalid choice: 'crayon'"),
        ("preferences", "masked_dims: [1, -2]", "masked_dims in the YAML file: '-2' is not a whole number"),
        ("sft", "datasets: []", "datasets is empty"),
        ("sft", "datasets: there", "datasets in the YAML file: expected a list, found 'there'. Put it into brackets"),
        ("sft", "datasets: [null]", "datasets in the YAML file: expected a list of single values, found [None]"),
        ("sft", "image_keys: [a, [b]]", "image_keys in the YAML file: expected a list of single values"),
        ("sft", "freeze: backbone", "freeze in the YAML file: expected a list, found 'backbone'"),
        ("sft", "dataset_weights: [0.5, 0.5]", "dataset_weights: 2 values for 1 datasets"),
        ("sft", "dataset_keys: [a, b]", "dataset_keys: 2 values for 1 datasets"),
        ("sft", "max_steps: many", "max_steps in the YAML file: invalid int value: 'many'"),
        ("sft", "quantize_backbone: true", "quantize_backbone needs lora_rank"),
        ("world-model", "normalization_mode: z_score", "invalid choice: 'z_score'"),
    ],
)
def test_wrong_yaml_files(command, content, message, folder, capsys):
    Path("options.yaml").write_text(content)
    options = [] if content.startswith("datasets") else VALID[command]
    assert message in refused(capsys, command, *options, "--config", "options.yaml")


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("preferences", ["--reward=ground_truth"], "--world_model has no effect with --reward ground_truth"),
        ("preferences", ["--reward=success"], "--world_model has no effect with --reward success"),
        ("preferences", ["--sampler=fast", "--num-steps=3"], "--num_steps has no effect with --sampler fast"),
        ("preferences", ["--noise-std=0.1"], "--noise_std has no effect without --num_noisy_negatives"),
        ("sft", ["--policy=me/x", "--image-size=56"], "--image_size has no effect with --policy"),
        ("sft", ["--strict=true"], "--strict has no effect without --policy"),
        ("world-model", ["--model=me/x", "--encoder-steps=3"], "--encoder_steps has no effect with --model"),
        ("world-model", ["--policy-dataset-key=a"], "--policy_dataset_key has no effect without --policy"),
        ("world-model", ["--policy=me/x", "--normalization-mode=min_max"], "--normalization_mode has no effect with"),
        ("stats", ["--chunk-size=9"], "--chunk_size has no effect without --delta_mask"),
        ("stats", ["--seed=9"], "--seed has no effect without --sample_episodes"),
        ("doctor", ["--image-keys=top"], "--image_keys has no effect without --dataset"),
        ("doctor", ["--state-key=none"], "--state_key has no effect without --dataset"),
        ("convert", ["--private"], "--private has no effect without --push"),
        ("evaluate", ["--api-key-file=file"], "--api_key_file has no effect on me/x, which is not the address"),
        ("demo", ["--requirement=x"], "--requirement has no effect without --export_space"),
        ("demo", ["--export-space=new", "--port=1"], "--port has no effect with --export_space"),
        ("demo", ["--export-space=new", "--device=cpu"], "--device has no effect with --export_space"),
        ("demo", ["--environment=none", "--tasks=a"], "--tasks has no effect with --environment none"),
        ("rounds", ["--reached-episodes=3"], "--reached_episodes has no effect with --states_from demonstrations"),
        ("rounds", ["--refresh-batch-size=3"], "--refresh_batch_size has no effect without --refresh_steps"),
        ("rounds", ["--evaluation-episodes=0", "--tolerated-loss=0.1"], "--tolerated_loss has no effect with"),
        ("rounds", ["--evaluation-episodes=0", "--n-action-steps=3"], "--n_action_steps has no effect with"),
    ],
)
def test_options_without_effect(command, options, message, folder, capsys):
    assert message in refused(capsys, command, *VALID[command], *options)


# By command and option of a revision: the option that names a local folder, with what else it then needs.
REVISIONS = {
    ("sft", "policy_revision"): [["--policy=there"]],
    ("sft", "preferences_revision"): [["--preferences=there", "--policy=me/x"]],
    ("sft", "dataset_revisions"): [["--datasets=there"]],
    ("world-model", "revision"): [["--dataset=there"]],
    ("preferences", "policy_revision"): [["--policy=there"]],
    ("preferences", "demonstrations_revision"): [["--demonstrations=there"]],
    ("dpo", "policy_revision"): [["--policy=there"]],
    ("dpo", "preferences_revision"): [["--preferences=there"]],
    ("rounds", "policy_revision"): [["--policy=there"]],
    ("rounds", "demonstrations_revision"): [["--demonstrations=there"]],
    ("imagine", "revision"): [["--model=there"]],
    ("imagine", "dataset_revision"): [["--dataset=there"]],
    ("evaluate", "revision"): [["there"]],
    ("serve", "revision"): [["there"], ["--replay=there"]],
    ("demo", "revision"): [["there"]],
    ("demo", "world_model_revision"): [["--world-model=there"]],
    ("view", "revision"): [["there"]],
    ("view", "policy_revision"): [["--policy=there"]],
    ("doctor", "revision"): [["there"]],
    ("stats", "revision"): [["there"]],
    ("convert", "revision"): [["there"]],
}  # fmt: skip
# `push` makes this branch.
NEW_BRANCHES = {("push", "revision")}


def test_every_revision_is_in_the_table():
    fields = {(command, field.name) for command in COMMANDS for field in own_fields(command)}
    assert {each for each in fields if "revision" in each[1]} == REVISIONS.keys() | NEW_BRANCHES


@pytest.mark.parametrize(
    ("command", "name", "source"), [(*key, source) for key, sources in REVISIONS.items() for source in sources]
)
@pytest.mark.parametrize("in_yaml", [False, True])
def test_a_revision_of_a_local_folder_is_refused(command, name, source, in_yaml, folder, capsys):
    replaced = [each.partition("=")[0] for each in source] + (
        ["--datasets"] if "--preferences=there" in source else []
    )
    options = [each for each in VALID[command] if each.partition("=")[0] not in replaced]
    if source == ["there"] or "--replay=there" in source:
        options.remove("me/x")
    options += source
    if in_yaml:
        value = ["v1"] if name == "dataset_revisions" else "v1"
        Path("options.yaml").write_text(yaml.safe_dump({name: value}))
        options += ["--config", "options.yaml"]
    else:
        options += [f"--{name.replace('_', '-')}=v1"]
    assert f"--{name} v1 has no effect on the local folder there" in refused(capsys, command, *options)


def test_revisions_of_repos_on_the_hub_are_accepted(folder, capsys):
    parser = CommandParser(MODULES["sft"].ARGUMENTS, description="sft")
    options = ["--datasets", "there", "me/data", "--use-cpu=true", "--dataset-revisions"]
    assert parser.parse([*options, "", "v3.0"])[0].dataset_revisions == ["", "v3.0"]
    assert [each["revision"] for each in MODULES["sft"].per_dataset(parser.parse([*options, "", "v3.0"])[0])] == [
        None,
        "v3.0",
    ]
    assert "Pass '' for it" in refused(capsys, "sft", *options, "main", "v3.0")
    assert "no effect without --policy" in refused(capsys, "sft", *VALID["sft"], "--policy-revision=main")
    assert "no effect without --policy" in refused(capsys, "view", *VALID["view"], "--policy-revision=main")
    parser = CommandParser(MODULES["serve"].ARGUMENTS, description="serve")
    assert parser.parse(["--replay=me/x", "--revision=v1"])[0].revision == "v1"


def test_a_yaml_file_is_read_as_the_command_line(folder):
    """A list may stand where the command line has commas."""
    Path("options.yaml").write_text(
        "datasets: [there]\nimage_keys: [top, wrist]\ndataset_weights: [1]\noutput_dir: file\n"
    )
    command = ["--config", "options.yaml", "--output_dir", "new", "--use_cpu", "true"]
    options, config, _ = CommandParser(MODULES["sft"].ARGUMENTS, description="sft").parse(command)
    assert (options.datasets, options.image_keys, options.dataset_weights) == (["there"], ["top", "wrist"], [1.0])
    # What the command line says instead is not looked at in the file.
    assert str(config.output_dir) == "new"


@pytest.mark.parametrize("command", ["sft", "world-model", "preferences", "doctor", "imagine", "stats"])
def test_features_are_chosen_alike_everywhere(command, folder):
    valid = [*VALID[command], *(["--dataset=me/x"] if command == "doctor" else [])]
    chosen = ["--action-key", "actions", "--state-key", "none"]
    chosen += [] if command == "stats" else ["--image-keys", "image,wrist_image"]
    expected = {"action_key": "actions", "state_key": None, "image_keys": ["image", "wrist_image"]}
    if command == "stats":
        del expected["image_keys"]
    parser = CommandParser(MODULES[command].ARGUMENTS, description=command)
    assert parser.parse([*valid, *chosen])[0].features() == expected
    assert parser.parse(valid)[0].features() == {}
    if command != "stats":
        named = parser.parse([*valid, "--image-keys", "top=image, wrist=wrist_image"])[0].features()
        assert named == {"image_keys": {"top": "image", "wrist": "wrist_image"}}


def test_a_full_disk_under_safetensors_is_told_in_one_line(capsys):
    def work():
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    assert exit_code("nora15 rounds", work) == 2
    assert capsys.readouterr().err.startswith("nora15 rounds: Error while serializing: I/O error: No space left")


def test_wrong_options_need_no_torch(folder):
    """All in one process, which starts as the installed script does."""
    lines = [
        [command, *VALID[command], "--no-such-option", "1"]
        for command in COMMANDS
        if command not in ("sft", "world-model", "dpo")
    ]
    code = f"""
import sys
for line in {lines!r}:
    sys.argv = ["nora15", *line]
    sys.modules.pop("nora15_hf", None)
    from nora15_hf_command import main
    try:
        main()
    except SystemExit as stop:
        assert stop.code == 2
    else:
        raise AssertionError(line)
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unrecognized arguments: --no-such-option 1") == len(lines) == done.stderr.count("\n")
