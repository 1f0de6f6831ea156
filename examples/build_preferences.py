# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 preferences` as a script: python examples/build_preferences.py --config examples/configs/preferences_tiny.yaml"""

from nora15_hf.commands.preferences import BuildArguments, main

__all__ = ["BuildArguments", "main"]

if __name__ == "__main__":
    main()
