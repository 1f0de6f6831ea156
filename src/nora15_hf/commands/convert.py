# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Writes configuration, sharded safetensors, scheduler, tokenizer, FAST codec, action statistics and a card, and prints the source
of each. The weights are streamed and never held in memory as a whole. A source that is a file is a world model: vjepa2-ac-vitg.pt
or a NORA-1.5 predictor as safetensors.
"""

from dataclasses import dataclass, field
from pathlib import Path

from . import option_types
from .options_without_effect import refuse_without_effect

POLICY_OPTIONS = ("init_expert", "chunk_size", "revision", "subfolder", "tokenizer", "action_codec", "norm_stats")


@dataclass
class ConvertArguments:
    """Options of the converters of policies and world models."""

    source: str = field(
        metadata={
            "positional": True,
            "parse": option_types.path_or_hub_id,
            "help": "policy: Hub id or folder (declare-lab/nora-1.5, or a backbone such as declare-lab/nora); world model: file",
        }
    )
    output: Path = field(metadata={"parse": option_types.new_folder, "help": "new folder of the native repo"})
    push: str | None = field(
        default=None,
        metadata={"parse": option_types.hub_id, "metavar": "REPO", "help": "Hub id to upload the result to"},
    )
    private: bool | None = field(default=None, metadata={"flag": True, "help": "with --push: make the repo private"})
    init_expert: int | None = field(
        default=None,
        metadata={
            "parse": option_types.seed,
            "metavar": "SEED",
            "help": "add a new, untrained action expert to a backbone",
        },
    )
    chunk_size: int | None = field(
        default=None,
        metadata={"parse": option_types.positive, "help": "actions per chunk (default: 5; declare-lab/nora: 1)"},
    )
    revision: str | None = field(
        default=None, metadata={"revision_of": ("source",), "help": "branch, tag or commit of the source"}
    )
    subfolder: str | None = field(default=None, metadata={"help": "folder of the source that holds the weights"})
    tokenizer: str | None = field(
        default=None,
        metadata={"parse": option_types.folder_or_hub_id, "help": "repo or folder of the tokenizer"},
    )
    action_codec: str | None = field(
        default=None,
        metadata={"parse": option_types.folder_or_hub_id, "help": "repo or folder of the FAST codec"},
    )
    norm_stats: str | None = field(
        default=None,
        metadata={
            "parse": option_types.path_or_hub_id,
            "help": "repo, folder or JSON file of the action statistics",
        },
    )
    encoder: str | None = field(
        default=None,
        metadata={
            "parse": option_types.path_or_hub_id,
            "help": "encoder for a world model's predictor: vjepa2-ac-vitg.pt, or a repo converted from it",
        },
    )

    def __post_init__(self):
        refuse_without_effect(self, {"private": (self.push is not None, "without --push")})


ARGUMENTS = (ConvertArguments,)


def run(options: ConvertArguments) -> None:
    print(convert_world_model(options) if Path(options.source).is_file() else convert_policy(options))


def convert_policy(options: ConvertArguments):
    from ..nora15.convert_nora15_to_hf import convert_nora15_to_hf

    if options.encoder is not None:
        raise ValueError(
            f"--encoder is for a world model's predictor, which is a file; {options.source!r} is not one."
        )
    hub_options = {"revision": options.revision, "subfolder": options.subfolder}
    return convert_nora15_to_hf(
        options.source,
        options.output,
        init_expert=options.init_expert,
        chunk_size=options.chunk_size,
        tokenizer_source=options.tokenizer,
        action_codec_source=options.action_codec,
        norm_stats_source=options.norm_stats,
        push_to=options.push,
        private=options.private,
        **{name: value for name, value in hub_options.items() if value is not None},
    )


def convert_world_model(options: ConvertArguments):
    from ..vjepa2_ac.convert_vjepa2_ac_to_hf import convert_vjepa2_ac_to_hf

    given = [f"--{name.replace('_', '-')}" for name in POLICY_OPTIONS if vars(options)[name] is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: for policies only, but {options.source!r} is a file and so a world model. A policy is "
            "named by its folder or Hub id."
        )
    return convert_vjepa2_ac_to_hf(
        options.source,
        options.output,
        encoder_source=options.encoder,
        push_to=options.push,
        private=options.private,
    )


__all__ = ["ARGUMENTS", "ConvertArguments", "run"]
