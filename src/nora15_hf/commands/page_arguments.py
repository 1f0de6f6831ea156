# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of every command that shows a page in a browser."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from . import option_types


@dataclass(kw_only=True)
class PageArguments:
    """Where the page is."""

    host: str = field(
        default="127.0.0.1",
        metadata={"help": "address to listen to; 0.0.0.0 lets the whole network in, without a password"},
    )
    port: int = field(
        default=7860, metadata={"parse": option_types.port, "help": "port to listen to, 0 for any that is free"}
    )
    open_browser: bool = field(
        default=False, metadata={"flag": True, "help": "open the page in this machine's browser"}
    )

    def open_page(self) -> tuple[socket.socket, Callable[[], None]]:
        """
        The socket to serve on, and what to call once the page is served: it prints the address.

        Raises:
            ImportError: The extra `demo` is not installed.
            OSError: The port is in use, the host is not one of this machine, or there is no browser to open.
        """
        from ..apps.page_server import require_browser
        from ..runtime.listening import listen

        listening = listen(self.host, self.port)
        name = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        url = f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}"
        browser = require_browser(url) if self.open_browser else None

        def say_where() -> None:
            print(f"The page is at {url}. Ctrl-C ends it.", flush=True)
            if browser is not None:
                browser.open(url)

        return listening, say_where


__all__ = ["PageArguments"]
