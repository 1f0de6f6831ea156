# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The code of a saved model or processor, for a repo that works without this package."""

import inspect
import json
from pathlib import Path

from transformers import PreTrainedModel, ProcessorMixin
from transformers.dynamic_module_utils import get_relative_import_files

from ..nora15 import modeling_nora15, processing_nora15
from ..vjepa2_ac import modeling_vjepa2_ac, processing_vjepa2_ac
from .artefacts import Artefact, read_json

__all__ = ["custom_code_files"]

_CLASSES: dict[Artefact, tuple[type[PreTrainedModel], type[ProcessorMixin]]] = {
    Artefact.POLICY: (modeling_nora15.Nora15ForActionPrediction, processing_nora15.Nora15Processor),
    Artefact.WORLD_MODEL: (modeling_vjepa2_ac.VJEPA2ACModel, processing_vjepa2_ac.VJEPA2ACProcessor),
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
    files = _modules(model) | _modules(processor)
    classes: dict[str, dict[str, type]] = {
        "config.json": {"AutoConfig": model.config_class, "AutoModel": model},
        "processor_config.json": {"AutoProcessor": processor},
    }
    for name, auto_classes in classes.items():
        if (folder / name).is_file():
            auto_map = {auto_class: _reference(found) for auto_class, found in auto_classes.items()}
            files[name] = _json_bytes(read_json(folder / name) | {"auto_map": auto_map})
    return files


def _modules(defined: type) -> dict[str, bytes]:
    module = Path(inspect.getfile(defined))
    return {path.name: path.read_bytes() for path in (module, *map(Path, get_relative_import_files(module)))}


def _reference(defined: type) -> str:
    return f"{defined.__module__.rpartition('.')[2]}.{defined.__name__}"


def _json_bytes(content: dict) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
