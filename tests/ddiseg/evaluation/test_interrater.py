"""Agreement between people, against other people's implementations and sums by hand."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol, metrics
from annotation_protocol.estimates import METHOD, estimate_classes
from ddiseg import images, masks
from ddiseg.catalogue import Details, NewImage
from ddiseg.catalogue.tables import Mask
from ddiseg.errors import InputError
from ddiseg.evaluation.interrater import GREEN, ORANGE, PURPLE, Agreement, agreement, write_pictures
from ddiseg.masks.agreement import boundary_distance
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)
NAMES = load_protocol().class_names
HEIGHT, WIDTH = 24, 32
FIRST, SECOND, THIRD = "annotator-1", "annotator-2", "annotator-3"
ALL = (BACKGROUND, LESION, MARKER, RULER, SKIN)

#: Tone and patient of the images #1, #2 ...
PEOPLE = [("V-VI", "p1"), ("I-II", "p2"), ("V-VI", "p2"), ("I-II", None), ("unknown", None)]

Read = Callable[..., Mask]


@pytest.fixture
def photographed(workspace: Workspace) -> Workspace:
    """Images #1 to #5 of HEIGHT x WIDTH noise, see PEOPLE."""
    dataset = workspace.catalogue.images.dataset("clinic")
    rows = []
    for number, (tone, patient) in enumerate(PEOPLE, 1):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        digest = images.content_hash(pixels)
        workspace.store.put(Kind.IMAGE, digest, images.encode_png(pixels))
        file_hash = hashlib.sha256(pixels).hexdigest()
        details = Details(tone=tone, patient=patient)
        rows.append(
            NewImage(
                f"{number}.png",
                file_hash,
                1,
                1,
                digest,
                hashlib.sha256(pixels).hexdigest()[:16],
                WIDTH,
                HEIGHT,
                details=details,
            )
        )
    workspace.catalogue.images.add(dataset.id, rows, "tester")
    return workspace


@pytest.fixture
def read(photographed: Workspace) -> Read:
    """read(FIRST, mask): the row of that mask, its file in the store."""
    numbers = iter(range(1, 1000))

    def drawn(annotator: str | None, mask: masks.Mask, classes: tuple[int, ...] = ALL) -> Mask:
        return Mask(
            id=next(numbers),
            annotator=annotator,
            content_hash=photographed.store_mask(mask),
            classes=list(classes),
        )

    return drawn


def lesion(left: int = 8, width: int = 10, height: int = HEIGHT, of: int = LESION) -> masks.Mask:
    """Skin with a lesion `width` wide from column `left` on, in all rows but four."""
    mask = np.full((height, WIDTH), SKIN, np.uint8)
    mask[2:-2, left : left + width] = of
    return mask


def noise(seed: int) -> masks.Mask:
    return np.random.default_rng(seed).integers(0, 5, (HEIGHT, WIDTH), dtype=np.uint8)


@pytest.mark.training
def test_agreement__figures_of_a_pair_are_scikit_learns(
    photographed: Workspace, read: Read
) -> None:
    one, other = noise(1), noise(2)
    one[one == MARKER] = other[other == MARKER] = RULER
    found = agreement(photographed, {1: [read(FIRST, one), read(SECOND, other)]})
    [pair] = found.pairs
    figures = pair.measures
    for index, name in enumerate(NAMES):
        if index == MARKER:
            assert math.isnan(figures["marker_iou"])
            assert math.isnan(figures["marker_dice"])
            continue
        binary = (one == index).ravel(), (other == index).ravel()
        assert figures[f"{name}_iou"] == pytest.approx(jaccard_score(*binary))
        assert figures[f"{name}_dice"] == pytest.approx(f1_score(*binary))
    assert figures["kappa"] == pytest.approx(cohen_kappa_score(one.ravel(), other.ravel()))
    distance = boundary_distance(one == LESION, other == LESION)
    assert figures["lesion_boundary_px"] == distance.mean
    assert figures["lesion_hd95_px"] == distance.hd95
    assert figures["lesion_boundary_percent"] == pytest.approx(100 * distance.mean / 40)
    assert figures["lesion_hd95_percent"] == pytest.approx(100 * distance.hd95 / 40)


