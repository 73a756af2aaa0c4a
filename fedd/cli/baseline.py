"""`fedd baseline`: the networks that FEDD is compared against, trained on one's own data."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedd.cli import options
from fedd.errors import DatasetError
from fedd.files import check_writable, write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedd.baselines import Diagnosed, Start
    from fedd.dataset import DatasetImage
    from fedd.probes.training import Example

#: Share of the photographs held out to end the training.
VALIDATION = 0.2

CLASSES = ("background", "lesion", "marker", "ruler", "skin")

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_table = click.option(
    "--table",
    type=_FILE,
    help="CSV with the photographs' names, tone, patient and malignant.  [default: DDI's, if there]",
)

#: What both kinds of training take, in the order of the help; `FitSettings` has them by name.
_TRAINING = (
    _table,
    click.option("--weights", type=_FILE, help="File of weights to start from."),
    click.option("--from-scratch", is_flag=True, help="Start from random weights, not ImageNet's."),
    click.option("--epochs", default=100, show_default=True, help="Epochs at most."),
    click.option(
        "--patience",
        default=20,
        show_default=True,
        help="Epochs without a lower validation loss after which training ends.",
    ),
    click.option("--batch-size", default=8, show_default=True, help="Images a step."),
    click.option("--learning-rate", default=1e-4, show_default=True, help="Adam's."),
    options.seed(),
    options.DEVICE,
    click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        required=True,
        help="File of the network (safetensors).",
    ),
)


def _training_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_TRAINING):
        command = option(command)
    return command


@click.group()
def baseline() -> None:
    """Train the UNets and CNNs that the paper compares FEDD against.

    Needs the extra ddiseg[baselines].
    """


@baseline.command()
@click.argument("photographs", type=_FOLDER)
@click.option(
    "--masks", type=_FOLDER, required=True, help="Folder of masks, by photographs' stems."
)
@click.option(
    "--encoder",
    default="efficientnet-b0",
    show_default=True,
    help="densenet121, vgg16, resnet50, efficientnet-b0, mobilenet_v2 or efficientnet-lite0.",
)
@click.option("--image-size", default=256, show_default=True, help="Side in pixels.")
@_training_options
def segment(
    photographs: Path,
    masks: Path,
    encoder: str,
    image_size: int,
    table: Path | None,
    weights: Path | None,
    from_scratch: bool,
    device: str,
    out: Path,
    **fitting: Any,
) -> None:
    """Train a UNet on those PHOTOGRAPHS (a folder) that have a mask.

    A fifth of them, apart by patient, ends the training. Pixels of class 255 are left out.
    """
    from fedd.baselines import UNetSettings, train_unet
    from fedd.dataset import read_dataset

    start = _start(weights, from_scratch)
    settings = UNetSettings(encoder=encoder, start=start, image_size=image_size, **fitting)
    items = [item for item in read_dataset(photographs, table, masks) if item.mask is not None]
    check_writable(out)
    learned, held_out = _masked_parts(items, settings.seed)
    done = train_unet(
        _examples(learned), _examples(held_out), CLASSES, settings, device=device, report=_tell
    )
    done.save(out)
    _say(out, f"UNet with {encoder}", learned, held_out, done.epoch)


@baseline.command()
@click.argument("photographs", type=_FOLDER)
@click.option(
    "--model",
    default="efficientnet_b0",
    show_default=True,
    help="densenet121, vgg16, resnet50, efficientnet_b0, mobilenet_v2 or deepderm.",
)
@click.option("--image-size", type=int, help="Side in pixels.  [default: 224, for deepderm 299]")
@_training_options
def classify(
    photographs: Path,
    model: str,
    image_size: int | None,
    table: Path | None,
    weights: Path | None,
    from_scratch: bool,
    device: str,
    out: Path,
    **fitting: Any,
) -> None:
    """Train a CNN on the PHOTOGRAPHS (a folder) of known malignancy: research, not diagnosis.

    A fifth of them, apart by patient, ends the training.
    """
    from fedd.baselines import CNNSettings, train_cnn
    from fedd.baselines.cnns import DEEPDERM
    from fedd.dataset import read_dataset

    start = _start(weights, from_scratch)
    side = image_size or (299 if model == DEEPDERM else 224)
    settings = CNNSettings(model=model, start=start, image_size=side, **fitting)
    items = [item for item in read_dataset(photographs, table) if item.malignant is not None]
    check_writable(out)
    learned, held_out = _diagnosed_parts(items, settings.seed)
    done = train_cnn(
        _diagnosed(learned), _diagnosed(held_out), settings, device=device, report=_tell
    )
    done.save(out)
    _say(out, f"{model} (research output, not a diagnosis)", learned, held_out, done.epoch)


@baseline.command()
@click.argument("network", type=_FILE)
@click.argument("photographs", type=_FOLDER)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for a UNet's masks (PNG), or file for a CNN's probabilities (CSV).",
)
@click.option(
    "--probabilities", is_flag=True, help="Write a UNet's class probabilities too (.npy, float16)."
)
@options.DEVICE
def predict(network: Path, photographs: Path, out: Path, probabilities: bool, device: str) -> None:
    """Let a NETWORK's file, of 'segment' or 'classify', say what the PHOTOGRAPHS (a folder) show."""
    from fedd.baselines import load_cnn, load_unet
    from fedd.baselines.unets import UNET_KIND
    from fedd.baselines.weights import stored_kind
    from fedd.dataset import read_dataset

    items = read_dataset(photographs)
    if stored_kind(network) == UNET_KIND:
        unet = load_unet(network, device)
        out.mkdir(parents=True, exist_ok=True)
        for item, photograph in _opened(items):
            [mask] = unet.predict([photograph])
            write_bytes(out / f"{item.stem}.png", _png(mask))
            if probabilities:
                write_bytes(out / f"{item.stem}.npy", _npy(unet.probabilities(photograph)))
        return
    check_writable(out)
    cnn = load_cnn(network, device)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "probability_of_malignant", "note"))
    for item, photograph in _opened(items):
        [probability] = cnn.predict([photograph])
        writer.writerow((item.path.name, f"{probability:.4f}", "research output, not a diagnosis"))
    write_text(out, text.getvalue())


