# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Model and dataset cards, filled from the templates in `model_cards/`."""
