# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Meta-World as an environment: its tasks, its episodes and the two renderers of its pictures."""
