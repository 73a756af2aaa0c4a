"""What the labels of another tool's regions mean: "nevus" is a lesion, "Skin" is skin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from annotation_protocol import Protocol
from ddiseg.errors import InputError
from ddiseg.ingest.option_lists import split_option


@dataclass(frozen=True)
class Labels:
    """Classes by label. Case and space around a label do not matter.

    A label that `given` does not name means the class of the same name.
    """

    protocol: Protocol
    given: Mapping[str, int] = field(default_factory=dict)  #: class id by label, in lower case
    rest: int | None = None  #: class of the pixels in no region; None: the protocol's hole fill

    @classmethod
    def parse(cls, text: str | None, rest: str | None, protocol: Protocol) -> Labels:
        """What "nevus=lesion,pen=marker" says; a label with a comma goes in quotes.

        Args:
            text: comma-separated LABEL=CLASS, or None.
            rest: name of the class of the pixels that no region covers, or None.

        Raises:
            InputError: a part that is not LABEL=CLASS, a label that stands twice, no such class.
        """
        given: dict[str, int] = {}
        for part in split_option("--classes", text or ""):
            label, equals, name = part.rpartition("=")
            key = _plain(label)
            if not equals or not key:
                raise InputError(
                    f"--classes: '{part.strip()}' is not LABEL=CLASS; write for example "
                    "nevus=lesion,pen=marker"
                )
            if key in given:
                raise InputError(f"--classes: '{label.strip()}' stands twice: keep one of them")
            given[key] = _class_id("--classes", name, protocol)
        return cls(protocol, given, None if rest is None else _class_id("--rest", rest, protocol))

    @property
    def rest_id(self) -> int:
        """Class id of the pixels that no region covers."""
        if self.rest is not None:
            return self.rest
        return self.protocol.class_named(self.protocol.hole_fill).index

    def class_id(self, label: str) -> int:
        """The class of a label; raises InputError where it is unknown."""
        found = self._find(label)
        if found is None:
            raise InputError(self._unknown([label]))
        return found

    def check(self, labels: Iterable[str]) -> None:
        """Raise InputError that lists the labels whose class is unknown, and what to type."""
        unknown = sorted({label for label in labels if self._find(label) is None})
        if unknown:
            raise InputError(self._unknown(unknown))

    def known(self, labels: Iterable[str]) -> set[int]:
        """The classes of those labels that have one."""
        return {index for label in labels if (index := self._find(label)) is not None}

    def _find(self, label: str) -> int | None:
        key = _plain(label)
        same = {_plain(c.name): c.index for c in self.protocol.classes}
        return self.given.get(key, same.get(key))

    def _unknown(self, labels: list[str]) -> str:
        # What can be pasted into a shell, whatever the labels are called.
        quoted = [f'"{label}"' if "," in label else label for label in labels]
        example = ",".join(f"{label}=lesion" for label in quoted)
        return (
            f"labels whose class is not known: {', '.join(quoted)}; say what each means with "
            f"--classes '{example}'; the classes are {', '.join(self.protocol.class_names)}"
        )


def _class_id(option: str, name: str, protocol: Protocol) -> int:
    same = {_plain(c.name): c.index for c in protocol.classes}
    if _plain(name) not in same:
        raise InputError(
            f"{option}: there is no class '{name.strip()}'; the classes are "
            f"{', '.join(protocol.class_names)}"
        )
    return same[_plain(name)]


def _plain(label: str) -> str:
    return " ".join(label.casefold().split())
