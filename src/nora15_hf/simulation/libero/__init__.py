# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LIBERO and LIBERO-PRO behind the environment protocol, with the rules of published evaluations and a scripted expert."""
