# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Everything between a robot's data and the policy: images, prompt, FAST tokens, units."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import BatchFeature, PreTrainedConfig, ProcessorMixin
from transformers.image_utils import load_image
from transformers.utils import cached_file, logging

from ..actions.fast_codec import FastActionTokenizer
from ..actions.normalization import (
    ActionStatistics,
    NormalizationMode,
    actions_to_deltas,
    deltas_to_actions,
    load_norm_stats,
    lost_values,
    normalize,
    save_norm_stats,
    select_dataset_key,
    unnormalize,
)
from ..embodiment.embodiment import Embodiment
from ..repo_files.checkpoint import Checkpoint
from ..repo_files.flat_code import write_code
from ..repo_files.one_commit import OneCommitPushMixin
from ..repo_files.stored_tensors import hub_options, inside_folder, stored_settings
from ..repo_files.verified_download import verified
from .image_processing_nora15 import CLIP_MEAN, CLIP_STD, as_uint8_tensor, images_to_patches, resize_lanczos3
from .released_processor import NORM_STATS_FILE, find_processor_sources, load_processor_parts, released_embodiments

logger = logging.get_logger(__name__)

IMAGE_TOKEN = "<|image_pad|>"
ACTION_CODEC_FOLDER = "action_codec"
STATE_LIMIT = 10.0
"""Normalised states are clipped there: further out, the policy has seen nothing in training."""
REMEMBERED_PROMPTS = 1_024
"""Then they are made anew: whoever asks a server chooses the instructions."""

ImageLike = Image.Image | np.ndarray | torch.Tensor


