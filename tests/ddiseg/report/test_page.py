"""The report page: what it says, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol
from ddiseg.catalogue import Details, NewImage, NewMask, NewModelVersion
from ddiseg.catalogue.evaluations import Compared
from ddiseg.catalogue.tables import Image as Row
from ddiseg.cli.common import Group, common_options, run
from ddiseg.cli.report import report
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.report import contact_sheet, content, page
from ddiseg.report.contact_sheet import Pair, Reference
from ddiseg.report.page import write_report
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.conftest import HEIGHT, WIDTH
from tests.ddiseg.report.conftest import Page, evaluated, predict
from tests.wording import Refusal


def page_of(workspace: Workspace) -> Page:
    return Page(write_report(workspace).path.read_text("utf-8"))


@pytest.mark.training
def test_report__loads_nothing_and_runs_nothing(worked: Workspace) -> None:
    page = page_of(worked)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert str(value).startswith(("data:image/", "#"))
    assert not re.search(r"url\((?!#)|@import|https?://", page.html)
    (policy,) = [m for m in page.all("meta") if m.get("http-equiv")]
    assert str(policy["content"]).startswith("default-src 'none'")


@pytest.mark.training
def test_report__accessible(worked: Workspace) -> None:
    page = page_of(worked)
    assert page.all("html")[0]["lang"] == "en"
    assert all(h.get("scope") for h in page.all("th"))
    assert all(s["role"] == "img" and s["aria-label"] for s in page.all("svg"))
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    uses = {str(u["href"])[1:] for u in page.all("use")}
    assert uses <= set(ids)


@pytest.mark.training
def test_report__counts_with_n(worked: Workspace) -> None:
    text = page_of(worked).text
    assert "Number of images by tone and state, n = 3" in text
    assert "tone prelabelled accepted skipped all I-II 0 1 0 1 V-VI 1 0 0 1 unknown 0 0 1 1" in text
    assert "Number of images by diagnosis, n = 3" in text
    assert "On or near the scalp 1 1" in text
    assert "1 of 3 images (33 %) can't be labelled" in text
    assert "pilot 1 1 2" in text
    assert "clinic · licence: CC-BY-4.0 · source: not recorded" in text
    assert "fedd-1 on small, trained on 1 mask," in text


@pytest.mark.training
def test_report__evaluation_with_n_and_interval(worked: Workspace) -> None:
    text = page_of(worked).text
    assert "Predictions by fedd-1 (41 images) against the masks “truth-2”" in text
    assert "41 images of 38 patients" in text
    assert "30 with masks that the model was trained on, 1 with an unusable true mask" in text
    everything = " ".join(["0.61 [0.56, 0.65]"] * 3)
    assert f"lesion {everything} 41 41" in text
    dark = " ".join(["0.55 [0.50, 0.59]"] * 3)
    assert f"tone V-VI lesion {dark} 20 20 marker" in text
    few = " ".join(["0.38 (too few: 2 patients)"] * 3)
    assert f"marker {few} 2 2 too few patients" in text, "a value with its n, and no interval"
    assert "ruler — — — 0 0 too few patients" in text
    assert text.index("tone I-II lesion") < text.index("tone V-VI lesion")


@pytest.mark.training
def test_report__model_newer_than_its_evaluation_is_told(worked: Workspace) -> None:
    models = worked.catalogue.models
    assert "The current model is now" not in page_of(worked).text
    new = models.current()
    fields = ("file_hash", "backbone", "backbone_hash", "settings", "training_masks", "metrics")
    models.add(
        NewModelVersion(**{f: getattr(new, f) for f in fields}, protocol_version="1.0"), "tester"
    )
    assert "The current model is now fedd-2" in page_of(worked).text


def pictures(page: Page) -> list[str]:
    """What a reader is told who can't see the pictures of the contact sheet."""
    told = [str(svg["aria-label"]) for svg in page.all("svg")]
    return [text for text in told if text.startswith(("Photograph ", "Outlines "))]


@pytest.mark.training
def test_report__each_image_stands_once_with_what_it_has(
    worked: Workspace, wording: SnapshotAssertion
) -> None:
    page = page_of(worked)
    assert (
        pictures(page) == wording
    )  # 3.png is skipped, and 2.png stands nowhere else though it is the most doubtful
    assert "tone I-II · melanoma (malignant) · accepted no prediction" in page.text
    assert (
        "tone V-VI · naevus (benign) · prelabelled · uncertainty 0.250, no. 1 "
        "no mask yet; prediction of fedd-1" in page.text
    )
    assert "In the contact sheet above: no. 1, 2.png ." in page.text
    data = base64.b64decode(str(page.all("image")[0]["href"]).split(",")[1])
    with Image.open(io.BytesIO(data)) as picture:
        assert max(picture.size) == contact_sheet.SIDE


