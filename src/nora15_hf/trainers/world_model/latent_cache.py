# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Latents of a dataset's frames on disk: made once by the frozen encoder, read through memory maps ever after."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from ...clips.episode_clips import EpisodeClips
from ...data.dataset_fingerprint import dataset_fingerprint
from ...repo_files.fingerprint import fingerprint
from ...repo_files.written_whole import written_whole
from ...runtime.shared_work import ProcessPlace, SharedWork
from ...vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from ..cache_folder import computation_settings, open_cache_folder

LATENT_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CachedLatents:
    """
    Latents of one episode. No file stays open between reads, so that the object can be sent to data-loading workers.

    Args:
        file (`Path`): The episode's file.

    Raises:
        ValueError: The file is damaged.
    """

    def __init__(self, file: Path):
        self.file = file
        try:
            with safe_open(file, "pt") as content:
                self._num_frames = content.get_slice("latents").get_shape()[0]
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}). Remove it; the episode is then encoded again.") from error

    def __len__(self) -> int:
        return self._num_frames

    def __getitem__(self, frames: int | slice) -> torch.Tensor:
        """Float32 `(P, D)` of one frame, or `(frames, P, D)` of a slice."""
        with safe_open(self.file, "pt") as content:
            return content.get_slice("latents")[frames].float()


class LatentCache:
    """
    A folder with one safetensors file per episode, and `cache.json`, which says what the latents were made from.

    An episode's file appears whole or not at all: an interrupted build continues where it stopped. Files are written
    only for episodes that are asked for, so that splits of one dataset share a folder.

    Args:
        folder (`str` or `Path`): Created when it does not exist.
        settings (`Mapping[str, str]`): What the latents depend on, see [`cache_settings`].

    Raises:
        ValueError: The folder holds latents that were made from something else; the message says what differs.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, str]):
        self.dtype = LATENT_DTYPES[settings["dtype"]]
        self.folder = open_cache_folder(folder, settings, contents="latents", option="latent_cache_dir")

    def build(
        self,
        clips: EpisodeClips,
        encode_frames: Callable[[torch.Tensor], torch.Tensor],
        *,
        place: ProcessPlace | None = None,
        num_workers: int = 0,
        device: torch.device | None = None,
    ) -> None:
        """
        Encodes the episodes whose file is missing; several processes that call it share them out, see [`SharedWork`].

        Args:
            clips ([`EpisodeClips`]): The episodes.
            encode_frames (callable): Takes uint8 `(F, height, width, 3)`, returns latents `(F, P, D)`.
            place ([`ProcessPlace`], *optional*): Which of several processes this is.
            num_workers (`int`, *optional*, defaults to 0), device (`torch.device`, *optional*):
                Processes that decode frames ahead, and where these go, see [`PreparedAhead`].
        """
        indices = clips.dataset.episodes["index"].tolist()
        work = SharedWork([self._file(index) for index in indices], place)

        def make(file: Path, frames: Iterator[torch.Tensor]) -> None:
            latents = encode_frames(*frames).to(self.dtype)
            with written_whole(file, process=work.place.index) as part:
                save_file({"latents": latents.contiguous()}, part)

        made = work.num_made()
        silent = made == len(indices) or not work.place.is_main
        with tqdm(total=len(indices), initial=made, desc="latents", unit="episode", disable=silent) as bar:
            work.run(
                clips.episode_frames,
                make,
                {file.name: [episode] for episode, file in enumerate(work.files)},
                num_workers=num_workers,
                device=device,
                after_each=lambda: bar.update(work.num_made() - bar.n),
            )

    def read(self, clips: EpisodeClips) -> EpisodeClips:
        """The clips with their cached latents in the place of frames."""
        indices = clips.dataset.episodes["index"].tolist()
        return clips.with_latents([CachedLatents(self._file(index)) for index in indices])

    def _file(self, episode_index: int) -> Path:
        return self.folder / f"episode-{episode_index:06d}.safetensors"


def cache_settings(
    clips: EpisodeClips, model: VJEPA2ACModel, processor: VJEPA2ACProcessor, dtype: str, compute: str
) -> dict[str, str]:
    """
    What cached latents depend on, by name.

    Args:
        clips ([`EpisodeClips`]): Their dataset and camera.
        model ([`VJEPA2ACModel`]): Its encoder's weights and configuration.
        processor ([`VJEPA2ACProcessor`]): Its sizes and statistics.
        dtype (`str`): In which latents are stored, `"float32"` or `"bfloat16"`.
        compute (`str`): In which they are computed, accelerate's mixed precision.
    """
    return {
        "camera": clips.conventions.image_key,
        "compute": compute,
        "dataset": dataset_fingerprint(clips.dataset),
        "dtype": dtype,
        "encoder": fingerprint(model.encoder.state_dict()),
        "encoder_config": computation_settings(model.config.encoder_config),
        "processor": json.dumps(processor.to_dict(), sort_keys=True),
    }


__all__ = ["LATENT_DTYPES", "CachedLatents", "LatentCache", "cache_settings"]
