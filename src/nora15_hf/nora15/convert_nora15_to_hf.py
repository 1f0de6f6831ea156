# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Published NORA checkpoints as native repos, which `AutoModel` and `AutoProcessor` load without anything else."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig

from ..actions.normalization import ActionStatistics
from ..cards.card_info import Conversion, PolicyCardInfo
from ..cards.cards import save_card
from ..cards.policy_card import policy_card_info, raw_dimensions
from ..repo_files.checkpoint import Checkpoint
from ..repo_files.fingerprint import artefact_name
from ..repo_files.one_commit import push_model_folder
from ..repo_files.shard_writer import ConvertedTensor, tensor_table, write_shards
from ..repo_files.stored_tensors import FLOAT_DTYPES, StoredTensor
from ..repo_files.written_whole import written_whole
from .configuration_nora15 import Nora15ActionExpertConfig, Nora15Config
from .modeling_nora15 import Nora15ForActionPrediction
from .processing_nora15 import Nora15Processor
from .released_checkpoint import (
    EMBEDDING,
    TIED_HEAD,
    check_tensors,
    has_expert,
    native_name,
    released_config,
)
from .released_processor import ProcessorSources, find_processor_sources, load_processor_parts, released_embodiments

# What a backbone does not have.
_EXPERT_MODULES = ("action_expert", "action_in_proj", "action_out_proj", "action_time_mlp_in", "action_time_mlp_out")


@dataclass(frozen=True)
class ConversionReport:
    """
    What a conversion did; `str(report)` is the text that `nora15 convert` prints.

    Args:
        source (`str`), output (`Path`): From where to where.
        tensors (`tuple[ConvertedTensor, ...]`): All weights written.
        files (`tuple[str, ...]`): The safetensors files written.
        dropped (`tuple[str, ...]`): Tensors of the source that were not written, with the reason.
        sources (`ProcessorSources`): Where the parts of the processor were taken from.
        norm_stats (`dict[str, ActionStatistics]`): Statistics written.
        seed (`int`, *optional*): Of the newly initialised action expert; None when the source had one.
    """

    source: str
    output: Path
    tensors: tuple[ConvertedTensor, ...]
    files: tuple[str, ...]
    dropped: tuple[str, ...]
    sources: ProcessorSources
    norm_stats: dict[str, ActionStatistics]
    seed: int | None

    @property
    def num_parameters(self) -> int:
        return sum(torch.Size(tensor.shape).numel() for tensor in self.tensors)

    def __str__(self) -> str:
        lines = [f"{self.source} -> {self.output}", "", *tensor_table(self.tensors, f"new, seed {self.seed}")]
        total = sum(tensor.num_bytes for tensor in self.tensors)
        lines += [
            "",
            f"{len(self.tensors)} tensors, {self.num_parameters:,} parameters, {total:,} bytes in {len(self.files)} file(s)",
            *(f"not written: {reason}" for reason in self.dropped),
            f"tokenizer from {self.sources.tokenizer}, FAST codec from {self.sources.action_codec}, statistics from "
            f"{self.sources.norm_stats}:",
        ]
        for key, statistics in self.norm_stats.items():
            raw = np.flatnonzero(~statistics.mask).tolist()
            lines.append(
                f"  {key}: {len(statistics)} dimensions, " + (f"{raw} left raw" if raw else "all normalised (no mask)")
            )
        if self.seed is not None:
            lines.append(
                f"The action expert is NEWLY INITIALISED (seed {self.seed}): sample_actions returns noise until it is "
                "trained. Only the FAST tokens of generate_actions come from trained weights."
            )
        return "\n".join(lines)


