# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 world-model` as a script: accelerate launch examples/world_model.py --config examples/configs/world_model_tiny.yaml"""

from nora15_hf.commands.world_model import WorldModelArguments, main

__all__ = ["WorldModelArguments", "main"]

if __name__ == "__main__":
    main()
