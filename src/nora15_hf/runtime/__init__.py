# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
How a run uses the machine and shows itself: threads on cores that other programs use too, progress without a terminal, and
whether a network consists of the very modules that fast code was written for.

Imported by module, since the commands' options need no torch.
"""