def _start(weights: Path | None, from_scratch: bool) -> Start | Path:
    from fedd.baselines import Start

    if weights and from_scratch:
        raise click.UsageError("--weights and --from-scratch: say one of them")
    return weights or (Start.SCRATCH if from_scratch else Start.IMAGENET)


def _masked_parts(
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
    held = set(validation_split(candidates, VALIDATION, seed).images)
    return _split(items, [i in held for i in range(len(items))])


def _diagnosed_parts(
    items: Sequence[DatasetImage], seed: int
) -> tuple[list[DatasetImage], list[DatasetImage]]:
    from fedd.validation import stratified_validation

    held = stratified_validation(
        [bool(item.malignant) for item in items],
        [item.tone for item in items],
        [item.patient for item in items],
        VALIDATION,
        seed,
    )
    return _split(items, held.tolist())


def _split(
    items: Sequence[DatasetImage], held: Sequence[bool]
) -> tuple[list[DatasetImage], list[DatasetImage]]:
    pairs = list(zip(items, held, strict=True))
    return [item for item, out in pairs if not out], [item for item, out in pairs if out]


def _examples(items: Sequence[DatasetImage]) -> Iterator[Example]:
    from fedd.probes.training import Example

    for item in items:
        yield Example(item.photograph(), item.class_ids(len(CLASSES)), item.patient, item.tone)


def _diagnosed(items: Sequence[DatasetImage]) -> Iterator[Diagnosed]:
    from fedd.baselines import Diagnosed

    for item in items:
        yield Diagnosed(item.photograph(), bool(item.malignant))


def _tell(epoch: int, train_loss: float, validation_loss: float) -> None:
    held_out = "" if math.isnan(validation_loss) else f", validation {validation_loss:.4f}"
    click.echo(f"epoch {epoch}: loss {train_loss:.4f}{held_out}", err=True)


def _say(
    out: Path,
    what: str,
    learned: Sequence[DatasetImage],
    held_out: Sequence[DatasetImage],
    epoch: int,
) -> None:
    ended = f"validated on {len(held_out)}" if held_out else "too few to hold some out"
    click.echo(f"{out}: {what}; learned from {len(learned)}, {ended}, epoch {epoch} kept")


def _opened(items: Sequence[DatasetImage]) -> Iterator[tuple[DatasetImage, Any]]:
    """The photographs that can be opened; at the end, how many could and which could not.

    Raises DatasetError at the end where none could.
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


def _png(mask: Any) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(mask).save(data, "png")
    return data.getvalue()


def _npy(probabilities: Any) -> bytes:
    import numpy as np

    data = io.BytesIO()
    np.save(data, probabilities.astype(np.float16), allow_pickle=False)
    return data.getvalue()
