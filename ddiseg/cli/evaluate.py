"""`ddiseg evaluate`: predictions against true masks, by class and tone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import (
    Command,
    Settings,
    folded_lines,
    pass_settings,
    progress_bar,
)
from ddiseg.cli.malignancy import evaluate_malignancy, malignancy_flag
from ddiseg.cli.params import (
    cluster_of,
    engine_options,
    geometry_options,
    read_geometry,
    suffix_option,
)
from ddiseg.outcomes import counted, images_in_groups

if TYPE_CHECKING:
    from ddiseg.outcomes import FileOutcome


@click.command(cls=Command)
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="Folder of true masks, named as the images; of images that the model did not learn from.",
)
@click.option("--accepted", is_flag=True, help="Take the accepted masks as the truth.")
@click.option(
    "--as",
    "format_name",
    metavar="FORMAT",
    help="Format of the true masks: png, voc, sddi, or one that an installed package adds.  "
    "[default: the only one that fits]",
)
@click.option(
    "--classes",
    help="Values or colours in the files, as 0=skin,255=lesion. Other classes are then not scored.",
)
@suffix_option
@geometry_options()
@click.option("--subset", help="Only images of this subset.")
@malignancy_flag
@click.option("--paper-threshold", is_flag=True, hidden=True)
@engine_options
@pass_settings
def evaluate(
    settings: Settings,
    /,
    truth: Path | None,
    accepted: bool,
    format_name: str | None,
    classes: str | None,
    suffixes: Sequence[str],
    subset: str | None,
    malignancy: bool,
    paper_threshold: bool,
    engine: str | None,
    ray_address: str | None,
    **geometry: Any,
) -> None:
    """Score predictions: IoU and Dice by class and tone.

    'mean' is the mean over images, 'pooled' is over the pixels of all images, as in the paper.
    Intervals are 95% over patients; fewer than 10 patients get none. An image is never scored with
    the prediction of a model that learned from it, or from another image of its group (patient, lesion, near-duplicates).
    With --engine ray the workers of a Ray cluster compare the masks (docs/cluster.md).
    """
    from annotation_protocol import load_protocol
    from ddiseg.evaluation.segmentation import evaluate as score
    from ddiseg.ingest.class_values import ClassMapping
    from ddiseg.ingest.mask_targets import parse_suffixes
    from ddiseg.workspace.workspace import default_actor

    if malignancy:
        if truth is not None or accepted:
            raise click.UsageError(
                "--malignancy is known from the metadata: no --truth, no --accepted."
            )
        evaluate_malignancy(settings, subset, paper_threshold=paper_threshold)
        return
    if paper_threshold:
        raise click.UsageError("--paper-threshold goes with --malignancy.")
    if (truth is None) == (not accepted):
        raise click.UsageError("Give either --truth DIR or --accepted.")
    mapping = ClassMapping.parse(classes, load_protocol()) if classes else None
    workspace = settings.open()
    refused: list[FileOutcome] = []
    with (
        cluster_of(workspace, engine, ray_address) as cluster,
        progress_bar("Scoring images") as progress,
    ):
        result = score(
            workspace,
            default_actor(),
            truth=truth,
            format_name=format_name,
            mapping=mapping,
            suffixes=parse_suffixes(suffixes),
            geometry=read_geometry(geometry),
            subset=subset,
            refused=refused,
            progress=progress,
            cluster=cluster,
        )
    settings.emit(result, _table(result, refused))


def _table(result: dict[str, Any], refused: Sequence[FileOutcome]) -> str:
    from annotation_protocol.estimates import ClassEstimates

    models = ", ".join(f"{name} ({n})" for name, n in result["models"].items())
    lines = [
        f"{images_in_groups(result['n_images'], result['patients'])} against "
        f"{_truth(result)}; predictions by {models}",
        f"left out: {result['learned_from']} that the model learned from, {result['same_group']} of their groups, {result['without_prediction']} without a prediction, "
        f"{counted(len(refused), 'truth')} refused",
        *folded_lines(refused, "truths"),
        *(f"note: {note}" for note in result["notes"]),
        "",
        f"{'tone':<9}{'class':<12}{'IoU mean [95% interval]':<30}{'IoU pooled [95% interval]':<30}"
        f"{'Dice mean [95% interval]':<30}{'n images':<10}groups",
    ]
    for tone, scores in [("all", result["classes"]), *result["by_tone"].items()]:
        for name, s in scores.items():
            found = ClassEstimates.from_json(s)
            if found.n:
                texts = (e.text(".3f") for e in (found.iou_mean, found.iou_pooled, found.dice_mean))
                cells = "".join(f"{text:<30}" for text in texts)
                lines.append(f"{tone:<9}{name:<12}{cells}{found.n:<10}{found.groups}")
    return "\n".join(lines)


def _truth(result: dict[str, Any]) -> str:
    return f"{result['truth']} ({result['format']})" if result["format"] else str(result["truth"])