@pytest.mark.training
def test_agreement__masks_of_any_size_lie_over_the_photograph(
    photographed: Workspace, read: Read
) -> None:
    plain, larger = lesion(8), np.kron(lesion(10), np.ones((2, 3), np.uint8))
    found = agreement(photographed, {1: [read(FIRST, plain), read(SECOND, larger)]})
    alike = agreement(photographed, {1: [read(FIRST, plain), read(SECOND, lesion(10))]})
    assert found.pairs[0].measures == pytest.approx(alike.pairs[0].measures, nan_ok=True)


def test_agreement__readers_are_in_the_order_of_their_names(
    photographed: Workspace, read: Read
) -> None:
    rows = [read(name, lesion()) for name in (THIRD, FIRST, SECOND)]
    found = agreement(photographed, {2: rows, 1: [rows[2], rows[0]]})
    assert [(c.image.id, *c.readers) for c in found.pairs] == [
        (1, SECOND, THIRD),
        (2, FIRST, SECOND),
        (2, FIRST, THIRD),
        (2, SECOND, THIRD),
    ]
    assert list(found.by_readers) == [(FIRST, SECOND), (FIRST, THIRD), (SECOND, THIRD)]
    assert [group.images for group in found.by_readers.values()] == [1, 1, 2]


def test_agreement__an_image_counts_once_however_many_read_it(
    photographed: Workspace, read: Read
) -> None:
    three = [read(f"annotator-{n}", lesion(8 + n)) for n in range(3)]
    two = [read(f"annotator-{n}", lesion(8)) for n in range(2)]
    found = agreement(photographed, {1: three, 2: two})
    # Moved by 1 of 10 columns: 9 of 11; by 2: 8 of 12. Image 2: the same.
    iou = found.overall.means["lesion_iou"]
    assert iou.value == pytest.approx(((9 / 11 + 9 / 11 + 8 / 12) / 3 + 1) / 2)
    assert (iou.n, iou.groups) == (2, 2)
    assert (found.overall.images, found.overall.patients, found.overall.pairs) == (2, 2, 4)


def test_agreement__by_tone_and_by_readers(photographed: Workspace, read: Read) -> None:
    readings = {n: [read(FIRST, lesion(8)), read(SECOND, lesion(8 + n))] for n in (1, 2, 3, 4)}
    readings[4].append(read(THIRD, lesion(8)))
    found = agreement(photographed, readings)
    assert list(found.by_tone) == ["I-II", "V-VI"], "in the protocol's order"
    dark = found.by_tone["V-VI"]
    assert (dark.images, dark.patients, dark.pairs) == (2, 2, 2)
    assert dark.means["lesion_iou"].value == pytest.approx((9 / 11 + 7 / 13) / 2)
    assert (dark.means["lesion_iou"].interval, dark.means["lesion_iou"].groups) == (None, 2)
    assert found.by_readers[FIRST, SECOND].means["kappa"].n == 4
    lone = found.by_readers[FIRST, THIRD].means["lesion_iou"]
    assert (lone.value, lone.interval, lone.n, lone.groups) == (1, None, 1, 1)


@pytest.mark.training
def test_agreement__intervals_are_those_of_score(photographed: Workspace, read: Read) -> None:
    drawn = {n: (lesion(8), lesion(8 + n, 10 - n)) for n in range(1, 6)}
    readings = {n: [read(FIRST, a), read(SECOND, b)] for n, (a, b) in drawn.items()}
    found = agreement(photographed, readings).overall.means
    oracle = estimate_classes(
        np.stack([metrics.confusion(a, b, 5) for a, b in drawn.values()]),
        [patient or f"image {n}" for n, (_, patient) in enumerate(PEOPLE, 1)],
        np.ones((5, 5), bool),
        NAMES,
    )
    for name in ("lesion", "skin"):
        iou, dice = found[f"{name}_iou"], found[f"{name}_dice"]
        assert iou.value == pytest.approx(oracle[name].iou_mean.value)
        assert iou.interval == pytest.approx(oracle[name].iou_mean.interval)
        assert dice.interval == pytest.approx(oracle[name].dice_mean.interval)
        assert (iou.n, iou.groups) == (oracle[name].n, oracle[name].groups) == (5, 4)


def test_agreement__undefined_figures_do_not_count(photographed: Workspace, read: Read) -> None:
    found = agreement(
        photographed,
        {
            1: [read(FIRST, lesion()), read(SECOND, lesion())],
            2: [read(FIRST, lesion()), read(SECOND, lesion(of=SKIN))],
            3: [read(FIRST, lesion(of=SKIN)), read(SECOND, lesion(of=SKIN))],
        },
    )
    figures = found.overall.means
    assert figures["lesion_iou"].value == 0.5
    assert figures["lesion_iou"].n == 2, "nobody found a lesion in image 3"
    assert figures["lesion_boundary_px"].n == 1, "only one found a lesion in image 2"
    assert figures["kappa"].n == 2, "all of image 3 is skin to both"
    assert (figures["ruler_iou"].value, figures["ruler_iou"].interval, figures["ruler_iou"].n) == (
        None,
        None,
        0,
    )


