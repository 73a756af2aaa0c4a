"""Read and check `protocol.toml`, the one source of classes, skip reasons, verdicts and tones.

Only the standard library is imported here, so that every command can afford to read the protocol.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from annotation_protocol.errors import ProtocolError

#: Value of a pixel without a class, in a mask that is labelled in part: that of Pascal VOC's "void"
#: (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/#SECTION00043000000000000000).
UNLABELLED = 255

#: What files, options and listings call such pixels, and VOC's colour of them.
UNLABELLED_NAME = "unlabelled"
UNLABELLED_RGB = (224, 224, 192)

PROTOCOL_FILE = Path(__file__).with_name("protocol.toml")

#: Keys that Label Studio 1.23.2's image tools keep for themselves; tests/live reads them from its files.
TOOL_HOTKEYS = frozenset("behkmopruvw")


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class of pixels; raises ProtocolError where a field breaks its rule."""

    index: int  #: the number stored in a mask, 0 to 254; 255 is a pixel without a class
    name: str
    colour: str  #: '#rrggbb', lower case
    hotkey: str  #: for the brush
    click_hotkey: str  #: for clicks, with Auto-Annotation
    precedence: int  #: where two manual edits claim the same pixel, the higher wins
    definition: str

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_word("name", self.name)
        _check_hotkey(self.hotkey)
        _check_hotkey(self.click_hotkey)
        if not 0 <= self.index < UNLABELLED:
            raise ProtocolError(f"index {self.index} is not 0 to 254; number classes from 0")
        if not re.fullmatch(r"#[0-9a-f]{6}", self.colour):
            raise ProtocolError(
                f"colour {self.colour!r} is not '#rrggbb' in lower case; correct it"
            )

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as red, green and blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


@dataclass(frozen=True, slots=True)
class SkipReason:
    """A reason to give an image no mask; raises ProtocolError where a field breaks its rule."""

    key: str
    label: str
    hotkey: str
    definition: str
    needs_note: bool  #: a skip for this reason is refused without a note

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_word("key", self.key)
        _check_hotkey(self.hotkey)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision of a review; raises ProtocolError where a field breaks its rule."""

    key: str
    label: str
    hotkey: str
    definition: str

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_word("key", self.key)
        _check_hotkey(self.hotkey)


@dataclass(frozen=True, slots=True)
class ToneGroup:
    """A group of Fitzpatrick skin types; raises ProtocolError where a field breaks its rule."""

    name: str
    definition: str
    code: int | None = None  #: the number in DDI's skin_tone column; None where DDI has none

    def __post_init__(self) -> None:
        _check_texts(self)


@dataclass(frozen=True, slots=True)
class Protocol:
    """The whole protocol; `classes[i].index == i`.

    Raises:
        ProtocolError: two entries clash, the indices have a gap, or a table is empty.
    """

    version: str  #: 'major.minor'; every mask records it
    hole_fill: str  #: name of the class that an unlabelled pixel becomes
    classes: tuple[LabelClass, ...]
    skip_reasons: tuple[SkipReason, ...]
    verdicts: tuple[Verdict, ...]
    tones: tuple[ToneGroup, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+\.\d+", self.version):
            raise ProtocolError(f"version {self.version!r} is not 'major.minor'; write e.g. '1.0'")
        for table in _TABLES:
            if not getattr(self, table):
                raise ProtocolError(f"[[{table}]] is empty or missing; give at least one")
        indices = [c.index for c in self.classes]
        _check_unique("classes", "index", indices)
        if indices != list(range(len(indices))):
            raise ProtocolError(
                f"[[classes]]: the indices are {sorted(indices)}; "
                f"number the classes 0 to {len(indices) - 1} in order, without a gap"
            )
        _check_unique("classes", "name", self.class_names)
        _check_unique("classes", "colour", [c.colour for c in self.classes])
        _check_unique("classes", "precedence", [c.precedence for c in self.classes])
        _check_unique("skip_reasons", "key", [r.key for r in self.skip_reasons])
        _check_unique("verdicts", "key", [v.key for v in self.verdicts])
        _check_unique("tones", "name", [t.name for t in self.tones])
        _check_unique("tones", "code", [t.code for t in self.tones])
        taken: dict[str, str] = {}
        for table in ("classes", "skip_reasons", "verdicts"):
            hotkeys = [entry.hotkey for entry in getattr(self, table)]
            if table == "classes":
                hotkeys += [c.click_hotkey for c in self.classes]
            for hotkey in hotkeys:
                if (first := taken.setdefault(hotkey, table)) != table:
                    raise ProtocolError(
                        f"[[{table}]]: hotkey {hotkey!r} is taken in [[{first}]]; "
                        "choose a free digit or letter"
                    )
            _check_unique(table, "hotkey", hotkeys)
        if self.hole_fill not in self.class_names:
            raise ProtocolError(
                f"hole_fill {self.hole_fill!r} is no class; choose {_listed(self.class_names)}"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, in the order of their indices."""
        return tuple(c.name for c in self.classes)

    def has_classes_of(self, version: str) -> bool:
        """Return whether masks and models of protocol `version` have the same classes.

        Only the first number counts: the second rises for wording, colours and hotkeys.
        """
        return version.partition(".")[0] == self.version.partition(".")[0]

    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """Return red, green and blue (0 to 255) of each class, in the order of their indices."""
        return tuple(c.rgb for c in self.classes)

    def class_named(self, name: str) -> LabelClass:
        """Return the class called `name`; raises ProtocolError that lists the names where there is none."""
        return _lookup("class", name, {c.name: c for c in self.classes})

    def class_at(self, index: int) -> LabelClass:
        """Return the class stored as `index`; raises ProtocolError that lists the indices where there is none."""
        return _lookup("class index", index, {c.index: c for c in self.classes})

    def skip_reason(self, key: str) -> SkipReason:
        """Return the skip reason `key`; raises ProtocolError that lists the keys where there is none."""
        return _lookup("skip reason", key, {r.key: r for r in self.skip_reasons})

    def verdict(self, key: str) -> Verdict:
        """Return the verdict `key`; raises ProtocolError that lists the keys where there is none."""
        return _lookup("verdict", key, {v.key: v for v in self.verdicts})

    def tone(self, name: str) -> ToneGroup:
        """Return the tone group `name`; raises ProtocolError that lists the names where there is none."""
        return _lookup("tone", name, {t.name: t for t in self.tones})

    def tone_coded(self, code: int) -> ToneGroup:
        """Return the tone group that DDI writes as `code`; raises ProtocolError that lists the codes where there is none."""
        return _lookup("tone code", code, {t.code: t for t in self.tones if t.code is not None})


