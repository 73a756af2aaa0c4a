"""Workspaces: a folder with the catalogue, the store and the settings that say where both are."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from annotation_protocol.files import atomic_write, locked
from ddiseg import images, masks
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import (
    DamagedFileError,
    DdisegError,
    InputError,
    MissingFileError,
    NoSchemaError,
    WorkspaceError,
)
from ddiseg.locate import SETTINGS
from ddiseg.workspace.access import share, tighten, use_umask
from ddiseg.workspace.backup import backup_before_upgrade, how_to_restore, postgres_advice
from ddiseg.workspace.catalogue_location import CatalogueLocation, to_store
from ddiseg.workspace.settings import (
    SECTIONS,
    BackupSettings,
    CacheSettings,
    ComputeSettings,
    Setting,
    StudySettings,
    TrainingSettings,
    as_toml,
    read_toml,
    write_setting,
)
from ddiseg.workspace.store import Kind, Store
from ddiseg.workspace.store_cache import StoreCache
from ddiseg.workspace.store_check import check_remote
from ddiseg.workspace.store_url import checked_store
from ddiseg.workspace.stored_files import (
    decode_mask,
    is_intact,
    read_mask,
    read_original,
    read_photograph,
    read_photograph_png,
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """An open workspace, on which every command works."""

    root: Path
    catalogue: Catalogue
    store: Store

    @classmethod
    def create(
        cls,
        root: Path,
        catalogue_url: str | None = None,
        store_url: str | None = None,
        *,
        shared_group: str | None = None,
    ) -> Workspace:
        """Create a workspace, or upgrade an existing one to this program's schema.

        It is closed to other users of the machine, but for the members of `shared_group`; a group that
        it was shared with stays.

        Raises:
            InputError: there is no such group, or this user is no member of it.
            WorkspaceError: the folder can't be written, its settings name other places, or its
                catalogue is lost, which an empty one would hide.
        """
        settings = root / SETTINGS
        wanted = {
            "catalogue": to_store(catalogue_url or ""),
            "store": checked_store(store_url or ""),
        }
        for key, value in wanted.items():
            if value.encode("utf-8", "replace").decode("utf-8") != value:
                raise WorkspaceError(
                    f"{settings} can't name the {key} {value}: give places whose names are UTF-8"
                )
        _refuse_dead_link(root)
        _refuse_dead_link(settings)
        if settings.exists():
            stored = _read_settings(settings)
            _refuse_other_places(root, stored, wanted)
            _check_catalogue_exists(root, stored)
            _close(root, stored, shared_group)
            _upgrade(root, stored)
            return cls.open(root)
        _check_catalogue_not_folder(root, wanted)
        _check_store_has_catalogue(root, wanted)
        try:
            root.mkdir(parents=True, exist_ok=True)
            _close(root, wanted, shared_group)
            # The settings come last: they must not name unusable places, and mean that there was a
            # catalogue.
            if not Store(wanted["store"] or str(root)).local:
                check_remote(wanted["store"])
            Catalogue.create(_location(root, wanted).url).close()
            lines = [f"{key} = {as_toml(value)}\n" for key, value in wanted.items()]
            head = "# Where this workspace keeps its data. Empty: in this folder.\n"
            atomic_write(settings, head + "".join(lines))
            # SQLite makes its file without write permission for the group.
            tighten(root, _places_elsewhere(root, wanted))
        except OSError as error:
            raise WorkspaceError(
                f"{root} can't become a workspace: {error.strerror}; give a folder that you can "
                "write to, or that does not exist yet"
            ) from error
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> Workspace:
        """Open a workspace; raises WorkspaceError if there is none."""
        settings = root / SETTINGS
        _refuse_dead_link(settings)
        if not settings.exists():
            raise WorkspaceError(
                f"{root.absolute()} is no workspace: it has no {SETTINGS}, which 'ddiseg init' makes"
            )
        stored = _read_settings(settings)
        _check_catalogue_exists(root, stored)
        use_umask(root)
        try:
            advice = partial(how_to_restore, root)
            catalogue = Catalogue.open(_location(root, stored).url, advice)
        except NoSchemaError as error:
            raise _lost(root, stored, "is an empty database") from error
        return cls(root, catalogue, _store(root, stored))

    @property
    def location(self) -> CatalogueLocation:
        """Where the catalogue is."""
        return catalogue_location(self.root)

    @property
    def catalogue_file(self) -> Path | None:
        """The file of an SQLite catalogue; None if it is on a server."""
        return self.location.file

    @property
    def places(self) -> list[Path]:
        """The folder of the workspace, and its store and catalogue where these are elsewhere."""
        return [self.root, *_places_elsewhere(self.root, _read_settings(self.root / SETTINGS))]

    def backup_settings(self) -> BackupSettings:
        """Return the settings of the rolling backups."""
        return BackupSettings.read(self.root)

    def study(self, **given: Any) -> StudySettings:
        """Return the settings of the study; what is `given` and not None wins over the file."""
        return StudySettings.read(self.root, **given)

    def training(self, **given: Any) -> TrainingSettings:
        """Return the settings of the training; what is `given` and not None wins over the file."""
        return TrainingSettings.read(self.root, **given)

    def compute(self, **given: Any) -> ComputeSettings:
        """Return where work is computed; what is `given` and not None wins over the file."""
        return ComputeSettings.read(self.root, **given)

    def set(self, setting: Setting, value: Any, actor: str) -> Any:
        """Write a setting into the file, with an event; returns the value that it had.

        Raises:
            WorkspaceError: the file or the catalogue can't be written; the file is as it was then.
        """
        path = self.root / SETTINGS
        busy = f"process {{holder}} is changing {SETTINGS}: waiting for it"
        with locked(path.with_name(f".{SETTINGS}.lock"), busy, wait=_logger.info):
            return self._set(path, setting, value, actor)

    def _set(self, path: Path, setting: Setting, value: Any, actor: str) -> Any:
        before, text = read_toml(path), path.read_text(encoding="utf-8")
        section, _, name = setting.key.partition(".")
        present = before[section] if isinstance(before.get(section), dict) else {}
        old = present.get(name, setting.default)
        if name in present and old == value and isinstance(old, bool) == isinstance(value, bool):
            return old
        write_setting(path, setting, value)
        try:
            detail = {"key": setting.key, "old": old, "new": value}
            self.catalogue.events.record("config", actor, detail)
        except BaseException:
            atomic_write(path.resolve(), text)
            raise
        return old

    def photograph(self, image: Image) -> images.Photograph:
        """Return the pixels of an image, (H, W, 3) uint8.

        Raises:
            MissingFileError, DamagedFileError: its stored file is missing, or shows something else.
            WorkspaceError: its file can't be read.
            InputError: it was changed after an import in place.
        """
        if image.in_place is None:
            with _named(lambda: image.name):
                return read_photograph(self.store, image.content_hash)
        try:
            return read_original(Path(image.in_place), image.content_hash)
        except DdisegError as error:
            raise type(error)(f"{image.name}: {error}") from error

    def photograph_png(self, image: Image) -> bytes:
        """Return an image as PNG without metadata; raises as `photograph` does."""
        if image.in_place is not None:
            return images.encode_png(self.photograph(image))
        with _named(lambda: image.name):  # the store has exactly this file
            return read_photograph_png(self.store, image.content_hash)

    def mask(self, mask: Mask) -> NDArray[np.uint8]:
        """Return a mask at its own size, (h, w) uint8 class ids.

        Raises:
            MissingFileError, DamagedFileError: its stored file is missing, or holds another mask.
        """

        def name() -> str:
            [image] = self.catalogue.images.select(ids=[mask.image_id])
            return f"mask of {image.name} by {mask.annotator or f'model #{mask.model_version_id}'}"

        with _named(name):
            return read_mask(self.store, mask.content_hash)

    def mask_over(self, image: Image, mask: Mask) -> NDArray[np.uint8]:
        """Return a mask at the size of its photograph, (H, W) uint8 class ids."""
        return masks.stretch(self.mask(mask), (image.height, image.width))

    def store_mask(self, mask: NDArray[np.uint8]) -> str:
        """Store a mask, also over a damaged file of it; returns its content hash.

        File and name are on the disk then.
        """
        digest = masks.mask_hash(mask)
        self.put_mask(mask, digest)
        self.store.flush_names(Kind.MASK, [digest])
        return digest

    def put_mask(self, mask: NDArray[np.uint8], digest: str) -> bool:
        """Store a mask under its hash; returns False if it is stored already, whole.

        `Store.flush_names` flushes the names of several masks together.
        """
        if is_intact(self.store, Kind.MASK, digest):
            return False
        data = masks.encode_png(mask, load_protocol().palette())
        return self.store.put(Kind.MASK, digest, data, replace=True)

    def put_encoded_mask(self, data: bytes, digest: str) -> bool:
        """Store the file of a mask that another machine encoded; else as `put_mask`.

        Raises:
            InputError: it does not hold the mask with this hash.
        """
        try:
            decode_mask(data, digest)
        except InputError as error:
            raise InputError(
                f"its mask arrived from a worker and {error}: run the same command again"
            ) from error
        if is_intact(self.store, Kind.MASK, digest):
            return False
        return self.store.put(Kind.MASK, digest, data, replace=True)


def default_actor() -> str:
    """Return the name of who runs the command, for the event log."""
    try:
        return os.environ.get("DDISEG_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # a container without a user name
        return f"user {os.getuid()}"


@contextmanager
def _named(name: Callable[[], str]) -> Iterator[None]:
    """Put the name of what a stored file holds before what is wrong with it."""
    try:
        yield
    except (DamagedFileError, MissingFileError) as error:
        raise type(error)(f"{name()}: {error}") from error


def catalogue_location(root: Path) -> CatalogueLocation:
    """Return where the catalogue of a workspace is, which may be lost.

    Raises:
        WorkspaceError: the folder is no workspace, or its settings name no place.
    """
    return _location(root, _read_settings(root / SETTINGS))


def store_place(root: Path) -> Store:
    """Return the store of a workspace, whose catalogue may be lost; raises as `catalogue_location` does."""
    return _store(root, _read_settings(root / SETTINGS))


def _store(root: Path, settings: dict[str, str]) -> Store:
    url = settings["store"] or str((root / "store").absolute())
    return Store(url, partial(_store_cache, root))


def _store_cache(root: Path) -> StoreCache | None:
    limit = int(CacheSettings.read(root).store_gb * 1e9)
    return StoreCache(root / "cache" / "store", limit) if limit else None


def _places_elsewhere(root: Path, settings: dict[str, str]) -> list[Path]:
    """Return the store and the catalogue of a workspace that are files of this machine, elsewhere."""
    store, catalogue = settings["store"], settings["catalogue"]
    found = [Path(store)] if store and "://" not in store else []
    if catalogue and (file := _location(root, settings).file):
        found.append(file)
    return [place for place in found if place.exists()]


def _close(root: Path, settings: dict[str, str], group: str | None) -> None:
    """Close a workspace to others, and write from now on as it is closed."""
    elsewhere = _places_elsewhere(root, settings)
    if group is not None:
        share(root, elsewhere, group)
    else:
        tighten(root, elsewhere)
    use_umask(root)


def _upgrade(root: Path, stored: dict[str, str]) -> None:
    """Upgrade the catalogue of a workspace, after a backup; an empty database is refused as lost."""
    location = _location(root, stored)
    database = Database(location.url)
    try:
        if database.is_current():
            return
        if database.revision() is None:
            raise _lost(root, stored, "is an empty database")
        if location.file is not None:
            backup_before_upgrade(root, location.file)
        else:
            _logger.info(f"no backup before the upgrade: {postgres_advice(location.url)}")
        database.upgrade()
    finally:
        database.engine.dispose()


def _location(root: Path, settings: dict[str, str]) -> CatalogueLocation:
    return CatalogueLocation.read(root, settings["catalogue"])


def _refuse_other_places(root: Path, stored: dict[str, str], wanted: dict[str, str]) -> None:
    """Raise WorkspaceError where a workspace has its catalogue or store elsewhere than is wanted."""
    location = _location(root, stored)
    same = wanted["catalogue"] in ("", stored["catalogue"]) or (
        _location(root, wanted).url == location.url
    )
    present = {"catalogue": same, "store": wanted["store"] in ("", stored["store"])}
    for key, is_same in present.items():
        if not is_same:
            place = location if key == "catalogue" else stored[key]
            raise WorkspaceError(
                f"{root / SETTINGS} has {key} {place if stored[key] else 'in this folder'}: move the "
                "data yourself and change the line, or make a workspace in another folder"
            )


def _refuse_dead_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise WorkspaceError(
            f"{path} is a link to {os.readlink(path)}, which does not exist: restore its "
            "target, or remove the link"
        )


def _check_catalogue_exists(root: Path, settings: dict[str, str]) -> None:
    """Raise WorkspaceError if the SQLite file of a workspace is missing or empty."""
    _check_catalogue_not_folder(root, settings)
    file = _location(root, settings).file
    if file is None or (os.path.isfile(file) and os.path.getsize(file)):
        return
    raise _lost(root, settings, "is empty" if os.path.isfile(file) else "is missing")


def _lost(root: Path, settings: dict[str, str], state: str) -> WorkspaceError:
    """Return the error for a workspace whose catalogue is gone: an empty one would hide that."""
    location = _location(root, settings)
    file = location.file
    if file is None:
        advice = f"restore it: {postgres_advice(location.url)}"
    else:
        advice = f"{how_to_restore(root)}, or move {file.name} back from where it was moved to"
    return WorkspaceError(
        f"the catalogue of this workspace is lost, {file or 'its database'} {state}: {advice}; to "
        f"begin anew, move {SETTINGS} and store away and run 'ddiseg init'"
    )


def _check_store_has_catalogue(root: Path, settings: dict[str, str]) -> None:
    """Raise WorkspaceError where a folder without settings and catalogue has a filled store."""
    file = _location(root, settings).file
    store = root / "store"
    if settings["store"] or (file is not None and file.exists()) or not store.is_dir():
        return
    if any(each.is_file() for each in store.rglob("*")):
        raise WorkspaceError(
            f"{store} holds the files of a workspace whose {SETTINGS} and catalogue are lost: create "
            f"{root / SETTINGS} as an empty file, then {how_to_restore(root)}; to begin anew, move "
            "store away"
        )


def _check_catalogue_not_folder(root: Path, settings: dict[str, str]) -> None:
    file = _location(root, settings).file
    if file is not None and os.path.isdir(file):
        raise WorkspaceError(
            f"{file} is a folder, and the catalogue is a file: move that folder away, and restore "
            f"{file.name} from a backup if there was one"
        )


def _read_settings(path: Path) -> dict[str, str]:
    values = read_toml(path)
    for section in SECTIONS:
        values.pop(
            section.section, None
        )  # read where it is used: 'ddiseg config' must work to correct it
    unknown = set(values) - {"catalogue", "store"}
    if unknown or not all(isinstance(v, str) for v in values.values()):
        raise WorkspaceError(
            f"{path}: expected the lines catalogue and store, both text, and the sections [study], "
            f"[training], [compute], [backup] and [cache]; found {sorted(values)}"
        )
    return {"catalogue": values.get("catalogue", ""), "store": values.get("store", "")}
