# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Memory that a computation asks for: the tensors that its operators return, at the worst moment.

What a library allocates inside of an operator is not counted, since that depends on the processor: oneDNN rearranges weights
for the instructions that it finds.
"""

import gc
import weakref
from collections.abc import Callable, Hashable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["largest_memory"]


class LargestMemory(TorchDispatchMode):
    """Bytes of live tensors made in this context, at the worst moment."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._held = 0
        self._known = WeakIdKeyDictionary(ref_type=weakref.ref)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for storage in _storages((args, kwargs)):
            # Those that are new here were there before this context: views of them are no memory either.
            self._known.setdefault(storage, True)
        result = function(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self._known:
                self._known[storage] = True
                self._held += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes())
        self.peak = max(self.peak, self._held)
        return result

    def _release(self, size: int) -> None:
        self._held -= size


def _storages(values) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def largest_memory(contestants: dict[Hashable, Callable[[], object]]) -> dict[Hashable, int]:
    """
    Bytes of tensors that each function makes and holds at its worst moment.

    Every function is called twice, so that what it keeps (gradients, optimizer state) is not counted.
    """
    found = {}
    for name, function in contestants.items():
        function()
        gc.collect()
        with LargestMemory() as memory:
            function()
        found[name] = memory.peak
    return found