def test_report__neither_mask_nor_prediction_is_said_in_words(filled: Workspace) -> None:
    page = page_of(filled)
    assert pictures(page)[2:] == ["Photograph 2.png", "Photograph 3.png"]
    assert page.text.count("no mask yet, no prediction") == 2


def test_report__an_accepted_mask_stands_beside_the_prediction_before_it(
    filled: Workspace,
) -> None:
    predict(filled, 1)
    page = page_of(filled)
    assert "Outlines of prediction and accepted mask on 1.png" in pictures(page)
    # Rows 1 and 2 against 2 and 3 of columns 1 to 4 and 2 to 5: 3 pixels of 13 are in both.
    assert "1.png lesion IoU 0.23 tone I-II" in page.text
    assert (
        "accepted · uncertainty 0.250 prediction of fedd-1 compared with the accepted mask"
        in page.text
    )


@pytest.mark.training
def test_report__no_prediction_by_a_model_that_learned_from_the_mask(filled: Workspace) -> None:
    (accepted,) = filled.catalogue.masks.accepted().values()
    filled.catalogue.models.add(
        NewModelVersion("f" * 64, "small", "b" * 64, {}, [accepted.content_hash], {}, "1.0"), "t"
    )
    predict(filled, 1)
    page = page_of(filled)
    assert "Outlines of accepted mask on 1.png" in pictures(page)
    assert "accepted no prediction to compare: the model was trained on this mask" in page.text
    assert "lesion IoU 0" not in page.text


def truth_of(workspace: Workspace, image_id: int, lesion_iou: float | None, rows: int) -> Compared:
    """A prediction of an image and a true mask of `rows` rows of lesion, compared."""
    predict(workspace, image_id)
    truth = np.full((HEIGHT, WIDTH), 4, np.uint8)
    truth[:rows] = 1
    prediction = workspace.catalogue.masks.newest_predictions()[image_id]
    return Compared(image_id, prediction.id, workspace.store_mask(truth), lesion_iou)


@pytest.mark.training
def test_report__the_truth_of_the_last_evaluation_stands_beside_the_prediction(
    filled: Workspace,
) -> None:
    catalogue = filled.catalogue
    evaluated(filled)
    older, compared = truth_of(filled, 2, 0.91, 1), truth_of(filled, 3, 0.125, 2)
    catalogue.evaluations.add({}, [older], "tester")
    catalogue.evaluations.add({}, [compared], "tester")
    page = page_of(filled)
    assert "Outlines of prediction on 2.png" in pictures(page), "not of the last evaluation"
    assert "Outlines of prediction and true mask on 3.png" in pictures(page)
    assert "3.png lesion IoU 0.12 tone unknown" in page.text
    assert "prediction of fedd-1 compared with the true mask" in page.text
    assert "0.91" not in page.text


@pytest.mark.training
def test_report__a_missing_truth_is_told(filled: Workspace) -> None:
    compared = truth_of(filled, 2, 0.5, 1)
    evaluated(filled)
    filled.catalogue.evaluations.add({}, [compared], "tester")
    os.unlink(filled.store.path(Kind.MASK, compared.truth_hash))
    (reason,) = write_report(filled).unreadable
    assert reason.startswith("2.png: ")
    assert "the stored file is missing" in reason


@pytest.mark.training
def test_report__missing_photograph_is_told_and_the_rest_shown(worked: Workspace) -> None:
    image = worked.catalogue.images.find("2.png")
    os.unlink(worked.store.path(Kind.IMAGE, image.content_hash))
    summary = write_report(worked)
    assert len(summary.unreadable) == 1
    page = Page(summary.path.read_text("utf-8"))
    assert "Can't be shown" in page.text
    assert "Photograph 1.png" in pictures(page)
    assert "Photograph 2.png" not in pictures(page)


HOSTILE = "<script>alert('x')</script>\"&amp;$\\frac{1}{2}$\x07]]><b>"


