"""Settings that commands share: the sections [study], [training] and [compute] of a workspace's ddiseg.toml."""

from __future__ import annotations

import contextlib
import json
import math
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from annotation_protocol.files import atomic_write
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.locate import SETTINGS

#: Where a person sees all settings.
SHOW = "'ddiseg config show'"


@dataclass(frozen=True)
class Setting:
    """One setting: its rule is written down here, for the file and for the command line."""

    key: str  #: as in "study.review-sample"
    default: Any  #: its type is that of the setting
    about: str
    low: float | None
    high: float | None
    hint: str  #: what a value must be
    choices: tuple[str, ...] = ()  #: all values of a text; empty: any text

    @property
    def name(self) -> str:
        return self.key.partition(".")[2]

    def check(self, value: Any) -> Any:
        """Return a value in the type of the setting.

        Raises:
            InputError: the value has another type, or is out of range.
        """
        kind = type(self.default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is float and number:
            value = float(value)
        if isinstance(value, str) and value.lower() in self.choices:
            value = value.lower()
        low, high = (-math.inf if self.low is None else self.low), self.high or math.inf
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        text = isinstance(value, str) and not (value and value.isprintable())
        other = bool(self.choices) and value not in self.choices
        if not fits or text or other or (number and not low <= value <= high) or value == math.inf:
            raise InputError(f"{self.name} is {as_toml(value)}: give {self.hint}")
        return value

    def parse(self, text: str) -> Any:
        """Return the value of a text that a person typed; raises InputError as `check` does."""
        value: Any = text
        if isinstance(self.default, bool):
            value = {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
        elif not isinstance(self.default, str):
            with contextlib.suppress(ValueError):
                value = type(self.default)(text)
        return self.check(value)


def as_toml(value: Any) -> str:
    """Return a value as a line of TOML has it."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _setting(
    default: Any, about: str, hint: str, low: float | None = None, high: float | None = None
) -> Any:
    return field(default=default, metadata={"about": about, "hint": hint, "low": low, "high": high})


def _choice(default: str, about: str, *choices: str) -> Any:
    hint = f"{', '.join(choices[:-1])} or {choices[-1]}"
    rule = {"about": about, "hint": hint, "low": None, "high": None, "choices": choices}
    return field(default=default, metadata=rule)


_PERCENT: dict[str, Any] = {"hint": "a percentage, 0 to 100", "low": 0, "high": 100}
_SEED = "a whole number from 0 up"


@dataclass(frozen=True)
class SettingsSection:
    """A section of the file.

    Raises:
        InputError: a value is out of its range.
    """

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for name, setting in self.settings().items():
            object.__setattr__(self, name, setting.check(getattr(self, name)))

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """Return the settings of the section by field."""
        return {
            f.name: Setting(f"{cls.section}.{f.name.replace('_', '-')}", f.default, **f.metadata)
            for f in fields(cls)
        }

    @classmethod
    def read(cls, root: Path, **given: Any) -> Self:
        """Return the settings of a workspace; what is `given` and not None wins over the file.

        Raises:
            WorkspaceError: the file can't be read, or the section has an unknown or a bad line.
        """
        path = root / SETTINGS
        values = read_toml(path).get(cls.section, {})
        if not isinstance(values, dict):
            raise WorkspaceError(f"{path}: {cls.section} must be a section: write [{cls.section}]")
        known = {setting.name: name for name, setting in cls.settings().items()}
        if unknown := [name for name in values if name not in known]:
            raise WorkspaceError(
                f"{path}: [{cls.section}] has no setting '{unknown[0]}', only {', '.join(known)}: "
                "correct or remove that line"
            )
        try:
            found = {known[name]: value for name, value in values.items()}
            cls(**found)
        except InputError as error:
            raise WorkspaceError(
                f"{path}: [{cls.section}] {error}; correct the line, or 'ddiseg config set "
                f"{cls.section}.{str(error).partition(' ')[0]} VALUE'"
            ) from error
        return cls(**found | {name: value for name, value in given.items() if value is not None})

    def changed(self) -> dict[str, Any]:
        """Return the values that are not the defaults, by key."""
        values = asdict(self)
        return {
            setting.key: values[name]
            for name, setting in self.settings().items()
            if values[name] != setting.default
        }


@dataclass(frozen=True)
class StudySettings(SettingsSection):
    """How work is given to people. All commands must agree, or the study's statistics mean nothing."""

    section: ClassVar[str] = "study"

    control: float = _setting(
        0.0,
        "Percent of new images without a prediction, to measure its effect on people.",
        **_PERCENT,
    )
    readers: int = _setting(
        1, "People who annotate each image, without seeing each other's work.", "1 or more", 1
    )
    sample: float = _setting(
        100.0, "Percent of new images that get that many readers; the others get one.", **_PERCENT
    )
    review_sample: float = _setting(
        100.0, "Percent of the submitted masks that are reviewed (spot check).", **_PERCENT
    )
    hide_tone: bool = _setting(
        False, "Leave the tone out of the tasks: annotators work blind to it.", "true or false"
    )
    seed: int = _setting(0, "Seed of what is chosen at random.", _SEED, 0)


@dataclass(frozen=True)
class TrainingSettings(SettingsSection):
    """How and when the model is trained."""

    section: ClassVar[str] = "training"

    backbone: str = _setting(
        "small+lite0",
        "'small+lite0' is installed with the package, so are 'small' and 'lite0'; 'imagenet-256' is the "
        "paper's (fedd weights fetch); or a path of weights (safetensors, or OpenAI's .pt).",
        "a name, the path of a weights file, or several joined by +",
    )
    seed: int = _setting(0, "Seed of the training.", _SEED, 0)
    max_drop: float = _setting(
        0.02,
        "How far a tone's lower bound of IoU may drop before the gate refuses a version.",
        "an IoU from 0 to 1, such as 0.02",
        0,
        1,
    )
    every: int = _setting(
        10, "Refresh when so many accepted masks wait to be learned from.", "masks, from 1 up", 1
    )
    max_age: float = _setting(
        7.0,
        "Days of the newest version after which a single new mask is enough for a refresh.",
        "a number of days above 0, at most 36500",
        1e-9,
        36_500,
    )
    device: str = _setting(
        "auto", "cpu, cuda or cuda:1; auto is all GPUs, or the CPU where there is none.", "a device"
    )
    precision: str = _choice(
        "auto",
        "Number type of the backbone's convolutions; auto is bfloat16 where a GPU has it and masks were "
        "tested to stay the same, else float32.",
        "auto",
        "float32",
        "bfloat16",
    )
    ensemble: str = _choice(
        "auto",
        "How the five probes decide a pixel's class: by the majority (vote) or by the mean of their "
        "probabilities (mean); auto is vote for the paper's backbone and mean for any other.",
        "auto",
        "vote",
        "mean",
    )
    corrected_weight: float = _setting(
        1.0,
        "Weight in training of the pixels that a person changed in a prediction; 1 is that of all others, and "
        "2 or more made models worse (docs/decisions/0035).",
        "a weight from 0.1 to 10",
        0.1,
        10,
    )
    cache_gb: float = _setting(
        4.0,
        "Size limit of the activations kept in the workspace's cache/features; 0 keeps none.",
        "a size in GB, from 0 up",
        0,
    )


@dataclass(frozen=True)
class ComputeSettings(SettingsSection):
    """Where photographs are read, predicted and compared."""

    section: ClassVar[str] = "compute"

    engine: str = _choice(
        "local",
        "local is this machine alone; ray spreads the work over a Ray cluster (docs/cluster.md).",
        "local",
        "ray",
    )
    ray_address: str = _setting(
        "default",
        "The Ray cluster: local starts Ray on this machine for one run, auto is the one that runs here, "
        "HOST:PORT one that this machine is a node of; default is the variable RAY_ADDRESS, else local.",
        "default, local, auto or HOST:PORT",
    )


@dataclass(frozen=True)
class BackupSettings(SettingsSection):
    """The rolling backups of the catalogue by `ddiseg loop run` and `ddiseg serve`."""

    section: ClassVar[str] = "backup"

    keep: int = _setting(
        7, "Rolling backups of the catalogue that are kept; 0 writes none.", "0 or more", 0
    )
    hours: float = _setting(
        24.0, "Hours from one rolling backup to the next.", "hours, from 0 up to 8760", 0, 8760
    )


@dataclass(frozen=True)
class CacheSettings(SettingsSection):
    """Copies of what is read again and again."""

    section: ClassVar[str] = "cache"

    store_gb: float = _setting(
        10.0,
        "Size limit of the copies of an object store's files in the workspace's cache/store; 0 keeps none.",
        "a size in GB, from 0 up",
        0,
    )


#: All sections of the file.
SECTIONS: tuple[type[SettingsSection], ...] = (
    StudySettings,
    TrainingSettings,
    ComputeSettings,
    BackupSettings,
    CacheSettings,
)

#: All settings by key.
KEYS = {setting.key: setting for part in SECTIONS for setting in part.settings().values()}


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a ddiseg.toml holds; raises WorkspaceError where it can't be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except IsADirectoryError as error:
        raise WorkspaceError(
            f"{path} is a folder, and the settings of a workspace are a file: move that folder away, "
            f"and restore {SETTINGS} from a backup"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise WorkspaceError(
            f"{path} can't be read: {why}; correct it, or restore it from a backup"
        ) from error


def find_setting(key: str) -> Setting:
    """Return the setting with this key; raises InputError where there is none."""
    try:
        return KEYS[key]
    except KeyError:
        raise InputError(f"no setting '{key}'; there are: {', '.join(KEYS)}") from None


def write_line(path: Path, name: str, value: str) -> None:
    """Write a line of a ddiseg.toml that is in no section; its other lines and comments stay as they are.

    Raises:
        WorkspaceError: the line can't be changed, or the file not be read or written.
    """
    before = read_toml(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    line = f"{name} = {as_toml(value)}"
    end = next((i for i, each in enumerate(lines) if each.lstrip().startswith("[")), len(lines))
    found = [i for i in range(end) if re.match(rf"\s*{name}\s*=", lines[i])]
    if found:
        lines[found[0]] = line
    else:
        first = next((i for i in range(end) if not lines[i].startswith("#")), end)
        lines.insert(first, line)
    _write_checked(path, "\n".join(lines), {**before, name: value}, f"write '{line}' yourself")


def write_setting(path: Path, setting: Setting, value: Any) -> None:
    """Write one setting into a ddiseg.toml; its other lines and comments stay as they are.

    Raises:
        WorkspaceError: the line can't be changed, or the file not be read or written.
    """
    before = read_toml(path)
    section, _, name = setting.key.partition(".")
    line = f"{name} = {as_toml(value)}"
    text = _with_line(path.read_text(encoding="utf-8"), section, name, line)
    present = before.get(section, {})
    wanted = {**before, section: {**present, name: value}} if isinstance(present, dict) else None
    advice = f"{setting.key} is written in a way that only you can change: write '{line}' under [{section}]"
    _write_checked(path, text, wanted, advice)


def _write_checked(path: Path, text: str, wanted: dict[str, Any] | None, advice: str) -> None:
    """Write a TOML file, if its text means what is wanted."""
    try:
        fits = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        fits = False
    if not fits:
        raise WorkspaceError(f"{path}: {advice}")
    try:
        atomic_write(path.resolve(), text)
    except OSError as error:
        raise WorkspaceError(f"{path} can't be written: {error.strerror}") from error


def _with_line(text: str, section: str, name: str, line: str) -> str:
    """Return the text of a TOML file with a line put into a section, in place of that setting's."""
    lines = text.removesuffix("\n").split("\n") if text else []
    headers = [i for i, each in enumerate(lines) if each.lstrip().startswith("[")]
    starts = [i for i in headers if re.match(rf"\s*\[\s*{section}\s*\]", lines[i])]
    if not starts:
        return "\n".join([*lines, *([""] if lines else []), f"[{section}]", line, ""])
    end = min([i for i in headers if i > starts[0]], default=len(lines))
    for i in range(starts[0] + 1, end):
        if re.match(rf"\s*{name}\s*=", lines[i]):
            comment = re.search(r"""\s*\#[^"']*$""", lines[i])
            lines[i] = line + (comment[0] if comment else "")
            return "\n".join([*lines, ""])
    while not lines[end - 1].strip():
        end -= 1
    return "\n".join([*lines[:end], line, *lines[end:], ""])
