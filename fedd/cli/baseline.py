"""`fedd baseline`: the networks that FEDD is compared with, trained on one's own data."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotation_protocol.csv_files import csv_text
from fedd.cli import options
from fedd.errors import DatasetError
from fedd.files import check_writable, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fedd.baselines import Start
    from fedd.baselines.fitting import Report
    from fedd.dataset import DatasetImage

#: Share of the photographs in the validation split.
VALIDATION = 0.2

CLASSES = ("background", "lesion", "marker", "ruler", "skin")

#: Options of both trainings, in the order of the help; `FitSettings` has them by name.
_TRAINING = (
    options.TABLE,
    click.option("--weights", type=options.FILE, help="File of initial weights."),
    click.option("--from-scratch", is_flag=True, help="Start from random weights, not ImageNet's."),
    click.option(
        "--recipe",
        type=click.Choice(["ours", "paper"]),
        default="ours",
        show_default=True,
        help="ours: end to end, augmented; the better network. paper: as the paper's baselines, for "
        "comparison with its figures; 'fedd reproduce' uses it.",
    ),
    click.option("--epochs", type=int, help="Maximum number of epochs.  [default: the recipe's]"),
    click.option(
        "--patience",
        type=int,
        help="Epochs without a better validation before training ends.  [default: the recipe's]",
    ),
    click.option("--batch-size", type=int, help="Images per step.  [default: the recipe's]"),
    click.option("--learning-rate", type=float, help="Adam's.  [default: the recipe's]"),
    options.seed(),
    options.DEVICE,
    options.out("File of the network (safetensors)."),
)


def _training_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_TRAINING):
        command = option(command)
    return command


@click.group(cls=options.Group)
def baseline() -> None:
    """Train the UNets and CNNs that the paper compares FEDD against.

    Needs the extra ddiseg[baselines].
    """


@baseline.command()
@click.argument("photographs", type=options.FOLDER)
@click.option(
    "--masks",
    type=options.FOLDER,
    required=True,
    help="Folder of masks with the photographs' names.",
)
@click.option(
    "--encoder",
    default="efficientnet-b0",
    show_default=True,
    help="densenet121, vgg16, resnet50, efficientnet-b0, mobilenet_v2 or efficientnet-lite0.",
)
@click.option("--image-size", type=int, help="Width and height in pixels.  [default: 256]")
@_training_options
def segment(
    photographs: Path,
    masks: Path,
    encoder: str,
    table: Path | None,
    weights: Path | None,
    from_scratch: bool,
    recipe: str,
    device: str,
    out: Path,
    **fitting: Any,
) -> None:
    """Train a UNet on those PHOTOGRAPHS (a folder) that have a mask.

    A fifth of them, split by patient, are used for early stopping. Pixels of class 255 are left out.
    """
    from fedd.baselines import Recipe, UNetSettings, train_unet
    from fedd.dataset import read_dataset
    from fedd.probes.pixels import labelled_examples

    start = _start(weights, from_scratch)
    settings = UNetSettings.of(Recipe(recipe), encoder=encoder, start=start, **_given(fitting))
    items = [item for item in read_dataset(photographs, table, masks) if item.mask is not None]
    check_writable(out)
    training, validation = _mask_splits(items, settings.seed)
    done = train_unet(
        labelled_examples(training, len(CLASSES)),
        labelled_examples(validation, len(CLASSES)),
        CLASSES,
        settings,
        device=device,
        report=_epochs_of(settings.monitored),
    )
    done.save(out)
    _show_result(out, f"UNet with {encoder}", training, validation, done.epoch)


@baseline.command()
@click.argument("photographs", type=options.FOLDER)
@click.option(
    "--model",
    default="efficientnet_b0",
    show_default=True,
    help="densenet121, vgg16, resnet50, efficientnet_b0, mobilenet_v2 or deepderm.",
)
@click.option(
    "--image-size",
    type=int,
    help="Width and height in pixels.  [default: 224, with --recipe paper 256, for deepderm 299]",
)
@_training_options
def classify(
    photographs: Path,
    model: str,
    table: Path | None,
    weights: Path | None,
    from_scratch: bool,
    recipe: str,
    device: str,
    out: Path,
    **fitting: Any,
) -> None:
    """Train a CNN on the PHOTOGRAPHS (a folder) of known malignancy: research, not diagnosis.

    A fifth of them, split by patient, are used for early stopping.
    """
    from fedd.baselines import CNNSettings, Recipe, diagnosed, train_cnn
    from fedd.baselines.cnns import DEEPDERM
    from fedd.dataset import read_dataset
    from fedd.validation import malignancy_split

    start = _start(weights, from_scratch)
    settings = CNNSettings.of(Recipe(recipe), model=model, start=start, **_given(fitting))
    if settings.frozen and from_scratch:
        raise click.UsageError(
            "--recipe paper trains a head on a frozen encoder, which would stay random with "
            "--from-scratch: give --weights, or --recipe ours"
        )
    items = [item for item in read_dataset(photographs, table) if item.malignant is not None]
    check_writable(out)
    training, validation = _divided(items, malignancy_split(items, VALIDATION, settings.seed))
    done = train_cnn(
        diagnosed(training),
        diagnosed(validation),
        settings,
        device=device,
        report=_epochs_of(settings.monitored),
    )
    done.save(out)
    other = (
        ", an Inception v3 without DeepDerm's weights" if model == DEEPDERM and not weights else ""
    )
    name = f"{model}{other} (research output, not a diagnosis)"
    _show_result(out, name, training, validation, done.epoch)


@baseline.command()
@click.argument("network", type=options.FILE)
@click.argument("photographs", type=options.FOLDER)
@options.out(
    "Folder for a UNet's masks (PNG), or file for a CNN's probabilities (CSV).",
    click.Path(path_type=Path),
)
@click.option(
    "--probabilities", is_flag=True, help="Write a UNet's class probabilities too (.npy, float16)."
)
@options.DEVICE
def predict(network: Path, photographs: Path, out: Path, probabilities: bool, device: str) -> None:
    """Predict masks or malignancy of the PHOTOGRAPHS (a folder) with a NETWORK file."""
    import numpy as np
    from PIL import Image

    from fedd.baselines import load_cnn, load_unet
    from fedd.baselines.unets import UNET_KIND
    from fedd.dataset import read_dataset
    from fedd.weights.files import read_header

    items = read_dataset(photographs)
    if read_header(network).get("kind") == UNET_KIND:
        unet = load_unet(network, device)
        out.mkdir(parents=True, exist_ok=True)
        for item, photograph in _opened(items):
            [mask] = unet.predict([photograph])
            data = io.BytesIO()
            Image.fromarray(mask).save(data, "png")
            write_file(out / f"{item.stem}.png", data.getvalue())
            if probabilities:
                data = io.BytesIO()
                np.save(data, unet.probabilities(photograph).astype(np.float16), allow_pickle=False)
                write_file(out / f"{item.stem}.npy", data.getvalue())
        return
    check_writable(out)
    cnn = load_cnn(network, device)
    rows = [("file", "probability_of_malignant", "note")]
    for item, photograph in _opened(items):
        [probability] = cnn.predict([photograph])
        rows.append((item.path.name, f"{probability:.4f}", "research output, not a diagnosis"))
    write_file(out, csv_text(rows))


def _start(weights: Path | None, from_scratch: bool) -> Start | Path:
    from fedd.baselines import Start

    if weights and from_scratch:
        raise click.UsageError("--weights and --from-scratch: give one of them")
    return weights or (Start.SCRATCH if from_scratch else Start.IMAGENET)


def _mask_splits(
    items: Sequence[DatasetImage], seed: int
) -> tuple[list[DatasetImage], list[DatasetImage]]:
    import numpy as np

    from fedd.dataset import UNKNOWN
    from fedd.validation import Candidate, validation_split

    candidates = [
        Candidate(
            item.stem,
            item.patient,
            item.tone,
            frozenset(np.unique(item.class_ids(len(CLASSES))).tolist()) - {UNKNOWN},
        )
        for item in items
    ]
    chosen = set(validation_split(candidates, VALIDATION, seed).images)
    return _divided(items, [i in chosen for i in range(len(items))])


def _divided(
    items: Sequence[DatasetImage], in_validation: Iterable[bool]
) -> tuple[list[DatasetImage], list[DatasetImage]]:
    """Return the training and the validation split."""
    splits: tuple[list[DatasetImage], list[DatasetImage]] = [], []
    for item, chosen in zip(items, in_validation, strict=True):
        splits[bool(chosen)].append(item)
    return splits


def _given(fitting: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that were given; the others are the recipe's."""
    return {name: value for name, value in fitting.items() if value is not None}


