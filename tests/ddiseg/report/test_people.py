"""The section about people: what it says and draws, and what it says where there is nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ddiseg.catalogue import Arm
from ddiseg.evaluation.annotator_study import WorkReport, summarise
from ddiseg.evaluation.measures import MaskMeasures
from ddiseg.report import people as section
from ddiseg.report.page import write_report
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.evaluation.mask_rows import mask
from tests.ddiseg.people import People, lesion
from tests.ddiseg.report.conftest import Page

Render = Callable[[list[MaskMeasures]], Page]


def page_of(workspace: Workspace) -> Page:
    return Page(write_report(workspace).path.read_text("utf-8"))


@pytest.fixture
def page(worked: Workspace, monkeypatch: pytest.MonkeyPatch) -> Render:
    """page(rows): the report as it is with these accepted masks."""

    def page(rows: list[MaskMeasures]) -> Page:
        def found(_workspace: Workspace) -> WorkReport:
            return summarise(rows, ["fedd-1"])

        monkeypatch.setattr(section, "work_report", found)
        return page_of(worked)

    return page


def figures(page: Page) -> list[str]:
    """What a reader is told who can't see the section's figures."""
    said = [str(svg["aria-label"]) for svg in page.all("svg")]
    return [text for text in said if "interval, by tone" in text or "order of acceptance" in text]


@pytest.mark.slow
def test_people__drawn_on_a_server(worked: Workspace) -> None:
    people = People(worked)
    for _ in range(10):
        people.accept(lesion(6), lesion(2), seconds=30)
        people.accept(lesion(9), lesion(1), seconds=90, arm=Arm.CONTROL)
    people.accept(lesion(9), lesion(1), tone="V-VI", arm=Arm.CONTROL)
    page = page_of(worked)
    text = page.text
    assert "(n = 21 images of 21 patients)." in text
    assert "Faster with the prediction: 30 s [30, 30] with it, 90 s [90, 90]" in text
    assert "difference -60 s [-60, -60] (n = 10 and 11 images of 10 and 11 patients)." in text
    few = "Too few patients for a conclusion: no images with it, 30 s (too few: 1 patient) without"
    assert f"tone V-VI {few} (n = 0 and 1 images of 0 and 1 patients)" in text
    cells = "30 [30, 30] 30 [30, 30] 0.50 [0.50, 0.50] 0.73 [0.73, 0.73] 8.3 [8.3, 8.3] —"
    assert f"all tones shown 10 10 {cells} control 11 11" in text
    assert "control: the prediction was withheld" in text
    [arms] = figures(page)
    assert "median seconds, pixels changed, %, lesion Dice" in arms
    assert "Faster with the prediction" in arms
    assert "two readers' Dice" not in arms, "nothing was read twice"
    assert all(f">{said}<" in page.html for said in ("n=11", "n=1", "no images"))


@pytest.mark.slow
def test_people__nothing_drawn_on_a_server_says_how(worked: Workspace) -> None:
    page = page_of(worked)
    assert (
        "Annotators and the model No accepted mask comes from a labelling server yet" in page.text
    )
    assert figures(page) == []


def rising(n: int = 60, **more: float) -> list[MaskMeasures]:
    """Both arms; from the half on, all is accepted unchanged."""
    return [
        mask(
            k,
            unchanged=k % 3 > 0 and k > n / 2,
            arm=(Arm.PREDICTED, Arm.CONTROL)[k % 3 == 0],
            **more,
        )
        for k in range(n)
    ]


@pytest.mark.slow
def test_people__over_time(page: Render) -> None:
    found = page([*rising(), *(mask(900 + k, tone="V-VI") for k in range(2))])
    text = found.text
    assert "either the model predicts better, or annotators check less closely" in text
    assert "How to tell the two explanations apart" in text
    _, drift = figures(found)
    assert "It rose, from" in drift
    assert "(n = 21 and 21 images of 21 and 21 patients)" in drift
    assert "tone V-VI, n=2" in found.html
    assert "Dot: 10 to 11 masks, accepted consecutively" in text
    assert text.index("Over time") < text.index("no. 1 to 10")


@pytest.mark.slow
def test_people__too_few_over_time_are_not_drawn(page: Render) -> None:
    found = page([mask(k) for k in range(12)])
    assert len(figures(found)) == 1
    assert "too few images (n = 12 images of 12 patients)" in found.text
    assert "'ddiseg label push --control 20'" in found.text
    assert "it was withheld, at random" not in found.text, "no legend of an arm that there is not"


@pytest.mark.slow
def test_people__one_patient_is_drawn_without_an_interval(page: Render) -> None:
    found = page([mask(k, patient="the same") for k in range(40)])
    assert len(figures(found)) == 2
    assert "30 s (too few: 1 patient) (n = 40 images of 1 patient)" in found.text
    assert "[" not in figures(found)[0]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(True, True), (False, False)])
def test_people__all_alike_is_drawn(page: Render, flags: tuple[bool, bool]) -> None:
    found = page([mask(k, unchanged=flags[k % 2], changed=0.0, seconds=0.0) for k in range(24)])
    assert len(figures(found)) == 2
    assert "No clear change" in found.text


@pytest.mark.slow
def test_people__bare_alone_has_one_line(page: Render) -> None:
    found = page([mask(k, arm=Arm.BARE, dice=None) for k in range(6)])
    assert figures(found) == []
    assert "No accepted mask was drawn with a prediction shown" in found.text
    assert "all tones bare 6 6 30 (too few: 6 patients)" in found.text


@pytest.mark.slow
def test_people__accessible_and_whole(page: Render) -> None:
    found = page(rising(readers=0.9))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in found.all("svg"))
    assert all(cell.get("scope") for cell in found.all("th"))
    ids = [attributes["id"] for _, attributes in found.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert ids.count("people") == 1
    assert "two readers' Dice" in figures(found)[0]
