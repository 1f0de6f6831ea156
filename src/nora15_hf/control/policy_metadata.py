# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The metadata of a policy: for a simulator or robot that it must fit, and for readers of its results."""

import platform
from importlib.metadata import version
from typing import Any

from ..actions.normalization import select_dataset_key
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..repo_files.fingerprint import artefact_name, fingerprint
from .chunk_samplers import ChunkSampler, FlowSampler

METADATA_KEYS = (
    "policy", "policy_revision", "policy_fingerprint", "dataset_key", "dataset_keys", "chunk_size", "action_dim", "needs_state",
    "dtype", "device", "decoder", "solver", "num_steps", "temperature", "contract", "conventions", "versions",
)  # fmt: skip
"""Keys of [`policy_metadata`]; a server adds more."""
PACKAGES = ("nora15_hf", "torch", "transformers", "diffusers", "tokenizers", "numpy")


def policy_metadata(
    model: Nora15ForActionPrediction,
    processor: Nora15Processor,
    *,
    dataset_key: str | None = None,
    sampler: ChunkSampler | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """
    Everything of a policy that decides which actions follow from an observation and a noise key.

    Args:
        model ([`Nora15ForActionPrediction`]), processor ([`Nora15Processor`]): The policy.
        dataset_key (`str`, *optional*): Of its statistics; may be omitted when there is only one.
        sampler (`ChunkSampler`, *optional*): How chunks are sampled; by flow matching by default.
        revision (`str`, *optional*): Commit of its repo.

    Returns:
        `dict[str, Any]`: Plain JSON values: `policy` (Hub id, or the folder's name), `policy_revision`, `policy_fingerprint` (of
        the weights), `dataset_key`, `dataset_keys`, `chunk_size`, `action_dim`, `needs_state`, `dtype`, `device`, `decoder`
        (`"flow"` or `"fast"`), `solver` and `num_steps` (of the flow, `None` with FAST tokens), `temperature` (of FAST tokens
        that are drawn; of the flow's noise, `None` for 1), `contract` ([`Embodiment.to_dict`]), `conventions` (what the policy's data was recorded with) and
        `versions` (package to version).

    Raises:
        ValueError: An unknown dataset key, or several and no choice.
    """
    key = select_dataset_key(processor.norm_stats, dataset_key)
    sampler = sampler or FlowSampler()
    is_flow = isinstance(sampler, FlowSampler)
    return {
        "policy": artefact_name(model.config.name_or_path),
        "policy_revision": revision,
        "policy_fingerprint": fingerprint(model.state_dict()),
        "dataset_key": key,
        "dataset_keys": list(processor.norm_stats),
        "chunk_size": model.config.chunk_size,
        "action_dim": model.config.action_dim,
        "needs_state": processor.needs_state,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "decoder": "flow" if is_flow else "fast",
        "solver": type(model.scheduler).__name__ if is_flow else None,
        "num_steps": (sampler.num_steps or model.config.num_inference_steps) if is_flow else None,
        # A flow at 1 samples as it was trained; that is not named, as in results from before there was a choice.
        "temperature": None if is_flow and sampler.temperature == 1 else vars(sampler).get("temperature"),
        "contract": processor.embodiment(key).to_dict(),
        "conventions": processor.conventions.get(key, {}),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
    }


__all__ = ["METADATA_KEYS", "policy_metadata"]
