# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Loading a model completely or not at all, where transformers completes a checkpoint with random numbers."""

from typing import Any, Self

from .checkpoint import Checkpoint
from .verified_download import verified


class StrictLoadingMixin:
    """Stands before [`~transformers.PreTrainedModel`] among the bases of a model class."""

    @classmethod
    @verified
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        As [`~transformers.PreTrainedModel.from_pretrained`], but a checkpoint that lacks a weight, holds one that the
        model does not know, or one of another shape is an error; so is such a `state_dict`, unless it is empty, which
        gives a model with initial weights. What is downloaded is compared with its checksums, see [`load_verified`].

        Raises:
            OSError: The repo has no safetensors files, or lacks one of them, or a download arrived damaged twice.
            ValueError: Another model or adapters, a truncated file, or weights that are not exactly the model's; the message
                lists the difference. Or there is neither a checkpoint nor what replaces it.
        """
        checkpoint = Checkpoint.of_arguments(pretrained_model_name_or_path, kwargs)
        if checkpoint.source is not None:
            checkpoint.refuse_other_model(cls.config_class.model_type)
        model, info = cls._load_strictly(checkpoint, *args, **kwargs)
        return (model, info) if output_loading_info else model

    @classmethod
    def _load_strictly(cls, checkpoint: Checkpoint, *args, **kwargs) -> tuple[Self, dict[str, Any]]:
        """The model and transformers' loading info."""
        source, state_dict = checkpoint.source, kwargs.get("state_dict")
        if source is None and (state_dict is None or kwargs.get("config") is None):
            raise ValueError(
                "from_pretrained(None) creates a model from weights in memory: pass both config=... and state_dict=..., or the "
                "name of a repo or folder in place of None."
            )
        if state_dict is None:
            # Found before transformers looks: for a repo with nothing but a pickle it takes weights from a pull request of
            # its conversion bot, and in a folder it falls back to the pickle. Its message about a truncated file names no file.
            checkpoint.check_complete()
        kwargs["use_safetensors"] = True
        model, info = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        problems = {name: sorted(map(str, info[f"{name}_keys"])) for name in ("missing", "unexpected", "mismatched")}
        # Nothing at all is what an empty state dict asks for.
        if any(problems.values()) and (state_dict is None or state_dict):
            found = "; ".join(f"{len(keys)} {name}: {keys[:5]}" for name, keys in problems.items() if keys)
            raise ValueError(
                f"The weights in {checkpoint.name} are not those of {cls.__name__}: {found}. Nothing was loaded. "
                "Check that the configuration belongs to these weights; an original checkpoint has to be converted first."
            )
        return model, info


__all__ = ["StrictLoadingMixin"]
