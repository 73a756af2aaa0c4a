"""Pseudonyms of images, patients, lesions and people: keyed hashes with a secret of the workspace.

HMAC-SHA256 (RFC 2104), of which 48 bits are shown. The same key gives the same pseudonyms in every
release; without it nobody can compute them from a list of names.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from annotation_protocol.csv_files import csv_text
from annotation_protocol.files import atomic_write, locked
from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.catalogue.tables import Dataset
from ddiseg.errors import WorkspaceError
from ddiseg.workspace.backup import FOLDER as BACKUPS
from ddiseg.workspace.pseudonym_key import KEY_BYTES, KEY_FILE, TABLE_FILE, key_of_backup, read_key
from ddiseg.workspace.workspace import Workspace, default_actor

TABLE_COLUMNS = ("kind", "pseudonym", "dataset", "original")

#: Kind of the event that says with which key releases were made.
_EVENT = "pseudonyms"

_SHOWN = 12  #: hexadecimal digits


@dataclass(frozen=True)
class Pseudonyms:
    """The pseudonyms of a workspace."""

    key: bytes

    @classmethod
    def of(cls, workspace: Workspace) -> Pseudonyms:
        """Return those of a workspace; its secret is created the first time.

        Raises:
            WorkspaceError: the secret is damaged, can't be written, or was lost: another one would
                give other pseudonyms than those of earlier releases.
        """
        path = workspace.root / KEY_FILE
        try:
            with locked(path.with_name(f".{KEY_FILE}.lock"), "", wait=lambda _message: None):
                if not path.exists():
                    if problem := key_problem(workspace):
                        raise WorkspaceError(problem)
                    atomic_write(path, f"{secrets.token_hex(KEY_BYTES)}\n")
        except OSError as error:
            raise WorkspaceError(f"{path}: {error.strerror}; make the folder writable") from error
        return cls(_read(path))

    @classmethod
    def existing(cls, workspace: Workspace) -> Pseudonyms | None:
        """Return those of a workspace; None where no release was made with pseudonyms."""
        path = workspace.root / KEY_FILE
        return cls(_read(path)) if path.exists() else None

    @property
    def fingerprint(self) -> str:
        """What tells this key from others, and not what it is."""
        return self._hash("fingerprint")

    def image(self, content_hash: str) -> str:
        """Return the pseudonym of an image, from its pixels: a new name does not change it."""
        return f"img_{self._hash('image', content_hash)}"

    def patient(self, dataset: Dataset, patient: str) -> str:
        """Return the pseudonym of a patient; datasets that share patients share these, too."""
        scope = dataset.patient_scope or dataset.name
        return f"patient_{self._hash('patient', scope, patient)}"

    def lesion(self, dataset: Dataset, lesion: str, patient: str | None) -> str:
        """Return the pseudonym of a lesion; where a dataset numbers them anew for each patient, of both."""
        within = (patient or "",) if dataset.lesions_per_patient else ()
        scope = dataset.patient_scope or dataset.name
        return f"lesion_{self._hash('lesion', scope, *within, lesion)}"

    def person(self, name: str) -> str:
        """Return the pseudonym of who drew or reviewed a mask."""
        return f"person_{self._hash('person', name)}"

    def _hash(self, *parts: str) -> str:
        message = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:_SHOWN]


def write_table(
    workspace: Workspace, pseudonyms: Pseudonyms, renamed: Sequence[tuple[str, str, str]] = ()
) -> Path:
    """Write what each pseudonym stands for into the workspace; returns the file.

    Args:
        renamed: (kind, name in the release, name) of datasets and subsets with another name.

    Raises:
        WorkspaceError: two have the same pseudonym, or the file can't be written.
    """
    catalogue = workspace.catalogue
    made = catalogue.events.last(_EVENT)
    path = workspace.root / TABLE_FILE
    with closing(_Table()) as table:
        for row in _rows(workspace, pseudonyms):
            table.add(*row)
        for kind, label, name in renamed:
            table.add(kind, label, name if kind == "dataset" else "", name)
        if made is None or made.detail.get("key") != pseudonyms.fingerprint:
            catalogue.events.record(_EVENT, default_actor(), {"key": pseudonyms.fingerprint})
        try:
            atomic_write(path, table.write)
        except OSError as error:
            raise WorkspaceError(
                f"{path}: {error.strerror}; free some space, then export again"
            ) from error
    return path


#: Kind, pseudonym, dataset and original.
_Row = tuple[str, str, str, str]


def _rows(workspace: Workspace, pseudonyms: Pseudonyms) -> Iterator[_Row]:
    """Yield all pseudonyms of a workspace, those of patients and lesions once for each of their images."""
    catalogue = workspace.catalogue
    datasets = {dataset.id: dataset for dataset in catalogue.images.datasets()}
    for image in catalogue.identities.images():
        dataset = datasets[image.dataset_id]
        yield "image", pseudonyms.image(image.content_hash), dataset.name, image.name
        patient, lesion = normalise_id(image.patient), normalise_id(image.lesion)
        if patient is not None:
            yield "patient", pseudonyms.patient(dataset, patient), dataset.name, patient
        if lesion is not None:
            yield "lesion", pseudonyms.lesion(dataset, lesion, patient), dataset.name, lesion
    for person in sorted(people(workspace)):
        yield "person", pseudonyms.person(person), "", person


class _Table:
    """The table of pseudonyms, sorted by SQLite in a temporary file: memory does not grow with it."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(
            "", isolation_level=None
        )  # removed as soon as it is opened
        self._database.execute("BEGIN")
        self._database.execute(
            "CREATE TABLE rows (pseudonym TEXT PRIMARY KEY, kind, dataset, original) WITHOUT ROWID"
        )

    def add(self, kind: str, pseudonym: str, dataset: str, original: str) -> None:
        """Add a row; the first of each pseudonym stays.

        Raises:
            WorkspaceError: two have the same pseudonym.
        """
        row = pseudonym, kind, dataset, original
        added = self._database.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)", row)
        if added.rowcount:
            return
        query = "SELECT original FROM rows WHERE pseudonym = ?"
        (known,) = self._database.execute(query, (pseudonym,)).fetchone()
        if known != original:
            raise WorkspaceError(
                f"'{known}' and '{original}' have the same pseudonym {pseudonym}: move {KEY_FILE} and "
                f"{TABLE_FILE} away and export again; earlier releases then have other pseudonyms"
            )

    def write(self, path: Path) -> None:
        """Write the rows as CSV, by kind, dataset and original."""
        query = (
            "SELECT kind, pseudonym, dataset, original FROM rows ORDER BY kind, dataset, original"
        )
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(csv_text([TABLE_COLUMNS]))
            for row in self._database.execute(query):
                file.write(csv_text([row]))

    def close(self) -> None:
        self._database.close()