def test_agreement__only_classes_that_both_could_use(photographed: Workspace, read: Read) -> None:
    one, other = lesion(), lesion()
    one[0], other[0] = RULER, SKIN
    readings = {1: [read(FIRST, one), read(SECOND, other, (LESION, SKIN))]}
    figures = agreement(photographed, readings).pairs[0].measures
    assert figures["lesion_iou"] == 1
    assert math.isnan(figures["ruler_iou"])
    assert math.isnan(figures["kappa"])


def test_agreement__needs_two_people(photographed: Workspace, read: Read, refusal: Refusal) -> None:
    alone = {1: [read(FIRST, lesion())], 2: []}
    for readings in ({}, alone):
        with refusal(InputError):
            agreement(photographed, readings)
    steps: list[tuple[int, int]] = []
    pair = [read(FIRST, lesion()), read(SECOND, lesion())]
    found = agreement(photographed, {**alone, 3: pair}, lambda *at: steps.append(at))
    assert [c.image.id for c in found.pairs] == [3]
    assert steps == [(1, 1)]


def test_agreement__a_models_mask_is_no_reading(
    photographed: Workspace, read: Read, refusal: Refusal
) -> None:
    readings = {1: [read(FIRST, lesion()), read(None, lesion())]}
    with refusal(InputError):
        agreement(photographed, readings)


def uneven(read: Read) -> dict[int, list[Mask]]:
    """#1 to #5: the same lesion, half of it, a small one elsewhere, a large one elsewhere, none."""
    small = lesion(20, width=4)
    small[0, 0] = BACKGROUND
    drawn = [lesion(8), lesion(13), small, lesion(20), lesion(of=SKIN)]
    first = [lesion(8)] * 4 + [lesion(of=SKIN)]
    return {
        n: [read(FIRST, a), read(SECOND, b)]
        for n, (a, b) in enumerate(zip(first, drawn, strict=True), 1)
    }


def test_worst__lowest_lesion_iou_then_kappa(photographed: Workspace, read: Read) -> None:
    found = agreement(photographed, uneven(read))
    kappas = [c.measures["kappa"] for c in found.pairs]
    assert kappas[3] < kappas[2] < kappas[1] < kappas[0] == 1
    assert [c.image.id for c in found.worst(9)] == [4, 3, 2, 5], "1 agrees wholly"
    assert [c.image.id for c in found.worst(2)] == [4, 3]
    assert found.worst(0) == []


def test_worst__undefined_ones_are_last(photographed: Workspace, read: Read) -> None:
    readings = uneven(read)
    found = agreement(photographed, {1: readings[5], 2: readings[1], 3: readings[3]})
    assert [c.image.id for c in found.worst(9)] == [3, 1]


def test_in_words__undefined_figures_say_so(
    photographed: Workspace, read: Read, wording: SnapshotAssertion
) -> None:
    found = agreement(photographed, uneven(read))
    words = [c.in_words() for c in found.pairs]
    assert words[0] == wording
    assert words[4] == wording


def test_as_dict__is_plain_json(photographed: Workspace, read: Read) -> None:
    found = agreement(photographed, uneven(read))
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert data["intervals"] == METHOD
    assert data["all"]["figures"]["lesion_iou"]["n"] == 4
    assert data["all"]["figures"]["ruler_dice"] == {
        "mean": None,
        "ci95": None,
        "n": 0,
        "patients": 0,
    }
    assert data["by_readers"][0]["readers"] == [FIRST, SECOND]
    assert list(data["by_tone"]) == ["I-II", "V-VI", "unknown"]
    pair = json.loads(json.dumps(found.worst(9)[-1].as_dict(), allow_nan=False))
    assert (pair["image"], pair["id"], pair["tone"]) == ("5.png", 5, "unknown")
    assert (pair["readers"], pair["masks"]) == ([FIRST, SECOND], [9, 10])
    assert pair["figures"]["lesion_iou"] is None