def convert_nora15_to_hf(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    config: Nora15Config | None = None,
    init_expert: int | None = None,
    chunk_size: int | None = None,
    tokenizer_source: str | os.PathLike | None = None,
    action_codec_source: str | os.PathLike | None = None,
    norm_stats_source: str | os.PathLike | None = None,
    max_shard_size: int = 5 * 10**9,
    push_to: str | None = None,
    private: bool | None = None,
    **hub_options,
) -> ConversionReport:
    """
    Writes a native repo from a published checkpoint: weights, configuration, scheduler, processor, statistics and card.

    The weights are copied as bytes, 16 MiB at a time, so that neither the model nor a shard is ever held in memory, and
    keep their dtype. `output` appears only when everything in it is complete.

    Args:
        source (`str` or `os.PathLike`):
            Hub id or folder of a policy (`declare-lab/nora-1.5`), or of a backbone alone (`declare-lab/nora`,
            `declare-lab/nora-long`; names from before transformers 4.52 are understood).
        output (`str` or `os.PathLike`): New or empty folder.
        config ([`Nora15Config`], *optional*): Default: the released configuration, or the backbone's own.
        init_expert (`int`, *optional*): Seed of a new action expert; required for, and only for, a backbone alone.
        chunk_size (`int`, *optional*): Actions per chunk; default 5. `declare-lab/nora` was trained with 1.
        tokenizer_source, action_codec_source, norm_stats_source (`str` or `os.PathLike`, *optional*):
            See [`Nora15Processor.from_pretrained`].
        max_shard_size (`int`, *optional*, defaults to 5 GB): Bytes per safetensors file.
        push_to (`str`, *optional*): Hub id of the repo to upload to.
        private (`bool`, *optional*): Visibility of that repo.
        hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder` of `source`.

    Returns:
        [`ConversionReport`]

    Raises:
        FileExistsError: `output` is not empty.
        OSError: A source has not got the files.
        ValueError: Weights that are damaged, not finite, or not exactly those of the configuration; a tokenizer or
            statistics that do not belong to it; `init_expert` where there is an expert, or the other way round.
    """
    source, output = os.fspath(source), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not an empty folder: choose another output or remove it first.")
    checkpoint = Checkpoint(source, hub_options)
    checkpoint.refuse_native()
    stored = checkpoint.tensors
    _check_expert_request(source, has_expert(stored), init_expert)
    # A copy: chunk length and dtype are about to be set, and the caller may go on using his.
    config = copy.deepcopy(config)
    if config is None:
        config = released_config(stored) if init_expert is None else _config_of_backbone(checkpoint)
    if chunk_size is not None:
        config.chunk_size = chunk_size
    tensors, dropped, model = _plan(source, stored, config, init_expert)
    # The processor comes first: what is wrong with it shows in a second, the weights take minutes.
    sources = find_processor_sources(checkpoint, tokenizer_source, action_codec_source, norm_stats_source)
    tokenizer, codec, norm_stats = load_processor_parts(checkpoint, sources)
    processor = Nora15Processor(
        tokenizer,
        codec,
        norm_stats,
        chunk_size=config.chunk_size,
        action_dim=config.action_dim,
        embodiments=released_embodiments(norm_stats),
    )
    with written_whole(output) as folder:
        folder.mkdir()
        processor.save_pretrained(folder)
        files = write_shards(folder, tensors, max_shard_size, source)
        config.architectures = [Nora15ForActionPrediction.__name__]
        dtype = FLOAT_DTYPES[next(tensor.dtype for tensor in tensors if tensor.name == EMBEDDING)]
        vlm_config = config.vlm_config
        for part in (
            config,
            vlm_config,
            vlm_config.text_config,
            vlm_config.vision_config,
            config.action_expert_config,
        ):
            part.dtype = dtype
        config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        model.scheduler.save_pretrained(folder / "scheduler")
        report = ConversionReport(
            source=source,
            output=output,
            tensors=tuple(tensors),
            files=tuple(files),
            dropped=tuple(dropped),
            sources=sources,
            norm_stats=processor.norm_stats,
            seed=init_expert,
        )
        scheduler = type(model.scheduler).__name__
        save_card(folder, _card_info(report, config, processor, scheduler, push_to or output.name))
    if push_to is not None:
        push_model_folder(
            output,
            push_to,
            private=private,
            token=hub_options.get("token"),
            commit_message=f"Convert {artefact_name(source)}",
        )
    return report


def _check_expert_request(source: str, expert: bool, init_expert: int | None) -> None:
    if expert and init_expert is not None:
        raise ValueError(f"init_expert={init_expert} would discard the trained action expert of {source!r}. Omit it.")
    if not expert and init_expert is None:
        raise ValueError(
            f"{source!r} is a backbone without an action expert. Ask for a newly initialised one with init_expert=SEED "
            "(--init-expert SEED); it must be trained before sample_actions is useful."
        )


