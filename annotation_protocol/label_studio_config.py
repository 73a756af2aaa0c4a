"""The Label Studio configuration of the annotation protocol, and how a server's differs from it.

`annotation_config` and `review_config` write the XML from the protocol; `read_config`,
`differences` and `orphaned_labels` read what a server returns, which people may have edited there.
What tags and attributes mean: https://labelstud.io/tags. Tried out with Label Studio 1.23.2.
"""

from __future__ import annotations

import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from annotation_protocol.errors import ProtocolError
from annotation_protocol.protocol import LabelClass, Protocol, SkipReason, Verdict

IMAGE = "image"  #: the picture; also the key of its address in a task's data
MASK = "mask"  #: the brush labels, one a class
SKIP_REASON = "skip_reason"
NOTE = "note"
VERDICT = "verdict"
COMMENT = "comment"
CLICK = "click"  #: the key points that Auto-Annotation sends to an ML backend, one label a class
REVIEW_COMMENT = "review_comment"  #: key in a task's data; where it is "" or missing, nothing shows


def annotation_config(protocol: Protocol, *, clicks: bool = False) -> str:
    """Return the XML of the project in which masks are drawn and images skipped.

    A result holds a class by its name and a skip reason by its key.

    Args:
        clicks: with a row of labels to click with while Auto-Annotation is on; an ML backend
            answers each click with a region of the class.

    Raises:
        ProtocolError: Label Studio can't show a text of the protocol.
    """
    page = _page()
    returned = ET.SubElement(page, "View", className="ddiseg-returned")
    ET.SubElement(returned, "Header", value=f"${REVIEW_COMMENT}", size="5", style="margin: 0 0 6px")
    advice = "Correct, then submit. Press Esc before you change the class."
    row = _brush_row(page, protocol, advice, clicks=clicks)
    _line_of_text(row, NOTE, "Note", "ddiseg-text ddiseg-note")
    if clicks:
        _click_row(page, protocol)
    row = _row(page)
    _heading(row, "Skip if:")
    _choices(row, SKIP_REASON, protocol.skip_reasons)
    _photograph(page)
    return _written(page)


def review_config(protocol: Protocol) -> str:
    """Return the XML of the project in which masks are reviewed; it takes no submission without a verdict.

    A result holds a class by its name and a verdict by its key.

    Raises:
        ProtocolError: Label Studio can't show a text of the protocol.
    """
    page = _page()
    _brush_row(
        page, protocol, "Check the lesion's rim, ink and ruler, and look for what is missing."
    )
    row = _row(page)
    row.set("style", "column-gap: 14px")
    _heading(row, "Verdict:")
    verdicts = _choices(row, VERDICT, protocol.verdicts)
    verdicts.set("required", "true")
    keys = ", ".join(verdict.hotkey for verdict in protocol.verdicts)
    verdicts.set("requiredMessage", f"Choose a verdict (keys {keys}), then submit.")
    _line_of_text(row, COMMENT, "Comment: which place, which rule", "ddiseg-text")
    _photograph(page)
    return _written(page)


def choice_of(entry: SkipReason | Verdict) -> str:
    """Return what a result's `choices` holds for `entry`: its key, whatever its wording."""
    return entry.key


def skip_reason_of(choice: str, protocol: Protocol) -> str:
    """Return the key of the skip reason that a result's `choices` holds as `choice`.

    Its label will do: Label Studio stores that where someone removed the alias from the project.

    Raises:
        ProtocolError: it is none of the protocol's; the message lists the keys.
    """
    return protocol.skip_reason(_key_of(choice, protocol.skip_reasons)).key


def verdict_of(choice: str, protocol: Protocol) -> str:
    """Return the key of the verdict that a result's `choices` holds as `choice`, be it its label.

    Raises:
        ProtocolError: it is none of the protocol's; the message lists the keys.
    """
    return protocol.verdict(_key_of(choice, protocol.verdicts)).key


@dataclass(frozen=True, slots=True)
class Option:
    """A label or a choice."""

    kind: str  #: 'label' or 'choice'
    attributes: Mapping[str, str]  #: names and colour in lower case, as Label Studio ignores case

    @property
    def colour(self) -> str | None:
        """'#rrggbb', or whatever else was written; None for none."""
        return self.attributes.get("background")


