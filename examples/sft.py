# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 sft` as a script: accelerate launch examples/sft.py --config examples/configs/sft_tiny.yaml"""

from nora15_hf.commands.sft import SFTArguments, main

__all__ = ["SFTArguments", "main"]

if __name__ == "__main__":
    main()
