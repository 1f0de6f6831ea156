# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy as a server for robots and benchmarks, in the foreground or in the background."""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from ..runtime.listening import is_loopback, listen
from .groot_protocol import GrootProtocol, own_robot_keys
from .loop_thread import LoopThread
from .openpi_protocol import OpenPIProtocol
from .policy_service import PolicyService
from .robots import RobotKeys
from .served_policy import ServedPolicy

logger = logging.getLogger(__name__)

DEFAULT_PORTS = {"openpi": 8000, "gr00t": 5555, "vla-eval": 8000}
"""By protocol. [`PolicyServer`] speaks the first two, `VlaEvalServer` the last."""


class PolicyServer:
    r"""
    Serves a policy to the clients of a protocol.

    As a context manager it serves in a thread; [`~PolicyServer.run`] serves in the caller's until it is told to stop. It serves
    once.

    Args:
        policy ([`ServedPolicy`]): Who answers; [`ModelPolicy`] or [`DatasetReplay`].
        protocol (`str`, *optional*, defaults to `"openpi"`): Or `"gr00t"`.
        host (`str`, *optional*, defaults to `"127.0.0.1"`): Where to listen; `"0.0.0.0"` is the whole network.
        port (`int`, *optional*): Default: 8000, or 5555 with GR00T's protocol. 0 is any free one.
        api_key (`str`, *optional*): Only clients that send it are answered.
        robot ([`RobotKeys`], *optional*): How robots call what they send; the policy's own names by default.
        default_prompt (`str`, *optional*): Instruction of observations without one.
        max_batch (`int`, *optional*, defaults to 16), max_waiting (`int`, *optional*, defaults to 256):
            Requests that run together, and that may wait.

    Attributes:
        url (`str`): Where clients connect to, once it serves.

    Raises:
        ValueError: The robot does not fit the policy.
        OSError: The port is in use, or the host is not one of this machine.

    Example:

    ```python
    >>> with PolicyServer(ModelPolicy(model, processor), port=0) as server, PolicyClient(server.url) as client:
    ...     chunk = client.predict_chunk({"image": image, "instruction": "open the faucet"})
    ```
    """

    def __init__(
        self,
        policy: ServedPolicy,
        *,
        protocol: str = "openpi",
        host: str = "127.0.0.1",
        port: int | None = None,
        api_key: str | None = None,
        robot: RobotKeys | None = None,
        default_prompt: str | None = None,
        max_batch: int = 16,
        max_waiting: int = 256,
    ):
        if protocol not in ("openpi", "gr00t"):
            raise ValueError(f"protocol={protocol!r} is unknown, expected one of openpi, gr00t.")
        if robot is None and protocol == "gr00t":
            robot = own_robot_keys(policy)
        self.policy, self.protocol = policy, protocol
        self._host, self._port = host, DEFAULT_PORTS[protocol] if port is None else port
        self._api_key = api_key
        self._thread = LoopThread()
        self.service = PolicyService(
            policy,
            self._thread.call,
            robot=robot,
            default_prompt=default_prompt,
            max_batch=max_batch,
            max_waiting=max_waiting,
        )
        if api_key is None and not is_loopback(host):
            logger.warning(
                f"The server listens on {host} without a key, so anyone who can reach it can use the policy. Set one with "
                "--api-key-file, or listen on 127.0.0.1."
            )
        self.url = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._background: threading.Thread | None = None

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """
        Serves until Ctrl-C or SIGTERM: then the running request is answered, what waits is refused, and connections are closed
        with a reason. A second Ctrl-C ends the process as usual.

        Args:
            on_ready (`Callable`, *optional*): Called when clients can connect.
        """
        with contextlib.ExitStack() as handlers:
            self._thread.run(self._serve(lambda: (handlers.enter_context(self._stopping_on_signals()), on_ready())))

    def __enter__(self) -> "PolicyServer":
        ready: Future[None] = Future()

        def work() -> None:
            try:
                self._thread.run(self._serve(lambda: ready.set_result(None)))
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

        self._background = threading.Thread(target=work, name="policy server", daemon=True)
        self._background.start()
        ready.result()
        return self

    def __exit__(self, *exception: object) -> None:
        # A loop that has ended by itself cannot be told to.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._background.join()

    async def _serve(self, on_ready: Callable[[], Any]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        protocol = self._make_protocol()
        await protocol.start()
        self.url = protocol.url
        predicting = asyncio.create_task(self.service.queue.run(self.policy.warm_up))
        stopping = asyncio.create_task(self._stop.wait())
        on_ready()
        # The first ends by itself only by a failure.
        await asyncio.wait((predicting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self.service.queue.close()
        await protocol.close()
        await predicting

    def _make_protocol(self) -> OpenPIProtocol | GrootProtocol:
        if self.protocol == "gr00t":
            return GrootProtocol(self.service, self._host, self._port, api_key=self._api_key)
        return OpenPIProtocol(self.service, listen(self._host, self._port), api_key=self._api_key)

    @contextlib.contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """Makes the first signal stop the server. The second one does what it did before."""
        # Not those of the event loop, which only the main thread may take away again.
        before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for each, handler in before.items():
                signal.signal(each, handler)

        def stop(*_: object) -> None:
            restore()
            self._loop.call_soon_threadsafe(self._stop.set)

        for each in before:
            signal.signal(each, stop)
        try:
            yield
        finally:
            restore()


__all__ = ["DEFAULT_PORTS", "PolicyServer"]
