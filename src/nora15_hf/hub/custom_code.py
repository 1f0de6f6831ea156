# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The code of a saved model or processor, for a repo that works without this package."""

from pathlib import Path

from transformers import PreTrainedModel, ProcessorMixin

from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..repo_files.flat_code import code_files
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from .artefacts import Artefact

__all__ = ["custom_code_files"]

_CLASSES: dict[Artefact, tuple[type[PreTrainedModel], type[ProcessorMixin]]] = {
    Artefact.POLICY: (Nora15ForActionPrediction, Nora15Processor),
    Artefact.WORLD_MODEL: (VJEPA2ACModel, VJEPA2ACProcessor),
}


def custom_code_files(folder: Path, artefact: Artefact) -> dict[str, bytes]:
    """
    What turns a saved folder into a repo with code: modules, and its two configurations with `auto_map`.

    The same files that `save_pretrained(..., with_code=True)` writes; the folder is left as it is.

    Args:
        folder (`Path`): Of a policy or a world model.
        artefact ([`Artefact`]): Which of the two.

    Returns:
        `dict[str, bytes]`: Path in the repo to content.

    Raises:
        ValueError: The artefact has no code of its own.
    """
    if artefact not in _CLASSES:
        raise ValueError(
            f"with_code is for {' and '.join(kind.value for kind in _CLASSES)} repos; a {artefact.value} is read without "
            "code of its own. Leave it out."
        )
    model, processor = _CLASSES[artefact]
    return code_files(
        folder,
        {
            "config.json": {"AutoConfig": model.config_class, "AutoModel": model},
            "processor_config.json": {"AutoProcessor": processor},
        },
    )
