# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
What the layers of a model compute, kept on request: `output_hidden_states` and `output_attentions`.

transformers keeps them with hooks, which stay on the layers after the first request: from then on a layer that is hooked
could no longer be run by reading its weights.
"""

from collections.abc import Mapping

import torch
from transformers.utils.output_capturing import resolve_hidden_states_indices, selected_hidden_states

Recorded = Mapping[str, list[torch.Tensor]]
"""The lists to fill, by the name of the output."""


def record(recorded: Recorded | None, name: str, tensor: torch.Tensor) -> None:
    """Keeps a tensor in the list of that name, where there is one."""
    if recorded is not None and name in recorded:
        recorded[name].append(tensor)


def recorded_outputs(
    recorded: Recorded, output_hidden_states: bool | int | list[int]
) -> dict[str, tuple[torch.Tensor | None, ...]]:
    """What was recorded, by name; of hidden states those that `output_hidden_states` selects, None in place of the others."""
    outputs = {name: tuple(tensors) for name, tensors in recorded.items()}
    selected = selected_hidden_states(output_hidden_states)
    for name, tensors in recorded.items():
        if name.endswith("hidden_states") and selected is not None:
            kept = resolve_hidden_states_indices(None, selected, len(tensors))
            outputs[name] = tuple(tensor if layer in kept else None for layer, tensor in enumerate(tensors))
    return outputs


__all__ = ["Recorded", "record", "recorded_outputs"]
