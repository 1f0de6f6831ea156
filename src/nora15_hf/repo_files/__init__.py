# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of a repo, on disk and on the Hub. Imports nothing else of the package."""
