"""`ddiseg verify`: check the stored files and the catalogue."""

from __future__ import annotations

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar
from ddiseg.errors import DdisegError
from ddiseg.outcomes import counted


@click.command("verify", cls=Command)
@pass_settings
def verify(settings: Settings) -> None:
    """Check stored files, the catalogue and its events.

    Checks every stored file against its hash, every row against its file, and states against events.
    Exits with 1 and a line for each problem where something is wrong; nothing is changed. Files
    that no row names are only counted: a stopped run leaves them, and they do no harm.
    """
    from ddiseg.workspace.verify import verify as find_problems

    workspace = settings.open()
    with progress_bar("verify") as progress:
        findings = find_problems(workspace, progress)
    data = {
        "ok": not findings.problems,
        "checked": findings.checked,
        "orphans": findings.orphans,
        "problems": [{"part": p.part.value, "problem": p.line} for p in findings.problems],
    }
    checked = ", ".join(counted(n, kind.removesuffix("s")) for kind, n in findings.checked.items())
    orphans = sum(findings.orphans.values())
    lines = [f"checked {checked}: {counted(len(findings.problems), 'problem')}"]
    lines += [f"  {problem.part}  {problem.line}" for problem in findings.problems]
    if orphans:
        lines.append(
            f"  {counted(orphans, 'file')} that no row names, left by a stopped run; harmless"
        )
    settings.emit(data, "\n".join(lines))
    if findings.problems:
        raise DdisegError(
            f"{counted(len(findings.problems), 'problem')} found, nothing was changed"
        )
