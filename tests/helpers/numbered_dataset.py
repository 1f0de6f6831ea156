# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Small LeRobot datasets whose every frame shows its own number, readable also after video compression."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from nora15_hf.data import LeRobotWriter

FPS = 25
HEIGHT, WIDTH = 32, 48
CELL = 8
LENGTHS = (9, 4, 13, 1, 6, 8)
TASKS = ("open the drawer", "close the drawer", "open the drawer", "push", "close the drawer", "push")
TOP, WRIST = "observation.images.top", "observation.images.wrist"
# A state and an action of which each number tells where it comes from.
NUMBERS = np.arange(sum(LENGTHS))
STATES = np.stack([NUMBERS, -NUMBERS], axis=1).astype(np.float32)
ACTIONS = np.stack([NUMBERS, NUMBERS + 0.5, NUMBERS % 2], axis=1).astype(np.float32)
START = np.cumsum([0, *LENGTHS])


def numbered_frame(number: int, camera: int) -> np.ndarray:
    """12 bits of the number and 4 of the camera as dark and bright cells; the rest of the frame is coloured."""
    frame = np.full((HEIGHT, WIDTH, 3), (30, 120, 200), dtype=np.uint8)
    for bit in range(16):
        row, column = divmod(bit, WIDTH // CELL)
        value = 235 if (number | camera << 12) >> bit & 1 else 20
        frame[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = value
    return frame


def read_number(frame: np.ndarray) -> tuple[int, int]:
    """Number and camera that a frame shows."""
    bits = 0
    for bit in range(16):
        row, column = divmod(bit, WIDTH // CELL)
        cell = frame[row * CELL + 2 : (row + 1) * CELL - 2, column * CELL + 2 : (column + 1) * CELL - 2]
        bits |= int(cell.mean() > 128) << bit
    return bits & 0xFFF, bits >> 12


def numbered_frames(episode: int, camera: int) -> np.ndarray:
    return np.stack([numbered_frame(number, camera) for number in range(START[episode], START[episode + 1])])


def write_v30(root: Path, top: str = "video", wrist: str = "image", **options) -> Path:
    """Layout v3.0 by the package's writer; files so small that several hold several episodes each."""
    features = {
        TOP: {"dtype": top, "shape": (HEIGHT, WIDTH, 3)},
        WRIST: {"dtype": wrist, "shape": (HEIGHT, WIDTH, 3)},
        "observation.state": {"dtype": "float32", "shape": (2,)},
        "action": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "gripper"]},
    }
    options = {"max_file_size_mb": 0.01, "max_video_file_size_mb": 0.0008} | options
    writer = LeRobotWriter(root, fps=FPS, features=features, robot_type="numbers", **options)
    for episode, task in enumerate(TASKS):
        rows = slice(START[episode], START[episode + 1])
        writer.add_episode(
            task,
            {
                TOP: numbered_frames(episode, 0),
                WRIST: numbered_frames(episode, 1),
                "observation.state": STATES[rows],
                "action": ACTIONS[rows],
            },
        )
    return writer.finalize()


def write_mp4(path: Path, frames: np.ndarray, fps: float = FPS, **options: str) -> None:
    """A video as other tools write it: key frames far apart and frames stored out of order."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"g": "12", "bf": "2", **options})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def _columns(episode: int, wrist_images: bool) -> dict[str, pa.Array]:
    length = LENGTHS[episode]
    rows = slice(START[episode], START[episode + 1])
    tasks = list(dict.fromkeys(TASKS))
    columns = {
        "observation.state": pa.array(STATES[rows].tolist(), pa.list_(pa.float32())),
        "action": pa.array(ACTIONS[rows].tolist(), pa.list_(pa.float32())),
        "timestamp": pa.array((np.arange(length) / FPS).astype(np.float32)),
        "frame_index": pa.array(np.arange(length)),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(NUMBERS[rows]),
        "task_index": pa.array(np.full(length, tasks.index(TASKS[episode]))),
    }
    if wrist_images:
        encoded = []
        for frame in numbered_frames(episode, 1):
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, format="PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        columns[WRIST] = pa.array(encoded)
    return columns


def _info(version: str, wrist_images: bool, **paths: str) -> dict:
    scalars = {
        name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")
    }
    return {
        "codebase_version": version,
        "fps": FPS,
        "chunks_size": 2,
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        **paths,
        "features": {
            TOP: {"dtype": "video", "shape": [3, HEIGHT, WIDTH], "names": ["channels", "height", "width"]},
            WRIST: {"dtype": "image" if wrist_images else "video", "shape": [HEIGHT, WIDTH, 3]},
            "observation.state": {"dtype": "float32", "shape": [2]},
            "action": {"dtype": "float32", "shape": [3]},
            "timestamp": {"dtype": "float32", "shape": [1]},
            **scalars,
        },
    }


def write_v21_by_hand(root: Path, wrist_images: bool = True) -> Path:
    """Layout v2.1: one data file and one video per camera and episode, two episodes per chunk."""
    (root / "meta").mkdir(parents=True)
    for episode in range(len(LENGTHS)):
        place = f"chunk-{episode // 2:03d}"
        path = root / f"data/{place}/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(_columns(episode, wrist_images)), path)
        for camera, key in enumerate([TOP] if wrist_images else [TOP, WRIST]):
            write_mp4(root / f"videos/{place}/{key}/episode_{episode:06d}.mp4", numbered_frames(episode, camera))
    lines = {
        "tasks": [{"task_index": number, "task": text} for number, text in enumerate(dict.fromkeys(TASKS))],
        "episodes": [
            {"episode_index": number, "tasks": [TASKS[number]], "length": length}
            for number, length in enumerate(LENGTHS)
        ],
    }
    for name, rows in lines.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(_info("v2.1", wrist_images, **paths)))
    return root


def write_v30_by_hand(root: Path) -> Path:
    """Layout v3.0 as LeRobot writes it: data, videos and episode table cut at different episodes, two files per chunk."""
    data_files, video_files, table_files = [(0, 1, 2), (3, 4), (5,)], [(0, 1), (2, 3, 4, 5)], [(0, 1, 2, 3), (4, 5)]
    rows = [
        {
            "episode_index": episode,
            "tasks": [TASKS[episode]],
            "length": LENGTHS[episode],
            "dataset_from_index": int(START[episode]),
            "dataset_to_index": int(START[episode + 1]),
        }
        for episode in range(len(LENGTHS))
    ]
    for number, episodes in enumerate(data_files):
        path = root / f"data/chunk-{number // 2:03d}/file-{number % 2:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables([pa.table(_columns(episode, False)) for episode in episodes]), path)
        for episode in episodes:
            rows[episode] |= {"data/chunk_index": number // 2, "data/file_index": number % 2}
    for camera, key in enumerate([TOP, WRIST]):
        for number, episodes in enumerate(video_files):
            frames = np.concatenate([numbered_frames(episode, camera) for episode in episodes])
            write_mp4(root / f"videos/{key}/chunk-000/file-{number:03d}.mp4", frames)
            for episode in episodes:
                begin = (START[episode] - START[episodes[0]]) / FPS
                rows[episode] |= {
                    f"videos/{key}/chunk_index": 0,
                    f"videos/{key}/file_index": number,
                    f"videos/{key}/from_timestamp": begin,
                    f"videos/{key}/to_timestamp": begin + LENGTHS[episode] / FPS,
                }
    for number, episodes in enumerate(table_files):
        path = root / f"meta/episodes/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([rows[episode] for episode in episodes]), path)
    texts = list(dict.fromkeys(TASKS))
    pd.DataFrame({"task_index": range(len(texts))}, index=texts).to_parquet(root / "meta/tasks.parquet")
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(_info("v3.0", False, **paths)))
    return root
