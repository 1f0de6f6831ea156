# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preference optimisation of the policy with a flow-matching surrogate."""
