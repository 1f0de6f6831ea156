# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Camera images to Qwen2.5-VL patches, as tensor operations on whole batches and on any device."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def as_uint8_tensor(image: Image.Image | np.ndarray | torch.Tensor, name: str = "images") -> torch.Tensor:
    """
    One camera image as uint8 `(3, height, width)`; refuses everything whose meaning would have to be guessed.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): RGB; arrays are uint8 `(height, width, 3)`.
        name (`str`): How error messages call it.

    Raises:
        ValueError, TypeError: For other modes, dtypes or layouts, and for empty images.
    """
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise ValueError(f'{name} has PIL mode {image.mode!r}, expected "RGB". Call image.convert("RGB") first.')
        image = np.array(image)
    if isinstance(image, np.ndarray):
        # PyTorch takes neither negative strides nor, without a warning, read-only memory.
        image = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"{name} is a {type(image).__name__}, expected a PIL image, NumPy array or torch tensor.")
    if image.dtype != torch.uint8:
        raise TypeError(
            f"{name} has dtype {image.dtype}, expected uint8 in 0 ... 255. For floats in [0, 1] pass "
            "(image * 255).round().astype(np.uint8)."
        )
    if image.ndim != 3 or image.shape[-1] != 3:
        hint = ""
        if image.ndim == 3 and image.shape[0] == 3:
            hint = " It looks like channels first: transpose to (height, width, 3)."
        elif image.ndim == 3 and image.shape[-1] == 4:
            hint = " Drop the alpha channel: image[..., :3]."
        elif image.ndim == 2 or image.shape[-1] == 1:
            hint = " A grey image must be repeated to three channels."
        raise ValueError(f"{name} has shape {tuple(image.shape)}, expected (height, width, 3).{hint}")
    if image.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(image.shape)}: the image has no pixels.")
    return image.permute(2, 0, 1)


def resize_lanczos3(images: torch.Tensor, size: int) -> torch.Tensor:
    """
    `tf.image.resize(method="lanczos3", antialias=True)`, rounded and clipped: the resize NORA was trained with.

    Interpolates in float32; on uint8, PyTorch and Pillow round between their two passes and differ by up to 20 levels
    at hard edges.

    Args:
        images (`torch.Tensor` of shape `(batch, 3, height, width)`): uint8.
        size (`int`): Height and width of the result.

    Returns:
        `torch.Tensor` of shape `(batch, 3, size, size)`, uint8.
    """
    if images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images.float(), size=(size, size), mode="lanczos", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def images_to_patches(
    images: torch.Tensor,
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
    patch_size: int = 14,
    temporal_patch_size: int = 2,
    merge_size: int = 2,
) -> tuple[torch.FloatTensor, torch.LongTensor]:
    """
    Normalised, flattened patches in the order Qwen2.5-VL expects: merged groups of `merge_size ** 2` stand together.

    Args:
        images (`torch.Tensor` of shape `(batch, 3, size, size)`): uint8, square.

    Returns:
        pixel_values `(batch * grid ** 2, 3 * temporal_patch_size * patch_size ** 2)` float32, image_grid_thw
        `(batch, 3)`.
    """
    batch, channels, size, _ = images.shape
    grid = size // patch_size
    shift = torch.tensor(mean, device=images.device).view(3, 1, 1)
    scale = torch.tensor(std, device=images.device).view(3, 1, 1)
    pixels = (images.float() / 255 - shift) / scale
    groups = grid // merge_size
    patches = pixels.view(batch, channels, groups, merge_size, patch_size, groups, merge_size, patch_size)
    patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(batch * grid * grid, channels, 1, patch_size**2)
    # A still image fills both frames of the temporal patch.
    patches = patches.expand(-1, -1, temporal_patch_size, -1).reshape(batch * grid * grid, -1)
    return patches, torch.tensor([[1, grid, grid]], device=images.device).expand(batch, 3).contiguous()


__all__ = ["CLIP_MEAN", "CLIP_STD", "as_uint8_tensor", "images_to_patches", "resize_lanczos3"]
