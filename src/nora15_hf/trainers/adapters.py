# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LoRA and QLoRA of the policy: adapters in the backbone, action expert and heads trained whole."""

from functools import partial
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from transformers import BitsAndBytesConfig

from ..nora15 import Nora15Config, Nora15ForActionPrediction, Nora15Processor
from ..nora15.quantization import ACTION_MODULES, STATE_MODULE
from ..repo_files.json_files import read_json
from ..repo_files.stored_tensors import read_header
from ..repo_files.verified_download import load_verified
from .adapter_base import ADAPTER_BASE_FILE, AdapterBase

# Full names: "q_proj" alone would also match the action expert's.
_BACKBONE_LAYERS = r"vlm\.model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"


def policy_lora_config(
    config: Nora15Config, rank: int = 16, alpha: float | None = None, dropout: float = 0.0
) -> LoraConfig:
    """
    Adapters on every linear layer of the backbone's language model; action expert, its projections and the state's are
    trained and saved whole.

    Args:
        config ([`Nora15Config`]): Of the policy.
        rank (`int`, *optional*, defaults to 16): Of the adapters.
        alpha (`float`, *optional*): Scale, in units of the rank; default `2 * rank`.
        dropout (`float`, *optional*, defaults to 0.0): On the adapters' inputs.
    """
    heads = [*ACTION_MODULES, *([STATE_MODULE] if config.state_dim is not None else [])]
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=_BACKBONE_LAYERS,
        modules_to_save=heads,
    )


def nf4_config(compute_dtype: torch.dtype = torch.bfloat16) -> BitsAndBytesConfig:
    """QLoRA's quantisation of the backbone: 4-bit NormalFloat with quantised scales (arXiv 2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def load_merged_policy(
    base: str | Path, adapters: str | Path, *, adapter_revision: str | None = None, **kwargs
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    The policy that adapters were trained for, with the adapters merged into its weights: an ordinary policy, to be saved
    and loaded like every other, and the processor it was trained with.

    Adapters that were trained on a quantised backbone are merged into its unquantised weights, which differ from those
    seen in training by the rounding of quantisation.

    Args:
        base (`str` or `Path`): Folder or Hub id of the policy that training started from.
        adapters (`str` or `Path`): Folder or Hub id that the trainer wrote, with its processor.
        adapter_revision (`str`, *optional*): Branch, tag or commit of `adapters`.
        kwargs: Of `from_pretrained` of the base.

    Raises:
        OSError: A file is missing, or arrived damaged twice.
        ValueError: A file is damaged, or the adapters were trained on a policy with other weights than those of `base`.
    """
    folder = Path(adapters)
    if not folder.is_dir():
        files = [CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, ADAPTER_BASE_FILE]
        download = partial(snapshot_download, str(adapters), revision=adapter_revision, allow_patterns=files)
        folder = Path(load_verified(download, adapters))
    _check_adapters(folder, str(adapters) if adapter_revision is None else f"{adapters}@{adapter_revision}")
    model = Nora15ForActionPrediction.from_pretrained(base, dtype=torch.float32, **kwargs)
    processor = Nora15Processor.from_pretrained(adapters, revision=adapter_revision)
    if processor.state_dim is not None and model.config.state_dim is None:
        model.add_state_input(processor.state_dim)
    adapted = PeftModel.from_pretrained(model, folder)
    AdapterBase.of(adapted).check(folder)
    return adapted.merge_and_unload(), processor


def _check_adapters(folder: Path, name: str) -> None:
    """Refuses adapters that peft would search for on the Hub, or whose error would name no file."""
    for file in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (folder / file).is_file():
            raise OSError(
                f"{name!r} has no {file}: adapters are {CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME}, as the trainer's "
                "save_model writes them. Save or download them again; a pickle instead of safetensors is refused."
            )
    read_json(folder / CONFIG_NAME)
    read_header(folder / SAFETENSORS_WEIGHTS_NAME, floats_only=False)


__all__ = ["load_merged_policy", "nf4_config", "policy_lora_config"]
