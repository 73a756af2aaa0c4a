"""The protocol file, its checks, and its agreement with what annotators read."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_protocol import Protocol, ProtocolError, load_protocol
from annotation_protocol.phantoms import phantoms
from annotation_protocol.protocol import PROTOCOL_FILE
from tests.wording import Refusal

TEXT = PROTOCOL_FILE.read_text("utf-8")
GUIDE = PROTOCOL_FILE.with_name("protocol.md").read_text("utf-8")


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol()


def test_load_protocol__the_five_classes(protocol: Protocol) -> None:
    assert protocol.class_names == ("background", "lesion", "marker", "ruler", "skin")
    assert [c.index for c in protocol.classes] == [0, 1, 2, 3, 4]
    by_precedence = sorted(protocol.classes, key=lambda c: -c.precedence)
    assert [c.name for c in by_precedence] == ["ruler", "marker", "lesion", "skin", "background"]
    assert protocol.hole_fill == "background"


def test_load_protocol__reasons_verdicts_tones(protocol: Protocol) -> None:
    reasons = {r.key: r.needs_note for r in protocol.skip_reasons}
    assert list(reasons) == ["occluded", "blurry", "partial", "ambiguous", "scalp", "other"]
    assert [key for key, needs_note in reasons.items() if needs_note] == ["other"]
    assert [v.key for v in protocol.verdicts] == ["accept", "fixed", "reject"]
    codes = {"I-II": 12, "III-IV": 34, "V-VI": 56, "unknown": None}
    assert {t.name: t.code for t in protocol.tones} == codes


def test_load_protocol__default_is_read_once() -> None:
    assert load_protocol() is load_protocol()


def test_load_protocol__path_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "protocol.toml"
    path.write_text(TEXT, "utf-8")
    assert load_protocol(path) == load_protocol()
    path.write_text(TEXT.replace('version = "1.1"', 'version = "2.3"'), "utf-8")
    assert load_protocol(path).version == "2.3"


def test_load_protocol__classes_in_any_order(tmp_path: Path) -> None:
    head, *classes = TEXT.split("[[classes]]")
    last, rest = classes[-1].split("# A skipped image")
    blocks = [*classes[:-1], last][::-1]
    path = tmp_path / "protocol.toml"
    path.write_text(head + "".join("[[classes]]" + b for b in blocks) + "# " + rest, "utf-8")
    assert load_protocol(path) == load_protocol()


def test_helpers__find(protocol: Protocol) -> None:
    assert protocol.class_named("ruler") is protocol.class_at(3)
    assert protocol.palette()[1] == (0x56, 0xB4, 0xE9)
    assert len(protocol.palette()) == 5
    assert protocol.skip_reason("scalp").hotkey == "9"
    assert protocol.verdict("fixed").label == "Accept with fixes"
    assert protocol.tone("V-VI") is protocol.tone_coded(56)


@pytest.mark.parametrize(
    "look_up",
    [
        lambda p: p.class_named("nevus"),
        lambda p: p.class_at(5),
        lambda p: p.class_at(-1),
        lambda p: p.skip_reason("ugly"),
        lambda p: p.verdict("maybe"),
        lambda p: p.tone("VII"),
        lambda p: p.tone_coded(78),
    ],
)
def test_helpers__unknown(
    protocol: Protocol, look_up: Callable[[Protocol], object], refusal: Refusal
) -> None:
    with refusal(ProtocolError):
        look_up(protocol)


MARKER = 'name = "marker"'
BROKEN = {
    "no TOML": ("[[classes]]", "[[classes", "is not TOML"),
    "version not major.minor": ('version = "1.1"', 'version = "one"', "version 'one'"),
    "version a number": ('version = "1.1"', "version = 1.0", "version is missing or no text"),
    "unknown key at the top": ('version = "1.1"', 'version = "1.1"\nowner = "x"', "key 'owner'"),
    "unknown table": ("[[tones]]", "[[skin_tones]]", "unknown key 'skin_tones'"),
    "unknown key": (MARKER, MARKER + '\ncolor = "#000000"', r"\[\[classes\]\] .* 3: .*'color'"),
    "missing key": (MARKER, "", r"\[\[classes\]\] number 3: name is missing"),
    "wrong type": ("index = 2", 'index = "2"', r"\[\[classes\]\] number 3: index = '2'"),
    "true is no number": ("index = 1", "index = true", "index = True is not a whole number"),
    "number for bool": ("needs_note = true", "needs_note = 1", "needs_note = 1 is not true or"),
    "empty text": ('label = "Reject"', 'label = " "', r"\[\[verdicts\]\] number 3: label ' '"),
    "name with space": (MARKER, 'name = "pen mark"', "name 'pen mark' is not lower-case"),
    "name twice": (MARKER, 'name = "lesion"', r"\[\[classes\]\]: name 'lesion' stands 2 times"),
    "index twice": ("index = 2", "index = 1", r"\[\[classes\]\]: index 1 stands 2 times"),
    "index gap": ("index = 4", "index = 7", r"indices are \[0, 1, 2, 3, 7\]; number .* 0 to 4"),
    "index too large": ("index = 4", "index = 255", "index 255 is not 0 to 254"),
    "precedence twice": ("precedence = 3", "precedence = 2", "precedence 2 stands 2 times"),
    "colour twice": ("#d55e00", "#56b4e9", "colour '#56b4e9' stands 2 times"),
    "colour no hex": ("#d55e00", "orange", "colour 'orange' is not '#rrggbb'"),
    "colour upper case": ("#d55e00", "#D55E00", "colour '#D55E00' is not '#rrggbb'"),
    "hotkey long": ('hotkey = "q"', 'hotkey = "qq"', "hotkey 'qq' is not one"),
    "hotkey of the tool": ('hotkey = "q"', 'hotkey = "e"', "hotkey 'e' is one of the labelling"),
    "hotkey twice": ('hotkey = "6"', 'hotkey = "5"', r"skip_reasons\]\]: hotkey '5' stands 2"),
    "hotkey across tables": ('hotkey = "q"', 'hotkey = "1"', r"\[\[skip_reasons\]\]: hotkey '1' is taken in \[\[classes\]\]"),
    "click hotkey twice": ('click_hotkey = "a"', 'click_hotkey = "x"', "hotkey 'x' stands 2 times"),
    "click hotkey of the brush": ('click_hotkey = "a"', 'click_hotkey = "3"', "hotkey '3' stands 2"),
    "click hotkey of the tool": ('click_hotkey = "a"', 'click_hotkey = "e"', "hotkey 'e' is one of"),
    "reason twice": ('key = "blurry"', 'key = "occluded"', "key 'occluded' stands 2 times"),
    "verdict twice": ('key = "fixed"', 'key = "accept"', "key 'accept' stands 2 times"),
    "tone twice": ('name = "V-VI"', 'name = "I-II"', "name 'I-II' stands 2 times"),
    "code twice": ("code = 34", "code = 12", "code 12 stands 2 times"),
    "hole filled with nothing": ('hole_fill = "background"', 'hole_fill = "bg"', "hole_fill 'bg'"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_load_protocol__broken(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    path = tmp_path / "protocol.toml"
    path.write_text(TEXT.replace(old, new, 1), "utf-8")
    with pytest.raises(ProtocolError, match=message) as caught:
        load_protocol(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", ["classes", "skip_reasons", "verdicts", "tones"])
def test_load_protocol__empty_table(tmp_path: Path, table: str) -> None:
    blocks = re.split(r"(?=^\[\[)", TEXT, flags=re.MULTILINE)
    path = tmp_path / "protocol.toml"
    path.write_text("".join(b for b in blocks if not b.startswith(f"[[{table}]]")), "utf-8")
    with pytest.raises(ProtocolError, match=rf"\[\[{table}\]\] is empty or missing"):
        load_protocol(path)


@pytest.mark.parametrize(
    "data",
    [
        *(
            f'version = "1.1"\nhole_fill = "skin"\nclasses = {value}\n'.encode()
            for value in ("3", "[1, 2]", '{ name = "lesion" }')
        ),
        b'version = "\xff"',
        None,
    ],
    ids=["number", "numbers", "table", "not UTF-8", "no file"],
)
def test_load_protocol__no_protocol(tmp_path: Path, data: bytes | None, refusal: Refusal) -> None:
    if data is not None:
        (tmp_path / "protocol.toml").write_bytes(data)
    with refusal(ProtocolError):
        load_protocol(tmp_path / "protocol.toml")


def test_import__standard_library_only() -> None:
    code = (
        "import sys, annotation_protocol as a; a.load_protocol(); "
        "print(sorted({'numpy', 'PIL', 'scipy'} & set(sys.modules)))"
    )
    root = PROTOCOL_FILE.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# Machado, Oliveira & Fernandes (2009), severity 1, for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
    "deuteranopia": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "tritanopia": np.array(
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]
    ),
}


@pytest.mark.parametrize("vision", VISIONS)
def test_colours__tell_classes_apart(protocol: Protocol, vision: str) -> None:
    for one, other in itertools.combinations(protocol.classes, 2):
        distance = np.linalg.norm(_lab(one.rgb, vision) - _lab(other.rgb, vision))
        assert distance > 20, (one.name, other.name)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", ["background", "lesion", "marker", "ruler"])
def test_colours__stand_out_from_skin(protocol: Protocol, vision: str, name: str) -> None:
    colour = _lab(protocol.class_named(name).rgb, vision)
    for tone, ends in phantoms.SKIN_COLOURS.items():
        for skin in ends:
            assert np.linalg.norm(colour - _lab(skin, vision)) > 15, (tone, skin)


def _lab(rgb: tuple[int, int, int], vision: str) -> NDArray[np.float64]:
    """CIE L*a*b* (D65) of an sRGB colour as seen with `vision`."""
    srgb = np.array(rgb) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISIONS[vision] @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    )
    xyz = to_xyz @ seen / (0.9505, 1.0, 1.0888)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_phantoms__same_class_ids_and_tones(protocol: Protocol) -> None:
    for name in protocol.class_names:
        assert getattr(phantoms, name.upper()) == protocol.class_named(name).index
    assert (*phantoms.TONES, "unknown") == tuple(t.name for t in protocol.tones)


@pytest.mark.parametrize(("version", "same"), [("1.0", True), ("1.12", True), ("2.0", False)])
def test_has_classes_of__only_the_first_number_counts(
    protocol: Protocol, version: str, same: bool
) -> None:
    assert protocol.has_classes_of(version) is same


def test_guide__version(protocol: Protocol) -> None:
    assert f"\nVersion {protocol.version}. " in GUIDE


def test_guide__classes(protocol: Protocol) -> None:
    assert _table("Index") == [
        [str(c.index), f"**{c.name}**", f"`{c.colour}`", f"`{c.hotkey}`", c.definition]
        for c in protocol.classes
    ]


def test_guide__hotkeys(protocol: Protocol) -> None:
    assert _table("Key") == [
        *([f"`{c.hotkey}`", f"draw {c.name}", "drawing and review"] for c in protocol.classes),
        *([f"`{r.hotkey}`", f"skip reason: {r.label}", "drawing"] for r in protocol.skip_reasons),
        *([f"`{v.hotkey}`", f"verdict: {v.label}", "review"] for v in protocol.verdicts),
        *(
            [f"`{c.click_hotkey}`", f"click on {c.name}", "drawing, with Auto-Annotation"]
            for c in protocol.classes
        ),
    ]


def test_guide__skip_reasons(protocol: Protocol) -> None:
    notes = {True: "required", False: "optional"}
    assert _table("Reason") == [
        [f"**{r.key}**", r.label, f"`{r.hotkey}`", notes[r.needs_note], r.definition]
        for r in protocol.skip_reasons
    ]
    headings = re.findall(r"^### ([a-z]+)$", GUIDE, re.MULTILINE)
    assert headings == [r.key for r in protocol.skip_reasons]


def test_guide__verdicts(protocol: Protocol) -> None:
    assert _table("Verdict") == [
        [f"**{v.key}**", v.label, f"`{v.hotkey}`", v.definition] for v in protocol.verdicts
    ]


def test_guide__tones(protocol: Protocol) -> None:
    assert _table("Tone") == [
        [f"**{t.name}**", "none" if t.code is None else str(t.code), t.definition]
        for t in protocol.tones
    ]


def test_guide__precedence(protocol: Protocol) -> None:
    ranked = sorted(protocol.classes, key=lambda c: -c.precedence)
    assert f"**{' > '.join(c.name for c in ranked)}**" in GUIDE
    assert f"nobody labelled becomes {protocol.hole_fill}." in GUIDE


def _table(first_heading: str) -> list[list[str]]:
    """The rows, below the head, of the guide's table whose first column is `first_heading`."""
    (start,) = re.finditer(rf"^\| {first_heading} \|.*\n\|[-|]+\|\n", GUIDE, re.MULTILINE)
    rows = itertools.takewhile(lambda row: row.startswith("|"), GUIDE[start.end() :].splitlines())
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