@pytest.mark.training
def test_report__hostile_texts_stay_texts(worked: Workspace) -> None:
    catalogue = worked.catalogue
    catalogue.images.update_details([1], [Details(diagnosis=HOSTILE)], "tester")
    catalogue.images.dataset("clinic", source="javascript:alert(1)//<img src=x onerror=y>")
    catalogue.subsets.store({"<i>": [1]}, {}, "tester")
    page = page_of(worked)
    assert not page.all("script")
    assert not page.all("b")
    assert not page.all("i")
    assert not page.all("img")
    assert all(str(i["href"]).startswith("data:") for i in page.all("image"))
    assert HOSTILE.replace("\x07", "") in page.text.replace("\x07", "")


@pytest.mark.training
def test_report__letters_that_the_figures_font_lacks(worked: Workspace) -> None:
    worked.catalogue.images.update_details([1], [Details(diagnosis="黒色腫")], "tester")
    assert page_of(worked).text.count("黒色腫") >= 2


def counted(rows: list[Row]) -> Counter[tuple[str | None, bool | None, str]]:
    return Counter((row.diagnosis, row.malignant, row.tone) for row in rows)


@pytest.mark.training
def test_diagnoses__fifteen_most_frequent_then_other_then_none() -> None:
    rows = [Row(id=0, diagnosis=None, malignant=None, tone="I-II")]
    for k in range(1, 18):
        rows += [Row(diagnosis=f"kind {k:02}", malignant=k % 2 == 0, tone="I-II") for _ in range(k)]
    for number, row in enumerate(rows):
        row.id = number
    found = content.diagnoses(counted(rows), load_protocol())
    assert found is not None
    labels = [f"kind {k:02}" for k in range(17, 2, -1)]
    assert [b.label for b in found.bars] == [*labels, "other (2 diagnoses)", "not given"]
    assert [b.n for b in found.bars] == [*range(17, 2, -1), 3, 1]
    assert sum(b.n for b in found.bars) == len(rows)
    assert all(f">{b.label}<" in found.figure and f">{b.n}<" in found.figure for b in found.bars)
    again = content.diagnoses(counted(rows), load_protocol())
    assert again == found  # the figure too, to the last id


def test_diagnoses__by_tone_where_malignancy_is_unknown() -> None:
    rows = [Row(id=k, diagnosis="eczema", tone=t) for k, t in enumerate(("V-VI", "I-II", "V-VI"))]
    found = content.diagnoses(counted(rows), load_protocol())
    assert found is not None
    assert [name for name, _ in found.series] == ["I-II", "III-IV", "V-VI", "unknown"]
    assert found.bars[0].counts == (1, 0, 2, 0)


def test_report__empty_workspace_says_what_to_do(workspace: Workspace) -> None:
    page = page_of(workspace)
    assert "No photographs yet" in page.text
    assert "ddiseg import PATH" in page.text
    assert not page.all("svg")


@pytest.mark.training
def test_report__images_and_nothing_else(filled: Workspace) -> None:
    text = page_of(filled).text
    assert "Nothing was evaluated yet" in text
    assert "none yet: accept some masks, then run ddiseg refresh" in text
    assert "No image was skipped" in text
    assert "There is no subset" in text
    assert "No image has a diagnosis" in text
    assert "Most doubtful" not in text


@pytest.mark.training
def test_report__synthetic_is_what_the_dataset_says_not_its_licence(worked: Workspace) -> None:
    catalogue = worked.catalogue
    catalogue.images.dataset("clinic", "all rights surrendered", "portraits, rendered by hand")
    phantoms = catalogue.images.dataset("phantoms", synthetic=True)
    assert "ynthetic images" not in page_of(worked).text, "a dataset without an image"
    new = NewImage("9.png", "f" * 64, 1, 1, "c" * 64, "0" * 16, 8, 6)
    catalogue.images.add(phantoms.id, [new], "tester")
    said = "Partly synthetic images. The images of phantoms were made by code and show no person."
    assert said in page_of(worked).text


@pytest.mark.training
def test_report__all_images_synthetic(workspace: Workspace) -> None:
    phantoms = workspace.catalogue.images.dataset("phantoms", synthetic=True)
    new = NewImage("9.png", "f" * 64, 1, 1, "c" * 64, "0" * 16, 8, 6)
    workspace.catalogue.images.add(phantoms.id, [new], "tester")
    text = page_of(workspace).text
    assert "Synthetic images. The images on this page were made by code and show no person." in text


