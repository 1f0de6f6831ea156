# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Names for what the backbone reads from preference rows, formed without decoding their images."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, Image, List
from transformers import ProcessorMixin

from ...repo_files.fingerprint import digest

_IMAGE_FIELDS = ("image_size", "image_mean", "image_std", "patch_size", "temporal_patch_size", "merge_size")


class Prompt(NamedTuple):
    """A prompt's name, a digest of its images and tokens, and its length in tokens."""

    name: str
    length: int


def name_prompts(dataset: Dataset, processor: ProcessorMixin) -> list[Prompt]:
    """
    What the backbone reads of each row, without decoding images. Rows of one state have one prompt.

    Args:
        dataset ([`~datasets.Dataset`]): Preference rows, with `images` and `instruction`.
        processor ([`Nora15Processor`]): Makes the tokens.
    """
    prompts = []
    token_ids: dict[tuple[str, int], list[int]] = {}
    for row in stored_images(dataset, ["images", "instruction"]):
        key = row["instruction"], len(row["images"])
        if key not in token_ids:
            token_ids[key] = processor.prompt_ids(*key)[0]
        # Of each image a digest of its own: otherwise two images could be the same bytes as one.
        images = (hashlib.blake2b(image).digest() for image in row["images"])
        name = digest([json.dumps(token_ids[key]).encode(), *images])
        prompts.append(Prompt(name, len(token_ids[key])))
    return prompts


def stored_images(dataset: Dataset, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The named columns of each row, `images` among them as the bytes of their files, which are not decoded."""
    for row in dataset.select_columns(list(columns)).cast_column("images", List(Image(decode=False))):
        yield row | {"images": [image["bytes"] or Path(image["path"]).read_bytes() for image in row["images"]]}


def image_settings(processor: ProcessorMixin) -> str:
    """What of a [`Nora15Processor`] decides how images become the backbone's inputs, as JSON."""
    return json.dumps({name: getattr(processor, name) for name in _IMAGE_FIELDS})


__all__ = ["Prompt", "image_settings", "name_prompts"]
