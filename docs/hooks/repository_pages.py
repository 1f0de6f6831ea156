# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Files of the repository outside `docs/` become pages of the site, links between the two lead to these pages, and no page of the
site loads anything from elsewhere.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "plugins/lerobot_policy_nora15/README.md": "lerobot_plugin.md",
}
_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
_LOADED_FROM_ELSEWHERE = re.compile(
    r'<(?:script|img|iframe|source|video)\b[^>]*\bsrc="(?:\w+:)?//[^"]*"|<link\b[^>]*\bhref="(?:\w+:)?//[^"]*"'
)


def on_files(files, config):
    """Called by mkdocs with all files of the site."""
    for source, page in PAGES.items():
        text = (Path(config.docs_dir).parent / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page, **kwargs) -> str:
    """Called by mkdocs with the source of a page, before its links are checked."""
    uri = page.file.src_uri
    folder = posixpath.dirname(_SOURCES.get(uri, f"docs/{uri}"))

    def on_the_site(link: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        target = PAGES.get(path, path.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(uri) or '.')}"

    return _LINK.sub(on_the_site, markdown)


def on_post_page(output: str, page, **kwargs) -> str:
    """Called by mkdocs with the HTML of a page."""
    if found := _LOADED_FROM_ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} would load {found[0]} from the network.")
    return output
