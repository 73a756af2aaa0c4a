"""Options that several commands take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from annotation_protocol import load_protocol
from ddiseg.errors import InputError
from ddiseg.workspace.settings import (
    KEYS,
    SHOW,
    ComputeSettings,
    Setting,
    StudySettings,
    TrainingSettings,
    as_toml,
)

if TYPE_CHECKING:
    from ddiseg.catalogue.lifecycle import State
    from ddiseg.catalogue.tables import Image
    from ddiseg.compute.ray_cluster import Cluster
    from ddiseg.ingest.placement import Geometry
    from ddiseg.loop.options import RoundOptions
    from ddiseg.workspace.workspace import Workspace

#: Minutes of a week, the longest time between two rounds.
WEEK = 7 * 24 * 60

#: The tone groups in the protocol's order.
TONES = [tone.name for tone in load_protocol().tones]

#: Old spellings of options, which are still understood.
_OLD = {"training.max-drop": "--tolerance"}


class Number(click.FloatRange):
    """A range in which "nan" is not, as it is in click's own."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Percent(Number):
    """A percentage, 0 to 100."""

    name = "percent"

    def __init__(self) -> None:
        super().__init__(0, 100)


class Place(click.ParamType[Any]):
    """A path of this machine, or a URL, which stays a text: a path would lose one of its slashes."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        return value if isinstance(value, Path) or "://" in value else Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class _Value(click.ParamType[Any]):
    """A value of a setting, by the setting's own rule."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.name = setting, setting.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.setting.parse(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


def add_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds options, which the help lists in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def setting_options(*keys: str) -> Callable[[Any], Any]:
    """Options that replace settings of the workspace for one run; the value is None if not given.

    They stay out of the help: `ddiseg config show` has them all.
    """
    return add_options(*(_option(KEYS[key]) for key in keys))


def _option(setting: Setting) -> Callable[[Any], Any]:
    names = [f"--{setting.name}", *([_OLD[setting.key]] if setting.key in _OLD else [])]
    about = f"{setting.about}  [default: {setting.key}, see {SHOW}]"
    if isinstance(setting.default, bool):
        flag = f"--{setting.name}/--no-{setting.name}"
        return click.option(flag, default=None, hidden=True, help=about)
    percent = isinstance(setting.default, float) and setting.high == 100
    kind = Percent() if percent else _Value(setting)
    return click.option(*names, setting.name.replace("-", "_"), type=kind, hidden=True, help=about)


suffix_option = click.option(
    "--suffix",
    "suffixes",
    multiple=True,
    metavar="END,...",
    help="What the masks' names end in besides their photograph's, for example _segmentation.",
)

#: Where a backbone runs, and in which precision.
device_options = setting_options("training.device", "training.precision")

#: Where the work is computed; `cluster_of` takes what they give.
engine_options = setting_options("compute.engine", "compute.ray-address")

tone_option = click.option(
    "--tone",
    "tones",
    type=click.Choice(TONES),
    multiple=True,
    help="Only images of this tone group; may be repeated.  [default: all; unknown only where more "
    "than a tenth of the images has no tone]",
)


def geometry_options(*, hidden: bool = False) -> Callable[[Any], Any]:
    """--geometry, and a flag for each of its words; `read_geometry` takes what they give."""
    return add_options(
        click.option(
            "--geometry",
            type=click.Choice(["stretched", "raw-orientation"]),
            multiple=True,
            hidden=hidden,
            help="How masks lie that do not have their photograph's sides. stretched: drawn on the "
            "photograph stretched to the mask's size. raw-orientation: drawn on the file as the "
            "camera wrote it, and turned upright as the photograph was (EXIF). May be repeated; "
            "--stretched and --raw-orientation are short for it.",
        ),
        click.option("--stretched", is_flag=True, hidden=True),
        click.option("--raw-orientation", is_flag=True, hidden=True),
    )


def read_geometry(given: dict[str, Any]) -> Geometry:
    """Take the options of `geometry_options` out of those `given`."""
    from ddiseg.ingest.placement import Geometry

    words = given.pop("geometry")
    stretched, raw = given.pop("stretched"), given.pop("raw_orientation")
    return Geometry(stretched or "stretched" in words, raw or "raw-orientation" in words)


