# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 <command>`: each command calls one library function."""

import argparse
import sys
from pathlib import Path

from .data.statistics_table import dataset_statistics
from .doctor import examine_policy
from .hub import AuthorFacts, plan_push, push_folder, read_evaluation, write_card
from .nora15.convert_nora15_to_hf import convert_nora15_to_hf
from .quickstart.config import QuickstartConfig
from .simulation.metaworld_tasks import METAWORLD_TASKS
from .vjepa2_ac.convert_vjepa2_ac_to_hf import convert_vjepa2_ac_to_hf


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="nora15", description="NORA-1.5: robot policies, world models and preference post-training on the Hub."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_quickstart(commands)
    _add_doctor(commands)
    _add_convert(commands)
    _add_push(commands)
    _add_card(commands)
    _add_imagine(commands)
    _add_stats(commands)
    return parser


def _add_quickstart(commands) -> None:
    defaults = QuickstartConfig()
    command = commands.add_parser(
        "quickstart",
        help="from demonstrations to a preference-tuned policy on a simulator, in one command",
        description=(
            "Records demonstrations in Meta-World, trains a small policy and a world model on them, builds preferences "
            "from imagined outcomes, tunes the policy with flow DPO, evaluates everything in closed loop and writes a "
            "report. Needs no GPU, no OpenGL and no download."
        ),
    )
    command.add_argument("--output", type=Path, required=True, help="folder for models, datasets and report")
    command.add_argument(
        "--tasks", type=_comma_separated, default=None,
        help=f"comma-separated Meta-World tasks (default: {','.join(defaults.tasks)}); "
        f"known: {', '.join(sorted(METAWORLD_TASKS))}",
    )  # fmt: skip
    command.add_argument(
        "--episodes", type=int, default=None, help=f"demonstrations per task (default: {defaults.episodes})"
    )
    command.add_argument(
        "--evaluation-episodes", type=int, default=None,
        help=f"evaluation episodes per task and policy (default: {defaults.evaluation_episodes})",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=None, help=f"random seed (default: {defaults.seed})")
    command.add_argument(
        "--renderer", choices=("auto", "raycast", "osmesa", "egl"), default=None,
        help=f"how cameras are drawn: raycast needs no library and looks alike on every machine, auto takes OpenGL where it "
        f"works (default: {defaults.renderer})",
    )  # fmt: skip
    command.add_argument(
        "--smoke", action="store_true", help="everything tiny: shows that all stages run, not success"
    )
    command.add_argument(
        "--resume", action="store_true", help="continue the run in --output from its last finished stage"
    )
    command.add_argument("--overwrite", action="store_true", help="remove an earlier run in --output first")
    command.set_defaults(run=_run_quickstart)


def _add_doctor(commands) -> None:
    command = commands.add_parser(
        "doctor",
        help="what to know about a policy before it moves a robot",
        description=(
            "Loads a policy and reports versions, weights, conventions, action statistics (beside a dataset's), the range of "
            "its actions, latency, and whether it uses its image and its instruction. The exit code is 1 when there are "
            "errors and 0 otherwise, also with warnings."
        ),
    )
    command.add_argument("repo", help="the policy: Hub id or folder")
    command.add_argument("--dataset", help="LeRobot dataset to compare with and to take observations from")
    command.add_argument("--device", help="for example cpu or cuda:0 (default: a GPU where there is one)")
    command.add_argument("--dataset-key", help="which of the checkpoint's statistics; needed when there are several")
    command.add_argument(
        "--image-keys", type=_comma_separated, help="comma-separated cameras of the dataset, in the order of training"
    )
    command.add_argument("--samples", type=int, default=16, help="observations to try the policy on (default: 16)")
    command.add_argument("--num-steps", type=int, help="solver steps (default: the policy's)")
    command.add_argument("--revision", help="branch, tag or commit of the policy's repo")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")
    command.set_defaults(run=_run_doctor)


