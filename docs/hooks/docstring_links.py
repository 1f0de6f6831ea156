# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Docstrings link as transformers' do, with a name in brackets and backticks. The site shows the name as code."""

import re

_LINK = re.compile(r"\[<code>~?([\w.]+)</code>\]")


def on_page_content(html: str, **kwargs) -> str:
    """Called by mkdocs with the rendered page."""
    return _LINK.sub(lambda found: f"<code>{found.group(1).rpartition('.')[2] or found.group(1)}</code>", html)
