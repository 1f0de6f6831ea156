# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 rounds` as a script: accelerate launch examples/preference_rounds.py --config examples/configs/rounds_tiny.yaml"""

from nora15_hf.commands.rounds import RoundsArguments, main

__all__ = ["RoundsArguments", "main"]

if __name__ == "__main__":
    main()
