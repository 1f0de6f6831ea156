# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What can be made to go wrong on the test Hub."""

import re
import threading
from dataclasses import dataclass

__all__ = ["ROUTES", "Fault", "FaultPlan"]

ROUTES = (
    "whoami", "create_repo", "delete_repo", "validate_yaml", "info", "refs", "commits", "tree", "paths_info",
    "preupload", "commit", "branch", "tag", "settings", "lfs_batch", "lfs_upload", "lfs_verify", "resolve",
    "storage", "any",
)  # fmt: skip
"""`resolve` answers with a small file or sends the client to `storage`, where large files lie."""


@dataclass
class Fault:
    """
    One thing that goes wrong on a route, `times` times.

    Args:
        route (`str`): One of [`ROUTES`]; `"any"` for all of them.
        times (`int`): How many requests it hits.
        status (`int`, *optional*): Answer with this status instead of doing the work: 500, 502, 503, 504, 409, 429 ...
        retry_after (`int`, *optional*): Seconds in the `Retry-After` header beside `status`.
        delay (`float`): Seconds to wait before the request is handled; longer than the client's limit, a timeout.
        until (`threading.Event`, *optional*): Handle the request only when this is set, a minute later at the latest.
        lose_request (`bool`): Close the connection before the work is done.
        lose_answer (`bool`): Do the work, then close the connection without an answer.
        cut_after (`int`, *optional*): Close the connection after so many bytes of the answer's body.
        corrupt (`bool`): Flip a byte of what is stored (`lfs_upload`) or sent (`storage`, `resolve`).
        skip (`int`): Let so many requests through first.
        method (`str`, *optional*): Only requests of this method.
        where (`str`): Only requests in whose path this regular expression is found, as a repo's name.
    """

    route: str
    times: int = 1
    status: int | None = None
    retry_after: int | None = None
    delay: float = 0.0
    until: threading.Event | None = None
    lose_request: bool = False
    lose_answer: bool = False
    cut_after: int | None = None
    corrupt: bool = False
    skip: int = 0
    method: str | None = None
    where: str = ""
    hits: int = 0

    def __post_init__(self):
        if self.route not in ROUTES:
            raise ValueError(f"route={self.route!r} is unknown; expected one of {', '.join(ROUTES)}.")


class FaultPlan:
    """The faults that are still to come; safe to use from several threads."""

    def __init__(self):
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, route: str, method: str, path: str) -> Fault | None:
        """The fault that hits this request, if any; counts it."""
        with self._lock:
            for fault in self._faults:
                if (
                    fault.route not in (route, "any")
                    or fault.method not in (method, None)
                    or not re.search(fault.where, path)
                ):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.hits < fault.times:
                    fault.hits += 1
                    return fault
        return None
