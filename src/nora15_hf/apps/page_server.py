# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A Gradio page behind a port of this machine, without a request to any other."""

import os
import socket
import webbrowser
from collections.abc import Callable
from contextlib import asynccontextmanager

from ..simulation.installation import extra_command

# Read when gradio is imported; it would ask its own servers for the newest version and report what is used.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

try:
    import gradio
    import uvicorn
    from fastapi import FastAPI
except ModuleNotFoundError as error:
    raise ImportError(
        f"The pages of nora15 demo and nora15 view need the extra `demo`. Install it with: {extra_command('demo')}."
    ) from error

from .page_parts import CSS

SECONDS_TO_FINISH = 2
"""For requests that are answered when the server is told to end."""


def serve_page(page: gradio.Blocks, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """
    Serves a page until Ctrl-C or SIGTERM.

    Args:
        page (`gradio.Blocks`): The page.
        listening (`socket.socket`): Where, see [`~nora15_hf.runtime.listening.listen`].
        on_ready (`Callable`): Called when browsers can connect.
    """
    host, port = listening.getsockname()[:2]

    @asynccontextmanager
    async def announced(_: FastAPI):
        on_ready()
        yield

    app = gradio.mount_gradio_app(
        FastAPI(lifespan=announced),
        page,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
        css=CSS,
    )
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_FINISH)
    uvicorn.Server(config).run(sockets=[listening])


def require_browser(url: str) -> webbrowser.BaseBrowser:
    """
    The browser of this machine.

    Raises:
        OSError: There is none.
    """
    try:
        return webbrowser.get()
    except webbrowser.Error as error:
        raise OSError(
            f"No browser was found here. Leave out --open-browser and open {url} where there is one."
        ) from error


__all__ = ["require_browser", "serve_page"]
