# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Published world-model checkpoints as native repos, which `AutoModel` and `AutoProcessor` load without anything else."""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..cards.card_info import NOT_STATED, Conversion, WorldModelCardInfo
from ..cards.cards import save_card
from ..repo_files.checkpoint import Checkpoint
from ..repo_files.one_commit import push_model_folder
from ..repo_files.shard_writer import ConvertedTensor, tensor_table, write_shards
from ..repo_files.stored_tensors import FLOAT_DTYPES, StoredTensor
from ..repo_files.written_whole import written_whole
from .configuration_vjepa2_ac import VJEPA2ACConfig
from .modeling_vjepa2_ac import VJEPA2ACModel
from .processing_vjepa2_ac import VJEPA2ACProcessor
from .released_world_model import native_encoder_tensors, read_released_world_model

_PATCH_EMBEDDING = "encoder.embeddings.patch_embeddings.proj.weight"
_PREDICTOR_EMBEDDING = "predictor.predictor_embed.weight"


@dataclass(frozen=True)
class WorldModelConversionReport:
    """
    What a conversion did; `str(report)` is the text that `nora15 convert` prints.

    Args:
        source (`str`), output (`Path`): From where to where.
        encoder_source (`str`): Where the encoder was taken from.
        config ([`VJEPA2ACConfig`]): The configuration written.
        tensors (`tuple[ConvertedTensor, ...]`): All weights written.
        files (`tuple[str, ...]`): The safetensors files written.
        dropped (`tuple[str, ...]`): Tensors of the source that were not written, with the reason.
    """

    source: str
    output: Path
    encoder_source: str
    config: VJEPA2ACConfig
    tensors: tuple[ConvertedTensor, ...]
    files: tuple[str, ...]
    dropped: tuple[str, ...]

    def num_parameters(self, part: str) -> int:
        """Parameters of the `"encoder"` or the `"predictor"`."""
        return sum(torch.Size(each.shape).numel() for each in self.tensors if each.name.startswith(f"{part}."))

    def __str__(self) -> str:
        total = sum(tensor.num_bytes for tensor in self.tensors)
        return "\n".join(
            [
                f"{self.source} -> {self.output}",
                "",
                *tensor_table(self.tensors),
                "",
                f"{len(self.tensors)} tensors, {total:,} bytes in {len(self.files)} file(s)",
                f"encoder: {self.num_parameters('encoder'):,} parameters from {self.encoder_source}",
                f"predictor: {self.num_parameters('predictor'):,} parameters from {self.source}",
                *(f"not written: {reason}" for reason in self.dropped),
                f"actions: {self.config.action_convention!r} convention, {self.config.action_dim} dimensions",
            ]
        )


def convert_vjepa2_ac_to_hf(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    encoder_source: str | os.PathLike | None = None,
    config: VJEPA2ACConfig | None = None,
    max_shard_size: int = 5 * 10**9,
    push_to: str | None = None,
    private: bool | None = None,
) -> WorldModelConversionReport:
    """
    Writes a native repo from a published checkpoint: weights, configuration, processor and card.

    The weights are copied as bytes, 16 MiB at a time, so that neither the model nor a shard is ever held in memory, and
    keep their dtype. No pickled code is run. `output` appears only when everything in it is complete.

    Args:
        source (`str` or `os.PathLike`):
            File: `vjepa2-ac-vitg.pt` as published by `facebookresearch/vjepa2`, whose own encoder is converted with it (it
            is not the one of `facebook/vjepa2-vitg-fpc64-256`); or the predictor alone as safetensors, as the NORA-1.5
            code saves it. Prefixes of DDP, `torch.compile` and vjepa2's wrapper are removed.
        output (`str` or `os.PathLike`): New or empty folder.
        encoder_source (`str` or `os.PathLike`, *optional*):
            Where the encoder of a predictor alone comes from: the published `.pt` file or a repo converted from it.
        config ([`VJEPA2ACConfig`], *optional*):
            Default: the released sizes, with the `"metric"` action convention for a `.pt` file (trained on DROID) and
            the `"normalized"` one for a predictor alone (trained by the NORA-1.5 code).
        max_shard_size (`int`, *optional*, defaults to 5 GB): Bytes per safetensors file.
        push_to (`str`, *optional*): Hub id of the repo to upload to.
        private (`bool`, *optional*): Visibility of that repo.

    Returns:
        [`WorldModelConversionReport`]

    Raises:
        FileExistsError: `output` is not empty.
        OSError: `source` or `encoder_source` is not there.
        ValueError: Weights that are damaged, not finite, or not exactly those of the configuration; an encoder that does
            not match the predictor; a predictor without `encoder_source`, or a whole model with it.
    """
    source, output = Path(source), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not an empty folder: choose another output or remove it first.")
    if source.match("model*.safetensors"):
        # The weights of a native repo, whose config.json lies beside them.
        Checkpoint(source.parent).refuse_native()
    parts = read_released_world_model(source)
    if "encoder" in parts and encoder_source is not None:
        raise ValueError(
            f"encoder_source={str(encoder_source)!r} was given, but {source} contains the encoder that its predictor was "
            "trained with. Omit it."
        )
    if "encoder" not in parts and encoder_source is None:
        raise ValueError(
            f"{source} holds a predictor without an encoder. Name the source of its encoder with encoder_source "
            "(--encoder): vjepa2-ac-vitg.pt, or a repo converted from it."
        )
    if "encoder" in parts:
        encoder, dropped = native_encoder_tensors(parts["encoder"])
    else:
        encoder, dropped = _read_encoder(encoder_source)
    # A copy: its dtype is about to be set, and the caller may go on using his.
    config = copy.deepcopy(config)
    if config is None:
        config = VJEPA2ACConfig(action_convention="metric" if "encoder" in parts else "normalized")
    tensors = _plan(source, encoder | {f"predictor.{name}": each for name, each in parts["predictor"].items()}, config)

    with written_whole(output) as folder:
        folder.mkdir()
        VJEPA2ACProcessor(size=config.encoder_config.crop_size).save_pretrained(folder)
        files = write_shards(folder, tensors, max_shard_size, str(source))
        config.architectures = [VJEPA2ACModel.__name__]
        by_name = {tensor.name: tensor for tensor in tensors}
        config.dtype = FLOAT_DTYPES[by_name[_PREDICTOR_EMBEDDING].dtype]
        config.encoder_config.dtype = FLOAT_DTYPES[by_name[_PATCH_EMBEDDING].dtype]
        config.save_pretrained(folder)
        report = WorldModelConversionReport(
            source=str(source),
            output=output,
            encoder_source=str(source if encoder_source is None else encoder_source),
            config=config,
            tensors=tuple(tensors),
            files=tuple(files),
            dropped=tuple(dropped),
        )
        save_card(folder, _card_info(report, push_to or output.name))
    if push_to is not None:
        push_model_folder(
            output,
            push_to,
            private=private,
            commit_message=f"Convert {source.name}",
        )
    return report


