"""The status of a workspace: counts, and the next steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ddiseg.catalogue import SETTLED, Catalogue
from ddiseg.catalogue.images import sum_counts
from ddiseg.catalogue.leases import ROUND
from ddiseg.catalogue.model_versions import VersionBrief
from ddiseg.catalogue.tables import Dataset
from ddiseg.errors import OccupiedError
from ddiseg.outcomes import counted
from ddiseg.sampling.leaks import find_leaks
from ddiseg.workspace.settings import TrainingSettings
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class NextStep:
    """A command that is useful now."""

    why: str  #: what it does, with numbers
    command: str

    def __str__(self) -> str:
        return f"{self.why}: {self.command}"


@dataclass(frozen=True)
class Status:
    """Counts at one moment."""

    counts: dict[tuple[str, str], int]  #: images by (tone, state)
    datasets: list[tuple[Dataset, int]]  #: with the number of their images
    model: VersionBrief | None  #: the current one
    accepted: int  #: accepted masks
    skips: dict[str, int]  #: skipped images by reason
    subsets: dict[str, dict[str, int]]  #: images by subset and tone
    steps: list[NextStep]  #: for the data manager, the most useful first
    with_annotators: int  #: images that are open in Label Studio
    with_reviewers: int  #: masks in review there
    round_holder: str | None  #: the process that runs a round of the loop now
    leaks: list[str]  #: sets of images that share groups with another, though they must not

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def next_step(self) -> str:
        """The most useful step, or that only a release is left."""
        if self.steps and not (self.accepted and self.steps[0].command in _AT_THE_END):
            return str(self.steps[0])
        if not self.accepted:
            return "nothing is left to do; look at it: ddiseg report"
        return f"all is done; look at it or release it: ddiseg report, {_EXPORT}"


def status(catalogue: Catalogue, server: str, *, runs: bool = True) -> Status:
    """Count what the catalogue holds, and people on a labelling server; reads only.

    Args:
        server: the URL of a team's server, or "embedded".
        runs: whether the server runs; if not, the steps that need it come after starting it.
    """
    work = _Work(catalogue, server)
    steps = list(work.steps())
    first = next((i for i, step in enumerate(steps) if step.command.startswith(_NEED_SERVER)), None)
    if first is not None and not runs:
        steps.insert(first, NextStep("start Label Studio", "ddiseg label up"))
    by_dataset: Counter[int] = Counter()
    for (dataset_id, _, _), n in work.counts.items():
        by_dataset[dataset_id] += n
    return Status(
        counts=sum_counts(work.counts),
        datasets=[(d, by_dataset[d.id]) for d in catalogue.images.datasets()],
        model=work.model,
        accepted=work.accepted,
        skips=catalogue.images.skip_counts(),
        subsets=catalogue.subsets.sizes(),
        steps=steps,
        with_annotators=work.open_work.with_annotators,
        with_reviewers=work.open_work.with_reviewers,
        round_holder=catalogue.leases.holder(ROUND),
        leaks=[leak.brief for leak in find_leaks(catalogue)],
    )


#: Photographs that `lacks_photographs` looks for.
_LOOKED_FOR = 5


def lacks_photographs(workspace: Workspace) -> bool:
    """Return whether one of a few stored photographs is not in the store; `verify` looks for all.

    Only a store on this machine is asked, so that it takes no time.
    """
    if not workspace.store.local:
        return False
    some = workspace.catalogue.images.some_stored(_LOOKED_FOR)
    try:
        return not all(workspace.store.exists(Kind.IMAGE, digest) for digest in some)
    except OccupiedError:
        return True


def masks_to_learn(catalogue: Catalogue) -> int:
    """Return the number of accepted masks that the newest version has not learned from.

    That version counts whether it passed the gate or not: the same masks would only make it again.
    Masks of the hold-out set are not counted, since no version learns from them.
    """
    newest = catalogue.models.newest_brief()
    return catalogue.masks.count_to_learn(newest and newest.id)


#: New accepted masks that make another training worthwhile.
WORTH_A_REFRESH = TrainingSettings.every

_PUSH = "ddiseg label push"
_EXPORT = "ddiseg export --format coco --to release"
_REVIEW_ALL = "ddiseg review push --sample 100"

#: Commands that ask Label Studio.
_NEED_SERVER = ("ddiseg label ", "ddiseg review push", "ddiseg review pull")

#: What can still be run once all is done.
_AT_THE_END = (_EXPORT, _REVIEW_ALL)


class _Work:
    """The work that is left in a workspace."""

    def __init__(self, catalogue: Catalogue, server: str) -> None:
        self.catalogue = catalogue
        self.server = server
        self.counts = catalogue.images.counts_by_dataset()
        self.accepted = catalogue.masks.count_accepted()
        self.open_work = catalogue.open_work.count(server)
        self.model = catalogue.models.current_brief()

    def steps(self) -> Iterator[NextStep]:
        """Yield the commands that are useful now, the most useful first."""
        if not self.counts:
            yield NextStep("import photographs", "ddiseg import PATH")
            return
        open_work = self.open_work
        if n := open_work.to_review:
            yield NextStep(
                f"have a second person review {_the(n, 'submitted mask')}", "ddiseg review push"
            )
        learn = list(self._to_learn())
        early = self.model is None or self._unlearned >= WORTH_A_REFRESH
        if early:
            yield from learn
        yield from self._to_predict()
        yield from self._of_batches()
        if n := open_work.with_annotators:
            yield NextStep(
                f"bring back what annotators did with {_the(n, 'image')} they have",
                "ddiseg label pull",
            )
        if n := open_work.with_reviewers:
            yield NextStep(
                f"bring back the verdicts on {_the(n, 'mask')} that reviewers have",
                "ddiseg review pull",
            )
        yield from self._to_give_out()
        if not early:
            yield from learn
        if self.accepted:
            yield NextStep(f"write a release of {_the(self.accepted, 'accepted mask')}", _EXPORT)
        if n := open_work.left_out:
            yield NextStep(f"review {_the(n, 'mask')} too that spot checks left out", _REVIEW_ALL)

    def _to_learn(self) -> Iterator[NextStep]:
        if n := self._unlearned:
            newest = self.catalogue.models.newest_brief()
            are_new = f"{counted(n, 'accepted mask')} {'is' if n == 1 else 'are'} new to"
            first = f"train probes on {_the(n, 'accepted mask')}"
            yield NextStep(f"{are_new} {newest.name}" if newest else first, "ddiseg refresh")

    def _to_predict(self) -> Iterator[NextStep]:
        if self.model is not None:
            left = sum(n for (_, _, state), n in self.counts.items() if state not in SETTLED)
            if n := left - self.catalogue.masks.count_predicted_unsettled(self.model.id):
                have = f"{counted(n, 'image')} {'has' if n == 1 else 'have'}"
                yield NextStep(f"{have} no prediction of {self.model.name} yet", "ddiseg prelabel")

    @cached_property
    def _unlearned(self) -> int:
        return masks_to_learn(self.catalogue)

    def _of_batches(self) -> Iterator[NextStep]:
        for name, n in self.open_work.free_of_batches.items():
            if n:
                why = f"give {_the(n, 'image')} of {name} that nobody has to annotators"
                yield NextStep(why, f"{_PUSH} --batch {name}")

    def _to_give_out(self) -> Iterator[NextStep]:
        """Yield steps for free images of no batch, and for newer predictions of unstarted ones."""
        rest = self.open_work.free_elsewhere
        if rest and not self.accepted and self.model is None:
            yield from self._first(rest)
        elif rest:
            some = "or a part of them, with 'ddiseg batch draw'"
            why = f"give {_the(rest, 'image')} that nobody has to annotators, {some}"
            if tests := self.catalogue.open_work.free_test_images(self.server):
                why += f" (test images among them: {tests}; once accepted, they are learned from)"
            yield NextStep(why, _PUSH)
        elif n := self._outdated():
            yield NextStep(
                f"show annotators the newest predictions of {counted(n, 'image')}", _PUSH
            )

    def _first(self, rest: int) -> Iterator[NextStep]:
        """Yield steps before there is any mask: some of the images, or masks from elsewhere."""
        sizes = self.catalogue.open_work.free_of_subsets(self.server)
        if name := next((name for name, n in sizes.items() if n), None):
            why = f"give {_the(sizes[name], 'image')} of {name} to annotators"
            yield NextStep(why, f"{_PUSH} --subset {name}")
        elif not sizes and not self.open_work.given:
            yield NextStep(
                "draw the images to label first", "ddiseg subset draw NAME --per-tone 10"
            )
        elif self.open_work.with_annotators:
            return  # enough to begin with
        else:
            yield NextStep(f"give {_the(rest, 'image')} that nobody has to annotators", _PUSH)
        yield NextStep(
            "bring in reviewed masks instead",
            "ddiseg masks import PATH --annotator WHO --reviewer SECOND",
        )

    def _outdated(self) -> int:
        """Count unstarted images whose task shows no prediction, or an older one."""
        shown = self.catalogue.open_work.shown(self.server)
        masks = self.catalogue.masks
        by_people = {
            mask.id
            for mask in masks.get([i for i in shown.values() if i is not None]).values()
            if mask.annotator is not None
        }
        newest = masks.newest_predictions(list(shown)) if shown else {}
        return sum(
            mask.id != shown[image_id] and shown[image_id] not in by_people
            for image_id, mask in newest.items()
        )


def _the(n: int, noun: str) -> str:
    """Return "the image" or "the 3 images"."""
    return f"the {noun}" if n == 1 else f"the {counted(n, noun)}"
