# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Image preprocessing of V-JEPA 2-AC in plain torch."""

import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BatchFeature, ProcessorMixin

from ..repo_files.flat_code import write_code
from ..repo_files.one_commit import OneCommitPushMixin
from ..repo_files.verified_download import verified


class VJEPA2ACProcessor(OneCommitPushMixin, ProcessorMixin):
    r"""
    Turns uint8 camera frames into the `pixel_values` of [`VJEPA2ACModel`]: central crop to an allowed aspect ratio,
    bilinear resize without antialiasing, normalisation (`facebookresearch/vjepa2`, `app/vjepa_droid/transforms.py`;
    NORA-1.5, `training/post_training`). Other resizers, also transformers' own V-JEPA 2 video processor, give other
    latents.

    Args:
        size (`int`, *optional*, defaults to 256):
            Side of the square that the model sees, in pixels; the encoder's `crop_size`.
        image_mean (`list[float]`, *optional*, defaults to ImageNet's), image_std (`list[float]`, *optional*, same):
            Statistics of the channels, in [0, 1].
        min_aspect_ratio (`float`, *optional*, defaults to 1.0), max_aspect_ratio (`float`, *optional*, same):
            A frame whose width/height lies outside is cropped centrally until it does, then squeezed to the square.
            1 and 1 keep the central square (NORA-1.5); 0.75 and 1.35 are what DROID's 16:9 training frames got.

    Example:

    ```python
    >>> import numpy as np
    >>> from nora15_hf import VJEPA2ACProcessor

    >>> processor = VJEPA2ACProcessor(size=84)
    >>> processor(np.zeros((8, 90, 160, 3), dtype=np.uint8))["pixel_values"].shape
    torch.Size([1, 8, 3, 84, 84])
    ```
    """

    def __init__(
        self,
        size: int = 256,
        image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406),
        image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225),
        min_aspect_ratio: float = 1.0,
        max_aspect_ratio: float = 1.0,
    ):
        super().__init__()
        if not (isinstance(size, Integral) and not isinstance(size, bool) and size > 0):
            raise ValueError(f"`size`={size!r} must be a positive number of pixels.")
        ratios = (min_aspect_ratio, max_aspect_ratio)
        if not all(isinstance(ratio, Real) and not isinstance(ratio, bool) for ratio in ratios):
            raise ValueError(f"`min_aspect_ratio` and `max_aspect_ratio` are {ratios}, expected numbers.")
        if not 0 < min_aspect_ratio <= 1 <= max_aspect_ratio:
            raise ValueError(
                f"`min_aspect_ratio`={min_aspect_ratio} and `max_aspect_ratio`={max_aspect_ratio} must enclose 1, so "
                "that a square frame is not cropped."
            )
        triples = [isinstance(each, list | tuple) and len(each) == 3 for each in (image_mean, image_std)]
        if not (
            all(triples)
            and all(isinstance(number, Real) and not isinstance(number, bool) for number in (*image_mean, *image_std))
            and min(image_std) > 0
        ):
            raise ValueError(
                f"`image_mean`={image_mean} and `image_std`={image_std} must hold three numbers each, the latter "
                "positive."
            )
        self.size = size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.min_aspect_ratio = min_aspect_ratio
        self.max_aspect_ratio = max_aspect_ratio

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values"]

    def __call__(self, images: torch.Tensor | np.ndarray | list, return_tensors: str | None = None) -> BatchFeature:
        """
        Args:
            images (uint8 `torch.Tensor` or `np.ndarray`, or nested lists of images):
                `(height, width, 3)`, one frame; `(T, height, width, 3)`, one clip; `(B, T, height, width, 3)`, clips.
                Work is done on the tensor's device.
            return_tensors (`str`, *optional*): Only `"pt"`, which is the default.

        Returns:
            `BatchFeature` with `pixel_values` `(B, T, 3, size, size)`, float32; B and T are 1 where they were absent.

        Raises:
            ValueError: Images of several sizes, another shape, other `return_tensors`.
            TypeError: Anything but uint8 (a float image may be scaled in several ways; none is guessed).
        """
        if return_tensors not in (None, "pt"):
            raise ValueError(f'return_tensors={return_tensors!r}: the world model takes PyTorch tensors, pass "pt".')
        if not isinstance(images, torch.Tensor):
            try:
                images = torch.from_numpy(np.ascontiguousarray(np.asarray(images)))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    "`images` does not form one array: its images differ in size, or its clips in length. Process "
                    "images of different sizes in separate calls."
                ) from error
        if images.dtype != torch.uint8:
            raise TypeError(f"`images` is {images.dtype}, expected uint8 with values 0 to 255. Do not rescale images.")
        if images.ndim not in (3, 4, 5) or images.shape[-1] != 3 or images.numel() == 0:
            raise ValueError(
                f"`images` has shape {tuple(images.shape)}, expected (height, width, 3), (T, height, width, 3) or "
                "(B, T, height, width, 3) with the channels last and none of them empty."
            )
        clips = images[(None,) * (5 - images.ndim)]
        images = clips.flatten(0, 1).movedim(-1, 1).float()

        height, width = images.shape[-2:]
        crop_height, crop_width = height, width
        if width / height > self.max_aspect_ratio:
            crop_width = round(self.max_aspect_ratio * height)
        elif width / height < self.min_aspect_ratio:
            crop_height = round(width / self.min_aspect_ratio)
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        images = images[:, :, top : top + crop_height, left : left + crop_width]

        images = nn.functional.interpolate(images, size=(self.size, self.size), mode="bilinear", align_corners=False)
        mean = 255 * torch.tensor(self.image_mean, device=images.device)
        std = 255 * torch.tensor(self.image_std, device=images.device)
        images = (images - mean[:, None, None]) / std[:, None, None]
        return BatchFeature({"pixel_values": images.unflatten(0, clips.shape[:2])})

    @classmethod
    @verified
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "VJEPA2ACProcessor":
        """As [`~transformers.ProcessorMixin.from_pretrained`]; downloads are compared with their checksums."""
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, with_code: bool = False, **kwargs
    ) -> list[str]:
        """
        As [`~transformers.ProcessorMixin.save_pretrained`].

        `with_code=True` also writes the module that defines the processor, and `auto_map`, so that
        `AutoProcessor.from_pretrained(..., trust_remote_code=True)` works without this package.
        """
        if push_to_hub and with_code:
            raise ValueError(
                "save_pretrained(push_to_hub=True) would leave out the code: call push_to_hub(with_code=True)."
            )
        vars(self).pop("auto_map", None)
        written = super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        if with_code:
            write_code(Path(save_directory), {"processor_config.json": {"AutoProcessor": type(self)}})
        return written


__all__ = ["VJEPA2ACProcessor"]
