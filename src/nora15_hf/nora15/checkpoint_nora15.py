# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How a policy is loaded, completely or not at all, and saved, with its flow scheduler."""

import os
from pathlib import Path

import torch
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from ..repo_files.checkpoint import Checkpoint
from ..repo_files.flat_code import write_code
from ..repo_files.stored_tensors import stored_settings
from ..repo_files.verified_download import verified
from .configuration_nora15 import Nora15Config
from .flow_schedulers import load_flow_scheduler, save_flow_scheduler
from .quantization import backbone_quantization, refuse_repacked_weights
from .released_checkpoint import check_tensors, has_expert, is_native, native_name, released_config


class PolicyCheckpointMixin:
    """`from_pretrained` and `save_pretrained` of [`Nora15ForActionPrediction`]."""

    @classmethod
    @verified
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        See [`Nora15PreTrainedModel.from_pretrained`]; also loads the repo's flow scheduler and generation configuration.

        With `quantization_config=BitsAndBytesConfig(...)` only the backbone's language layers are quantised, see
        [`backbone_quantization`].

        A repo as the authors publish it (`declare-lab/nora-1.5`), which has weights but no configuration, is recognised:
        it gets the released configuration, or the `config` passed, and the default scheduler. Every tensor's name and
        shape is compared with the safetensors header before memory is allocated. The values of every checkpoint are
        searched for NaN and infinity, which costs one pass over the weights. What is downloaded is compared with its
        checksums, see [`load_verified`].

        Raises:
            ValueError: The weights are damaged, not finite, or not exactly those of the configuration.
            OSError: The repo has no safetensors files, or a download arrived damaged twice.
        """
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = backbone_quantization(kwargs["quantization_config"])
        checkpoint = Checkpoint.of_arguments(pretrained_model_name_or_path, kwargs)
        in_memory = checkpoint.source is None
        native = not in_memory and is_native(checkpoint)
        if not native and not in_memory:
            kwargs["config"] = cls._checked_config(checkpoint, kwargs.get("config"))
        generation_config = kwargs.pop("generation_config", None)
        model, info = cls._load_strictly(checkpoint, *args, **kwargs)
        if native:
            model.scheduler = load_flow_scheduler(checkpoint.source, **checkpoint.hub_options)
            stored = stored_settings(checkpoint.source, GENERATION_CONFIG_NAME, **checkpoint.hub_options)
            # Repos of earlier versions have none; the model made its own, of the backbone's configuration.
            if generation_config is None and stored:
                try:
                    generation_config = GenerationConfig.from_dict(stored)
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        f"{GENERATION_CONFIG_NAME} of {checkpoint.name} cannot be used: {error}. Correct it, or remove it: the policy "
                        "then has that of its backbone."
                    ) from error
        if generation_config is not None:
            model.generation_config = generation_config
        model._check_values(checkpoint.name)
        return (model, info) if output_loading_info else model

    @classmethod
    def expected_shapes(cls, config: Nora15Config) -> dict[str, torch.Size]:
        """Shapes of all weights by name, without allocating any."""
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in cls(config).state_dict().items()}

    @classmethod
    def _checked_config(cls, checkpoint: Checkpoint, config: Nora15Config | None) -> Nora15Config:
        """The configuration of a released checkpoint, after comparing all names and shapes with it."""
        source, tensors = str(checkpoint.source), checkpoint.tensors
        if not has_expert(tensors):
            raise ValueError(
                f"{source!r} has no action expert, none of its {len(tensors)} tensors is called action_expert.*: it "
                "is a backbone or another model. To start a policy from a backbone, convert it: "
                f"nora15 convert {source} --init-expert 0 --output my-policy"
            )
        config = released_config(tensors) if config is None else config
        found = {native_name(name): tensor.shape for name, tensor in tensors.items()}
        check_tensors(found, cls.expected_shapes(config), source, config.tie_word_embeddings)
        return config

    def _check_values(self, source: str) -> None:
        """Refuses what only the values show: NaN, infinity, an LM head that is not the embedding it is tied to."""
        embedding, head = self.get_input_embeddings().weight, self.vlm.lm_head.weight
        if self.config.tie_word_embeddings and head is not embedding:
            raise ValueError(
                f"vlm.lm_head.weight in {source} differs from the embedding that it should be tied to: the "
                "checkpoint mixes two versions. Drop vlm.lm_head.weight from it if the embedding is the right one."
            )
        # The extremes are NaN when any value is, and need no temporary copy of the tensor.
        broken = [
            name
            for name, parameter in self.named_parameters()
            if parameter.is_floating_point()
            # Weights that live on disk or, with ZeRO-3, on another process.
            and parameter.device.type != "meta"
            and parameter.numel()
            and not all(extreme.isfinite() for extreme in parameter.detach().aminmax())
        ]
        if broken:
            raise ValueError(
                f"{len(broken)} tensor(s) in {source} hold NaN or infinity: {broken[:5]}. The checkpoint is "
                "damaged or its training diverged; take another one."
            )

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        with_code: bool = False,
        save_original_format: bool = False,
        **kwargs,
    ) -> None:
        """
        `PreTrainedModel.save_pretrained`, with the flow scheduler in `scheduler/`.

        Args:
            save_directory (`str` or `os.PathLike`): Made if missing.
            with_code (`bool`, *optional*, defaults to `False`):
                Also write the modules that define the model, and `auto_map`, so that
                `AutoModel.from_pretrained(..., trust_remote_code=True)` works without this package.
            save_original_format (`bool`, *optional*, defaults to `False`): Only `False`, where transformers' default is `True`.
        """
        # transformers would write the backbone under the key names of Qwen2.5-VL's first release. Those are not the released
        # policy's, and Trainer, which resumes with strict=False, would silently keep a random backbone.
        if save_original_format:
            raise ValueError(
                "save_original_format=True would write the backbone under the names of Qwen2.5-VL's first release, which no "
                "policy has. Omit it: the weights are written under the names of the released policy."
            )
        if push_to_hub:
            raise ValueError(
                "save_pretrained(push_to_hub=True) would leave out scheduler/: call push_to_hub(repo_id)."
            )
        refuse_repacked_weights(self)
        if is_main_process:
            save_flow_scheduler(self.scheduler, save_directory, self.config.num_inference_steps)
            vars(self.config).pop("auto_map", None)
        super().save_pretrained(save_directory, is_main_process=is_main_process, save_original_format=False, **kwargs)
        if with_code and is_main_process:
            write_code(
                Path(save_directory), {"config.json": {"AutoConfig": type(self.config), "AutoModel": type(self)}}
            )


__all__ = ["PolicyCheckpointMixin"]
