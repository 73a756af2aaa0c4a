"""The pictures of annotating.md and loop.md: `python -m docs.make_screenshots` makes them anew.

It takes some minutes; `python -m docs.make_screenshots loop` makes those of one page alone. An
annotator, a reviewer and their commands are played through the real program: phantoms (drawings
made by code; they show no person), a Label Studio of `ddiseg label up`, a headless Chromium. Only
the work that the report's page sums up is simulated. Needs what `make test` needs, and Chromium
(CHROMIUM names another one than the machine's).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page

from ddiseg.catalogue import Arm
from ddiseg.ingest.rendered import render_ddi
from ddiseg.labelstudio.embedded.accounts import Account, read_accounts
from ddiseg.report.page import write_report
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.people import People, lesion
from tests.live.browser import Person, browser

IMAGES = Path(__file__).parent / "images"

#: Phantoms that are rendered, by a seed that gives a ring, rulers, drapes, glare and every tone.
COUNT, SEED = 24, 5
#: Those that two people read; those that one does. The model learns from the true masks of the others.
TWICE, ONCE = (17, 21), (9, 15, 19, 23)

#: The loop's: as many are learned from, and this one is opened; where its ruler is clicked.
LEARNED, OPENED = 6, 23
RULER = (0.63, 0.3)
#: Masks that simulated people draw for the report, and the share that the control arm has.
DRAWN, CONTROL = 150, 0.25

#: Most that a picture may hold, in pixels of width, and in bytes.
WIDTH, BYTES = 1200, 150_000

Box = tuple[int, int, int, int]  #: left, top, right, bottom in pixels
#: What a person works at in Label Studio's window, without and with the list of regions.
EDITOR: Box = (0, 48, 1085, 900)
REGIONS: Box = (0, 48, 1400, 900)
#: A list of tasks, with its first rows.
LIST: Box = (0, 0, 1400, 460)

#: A task in such a list.
ROW = ".lsf-table-row"

COMMENT = "Right: redness that fades out is skin"


def main() -> None:
    """Make every picture, or those of the pages named, and say how large each is."""
    plays: dict[str, type[_Play]] = {"annotating": _Annotating, "loop": _Loop}
    for page in sys.argv[1:] or plays:
        with tempfile.TemporaryDirectory() as folder:
            play = plays[page](Path(folder), IMAGES / page)
            play.prepare()
            url = play.ddiseg("label", "up")["url"]
            try:
                with browser() as opened:
                    play.run(opened, url)
            finally:
                play.ddiseg("label", "down")
        for path in sorted((IMAGES / page).iterdir()):
            sys.stdout.write(f"{page}/{path.name}: {path.stat().st_size / 1000:.0f} kB\n")


class _Play(ABC):
    """Phantoms in a workspace of its own, the people at its Label Studio, and their pictures."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self._folder, self._root, self._pictures = folder, folder / "work", pictures

    @abstractmethod
    def prepare(self) -> None:
        """Make the workspace."""

    @abstractmethod
    def run(self, opened: Browser, url: str) -> None:
        """Do what people do, and take pictures of it."""

    def ddiseg(self, *words: object) -> dict[str, Any]:
        """What a command answers; a failure ends the script with what the command said."""
        program = Path(sys.executable).with_name("ddiseg")
        done = subprocess.run(
            [program, *map(str, words), "--workspace", self._root, "--output", "json"],
            stdout=subprocess.PIPE,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _learn(self, numbers: Set[int]) -> None:
        """A workspace of phantoms with a model that learned from the true masks of some."""
        photographs, truth = self._folder / "ddi", self._folder / "masks"
        render_ddi(photographs, truth, COUNT, SEED)
        for number in {*range(1, COUNT + 1)} - numbers:
            (truth / _name(number)).unlink()
        people = ("--annotator", "reader-1", "--reviewer", "reader-2")
        self.ddiseg("init")
        self.ddiseg("import", photographs)
        self.ddiseg("masks", "import", truth, "--as", "png", *people)
        self.ddiseg("refresh")

    def _log_in(self, opened: Browser, url: str, account: Account) -> Person:
        return Person(opened, url, account.email, account.password, self._folder)

    def _keep(self, person: Person, name: str, box: Box) -> None:
        """A picture of the window, without the note that the last answer was saved."""
        person.page.get_by_text("successfully").first.wait_for(state="hidden")
        self._write(person.shot(name), name, box)

    def _write(self, source: Path, name: str, box: Box | None = None) -> None:
        """Keep a part of a picture in 256 colours; each class keeps its own."""
        picture = Image.open(source).convert("RGB").crop(box)
        picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        self._pictures.mkdir(parents=True, exist_ok=True)
        path = self._pictures / f"{name}.png"
        few = picture.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        if path.stat().st_size > BYTES:
            raise SystemExit(
                f"{path} has more than {BYTES} bytes: take a smaller part of the window"
            )


class _Annotating(_Play):
    """One image after the other through the hands of two people."""

    def prepare(self) -> None:
        """All images are predicted by a model that was trained on most of them."""
        self._learn({*range(1, COUNT + 1)} - {*TWICE, *ONCE})
        self.ddiseg("prelabel")

    def run(self, opened: Browser, url: str) -> None:
        """Annotate, read twice, review, return."""
        accounts = read_accounts(self._root)
        self._show_login(opened, url, accounts["annotator"])
        annotator = self._log_in(opened, url, accounts["annotator"])
        reviewer = self._log_in(opened, url, accounts["reviewer"])
        self.ddiseg("label", "push", *map(_name, TWICE), "--readers", 2)
        project = self.ddiseg("label", "push")["project"]
        self._annotate(annotator, project)
        self._read_again(reviewer, project)
        reviewer.open(project)
        _settle(reviewer)
        self._keep(reviewer, "tasks", LIST)
        self.ddiseg("label", "pull")
        self._compare()
        tabs = self.ddiseg("review", "push")["tabs"]
        self._review(reviewer, tabs[accounts["reviewer"].email])
        self.ddiseg("review", "pull")
        annotator.open(self.ddiseg("label", "push")["returned"])
        _settle(annotator)
        annotator.page.locator(ROW).first.click()
        annotator.wait_for_picture()
        self._keep(annotator, "returned", EDITOR)

    def _show_login(self, opened: Browser, url: str, account: Account) -> None:
        page = opened.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", account.email)
        page.fill("input[name=password]", account.password)
        path = self._folder / "login.png"
        page.screenshot(path=path)
        self._write(path, "login", (780, 250, 1320, 660))
        page.close()

    def _annotate(self, annotator: Person, project: str) -> None:
        """One image after the other: mended, as it is, skipped, spoilt, and the rest as they are.

        Places are shares of the drawing area, whose left two thirds the picture takes.
        """
        annotator.label_all(project)
        self._keep(annotator, "painted", EDITOR)
        annotator.stroke("1", (0.15, 0.17), (0.28, 0.09))
        self._keep(annotator, "stroke", REGIONS)
        annotator.submit()
        annotator.submit()
        annotator.press("5")
        annotator.write("Note", "hair over the whole rim")
        self._keep(annotator, "skip", EDITOR)
        annotator.skip()
        annotator.stroke("1", (0.52, 0.42), (0.6, 0.5))
        annotator.submit()
        for _ in ONCE[2:]:
            annotator.submit()

    def _read_again(self, reader: Person, project: str) -> None:
        """What two people read, by the second: other strokes."""
        reader.label_all(project)
        reader.submit()
        reader.stroke("1", (0.46, 0.5), (0.53, 0.6))
        reader.submit()

    def _compare(self) -> None:
        agreement, waiting = self._folder / "agreement", self._folder / "waiting"
        self.ddiseg("agreement", "--pictures", agreement)
        self._write(sorted(agreement.glob("*.png"))[0], "agreement")
        self.ddiseg("review", "list", "--pictures", waiting)
        self._write(sorted(waiting.glob("*.png"))[0], "waiting")

    def _review(self, reviewer: Person, tab: str) -> None:
        """The tab with its menu; the first mask is sent back, the second accepted."""
        reviewer.open(tab)
        _settle(reviewer)
        reviewer.page.locator("button:has-text('Label All Tasks') + button").click()
        reviewer.page.wait_for_timeout(500)
        self._keep(reviewer, "tab", LIST)
        reviewer.page.get_by_text("Label Tasks As Displayed").click()
        reviewer.wait_for_picture()
        reviewer.press("n")
        reviewer.write("Comment", COMMENT)
        self._keep(reviewer, "review", EDITOR)
        reviewer.submit()
        reviewer.press("y")
        reviewer.submit()


class _Loop(_Play):
    """A prediction made on opening a task, a click, and the page on people and the model."""

    def prepare(self) -> None:
        """The model is trained on few masks, and nothing is predicted beforehand."""
        self._learn({*range(1, LEARNED + 1)})

    def run(self, opened: Browser, url: str) -> None:
        project = self.ddiseg("label", "push", _name(OPENED))["project"]
        with self._served() as address:
            self.ddiseg("label", "backend", address, "--clicks")
            annotator = self._log_in(opened, url, read_accounts(self._root)["annotator"])
            annotator.label_all(project)
            self._keep(annotator, "opened", REGIONS)
            annotator.ask_by_click("ruler", RULER)
            self._keep(annotator, "click", REGIONS)
        self._show_people(opened)

    @contextmanager
    def _served(self) -> Iterator[str]:
        """`ddiseg serve`; yields its address."""
        program = Path(sys.executable).with_name("ddiseg")
        command = [program, "--workspace", self._root, "serve", "--port", 0]
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield process.stdout.readline().split()[-1]
            finally:
                process.send_signal(signal.SIGTERM)

    def _show_people(self, opened: Browser) -> None:
        workspace = Workspace.create(self._folder / "simulated")
        _simulate(workspace)
        page = opened.new_page(viewport={"width": 1000, "height": 900})
        page.goto(write_report(workspace).path.as_uri())
        titles, findings = page.locator("#people h2, #people h3"), page.locator("#people tbody")
        self._show_part(page, "people", titles.first, findings.nth(1))
        self._show_part(page, "drift", titles.last, page.locator("#people figure").last)
        page.close()

    def _show_part(self, page: Page, name: str, first: Locator, last: Locator) -> None:
        """A picture of a page that was not scrolled, from one of its elements to another."""
        start, end = first.bounding_box(), last.bounding_box()
        assert start is not None
        assert end is not None
        height = end["y"] + end["height"] - start["y"]
        path = self._folder / f"{name}.png"
        clip: FloatRect = {**start, "width": end["width"], "height": height}
        page.screenshot(path=path, clip=clip, full_page=True)
        self._write(path, name)


def _simulate(workspace: Workspace) -> None:
    """People who draw better than the model, mend it in less time, and accept more as it learns."""
    people, rng = People(workspace), np.random.default_rng(7)
    for k in range(DRAWN):
        withheld = rng.random() < CONTROL
        truth = int(rng.integers(12, 30))
        predicted = int(truth * (1 - rng.uniform(0, 0.4 - 0.3 * k / DRAWN)))
        kept = not withheld and rng.random() < 0.1 + 0.3 * k / DRAWN
        people.accept(
            lesion(predicted if kept else truth),
            lesion(predicted),
            arm=Arm.CONTROL if withheld else None,
            seconds=rng.lognormal(4.5 if withheld else 3.6, 0.35),
            tone=str(rng.choice(["I-II", "III-IV", "V-VI"], p=[0.4, 0.4, 0.2])),
            patient=f"patient-{rng.integers(DRAWN * 3 // 4)}",
        )


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _settle(person: Person) -> None:
    """Wait until the list of tasks has its thumbnails."""
    person.page.wait_for_load_state("networkidle")
    person.page.wait_for_timeout(1500)


if __name__ == "__main__":
    main()
