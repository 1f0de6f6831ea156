# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Runs a policy (a folder, a Hub id or the address of a policy server) in closed loop in a simulator and writes success rates with
Wilson intervals, one row per episode and all settings that affect the numbers. Finished episodes are kept; --resume continues.
The exit code is 1 if episodes could not be run.
"""

from pathlib import Path

from ..runtime.thread_arguments import ThreadArguments
from .evaluate_arguments import EvaluateArguments

ARGUMENTS = (EvaluateArguments, ThreadArguments)


def run(options: EvaluateArguments) -> int:
    # Names that the table knows are checked before the policy is loaded.
    if options.environment is not None:
        options.selected_tasks(options.environment)
    if options.write_card and not Path(options.policy).is_dir():
        raise ValueError(
            f"--write-card writes to the policy's folder, but {options.policy!r} is not a folder. Add the results to its card with "
            "nora15 card --evaluation results.json."
        )
    from .policy_evaluation import evaluate

    return evaluate(options)


__all__ = ["ARGUMENTS", "EvaluateArguments", "run"]