def _epochs_of(monitored: str) -> Report:
    """Return what shows each epoch, with the name of the monitored value."""

    def show(epoch: int, train_loss: float, value: float) -> None:
        validation = "" if math.isnan(value) else f", validation {monitored} {value:.4f}"
        click.echo(f"epoch {epoch}: loss {train_loss:.4f}{validation}", err=True)

    return show


def _show_result(
    out: Path,
    network: str,
    training: Sequence[DatasetImage],
    validation: Sequence[DatasetImage],
    epoch: int,
) -> None:
    size = f"validated on {len(validation)}" if validation else "too few for a validation split"
    click.echo(f"{out}: {network}; learned from {len(training)}, {size}, epoch {epoch} kept")


def _opened(items: Sequence[DatasetImage]) -> Iterator[tuple[DatasetImage, Any]]:
    """Yield the photographs that can be opened; at the end show how many can and which can't.

    Raises DatasetError at the end if none can.
    """
    refused = []
    for item in items:
        try:
            photograph = item.photograph()
        except DatasetError as error:
            refused.append(str(error))
            continue
        yield item, photograph
    for why in refused:
        click.echo(f"refused  {why}", err=True)
    click.echo(
        f"{len(items)} photographs: {len(items) - len(refused)} read, {len(refused)} refused"
    )
    if refused and len(refused) == len(items):
        raise DatasetError(f"no photograph can be opened, first: {refused[0]}")
