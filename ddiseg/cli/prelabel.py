"""`ddiseg prelabel`: predict masks with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar, report_outcomes
from ddiseg.cli.malignancy import malignancy_flag, predict_malignancy
from ddiseg.cli.params import (
    cluster_of,
    device_options,
    engine_options,
    select_images,
    selection_options,
)

if TYPE_CHECKING:
    from ddiseg.catalogue.tables import Image, ModelVersion
    from ddiseg.workspace.workspace import Workspace


@click.command("prelabel", cls=Command)
@selection_options
@click.option("--strict", is_flag=True, help="Fail if any image is refused.")
@device_options
@engine_options
@malignancy_flag
@pass_settings
def prelabel(
    settings: Settings,
    images: tuple[str, ...],
    subset: str | None,
    batch: str | None,
    states: tuple[str, ...],
    strict: bool,
    device: str | None,
    precision: str | None,
    engine: str | None,
    ray_address: str | None,
    malignancy: bool,
) -> None:
    """Predict masks with the model version in use.

    Without arguments: of every image that is neither accepted nor skipped. With names, --subset,
    --batch or --state: of exactly those, accepted ones too (to measure the model against them).
    Images that this version has predicted are unchanged. It runs on the training.device of 'ddiseg
    config show', in its training.precision.
    """
    from ddiseg.model.predict import prelabel as predict

    workspace = settings.open()
    chosen = select_images(workspace, images, subset, batch, states)
    training = workspace.training(device=device, precision=precision)
    if malignancy:
        where = engine, ray_address
        predict_malignancy(settings, workspace, chosen, strict, training, where)
        return
    with (
        cluster_of(workspace, engine, ray_address) as cluster,
        progress_bar("Predicting images") as progress,
    ):
        version, outcomes = predict(
            workspace,
            chosen,
            progress,
            device=training.device,
            precision=training.precision,
            cluster=cluster,
        )
    levels, line = _expectations(workspace, version, chosen)
    report_outcomes(
        settings,
        outcomes,
        "images",
        strict=strict,
        extra={"model": version.name, "expected_iou": levels},
        lines=[f"model {version.name}", *line],
    )


def _expectations(
    workspace: Workspace, version: ModelVersion, chosen: Sequence[Image]
) -> tuple[dict[str, int] | None, list[str]]:
    """Return how many predictions of the images to expect what of, and a line that says so.

    None where the version tells no expected IoU of any.
    """
    import numpy as np

    from ddiseg.masks import by_level

    doubts = workspace.catalogue.masks.doubts(version.id)
    quality = doubts.quality[np.isin(doubts.ids, [image.id for image in chosen])]
    if not np.isfinite(quality).any():
        old = f"{version.name} tells no expected IoU: predictions are sorted by uncertainty"
        return None, [old] if quality.size else []
    counts = {level.value: n for level, n in by_level(quality.tolist()).items()}
    return counts, ["expected: " + "; ".join(f"{n} {level}" for level, n in counts.items())]
