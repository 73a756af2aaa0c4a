"""COCO's instance format (https://cocodataset.org/#format-data), as many tools and our releases write it.

Ids may be any numbers, 0 included, or texts; 1, 1.0 and "1" are one id. A release of ours keeps the facts of an image in its
`attributes`, see `ddiseg.release.coco`; other tools' attributes of the same names are taken as well. A large release has several
files, see `ddiseg.ingest.coco_parts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddiseg.errors import InputError
from ddiseg.ingest.coco_parts import CocoLists, entry_id, join_parts, objects, one_part, parts_in
from ddiseg.ingest.folder import list_folder, read_json
from ddiseg.ingest.matching import name_key
from ddiseg.json_values import size_of
from ddiseg.outcomes import FileOutcome, Outcome


@dataclass(frozen=True)
class CocoImage:
    """An image with its attributes and annotations."""

    file_name: str
    size: tuple[int, int] | None  #: (height, width); None where it is missing or no size
    facts: Mapping[str, Any]  #: its `attributes`
    licence: str | None
    synthetic: bool  #: made by code, according to a release of ours
    annotations: Sequence[Mapping[str, Any]]
    original_name: str | None = None  #: before Roboflow changed it (`extra.name`)

    @property
    def has_mask(self) -> bool:
        """Whether it has a mask; an image of a release may have one without regions: all of it is background."""
        return bool(self.annotations) or "mask_hash" in self.facts

    @property
    def is_prediction(self) -> bool:
        """Whether a release of ours marks it as a prediction that no person reviewed."""
        return self.facts.get("accepted") is False


@dataclass(frozen=True)
class CocoFile:
    """The usable content of a file, and the refused rest."""

    path: Path
    images: Sequence[CocoImage]
    categories: Mapping[Any, str]  #: name by id
    refused: Sequence[FileOutcome]
    notes: Sequence[str] = ()  #: what was left out, that is neither an image nor a mask


def read_coco(path: Path) -> CocoFile:
    """Read a COCO file, or that in a folder: the only one, or all files of one release.

    Raises:
        InputError: not a COCO file, none or several in the folder, or a release that is not whole.
    """
    if path.is_dir() and (parts := parts_in(path)):
        documents = (_checked(part, read_json(part)) for part in parts)
        return _as_file(path, join_parts(parts, documents))
    path, document = _only_one_in(path) if path.is_dir() else (path, read_json(path))
    return _as_file(path, one_part(_checked(path, document)))


def _checked(path: Path, document: Any) -> dict[str, Any]:
    """Return a document if it is COCO; raises InputError for any other."""
    if _is_coco(document):
        return dict(document)
    if isinstance(document, list) and any(isinstance(e, dict) and "data" in e for e in document):
        raise InputError(
            f"{path} is an export of Label Studio's own: give it to "
            "'ddiseg masks import --as labelstudio'"
        )
    raise InputError(f"{path} is no COCO file: it has no list called 'images'")


def _as_file(path: Path, lists: CocoLists) -> CocoFile:
    refused: list[FileOutcome] = []
    entries = _usable(path, lists.images, refused)
    ids = {entry_id(e["id"]) for e in entries}
    listed = {entry_id(e.get("id")) for e in objects(lists.images)}
    annotations = lists.by_image(ids, listed)
    licences = {entry_id(e.get("id")): e for e in objects(lists.licences)}
    return CocoFile(
        path=path,
        images=[
            CocoImage(
                file_name=entry["file_name"],
                size=size_of(entry.get("height"), entry.get("width")),
                facts=_facts(entry),
                licence=_licence(entry, licences),
                synthetic=_licence_entry(entry, licences).get("synthetic") is True,
                annotations=annotations.of(entry_id(entry["id"])),
                original_name=_original_name(entry),
            )
            for entry in entries
        ],
        categories=_categories(path, lists.categories),
        refused=refused,
        notes=annotations.notes(),
    )


def has_coco(path: Path) -> bool:
    """Return whether a path is a COCO file, or a folder with one."""
    if path.is_dir():
        return any(has_coco(file.place) for file in list_folder(path, (".json",)).files)
    return path.suffix.lower() == ".json" and _coco_document(path) is not None


def _coco_document(path: Path) -> Any:
    """Return the content of a COCO file, None for any other file."""
    try:
        document = read_json(path)
    except InputError:
        return None
    return document if _is_coco(document) else None


def _only_one_in(folder: Path) -> tuple[Path, Any]:
    files = list_folder(folder, (".json",)).files
    if not files:
        raise InputError(f"{folder} has no COCO file: no file ends in .json")
    if len(files) == 1:
        return files[0].place, read_json(files[0].place)
    read = ((file.place, _coco_document(file.place)) for file in files)
    found = [(place, document) for place, document in read if document is not None]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"{folder} has no COCO file: no .json in it has a list called 'images'")
    raise InputError(
        f"{folder} has {len(found)} COCO files ({', '.join(str(p) for p, _ in found[:5])}): "
        "import one at a time"
    )


def _is_coco(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("images"), list)


def _usable(path: Path, entries: list[Any], refused: list[FileOutcome]) -> list[dict[str, Any]]:
    """Return the images that have a unique name and id."""
    named = []
    for number, entry in enumerate(entries, 1):
        if (
            isinstance(entry, dict)
            and entry_id(entry.get("id")) is not None
            and _is_name(entry.get("file_name"))
        ):
            named.append(entry)
        else:
            refused.append(
                FileOutcome(
                    f"{path.name}: image {number} of the list",
                    Outcome.REFUSED,
                    "has no id or no file_name: export it again",
                )
            )
    ids = Counter(entry_id(entry["id"]) for entry in named)
    names = Counter(name_key(entry["file_name"]) for entry in named)
    good = []
    for entry in named:
        if names[name_key(entry["file_name"])] > 1:
            twice = "its file_name"
        elif ids[entry_id(entry["id"])] > 1:
            twice = f"its id {entry['id']}"
        else:
            good.append(entry)
            continue
        why = f"{twice} occurs more than once in {path.name}: it is not clear which is meant"
        refused.append(FileOutcome(entry["file_name"], Outcome.REFUSED, why))
    return good


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _categories(path: Path, entries: Any) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for entry in objects(entries):
        category, name = entry_id(entry.get("id")), str(entry.get("name"))
        if category is None:
            raise InputError(f"{path}: category '{name}' has no id: export it again")
        if names.setdefault(category, name) != name:
            raise InputError(
                f"{path}: category {category} is both '{names[category]}' and '{name}': "
                "give each its own id"
            )
    return names


def _facts(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    facts = entry.get("attributes")
    return facts if isinstance(facts, dict) else {}


def _original_name(entry: Mapping[str, Any]) -> str | None:
    extra = entry.get("extra")
    name = extra.get("name") if isinstance(extra, dict) else None
    return name if _is_name(name) else None


def _licence_entry(
    entry: Mapping[str, Any], licences: Mapping[Any, Mapping[str, Any]]
) -> Mapping[str, Any]:
    number = entry_id(entry.get("license"))
    return {} if number is None else licences.get(number, {})


def _licence(entry: Mapping[str, Any], licences: Mapping[Any, Mapping[str, Any]]) -> str | None:
    """Return the name of its licence; tools write "" or "Unknown" where they know none."""
    name = _facts(entry).get("licence", _licence_entry(entry, licences).get("name"))
    if not isinstance(name, str) or name.strip().lower() in ("", "unknown", "not recorded"):
        return None
    return name.strip()
