# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Serves a policy to robots and benchmarks: openpi's protocol over WebSockets, GR00T's over ZeroMQ, or vla-eval's. With --replay
it serves the actions of a dataset instead, to check the robot's side. Ctrl-C and SIGTERM finish the request
that is being answered.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..runtime.thread_arguments import ThreadArguments
from . import option_types
from .flow_arguments import FlowArguments
from .library_defaults import library_choices, library_defaults

DEFAULTS = library_defaults("serving/server.py", "PolicyServer")
VLA_EVAL = "vla-eval"
REPLAYED_CHUNK_SIZE = 50


@dataclass
class ServeArguments(FlowArguments):
    """What [`~nora15_hf.serving.server.PolicyServer`] needs."""

    policy: str | None = field(
        default=None,
        metadata={
            "positional": True,
            "parse": option_types.folder_or_hub_id,
            "help": "the policy: Hub id or folder",
        },
    )
    replay: str | None = field(
        default=None,
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "serve the actions of this LeRobot dataset instead of a policy's: Hub id or folder",
        },
    )
    protocol: str = field(
        default=DEFAULTS["protocol"],
        metadata={"help": "what clients speak", "choices": library_choices("serving/server.py", "DEFAULT_PORTS")},
    )
    host: str = field(
        default=DEFAULTS["host"], metadata={"help": "address to listen to; 0.0.0.0 lets the whole network in"}
    )
    port: int | None = field(
        default=None,
        metadata={"parse": option_types.port, "help": "port to listen to (default: 8000, with gr00t 5555)"},
    )
    api_key_file: Path | None = field(
        default=None,
        metadata={"parse": option_types.existing_file, "help": "file with the key that clients must send"},
    )
    robot: str | None = field(
        default=None,
        metadata={
            "help": "names that the robot uses for its observations: libero, droid, aloha, bridge, so101, or a YAML file (default: those of "
            "the policy); with vla-eval only libero or nothing"
        },
    )
    default_prompt: str | None = field(default=None, metadata={"help": "instruction of observations without one"})
    device: str | None = field(
        default=None, metadata={"help": "for example cpu or cuda:0 (default: a GPU if there is one)"}
    )
    dataset_key: str | None = field(
        default=None, metadata={"help": "which of the policy's statistics; needed when there are several"}
    )
    compile: bool = field(
        default=False, metadata={"flag": True, "help": "compile the policy first, which takes about a minute"}
    )
    revision: str | None = field(
        default=None,
        metadata={"revision_of": ("policy", "replay"), "help": "branch, tag or commit of the policy or the dataset"},
    )
    chunk_size: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": f"with --replay: actions of a chunk (default: {REPLAYED_CHUNK_SIZE})",
        },
    )
    n_action_steps: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": "with --replay and with vla-eval: actions of a chunk that are executed (default: all)",
        },
    )

    def __post_init__(self):
        if (self.policy is None) == (self.replay is None):
            raise ValueError("Name either a policy or --replay DATASET.")
        if self.replay is not None:
            self._refuse(
                "a dataset is replayed without a model", "device", "dataset_key", "num_steps", "temperature", "compile"
            )
        else:
            self._refuse("it belongs to --replay", "chunk_size")
            if self.protocol != VLA_EVAL:
                self._refuse("clients of this protocol get whole chunks", "n_action_steps")
        if self.protocol != VLA_EVAL:
            return
        self._refuse("it is not part of vla-eval's protocol", "api_key_file", "default_prompt")
        if self.robot not in (None, "libero"):
            raise ValueError(
                f"--robot {self.robot} is not a known benchmark of vla-eval: use libero, or omit the option."
            )

    def _refuse(self, reason: str, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            # Not `in`, for which 0 is False.
            if value is not None and value is not False:
                raise ValueError(f"--{name.replace('_', '-')} would have no effect: {reason}. Leave it out.")


ARGUMENTS = (ServeArguments, ThreadArguments)


def run(options: ServeArguments) -> None:
    from ..runtime.listening import listen
    from ..serving.robots import load_robot
    from ..serving.server import DEFAULT_PORTS, PolicyServer

    port = DEFAULT_PORTS[options.protocol] if options.port is None else options.port
    # A port that is taken shows before a policy is loaded, which may take minutes.
    listen(options.host, port).close()
    if options.protocol == VLA_EVAL:
        _run_vla_eval(options, port)
        return
    robot = None if options.robot is None else load_robot(options.robot, options.protocol)
    api_key = None
    if options.api_key_file is not None:
        api_key = options.api_key_file.read_text(encoding="utf-8").strip()
        if not api_key:
            raise ValueError(f"{options.api_key_file} is empty: write the key that clients must send into it.")
    server = PolicyServer(
        _policy(options),
        protocol=options.protocol,
        host=options.host,
        port=port,
        api_key=api_key,
        robot=robot,
        default_prompt=options.default_prompt,
    )
    metadata = server.service.metadata

    def say_where() -> None:
        print(
            f"Serving {metadata['policy']} ({metadata['dataset_key']}: chunks of {metadata['action_horizon']} x "
            f"{metadata['action_dim']}, cameras {', '.join(metadata['cameras']) or 'not named'}) at {server.url}. Ctrl-C stops it.",
            flush=True,
        )

    server.run(say_where)


def _run_vla_eval(options: ServeArguments, port: int) -> None:
    from ..serving.vla_eval_libero import LiberoServer
    from ..serving.vla_eval_server import VlaEvalServer

    kind = LiberoServer if options.robot == "libero" else VlaEvalServer
    server = kind(_policy(options), n_action_steps=options.n_action_steps)

    def say_where(port: int) -> None:
        print(
            f"Serving {server.policy.metadata['policy']} at ws://{options.host}:{port}. Ctrl-C stops it.", flush=True
        )

    server.run(options.host, port, say_where)


def _policy(options: ServeArguments):
    if options.replay is not None:
        return _replay(options)
    from ..runtime.device import usable_device
    from ..serving.served_policy import ModelPolicy

    return ModelPolicy.from_pretrained(
        options.policy,
        device=usable_device(options.device),
        revision=options.revision,
        dataset_key=options.dataset_key,
        num_steps=options.num_steps,
        temperature=1.0 if options.temperature is None else options.temperature,
        compile=options.compile,
    )


def _replay(options: ServeArguments):
    from ..data import LeRobotDataset
    from ..serving.dataset_replay import DatasetReplay

    dataset = LeRobotDataset(
        options.replay,
        revision=options.revision,
        chunk_size=options.chunk_size or REPLAYED_CHUNK_SIZE,
        cache_images=False,
    )
    return DatasetReplay(dataset, options.n_action_steps)


__all__ = ["ARGUMENTS", "ServeArguments", "run"]
