"""A person at Label Studio: real headless Chromium, the keys and strokes that a person makes."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from annotation_protocol import load_protocol

#: What keeps Chromium from calling home, and lets it run as root in a container.
_SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: The picture's canvas in Label Studio's editor.
CANVAS = ".konvajs-content canvas"

#: The names in the list of regions beside it.
REGIONS = ".lsf-outliner-item__title"

#: The label that the next stroke or click is of.
SELECTED = ".lsf-label_selected"

#: The tool that Auto-Annotation adds, and the button that takes what it suggests.
SMART_TOOL, ACCEPT = ".lsf-tool_smart", "[data-testid=bottombar-accept-suggestions-button]"

#: The mark there of those that came with the prediction, touched or not.
PREDICTED = ".lsf-outliner-item__control_type_predict svg"


def chromium() -> str | None:
    """The browser of this machine; CHROMIUM names another one."""
    given = os.environ.get("CHROMIUM")
    return given or shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=_SWITCHES)
        try:
            yield opened
        finally:
            opened.close()


class Person:
    """One account, logged in, with a window of its own."""

    def __init__(self, opened: Browser, url: str, email: str, password: str, shots: Path) -> None:
        self.url, self._shots = url, shots
        context = opened.new_context(viewport={"width": 1400, "height": 900})
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.goto(f"{url}/user/login/")
        self.page.fill("input[name=email]", email)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda at: "/login" not in at)

    def open(self, address: str) -> None:
        """Go to a page of the server."""
        self.page.goto(address if address.startswith("http") else self.url + address)

    def label_all(self, project_data: str) -> None:
        """The label stream of a project or of one of its tabs: what an annotator is offered next."""
        joint = "&" if "?" in project_data else "?"
        self.open(f"{project_data}{joint}labeling=1")
        self.wait_for_picture()

    def wait_for_picture(self) -> None:
        self.page.wait_for_selector(CANVAS)
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.konvajs-content canvas')].some(c => c.width > 50)"
        )
        self.page.wait_for_timeout(1500)  # regions are shown after the picture

    def nothing_left(self) -> bool:
        """Whether the label stream says that there is no task for this person."""
        self.page.wait_for_timeout(3000)
        return not self.page.locator(CANVAS).count()

    def picture(self) -> NDArray[np.uint8]:
        """What is seen of the photograph and the regions over it: (H, W, 3) uint8."""
        shot = self.page.screenshot(clip=self.page.locator(CANVAS).first.bounding_box())
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def stroke(self, hotkey: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Choose a class and draw one line; places are shares of the picture, (across, down)."""
        self.page.keyboard.press(hotkey)
        self.page.wait_for_timeout(200)
        box = self.page.locator(CANVAS).first.bounding_box()
        assert box is not None
        across, down = box["width"], box["height"]
        mouse = self.page.mouse
        mouse.move(box["x"] + start[0] * across, box["y"] + start[1] * down)
        mouse.down()
        mouse.move(box["x"] + end[0] * across, box["y"] + end[1] * down, steps=12)
        mouse.up()
        self.page.wait_for_timeout(500)

    def ask_by_click(self, label: str, place: tuple[float, float]) -> None:
        """Click for a region of a class with Auto-Annotation on, until one is suggested."""
        self.page.locator("label:has-text('Auto-Annotation')").last.click()
        self.page.locator(SMART_TOOL).last.click()
        self.press(load_protocol().class_named(label).click_hotkey)
        assert self.page.locator(SELECTED).inner_text().split()[0] == label
        box = self.page.locator(CANVAS).first.bounding_box()
        assert box is not None
        across, down = box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]
        self.page.keyboard.down("Control")  # else the click selects the region that is there
        with self.page.expect_response(lambda r: "interactive-annotating" in r.url):
            self.page.mouse.click(across, down)
        self.page.keyboard.up("Control")
        self.page.wait_for_selector(ACCEPT)
        self.page.wait_for_timeout(500)

    def accept_suggestion(self) -> None:
        self.page.click(ACCEPT)
        self.page.wait_for_timeout(500)

    def regions(self) -> set[str]:
        """The classes in the list of regions beside the picture."""
        return set(self.page.locator(REGIONS).all_inner_texts())

    def strokes(self) -> int:
        """Regions in that list that came with no prediction."""
        return self.page.locator(REGIONS).count() - self.page.locator(PREDICTED).count()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.page.wait_for_timeout(300)

    def write(self, placeholder: str, text: str) -> None:
        """Type into a text field and leave it."""
        self.page.fill(
            f"textarea[placeholder*='{placeholder}'], input[placeholder*='{placeholder}']", text
        )
        self.page.keyboard.press("Enter")
        self.page.wait_for_timeout(300)

    def submit(self) -> None:
        self._answer("button:has-text('Submit')")

    def skip(self) -> None:
        self._answer("button:has-text('Skip')")

    def update(self) -> None:
        self._answer("button:has-text('Update')")

    def shot(self, name: str) -> Path:
        """Keep a picture of the window."""
        self._shots.mkdir(parents=True, exist_ok=True)
        path = self._shots / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def _answer(self, button: str) -> None:
        """Press a button that sends the annotation, and wait until the server has it."""

        def sent(response: Any) -> bool:
            return "/annotations" in response.url and response.request.method in ("POST", "PATCH")

        with self.page.expect_response(sent):
            self.page.locator(button).last.click()
        self.page.wait_for_timeout(1500)