def key_problem(workspace: Workspace) -> str | None:
    """Return what is wrong with the key that earlier releases were made with, and what to do."""
    path = workspace.root / KEY_FILE
    made = workspace.catalogue.events.last(_EVENT)
    if path.exists():
        try:
            here = Pseudonyms(read_key(path)).fingerprint
        except (OSError, ValueError):
            return f"{path} is damaged: {_where_from(workspace)}"
        if made is None or made.detail.get("key") == here:
            return None
        return (
            f"{path} is not the key of the last release: the next one has other pseudonyms; if that is not "
            f"meant, {_where_from(workspace)}"
        )
    if made is None and not (workspace.root / TABLE_FILE).exists():
        return None
    return (
        f"{path} is lost, with which earlier releases were made: {_where_from(workspace)}; for new "
        f"pseudonyms put {KEY_BYTES * 2} random hexadecimal digits into it"
    )


def _where_from(workspace: Workspace) -> str:
    """Return where a lost key may be copied from."""
    backups = (workspace.root / BACKUPS).glob("catalogue-*.sqlite")
    keys = [key for file in sorted(backups, reverse=True) if (key := key_of_backup(file)).exists()]
    return f"copy {keys[0]} to it" if keys else "copy it from a backup"


def people(workspace: Workspace) -> set[str]:
    """Return everybody who drew, reviewed or skipped, by the name in the catalogue."""
    return workspace.catalogue.identities.people()


def person_names(workspace: Workspace) -> Callable[[str], str]:
    """Return a function that gives back a person's name for a pseudonym of this workspace."""
    pseudonyms = Pseudonyms.existing(workspace)
    if pseudonyms is None:
        return lambda name: name

    @cache
    def known() -> dict[str, str]:
        return {pseudonyms.person(name): name for name in people(workspace)}

    return lambda name: known().get(name, name) if name.startswith("person_") else name


def _read(path: Path) -> bytes:
    try:
        return read_key(path)
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{path} is damaged: restore it from a backup") from error
