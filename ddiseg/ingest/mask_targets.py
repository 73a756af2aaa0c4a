"""Match mask files to catalogued photographs, by path before name.

Several photographs may have one name (foo/0000.jpeg and bar/0000.jpeg): a mask then belongs to the one
whose folders are most like its own. Both may have been imported from any folder above or below.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.ingest.matching import name_key
from ddiseg.workspace.pseudonyms import Pseudonyms
from ddiseg.workspace.workspace import Workspace

if TYPE_CHECKING:
    from ddiseg.ingest.mask_files import MaskFile

#: What Label Studio puts before the name of an uploaded file, to keep uploads of one name apart.
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")

#: What Roboflow makes of IMG_1.jpg, with the new ending or without.
_ROBOFLOW = re.compile(r"(?P<stem>.+)_(?P<ending>[A-Za-z]{3,4})\.rf\.[0-9a-fA-F]{32}(\.\w+)?")


#: Masks of an import whose names are looked up; for more, all names are read, once.
_LOOKED_UP = 500

#: How a release calls a photograph, see `ddiseg.workspace.pseudonyms`.
_PSEUDONYM = re.compile(r"img_[0-9a-f]{12}")

Named = Mapping[str, Sequence[tuple[str, int]]]


def find_targets(
    workspace: Workspace,
    files: Sequence[MaskFile],
    suffixes: Sequence[str] = (),
    dataset: str | None = None,
) -> MaskTargets:
    """Match files to images of one dataset or of all; see `PhotographNames.find`.

    Of a large catalogue only the photographs are read whose names may be meant.

    Raises:
        NotFoundError: there is no such dataset.
    """
    workspace.catalogue.sources.check_dataset(dataset)
    wanted = {name for file in files for name in _possible_names(file, suffixes)}
    return PhotographNames.read(workspace, wanted, dataset).find(files, suffixes)


@dataclass(frozen=True)
class PhotographNames:
    """Paths and image ids of photographs by their names, as they were when this was read."""

    by_stem: Named  #: by name without the ending
    by_name: Named
    images: Mapping[int, Image]

    @classmethod
    def read(
        cls, workspace: Workspace, wanted: Collection[str], dataset: str | None = None
    ) -> PhotographNames:
        """Read the photographs with one of the `wanted` names, with an ending or without."""
        sources = workspace.catalogue.sources
        by_stem: dict[str, list[tuple[str, int]]] = defaultdict(list)
        by_name: dict[str, list[tuple[str, int]]] = defaultdict(list)

        def take(rows: Iterable[tuple[str, int]]) -> None:
            for path, image_id in rows:
                path = name_key(path)
                name = path.rsplit("/", 1)[-1]
                if name in wanted:
                    by_name[name].append((path, image_id))
                if (stem := name.rsplit(".", 1)[0]) in wanted:
                    by_stem[stem].append((path, image_id))

        forms = {unicodedata.normalize(form, name) for name in wanted for form in ("NFC", "NFD")}
        few = len(wanted) <= _LOOKED_UP
        if few:
            take(sources.named(sorted(forms), dataset))
        if not few or not by_stem:  # or a name that was written in another way
            by_name.clear()
            take(sources.stream(dataset))
        pseudonyms = Pseudonyms.existing(workspace)
        if pseudonyms is not None and any(map(_PSEUDONYM.fullmatch, wanted)):
            for digest, image_id in sources.stream_hashes(dataset):  # a release comes back
                if (name := pseudonyms.image(digest)) in wanted:
                    by_stem[name].append((name, image_id))
        ids = {i for of in (by_stem, by_name) for group in of.values() for _, i in group}
        rows = workspace.catalogue.images.select(ids=sorted(ids))
        return cls(dict(by_stem), dict(by_name), {row.id: row for row in rows})

    def find(self, files: Sequence[MaskFile], suffixes: Sequence[str] = ()) -> MaskTargets:
        """Match files to images.

        Args:
            files: to be matched, all together: where two may belong to one image, the one with the
                folders of the photograph gets it.
            suffixes: what names may end in besides the photograph's, for example _segmentation.
        """
        matches = {id(file): self._match(file, suffixes) for file in files}
        found: dict[int, Image | InputError] = {}
        for file in files:
            match = matches[id(file)]
            if len(match.best) == 1:
                found[id(file)] = self.images[next(iter(match.best))]
            else:
                suffix = self._missing_suffix(file.photograph)
                found[id(file)] = _refusal(match, self.images, suffix)
        _refuse_outranked(files, matches, found)
        return MaskTargets(files, found, {key: match.ids for key, match in matches.items()})

    def _match(self, file: MaskFile, suffixes: Sequence[str]) -> _Match:
        """Return the images whose path or name a mask has: as it is, else without what was added."""
        *folders, name = name_key(file.photograph).split("/")
        for each in _spellings(name, suffixes, file.original_name):
            # "a.jpg.png" is a mask of "a.jpg", where no photograph is called "a.jpg.*".
            if candidates := self.by_stem.get(each) or self.by_name.get(each):
                datasets = {self.images[image_id].dataset_id for _, image_id in candidates}
                # A bare name says nothing of the dataset that it is the whole path in.
                return _fitting(folders, candidates, whole=len(datasets) == 1 or bool(folders))
        return _Match()

    def _missing_suffix(self, photograph: str) -> str | None:
        """Return the end of a name without which an image has it, such as _mask; None for none."""
        name = name_key(photograph).rsplit("/", 1)[-1]
        for suffix in _possible_suffixes(name):
            if any(n in self.by_stem for n in _spellings(name, (suffix,))):
                return suffix
        return None


def _possible_names(file: MaskFile, suffixes: Sequence[str]) -> Iterator[str]:
    """Yield what the photograph of a file may be called, also without a suffix that nobody gave."""
    name = name_key(file.photograph).rsplit("/", 1)[-1]
    yield from _spellings(name, suffixes, file.original_name)
    for suffix in _possible_suffixes(name):
        yield from _spellings(name, (suffix,))


def _possible_suffixes(name: str) -> Iterator[str]:
    """Yield the ends of a name that may have been added to a photograph's, the shortest first."""
    for place in range(len(name) - 1, 0, -1):
        suffix = name[place:]
        if suffix[0] in "_-. " and any(c.isalpha() for c in suffix):
            yield suffix