def _comma_separated(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _run_quickstart(arguments: argparse.Namespace) -> int:
    # Imported here: it needs the simulator, which is an extra that other commands do without.
    from .quickstart.quickstart import run_quickstart

    names = ("tasks", "episodes", "evaluation_episodes", "seed", "renderer")
    overrides = {name: value for name in names if (value := vars(arguments)[name]) is not None}
    config = QuickstartConfig.smoke(**overrides) if arguments.smoke else QuickstartConfig(**overrides)
    run_quickstart(arguments.output, config, resume=arguments.resume, overwrite=arguments.overwrite)
    return 0


def _run_doctor(arguments: argparse.Namespace) -> int:
    names = ("device", "dataset_key", "image_keys", "samples", "num_steps", "revision")
    report = examine_policy(arguments.repo, arguments.dataset, **{name: vars(arguments)[name] for name in names})
    if arguments.json is not None:
        report.write_json(arguments.json)
    print(report.to_text())
    return 1 if report.errors else 0


def _add_convert(commands) -> None:
    command = commands.add_parser(
        "convert",
        help="a published policy or world model to a repo that AutoModel and AutoProcessor load",
        description=(
            "Writes configuration, sharded safetensors, scheduler, tokenizer, FAST codec, action statistics and a card, "
            "and prints where each came from. Streams: the weights are never held in memory. A source that is a file is a "
            "world model: vjepa2-ac-vitg.pt, or a NORA-1.5 predictor as safetensors."
        ),
    )
    command.add_argument(
        "source",
        help="policy: Hub id or folder (declare-lab/nora-1.5, or a backbone as declare-lab/nora); world model: file",
    )
    command.add_argument("--output", type=Path, required=True, help="new folder of the native repo")
    command.add_argument("--push", metavar="REPO", default=None, help="Hub id to upload the result to")
    command.add_argument("--private", action="store_true", default=None, help="with --push: make the repo private")
    command.add_argument(
        "--init-expert",
        type=int,
        metavar="SEED",
        default=None,
        help="add a new, untrained action expert to a backbone",
    )
    command.add_argument(
        "--chunk-size", type=int, default=None, help="actions per chunk (default: 5; declare-lab/nora: 1)"
    )
    command.add_argument("--revision", default=None, help="branch, tag or commit of the source")
    command.add_argument("--subfolder", default=None, help="folder of the source that holds the weights")
    command.add_argument("--tokenizer", default=None, help="repo or folder of the tokenizer")
    command.add_argument("--action-codec", default=None, help="repo or folder of the FAST codec")
    command.add_argument("--norm-stats", default=None, help="repo, folder or JSON file of the action statistics")
    command.add_argument(
        "--encoder",
        default=None,
        help="of a world model's predictor alone: vjepa2-ac-vitg.pt, or a repo converted from it",
    )
    command.set_defaults(run=_run_convert)


def _run_convert(arguments: argparse.Namespace) -> int:
    if Path(arguments.source).is_file():
        return _run_convert_world_model(arguments)
    if arguments.encoder is not None:
        raise ValueError(
            f"--encoder is for a world model's predictor, which is a file; {arguments.source!r} is not one."
        )
    hub_options = {name: value for name in ("revision", "subfolder") if (value := vars(arguments)[name]) is not None}
    report = convert_nora15_to_hf(
        arguments.source,
        arguments.output,
        init_expert=arguments.init_expert,
        chunk_size=arguments.chunk_size,
        tokenizer_source=arguments.tokenizer,
        action_codec_source=arguments.action_codec,
        norm_stats_source=arguments.norm_stats,
        push_to=arguments.push,
        private=arguments.private,
        **hub_options,
    )
    print(report)
    return 0


def _run_convert_world_model(arguments: argparse.Namespace) -> int:
    policy_options = ("init_expert", "chunk_size", "revision", "subfolder", "tokenizer", "action_codec", "norm_stats")
    given = [f"--{name.replace('_', '-')}" for name in policy_options if vars(arguments)[name] is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: for policies only, but {arguments.source!r} is a file and so a world model. A policy is "
            "named by its folder or Hub id."
        )
    report = convert_vjepa2_ac_to_hf(
        arguments.source,
        arguments.output,
        encoder_source=arguments.encoder,
        push_to=arguments.push,
        private=arguments.private,
    )
    print(report)
    return 0


def _add_imagine(commands) -> None:
    command = commands.add_parser(
        "imagine",
        help="what a world model imagines: film strips, energy curves, ranking accuracy",
        description=(
            "Lets a world model imagine episodes of a dataset, by default those that were held out from its training, and "
            "writes film strips of the nearest frames, distance against action noise and how often the demonstrated "
            "actions are ranked first: PNG files, one self-contained index.html, and imagine.json."
        ),
    )
    command.add_argument("--model", required=True, help="folder or repo of a world model with its clips.json")
    command.add_argument("--dataset", required=True, help="folder or repo of a LeRobot dataset")
    command.add_argument("--output", type=Path, required=True, help="folder to write to")
    command.add_argument(
        "--episodes", type=_episode_indices, default=None,
        help="comma-separated episode indices (default: those held out from training, or all of another dataset)",
    )  # fmt: skip
    command.add_argument("--strips", type=int, default=4, help="episodes shown as film strips (default: 4)")
    command.add_argument(
        "--steps", type=int, default=5, help="frames to imagine, actions per ranked chunk (default: 5)"
    )
    command.add_argument("--cases", type=int, default=256, help="frames from which chunks are ranked (default: 256)")
    command.add_argument(
        "--gallery", type=int, default=2000,
        help="frames among which the nearest to an imagined one is searched (default: 2000)",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="of frames, other chunks and noise (default: 0)")
    command.add_argument("--device", help="for example cpu or cuda:0 (default: a GPU where there is one)")
    command.add_argument("--revision", help="branch, tag or commit of the model's repo")
    command.add_argument("--dataset-revision", help="branch, tag or commit of the dataset's repo")
    command.set_defaults(run=_run_imagine)


def _episode_indices(text: str) -> list[int]:
    return [int(part) for part in _comma_separated(text)]


def _run_imagine(arguments: argparse.Namespace) -> int:
    # Imported here: TRL and matplotlib take seconds to load, which other commands do without.
    from .imagine import imagine
    from .imagine.page import PAGE_FILE

    result = imagine(
        arguments.model,
        arguments.dataset,
        arguments.output,
        revision=arguments.revision,
        dataset_revision=arguments.dataset_revision,
        episodes=arguments.episodes,
        num_strips=arguments.strips,
        steps=arguments.steps,
        gallery_size=arguments.gallery,
        num_cases=arguments.cases,
        seed=arguments.seed,
        device=arguments.device,
    )
    print(result.summary())
    print(f"Look at {arguments.output / PAGE_FILE}")
    return 0


def _add_push(commands) -> None:
    command = commands.add_parser(
        "push",
        help="a model, adapter or dataset folder to its repo on the Hub",
        description=(
            "Uploads a folder in one commit and removes weights or data files of an earlier push that it replaces. Only "
            "safetensors, JSON, parquet, videos, pictures and text are sent; the state of a training stays out, and a "
            "pickle or an access token in the folder is an error. Log in with `hf auth login` first."
        ),
    )
    command.add_argument(
        "folder", type=Path, help="policy, world model, adapter, preference dataset or demonstrations"
    )
    command.add_argument("repo", help="Hub id; made if missing")
    command.add_argument("--private", action="store_true", default=None, help="make a new repo private")
    command.add_argument("--revision", help="branch, made from main if missing (default: main)")
    command.add_argument("--message", help="title of the commit")
    command.add_argument(
        "--with-code", action="store_true",
        help="add the model's code, so that others can load it with trust_remote_code=True and without this package",
    )  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="list the files and their sizes, and send nothing")
    command.set_defaults(run=_run_push)


