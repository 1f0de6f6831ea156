# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Keeps transformers' pickle of the training arguments out of every saved folder and every upload."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import trainer as transformers_trainer


class NoPickledArgumentsMixin:
    """
    A trainer that leaves no `training_args.bin` anywhere.

    Nothing reads that file, which holds paths of the machine; opening a pickle can run any code, so that nobody should
    have to open one of a stranger. Stands before [`~transformers.Trainer`] or one of its subclasses among the bases.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict[str, nn.Parameter] | None = None) -> None:
        with _arguments_go_nowhere():
            super()._save(output_dir, state_dict)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # It writes the file anew, and sends it in the same call: too late for deleting it.
        with _arguments_go_nowhere():
            super()._push_from_checkpoint(checkpoint_folder)


@contextmanager
def _arguments_go_nowhere() -> Iterator[None]:
    # transformers has no option for it. Joined to a folder, an absolute path is the whole path.
    name, transformers_trainer.TRAINING_ARGS_NAME = transformers_trainer.TRAINING_ARGS_NAME, os.devnull
    try:
        yield
    finally:
        transformers_trainer.TRAINING_ARGS_NAME = name


__all__ = ["NoPickledArgumentsMixin"]