@dataclass(frozen=True)
class MaskTargets:
    """The images that mask files belong to; `find_targets` makes it."""

    files: Sequence[MaskFile]
    found: Mapping[int, Image | InputError]  #: the image of each file by `id`, or why there is none
    possible: Mapping[int, set[int]]  #: ids of the images that have the name of a file, by its `id`

    def inside(self, workspace: Workspace, subset: str) -> list[MaskFile]:
        """Return the files of images of a subset, and those that may be: with a name of several.

        Raises:
            InputError: there are files, and none is of an image of the subset.
            NotFoundError: no such subset.
        """
        members = workspace.catalogue.subsets.members(subset)

        def is_inside(file: MaskFile) -> bool:
            image = self.found[id(file)]
            if isinstance(image, InputError):
                return bool(members & self.possible[id(file)])
            return image.id in members

        found = [file for file in self.files if is_inside(file)]
        if self.files and not found:
            raise InputError(
                f"no mask has the name of an image of subset '{subset}', of {len(self.files)}: "
                f"'ddiseg subset show {subset}' lists those"
            )
        return found

    @property
    def image_ids(self) -> set[int]:
        """The ids of all images that files belong to."""
        return {image.id for image in self.found.values() if isinstance(image, Image)}

    def of(self, file: MaskFile) -> Image:
        """Return the image that a file belongs to; raises InputError where that is none or several."""
        found = self.found[id(file)]
        if isinstance(found, InputError):
            raise found
        return found


def parse_suffixes(given: Iterable[str]) -> tuple[str, ...]:
    """Parse values of `--suffix`, each one suffix or several with commas; raises InputError for an empty one."""
    suffixes = [part.strip() for text in given for part in text.split(",")]
    for suffix in suffixes:
        if not suffix or "/" in suffix:
            raise InputError(
                f"--suffix: '{suffix}' is no end of a name; write for example --suffix _segmentation"
            )
    return tuple(dict.fromkeys(suffixes))


def names_before_upload(name: str) -> Iterator[str]:
    """Yield what a file may have been called before another tool took it, with an ending or without.

    Label Studio makes 0123abcd-a.png of a.png, Roboflow a_png.rf.HASH.jpg, with a HASH of 32 hex digits.
    """
    if found := _ROBOFLOW.fullmatch(name):
        yield f"{found['stem']}.{found['ending']}"
        yield found["stem"]
    if (bare := without_upload_prefix(name)) != name:
        yield bare


