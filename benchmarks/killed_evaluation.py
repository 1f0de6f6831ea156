# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
`nora15 evaluate` is killed at random moments and continued with `--resume`: whether the files are those of a run that nobody killed.

    python benchmarks/killed_evaluation.py --policy outputs/quickstart/policy-sft

A moment is a number of calls of Python functions since the command began, so that it depends neither on the machine nor on its
load; it is drawn, with a seed, from the whole command, from reading the options to the last file. Every second kill ends the command
alone, the others its simulators, too. An evaluation that is finished is compared, byte by byte, and another one is begun.
"""

import signal
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np

from harness import save_results, table
from nora15_hf.evaluation.evaluation_run import STATE_FOLDER
from nora15_hf.evaluation.results import EPISODES_FILE, RESULTS_FILE

# The command, which ends itself at a moment, and prints how many calls it made if that never comes.
COMMAND = """
import os, signal, sys
from nora15_hf.commands import main

moment, whom, calls = int(sys.argv[1]), sys.argv[2], 0

def count(frame, event, argument):
    global calls
    if event == "call":
        calls += 1
        if calls == moment:
            os.killpg(os.getpgrp(), signal.SIGKILL) if whom == "group" else os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(count)
code = main(sys.argv[3:])
sys.setprofile(None)
print(calls)
sys.exit(code)
"""
NEVER = 0


def run(command_line: list[str], output: Path, moment: int, whom: str) -> int | None:
    """Runs the command, in `output`; returns how many calls it made, or `None` when it was killed."""
    command = [sys.executable, "-c", COMMAND, str(moment), whom, "evaluate", *command_line, "--output", str(output)]
    done = subprocess.run([*command, "--resume"], start_new_session=True, capture_output=True, text=True)
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise RuntimeError(f"The evaluation ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return int(done.stdout.split()[-1])


def files(output: Path) -> tuple[bytes, ...]:
    """What a reader of the evaluation gets."""
    return tuple((output / name).read_bytes() for name in (RESULTS_FILE, EPISODES_FILE))


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="folder of a policy")
    parser.add_argument("--tasks", default="handle-press,faucet-open", help="as for nora15 evaluate")
    parser.add_argument("--episodes", type=int, default=4, help="per task (default 4)")
    parser.add_argument("--kills", type=int, default=20, help="default 20")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    command_line = [str(options.policy), "--tasks", options.tasks, "--episodes", str(options.episodes)]
    command_line += ["--slots", "3", "--workers", "2", "--threads", "1"]
    random = np.random.default_rng(options.seed)
    rows, kills, equal = [], 0, True
    with tempfile.TemporaryDirectory() as folder:
        calls = run(command_line, Path(folder, "whole"), NEVER, "nobody")
        whole = files(Path(folder, "whole"))
        while kills < options.kills:
            output, kept = Path(folder, f"run-{len(rows)}"), []
            while True:
                # After the last kill the evaluation is finished in peace.
                moment = int(random.integers(1, calls)) if kills < options.kills else NEVER
                if run(command_line, output, moment, ("group", "alone")[kills % 2]) is not None:
                    break
                kills += 1
                kept.append(len(list(output.glob(f"{STATE_FOLDER}/episodes/*.json"))))
            same = files(output) == whole
            equal &= same
            rows.append(
                [str(len(rows) + 1), str(len(kept)), ", ".join(map(str, kept)) or "-", "yes" if same else "NO"]
            )
    print(table(["evaluation", "kills", "episodes kept at each kill", "same files"], rows))
    print(f"\n{kills} kills at moments among {calls} calls, seed {options.seed}: {'equal' if equal else 'NOT EQUAL'}")
    outcome = {"policy": options.policy.name, "kills": kills, "evaluations": len(rows), "calls": calls, "equal": equal}
    if options.output is not None:
        save_results(options.output, outcome)
    if not equal:
        raise RuntimeError("A continued evaluation has other files than one that was not interrupted.")
    return outcome


if __name__ == "__main__":
    main()
