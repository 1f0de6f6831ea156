# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The pages in Chromium, from a click to the film, on a screen's width and on a phone's, without a request to another machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from helpers.preference_demonstrations import write_demonstrations
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15 import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.preferences import FlowSampler, GroundTruthActionReward, WeightedReward, build_preferences

HOW = "make test-demo, with chromium on the PATH or its file in CHROMIUM"
pytest.importorskip("gradio", reason=f"the extra `demo` is not installed: {HOW}")
playwright = pytest.importorskip("playwright.sync_api", reason=f"playwright is not installed: {HOW}")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=f"there is no Chromium: {HOW}")]

SIZES = {"screen": (1200, 900), "phone": (390, 844)}
# Beside other work the first answers of a model take long.
PATIENCE = 180_000  # ms


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--headless", "--disable-gpu", "--no-zygote"]
        )
        yield browser
        browser.close()


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The address of the page that a command shows; the command must end well after Ctrl-C."""
    command = [sys.executable, "-m", "nora15_hf.commands", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = next((line for line in process.stdout if line.startswith("The page is at")), "")
        yield re.search(r"http://\S+:\d+", line)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@contextmanager
def opened(browser, url: str, size: Sequence[int]):
    """The page at an address. In the end it must fit into the width, and have asked nobody else."""
    page = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
    page.set_default_timeout(PATIENCE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.locator("figure.nora15 img").first.wait_for()
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    page.close()


def test_the_demo_from_click_to_film(browser, folders, tmp_path):
    Image.fromarray(np.full((56, 56, 3), 120, np.uint8)).save(tmp_path / "picture.png")
    with served(
        "demo",
        folders / "policy",
        "--world-model",
        folders / "world-model",
        "--tasks",
        "faucet-open",
    ) as url:
        for size in SIZES.values():
            with opened(browser, url, size) as page:
                page.get_by_role("button", name="Draw and rank").first.click()
                page.get_by_text("is ranked first").wait_for()
                page.get_by_text("times as far as it does").wait_for()
                page.get_by_label("number input for Chunks to execute at most").fill("2")
                page.get_by_role("button", name="Execute the best").click()
                film = page.locator("#film video")
                film.wait_for()
                assert film.get_attribute("src").startswith("data:video/mp4;base64,")
                page.get_by_text("Not done yet after 10 steps, 10 of them in this film").wait_for()

        with opened(browser, url, SIZES["phone"]) as page:
            page.get_by_role("tab", name="Your own picture").click()
            panel = page.get_by_role("tabpanel").filter(has_text="Nothing is executed here")
            panel.get_by_role("button", name="Draw and rank").click()
            page.get_by_text("The picture of camera 'image' is missing").wait_for()
            panel.locator("input[type=file]").first.set_input_files(tmp_path / "picture.png")
            panel.get_by_label("Instruction").fill("open the faucet")
            panel.get_by_role("button", name="Draw and rank").click()
            panel.get_by_text("Without a goal they are not ranked").wait_for()
            panel.get_by_text("the chunks are not drawn on it").wait_for()


def test_the_pairs_of_a_preference_set(browser, folders, tmp_path):
    instructions = ("open the faucet", "close the faucet")
    dataset = LeRobotDataset(write_demonstrations(tmp_path / "data", instructions=instructions), dataset_key="default")
    build_preferences(
        tmp_path / "preferences",
        policy=Nora15ForActionPrediction.from_pretrained(folders / "policy"),
        processor=Nora15Processor.from_pretrained(folders / "policy"),
        dataset=dataset,
        indices=range(len(dataset)),
        reward=WeightedReward({"demonstration": (GroundTruthActionReward(), 1.0)}),
        num_candidates=2,
        sampler=FlowSampler(num_steps=1),
        progress=False,
    )
    with served("view", tmp_path / "preferences", "--policy", folders / "policy") as url:
        for size in SIZES.values():
            with opened(browser, url, size) as page:
                count = page.locator("#count")
                count.get_by_text("Pair 1 of 16").wait_for()
                page.get_by_role("button", name="Next pair").click()
                count.get_by_text("Pair 2 of 16").wait_for()
                count.get_by_text("decided by demonstration").wait_for()
                page.get_by_label("Instruction").click()
                page.get_by_role("option", name="close the faucet").click()
                count.get_by_text("Pair 1 of 9").wait_for()