@pytest.mark.training
def test_report__replaces_its_own_and_nothing_else(
    worked: Workspace, tmp_path: Path, refusal: Refusal
) -> None:
    first = write_report(worked, tmp_path / "page.html")
    assert write_report(worked, tmp_path / "page.html").path == first.path
    (tmp_path / "thesis.html").write_text("<html>years of work</html>")
    with refusal(InputError):
        write_report(worked, tmp_path / "thesis.html")
    assert "years of work" in (tmp_path / "thesis.html").read_text()
    with pytest.raises(InputError, match="is a folder"):
        write_report(worked, tmp_path)


@pytest.mark.training
def test_report__full_disk_keeps_the_earlier_page(
    worked: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Refusal
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = write_report(worked, tmp_path / "out/page.html").path
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with refusal(WorkspaceError):
        write_report(worked, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


@pytest.mark.training
def test_report_command(worked: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    group = Group(name="ddiseg", params=common_options(), commands=[report])
    where = ["--workspace", str(worked.root)]
    assert run(group, [*where, "report"]) == 0
    assert "report of 3 images, 2 of them shown" in capsys.readouterr().out
    assert (worked.root / "report.html").is_file()
    target = str(worked.root / "b.html")
    assert run(group, [*where, "--output", "json", "report", "--to", target]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["report"], data["images"], data["shown"]) == (target, 3, 2)
    assert data["unreadable"] == []


@pytest.mark.training
def test_most_doubtful__open_images_lowest_expected_iou_first(filled: Workspace) -> None:
    catalogue = filled.catalogue
    catalogue.images.reopen(1, "tester")
    for image_id, uncertainty, quality in ((1, 0.2, None), (2, 0.1, 0.75), (3, None, 0.25)):
        predict(filled, image_id, uncertainty, quality)
    assert catalogue.masks.most_doubtful(12) == [3, 2, 1], "uncertainty where there is no other"
    assert catalogue.masks.most_doubtful(1) == [3]


@pytest.mark.training
def test_report__what_to_expect_of_a_prediction(filled: Workspace) -> None:
    predict(filled, 2, 0.1, 0.62)
    text = page_of(filled).text
    assert "prelabelled · expected IoU 0.62: probably needs correction, no. 1" in text


def pair(number: int, iou: float | None = None, *, mask: bool = True, **row: str) -> Pair:
    image = Row(id=number, **{"state": "accepted", **row})
    return Pair(image, None, Reference("accepted mask", "h") if mask else None, lesion_iou=iou)


def test_choose__lowest_iou_first_and_a_few_without_one() -> None:
    scored = [pair(k, iou=k / 100) for k in range(20, 0, -1)]
    others = [pair(100 + k, mask=k % 2 == 0) for k in range(8)]
    chosen = [p.image.id for p in contact_sheet.choose([*others, *scored])]
    assert chosen == [*range(1, 10), 100, 102, 104]


def test_choose__fills_up_with_the_others() -> None:
    scored, others = [pair(7, iou=0.5)], [pair(100 + k, mask=k > 4) for k in range(30)]
    chosen = [p.image.id for p in contact_sheet.choose([*others, *scored])]
    assert chosen == [7, *range(105, 116)]


def test_choose__skipped_images_are_not_shown() -> None:
    assert contact_sheet.choose([pair(1, iou=0.1, state="skipped")]) == []


@pytest.mark.training
def test_of_tone__of_many_accepted_masks_a_sample_is_compared(
    worked: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(worked, 1)
    images = [worked.catalogue.images.find("1.png").id]
    (found,) = contact_sheet.Pairs(worked).of_tone(images, "seed")
    assert found.lesion_iou == pytest.approx(3 / 13)
    said = "pairs, 0 chosen at random have a lesion IoU"
    assert said not in page_of(worked).text
    monkeypatch.setattr(contact_sheet, "COMPARED", 0)
    monkeypatch.setattr(page, "COMPARED", 0)
    (found,) = contact_sheet.Pairs(worked).of_tone(images, "seed")
    assert found.lesion_iou is None
    text = page_of(worked).text
    assert said in text
    assert "and accepted mask, not compared" in text


@pytest.mark.training
def test_of_tone__an_author_who_could_not_draw_a_lesion(filled: Workspace) -> None:
    """Nothing is said of a class that was not looked for."""
    new = NewMask(
        image_id=2,
        content_hash=filled.store_mask(np.full((HEIGHT, WIDTH), 4, np.uint8)),
        width=WIDTH,
        height=HEIGHT,
        mapping="same",
        classes=[2, 4],
        protocol_version="1.0",
        annotator="anna",
    )
    filled.catalogue.masks.submit([new], reviewer="ben")
    predict(filled, 2)
    assert "compared with the accepted mask: no lesion in either" in page_of(filled).text
