# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Bars of several libraries on a stream that is no terminal, by a clock that the test moves."""

import io
import sys

import datasets
import huggingface_hub.utils as hub_utils
import pytest
from datasets.utils import tqdm as datasets_tqdm
from huggingface_hub.utils import tqdm as hub_tqdm
from tqdm.auto import tqdm

from nora15_hf.runtime.progress import PlainProgress, plain_progress, whole_run


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def bars_of_the_libraries():
    """The libraries' switches belong to the whole process, and the quickstart turns them off."""
    were_disabled = datasets.are_progress_bars_disabled(), hub_utils.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    hub_utils.enable_progress_bars()
    yield
    if were_disabled[0]:
        datasets.disable_progress_bars()
    if were_disabled[1]:
        hub_utils.disable_progress_bars()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def written():
    return io.StringIO()


@pytest.fixture
def stream(written, clock):
    return PlainProgress(written, clock)


@pytest.mark.parametrize("bar_class", [tqdm, datasets_tqdm, hub_tqdm])
def test_a_line_every_fifteen_seconds(stream, written, clock, bar_class):
    with bar_class(total=40, desc="Encoder", file=stream, mininterval=0, miniters=1) as bar:
        for _ in range(40):
            clock.now += 1
            bar.update()
    lines = written.getvalue().splitlines()
    assert [line.partition(" [")[0].split() for line in lines] == [
        ["Encoder:", "38%", "15/40"],
        ["Encoder:", "75%", "30/40"],
    ]


def test_short_bars_leave_nothing(stream, written, clock):
    for _ in range(5):
        for _ in tqdm(range(10), file=stream, mininterval=0):
            clock.now += 0.2
    assert written.getvalue() == ""


def test_bars_inside_of_bars(stream, written, clock):
    for _ in tqdm(range(4), desc="outer", file=stream, mininterval=0):
        for _ in tqdm(range(10), desc="inner", file=stream, mininterval=0, leave=False):
            clock.now += 1
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.startswith(("inner", "outer")) for line in lines)


def test_other_text_passes(stream, written, clock):
    stream.write("a warning\n")
    with tqdm(total=3, file=stream, mininterval=0) as bar:
        bar.update()
        tqdm.write("a message", file=stream)
        bar.update()
        stream.write("Traceback\n  line\n")
    print("the end", file=stream)
    print(file=stream)
    assert written.getvalue() == "a warning\na message\nTraceback\n  line\nthe end\n\n"


def test_a_command_wraps_its_standard_error(monkeypatch, written):
    monkeypatch.setattr(sys, "stderr", written)

    @plain_progress()
    def command() -> None:
        for _ in tqdm(range(3)):
            pass
        print("done", file=sys.stderr)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command()
    assert sys.stderr is written
    assert written.getvalue() == "done\n"


def test_a_terminal_keeps_its_bars(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with plain_progress():
        assert sys.stderr is terminal


COLOURED, PLAIN = "\x1b[31mmissing\x1b[0m weights\n", "missing weights\n"


@pytest.mark.parametrize(
    ("kind", "no_color", "shown"),
    [(Terminal, "", COLOURED), (Terminal, "1", PLAIN), (io.StringIO, "", PLAIN), (io.StringIO, "1", PLAIN)],
)
def test_colours_only_on_a_terminal_and_without_no_color(monkeypatch, kind, no_color, shown):
    stream = kind()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("NO_COLOR", no_color)
    with plain_progress():
        print(COLOURED, end="", file=sys.stderr)
    assert stream.getvalue() == shown


def test_a_terminal_shows_the_whole_run_above_its_stage(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with whole_run(10, "Quickstart") as whole:
        with tqdm(total=4, desc="Encoder", mininterval=0, leave=False) as stage:
            stage.update(2)
            assert (whole.pos, stage.pos) == (0, 1)
        whole.update(5)
        whole.refresh()
        assert "Quickstart:  50%" in str(whole)
        assert str(whole).endswith("left")
    assert "Encoder:  50%" in terminal.getvalue()


def test_without_a_terminal_the_whole_run_is_not_drawn(monkeypatch, written):
    monkeypatch.setattr(sys, "stderr", written)
    with whole_run(10, "Quickstart") as whole:
        whole.update(5)
    assert written.getvalue() == ""
