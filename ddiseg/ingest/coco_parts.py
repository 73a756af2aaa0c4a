"""The lists of a COCO file, or of the files that a large release of ours is divided into.

Of several files the annotations are read anew where they are used, one file at a time: images come in
the order of the files, so that memory holds two of these, however large a release is.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from ddiseg.errors import InputError
from ddiseg.ingest.folder import read_json
from ddiseg.json_values import whole_number
from ddiseg.locate import COCO_PART

_PART = re.compile(r"coco-(\d{5})-of-(\d{5})\.json")

Annotation = Mapping[str, Any]


def parts_in(folder: Path) -> list[Path]:
    """Return the files of a release that lie in a folder, in their order; none where it has no such files.

    Raises:
        InputError: one of them is missing, or they are of two releases.
    """
    found = {p.name: p for p in folder.iterdir() if _PART.fullmatch(p.name) and p.is_file()}
    if not found:
        return []
    totals = {int(match[2]) for name in found if (match := _PART.fullmatch(name))}
    if len(totals) > 1:
        raise InputError(
            f"{folder} has files of {len(totals)} releases ({', '.join(sorted(found)[:3])}, ...): put each "
            "release into a folder of its own"
        )
    total = totals.pop()
    names = [COCO_PART.format(number, total) for number in range(1, total + 1)]
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"{folder} lacks {missing[0]}, of {total} files of a release: copy the release whole, or give one "
            "of its files"
        )
    return [found[name] for name in names]


def objects(entries: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a list; none where it is no list."""
    return (e for e in entries if isinstance(e, dict)) if isinstance(entries, list) else iter(())


def entry_id(value: Any) -> int | str | None:
    """Return an id as a whole number where it is one, however it is written; None for no id."""
    number = whole_number(value)
    return number if number is not None else value if isinstance(value, str) else None


@dataclass(frozen=True)
class CocoLists:
    """The lists of one file or of several; the annotations of each file are read when they are asked for."""

    images: list[Any]
    categories: list[Any]
    licences: list[Any]
    annotations: Sequence[Callable[[], Any]]

    def by_image(self, images: set[Any], listed: set[Any]) -> Annotations:
        """Return the annotations by image.

        Args:
            images: ids of the usable images.
            listed: ids of all images.
        """
        return Annotations(self.annotations, images, listed)


def one_part(document: Mapping[str, Any]) -> CocoLists:
    """Return the lists of one file, which stays in memory."""
    return CocoLists(
        document["images"],
        list(objects(document.get("categories"))),
        list(objects(document.get("licenses"))),
        [lambda: document.get("annotations")],
    )


def join_parts(paths: Sequence[Path], documents: Iterable[Mapping[str, Any]]) -> CocoLists:
    """Return the lists of several files, of which only the images stay in memory."""
    lists = CocoLists([], [], [], [_reader(path) for path in paths])
    for document in documents:
        lists.images.extend(document["images"])
        lists.categories.extend(objects(document.get("categories")))
        lists.licences.extend(objects(document.get("licenses")))
    return lists


def _reader(path: Path) -> Callable[[], Any]:
    return lambda: read_json(path).get("annotations")


@dataclass
class _Unused:
    """Annotations of no usable image."""

    unknown: list[str] = field(default_factory=list)  #: ids of images that are not listed
    of_refused: int = 0


class Annotations:
    """The annotations of files by image id; at most those of two files are in memory."""

    def __init__(
        self, lists: Sequence[Callable[[], Any]], images: set[Any], listed: set[Any]
    ) -> None:
        self._lists, self._images, self._listed = lists, images, listed
        self._lock = threading.Lock()  # two threads must not read one file at once
        self._cached = lru_cache(maxsize=2)(self._read)
        self._unused = [_Unused() for _ in lists]
        self._numbers: dict[Any, int] = {}
        self._places: dict[Any, list[int]] = defaultdict(list)
        for place in range(len(lists)):
            for image_id, found in self._in_file(place).items():
                self._places[image_id].append(place)
                self._numbers[image_id] = self._numbers.get(image_id, 0) + len(found)

    def of(self, image_id: Any) -> Sequence[Annotation]:
        """Return the annotations of an image."""
        if len(self._lists) == 1:
            return self._in_file(0).get(image_id, [])
        return _Later(self, image_id, self._numbers.get(image_id, 0))

    def read(self, image_id: Any) -> list[Annotation]:
        """Read the annotations of an image from the files that have some."""
        return [e for place in self._places[image_id] for e in self._in_file(place)[image_id]]

    def notes(self) -> list[str]:
        """Return what was left out."""
        unknown = [each for unused in self._unused for each in unused.unknown]
        notes = []
        if unknown:
            named = ", ".join(list(dict.fromkeys(unknown))[:5])
            notes.append(f"annotations of unknown images: {len(unknown)} (image_id {named})")
        if of_refused := sum(unused.of_refused for unused in self._unused):
            notes.append(f"annotations of refused images: {of_refused}")
        return notes

    def _in_file(self, place: int) -> dict[Any, list[Annotation]]:
        with self._lock:
            return self._cached(place)

    def _read(self, place: int) -> dict[Any, list[Annotation]]:
        found: dict[Any, list[Annotation]] = defaultdict(list)
        unused = self._unused[place] = _Unused()
        entries = self._lists[place]()
        for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
            image_id = entry.get("image_id") if isinstance(entry, dict) else None
            known = entry_id(image_id)
            if known is not None and known in self._images:
                found[known].append({"id": f"number {number} of the list", **entry})
            elif known is not None and known in self._listed:
                unused.of_refused += 1
            else:
                unused.unknown.append(str(image_id))
        return dict(found)


@dataclass(frozen=True)
class _Later(Sequence[Annotation]):
    """The annotations of one image, read from their file each time."""

    annotations: Annotations
    image_id: Any
    number: int

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Annotation]:
        return iter(self.annotations.read(self.image_id) if self.number else ())

    @overload
    def __getitem__(self, place: int) -> Annotation: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Annotation]: ...
    def __getitem__(self, place: int | slice) -> Annotation | Sequence[Annotation]:
        return list(self)[place]
