"""`ddiseg verify`: check the stored files and the catalogue, and repair what can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar
from ddiseg.errors import DdisegError
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.workspace.verify import Problem


@click.command("verify", cls=Command)
@click.option(
    "--repair",
    "to_repair",
    is_flag=True,
    help="Put back files that are missing or damaged, as far as they are found; exclude hold-out images "
    "that share a group with the training split. Nothing is removed.",
)
@click.option(
    "--originals",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="With --repair: a folder to look in, with the original files, a copy of the store or a "
    "release; may be given several times.",
)
@click.option(
    "--restart",
    is_flag=True,
    help="Read every file again, where a check that was stopped less than a day ago would go on.",
)
@pass_settings
def verify(settings: Settings, to_repair: bool, originals: tuple[Path, ...], restart: bool) -> None:
    """Check stored files, the catalogue and its events.

    Checks every stored file against its hash, every row against its file, states against events, and
    that no hold-out set, subset or validation split shares a patient, lesion or near-duplicate with
    images that it must be apart from.
    Exits with 1 and a line for each problem where something is wrong; without --repair nothing is
    changed. Files that no row names are only counted: a stopped run leaves them, and they do no harm.

    A check that was stopped goes on where it was: it skips the files that it has found whole, as long as
    the catalogue says the same of them. One that came to its end reads everything the next time.
    """
    from ddiseg.workspace.repair import repair
    from ddiseg.workspace.verify import verify as find_problems
    from ddiseg.workspace.workspace import default_actor

    if originals and not to_repair:
        raise click.UsageError("--originals is where --repair looks: give --repair too")
    workspace = settings.open()
    with progress_bar("verify") as progress:
        findings = find_problems(workspace, progress, restart=restart)
    problems, repaired = findings.problems, []
    if to_repair:
        done = repair(workspace, problems, _folders(workspace.root, originals), default_actor())
        problems, repaired = done.left, done.repaired
    data = {
        "ok": not problems,
        "checked": findings.checked,
        "orphans": findings.orphans,
        "skipped": findings.skipped,
        "problems": [{"part": p.part.value, "problem": p.line} for p in problems],
        "repaired": repaired,
    }
    checked = ", ".join(counted(n, kind.removesuffix("s")) for kind, n in findings.checked.items())
    orphans = sum(findings.orphans.values())
    lines = [f"checked {checked}: {counted(len(findings.problems), 'problem')}"]
    if findings.skipped:
        lines.append(
            f"  went on with the check that began {findings.began[:16]}Z and was stopped: it had found "
            f"{counted(findings.skipped, 'file')} whole; --restart reads all again"
        )
    lines += [f"  repaired  {line}" for line in repaired]
    lines += [f"  {problem.part}  {problem.line}" for problem in problems]
    if orphans:
        lines.append(
            f"  {counted(orphans, 'file')} that no row names, left by a stopped run; harmless"
        )
    settings.emit(data, "\n".join(lines))
    if problems:
        raise DdisegError(_result(problems, len(repaired), to_repair, bool(originals)))


def _folders(root: Path, originals: tuple[Path, ...]) -> list[Path]:
    """Return where lost files are looked for: the copies of a Label Studio that runs here, too."""
    from ddiseg.labelstudio.folder import Folder

    copies = Folder(root).media
    return [*originals, *([copies] if copies.is_dir() else [])]


def _result(left: Sequence[Problem], repaired: int, to_repair: bool, with_originals: bool) -> str:
    problems = counted(len(left), "problem")
    files = any(problem.file is not None for problem in left)
    if not to_repair:
        does = [
            *(["puts files back"] if files else []),
            *(["closes what is open"] if any(p.part == "access" for p in left) else []),
            *(
                ["excludes hold-out images"]
                if any(p.leak and p.leak.of_holdout for p in left)
                else []
            ),
        ]
        offer = f"; 'ddiseg verify --repair' {' and '.join(does)}" if does else ""
        return f"{problems} found, nothing was changed{offer}"
    ask = files and not with_originals
    where = ": --originals FOLDER says where the original files are" if ask else ""
    return f"{problems} left, {repaired} repaired{where}"
