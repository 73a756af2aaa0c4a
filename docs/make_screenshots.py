"""The pictures of annotating.md: `python -m docs.make_screenshots` makes them anew, in some minutes.

An annotator, a reviewer and their commands are played through the real program: phantoms (drawings
made by code; they show no person), a Label Studio of `ddiseg label up`, a headless Chromium. Needs
what `make test` needs, and Chromium (CHROMIUM names another one than the machine's).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser

from ddiseg.ingest.rendered import render_ddi
from ddiseg.labelstudio.embedded.accounts import Account, read_accounts
from tests.live.browser import Person, browser

PICTURES = Path(__file__).parent / "images" / "annotating"

#: Phantoms that are rendered, by a seed that gives a ring, rulers, drapes, glare and every tone.
COUNT, SEED = 24, 5
#: Those that two people read; those that one does. The model learns from the true masks of the others.
TWICE, ONCE = (17, 21), (9, 15, 19, 23)

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
    """Make every picture, and say how large it is."""
    with tempfile.TemporaryDirectory() as folder:
        play = _Play(Path(folder))
        play.prepare()
        url = play.ddiseg("label", "up")["url"]
        try:
            with browser() as opened:
                play.run(opened, url)
        finally:
            play.ddiseg("label", "down")
    for path in sorted(PICTURES.iterdir()):
        sys.stdout.write(f"{path.name}: {path.stat().st_size / 1000:.0f} kB\n")


class _Play:
    """One image after the other through the hands of two people, in a workspace of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._root = folder, folder / "work"

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

    def prepare(self) -> None:
        """A workspace of phantoms, painted by a model that learned from most of them."""
        photographs, truth = self._folder / "ddi", self._folder / "masks"
        render_ddi(photographs, truth, COUNT, SEED)
        for number in (*TWICE, *ONCE):
            (truth / _name(number)).unlink()
        people = ("--annotator", "reader-1", "--reviewer", "reader-2")
        self.ddiseg("init")
        self.ddiseg("import", photographs)
        self.ddiseg("masks", "import", truth, "--as", "png", *people)
        self.ddiseg("refresh")
        self.ddiseg("prelabel")

    def run(self, opened: Browser, url: str) -> None:
        """Annotate, read twice, review, return; a picture of each."""
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
        _write(path, "login", (780, 250, 1320, 660))
        page.close()

    def _log_in(self, opened: Browser, url: str, account: Account) -> Person:
        return Person(opened, url, account.email, account.password, self._folder)

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
        _write(sorted(agreement.glob("*.png"))[0], "agreement")
        self.ddiseg("review", "list", "--pictures", waiting)
        _write(sorted(waiting.glob("*.png"))[0], "waiting")

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

    def _keep(self, person: Person, name: str, box: Box) -> None:
        """A picture of the window, without the note that the last answer was saved."""
        person.page.get_by_text("successfully").first.wait_for(state="hidden")
        _write(person.shot(name), name, box)


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _settle(person: Person) -> None:
    """Wait until the list of tasks has its thumbnails."""
    person.page.wait_for_load_state("networkidle")
    person.page.wait_for_timeout(1500)


def _write(source: Path, name: str, box: Box | None = None) -> None:
    """Keep a part of a picture in 256 colours; each class keeps its own."""
    picture = Image.open(source).convert("RGB").crop(box)
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    few = picture.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    if path.stat().st_size > BYTES:
        raise SystemExit(f"{path} has more than {BYTES} bytes: take a smaller part of the window")


if __name__ == "__main__":
    main()
