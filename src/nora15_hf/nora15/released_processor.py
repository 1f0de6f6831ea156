# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the parts of a processor come from for checkpoints published without one: several repos, as the authors' code does."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import ADAPTER_CONFIG_NAME, cached_file, logging

from ..actions.fast_codec import FastActionTokenizer
from ..actions.normalization import ActionStatistics, load_norm_stats
from ..embodiment.embodiment import Camera, Embodiment
from ..repo_files.checkpoint import Checkpoint
from ..repo_files.stored_tensors import find_file, stored_settings
from ..repo_files.verified_download import load_verified
from .released_checkpoint import is_native

RELEASED_BACKBONE = "declare-lab/nora"
RELEASED_ACTION_CODEC = "physical-intelligence/fast"
NORM_STATS_FILE = "norm_stats.json"
FIRST_ACTION_TOKEN_ID = 151665

_RELEASED_EMBODIMENT = Embodiment(
    cameras={"image": Camera(height=224, width=224, role="external")},
    action_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    delta_actions=(True, True, True, True, True, True, False),
    gripper="1 = open, 0 = closed",
)

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class ProcessorSources:
    """Repo or folder of each part of a released processor."""

    tokenizer: str
    action_codec: str
    norm_stats: str


def find_processor_sources(
    checkpoint: Checkpoint,
    tokenizer_source: str | os.PathLike | None = None,
    action_codec_source: str | os.PathLike | None = None,
    norm_stats_source: str | os.PathLike | None = None,
) -> ProcessorSources:
    """
    Decides for each part: the source that was asked for, else the repo when it has the part, else the released source.

    Args:
        checkpoint ([`Checkpoint`]): With released weights; its `revision` counts for its own repo only.
        tokenizer_source, action_codec_source, norm_stats_source (`str` or `os.PathLike`, *optional*):
            Repo or folder to take that part from; the statistics may also be a JSON file.

    Raises:
        OSError: `checkpoint` is a checkpoint of this package, or adapters, saved without a processor, or holds no weights at
            all: parts from elsewhere would hide a mistake.
    """
    repo, hub_options = os.fspath(checkpoint.source), checkpoint.hub_options
    if is_native(checkpoint):
        raise OSError(
            f"{repo!r} has a NORA-1.5 model, but no processor_config.json of its processor: save it there with "
            "processor.save_pretrained(folder)."
        )
    if find_file(repo, ADAPTER_CONFIG_NAME, **hub_options) is not None:
        raise OSError(
            f"{repo!r} holds adapters without the processor that they were trained with (processor_config.json). Save it there "
            "with processor.save_pretrained(folder), as the trainers do, or load the processor of the base policy."
        )
    subfolder = hub_options.get("subfolder") or ""
    if os.path.isdir(repo) and not any(Path(repo, subfolder).glob("*.safetensors")):
        raise OSError(
            f"{repo!r} holds neither a processor (processor_config.json) nor released weights (*.safetensors): is it the "
            "right folder?"
        )
    own = {
        "tokenizer": find_file(repo, "tokenizer_config.json", **hub_options),
        "norm_stats": find_file(repo, NORM_STATS_FILE, **hub_options),
    }
    return ProcessorSources(
        tokenizer=str(tokenizer_source or (repo if own["tokenizer"] else RELEASED_BACKBONE)),
        action_codec=str(action_codec_source or RELEASED_ACTION_CODEC),
        norm_stats=str(norm_stats_source or (repo if own["norm_stats"] else RELEASED_BACKBONE)),
    )


def load_processor_parts(
    checkpoint: Checkpoint, sources: ProcessorSources
) -> tuple[PreTrainedTokenizerBase, FastActionTokenizer, dict[str, ActionStatistics]]:
    """
    Loads tokenizer, FAST codec and statistics, and checks that tokenizer and codec belong together.

    Raises:
        OSError: A source or its file is not there.
        ValueError: A part is damaged, or the `<robot_action_i>` tokens are not those of the released vocabulary.
    """
    repo, hub_options = os.fspath(checkpoint.source), checkpoint.hub_options
    logger.warning(
        f"{repo!r} has no processor of its own. Tokenizer: {sources.tokenizer!r}; FAST codec: "
        f"{sources.action_codec!r}; action statistics: {sources.norm_stats!r}."
    )

    def options_of(source: str, *leave_out: str) -> dict:
        # A revision or sub-folder of the weights means nothing in another repo.
        own = source == repo
        foreign = () if own else ("revision", "subfolder")
        return {key: value for key, value in hub_options.items() if key not in (*foreign, *leave_out)}

    def load_tokenizer() -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(sources.tokenizer, **options_of(sources.tokenizer))

    cache_dir = hub_options.get("cache_dir")
    tokenizer = load_verified(load_tokenizer, sources.tokenizer, cache_dir=cache_dir)
    if tokenizer.chat_template is None:
        # transformers 4 kept the template of a processor in a file of its own.
        stored = stored_settings(sources.tokenizer, "chat_template.json", **options_of(sources.tokenizer))
        tokenizer.chat_template = stored.get("chat_template")
    codec = FastActionTokenizer.from_pretrained(
        sources.action_codec, **options_of(sources.action_codec, "force_download")
    )
    if os.path.isfile(sources.norm_stats):
        norm_stats_file = sources.norm_stats
    else:
        fetch_statistics = partial(cached_file, sources.norm_stats, NORM_STATS_FILE, **options_of(sources.norm_stats))
        norm_stats_file = load_verified(fetch_statistics, sources.norm_stats, cache_dir=cache_dir)
    check_action_tokens(tokenizer, codec.vocab_size, sources.tokenizer)
    return tokenizer, codec, load_norm_stats(norm_stats_file)


def released_embodiments(norm_stats: Mapping[str, ActionStatistics]) -> dict[str, Embodiment]:
    """What is known of all data of NORA's training, by the keys of its statistics: that of OpenVLA's datasets."""
    return {key: _RELEASED_EMBODIMENT for key, statistics in norm_stats.items() if len(statistics) == 7}


def check_action_tokens(tokenizer: PreTrainedTokenizerBase, num_action_tokens: int, source: str) -> None:
    """Raises a ValueError unless `<robot_action_i>` has the id 151665 + i for every FAST token i."""
    names = [f"<robot_action_{i}>" for i in range(num_action_tokens)]
    vocabulary = tokenizer.get_vocab()
    for i, name in enumerate(names):
        if vocabulary.get(name) != FIRST_ACTION_TOKEN_ID + i:
            raise ValueError(
                f"The tokenizer of {source!r} has {name} at id {vocabulary.get(name)}, expected "
                f"{FIRST_ACTION_TOKEN_ID + i}: it is not NORA's tokenizer, and FAST tokens would be read as other text. Pass "
                f"tokenizer_source={RELEASED_BACKBONE!r}."
            )


__all__ = [
    "FIRST_ACTION_TOKEN_ID",
    "NORM_STATS_FILE",
    "RELEASED_ACTION_CODEC",
    "RELEASED_BACKBONE",
    "ProcessorSources",
    "check_action_tokens",
    "find_processor_sources",
    "load_processor_parts",
    "released_embodiments",
]
