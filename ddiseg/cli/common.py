"""What all commands share: their common options, how they print, how they fail.

Results go to stdout, as text or as one JSON document; everything else goes to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from annotation_protocol import UserError, load_protocol
from annotation_protocol.command_line import RejectsEmptyValues, missing_package
from ddiseg.errors import DdisegError
from ddiseg.locate import OPTION, VARIABLE, current_folder, locate

if TYPE_CHECKING:
    from ddiseg.labelstudio.connection import Connection
    from ddiseg.labelstudio.pull import Pulled
    from ddiseg.outcomes import FileOutcome, Progress, Stages
    from ddiseg.workspace.workspace import Workspace

#: Seconds after which a long job that does not write to a terminal says how far it is.
SILENCE = 15.0

#: Lines about single files, or files of one kind, in text output; JSON lists all.
LISTED = 20


@dataclass
class Settings:
    """The common options of one run."""

    workspace: Path | None = None  #: as it was named; None: found from the current folder upwards
    named_by: str = ""  #: the option or the variable that named it
    output: str = "text"
    debug: bool = False

    @property
    def json(self) -> bool:
        return self.output == "json"

    def root(self) -> Path:
        """Return the folder of the workspace, whose catalogue may be lost."""
        return locate(self.workspace, self.named_by)

    def open(self) -> Workspace:
        from ddiseg.workspace.workspace import Workspace

        workspace = Workspace.open(locate(self.workspace, self.named_by))
        click.get_current_context().call_on_close(workspace.catalogue.close)
        return workspace

    def emit(self, data: dict[str, Any], text: str) -> None:
        """Print a result: `data` where JSON was asked for, else `text`."""
        printed = json.dumps(data, indent=1, ensure_ascii=False) if self.json else text
        # A file name that is no UTF-8 holds surrogates: in JSON their escapes stand for the same name.
        click.echo(printed.encode("utf-8", "backslashreplace").decode("utf-8"))


pass_settings = click.make_pass_decorator(Settings, ensure=True)


class Command(RejectsEmptyValues):
    """A command that takes the common options too, as the group before it does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())


class Group(RejectsEmptyValues, click.Group):
    """A group whose commands take the common options, in the order in which they were added."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands: the most used ones are added first."""
        return list(self.commands)


def common_options() -> list[click.Parameter]:
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        # A command reads the environment again: what stands before it on the line must win.
        source = context.get_parameter_source(str(parameter.name))
        from_variable = source is ParameterSource.ENVIRONMENT
        if value is None or (from_variable and context.parent is not None):
            return
        settings = context.find_root().ensure_object(Settings)
        setattr(settings, str(parameter.name), value)
        if parameter.name == "workspace":
            settings.named_by = VARIABLE if from_variable else OPTION
        if settings.debug:
            logging.getLogger("ddiseg").setLevel(logging.DEBUG)

    return [
        click.Option(
            [OPTION],
            type=click.Path(path_type=Path, file_okay=False),
            envvar=VARIABLE,
            show_envvar=True,
            help="Folder of the workspace.  [default: the nearest one from the current folder upwards]",
            expose_value=False,
            callback=keep,
        ),
        click.Option(
            ["--output"],
            type=click.Choice(["text", "json"]),
            help="How results are printed.  [default: text]",
            expose_value=False,
            callback=keep,
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            default=None,
            help="Show the full traceback of an error, also of a refused file.",
            expose_value=False,
            callback=keep,
        ),
    ]


def run(group: click.Group, args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    with _log_to_stderr():
        return _run(group, args)


def _run(group: click.Group, args: Sequence[str] | None) -> int:
    settings = Settings()
    try:
        status = group.main(args=args, prog_name=group.name, standalone_mode=False, obj=settings)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return 2 if isinstance(error, click.UsageError) else 1
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "\nStopped. What was finished is kept; the same command goes on from there.", err=True
        )
        return 130
    except UserError as error:
        return _fail(str(error), settings)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.isabs(str(error.filename or "")):
            try:
                current_folder()  # where that was deleted, no relative path works
            except UserError as missing:
                return _fail(str(missing), settings)
        where = f"{error.filename}: " if error.filename else ""
        return _fail(
            f"{where}{error.strerror or error}; correct that and run the same command again",
            settings,
        )
    except ModuleNotFoundError as error:
        return _fail(missing_package(error) or _defect(error), settings)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, and how to see the rest
        return _fail(_defect(error), settings)


