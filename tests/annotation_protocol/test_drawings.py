"""The drawings of the annotator's guide: present, shown, small, and what the code draws."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_protocol import load_protocol
from annotation_protocol.drawings import (
    CLASS_SCENES,
    DRAWINGS_DIR,
    EDGE_SCENES,
    OVERVIEW_SCENES,
    SKIP_SCENES,
    draw_all,
    draw_classes,
    encode,
    main,
    with_own_palette,
)
from annotation_protocol.phantoms.phantoms import LESION, MARKER, SKIN, TONES

PROTOCOL = load_protocol()
GUIDE = DRAWINGS_DIR.with_name("protocol.md").read_text("utf-8")
NAMES = sorted(
    [
        *(f"class_{name}.png" for name in PROTOCOL.class_names),
        *(f"skip_{key}.png" for key in SKIP_SCENES),
        *(f"edge_{name}.png" for name in EDGE_SCENES),
        "overview.png",
    ]
)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Image.Image]:
    return draw_all(PROTOCOL)


@pytest.fixture(scope="module")
def reduced(drawn: dict[str, Image.Image]) -> dict[str, Image.Image]:
    return {name: with_own_palette(drawing).convert("RGB") for name, drawing in drawn.items()}


def test_drawings__folder_holds_these_and_no_others() -> None:
    assert sorted(path.name for path in DRAWINGS_DIR.iterdir()) == NAMES


def test_drawings__guide_shows_each_once_and_no_others() -> None:
    assert sorted(re.findall(r"!\[[^]]+\]\(drawings/([^)]+)\)", GUIDE)) == NAMES


def test_drawings__every_class_and_reason() -> None:
    assert tuple(CLASS_SCENES) == PROTOCOL.class_names
    keys = [reason.key for reason in PROTOCOL.skip_reasons]
    assert list(SKIP_SCENES) == [key for key in keys if key != "other"]


def test_drawings__every_tone_in_each() -> None:
    for row in [*CLASS_SCENES.values(), *SKIP_SCENES.values(), OVERVIEW_SCENES]:
        assert tuple(scene.tone for scene, _ in row) == TONES
    for edge_row in EDGE_SCENES.values():
        assert tuple(scene.tone for scene, _, _ in edge_row) == TONES


@pytest.mark.parametrize("name", NAMES)
def test_drawings__small_file(name: str) -> None:
    assert (DRAWINGS_DIR / name).stat().st_size < 150_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_drawings__reproduce_committed_pixels(reduced: dict[str, Image.Image], name: str) -> None:
    # Another Pillow or numpy may place a glyph or choose a palette a little differently.
    with Image.open(DRAWINGS_DIR / name) as file:
        committed = file.convert("RGB")
    again = reduced[name]
    assert committed.size == again.size
    apart = np.abs(np.asarray(committed, np.int16) - np.asarray(again, np.int16)).max(axis=2)
    assert apart.mean() < 3
    assert np.mean(apart > 24) < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_with_own_palette__close_to_the_drawing(
    drawn: dict[str, Image.Image], reduced: dict[str, Image.Image], name: str
) -> None:
    apart = np.abs(np.asarray(reduced[name], np.int16) - np.asarray(drawn[name], np.int16))
    assert apart.mean() < 8


@pytest.mark.slow
def test_encode__loses_nothing_more(
    drawn: dict[str, Image.Image], reduced: dict[str, Image.Image]
) -> None:
    with Image.open(io.BytesIO(encode(drawn["overview.png"]))) as file:
        assert file.format == "PNG"
        assert file.convert("RGB").tobytes() == reduced["overview.png"].tobytes()


def test_draw_classes__only_the_class_and_its_outline() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    mask = np.full((20, 20), SKIN, np.uint8)
    mask[5:15, 5:15] = LESION
    labelled = draw_classes(image, mask, PROTOCOL, {LESION})
    lesion = np.array(PROTOCOL.class_at(LESION).rgb)
    assert np.array_equal(labelled[5, 5], lesion)
    assert np.array_equal(labelled[6, 10], lesion)
    assert np.allclose(labelled[10, 10], 100 + 0.55 * (lesion - 100), atol=1)
    assert labelled[4, 10].max() < 50  # the dark line just outside
    assert np.all(labelled[:4] == 100)
    assert np.all(image == 100)


def test_draw_classes__thin_line_stays_visible() -> None:
    image = np.full((9, 9, 3), 60, np.uint8)
    mask = np.full((9, 9), SKIN, np.uint8)
    mask[4, :] = MARKER
    labelled = draw_classes(image, mask, PROTOCOL, {SKIN, MARKER})
    assert np.all(labelled[4] == PROTOCOL.class_at(MARKER).rgb)


@pytest.mark.slow
def test_main__writes_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    drawn: dict[str, Image.Image],
) -> None:
    folder = tmp_path / "drawings"
    monkeypatch.setattr("annotation_protocol.drawings.DRAWINGS_DIR", folder)
    some = {"overview.png": drawn["overview.png"]}
    monkeypatch.setattr("annotation_protocol.drawings.draw_all", lambda _: some)
    main()
    main()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("written overview.png")
    assert second.startswith("unchanged overview.png")
    assert [path.name for path in folder.iterdir()] == ["overview.png"]
