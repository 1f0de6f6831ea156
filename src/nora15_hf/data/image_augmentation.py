# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Random crops and colours of training images, in the DataLoader's workers and without torchvision."""

import math
import zlib
from dataclasses import dataclass

import numpy as np
import torch

_LUMINANCE = np.array([0.299, 0.587, 0.114])
# NTSC: one axis of brightness, two of colour, in which a change of hue is a rotation.
_TO_YIQ = np.array([_LUMINANCE, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True)
class ImageAugmentation:
    r"""
    What varies between two looks at the same training image.

    Crop and colours are drawn once per sample and are the same for all of its cameras, as one lamp lights them all. The
    draw depends on `seed`, epoch and sample only, so that neither workers, processes nor an interruption change it.

    Args:
        crop_scale (`float`, *optional*, defaults to 0.9):
            Smallest share of the image's area that is kept; shares are drawn between it and 1, positions anywhere, and
            the processor resizes the crop as it does the whole image. The whole image stays in the distribution, so that
            nothing has to be cropped at inference. 1 switches crops off.
        brightness, contrast, saturation (`float`, *optional*, default to 0.2):
            Factors are drawn from `[1 - x, 1 + x]`; 0 switches one off.
        hue (`float`, *optional*, defaults to 0.05): Largest rotation of the colours, as a share of the full circle.
        seed (`int`, *optional*, defaults to 0): Of all draws.
    """

    crop_scale: float = 0.9
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale={self.crop_scale} must lie in (0, 1]: the kept share of the image's area.")
        for name, largest in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            value = vars(self)[name]
            if not 0 <= value <= largest:
                raise ValueError(f"{name}={value} must lie between 0 and {largest}.")
        # Shared with workers that outlive an epoch; a plain number would stay as it was when they were started.
        object.__setattr__(self, "_epoch", torch.zeros((), dtype=torch.int64).share_memory_())

    def set_epoch(self, epoch: int) -> None:
        """Other draws for another pass over the data; the trainer calls it."""
        self._epoch.fill_(epoch)

    def __call__(self, images: list[np.ndarray], dataset_key: str, index: int) -> list[np.ndarray]:
        """
        Args:
            images (`list[np.ndarray]`): uint8 `(height, width, 3)`, the cameras of one sample.
            dataset_key (`str`), index (`int`): Which sample it is, `Sample["dataset_key"]` and `Sample["index"]`.

        Returns:
            `list[np.ndarray]`: uint8, cropped and recoloured.
        """
        random = np.random.default_rng([self.seed, int(self._epoch), zlib.crc32(dataset_key.encode()), index])
        side = math.sqrt(random.uniform(self.crop_scale, 1.0))
        position = random.uniform(size=2)
        brightness, contrast, saturation = (
            random.uniform(1 - spread, 1 + spread) for spread in (self.brightness, self.contrast, self.saturation)
        )
        colours = _colour_matrix(saturation, random.uniform(-self.hue, self.hue)) * brightness
        return [_recolour(_crop(image, side, position), colours, contrast) for image in images]


def _crop(image: np.ndarray, side: float, position: np.ndarray) -> np.ndarray:
    size = np.maximum(np.round(np.array(image.shape[:2]) * side), 1).astype(int)
    top, left = np.floor(position * (image.shape[:2] - size + 1)).astype(int)
    return image[top : top + size[0], left : left + size[1]]


def _colour_matrix(saturation: float, hue: float) -> np.ndarray:
    """The matrix that changes saturation and hue of RGB columns; grey is unchanged."""
    cosine, sine = saturation * math.cos(2 * math.pi * hue), saturation * math.sin(2 * math.pi * hue)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return _FROM_YIQ @ rotation @ _TO_YIQ


def _recolour(image: np.ndarray, colours: np.ndarray, contrast: float) -> np.ndarray:
    pixels = image.astype(np.float32) @ colours.T.astype(np.float32)
    # Contrast is relative to the image's own mean brightness.
    mean = (pixels @ _LUMINANCE.astype(np.float32)).mean()
    return np.rint(mean + contrast * (pixels - mean)).clip(0, 255).astype(np.uint8)


__all__ = ["ImageAugmentation"]