def _defect(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    kind = type(error).__name__
    return f"unexpected {kind}: {first} (a defect: run again with --debug and report it)"


class _LogLines(logging.Handler):
    """Writes log records as plain lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # nobody reads stderr any more: a server goes on
            click.echo(record.getMessage(), err=True)
            if record.exc_info and record.levelno == logging.DEBUG:
                click.echo(
                    "".join(traceback.format_exception(*record.exc_info)), err=True, nl=False
                )


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show what ddiseg and fedd log, from INFO up, while a command runs."""
    handler = _LogLines()
    loggers = [logging.getLogger(name) for name in ("ddiseg", "fedd")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def _fail(message: str, settings: Settings) -> int:
    if settings.debug:
        traceback.print_exc()
    click.echo(f"Error: {message}", err=True)
    return 1


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A bar on stderr; where that is not a terminal, a line now and then and one at the end."""
    if not sys.stderr.isatty():
        started = printed = time.monotonic()
        last = [0]

        def note(done: int, total: int) -> None:
            nonlocal printed
            last[0] = total
            if time.monotonic() - printed >= SILENCE:
                printed = time.monotonic()
                click.echo(f"{label}: {done} of {total}", err=True)

        yield note
        click.echo(f"{label}: {last[0]} in {time.monotonic() - started:.1f} s", err=True)
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show


@contextmanager
def stopped_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, stop the block as Ctrl+C does: it tidies up."""
    signs = [signal.SIGTERM, signal.SIGHUP]
    before = {sign: signal.getsignal(sign) for sign in signs}
    taken = [sign for sign, handler in before.items() if handler is signal.SIG_DFL]  # not for nohup
    for sign in taken:
        signal.signal(sign, signal.default_int_handler)
    try:
        yield
    finally:
        for sign in taken:
            signal.signal(sign, signal.SIG_DFL)


@contextmanager
def progress_stages() -> Iterator[Stages]:
    """A bar for each stage of a job, one after the other; see `progress_bar`."""
    with ExitStack() as shown:
        current: tuple[str, Progress] | None = None

        def stage(label: str) -> Progress:
            def show(done: int, total: int) -> None:
                nonlocal current
                if not total:
                    return
                if current is None or current[0] != label:
                    shown.close()  # a stage may end before it is through
                    current = label, shown.enter_context(progress_bar(label))
                current[1](done, total)
                if done >= total:
                    shown.close()
                    current = None

            return show

        yield stage


def report_outcomes(
    settings: Settings,
    outcomes: Sequence[FileOutcome],
    what: str,
    *,
    strict: bool,
    extra: dict[str, Any],
    lines: Sequence[str] = (),
) -> None:
    """Print the outcomes of a batch; see `raise_refused` for the exit status."""
    data = {**outcomes_dict(outcomes), **extra}
    settings.emit(data, "\n".join([*outcome_lines(outcomes, what), *lines]))
    raise_refused(outcomes, what, strict=strict)


def outcomes_dict(outcomes: Sequence[FileOutcome]) -> dict[str, Any]:
    """The outcomes of a batch as JSON has them."""
    from ddiseg.outcomes import count

    return {
        "counts": count(outcomes),
        "files": [{"name": o.name, "outcome": o.outcome.value, "note": o.note} for o in outcomes],
    }


def outcome_lines(outcomes: Sequence[FileOutcome], what: str) -> list[str]:
    """Return the outcomes of a batch in words: how many, why files were refused, other notes.

    Files with the same outcome and note share a line.
    """
    from ddiseg.outcomes import Outcome, count, counted, refusals

    counts = count(outcomes)
    others = [o for o in outcomes if o.note and o.outcome is not Outcome.REFUSED]
    return [
        f"{counted(len(outcomes), what.removesuffix('s'))}: "
        + ", ".join(f"{n} {name}" for name, n in counts.items()),
        *folded_lines(refusals(outcomes), what),
        *folded_lines(others, what),
    ]


def folded_lines(outcomes: Sequence[FileOutcome], what: str) -> list[str]:
    """Return a line for each outcome and note among `outcomes`, as many as a person reads."""
    from ddiseg.outcomes import fold

    groups = fold(outcomes)
    lines = [f"  {group.outcome.value}  {group.in_words(what)}" for group in groups[:LISTED]]
    if rest := sum(len(group.names) for group in groups[LISTED:]):
        lines.append(f"  ... and {rest} more with a note; --output json lists all")
    return lines


def listed_in(root: Path, outcomes: Sequence[FileOutcome], what: str) -> list[str]:
    """Return the line that names the file with all notes, which is written where lines leave some out."""
    from ddiseg.outcomes import NAMED, Outcome, fold
    from ddiseg.workspace.notes_file import write_notes

    groups = [group for group in fold(outcomes) if group.note is not None]
    kinds = Counter(group.outcome is Outcome.REFUSED for group in groups)
    told = all(group.whole and len(group.names) <= NAMED for group in groups)
    if told and max(kinds.values(), default=0) <= LISTED:
        return []
    return [f"all notes are in {write_notes(root, outcomes, what)}"]


def raise_refused(outcomes: Sequence[FileOutcome], what: str, *, strict: bool) -> None:
    """Raise where everything of a batch was refused or, with --strict, anything."""
    from ddiseg.outcomes import nothing_taken, refusals

    refused = len(refusals(outcomes))
    if strict and refused:
        raise DdisegError(f"--strict: {refused} of {len(outcomes)} {what} refused")
    if nothing_taken(outcomes):
        raise DdisegError(f"nothing was taken: {refused} of {len(outcomes)} {what} refused")


def sizes_by_tone(by_tone: Mapping[str, int]) -> str:
    """Return a text such as "3 images (I-II 2, V-VI 1)", in the protocol's order."""
    from ddiseg.outcomes import counted

    tones = [tone.name for tone in load_protocol().tones]
    parts = (f"{tone} {by_tone[tone]}" for tone in sorted(by_tone, key=tones.index))
    return f"{counted(sum(by_tone.values()), 'image')} ({', '.join(parts)})"


def taken_as(format_name: str, guessed: bool) -> list[str]:
    """Return the line that tells which format was guessed, if any."""
    return [f"no --as given: read as {format_name}"] if guessed else []


def connection_of(workspace: Workspace) -> Connection:
    """Return the labelling server of a workspace; asks for its token on a terminal.

    Raises:
        ModuleNotFoundError: label-studio-sdk is not installed; said before a server is looked for.
    """
    from ddiseg.labelstudio.connection import find

    if find_spec("label_studio_sdk") is None:
        raise ModuleNotFoundError(name="label_studio_sdk")

    return find(workspace.root, ask_token if sys.stdin.isatty() else None)


def ask_token(url: str) -> str:
    token: str = click.prompt(f"Token for {url} (it is not shown)", hide_input=True, err=True)
    return token


def report_pull(
    settings: Settings,
    done: Pulled,
    what: str,
    command: str,
    *,
    strict: bool,
    extra: dict[str, Any],
    lines: Sequence[str],
) -> None:
    """Print the outcomes of a pull and what is still refused; `what` in the singular."""
    from ddiseg.outcomes import counted

    report_outcomes(
        settings,
        done.outcomes,
        f"{what}s",
        strict=strict,
        extra={"full": done.full, "taken_before": done.taken, "problems": done.problems, **extra},
        lines=[
            *already_taken(done, what, command),
            *(f"still refused  {problem}" for problem in done.problems),
            *lines,
        ],
    )
    if strict and done.problems:
        raise DdisegError(f"--strict: still refused: {counted(len(done.problems), what)}")


def already_taken(done: Pulled, what: str, command: str) -> list[str]:
    """Return the line about what `ddiseg serve` or a round pulled since the last `command`."""
    if not done.taken:
        return []
    from ddiseg.outcomes import counted

    since = f"since the last '{command}' ({done.since[:16]} UTC)" if done.since else "before"
    return [f"already taken {since} by 'ddiseg serve' or a round: {counted(done.taken, what)}"]