_TABLES: dict[str, type[Any]] = {
    "classes": LabelClass,
    "skip_reasons": SkipReason,
    "verdicts": Verdict,
    "tones": ToneGroup,
}


def load_protocol(path: Path | None = None) -> Protocol:
    """Read the protocol at `path`, or the package's own, which is read only once.

    Raises:
        ProtocolError: the file can't be read or breaks a rule; one line names the file, the table
            and what to do.
    """
    return _default_protocol() if path is None else _read(path)


@cache
def _default_protocol() -> Protocol:
    return _read(PROTOCOL_FILE)


def _read(path: Path) -> Protocol:
    import tomllib

    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ProtocolError(
            f"{path}: can't be read ({error.strerror}); give the path of a protocol.toml"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProtocolError(
            f"{path}: is not TOML in UTF-8 ({error}); correct that place"
        ) from error
    try:
        return _protocol(document)
    except ProtocolError as error:
        raise ProtocolError(f"{path}: {error}") from error


def _protocol(document: dict[str, Any]) -> Protocol:
    known = [field.name for field in fields(Protocol)]
    for key in document:
        if key not in known:
            raise ProtocolError(f"unknown key {key!r}; remove it or use {_listed(known)}")
    for key in ("version", "hole_fill"):
        if not isinstance(document.get(key), str):
            raise ProtocolError(f'{key} is missing or no text; write {key} = "..." at the top')
    return Protocol(
        version=document["version"],
        hole_fill=document["hole_fill"],
        classes=tuple(sorted(_entries(document, "classes", LabelClass), key=lambda c: c.index)),
        skip_reasons=_entries(document, "skip_reasons", SkipReason),
        verdicts=_entries(document, "verdicts", Verdict),
        tones=_entries(document, "tones", ToneGroup),
    )


_Entry = TypeVar("_Entry", LabelClass, SkipReason, Verdict, ToneGroup)

#: Type of each field as written in the dataclasses, and what to call it in a message.
_FIELD_TYPES: dict[str, tuple[type, str]] = {
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "str": (str, "a text"),
    "bool": (bool, "true or false"),
}


def _entries(document: dict[str, Any], table: str, kind: type[_Entry]) -> tuple[_Entry, ...]:
    rows = document.get(table, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError(f"{table} is not a list of tables; write [[{table}]] above each entry")
    entries = []
    for number, row in enumerate(rows, 1):
        try:
            _check_row(row, kind)
            entries.append(kind(**row))
        except ProtocolError as error:
            raise ProtocolError(f"[[{table}]] number {number}: {error}") from error
    return tuple(entries)


def _check_row(row: dict[str, Any], kind: type[_Entry]) -> None:
    known = {field.name: field for field in fields(kind)}
    for key in row:
        if key not in known:
            raise ProtocolError(f"unknown key {key!r}; remove it or use {_listed(known)}")
    for name, field in known.items():
        expected, called = _FIELD_TYPES[str(field.type)]
        if name not in row:
            if field.default is MISSING:
                raise ProtocolError(f"{name} is missing; add {name} = {called}")
        elif type(row[name]) is not expected:  # isinstance would take true for 1
            raise ProtocolError(f"{name} = {row[name]!r} is not {called}; correct it")


def _check_texts(entry: LabelClass | SkipReason | Verdict | ToneGroup) -> None:
    for field in fields(entry):
        value = getattr(entry, field.name)
        if isinstance(value, str) and (not value.strip() or value != value.strip()):
            raise ProtocolError(
                f"{field.name} {value!r} is empty or has space around it; write it without"
            )


def _check_word(field: str, value: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
        raise ProtocolError(
            f"{field} {value!r} is not lower-case letters, digits and '_'; rename it"
        )


def _check_hotkey(hotkey: str) -> None:
    if not re.fullmatch(r"[0-9a-z]", hotkey):
        raise ProtocolError(f"hotkey {hotkey!r} is not one digit or lower-case letter; choose one")
    if hotkey in TOOL_HOTKEYS:
        raise ProtocolError(
            f"hotkey {hotkey!r} is one of the labelling tool's own "
            f"({', '.join(sorted(TOOL_HOTKEYS))}); choose another"
        )


def _check_unique(table: str, field: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ProtocolError(
                f"[[{table}]]: {field} {value!r} stands {values.count(value)} times; "
                f"give each entry its own {field}"
            )


def _lookup(what: str, given: object, entries: Mapping[Any, _Entry]) -> _Entry:
    if given not in entries:
        raise ProtocolError(f"no {what} {given!r} in the protocol; choose {_listed(entries)}")
    return entries[given]


def _listed(values: Iterable[object]) -> str:
    return "one of " + ", ".join(str(value) for value in values)