class Nora15Processor(OneCommitPushMixin, ProcessorMixin):
    r"""
    Makes the policy's inputs and turns its outputs back into physical units. It owns every convention a checkpoint
    needs, so that nothing has to be remembered beside it.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): With a chat template, `<|image_pad|>` and `<robot_action_i>` tokens.
        action_codec ([`FastActionTokenizer`]): Turns normalised chunks into FAST ids.
        norm_stats (`dict[str, ActionStatistics]`): Action statistics per dataset key.
        image_size (`int`, *optional*, defaults to 224): Images are resized to this square (Lanczos-3, antialiased).
        image_mean, image_std (`tuple[float, float, float]`): Per channel, for pixels in [0, 1].
        patch_size, temporal_patch_size, merge_size (`int`): Of the backbone's vision tower.
        chunk_size (`int`, *optional*, defaults to 5): Actions per chunk, H.
        action_dim (`int`, *optional*, defaults to 7): Dimensions of an action, A.
        normalization_mode (`str`, *optional*, defaults to `"q01_q99"`): Or `"min_max"`, `"mean_std"`.
        clip_actions (`bool`, *optional*, defaults to `False`): Clip normalised training actions to [-1, 1].
        delta_action_mask (`list[bool]` of length A, *optional*):
            Dimensions whose actions are trained as differences from the state at the start of the chunk (NORA-1.5's
            LeRobot training: all but the gripper). The statistics are then those of the differences, and `state` is
            needed wherever actions are normalised or un-normalised. By default no state is used.
        angle_action_mask (`list[bool]` of length A, *optional*):
            Those of `delta_action_mask` that are angles in radians from -pi to pi; their differences are wrapped to
            [-pi, pi), and so are the actions that come back.
        state_dim (`int`, *optional*):
            Width of the robot state that the policy reads (`config.state_dim`); `state` is then needed in every call. The
            released model reads none.
        state_stats (`dict[str, ActionStatistics]`, *optional*):
            State statistics per dataset key, which normalise the state as `norm_stats` do the actions.
        lowercase_instruction (`bool`, *optional*, defaults to `False`): As NORA's RLDS pipeline does.
        conventions (`dict`, *optional*):
            Per dataset key, what else the data was recorded with (renderer, crop, success rule ...).
        embodiments (`dict[str, Embodiment]`, *optional*):
            Per dataset key, the contract of the data that the policy was trained on: cameras, names and units of actions and
            state, gripper, control rate. [`~Nora15Processor.embodiment`] adds what this processor does to them.
        chat_template (`str`, *optional*): Overrides the tokenizer's.
    """

    def __init__(
        self,
        tokenizer=None,
        action_codec: FastActionTokenizer | None = None,
        norm_stats: dict[str, ActionStatistics] | None = None,
        image_size: int = 224,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        patch_size: int = 14,
        temporal_patch_size: int = 2,
        merge_size: int = 2,
        chunk_size: int = 5,
        action_dim: int = 7,
        normalization_mode: NormalizationMode = "q01_q99",
        clip_actions: bool = False,
        delta_action_mask: Sequence[bool] | None = None,
        angle_action_mask: Sequence[bool] | None = None,
        state_dim: int | None = None,
        state_stats: dict[str, ActionStatistics] | None = None,
        lowercase_instruction: bool = False,
        conventions: dict[str, dict[str, Any]] | None = None,
        embodiments: Mapping[str, Embodiment | Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
    ):
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)
        sizes = {"image_size": image_size, "patch_size": patch_size, "temporal_patch_size": temporal_patch_size}
        sizes |= {"merge_size": merge_size, "chunk_size": chunk_size, "action_dim": action_dim}
        sizes |= {} if state_dim is None else {"state_dim": state_dim}
        for name, size in sizes.items():
            _check(
                name,
                size,
                isinstance(size, Integral) and type(size) is not bool and size > 0,
                "a whole number above 0",
            )
        for name, numbers in {"image_mean": image_mean, "image_std": image_std}.items():
            is_std = name == "image_std"
            fits = _is_list_of(Real, numbers) and len(numbers) == 3 and (not is_std or min(numbers) > 0)
            _check(name, numbers, fits, f"three numbers{' above 0' if is_std else ''}, one for each colour")
        for name, flags in {"delta_action_mask": delta_action_mask, "angle_action_mask": angle_action_mask}.items():
            _check(name, flags, flags is None or _is_list_of(bool | np.bool_, flags), "a list of true and false")
            if flags is not None and len(flags) != action_dim:
                raise ValueError(f"{name} has {len(flags)} entries for action_dim={action_dim}; expected one each.")
        for name, flag in {"clip_actions": clip_actions, "lowercase_instruction": lowercase_instruction}.items():
            _check(name, flag, isinstance(flag, bool), "true or false")
        modes = get_args(NormalizationMode)
        _check("normalization_mode", normalization_mode, normalization_mode in modes, f"one of {', '.join(modes)}")
        for name, by_key in {"conventions": conventions, "embodiments": embodiments}.items():
            _check(name, by_key, isinstance(by_key or {}, Mapping), "an object with an entry for each dataset key")
        if image_size % (patch_size * merge_size):
            raise ValueError(
                f"image_size={image_size} must be a multiple of patch_size * merge_size = {patch_size * merge_size}."
            )
        self.action_codec = action_codec
        self.image_size = image_size
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.patch_size, self.temporal_patch_size, self.merge_size = patch_size, temporal_patch_size, merge_size
        self.chunk_size, self.action_dim = chunk_size, action_dim
        self.normalization_mode, self.clip_actions = normalization_mode, clip_actions
        self.delta_action_mask = None if delta_action_mask is None else list(delta_action_mask)
        if angle_action_mask is not None and delta_action_mask is None:
            raise ValueError(
                "angle_action_mask is given without delta_action_mask: only differences of angles are wrapped."
            )
        self.angle_action_mask = None if angle_action_mask is None else list(angle_action_mask)
        self.state_dim = state_dim
        self.lowercase_instruction = lowercase_instruction
        self.conventions = conventions or {}
        self.embodiments = {
            key: value
            if isinstance(value, Embodiment)
            else Embodiment.from_dict(value, f"embodiments[{key!r}] of the processor")
            for key, value in (embodiments or {}).items()
        }
        self.first_action_token_id = tokenizer.convert_tokens_to_ids("<robot_action_0>")
        self.set_norm_stats(norm_stats or {}, state_stats)
        # Dimensions of states, by dataset key, that a warning has named.
        self._odd_states: set[tuple[str, int]] = set()
        # Token ids of a prompt and of what follows the FAST tokens, by instruction and number of images.
        self._prompts: dict[tuple[str, int], tuple[list[int], list[int]]] = {}

    def set_norm_stats(
        self, norm_stats: dict[str, ActionStatistics], state_stats: dict[str, ActionStatistics] | None = None
    ) -> None:
        """
        Replaces the statistics of all dataset keys.

        Args:
            norm_stats (`dict[str, ActionStatistics]`): Of the actions, `action_dim` dimensions each.
            state_stats (`dict[str, ActionStatistics]`, *optional*):
                Of the state, `state_dim` dimensions each; for a processor with `state_dim`, and the same keys.

        Raises:
            ValueError: Statistics of another width, or a key with only one of the two.
        """
        if self.state_dim is None and state_stats:
            raise ValueError(
                f"state_stats has {sorted(state_stats)}, but state_dim is None: this policy reads no state. Omit them."
            )
        for name, stats_by_key, width in (
            ("norm_stats", norm_stats, self.action_dim),
            ("state_stats", state_stats or {}, self.state_dim),
        ):
            for key, statistics in stats_by_key.items():
                if len(statistics) != width:
                    raise ValueError(
                        f"{name}[{key!r}] describes {len(statistics)} dimensions, but "
                        f"{'action_dim' if name == 'norm_stats' else 'state_dim'}={width}. "
                        "Are they those of another robot? Pass those of the dataset that this policy is for."
                    )
        if self.state_dim is not None and set(state_stats or {}) != set(norm_stats):
            raise ValueError(
                f"state_stats has the keys {sorted(state_stats or {})} and norm_stats {sorted(norm_stats)}; with "
                f"state_dim={self.state_dim} every dataset needs statistics of its actions and of its state."
            )
        self.norm_stats = dict(norm_stats)
        self.state_stats = dict(state_stats or {})

    def embodiment(self, dataset_key: str | None = None) -> Embodiment:
        """
        The policy's contract for one of its dataset keys: what the data were, and what this processor does to them.

        Args:
            dataset_key (`str`, *optional*): May be omitted when there is only one.
        """
        key = select_dataset_key(self.norm_stats, dataset_key)
        relative = f", relative to the state: {self.delta_action_mask}" if self.delta_action_mask else ""
        angles = f", wrapped: {self.angle_action_mask}" if self.angle_action_mask else ""
        mode = self.normalization_mode
        recorded = self.embodiments.get(key, Embodiment())
        return replace(
            recorded,
            state_dim=recorded.state_dim if self.state_dim is None else self.state_dim,
            action_dim=self.action_dim,
            chunk_size=self.chunk_size,
            image_size=self.image_size,
            normalization=f"{mode}{', clipped' if self.clip_actions else ''}{relative}{angles}",
            action_statistics=self.norm_stats[key].fingerprint(mode),
            state_statistics=self.state_stats[key].fingerprint(mode) if self.state_dim is not None else None,
            instruction_format="lowercase" if self.lowercase_instruction else "as written",
        )

    def differences_from(self, config: PreTrainedConfig) -> list[str]:
        """Shapes and tokens that a model with that [`Nora15Config`] has otherwise, each with the numbers of both."""
        vision = config.vlm_config.vision_config
        pairs = {
            "chunk size": (config.chunk_size, self.chunk_size),
            "action dimension": (config.action_dim, self.action_dim),
            "state dimension": (config.state_dim, self.state_dim),
            "id of the first FAST token": (config.action_token_start_id, self.first_action_token_id),
            "number of FAST tokens": (config.num_action_tokens, self.action_codec.vocab_size),
            "patch size": (vision.patch_size, self.patch_size),
            "temporal patch size": (vision.temporal_patch_size, self.temporal_patch_size),
            "merge size": (vision.spatial_merge_size, self.merge_size),
        }
        return [
            f"{name}: the model has {one}, the processor {other}"
            for name, (one, other) in pairs.items()
            if one != other
        ]

    def check_model(self, config: PreTrainedConfig) -> None:
        """
        Raises:
            ValueError: A model with that [`Nora15Config`] belongs to another policy than this processor.
        """
        if differences := self.differences_from(config):
            raise ValueError(
                f"Model and processor belong to different policies: {'; '.join(differences)}. Load both from one repo."
            )

    def camera_names(self, dataset_key: str | None = None) -> tuple[str, ...] | None:
        """
        The cameras that the policy is shown, in their order; `None` where its repo does not name them.

        Without a key where there are several, the answer is only known when all have the same cameras.
        """
        orders = self._camera_orders(dataset_key)
        return orders[0] if orders is not None and len(orders) == 1 else None

    def _camera_orders(self, dataset_key: str | None) -> list[tuple[str, ...]] | None:
        """Every order of cameras of a key, or of all without one; `None` where the repo does not name those of each."""
        contracts = [
            self.embodiments.get(key) for key in ([dataset_key] if dataset_key is not None else self.norm_stats)
        ]
        if any(contract is None or contract.cameras is None for contract in contracts):
            return None
        return list(dict.fromkeys(tuple(contract.cameras) for contract in contracts))

    @property
    def needs_state(self) -> bool:
        """Whether `state` has to be given where a chunk is predicted: the policy reads it or counts actions from it."""
        return self.delta_action_mask is not None or self.state_dim is not None

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike] | Sequence[Sequence[ImageLike]],
        text: str | Sequence[str],
        actions: np.ndarray | torch.Tensor | None = None,
        action_mask: np.ndarray | torch.Tensor | None = None,
        state: np.ndarray | torch.Tensor | None = None,
        dataset_key: str | Sequence[str] | None = None,
        action_tokens: bool = True,
        pad_to_multiple_of: int | None = None,
        device: torch.device | str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Model inputs for one observation or a batch of them; with `actions` also the training targets.

        Args:
            images: One image (uint8 RGB, `(height, width, 3)` or PIL) per text, or the cameras of each text: a dictionary by
                their names, or a list in the order of training. With a single `text` a list is that observation's cameras.
            text (`str` or `list[str]`): The instruction(s).
            actions (`np.ndarray` or `torch.Tensor` of shape `(batch, chunk_size, action_dim)`, *optional*):
                Demonstrated chunks in physical units; `(chunk_size, action_dim)` with a single text.
            action_mask (bool array of shape `(batch, chunk_size)`, *optional*):
                False on padded steps. Chunks with padding get no FAST tokens, which have no way to leave a step out.
            state (`np.ndarray` or `torch.Tensor` of shape `(batch, S)`, *optional*):
                Robot state at the start of each chunk, physical units; needed with `state_dim`, and with
                `delta_action_mask` where `actions` are given. Otherwise it is not used.
            dataset_key (`str` or `list[str]`, *optional*):
                Whose statistics normalise `actions` and `state`; may be omitted when the checkpoint has only one.
            action_tokens (`bool`, *optional*, defaults to `True`):
                Append the FAST tokens of `actions` and their `labels`; False for training by flow matching alone.
            pad_to_multiple_of (`int`, *optional*):
                Pad the prompts to a multiple of this length, so that training meets few different shapes.
            device (`torch.device` or `str`, *optional*):
                Where the result lies. Resized images go there as bytes and become patches, eight times as many bytes, on the
                device.
            return_tensors (`str`): Only `"pt"`.

        Returns:
            `BatchFeature` with `input_ids`, `attention_mask` (left-padded), `pixel_values`, `image_grid_thw`, and with
            `actions` also `labels`, `actions` (normalised) and `action_mask`; with `state_dim` `state` (normalised).
        """
        if return_tensors != "pt":
            raise ValueError(f'return_tensors={return_tensors!r}: the policy takes PyTorch tensors, pass "pt".')
        texts, cameras = self._as_batch(images, text)
        cameras = self._in_training_order(cameras, dataset_key)
        flat_images = [camera for row in cameras for camera in row]
        pixel_values, image_grid_thw = self._process_camera_images(flat_images, device)
        rows = [self.prompt_ids(instruction, len(row)) for instruction, row in zip(texts, cameras, strict=True)]
        answers = None
        features = {}
        if actions is not None:
            chunks, mask = self._normalized_chunks(actions, action_mask, state, dataset_key, len(texts))
            features.update(actions=chunks, action_mask=mask)
            if action_tokens:
                answers = self._action_token_answers(rows, chunks, mask)
        features.update(self._pad_prompts([prompt for prompt, _ in rows], answers, pad_to_multiple_of))
        if self.state_dim is not None:
            features["state"] = self.normalize_state(state, dataset_key, len(texts))
        features.update(pixel_values=pixel_values, image_grid_thw=image_grid_thw)
        return BatchFeature(features) if device is None else BatchFeature(features).to(device)

    def prompt_ids(self, instruction: str, num_images: int = 1) -> tuple[list[int], list[int]]:
        """Token ids of the prompt of an instruction, and of what closes the assistant's turn behind the FAST tokens."""
        key = (instruction, num_images)
        if key not in self._prompts:
            if not instruction.strip():
                raise ValueError("text is empty: the policy needs an instruction, for example 'open the faucet'.")
            markers = [token for token in self.tokenizer.get_added_vocab() if token in instruction]
            if markers:
                raise ValueError(
                    f"text {instruction!r} contains the special token(s) {markers}, which would be read as part of the structure of "
                    "the prompt. Remove them from the instruction."
                )
            if self.lowercase_instruction:
                instruction = instruction.lower()
            rendered = self._render(instruction, num_images)
            if len(self._prompts) == REMEMBERED_PROMPTS:
                self._prompts.clear()
            self._prompts[key] = tuple(map(self._token_ids, rendered))
        return self._prompts[key]

    def _render(self, instruction: str, num_images: int) -> tuple[str, str]:
        """The prompt that the chat template renders for an instruction and its images, and what follows the FAST tokens."""
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": instruction}]
        conversation = [{"role": "user", "content": content}]
        render = {"tokenize": False, "chat_template": self.chat_template}
        answer = "<robot_action_0>"
        try:
            prompt = self.tokenizer.apply_chat_template(conversation, add_generation_prompt=True, **render)
            conversation.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
            complete = self.tokenizer.apply_chat_template(conversation, **render)
        except TemplateError as error:
            raise ValueError(f"The chat template is damaged or incomplete ({error}). Download it again.") from error
        if not complete.startswith(prompt + answer):
            raise ValueError(
                "The chat template renders a prompt that is not a prefix of the complete conversation, so training "
                "and inference would see different prompts. Use Qwen's template or a similar one."
            )
        closing = complete.split(answer)[-1]
        shown = prompt.count(IMAGE_TOKEN)
        if instruction.strip() not in prompt or shown != num_images or not closing.strip():
            raise ValueError(
                f"The chat template renders {shown} image(s) of {num_images}, {'the' if instruction in prompt else 'no'} "
                f"instruction and {closing!r} as the end of the answer. Use Qwen's template or a similar one."
            )
        return prompt, closing

    def _check_template(self, source: str) -> None:
        """
        Refuses a damaged chat template; one that makes no prompts for the policy is warned about, and refused when it is used.
        """
        # Several templates are for other uses than prompts.
        if not isinstance(self.chat_template, str):
            return
        try:
            self._render("probe", 1)
        except ValueError as error:
            if isinstance(error.__cause__, TemplateError):
                raise
            logger.warning(f"{source!r} has a chat template that cannot be used for prompts. {error}")

    def _token_ids(self, rendered: str) -> list[int]:
        """Ids of what a chat template rendered, with as many image tokens as an image has."""
        tokens_per_image = (self.image_size // self.patch_size // self.merge_size) ** 2
        rendered = rendered.replace(IMAGE_TOKEN, IMAGE_TOKEN * tokens_per_image)
        return self.tokenizer(rendered, add_special_tokens=False)["input_ids"]

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]] | list[list[dict[str, Any]]],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        **kwargs,
    ) -> str | list[str] | torch.LongTensor | BatchFeature:
        """
        As [`~transformers.ProcessorMixin.apply_chat_template`], for text and images.

        Args:
            conversation (`list[dict]` or a list of them):
                Messages with `content` of the types `"text"` and `"image"`; an image is under `"image"`, as in `__call__`, or
                under `"url"` or `"path"`.
            tokenize (`bool`, *optional*, defaults to `False`): Whether to return model inputs instead of the text.
            return_dict (`bool`, *optional*, defaults to `False`):
                With `tokenize`, all model inputs, as `__call__` returns them, instead of `input_ids` alone.
            chat_template (`str`, *optional*), kwargs:
                As in transformers. Rows are padded on the left, and never cut off; there is no mask of the assistant's
                tokens: training targets come from `__call__(actions=...)`.

        Raises:
            ValueError: The prompt has another number of images than the conversation, or such an option is given.
        """
        without_effect = (
            "return_assistant_tokens_mask",
            "truncation",
            "max_length",
            "padding_side",
            "processor_kwargs",
        )
        given = [name for name in without_effect if kwargs.get(name)]
        if given:
            raise ValueError(
                f"{given} of apply_chat_template would have no effect: rows are padded on the left and never truncated, and "
                "training targets come from processor(images=..., text=..., actions=...). Omit them."
            )
        rendered = super().apply_chat_template(conversation, chat_template, **kwargs)
        if not tokenize:
            return rendered
        prompts = [rendered] if isinstance(rendered, str) else rendered
        conversations = [conversation] if isinstance(rendered, str) else conversation
        images = [
            image
            for messages in conversations
            for message in messages
            if not isinstance(message["content"], str)
            for part in message["content"]
            for image in [part.get("image", part.get("url", part.get("path")))]
            if part["type"] == "image" and image is not None
        ]
        expected = sum(prompt.count(IMAGE_TOKEN) for prompt in prompts)
        if expected != len(images):
            raise ValueError(
                f"The chat template renders {expected} image(s), but the conversation has {len(images)}: give each part of "
                'the type "image" its image as "image", "url" or "path".'
            )
        features = self._pad_prompts([self._token_ids(prompt) for prompt in prompts], None, None)
        if not return_dict:
            return features["input_ids"]
        if images:
            images = [load_image(image) if isinstance(image, str) else image for image in images]
            features["pixel_values"], features["image_grid_thw"] = self._process_camera_images(images, None)
        return BatchFeature(features)

    def unnormalize_actions(
        self,
        actions: np.ndarray | torch.Tensor,
        dataset_key: str | None = None,
        state: np.ndarray | torch.Tensor | None = None,
    ) -> np.ndarray | torch.Tensor:
        """
        Normalised actions `(..., action_dim)` in the physical units of `dataset_key`, as the same kind of array.

        With `delta_action_mask` the state `(batch, S)` or `(S,)` at the start of the chunk turns differences back into
        absolute actions.
        """
        key = select_dataset_key(self.norm_stats, dataset_key)
        physical = unnormalize(actions, self.norm_stats[key], self.normalization_mode)
        if self.delta_action_mask is None:
            return physical
        return deltas_to_actions(physical, self._required_state(state), self.delta_action_mask, self.angle_action_mask)

    def normalize_actions(
        self,
        actions: np.ndarray | torch.Tensor,
        dataset_key: str | None = None,
        state: np.ndarray | torch.Tensor | None = None,
    ) -> np.ndarray | torch.Tensor:
        """Physical actions `(..., action_dim)` in the policy's units; the inverse of `unnormalize_actions`."""
        key = select_dataset_key(self.norm_stats, dataset_key)
        if self.delta_action_mask is not None:
            actions = actions_to_deltas(
                actions, self._required_state(state), self.delta_action_mask, self.angle_action_mask
            )
        return normalize(actions, self.norm_stats[key], self.normalization_mode, clip=self.clip_actions)

    @staticmethod
    def _required_state(state: np.ndarray | torch.Tensor | None) -> np.ndarray | torch.Tensor:
        if state is None:
            raise ValueError(
                "state is missing: this policy reads the robot's state (state_dim), or its actions are differences from "
                "the state at the start of the chunk (delta_action_mask). Pass state=..., (batch, S), in physical units."
            )
        return state

    def decode_action_tokens(
        self, token_ids: Sequence[Sequence[int]], on_invalid: str = "mask"
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        FAST ids of `generate_actions` as normalised actions.

        Args:
            token_ids (`list[list[int]]`): Ids without the vocabulary's offset.
            on_invalid (`str`): `"mask"`, `"raise"` or `"relaxed"`, see [`FastActionTokenizer.decode`].

        Returns:
            actions `(batch, chunk_size, action_dim)` float64, and valid `(batch,)` bool: False where the ids do not
            spell a chunk.
        """
        return self.action_codec.decode(token_ids, self.chunk_size, self.action_dim, on_invalid=on_invalid)

    def _as_batch(self, images, text) -> tuple[list[str], list[list[ImageLike]]]:
        """Texts and, for each, the list of its cameras."""
        if images is None:
            raise TypeError("images is None: the policy needs at least one image per instruction.")
        if isinstance(text, str):
            texts, rows = [text], [images]
        else:
            if not isinstance(text, Sequence) or not all(isinstance(instruction, str) for instruction in text):
                raise TypeError(f"text is {text!r}, expected an instruction or a list of instructions (str).")
            texts = list(text)
            if isinstance(images, Mapping):
                raise ValueError(
                    f"images is one dictionary, of {list(images)}, for {len(texts)} texts in a list; expected a list with a "
                    "dictionary of cameras for each."
                )
            if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
                images = list(images)
            if isinstance(images, ImageLike) or len(images) != len(texts):
                found = "one image" if isinstance(images, ImageLike) else f"{len(images)} entries"
                raise ValueError(
                    f"images has {found} for {len(texts)} texts; expected one image or list of cameras each."
                )
            rows = images
        cameras = [
            [row] if isinstance(row, ImageLike) else row if isinstance(row, Mapping) else list(row) for row in rows
        ]
        if not cameras or not all(cameras):
            raise ValueError("text is empty or an instruction has no image: each needs at least one.")
        return texts, cameras

    def _in_training_order(
        self, cameras: Sequence[list[ImageLike] | Mapping[str, ImageLike]], dataset_key: str | Sequence[str] | None
    ) -> list[list[ImageLike]]:
        """
        The pictures of each row in the order of training.

        Raises:
            ValueError: Another number of them, a camera that is missing, or one that the policy was not trained on.
        """
        keys = [dataset_key] * len(cameras)
        if dataset_key is not None and not isinstance(dataset_key, str):
            # Too few of them are refused where statistics are looked up.
            keys = [*dataset_key, *[None] * len(cameras)]
        ordered = []
        for row, key in zip(cameras, keys, strict=False):
            if key is not None:
                select_dataset_key(self.norm_stats, key)
            orders = self._camera_orders(key)
            by_name = isinstance(row, Mapping)
            shown = f"the cameras {list(row)}" if by_name else f"{len(row)} picture(s)"
            if not orders:
                if by_name and len(row) > 1:
                    raise ValueError(
                        f"images names {shown}, but this policy's repo does not say which cameras it was trained on. Pass a "
                        "list in the order of training, or complete processor.embodiments."
                    )
                ordered.append(list(row.values()) if by_name else row)
                continue
            fitting = [names for names in orders if (set(names) == set(row) if by_name else len(names) == len(row))]
            if not fitting:
                known = ", or on ".join(f"{len(names)} camera(s): {', '.join(names)}" for names in orders)
                raise ValueError(
                    f"images has {shown}, but the policy was trained on {known}. Pass each of these and no other."
                )
            if by_name and len(fitting) > 1:
                raise ValueError(
                    f"images has {shown}, which the policy was trained on in several orders: pass the dataset_key, one of "
                    f"{', '.join(map(repr, self.norm_stats))}."
                )
            ordered.append([row[name] for name in fitting[0]] if by_name else row)
        return ordered

    def _process_camera_images(
        self, images: list[ImageLike], device: torch.device | str | None
    ) -> tuple[torch.FloatTensor, torch.LongTensor]:
        tensors = [as_uint8_tensor(image) for image in images]
        shapes = {tensor.shape for tensor in tensors}
        if len(shapes) == 1:
            resized = resize_lanczos3(torch.stack(tensors), self.image_size)
        else:
            resized = torch.cat([resize_lanczos3(tensor[None], self.image_size) for tensor in tensors])
        return images_to_patches(
            resized.to(device=device),
            self.image_mean,
            self.image_std,
            self.patch_size,
            self.temporal_patch_size,
            self.merge_size,
        )

    def _normalized_chunks(
        self, actions, action_mask, state, dataset_key, batch: int
    ) -> tuple[torch.FloatTensor, torch.BoolTensor]:
        actions = torch.as_tensor(actions, dtype=torch.float32)
        if actions.ndim == 2:
            actions = actions[None]
        expected = (batch, self.chunk_size, self.action_dim)
        if tuple(actions.shape) != expected:
            raise ValueError(
                f"actions has shape {tuple(actions.shape)}, expected (batch, chunk_size, action_dim) = {expected}."
            )
        mask = torch.ones(expected[:2], dtype=torch.bool) if action_mask is None else torch.as_tensor(action_mask)
        if mask.dtype != torch.bool or mask.numel() != expected[0] * expected[1]:
            raise ValueError(
                f"action_mask has shape {tuple(mask.shape)} and dtype {mask.dtype}, expected bool (batch, chunk_size) = "
                f"{expected[:2]}, False on padded steps."
            )
        mask = mask.view(expected[:2])
        if not mask.any(-1).all():
            raise ValueError(
                f"action_mask is False on every step of chunk(s) {(~mask.any(-1)).nonzero().flatten().tolist()}: there is "
                "nothing to learn from. Remove them from the batch."
            )
        if dataset_key is None or isinstance(dataset_key, str):
            return self.normalize_actions(actions, dataset_key, state), mask
        normalized = torch.empty_like(actions)
        for key, rows in self._rows_by_key(dataset_key, batch).items():
            row_state = None if state is None else torch.as_tensor(state)[rows]
            normalized[rows] = self.normalize_actions(actions[rows], key, row_state)
        return normalized, mask

    def normalize_state(
        self, state: np.ndarray | torch.Tensor | None, dataset_key: str | Sequence[str] | None, batch: int
    ) -> torch.FloatTensor:
        """
        What the policy reads of the robot's state.

        A robot is not stopped by a state that training did not know: a dimension that was constant there reads 0, others are
        clipped to [-10, 10], and a warning names the dimension once.

        Args:
            state (`np.ndarray` or `torch.Tensor` of shape `(batch, state_dim)`): Physical units.
            dataset_key (`str` or `list[str]`, *optional*): Whose statistics normalise it, see `__call__`.
            batch (`int`): How many states are expected.

        Returns:
            `torch.FloatTensor` of shape `(batch, state_dim)`.
        """
        state = torch.as_tensor(np.asarray(self._required_state(state), dtype=np.float32))
        if state.ndim == 1:
            state = state[None]
        if tuple(state.shape) != (batch, self.state_dim):
            raise ValueError(
                f"state has shape {tuple(state.shape)}, expected (batch, state_dim) = {(batch, self.state_dim)}."
            )
        if not state.isfinite().all():
            raise ValueError("state holds NaN or infinity, and so would every action.")
        if dataset_key is None or isinstance(dataset_key, str):
            dataset_key = [select_dataset_key(self.state_stats, dataset_key)] * batch
        normalized = torch.empty_like(state)
        for key, rows in self._rows_by_key(dataset_key, batch).items():
            key = select_dataset_key(self.state_stats, key)
            statistics = self.state_stats[key]
            read = normalize(state[rows], statistics, self.normalization_mode, lossy=True)
            clipped = torch.where(
                torch.from_numpy(statistics.mask.copy()), read.clamp(-STATE_LIMIT, STATE_LIMIT), read
            )
            lost = lost_values(state[rows], statistics, self.normalization_mode)
            self._warn_of_states(key, state[rows], lost, "It was constant in training, so the policy reads 0.")
            self._warn_of_states(
                key, state[rows], clipped != read, f"After normalisation it is clipped to {STATE_LIMIT:g}."
            )
            normalized[rows] = clipped
        return normalized

    def _warn_of_states(self, key: str, states: torch.Tensor, odd: torch.BoolTensor, consequence: str) -> None:
        """Names each dimension once in which a state is odd."""
        for dimension in odd.any(0).nonzero().flatten().tolist():
            if (key, dimension) not in self._odd_states:
                self._odd_states.add((key, dimension))
                logger.warning(
                    f"Dimension {dimension} of the state is {states[odd[:, dimension], dimension][0].item():.6g}, unlike in the "
                    f"training data {key!r}. {consequence} This warning is shown once."
                )

    @staticmethod
    def _rows_by_key(dataset_key: Sequence[str], batch: int) -> dict[str, torch.BoolTensor]:
        """Which rows of a batch belong to each dataset key."""
        if len(dataset_key) != batch:
            raise ValueError(f"dataset_key has {len(dataset_key)} entries for {batch} texts; expected one each.")
        return {key: torch.tensor([row_key == key for row_key in dataset_key]) for key in dict.fromkeys(dataset_key)}

    def _action_token_answers(
        self, rows: list[tuple[list[int], list[int]]], actions: torch.FloatTensor, mask: torch.BoolTensor
    ) -> list[list[int]]:
        """What the assistant answers: the FAST tokens and what closes its turn; nothing for a chunk with padding."""
        encoded = self.action_codec.encode(actions)
        return [
            [token + self.first_action_token_id for token in tokens] + closing if complete else []
            for (_, closing), tokens, complete in zip(rows, encoded, mask.all(-1).tolist(), strict=True)
        ]

    def _pad_prompts(
        self, prompts: list[list[int]], answers: list[list[int]] | None, multiple: int | None
    ) -> dict[str, torch.Tensor]:
        """Prompts and, when there are any, answers in one row each; labels on everything from the answer on."""
        if multiple is not None and multiple < 1:
            raise ValueError(f"pad_to_multiple_of={multiple} must be at least 1.")
        sequences = prompts
        if answers is not None:
            sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        length = max(map(len, sequences))
        if multiple is not None:
            length = -(-length // multiple) * multiple
        features = {
            "input_ids": self._pad_to(sequences, length, self.tokenizer.pad_token_id),
            "attention_mask": self._pad_to([[1] * len(sequence) for sequence in sequences], length, 0),
        }
        if answers is not None:
            labels = [[-100] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
            features["labels"] = self._pad_to(labels, length, -100)
        return features

    @staticmethod
    def _pad_to(sequences: list[list[int]], length: int, value: int) -> torch.LongTensor:
        """Left-padded: a prompt then ends where generation begins."""
        return torch.tensor([[value] * (length - len(sequence)) + sequence for sequence in sequences])

    @property
    def model_input_names(self) -> list[str]:
        names = ["input_ids", "attention_mask", "pixel_values", "image_grid_thw"]
        return names if self.state_dim is None else [*names, "state"]

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` holds: everything but tokenizer, codec and statistics, which have own files."""
        codec, self.action_codec = self.action_codec, None
        try:
            output = super().to_dict()
        finally:
            self.action_codec = codec
        output["embodiments"] = {key: embodiment.to_dict() for key, embodiment in self.embodiments.items()}
        return {
            key: value for key, value in output.items() if key not in ("action_codec", "norm_stats", "state_stats")
        }

    def to_json_string(self) -> str:
        """Sorted like `ProcessorMixin`'s, but for the cameras of `embodiments`, whose order is that of the policy's images."""
        return json.dumps(dict(sorted(self.to_dict().items())), indent=2) + "\n"

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, with_code: bool = False, **kwargs
    ) -> list[str]:
        """
        `ProcessorMixin.save_pretrained`, with the FAST codec in `action_codec/` and `norm_stats.json`.

        `with_code=True` also writes the modules that define the processor, and `auto_map`, so that
        `AutoProcessor.from_pretrained(..., trust_remote_code=True)` works without this package.
        """
        if push_to_hub:
            raise ValueError("save_pretrained(push_to_hub=True) would leave out the FAST codec: call push_to_hub().")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.action_codec.save_pretrained(folder / ACTION_CODEC_FOLDER)
        save_norm_stats(folder / NORM_STATS_FILE, self.norm_stats, self.state_stats)
        for settings in (vars(self), self.tokenizer.init_kwargs):
            settings.pop("auto_map", None)
        written = super().save_pretrained(str(folder), **kwargs)
        if with_code:
            write_code(folder, {"processor_config.json": {"AutoProcessor": type(self)}})
        return written

    @classmethod
    @verified
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        tokenizer_source: str | os.PathLike | None = None,
        action_codec_source: str | os.PathLike | None = None,
        norm_stats_source: str | os.PathLike | None = None,
        **kwargs,
    ) -> "Nora15Processor":
        """
        `ProcessorMixin.from_pretrained`; codec and statistics come from the same repo and revision.

        Checkpoints as the authors publish them have no processor. For those the parts are collected: the tokenizer and
        the statistics from the repo when it has them, else from `declare-lab/nora`; the FAST codec from
        `physical-intelligence/fast`. What was used is logged as a warning.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub id or folder.
            tokenizer_source, action_codec_source, norm_stats_source (`str` or `os.PathLike`, *optional*):
                Other repos or folders for the parts of a released processor; the statistics may be a JSON file.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder`; for a released
                checkpoint also what the constructor takes, as `chunk_size=1` for `declare-lab/nora`.

        Raises:
            OSError: A file is missing, or arrived damaged twice.
            ValueError: A part is damaged, statistics have another length than `action_dim`, the tokenizer is not NORA's,
                or a source was given for a repo that has its own processor.
        """
        options = hub_options(kwargs)
        settings = stored_settings(pretrained_model_name_or_path, "processor_config.json", **options)
        sources = {
            "tokenizer_source": tokenizer_source,
            "action_codec_source": action_codec_source,
            "norm_stats_source": norm_stats_source,
        }
        if settings.get("processor_class") != cls.__name__:
            checkpoint = Checkpoint(pretrained_model_name_or_path, options)
            tokenizer, codec, norm_stats = load_processor_parts(
                checkpoint, find_processor_sources(checkpoint, **sources)
            )
            settings = {"embodiments": released_embodiments(norm_stats)} | kwargs
            return cls(
                tokenizer, codec, norm_stats, **{key: value for key, value in settings.items() if key not in options}
            )
        given = [name for name, source in sources.items() if source is not None]
        if given:
            raise ValueError(
                f"{given} are for checkpoints without a processor, but {str(pretrained_model_name_or_path)!r} has one. "
                "Replace its parts after loading, for example with processor.set_norm_stats(...)."
            )
        codec = FastActionTokenizer.from_pretrained(
            pretrained_model_name_or_path,
            **inside_folder(
                {key: value for key, value in options.items() if key != "force_download"}, ACTION_CODEC_FOLDER
            ),
        )
        stats_file = cached_file(pretrained_model_name_or_path, NORM_STATS_FILE, **options)
        try:
            processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
            processor._check_template(str(pretrained_model_name_or_path))
        except ValueError as error:
            raise ValueError(
                f"The processor in {str(pretrained_model_name_or_path)!r} cannot be used: {str(error).rstrip('.')}. Correct or fetch "
                "again its processor_config.json, chat_template.jinja or the files of its tokenizer, whichever holds that."
            ) from error
        # Not as arguments: ProcessorMixin would hand them on to the tokenizer, which then cannot be saved.
        processor.action_codec = codec
        state_stats = None if processor.state_dim is None else load_norm_stats(stats_file, "proprio")
        processor.set_norm_stats(load_norm_stats(stats_file), state_stats)
        unknown = sorted(processor.norm_stats.keys() - processor.embodiments.keys())
        if unknown:
            logger.warning(
                f"{str(pretrained_model_name_or_path)!r} does not say which cameras, actions and states its dataset keys "
                f"{unknown} stand for, so nothing can be checked against them. Set processor.embodiments and save it again."
            )
        return processor


def _check(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"{name} is {value!r}, expected {expected}.")


def _is_list_of(kind: Any, values: Any) -> bool:
    return isinstance(values, list | tuple | np.ndarray) and all(isinstance(value, kind) for value in values)


__all__ = ["Nora15Processor"]
