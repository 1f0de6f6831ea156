# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Compiled forms of the parts of inference, for the shapes they were warmed up with."""

import bisect
from collections.abc import Callable, Hashable
from types import FunctionType

import torch


def _copy_of(function: FunctionType) -> FunctionType:
    """The same function with its own code object: dynamo stores compiled graphs with the code object and searches all of them."""
    return FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


class CompiledParts:
    r"""
    Pure functions of tensors and their compiled forms. Weights are arguments, so that a change of them is seen.

    A part runs compiled only with the very shapes, dtypes and device of its warm-up, which is what `torch.compile` would look
    at; comparing a few numbers here takes microseconds, where its own guards would look at every weight in every call.
    """

    def __init__(self):
        self._functions: dict[tuple[Hashable, ...], Callable] = {}
        self._prompt_lengths: dict[int, list[int]] = {}
        self.is_warming_up = False

    def __deepcopy__(self, memo) -> "CompiledParts":
        # Compiled code belongs to the weights that it was made with.
        return CompiledParts()

    def __reduce__(self):
        return CompiledParts, ()

    def find(self, function: Callable, *signature: Hashable) -> Callable:
        """
        The compiled form of a function, or the function itself where it has not been warmed up.

        Args:
            function (`Callable`): Whose control flow depends on the signature only.
            signature (`Hashable`): All that differs between two calls and is not the content of a tensor.
        """
        key = (function, *signature)
        if key not in self._functions and self.is_warming_up:
            # Another compilation of the same function would be a re-compilation, of which dynamo allows a few.
            self._functions[key] = torch.compile(
                _copy_of(function),
                fullgraph=True,
                dynamic=False,
                options={
                    "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
                    # The operators of a small expert are as short as a step of Python between them.
                    "size_asserts": False,
                },
            )
        return self._functions.get(key, function)

    def add_prompt_length(self, batch: int, length: int) -> None:
        """Remembers that prompts of that length have been warmed up."""
        lengths = self._prompt_lengths.setdefault(batch, [])
        if length not in lengths:
            bisect.insort(lengths, length)

    def padded_length(self, batch: int, length: int) -> int:
        """The shortest length of at least `length` that has been warmed up, or `length` itself when there is none."""
        longer = [known for known in self._prompt_lengths.get(batch, []) if known >= length]
        return longer[0] if longer else length


__all__ = ["CompiledParts"]