def test_write_pictures__photograph_masks_and_differences(
    photographed: Workspace, read: Read, tmp_path: Path
) -> None:
    found = agreement(photographed, uneven(read))
    paths = write_pictures(photographed, found, tmp_path / "new" / "worst", worst=3)
    assert [p.name for p in paths] == ["01-image-4.png", "02-image-3.png", "03-image-2.png"]
    assert sorted((tmp_path / "new" / "worst").iterdir()) == paths
    shown = panels_of(paths[1])
    photograph = photographed.photograph(photographed.catalogue.images.find("3.png"))
    np.testing.assert_array_equal(shown[0], photograph)
    for panel, left in ((shown[1], 8), (shown[2], 20)):  # the lesion's outline, where each drew it
        assert tuple(panel[10, left]) == load_protocol().class_at(LESION).rgb
        np.testing.assert_array_equal(panel[10, 5], photograph[10, 5])
    differences = shown[3]
    assert tuple(differences[10, 10]) == ORANGE, "a lesion to the first reader only"
    assert tuple(differences[10, 22]) == PURPLE, "a lesion to the second reader only"
    assert tuple(differences[0, 0]) == GREEN, "skin and background"
    both_skin, both_lesion = differences[10, 5], panels_of(paths[2])[3][10, 15]
    assert both_skin.tolist() == [int(photograph[10, 5].mean())] * 3
    assert len(set(both_lesion.tolist())) == 1


def panels_of(path: Path) -> list[np.ndarray]:
    """The four pictures of a sheet, without what is written above them."""
    with Pillow.open(io.BytesIO(path.read_bytes())) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape[1] == 4 * WIDTH + 3 * 8
    return [pixels[-HEIGHT:, left : left + WIDTH] for left in range(0, 4 * (WIDTH + 8), WIDTH + 8)]


def test_write_pictures__no_more_than_there_are(
    photographed: Workspace, read: Read, tmp_path: Path
) -> None:
    found = agreement(photographed, uneven(read))
    assert len(write_pictures(photographed, found, tmp_path / "all")) == 4
    assert write_pictures(photographed, found, tmp_path / "none", worst=0) == []


def refused(workspace: Workspace, found: Agreement, folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_pictures(workspace, found, folder)


def test_write_pictures__overwrites_nothing(
    photographed: Workspace, read: Read, tmp_path: Path
) -> None:
    found = agreement(photographed, uneven(read))
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    refused(photographed, found, folder, "kept is not empty")
    refused(photographed, found, folder / "notes.txt", r"notes.txt can't be written")
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_agreement__unlabelled_pixels_are_left_out(photographed: Workspace, read: Read) -> None:
    one, other = lesion(8), lesion(8)
    other[:, :12], one[:, :12] = LESION, 255
    [pair] = agreement(photographed, {1: [read(FIRST, one), read(SECOND, other)]}).pairs
    assert pair.measures["lesion_iou"] == 1
    assert pair.measures["kappa"] == 1
    assert math.isnan(pair.measures["lesion_boundary_px"]), "its rim is not that of the lesion"


def test_agreement__lesion_alone_is_labelled(photographed: Workspace, read: Read) -> None:
    """Both readers left the rest unlabelled: they would agree to the pixel, whatever they drew."""
    one, other = (np.where(lesion(left) == SKIN, 255, LESION).astype(np.uint8) for left in (8, 12))
    readings = {
        1: [read(FIRST, one), read(SECOND, other)],
        2: [read(FIRST, lesion()), read(SECOND, other)],
        3: [read(FIRST, lesion(8)), read(SECOND, lesion(12))],
    }
    found = agreement(photographed, readings)
    for pair in found.pairs[:2]:
        assert all(math.isnan(value) for value in pair.measures.values())
    assert found.overall.means["lesion_iou"].n == 1
    assert found.overall.means["lesion_iou"].value == pytest.approx(6 / 14)
    share = 200 / (HEIGHT * WIDTH)
    assert found.notes == [
        f"3 of 6 masks are labelled in part, on average {share:.0%} of the pixels; "
        "the others are not compared",
        "2 images: lesion alone is labelled, so its IoU is not defined (a false positive can't count)",
    ]


def test_worst__pairs_that_agree_wholly_are_not_listed(photographed: Workspace, read: Read) -> None:
    readings = {
        1: [read(FIRST, lesion()), read(SECOND, lesion())],
        2: [read(FIRST, lesion(8)), read(SECOND, lesion(9))],
    }
    assert [pair.image.id for pair in agreement(photographed, readings).worst(10)] == [2]