def _read_encoder(encoder_source: str | os.PathLike) -> tuple[dict[str, StoredTensor], list[str]]:
    if not Path(encoder_source).is_file():
        stored = Checkpoint(encoder_source).tensors
        encoder = {name: tensor for name, tensor in stored.items() if name.startswith("encoder.")}
    else:
        parts = read_released_world_model(Path(encoder_source))
        if "encoder" in parts:
            return native_encoder_tensors(parts["encoder"])
        encoder = {}
    if not encoder:
        raise ValueError(
            f"encoder_source={str(encoder_source)!r} holds no encoder. Expected vjepa2-ac-vitg.pt, or a repo converted "
            "from it."
        )
    return encoder, []


def _plan(source: Path, stored: Mapping[str, StoredTensor], config: VJEPA2ACConfig) -> list[ConvertedTensor]:
    """What to write, in the model's order, after checking names and shapes against the model on the meta device."""
    if _PATCH_EMBEDDING in stored and _PREDICTOR_EMBEDDING in stored:
        encoder_width, predictor_input = stored[_PATCH_EMBEDDING].shape[0], stored[_PREDICTOR_EMBEDDING].shape[-1]
        if encoder_width != predictor_input:
            raise ValueError(
                f"The encoder produces latents of {encoder_width} dimensions, but the predictor in {source} reads "
                f"{predictor_input}: they were not trained together. Use the encoder from the predictor's own training."
            )
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in VJEPA2ACModel(config).state_dict().items()}
    problems = {
        "missing": sorted(expected.keys() - stored.keys()),
        "unexpected": sorted(stored.keys() - expected.keys()),
        "of another shape": [
            f"{name} {stored[name].shape} instead of {shape}"
            for name, shape in expected.items()
            if name in stored and stored[name].shape != shape
        ],
    }
    if any(problems.values()):
        lists = "; ".join(f"{len(names)} {kind}: {names[:5]}" for kind, names in problems.items() if names)
        raise ValueError(
            f"The weights in {source} are not those of the expected V-JEPA 2-AC configuration (with the names of this package"
            f"): {lists}. Nothing was written. Correct the checkpoint, or pass the `config` it was trained with."
        )
    return [ConvertedTensor(name, stored[name].dtype, shape, stored[name]) for name, shape in expected.items()]


def _card_info(report: WorldModelConversionReport, repo_id: str) -> WorldModelCardInfo:
    config = report.config
    metric = config.action_convention == "metric"
    # A machine's folders mean nothing to a reader of the card.
    sources = {"encoder": Path(report.encoder_source).name, "predictor": Path(report.source).name}
    parts = {part: f"{report.num_parameters(part):,} parameters from `{source}`" for part, source in sources.items()}
    return WorldModelCardInfo(
        repo_id=repo_id,
        name=repo_id.rpartition("/")[2],
        num_parameters=sum(report.num_parameters(part) for part in sources),
        image_size=config.encoder_config.crop_size,
        action_dim=config.action_dim,
        horizon=4,
        encoder=sources["encoder"],
        frame_step=NOT_STATED,
        action_space="pose differences: metres, radians, gripper closedness" if metric else NOT_STATED,
        action_scale="metres and radians" if metric else "normalised as the policy's",
        state_input="poses: metres, radians, gripper closedness, robot base frame" if metric else "zeros",
        pose_dim=config.state_dim if metric else None,
        limits=(
            "It knows the robots and cameras of its training data: it infers the axes of movement from the camera's view, so "
            "that another camera position is another world.",
        ),
        license=None,
        conversion=Conversion(
            source=sources["predictor"],
            dtypes=", ".join(sorted({tensor.dtype for tensor in report.tensors})),
            parts=parts,
        ),
    )


__all__ = ["WorldModelConversionReport", "convert_vjepa2_ac_to_hf"]
