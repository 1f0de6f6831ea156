# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which files of a folder are uploaded to its repo, decided and checked before anything is sent."""

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from huggingface_hub import get_token
from pyarrow import parquet

from ..cards.card_info import check_repo_id
from ..data.lerobot_metadata import load_metadata
from ..preferences.preference_record import PreferenceRecord
from ..repo_files.json_files import read_json
from ..repo_files.stored_tensors import read_header
from .artefacts import Artefact, find_artefact
from .custom_code import custom_code_files

__all__ = ["PushPlan", "plan_push"]

# What loading reads, and what people look at. A pickle can run any code when it is opened, so that none is published.
_SUFFIXES = {
    ".safetensors", ".json", ".jsonl", ".parquet", ".mp4",
    ".md", ".txt", ".jinja", ".yaml", ".yml", ".csv", ".py", ".png", ".jpg", ".jpeg", ".svg", ".gif",
}  # fmt: skip
_NAMES = {"LICENSE", "NOTICE"}
_TEXT_SUFFIXES = {".json", ".jsonl", ".md", ".txt", ".jinja", ".yaml", ".yml", ".csv", ".py", ".svg"}

# What a run keeps beside its result to be continued: no part of the artefact, and partly pickles.
_TRAINING_STATE = (
    "checkpoint-*/*", "_*/*", "runs/*", "training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt",
    "rng_state*.pth", "trainer_state.json", "run.json", "*.part",
)  # fmt: skip
_HIDDEN = (".*", "*/.*", "__pycache__/*", "*/__pycache__/*")

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class PushPlan:
    """
    What a push would send; `str(plan)` is what `nora15 push --dry-run` prints.

    Args:
        folder (`Path`): The folder.
        repo_id (`str`): The repo.
        artefact ([`Artefact`]): What it is; tells the repo's type.
        files (`dict[str, Path | bytes]`): Path in the repo to a local file, or to content made for the repo.
        left_out (`tuple[str, ...]`): Files that stay where they are: hidden ones and the state of a training.
        notes (`tuple[str, ...]`): What a reader of the repo will miss.
    """

    folder: Path
    repo_id: str
    artefact: Artefact
    files: dict[str, Path | bytes]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def size(self, path: str) -> int:
        """Bytes of one file."""
        source = self.files[path]
        return len(source) if isinstance(source, bytes) else source.stat().st_size

    def __str__(self) -> str:
        sizes = {path: self.size(path) for path in sorted(self.files)}
        width = max(map(len, sizes))
        lines = [f"{self.folder} -> {self.artefact.repo_type} repo {self.repo_id} ({self.artefact.value})", ""]
        lines += [f"  {path:<{width}}  {_readable(size):>10}" for path, size in sizes.items()]
        lines += ["", f"{len(sizes)} files, {_readable(sum(sizes.values()))}"]
        if self.left_out:
            shown = ", ".join(self.left_out[:5]) + (" ..." if len(self.left_out) > 5 else "")
            lines.append(f"not uploaded, as state of a training or hidden: {len(self.left_out)} files ({shown})")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def plan_push(folder: str | Path, repo_id: str, *, with_code: bool = False) -> PushPlan:
    """
    Decides what of a folder belongs into its repo, without a connection.

    Args:
        folder (`str` or `Path`): Of a model, a processor, an adapter or a dataset.
        repo_id (`str`): The repo it is for.
        with_code (`bool`, *optional*, defaults to `False`): See [`push_folder`].

    Raises:
        NotADirectoryError: `folder` is no folder.
        ValueError: `repo_id` is no Hub id, or `folder` holds no artefact, a file of a kind that is not published (a pickle), a link that leads out of
            it, an access token, a file that is truncated or damaged, or an index that names other shards than there are.
    """
    check_repo_id("repo_id", repo_id)
    folder = Path(folder)
    artefact = find_artefact(folder)
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    left_out = tuple(path for path in found if any(fnmatch(path, name) for name in (*_TRAINING_STATE, *_HIDDEN)))
    files: dict[str, Path | bytes] = {path: folder / path for path in found if path not in left_out}
    _refuse_unsafe_files(folder, files)
    _refuse_damaged_files(folder, artefact, files)
    _check_shards(folder, files)
    if with_code:
        files |= custom_code_files(folder, artefact)
    return PushPlan(folder, repo_id, artefact, files, left_out, tuple(_notes(files, artefact)))


def _refuse_unsafe_files(folder: Path, files: dict[str, Path]) -> None:
    unknown = [
        path
        for path in files
        if PurePosixPath(path).suffix.lower() not in _SUFFIXES and PurePosixPath(path).name not in _NAMES
    ]
    if unknown:
        raise ValueError(
            f"{folder} holds {unknown[:5]}, {len(unknown)} file(s) of a type that is not published. The published types are "
            f"{', '.join(sorted(_SUFFIXES))}: rename or convert the files, or move them elsewhere. Store weights as safetensors: "
            "a pickle (.bin, .pt, .pth, .pkl) can run any code when it is opened; save the model with save_pretrained in an "
            "empty folder."
        )
    root = folder.resolve()
    for path, source in files.items():
        if not source.resolve().is_relative_to(root):
            raise ValueError(f"{source} is a link that leads out of {folder}: put the file itself in its place.")
        if PurePosixPath(path).suffix.lower() in _TEXT_SUFFIXES:
            _refuse_token(source)


def _refuse_token(file: Path) -> None:
    text = file.read_text(encoding="utf-8", errors="replace")
    token = get_token()
    if _TOKEN.search(text) or (token is not None and token in text):
        raise ValueError(
            f"{file} contains what looks like an access token of the Hub. Remove it, and revoke the token at "
            "https://huggingface.co/settings/tokens if the file was ever shared."
        )


def _refuse_damaged_files(folder: Path, artefact: Artefact, files: dict[str, Path]) -> None:
    """Refuses files that nobody could load, as far as this shows without reading weights and pictures."""
    for path, source in files.items():
        suffix = PurePosixPath(path).suffix
        if suffix == ".safetensors":
            read_header(source, floats_only=False)
        try:
            if suffix == ".json":
                json.loads(source.read_text(encoding="utf-8"))
            elif suffix == ".parquet":
                parquet.read_metadata(source)
        # Includes pyarrow's ArrowInvalid.
        except ValueError as error:
            raise ValueError(
                f"{source} is damaged ({error}), so nobody could load it. Save or record it again."
            ) from error
    if artefact is Artefact.DEMONSTRATIONS:
        load_metadata(folder)
    elif artefact is Artefact.PREFERENCES:
        PreferenceRecord.read(folder)


def _check_shards(folder: Path, files: dict[str, Path]) -> None:
    for path in files:
        if not path.endswith(".safetensors.index.json"):
            continue
        weight_map = read_json(folder / path).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ValueError(f"{folder / path} has no weight_map: it is not the index of a sharded checkpoint.")
        beside = PurePosixPath(path).parent
        lost = sorted({str(shard) for shard in weight_map.values() if str(beside / str(shard)) not in files})
        if lost:
            raise ValueError(
                f"{folder / path} names {lost[:5]}, which are not in the same folder. Save the model again in an empty folder."
            )


def _notes(files: dict[str, Path | bytes], artefact: Artefact) -> list[str]:
    notes = []
    if "README.md" not in files:
        notes.append("there is no card (README.md): write one with `nora15 card`")
    if artefact in (Artefact.POLICY, Artefact.WORLD_MODEL) and "processor_config.json" not in files:
        notes.append("there is no processor: save it there with processor.save_pretrained(folder)")
    return notes


def _readable(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"