@dataclass(frozen=True, slots=True)
class NamedTag:
    """A tag with a name: a control, or what controls are about."""

    tag: str  #: such as 'BrushLabels' or 'Image'
    attributes: Mapping[str, str]  #: names in lower case, as Label Studio ignores case
    options: Mapping[str, Option]  #: by what a result holds: the alias, or else the value

    @property
    def to_name(self) -> str | None:
        """The name of the tag that a control is about; None if this is no control."""
        return self.attributes.get("toname")


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A configuration as a server returned it."""

    tags: Mapping[str, NamedTag]  #: by name

    @property
    def controls(self) -> dict[str, NamedTag]:
        """The tags that results come from, by name."""
        return {name: tag for name, tag in self.tags.items() if tag.to_name is not None}

    @property
    def labels(self) -> dict[str, str | None]:
        """The colour of each label of any control, by what a result holds."""
        return {
            stored: option.colour
            for tag in self.tags.values()
            for stored, option in tag.options.items()
            if option.kind == "label"
        }

    def choices(self, control: str) -> tuple[str, ...]:
        """What a result of `control` can hold; empty where there is no such control."""
        return tuple(self.tags[control].options) if control in self.tags else ()


def read_config(config: str) -> ReadConfig:
    """Read any Label Studio configuration, also one that has little to do with the protocol.

    Raises:
        ProtocolError: it is not XML.
    """
    return ReadConfig(
        {
            element.attrib["name"]: NamedTag(
                element.tag, _attributes(element), dict(_options(element))
            )
            for element in _parsed(config).iter()
            if "name" in element.attrib
        }
    )


def orphaned_labels(server_config: str, protocol: Protocol) -> tuple[str, ...]:
    """Return what a project offers to annotators or reviewers and `protocol` no longer knows.

    If the protocol's configuration took the place of the server's, regions and answers that use
    it would be left without meaning, and Label Studio lets a used label go without a word. Named
    like "label 'scar' of mask" or "control 'quality'". It may be a project of either kind.

    Raises:
        ProtocolError: `server_config` is not XML.
    """
    known: dict[tuple[str, str, str | None], set[str]] = {}
    for config in (annotation_config(protocol, clicks=True), review_config(protocol)):
        for name, control in read_config(config).controls.items():
            known.setdefault((name, control.tag, control.to_name), set()).update(control.options)
    orphans = []
    for name, control in read_config(server_config).controls.items():
        options = known.get((name, control.tag, control.to_name))
        if options is None:
            orphans.append(f"control {name!r}")
        else:
            orphans += [
                f"{option.kind} {stored!r} of {name}"
                for stored, option in control.options.items()
                if stored not in options
            ]
    return tuple(orphans)


def differences(server_config: str, expected_config: str) -> list[str]:
    """Return the changes that someone made to a project's configuration, a line each.

    Empty where only white space, comments, the order of attributes or the case of their names and
    of colours differ.

    Raises:
        ProtocolError: one of the two is not XML.
    """
    server, expected = read_config(server_config).tags, read_config(expected_config).tags
    lines = [f"{name} is missing" for name in expected if name not in server]
    lines += [f"{name} was added" for name in server if name not in expected]
    for name, tag in expected.items():
        if name in server:
            lines += _tag_differences(name, server[name], tag)
    if not lines and _shape(_parsed(server_config)) != _shape(_parsed(expected_config)):
        lines.append("a heading, the layout or the order was changed")
    return lines


#: Fits the page to the window, so that the photograph gets all that the rows above it leave. 134 px
#: are Label Studio's own bars and margins; a task opened from the list has one bar more, for tabs.
#: A note that is typed but not entered is lost on a skip, hence the reminder. Label Studio writes a
#: selected label in white, which can't be read on skin's yellow.
_LAYOUT = """
.ddiseg { display: flex; flex-direction: column; height: calc(100vh - 134px); min-height: 440px }
.lsf-editor:has(.lsf-topbar) .ddiseg { height: calc(100vh - 176px) }
.ddiseg-row { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 6px; margin-bottom: 6px }
.ddiseg-row .lsf-labels { margin: 0 }
.ddiseg-row .lsf-label { margin: 0 6px 0 0 }
.ddiseg-row .lsf-label_selected { background: color-mix(in srgb, var(--color) 50%, transparent); outline: 2px solid }
.ddiseg-row .lsf-label_selected, .ddiseg-row .lsf-label_selected * { color: var(--color-neutral-content) }
.ddiseg-row .lsf-choices { display: contents }
.ddiseg-row .lsf-choice_leaf { line-height: 24px }
.ddiseg-row .lsf-choice__checkbox { padding: 0; font-size: 13px; font-weight: 400 }
.ddiseg-row .ant-checkbox + span { padding: 0 0 0 4px }
.ddiseg-row .ant-checkbox-inner { width: 14px; height: 14px }
.ddiseg-text { flex: 1; min-width: 200px; display: flex; align-items: center; gap: 6px }
.ddiseg-text .lsf-text-area { flex: 1; margin: 0 !important }
.ddiseg-text .lsf-text-area div { margin-bottom: 0 !important }
.ddiseg-text .ant-input { height: 28px; min-height: 28px; padding: 0 8px }
.ddiseg-note:has(input:not(:placeholder-shown))::after { content: "Enter keeps it"; color: var(--color-negative-content) }
.ddiseg-photograph { flex: 1; min-height: 0 }
.ddiseg-photograph .lsf-object { height: 100% }
.ddiseg-photograph .lsf-toolbar { margin-top: 0 }
.ddiseg-photograph .lsf-toolbar__group:first-child .lsf-tool__controls { top: 0; transform: none }
.ddiseg-returned *:empty { display: none }
.ddiseg-returned * {
  max-height: 80px; overflow: auto; white-space: pre-line; padding: 4px 10px; font-size: 14px; font-weight: 400;
  border-left: 4px solid var(--color-warning-border); background: var(--color-warning-background)
}
.ddiseg-returned *::before { content: "Sent back by the reviewer: "; font-weight: 700 }
"""

#: Opacity of what an outline encloses: of lesion, marker and ruler while nobody draws, and of them
#: and of skin and background during a stroke.
_INSIDE, _STROKE_STRONG, _STROKE_WEAK = 0.14, 0.4, 0.12

#: A colour matrix whose alpha row tells the protocol's colours apart: `_KEEP` gives lesion, marker and
#: ruler alpha 1 and skin and background 0, `_RANK` at least 0.7 and below 0.7. It is the plane with the
#: widest margin between the two groups of colours; a test holds it against the protocol.
_RGB = "1 0 0 0 0 0 1 0 0 0 0 0 1 0 0 "
_KEEP = _RGB + "-10 -10 -1.76 13.05 0"
_RANK = _RGB + "-1 -1 -0.176 1.955 0"

#: Opacity by `_RANK` in steps of 0.05: nothing there, skin and background, the others.
_OPACITIES = " ".join(["0", *[str(_STROKE_WEAK)] * 13, *[str(_STROKE_STRONG)] * 6])

#: Lesion, marker and ruler: a rim of 2 px around a faint fill. Skin and background: a thin rim.
_OUTLINES = f"""
<feColorMatrix values="{_KEEP}" result="strong"/>
<feMorphology in="SourceGraphic" operator="erode" radius="1" result="core"/>
<feComposite in="SourceGraphic" in2="core" operator="out"/>
<feComponentTransfer result="thin"><feFuncA type="linear" slope="0.8"/></feComponentTransfer>
<feComponentTransfer in="strong" result="fill"><feFuncA type="linear" slope="{_INSIDE}"/></feComponentTransfer>
<feMorphology in="strong" operator="dilate" radius="2"/>
<feComposite in2="strong" operator="out" result="rim"/>
<feMerge><feMergeNode in="thin"/><feMergeNode in="fill"/><feMergeNode in="rim"/></feMerge>
"""

#: While a stroke is made: no outlines, which take ten times as long without a graphics card.
_FILLS = f"""
<feColorMatrix values="{_RANK}"/>
<feComponentTransfer><feFuncA type="discrete" tableValues="{_OPACITIES}"/></feComponentTransfer>
"""


def _style() -> str:
    """Return the page's style: its layout, and regions as outlines over the photograph.

    Label Studio draws each region at one opacity, so that skin hides the photograph, and takes
    neither `hidden` nor an alpha channel. But each region is a canvas of its own, and a browser can
    pass it through an SVG filter. Safari has no such filters in a style: there regions are faint.
    """
    regions = '.ddiseg-photograph .konvajs-content canvas[style*="opacity"]'
    drawn = '.ddiseg-photograph .konvajs-content:active canvas[style*="opacity"]'
    return f"""{_LAYOUT}
{regions} {{ opacity: 1 !important; filter: {_filter(_OUTLINES)} }}
{drawn} {{ filter: {_filter(_FILLS)} }}
@media (prefers-reduced-motion: reduce) {{ {regions} {{ filter: {_filter(_FILLS)} }} }}
@supports (font: -apple-system-body) {{ {regions} {{ opacity: 0.3 !important; filter: none }} }}
"""


def _filter(primitives: str) -> str:
    """Return a CSS value that applies SVG filter primitives, without a file of its own."""
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg"><filter id="f" x="0" y="0" width="100%" height="100%" '
        f'color-interpolation-filters="sRGB">{" ".join(primitives.split())}</filter></svg>'
    )
    return f"url('data:image/svg+xml,{urllib.parse.quote(picture)}#f')"


def _page() -> ET.Element:
    page = ET.Element("View", className="ddiseg")
    ET.SubElement(page, "Style").text = _style()
    return page


def _row(page: ET.Element) -> ET.Element:
    return ET.SubElement(page, "View", className="ddiseg-row")


def _heading(row: ET.Element, text: str) -> None:
    style = "margin: 0; font-size: 13px; font-weight: 400"
    ET.SubElement(row, "Header", value=text, size="5", style=style)


def _brush_row(
    page: ET.Element, protocol: Protocol, advice: str, *, clicks: bool = False
) -> ET.Element:
    row = _row(page)
    brush = ET.SubElement(row, "BrushLabels", name=MASK, toName=IMAGE)
    if clicks:  # else Auto-Annotation would take the brush for its tool
        brush.set("smart", "false")
    for entry in protocol.classes:
        _label(brush, entry, entry.hotkey)
    _heading(row, advice)
    return row


def _click_row(page: ET.Element, protocol: Protocol) -> None:
    # With hotkeys of their own: Label Studio gives a label without one the next free key, which
    # was `e`, its eraser, for lesion.
    row = _row(page)
    _heading(row, "With Auto-Annotation, Ctrl + click on:")
    points = ET.SubElement(
        row, "KeyPointLabels", name=CLICK, toName=IMAGE, smart="true", smartOnly="true"
    )
    for entry in protocol.classes:
        _label(points, entry, entry.click_hotkey)


def _label(control: ET.Element, entry: LabelClass, hotkey: str) -> None:
    attributes = {"value": entry.name, "background": entry.colour, "hotkey": hotkey}
    ET.SubElement(control, "Label", attributes, hint=entry.definition)


def _choices(row: ET.Element, name: str, entries: Sequence[SkipReason | Verdict]) -> ET.Element:
    choices = ET.SubElement(
        row, "Choices", name=name, toName=IMAGE, choice="single", showInline="true"
    )
    for entry in entries:
        if re.search(r"\$\w", entry.label):
            raise ProtocolError(
                f"label {entry.label!r}: Label Studio would put a task's data in place of '$' and "
                "the word after it; write the label without '$'"
            )
        attributes = {"value": entry.label, "alias": choice_of(entry), "hotkey": entry.hotkey}
        ET.SubElement(choices, "Choice", attributes, hint=entry.definition)
    return choices


def _line_of_text(row: ET.Element, name: str, placeholder: str, class_name: str) -> None:
    ET.SubElement(
        ET.SubElement(row, "View", className=class_name),
        "TextArea",
        name=name,
        toName=IMAGE,
        rows="1",
        maxSubmissions="1",
        editable="true",
        placeholder=placeholder,
    )


def _photograph(page: ET.Element) -> None:
    """Add the picture, last of all: below it, choices would fall off the screen."""
    ET.SubElement(
        ET.SubElement(page, "View", className="ddiseg-photograph"),
        "Image",
        name=IMAGE,
        value=f"${IMAGE}",
        height="100%",
        maxHeight="100%",
        zoom="true",
        zoomControl="true",
        brightnessControl="true",
        contrastControl="true",
        rotateControl="false",
        smoothing="false",
    )


def _written(page: ET.Element) -> str:
    ET.indent(page)
    config = ET.tostring(page, encoding="unicode")
    try:
        ET.fromstring(config)
    except ET.ParseError as error:
        line = config.split("\n")[error.position[0] - 1].strip()
        raise ProtocolError(
            f"protocol: XML can't hold a character of {line!r}; remove it from the protocol"
        ) from error
    return config


def _key_of(choice: str, entries: Sequence[SkipReason | Verdict]) -> str:
    if choice in [choice_of(entry) for entry in entries]:
        return choice
    keys = [entry.key for entry in entries if entry.label == choice]
    return keys[0] if len(keys) == 1 else choice


def _parsed(config: str) -> ET.Element:
    try:
        return ET.fromstring(config)
    except (ET.ParseError, UnicodeEncodeError) as error:
        raise ProtocolError(
            f"configuration {config[:40]!r}: is not XML ({error}); "
            "correct it in the project's settings, Labeling Interface, Code"
        ) from error


def _attributes(element: ET.Element) -> dict[str, str]:
    attributes = {name.lower(): value for name, value in element.attrib.items()}
    if "background" in attributes:
        attributes["background"] = attributes["background"].lower()
    return attributes


def _options(control: ET.Element) -> Iterator[tuple[str, Option]]:
    for element in control.iter():
        if element.tag in ("Label", "Choice"):
            attributes = _attributes(element)
            stored = attributes.get("alias") or attributes.get("value")
            if stored:
                yield stored, Option(element.tag.lower(), attributes)


def _tag_differences(name: str, server: NamedTag, expected: NamedTag) -> Iterator[str]:
    if server.tag != expected.tag:
        yield f"{name}: tag {server.tag!r} instead of {expected.tag!r}"
    yield from _attribute_differences(name, server.attributes, expected.attributes)
    added = {s: option for s, option in server.options.items() if s not in expected.options}
    for stored, option in expected.options.items():
        what = f"{option.kind} {stored!r} of {name}"
        if stored in server.options:
            found = server.options[stored].attributes
            yield from _attribute_differences(what, found, option.attributes)
        elif (new_name := _renamed(option, added)) is not None:
            yield f"{what} was renamed to {new_name!r}"
            found = added.pop(new_name).attributes
            yield from _attribute_differences(what, found, option.attributes, ("value", "alias"))
        else:
            yield f"{what} is missing"
    for stored, option in added.items():
        yield f"{option.kind} {stored!r} of {name} was added"


def _attribute_differences(
    what: str, server: Mapping[str, str], expected: Mapping[str, str], but: Collection[str] = ()
) -> Iterator[str]:
    for attribute in sorted((server.keys() | expected.keys()).difference(but)):
        if server.get(attribute) != expected.get(attribute):
            word = _WORDS.get(attribute, attribute)
            found, wanted = (repr(a.get(attribute, "")) for a in (server, expected))
            yield f"{what}: {word} {found} instead of {wanted}"


#: Attributes as people call them.
_WORDS = {"background": "colour", "value": "text"}


def _renamed(option: Option, added: Mapping[str, Option]) -> str | None:
    """Return which of `added` is `option` under another name: the one with its hotkey or its colour."""
    for stored, candidate in added.items():
        for attribute in ("hotkey", "background"):
            value = option.attributes.get(attribute)
            if value is not None and candidate.attributes.get(attribute) == value:
                return stored
    return None


_Shape = tuple[str, dict[str, str], list[str], list["_Shape"]]


def _shape(element: ET.Element) -> _Shape:
    """Return the content of a configuration without its formatting."""
    text = (element.text or "").split()
    return element.tag, _attributes(element), text, [_shape(child) for child in element]
