# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The base policy of adapters: stored next to them, and compared wherever adapters and a policy meet."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import torch
from peft import PeftModel, get_peft_model_state_dict

from ..repo_files.fingerprint import artefact_name, fingerprint
from ..repo_files.json_files import read_json, write_json

ADAPTER_BASE_FILE = "adapter_base.json"


@dataclass(frozen=True)
class AdapterBase:
    """
    The weights that adapters were put on, without modules that are saved whole beside them.

    Both digests are of values rounded to bfloat16, so that a base that was loaded in another precision is the same one.

    Args:
        name (`str`): Hub id of the base, or the name of its folder; empty for random weights.
        vectors (`str`): Digest of the norms and biases, which quantisation leaves as they are.
        matrices (`str`, *optional*): Digest of all other weights; `None` where some of them are quantised.
    """

    name: str
    vectors: str
    matrices: str | None

    @classmethod
    def of(cls, model: PeftModel) -> Self:
        """The base of a model with adapters."""
        weights = dict(_base_weights(model))
        vectors, matrices = (
            {name: weight for name, weight in weights.items() if (weight.ndim == 1) is is_vector}
            for is_vector in (True, False)
        )
        is_quantized = not all(weight.is_floating_point() for weight in weights.values())
        return cls(
            name=artefact_name(model.get_base_model().config.name_or_path or ""),
            vectors=fingerprint(vectors, rounded_to=torch.bfloat16),
            matrices=None if is_quantized else fingerprint(matrices, rounded_to=torch.bfloat16),
        )

    def save(self, folder: Path) -> None:
        """Writes it next to the adapters."""
        write_json(folder / ADAPTER_BASE_FILE, asdict(self))

    def check(self, adapters: Path) -> None:
        """
        Compares this base with the one that the adapters in a folder were trained on. Of adapters without a record, which
        other libraries wrote, nothing is known.

        Raises:
            ValueError: It is another one.
        """
        if not (adapters / ADAPTER_BASE_FILE).is_file():
            return
        content = read_json(adapters / ADAPTER_BASE_FILE)
        if content.keys() != {each.name for each in fields(self)}:
            raise ValueError(f"{adapters / ADAPTER_BASE_FILE} does not describe the base of adapters. Fetch it again.")
        trained_on = type(self)(**content)
        differing = [
            name
            for name in ("vectors", "matrices")
            if None not in (own := vars(self)[name], other := vars(trained_on)[name]) and own != other
        ]
        if differing:
            raise ValueError(
                f"The adapters in {adapters} were trained on {trained_on.name or 'a policy'!r} with other weights than those "
                f"of this base, {self.name or 'a policy'!r}: its {' and '.join(differing)} differ. On another base adapters "
                "give different actions from those that were trained. Pass the policy that their training started from."
            )


def _base_weights(model: PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights under the names that they have without adapters, except those that are saved with the adapters."""

    of_peft = {"base_model", "model", "base_layer", "original_module", "modules_to_save", *model.peft_config}

    def plain(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in of_peft)

    saved = {
        plain(name)
        for adapter in model.peft_config
        for name in get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    }
    for name, weight in model.named_parameters():
        if plain(name) not in saved:
            yield plain(name), weight


__all__ = ["ADAPTER_BASE_FILE", "AdapterBase"]
