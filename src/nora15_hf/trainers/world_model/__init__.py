# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Training of the world model, and pre-training of its encoder."""