def without_upload_prefix(name: str) -> str:
    """Return the name that a file had before it was uploaded to Label Studio: 0123abcd-a.png was a.png."""
    prefix = _UPLOAD_PREFIX.match(name)
    return name[prefix.end() :] if prefix else name


#: How well the path of a mask fits that of a photograph; the greater, the better: whether they are
#: equal, how many folders next to the file are, how many are in this order.
_Fit = tuple[bool, int, int]


@dataclass(frozen=True)
class _Match:
    """The images with the name of a mask file."""

    fits: Mapping[int, _Fit] = field(default_factory=dict)  #: by image id
    paths: Mapping[int, str] = field(default_factory=dict)  #: of the photograph that fits best

    @property
    def ids(self) -> set[int]:
        return set(self.fits)

    @property
    def fit(self) -> _Fit:
        """The best fit of all."""
        return max(self.fits.values())

    @property
    def best(self) -> set[int]:
        """The images that it is the fit of."""
        return {i for i, fit in self.fits.items() if fit == self.fit}


def _spellings(name: str, suffixes: Sequence[str], original: str | None = None) -> Iterator[str]:
    """Yield what a photograph may be called, the most exact name first."""
    bare = [name.removesuffix(s) for s in suffixes if name.endswith(s) and name != s]
    yield name
    yield from bare
    if original:
        yield name_key(original).rsplit("/", 1)[-1]
    for each in (name, *bare):
        yield from names_before_upload(each)


def _fitting(
    folders: Sequence[str], candidates: Sequence[tuple[str, int]], *, whole: bool
) -> _Match:
    """Return how well candidates fit; `whole`: an equal path is better than a longer one."""
    fits: dict[int, _Fit] = {}
    paths: dict[int, str] = {}
    for path, image_id in candidates:
        theirs = path.split("/")[:-1]
        near = _count_equal(reversed(folders), reversed(theirs))
        fit = (whole and list(folders) == theirs, near, _count_in_order(folders, theirs))
        if image_id not in fits or fit > fits[image_id]:
            fits[image_id], paths[image_id] = fit, path
    return _Match(fits, paths)


def _count_equal(one: Iterable[str], other: Iterable[str]) -> int:
    """Count the equal folders from the start of two paths."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _count_in_order(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two paths' folders."""
    lengths = [0] * (len(other) + 1)
    for a in one:
        before = 0
        for place, b in enumerate(other, 1):
            here = lengths[place]
            lengths[place] = before + 1 if a == b else max(here, lengths[place - 1])
            before = here
    return lengths[-1]


def _refusal(match: _Match, by_id: Mapping[int, Image], suffix: str | None) -> InputError:
    """Return why a mask has no image or too many, and what to do."""
    if not match.fits:
        if suffix is not None:
            return InputError(
                f"no image has this name, but one has it without {suffix}: give --suffix {suffix}"
            )
        return InputError("no image has this name: import the photographs first")
    ids = sorted(match.best)
    listed = ", ".join(f"#{i}" for i in ids[:5])
    start = f"{len(ids)} images have this name ({listed})"
    if len({by_id[i].dataset_id for i in ids}) > 1:
        return InputError(f"{start}: say which with --dataset NAME")
    paths = " or ".join(match.paths[i] for i in ids[:3])
    return InputError(f"{start}: put it into a folder like that of its photograph, {paths}")


def _refuse_outranked(
    files: Sequence[MaskFile],
    matches: Mapping[int, _Match],
    found: dict[int, Image | InputError],
) -> None:
    """Refuse a mask whose image has another mask that lies in the photograph's own folder.

    Its own photograph, of the same name in another folder, is missing.
    """
    best: dict[int, tuple[_Fit, MaskFile]] = {}
    for file in files:
        image = found[id(file)]
        if isinstance(image, Image):
            fit = matches[id(file)].fit
            if image.id not in best or fit > best[image.id][0]:
                best[image.id] = fit, file
    for file in files:
        image = found[id(file)]
        if not isinstance(image, Image):
            continue
        fit, winner = best[image.id]
        if matches[id(file)].fit < fit:
            path = matches[id(file)].paths[image.id]
            found[id(file)] = InputError(
                f"the only image of this name is {path}, whose mask is {winner.name}: import the "
                "photograph of this one"
            )
