# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether modules are exactly those for which code that reads their weights, instead of calling them, was written."""

from collections.abc import Mapping
from itertools import repeat
from types import FunctionType, MethodType

from torch import nn
from torch.nn.modules import module as torch_modules
from transformers import PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Kind = type | tuple
"""A type of module; `(type, ...)`, an `nn.ModuleList` of it; `(type, type)`, an `nn.Sequential`; `nn.Parameter`."""

LIBRARY_MODULES: dict[type[nn.Module], dict[str, Kind]] = {
    nn.Linear: {"weight": nn.Parameter, "bias": nn.Parameter},
    nn.LayerNorm: {"weight": nn.Parameter, "bias": nn.Parameter},
    nn.Conv3d: {"weight": nn.Parameter, "bias": nn.Parameter},
    nn.Embedding: {"weight": nn.Parameter},
    nn.GELU: {},
    nn.Identity: {},
    nn.Dropout: {},
}
"""Those of PyTorch, in the form that [`KnownModules`] takes."""


class KnownModules:
    r"""
    Types of modules, and what each consists of.

    A module is known when it has exactly such a type, no subclass, and exactly such submodules, all known, and such
    parameters, all in memory; when no forward hook, of its own or of all modules, would be called; when nothing replaced
    `forward` on its type, nor any method on the object; and when it is not compiled. So adapters, wrappers, quantisation,
    parametrisation, pruning, sharding and offloading are found, and whatever else puts itself between a weight and its use
    in one of these ways. Backward hooks do nothing without gradients and do not count.

    Nothing is remembered from one question to the next, since a hook can be added at any time. One takes about a microsecond per module.

    Args:
        parts (`dict[type, dict[str, type or tuple]]`):
            Type of module to the names of its submodules and parameters and the [`Kind`] of each.
    """

    def __init__(self, parts: Mapping[type[nn.Module], Mapping[str, Kind]]):
        self._known: dict[Kind, tuple[type, Mapping[str, Kind] | Kind, set[str]]] = {}
        for kind, names in parts.items():
            children = {name: part for name, part in names.items() if part is not nn.Parameter}
            self._known[kind] = kind, children, names.keys() - children.keys()
            for container in (part for part in children.values() if isinstance(part, tuple)):
                if container[-1] is ...:
                    self._known[container] = nn.ModuleList, container[0], set()
                else:
                    self._known[container] = nn.Sequential, {str(n): part for n, part in enumerate(container)}, set()
        self._forwards = {kind: _own_forward(kind) for kind in parts}
        self._methods = {kind: _methods(kind) for kind in (*parts, nn.ModuleList, nn.Sequential)}

    def match(self, module: nn.Module, kind: type[nn.Module]) -> bool:
        """Whether a module, with all below it, is known and of that type."""
        return self.parameters(module, kind) is not None

    def parameters(
        self, module: nn.Module, kind: type[nn.Module], evaluation: bool = False
    ) -> list[nn.Parameter] | None:
        """All parameters of a module that is known and of that type, with `evaluation` also in that mode; None of others."""
        if torch_modules._global_forward_hooks or torch_modules._global_forward_pre_hooks:
            return None
        if any(kind.forward is not forward for kind, forward in self._forwards.items()):
            return None
        all_parameters, waiting = [], [(module, kind)]
        # The list grows while it is read.
        for module, kind in waiting:
            expected, children, parameters = self._known[kind]
            if type(module) is not expected:
                return None
            state = vars(module)
            if state["_forward_hooks"] or state["_forward_pre_hooks"] or (evaluation and state["training"]):
                return None
            # accelerate's hooks, among others, replace the method on the object, and put it back there.
            if "forward" in state and state["forward"] != MethodType(expected.forward, module):
                return None
            if not state.keys().isdisjoint(self._methods[expected]):
                return None
            if state.get("_compiled_call_impl") is not None:
                return None
            found = state["_parameters"]
            if found.keys() != parameters:
                return None
            for parameter in found.values():
                if parameter is None:
                    continue
                if type(parameter) is not nn.Parameter or parameter.is_meta:
                    return None
                all_parameters.append(parameter)
            found = state["_modules"]
            if expected is nn.ModuleList:
                waiting += zip(found.values(), repeat(children))
            elif found.keys() != children.keys():
                return None
            elif children:
                waiting += [(found[name], part) for name, part in children.items()]
        return all_parameters


def _methods(kind: type[nn.Module]) -> frozenset[str]:
    """Names of the methods of a type, except `forward`; an object that has one in its own dictionary replaced it."""
    found = {
        name for parent in kind.__mro__ for name, value in vars(parent).items() if isinstance(value, FunctionType)
    }
    return frozenset(found - {"forward"})


def _own_forward(kind: type[nn.Module]):
    """The `forward` that a type was defined with, or None where another one has taken its place already."""
    owner = next(parent for parent in kind.__mro__ if "forward" in vars(parent))
    found = getattr(kind.forward, "__module__", None), getattr(kind.forward, "__qualname__", None)
    return kind.forward if found == (owner.__module__, f"{owner.__qualname__}.forward") else None


def uses_sdpa(config: PreTrainedConfig) -> bool:
    """Whether modules of that configuration call PyTorch's attention, and not another one registered under its name."""
    return (
        config._attn_implementation == "sdpa"
        and ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", None) is sdpa_attention_forward
    )


__all__ = ["LIBRARY_MODULES", "Kind", "KnownModules", "uses_sdpa"]