#: The options of a round; `read_round_options` takes what they give.
round_options = add_options(
    click.option(
        "--draw",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Choose a batch of N images whenever nobody has work left, and give it to people. The "
        "images that may be chosen, or 20 times N of them, are predicted first.  [default: none]",
    ),
    setting_options(
        *(
            key
            for key in KEYS
            if key not in {"study.seed", "training.cache-gb"} and not key.startswith("compute.")
        )
    ),
)


def read_round_options(workspace: Workspace, draw: int, given: dict[str, Any]) -> RoundOptions:
    """Return the options of rounds: the workspace's settings, and what the command line replaces."""
    from ddiseg.labelstudio.push import PushOptions
    from ddiseg.loop.options import RoundOptions

    def of(section: type[StudySettings | TrainingSettings]) -> dict[str, Any]:
        return {name: given.get(name) for name in section.settings()}

    study, training = (
        workspace.study(**of(StudySettings)),
        workspace.training(**of(TrainingSettings)),
    )
    return RoundOptions(
        every=training.every,
        max_age=training.max_age,
        draw=draw,
        max_drop=training.max_drop,
        backbone=training.backbone,
        device=training.device,
        precision=training.precision,
        ensemble=training.ensemble,
        corrected_weight=training.corrected_weight,
        seed=training.seed,
        review_sample=study.review_sample,
        push=PushOptions(
            control=study.control,
            readers=study.readers,
            sample=study.sample,
            show_tone=not study.hide_tone,
            seed=study.seed,
        ),
    )


@contextmanager
def cluster_of(
    workspace: Workspace, engine: str | None, ray_address: str | None
) -> Iterator[Cluster | None]:
    """Connect to the Ray cluster that the options of `engine_options` and the settings name.

    Yields None where the work is done on this machine alone. What is printed on stdout in the block is
    lost: Ray prints there.
    """
    chosen = workspace.compute(engine=engine, ray_address=ray_address)
    if chosen.engine == "local":
        yield None
        return
    from ddiseg.compute.ray_cluster import connect

    default = chosen.ray_address == ComputeSettings.ray_address
    with connect(None if default else chosen.ray_address) as cluster:
        yield cluster


def settings_text(changed: Mapping[str, Any]) -> str:
    """Return settings that are not the defaults in a line."""
    return (
        f"{', '.join(f'{key} {as_toml(value)}' for key, value in changed.items())} ({SHOW[1:-1]})"
    )


#: IMAGE..., --subset, --batch and --state; `select_images` takes what they give.
selection_options = add_options(
    click.argument("images", nargs=-1, metavar="[IMAGE]..."),
    click.option("--subset", help="Only images of this subset."),
    click.option("--batch", help="Only images of this batch."),
    click.option(
        "--state", "states", multiple=True, help="Only images in this state; may be repeated."
    ),
)


def select_images(
    workspace: Workspace,
    images: Sequence[str],
    subset: str | None,
    batch: str | None,
    states: Sequence[str],
) -> Sequence[Image]:
    """Return the images chosen by name, or by subset, batch and state; else all that are open.

    Raises:
        InputError: an unknown state.
        NotFoundError: an unknown image, subset or batch.
    """
    from ddiseg.catalogue.lifecycle import SETTLED, State

    catalogue, wanted = workspace.catalogue, parse_states(states)
    if subset is not None:
        catalogue.subsets.members(subset)
    if images:
        if subset or batch or states:
            raise click.UsageError(
                "Give images by name, or --subset, --batch and --state, not both."
            )
        return catalogue.images.select(ids=[catalogue.images.find(name).id for name in images])
    ids = None if batch is None else catalogue.batches.image_ids(batch)
    unsettled = [s for s in State if subset or batch or s not in SETTLED]
    return catalogue.images.select(subset=subset, states=wanted or unsettled, ids=ids)


def parse_states(names: Sequence[str]) -> list[State]:
    """Return the states of these names; raises InputError for an unknown one."""
    from ddiseg.catalogue.lifecycle import State

    for name in names:
        if name not in list(State):
            raise InputError(f"no state is called {name}; states are: {', '.join(State)}")
    return [State(name) for name in names]
