# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What runs of several stages share: running each stage once, and training a policy on from where it is."""
