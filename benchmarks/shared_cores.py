# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Wall-clock time of whole runs on an idle machine and beside programs that keep cores busy.

    python benchmarks/shared_cores.py --output outputs/benchmarks/shared_cores.json
    python benchmarks/shared_cores.py --workloads supervised --conditions idle "one busy" --against ../before

Every run is a process of its own, started as a user starts it, without `OMP_NUM_THREADS`; a busy program is `yes`, without
pause from the start or from ten seconds later. `--against` names another checkout with its own `.venv`, whose runs alternate
with ours. A run that takes longer than four times its median on the idle machine is ended there. Nothing else may run on the
machine meanwhile.
"""

import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from harness import save_results, table
from nora15_hf.runtime.cpu_threads import VARIABLES

ROOT = Path(__file__).parents[1]
# Busy programs, and the second of the run in which they come.
CONDITIONS = {
    "idle": (0, 0),
    "one busy": (1, 0),
    "two busy": (2, 0),
    "one busy, later": (1, 10),
    "two busy, later": (2, 10),
}
LATEST = 4.0


def commands(root: Path, inputs: Path, output: Path) -> dict[str, list[str]]:
    """The command of every workload; all but the first read what a smoke run left in `inputs`."""
    example, config = root / "examples", root / "examples" / "configs"
    demonstrations, policy = inputs / "demonstrations", inputs / "policy-sft"
    return {
        "quickstart smoke": ["-m", "nora15_hf.commands", "quickstart", "--smoke", "--output", output],
        "supervised": [
            example / "sft.py", "--config", config / "sft_tiny.yaml", "--datasets", demonstrations, "--max_steps", 25,
            "--output_dir", output,
        ],
        "DPO": [
            example / "dpo.py", "--config", config / "dpo_tiny.yaml", "--policy", policy, "--preferences",
            inputs / "preferences", "--max_steps", 60, "--per_device_train_batch_size", 8, "--output_dir", output,
        ],
        "world model": [
            example / "world_model.py", "--config", config / "world_model_tiny.yaml", "--dataset", demonstrations,
            "--policy", policy, "--max_steps", 40, "--encoder_steps", 40, "--validation_share", 0.25, "--output_dir", output,
        ],
        "rollout": [root / "benchmarks" / "rollout.py", "--states", 1, "--repeats", 1, "--output", output / "rollout.json"],
    }  # fmt: skip


class BusyPrograms:
    """So many that compute without pause, from some seconds after the beginning of a `with` block to its end."""

    def __init__(self, count: int, after: float):
        self.count, self.after = count, after
        self._processes: list[subprocess.Popen] = []
        self._timer = threading.Timer(after, self._start)

    def _start(self) -> None:
        # In sessions of their own: among processes of one session, Linux shares what it gives to that session.
        self._processes += [
            subprocess.Popen(["yes"], stdout=subprocess.DEVNULL, start_new_session=True) for _ in range(self.count)
        ]

    def __enter__(self) -> None:
        if self.after:
            self._timer.start()
        else:
            self._start()

    def __exit__(self, *exception) -> None:
        self._timer.cancel()
        if self._timer.is_alive():
            self._timer.join()
        for process in self._processes:
            process.kill()
            process.wait()


def run(root: Path, workload: str, inputs: Path, output: Path, condition: str, limit: float | None) -> float | None:
    """Seconds that a workload takes under a condition; `None` when it was not finished after `limit` seconds."""
    python = root / ".venv" / "bin" / "python"
    command = [str(part) for part in (python, *commands(root, inputs, output)[workload])]
    environment = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "OMP_WAIT_POLICY")}
    environment |= {"PYTHONPATH": str(root / "benchmarks"), "HF_HUB_OFFLINE": "1"}
    with BusyPrograms(*CONDITIONS[condition]), tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=root, env=environment, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
        seconds = time.perf_counter() - began
        if code != 0:
            log.seek(0)
            raise RuntimeError(f"{workload} of {root} failed: {log.read()[-3000:]}")
    return seconds


def main(arguments: list[str] | None = None) -> dict:
    workloads = list(commands(ROOT, ROOT, ROOT))
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=workloads, default=workloads)
    parser.add_argument("--conditions", nargs="+", choices=[*CONDITIONS], default=[*CONDITIONS])
    parser.add_argument(
        "--rounds", type=int, default=1, help="runs on the idle machine, of which the median counts (default 1)"
    )
    parser.add_argument("--against", type=Path, help="another checkout with its .venv; its runs alternate with ours")
    parser.add_argument("--inputs", type=Path, help="output of `nora15 quickstart --smoke`; default: made first")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    roots = {"before": options.against.resolve()} if options.against else {}
    roots["now"] = ROOT
    rows, results = [], []
    with tempfile.TemporaryDirectory() as folder:
        inputs = options.inputs.resolve() if options.inputs else Path(folder, "inputs")
        if options.inputs is None:
            run(ROOT, "quickstart smoke", inputs, inputs, "idle", None)
        number = 0
        for workload in options.workloads:
            idle: dict[str, float] = {}
            for condition in ["idle", *(name for name in options.conditions if name != "idle")]:
                seconds: dict[str, list[float | None]] = {name: [] for name in roots}
                for _ in range(options.rounds if condition == "idle" else 1):
                    for name, root in roots.items():
                        number += 1
                        limit = LATEST * idle[name] if name in idle else None
                        seconds[name].append(run(root, workload, inputs, Path(folder, str(number)), condition, limit))
                        print(workload, condition, name, seconds[name][-1], flush=True)
                for name, found in seconds.items():
                    median = None if None in found else statistics.median(found)
                    if condition == "idle":
                        idle[name] = median
                    results.append({"workload": workload, "condition": condition, "checkout": name, "seconds": found})
                    rows.append(
                        [
                            workload, condition, name,
                            f"over {LATEST * idle[name]:.0f}" if median is None else f"{median:.1f}",
                            f"over {LATEST:.0f}x" if median is None else f"{median / idle[name]:.2f}x",
                        ]
                    )  # fmt: skip
    print(table(["", "machine", "", "s", "of idle"], rows))
    outcome = {"rounds": options.rounds, "results": results}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
