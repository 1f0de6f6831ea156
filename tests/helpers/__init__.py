# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What several test files use."""
