# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
What it takes to open a LeRobot dataset of many frames and to compute its statistics: seconds and memory.

    python benchmarks/dataset_index.py --frames 1000000

Writes a dataset in layout v3.0 to a temporary folder, with a video camera (no video is opened for this) or with images
in its data files, and opens it in a fresh process. Memory is what the process's peak grows by. Needs Linux.
"""

import json
import multiprocessing
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness import save_results, table
from nora15_hf.data import LeRobotDataset, compute_statistics

FPS = 10
ACTION_DIM, STATE_DIM = 7, 8
EPISODES_PER_FILE = 500
CAMERA = "observation.images.top"


def write_dataset(root: Path, frames: int, episode_length: int, storage: str) -> None:
    """A consistent dataset with random numbers; images are a few bytes that are never decoded."""
    random = np.random.default_rng(0)
    episodes = frames // episode_length
    start = np.arange(episodes) * episode_length
    rows = {
        "episode_index": np.arange(episodes),
        "tasks": [["pick up the cup"]] * episodes,
        "length": np.full(episodes, episode_length),
        "dataset_from_index": start,
        "dataset_to_index": start + episode_length,
        "data/chunk_index": np.zeros(episodes, dtype=np.int64),
        "data/file_index": np.arange(episodes) // EPISODES_PER_FILE,
    }
    if storage == "video":
        rows |= {f"videos/{CAMERA}/{name}": rows[f"data/{name}"] for name in ("chunk_index", "file_index")}
        begin = np.arange(episodes) % EPISODES_PER_FILE * episode_length / FPS
        rows |= {
            f"videos/{CAMERA}/from_timestamp": begin,
            f"videos/{CAMERA}/to_timestamp": begin + episode_length / FPS,
        }
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    pq.write_table(pa.table(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    pd.DataFrame({"task_index": [0]}, index=pd.Index(["pick up the cup"], name="task")).to_parquet(
        root / "meta/tasks.parquet"
    )
    for file, first in enumerate(range(0, episodes, EPISODES_PER_FILE)):
        count = (min(first + EPISODES_PER_FILE, episodes) - first) * episode_length
        index = first * episode_length + np.arange(count)
        columns = {
            "timestamp": (index % episode_length / FPS).astype(np.float32),
            "frame_index": index % episode_length,
            "episode_index": index // episode_length,
            "index": index,
            "task_index": np.zeros(count, dtype=np.int64),
        }
        for key, width in (("action", ACTION_DIM), ("observation.state", STATE_DIM)):
            values = pa.array(random.normal(size=count * width).astype(np.float32))
            columns[key] = pa.FixedSizeListArray.from_arrays(values, width)
        if storage == "image":
            columns[CAMERA] = pa.array([{"bytes": b"not decoded", "path": None}] * count)
        pq.write_table(pa.table(columns), root / f"data/chunk-000/file-{file:03d}.parquet")
    features = {
        name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")
    }
    features |= {
        "timestamp": {"dtype": "float32", "shape": [1]},
        "action": {"dtype": "float32", "shape": [ACTION_DIM]},
        "observation.state": {"dtype": "float32", "shape": [STATE_DIM]},
        CAMERA: {"dtype": storage, "shape": [224, 224, 3]},
    }
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": features,
        "total_episodes": episodes,
        "total_frames": episodes * episode_length,
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(info))


def measure(root: Path) -> dict[str, float]:
    """Seconds and memory, in a process that has done nothing else."""

    # Linux forgets the peak of the imports; what it counts from then on is the work's.
    Path("/proc/self/clear_refs").write_text("5")

    def peak_mb() -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    before, began = peak_mb(), time.perf_counter()
    dataset = LeRobotDataset(root, cache_images=False)
    opened, opened_mb = time.perf_counter() - began, peak_mb() - before
    began = time.perf_counter()
    compute_statistics(dataset)
    plain = time.perf_counter() - began
    began = time.perf_counter()
    compute_statistics(dataset, delta_mask=[True] * (ACTION_DIM - 1) + [False])
    return {
        "frames": len(dataset),
        "open_seconds": opened,
        "open_peak_mb": opened_mb,
        "statistics_seconds": plain,
        "delta_statistics_seconds": time.perf_counter() - began,
        "all_peak_mb": peak_mb() - before,
    }


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="rows of the dataset (default: 1000000)")
    parser.add_argument("--episode-length", type=int, default=200, help="frames per episode (default: 200)")
    parser.add_argument(
        "--storage",
        nargs="+",
        choices=("video", "image"),
        default=["video", "image"],
        help="of the camera (default: both)",
    )
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)

    results = {}
    for storage in options.storage:
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(Path(folder), options.frames, options.episode_length, storage)
            # Spawned: a forked process begins with this one's peak.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results[storage] = pool.apply(measure, (Path(folder),))
    header = ("camera", "frames", "open, s", "open, MB", "statistics, s", "of differences, s", "all, MB")
    rows = [
        (
            storage,
            f"{found['frames']}",
            f"{found['open_seconds']:.2f}",
            f"{found['open_peak_mb']:.0f}",
            f"{found['statistics_seconds']:.2f}",
            f"{found['delta_statistics_seconds']:.2f}",
            f"{found['all_peak_mb']:.0f}",
        )
        for storage, found in results.items()
    ]
    print(table(header, rows))
    if options.output is not None:
        save_results(options.output, {"results": results})
    return {"results": results}


if __name__ == "__main__":
    main()
