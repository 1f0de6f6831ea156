# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 push-all` as a script: python examples/push_to_hub.py --folder outputs/quickstart --namespace me --dry_run true"""

from nora15_hf.commands.push_all import PushAllArguments, main

__all__ = ["PushAllArguments", "main"]

if __name__ == "__main__":
    main()
