# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Inference that reads the weights of backbone and expert instead of calling their modules; the door is `policy_inference`."""
