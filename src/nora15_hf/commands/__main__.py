# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`python -m nora15_hf.commands <command>`, for when the `nora15` script is not on the path."""

import sys

from .dispatcher import main

sys.exit(main())
