# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The Python blocks of README and docs run, the `nora15` commands they show exist, and their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT
from nora15_hf.commands.dispatcher import parse

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Their blocks train.
SLOW = ("preferences.md", "training.md", "world_model.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINKING = [
    *PAGES,
    *sorted((ROOT / "docs" / "api").glob("*.md")),
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    ROOT / "plugins" / "lerobot_policy_nora15" / "README.md",
]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(page.read_text()) if found == language]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if blocks(page, "python")
    ],
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    # All blocks of a page in one namespace and one empty folder, in order, as a reader would type them. A block that begins
    # with the name of a file is that file, too.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace = {}
    for code in blocks(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / name[1]).write_text(code)
        exec(compile(code, page.name, "exec"), namespace)


def shown_commands() -> list[list[str]]:
    """The words behind `nora15`, also of commands that `accelerate launch -m nora15_hf.commands.NAME` starts."""
    found = []
    for line in (line for page in PAGES for code in blocks(page, "bash") for line in code.splitlines()):
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["nora15"]:
            found.append(words[1:])
        elif words[:2] == ["accelerate", "launch"]:
            module = words.index("-m") + 1
            name = words[module].removeprefix("nora15_hf.commands.").replace("_", "-")
            # What a machine without a GPU refuses; labelling and rounds have no such options.
            without_gpu = [] if name in ("preferences", "rounds") else ["--use-cpu", "true", "--bf16", "false"]
            found.append([name, *words[module + 1 :], *without_gpu])
    return found


def test_shown_commands_parse(tmp_path, monkeypatch):
    # With what the quickstart and the earlier commands of a page leave.
    monkeypatch.chdir(tmp_path)
    for name in ("demonstrations", "policy-sft", "policy-dpo", "world-model", "preferences"):
        (tmp_path / "outputs" / "quickstart" / name).mkdir(parents=True)
    for name in ("evaluation/sft", "libero-soup"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    commands = shown_commands()
    assert commands
    assert {"sft", "dpo", "push"} <= {command[0] for command in commands}
    for command in commands:
        for word in command:
            if command[0] in ("push", "card") and word.startswith("outputs/"):
                Path(word).mkdir(parents=True, exist_ok=True)
        parse(command)


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        match for code in blocks(ROOT / "README.md", "bash") for match in re.findall(r"^make (\w+)", code, re.M)
    }
    assert {"quickstart", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may be, as forges and Python-Markdown form it."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for file, anchor in LINK.findall(BLOCK.sub("", page.read_text())):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {file}, which does not exist"
        assert not anchor or anchor in anchors(target), f"{page.name} links to #{anchor}, which {target.name} lacks"


def test_the_site_has_every_page():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def pages(entries: list) -> list[str]:
        for entry in entries:
            for content in entry.values():
                yield from pages(content) if isinstance(content, list) else [content]

    docs = ROOT / "docs"
    in_docs = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    outside = {"changelog.md", "contributing.md", "security.md", "lerobot_plugin.md"}  # docs/hooks/repository_pages.py
    assert set(pages(site["nav"])) == in_docs | outside
