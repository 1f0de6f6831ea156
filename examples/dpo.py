# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 dpo` as a script: accelerate launch examples/dpo.py --config examples/configs/dpo_tiny.yaml"""

from nora15_hf.commands.dpo import DPOArguments, main

__all__ = ["DPOArguments", "main"]

if __name__ == "__main__":
    main()