def _config_of_backbone(checkpoint: Checkpoint) -> Nora15Config:
    """The backbone's own configuration with an expert of 3/8 of its width, the ratio of the released policy."""
    if not checkpoint.settings:
        return released_config(checkpoint.tensors)
    vlm_config = Qwen2_5_VLConfig.from_pretrained(checkpoint.source, **checkpoint.hub_options)
    text = vlm_config.text_config
    heads = max(3 * text.num_attention_heads // 8, text.num_key_value_heads)
    hidden_size = heads * (text.hidden_size // text.num_attention_heads)
    # The released code rounds 8/3 of the width up to a multiple of 256.
    intermediate_size = -(-4 * (2 * hidden_size // 3) // 256) * 256
    return Nora15Config(
        vlm_config=vlm_config,
        action_expert_config=Nora15ActionExpertConfig(
            hidden_size=hidden_size, intermediate_size=intermediate_size, num_attention_heads=heads
        ),
    )


def _plan(
    source: str, stored: dict[str, StoredTensor], config: Nora15Config, init_expert: int | None
) -> tuple[list[ConvertedTensor], list[str], Nora15ForActionPrediction]:
    """Which tensors to write, what is left out, and the model on the meta device, after checking names and shapes."""
    by_name = {native_name(name): tensor for name, tensor in stored.items()}
    if len(by_name) != len(stored):
        raise ValueError(f"{source!r} holds some tensors twice, under an old and a new name. Remove one set.")
    with torch.device("meta"):
        model = Nora15ForActionPrediction(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if init_expert is not None:
        expected = {name: shape for name, shape in expected.items() if not name.startswith(_EXPERT_MODULES)}
    check_tensors(
        {name: tensor.shape for name, tensor in by_name.items()}, expected, source, config.tie_word_embeddings
    )

    dropped = []
    if config.tie_word_embeddings and TIED_HEAD in by_name:
        head = by_name.pop(TIED_HEAD)
        if EMBEDDING not in by_name:
            by_name[EMBEDDING] = head
        elif not _equal(head, by_name[EMBEDDING]):
            raise ValueError(
                f"{TIED_HEAD} in {source!r} differs from the embedding that it should be tied to: the checkpoint mixes "
                f"two versions. Drop {TIED_HEAD} from it if the embedding is the right one."
            )
        dropped.append(f"{TIED_HEAD}, the same matrix as {EMBEDDING}")
    tensors = [ConvertedTensor(name, tensor.dtype, tensor.shape, tensor) for name, tensor in by_name.items()]
    if init_expert is not None:
        dtype = by_name[EMBEDDING].dtype
        new = _new_expert(model, init_expert, FLOAT_DTYPES[dtype])
        tensors += [ConvertedTensor(name, dtype, tuple(tensor.shape), tensor) for name, tensor in new.items()]
    order = {name: position for position, name in enumerate(model.state_dict())}
    return sorted(tensors, key=lambda tensor: order[tensor.name]), dropped, model


def _equal(first: StoredTensor, second: StoredTensor) -> bool:
    return first.dtype == second.dtype and all(a == b for a, b in zip(first.chunks(), second.chunks(), strict=True))


def _new_expert(model: Nora15ForActionPrediction, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The expert and its heads with the initial weights that the model class gives them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in _EXPERT_MODULES:
            module = getattr(model, name).to_empty(device="cpu")
            for child in module.modules():
                model._init_weights(child)
            module.to(dtype)
    return {
        f"{name}.{key}": tensor
        for name in _EXPERT_MODULES
        for key, tensor in getattr(model, name).state_dict().items()
    }


def _card_info(
    report: ConversionReport, config: Nora15Config, processor: Nora15Processor, scheduler: str, repo_id: str
) -> PolicyCardInfo:
    # A base model can only be a Hub id, and a machine's folders mean nothing to a reader of the card.
    base_model = None if os.path.isdir(report.source) else report.source
    names = {"tokenizer": "tokenizer", "action_codec": "FAST codec", "norm_stats": "action statistics"}
    places = vars(report.sources)
    return policy_card_info(
        config,
        processor,
        repo_id=repo_id,
        num_parameters=report.num_parameters,
        scheduler=scheduler,
        base_model=base_model,
        license=None,
        conversion=Conversion(
            source=base_model or "a local checkpoint",
            dtypes=", ".join(sorted({tensor.dtype for tensor in report.tensors})),
            parts={
                name: "a local folder" if os.path.exists(places[part]) else f"`{places[part]}`"
                for part, name in names.items()
            },
            seed=report.seed,
            raw_dimensions=raw_dimensions(report.norm_stats),
        ),
    )


__all__ = ["ConversionReport", "convert_nora15_to_hf"]
