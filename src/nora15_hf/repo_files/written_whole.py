# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Files and folders that appear complete or not at all, so that readers can rely on them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike, *, process: int = 0) -> Iterator[Path]:
    """
    A path beside `path` to write a file or a folder to, in a folder that is made if it is missing. It is renamed to `path`
    when the block ends, and removed when the block fails; what a killed process left there is removed by the next one.

    Args:
        path (`str` or `os.PathLike`): The file, which may exist and is then replaced, or the folder, absent or empty.
        process (`int`, *optional*, defaults to 0): Number of the process, where several may write the same path.

    Example:

    ```python
    >>> with written_whole(folder / "record.txt") as part:
    ...     _ = part.write_text("complete")
    ```
    """
    path = Path(path)
    # Hidden and with a suffix of its own: neither a reader of the folder nor a push to the Hub takes it for a result.
    part = path.with_name(f".{path.name}.{process}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    _remove(part)
    try:
        yield part
        part.replace(path)
    except BaseException:
        _remove(part)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


__all__ = ["written_whole"]
