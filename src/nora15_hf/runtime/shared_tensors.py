# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Tensors that several processes compute together and then all have."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from ..repo_files.written_whole import written_whole
from .prepared_ahead import Item, Prepared, PreparedAhead
from .shared_work import ProcessPlace, SharedWork


@dataclass(frozen=True)
class SharedTensors:
    """
    Computes one thing after the other, alone or through a folder in which each process finds what the others have computed, see
    [`SharedWork`].

    Attributes:
        folder (`Path`, *optional*): Seen by all processes, and used for nothing else than this run's tensors; alone without one.
        place ([`ProcessPlace`]): Which of them this is.
    """

    folder: Path | None = None
    place: ProcessPlace = field(default_factory=ProcessPlace)

    def computed(
        self,
        name: str,
        items: Sequence[Item],
        prepare: Callable[[Item], Prepared],
        compute: Callable[[Prepared], dict[str, torch.Tensor]],
        *,
        num_workers: int = 0,
        device: torch.device | None = None,
        unit: str = "batch",
        progress: bool = False,
    ) -> list[dict[str, torch.Tensor]]:
        """
        What is computed of each item.

        Args:
            name (`str`): What it is; of the files and of the progress bar.
            items (`Sequence`), prepare (`Callable`), num_workers (`int`, *optional*), device (`torch.device`, *optional*):
                See [`PreparedAhead`].
            compute (`Callable`): Of what was prepared; the same on every process, tensors on the CPU.
            unit (`str`, *optional*, defaults to `"batch"`), progress (`bool`, *optional*, defaults to `False`): Of the bar.

        Raises:
            RuntimeError, ValueError: What `prepare` or `compute` raised; through a folder the message names the file.
        """
        with tqdm(total=len(items), desc=name, unit=unit, disable=not (progress and self.place.is_main)) as bar:
            if self.folder is None:
                results = []
                for prepared in PreparedAhead(prepare, items, num_workers=num_workers, device=device).take(
                    0, len(items)
                ):
                    results.append(compute(prepared))
                    bar.update()
                return results

            def make(file: Path, prepared: Iterator[Prepared]) -> None:
                tensors = compute(*prepared)
                with written_whole(file, process=self.place.index) as part:
                    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part)

            files = [self.folder / f"{name}-{number:05d}.safetensors" for number in range(len(items))]
            work = SharedWork(files, self.place)
            work.run(
                prepare,
                make,
                {file.name: [item] for file, item in zip(files, items, strict=True)},
                num_workers=num_workers,
                device=device,
                after_each=lambda: bar.update(work.num_made() - bar.n),
            )
            return [load_file(file) for file in files]


__all__ = ["SharedTensors"]