def _run_push(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        print(plan_push(arguments.folder, arguments.repo, with_code=arguments.with_code))
        return 0
    commit = push_folder(
        arguments.folder,
        arguments.repo,
        private=arguments.private,
        revision=arguments.revision,
        commit_message=arguments.message,
        with_code=arguments.with_code,
    )
    print(commit.commit_url)
    return 0


def _add_stats(commands) -> None:
    command = commands.add_parser(
        "stats",
        help="action and state statistics of a LeRobot dataset",
        description=(
            "Computes exact quantiles, means and ranges from the dataset's rows, without its images, prints them and writes "
            "them in the layout of a processor's norm_stats.json."
        ),
    )
    command.add_argument("dataset", help="LeRobot dataset: Hub id or folder")
    command.add_argument("--output", type=Path, metavar="FILE", help="JSON file to write")
    command.add_argument("--revision", help="branch, tag or commit of the dataset's repo")
    command.add_argument("--action-key", help="feature that holds the action (default: action)")
    command.add_argument("--state-key", help="feature that holds the state (default: observation.state)")
    command.add_argument("--dataset-key", help="key in the file (default: last part of the dataset's name)")
    command.add_argument(
        "--action-mask", type=_flags, metavar="FLAGS", help="1 for normalised dimensions, 0 for others: 1,1,1,0"
    )
    command.add_argument(
        "--delta-mask", type=_flags, metavar="FLAGS", help="1 where actions are trained as differences from the state"
    )
    command.add_argument(
        "--angle-mask", type=_flags, metavar="FLAGS", help="1 where such a difference is one of angles in radians"
    )
    command.add_argument("--chunk-size", type=int, default=5, help="actions per chunk, for differences (default: 5)")
    command.add_argument("--sample-episodes", type=int, metavar="N", help="use only N episodes, drawn at random")
    command.add_argument("--seed", type=int, default=0, help="of that draw (default: 0)")
    command.add_argument(
        "--skip-bad-episodes",
        action="store_true",
        help="leave out and count inconsistent episodes instead of stopping",
    )
    command.set_defaults(run=_run_stats)


def _flags(text: str) -> list[bool]:
    flags = [part.strip() for part in text.split(",")]
    if set(flags) - {"0", "1"}:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of 0 and 1, for example 1,1,1,0")
    return [flag == "1" for flag in flags]


def _run_stats(arguments: argparse.Namespace) -> int:
    options = {
        key: value for key, value in vars(arguments).items() if key not in ("command", "run", "dataset", "output")
    }
    print(dataset_statistics(arguments.dataset, arguments.output, **options))
    return 0


def _add_card(commands) -> None:
    command = commands.add_parser(
        "card",
        help="the README.md of a model, adapter or dataset folder",
        description=(
            "Reads sizes, conventions, hyper-parameters, provenance and counts from the folder and writes its card. What is "
            "neither there nor given here, the card calls not stated."
        ),
    )
    command.add_argument(
        "folder", type=Path, help="policy, world model, adapter, preference dataset or demonstrations"
    )
    command.add_argument("--repo-id", help="Hub id for the usage snippet (default: the folder's name)")
    command.add_argument("--name", help="title (default: last part of the Hub id)")
    command.add_argument(
        "--stage", choices=("sft", "continued-sft", "dpo"), help="default: told from the training's run.json"
    )
    command.add_argument("--base-model", help="Hub id of what training started from")
    command.add_argument(
        "--datasets", type=_comma_separated, default=(), help="comma-separated Hub ids of the datasets trained on"
    )
    command.add_argument("--action-space", help="meaning and unit of the action dimensions")
    command.add_argument("--gripper", help="meaning of the gripper's sign")
    command.add_argument("--example-instruction", help="instruction for the usage snippet")
    command.add_argument(
        "--evaluation", type=Path, metavar="FILE",
        help="JSON of closed-loop results: environment, environment_id, results (task to [successes, episodes]), conventions",
    )  # fmt: skip
    command.add_argument("--license", default=AuthorFacts.license, help=f"default: {AuthorFacts.license}")
    command.set_defaults(run=_run_card)


def _run_card(arguments: argparse.Namespace) -> int:
    names = (
        "repo_id",
        "stage",
        "name",
        "base_model",
        "datasets",
        "action_space",
        "gripper",
        "example_instruction",
        "license",
    )
    evaluation = None if arguments.evaluation is None else read_evaluation(arguments.evaluation)
    facts = AuthorFacts(evaluation=evaluation, **{name: vars(arguments)[name] for name in names})
    print(write_card(arguments.folder, facts))
    return 0


def main(argv: list[str] | None = None) -> int:
    """
    Entry point of the `nora15` command.

    Returns:
        `int`: 0 on success, 1 when the doctor found errors, 2 when the command line or its inputs are wrong, 130
        after Ctrl-C.
    """
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"nora15 {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = (
            "finished stages are kept, --resume continues" if arguments.command == "quickstart" else "call it again"
        )
        print(f"\nnora15 {arguments.command}: interrupted; {again}.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
