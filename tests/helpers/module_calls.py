# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How often modules are called, counted without a change of them, after which none would be read instead."""

from torch import nn


class ModuleCalls:
    """Counts calls of all modules of the type of the given one."""

    def __init__(self, module, monkeypatch):
        self.count, original = 0, nn.Module.__call__

        def call(this, *args, **kwargs):
            self.count += type(this) is type(module)
            return original(this, *args, **kwargs)

        monkeypatch.setattr(nn.Module, "__call__", call)
