"""The Label Studio configuration written from the protocol, and how edited ones are read."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import Protocol, ProtocolError, SkipReason, Verdict, load_protocol
from annotation_protocol import label_studio_config as lc
from annotation_protocol.protocol import PROTOCOL_FILE, TOOL_HOTKEYS
from tests.wording import Refusal

PROTOCOL = load_protocol()
ANNOTATION = lc.annotation_config(PROTOCOL)
WITH_CLICKS = lc.annotation_config(PROTOCOL, clicks=True)
REVIEW = lc.review_config(PROTOCOL)

both_configs = pytest.mark.parametrize("config", [ANNOTATION, REVIEW], ids=["annotation", "review"])


def element(config: str, name: str) -> ET.Element:
    (found,) = (e for e in ET.fromstring(config).iter() if e.get("name") == name)
    return found


def edited(config: str, name: str, edit: Callable[[ET.Element], None]) -> str:
    """`config` after `edit` of the tag called `name`."""
    root = ET.fromstring(config)
    (found,) = (e for e in root.iter() if e.get("name") == name)
    edit(found)
    return ET.tostring(root, encoding="unicode")


def option(control: ET.Element, value: str) -> ET.Element:
    (found,) = (e for e in control if e.get("value") == value)
    return found


def with_reasons(protocol: Protocol, **changes: str) -> Protocol:
    """`protocol` with its first skip reason changed."""
    first, *rest = protocol.skip_reasons
    return dataclasses.replace(
        protocol, skip_reasons=(dataclasses.replace(first, **changes), *rest)
    )


# Writing


def test_clicks__are_smart_and_have_the_classes_of_the_brush() -> None:
    points, brush = (element(WITH_CLICKS, name) for name in (lc.CLICK, lc.MASK))
    assert (points.tag, points.get("smart"), points.get("toName")) == (
        "KeyPointLabels",
        "true",
        lc.IMAGE,
    )
    assert [p.get("value") for p in points] == [b.get("value") for b in brush]
    assert [p.get("background") for p in points] == [b.get("background") for b in brush]
    assert [p.get("hotkey") for p in points] == [c.click_hotkey for c in PROTOCOL.classes]


def test_clicks__are_not_there_unless_asked_for_and_change_nothing_else() -> None:
    assert lc.CLICK not in lc.read_config(ANNOTATION).tags
    assert element(WITH_CLICKS, lc.MASK).get("smart") == "false"  # else it takes the clicks
    assert element(ANNOTATION, lc.MASK).get("smart") is None
    changed = lc.differences(WITH_CLICKS, ANNOTATION)
    assert changed[0] == f"{lc.CLICK} was added"
    assert [line for line in changed[1:] if lc.MASK not in line] == []


@both_configs
def test_config__each_class_once_in_order(config: str) -> None:
    labels = list(element(config, lc.MASK))
    assert [
        (e.tag, e.get("value"), e.get("background"), e.get("hotkey"), e.get("hint")) for e in labels
    ] == [("Label", c.name, c.colour, c.hotkey, c.definition) for c in PROTOCOL.classes]


@pytest.mark.parametrize(
    ("config", "control", "entries"),
    [
        (ANNOTATION, lc.SKIP_REASON, PROTOCOL.skip_reasons),
        (REVIEW, lc.VERDICT, PROTOCOL.verdicts),
    ],
    ids=["skip reasons", "verdicts"],
)
def test_config__each_choice_once_in_order(
    config: str, control: str, entries: tuple[SkipReason | Verdict, ...]
) -> None:
    choices = element(config, control)
    assert choices.get("choice") == "single"
    assert [
        (e.tag, e.get("alias"), e.get("value"), e.get("hotkey"), e.get("hint")) for e in choices
    ] == [("Choice", e.key, e.label, e.hotkey, e.definition) for e in entries]


@both_configs
def test_config__tools_stand_before_the_picture(config: str) -> None:
    controls = lc.read_config(config).controls
    assert {control.to_name for control in controls.values()} == {lc.IMAGE}
    tags = [e.tag for e in ET.fromstring(config).iter() if e.get("name")]
    assert sorted(tags) == ["BrushLabels", "Choices", "Image", "TextArea"]
    assert tags[-1] == "Image"


@both_configs
def test_config__picture_is_not_turned_or_smoothed(config: str) -> None:
    image = element(config, lc.IMAGE)
    assert image.get("value") == "$image"
    assert (image.get("rotateControl"), image.get("smoothing")) == ("false", "false")
    assert image.get("zoom") == image.get("zoomControl") == "true"
    assert image.get("brightnessControl") == image.get("contrastControl") == "true"


@pytest.mark.parametrize("config", [ANNOTATION, WITH_CLICKS, REVIEW])
def test_config__hotkeys_differ_and_leave_the_tools_alone(config: str) -> None:
    """Every label and choice has one, for Label Studio gives those without one the next free key."""
    options = [e for e in ET.fromstring(config).iter() if e.tag in ("Label", "Choice")]
    hotkeys = [e.attrib["hotkey"] for e in options]
    assert len(hotkeys) == len(set(hotkeys)) > len(PROTOCOL.classes)
    assert TOOL_HOTKEYS.isdisjoint(hotkeys)


def alphas(matrix: str, colour: tuple[int, int, int]) -> float:
    """The alpha that an SVG colour matrix gives an opaque colour."""
    row = [float(number) for number in matrix.split()][15:]
    return min(
        1.0, max(0.0, sum(a * b for a, b in zip(row, [*colour, 255, 255], strict=True)) / 255)
    )


@both_configs
def test_style__tells_lesion_marker_and_ruler_from_what_fills_the_rest(config: str) -> None:
    """The filters know classes by their colours alone: a changed colour needs other numbers."""
    style = urllib.parse.unquote(ET.fromstring(config).findtext("Style") or "")
    kept, ranked, *again = re.findall(r'<feColorMatrix values="([^"]+)"', style)
    assert again == [ranked], "the third filter is that of a stroke"
    for entry in PROTOCOL.classes:
        strong = entry.name in ("lesion", "marker", "ruler")
        assert alphas(kept, entry.rgb) == pytest.approx(float(strong), abs=0.02)
        rank = alphas(ranked, entry.rgb)
        assert rank >= 0.73 if strong else 0.06 <= rank <= 0.67
    (opacities,) = set(re.findall(r'tableValues="([^"]+)"', style))
    by_rank = [float(number) for number in opacities.split()]
    assert len(by_rank) == 20
    assert by_rank[0] == 0, "where nothing is drawn"
    assert max(by_rank[1:14]) < 0.15 < min(by_rank[14:]) < 0.5


@both_configs
def test_config__each_styled_class_is_used(config: str) -> None:
    root = ET.fromstring(config)
    used = {name for e in root.iter("View") for name in e.get("className", "").split()}
    styled = set(re.findall(r"\.(ddiseg[a-z-]*)", root.findtext("Style", "")))
    assert used <= styled
    assert styled - used <= {"ddiseg-note", "ddiseg-returned"}  # the annotation's alone


def test_config__names_of_the_controls() -> None:
    assert list(lc.read_config(ANNOTATION).controls) == [lc.MASK, lc.NOTE, lc.SKIP_REASON]
    assert list(lc.read_config(REVIEW).controls) == [lc.MASK, lc.VERDICT, lc.COMMENT]


def test_annotation_config__shows_the_review_comment_and_nothing_of_tone() -> None:
    assert re.findall(r"\$\w+", ANNOTATION) == ["$review_comment", "$image"]


def test_review_config__verdict_is_required() -> None:
    verdict = element(REVIEW, lc.VERDICT)
    assert verdict.get("required") == "true"
    assert "(keys y, f, n)" in verdict.get("requiredMessage", "")


def test_config__special_characters() -> None:
    label = "Größe < 3 & \"klein\" > 'fein' 皮\nline"
    config = lc.annotation_config(with_reasons(PROTOCOL, label=label, definition=label))
    (first, *_) = element(config, lc.SKIP_REASON)
    assert first.get("value") == first.get("hint") == label


xml_text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1
).map(str.strip)


@pytest.mark.property
@given(label=xml_text, definition=xml_text)
def test_config__any_text_comes_back(label: str, definition: str) -> None:
    assume(label and definition and not re.search(r"\$\w", label))
    protocol = with_reasons(PROTOCOL, label=label, definition=definition)
    config = lc.annotation_config(protocol)
    attributes = lc.read_config(config).tags[lc.SKIP_REASON].options["occluded"].attributes
    assert (attributes["value"], attributes["hint"]) == (label, definition)
    assert lc.skip_reason_of("occluded", protocol) == "occluded"
    assert lc.differences(config, config) == []


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x0c", "\ufffe"])
def test_config__character_that_xml_cannot_hold(character: str, refusal: Refusal) -> None:
    protocol = with_reasons(PROTOCOL, label=f"bad{character}label")
    with refusal(ProtocolError):
        lc.annotation_config(protocol)


def test_config__label_that_label_studio_would_replace(refusal: Refusal) -> None:
    with refusal(ProtocolError):
        lc.annotation_config(with_reasons(PROTOCOL, label="see $image"))
    lc.annotation_config(with_reasons(PROTOCOL, label="costs 5 $"))


# Choices


def test_key_of_a_choice__round_trip() -> None:
    for reason in PROTOCOL.skip_reasons:
        assert lc.skip_reason_of(lc.choice_of(reason), PROTOCOL) == reason.key
        assert lc.skip_reason_of(reason.label, PROTOCOL) == reason.key
    for verdict in PROTOCOL.verdicts:
        assert lc.verdict_of(lc.choice_of(verdict), PROTOCOL) == verdict.key
        assert lc.verdict_of(verdict.label, PROTOCOL) == verdict.key


def test_choice_of__is_what_the_config_stores() -> None:
    stored = lc.read_config(ANNOTATION).choices(lc.SKIP_REASON)
    assert stored == tuple(lc.choice_of(reason) for reason in PROTOCOL.skip_reasons)
    stored = lc.read_config(REVIEW).choices(lc.VERDICT)
    assert stored == tuple(lc.choice_of(verdict) for verdict in PROTOCOL.verdicts)


@pytest.mark.parametrize("choice", ["glare", "", "Blurry", "accept", "Target ambiguous"])
def test_skip_reason_of__unknown(choice: str, refusal: Refusal) -> None:
    protocol = with_reasons(PROTOCOL, label="Target ambiguous")  # of two reasons
    with refusal(ProtocolError):
        lc.skip_reason_of(choice, protocol)
    with pytest.raises(ProtocolError, match="no verdict "):
        lc.verdict_of(choice if choice != "accept" else "blurry", PROTOCOL)


def test_skip_reason_of__key_beats_label_of_another() -> None:
    assert lc.skip_reason_of("blurry", with_reasons(PROTOCOL, label="blurry")) == "blurry"


# Reading


def test_read_config__labels_and_choices() -> None:
    config = lc.read_config(ANNOTATION)
    assert config.labels == {c.name: c.colour for c in PROTOCOL.classes}
    assert config.choices(lc.SKIP_REASON)[:2] == ("occluded", "blurry")
    assert config.choices("no such control") == ()
    assert config.choices(lc.NOTE) == ()


def test_read_config__written_by_hand() -> None:
    config = lc.read_config(
        """<?xml version="1.0" encoding="utf-8"?>
        <View><!-- <Label value="commented out"/> -->
          <PolygonLabels toname="img" name="outline">
            <View><Label Value="nevus" Background="#ABCDEF"/></View>
            <Label background="red"/><Label value="plain"/>
          </PolygonLabels>
          <Image name="img" value="$url"/>
        </View>"""
    )
    assert config.labels == {"nevus": "#abcdef", "plain": None}
    assert list(config.controls) == ["outline"]
    assert config.controls["outline"].to_name == "img"
    assert config.tags["img"].to_name is None


@pytest.mark.property
@given(st.text() | st.text("<View/=\"'&; >a"))
def test_read_config__anything(config: str) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(lc.read_config(config), lc.ReadConfig)


@pytest.mark.parametrize("config", ["", "not XML", '{"detail": "gone"}', "<View>", "<a/>\ud800"])
def test_read_config__not_xml(config: str, refusal: Refusal) -> None:
    assert lc.read_config("<View></View>").tags == lc.read_config("<View/>").tags == {}
    with refusal(ProtocolError):
        lc.read_config(config)
    for pair in ((config, ANNOTATION), (ANNOTATION, config)):
        with pytest.raises(ProtocolError, match="is not XML"):
            lc.differences(*pair)


# Differences


def reformatted(config: str) -> str:
    """`config` with other quotes, indents, attribute order and case, as editors leave it."""
    root = ET.fromstring(config)
    for e in root.iter():
        e.attrib = dict(reversed(e.attrib.items()))
        if "background" in e.attrib:
            e.attrib["background"] = e.attrib["background"].upper()
            e.attrib["HotKey"] = e.attrib.pop("hotkey")
        if e.tag == "Style":
            e.text = " ".join((e.text or "").split())
    ET.indent(root, "\t")
    return f"<!-- by hand -->{ET.tostring(root, 'unicode', short_empty_elements=False)}\n"


@both_configs
def test_differences__formatting_only(config: str) -> None:
    assert reformatted(config) != config
    assert lc.differences(reformatted(config), config) == []
    assert lc.differences(config, reformatted(config)) == []


def rename_lesion(mask: ET.Element) -> None:
    option(mask, "lesion").set("value", "sore")


def remove_lesion(mask: ET.Element) -> None:
    mask.remove(option(mask, "lesion"))


def recolour_lesion(mask: ET.Element) -> None:
    option(mask, "lesion").set("background", "#FF0000")


def change_hotkey(mask: ET.Element) -> None:
    option(mask, "lesion").set("hotkey", "z")


def remove_hotkey(mask: ET.Element) -> None:
    del option(mask, "lesion").attrib["hotkey"]


def add_label(mask: ET.Element) -> None:  # what the editor's Add writes
    ET.SubElement(mask, "Label", value="ulcer", background="#FFA39E")


def reorder(mask: ET.Element) -> None:
    mask[:] = reversed(mask)


RENAMED = "label 'lesion' of mask was renamed to 'sore'"
RECOLOURED = "label 'lesion' of mask: colour '#ff0000' instead of '#56b4e9'"
WITHOUT_HOTKEY = "label 'lesion' of mask: hotkey '' instead of '1'"


@pytest.mark.parametrize(
    ("edits", "lines"),
    [
        ([rename_lesion], [RENAMED]),
        ([remove_lesion], ["label 'lesion' of mask is missing"]),
        ([recolour_lesion], [RECOLOURED]),
        ([recolour_lesion, rename_lesion], [RENAMED, RECOLOURED]),
        ([remove_hotkey, rename_lesion], [RENAMED, WITHOUT_HOTKEY]),
        ([change_hotkey], ["label 'lesion' of mask: hotkey 'z' instead of '1'"]),
        ([remove_hotkey], [WITHOUT_HOTKEY]),
        ([add_label], ["label 'ulcer' of mask was added"]),
        ([reorder], ["a heading, the layout or the order was changed"]),
    ],
)
def test_differences__labels(edits: list[Callable[[ET.Element], None]], lines: list[str]) -> None:
    config = ANNOTATION
    for edit in edits:
        config = edited(config, lc.MASK, edit)
    assert lc.differences(config, ANNOTATION) == lines


def reword(reasons: ET.Element) -> None:
    option(reasons, "Significantly blurry").set("value", "Out of focus")


def unalias(reasons: ET.Element) -> None:
    del option(reasons, "Significantly blurry").attrib["alias"]


def replace_by_an_unlike_one(reasons: ET.Element) -> None:
    reasons.remove(option(reasons, "On or near the scalp"))
    ET.SubElement(reasons, "Choice", value="Glare")


@pytest.mark.parametrize("edit", [reword, unalias, replace_by_an_unlike_one])
def test_differences__choices(
    edit: Callable[[ET.Element], None], wording: SnapshotAssertion
) -> None:
    assert lc.differences(edited(ANNOTATION, lc.SKIP_REASON, edit), ANNOTATION) == wording


def test_differences__attributes_of_controls_and_picture(wording: SnapshotAssertion) -> None:
    config = edited(REVIEW, lc.VERDICT, lambda e: e.set("required", "false"))
    config = edited(config, lc.IMAGE, lambda e: e.set("rotateControl", "true"))
    assert lc.differences(config, REVIEW) == wording


def test_differences__another_tag(wording: SnapshotAssertion) -> None:
    config = ANNOTATION.replace("BrushLabels", "PolygonLabels")
    assert lc.differences(config, ANNOTATION) == wording


def test_differences__controls_missing_and_added() -> None:
    missing = ["note is missing", "skip_reason is missing"]
    added = ["verdict was added", "comment was added"]
    assert lc.differences(REVIEW, ANNOTATION) == missing + added


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Correct, then submit. Press Esc before you change the class.", "Be quick."),
        ("min-height: 440px", "min-height: 44px"),
        ('className="ddiseg-photograph"', 'className="plain"'),
    ],
)
def test_differences__layout(old: str, new: str, wording: SnapshotAssertion) -> None:
    assert ANNOTATION.count(old) == 1
    assert lc.differences(ANNOTATION.replace(old, new), ANNOTATION) == wording


# Orphans


@both_configs
def test_orphaned_labels__own_configs_have_none(config: str) -> None:
    assert lc.orphaned_labels(config, PROTOCOL) == ()
    assert lc.orphaned_labels(reformatted(config), PROTOCOL) == ()
    assert lc.orphaned_labels(WITH_CLICKS, PROTOCOL) == ()


FEWER_CLASSES = dataclasses.replace(PROTOCOL, classes=PROTOCOL.classes[:4], hole_fill="background")
RENAMED_CLASS = dataclasses.replace(
    PROTOCOL,
    classes=tuple(
        dataclasses.replace(c, name="sore") if c.name == "lesion" else c for c in PROTOCOL.classes
    ),
)
FEWER_CHOICES = dataclasses.replace(
    PROTOCOL, skip_reasons=PROTOCOL.skip_reasons[1:], verdicts=PROTOCOL.verdicts[:2]
)


@pytest.mark.parametrize(
    "protocol",
    [FEWER_CLASSES, RENAMED_CLASS, FEWER_CHOICES],
    ids=["fewer classes", "renamed class", "fewer choices"],
)
def test_orphaned_labels__left_the_protocol(protocol: Protocol, wording: SnapshotAssertion) -> None:
    assert lc.orphaned_labels(ANNOTATION, protocol) == wording
    assert lc.orphaned_labels(REVIEW, protocol) == wording
    if protocol is FEWER_CLASSES:  # one more is no harm
        assert lc.orphaned_labels(lc.annotation_config(protocol), PROTOCOL) == ()


def test_orphaned_labels__other_wording_colour_and_hotkey_orphan_nothing() -> None:
    classes = tuple(
        dataclasses.replace(c, colour=f"#00000{c.index}", hotkey="zlgit"[c.index])
        for c in PROTOCOL.classes
    )
    protocol = with_reasons(dataclasses.replace(PROTOCOL, classes=classes), label="Hidden")
    assert lc.orphaned_labels(ANNOTATION, protocol) == ()


def test_orphaned_labels__extra_label_and_control_on_the_server(wording: SnapshotAssertion) -> None:
    config = edited(ANNOTATION, lc.MASK, add_label)
    config = config.replace("</View>", '<Rating name="quality" toName="image"/></View>', 1)
    orphans = lc.orphaned_labels(config, PROTOCOL)
    assert sorted(orphans) == wording


@pytest.mark.parametrize(
    ("old", "new"), [("BrushLabels", "PolygonLabels"), ('="image"', '="picture"')]
)
def test_orphaned_labels__control_of_another_kind_or_picture(old: str, new: str) -> None:
    assert "control 'mask'" in lc.orphaned_labels(ANNOTATION.replace(old, new), PROTOCOL)


def test_orphaned_labels__text_without_results_is_no_orphan() -> None:
    config = ANNOTATION.replace("</View>", '<Text name="hint" value="Hello"/></View>', 1)
    assert lc.orphaned_labels(config, PROTOCOL) == ()


# Imports


def test_import__standard_library_only() -> None:
    subprocess.run(
        [sys.executable, "-S", "-c", "import annotation_protocol.label_studio_config"],
        cwd=PROTOCOL_FILE.parent.parent,
        check=True,
    )
