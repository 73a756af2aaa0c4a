"""`ddiseg prelabel`: predict masks with the model."""

from __future__ import annotations

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar, report_outcomes
from ddiseg.cli.malignancy import malignancy_option, prelabel_malignancy
from ddiseg.cli.params import device_option


@click.command(cls=Command)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--subset", help="Only images of this subset.")
@click.option("--batch", help="Only images of this batch.")
@click.option(
    "--state", "states", multiple=True, help="Only images in this state; may be repeated."
)
@click.option("--strict", is_flag=True, help="Fail if any image is refused.")
@device_option
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the backbone; bfloat16 is faster where the hardware has it.",
)
@malignancy_option
@pass_settings
def prelabel(
    settings: Settings,
    images: tuple[str, ...],
    subset: str | None,
    batch: str | None,
    states: tuple[str, ...],
    strict: bool,
    device: str,
    precision: str,
    malignancy: bool,
) -> None:
    """Predict masks with the model version in use.

    Without arguments: every image that is neither accepted nor skipped. With names, --subset,
    --batch or --state: exactly those, accepted ones too (to measure the model against them).
    Images that this version has painted are unchanged.
    """
    from ddiseg.catalogue import State
    from ddiseg.catalogue.lifecycle import SETTLED
    from ddiseg.errors import InputError
    from ddiseg.model.predict import prelabel as paint

    workspace = settings.open()
    catalogue = workspace.catalogue
    try:
        wanted = [State(s) for s in states] or [
            s for s in State if subset or batch or s not in SETTLED
        ]
    except ValueError as error:
        raise InputError(f"{error}; states are: {', '.join(State)}") from error
    if subset is not None:
        catalogue.subsets.members(subset)
    if images:
        if subset or batch or states:
            raise click.UsageError(
                "Give images by name, or --subset, --batch and --state, not both."
            )
        chosen = catalogue.images.select(ids=[catalogue.images.find(name).id for name in images])
    else:
        ids = None if batch is None else catalogue.batches.image_ids(batch)
        chosen = catalogue.images.select(subset=subset, states=wanted, ids=ids)
    if malignancy:
        prelabel_malignancy(
            settings, workspace, chosen, strict=strict, device=device, precision=precision
        )
        return
    with progress_bar("Painting images") as progress:
        version, outcomes = paint(workspace, chosen, progress, device=device, precision=precision)
    report_outcomes(
        settings,
        outcomes,
        "images",
        strict=strict,
        extra={"model": version.name},
        lines=[f"model {version.name}"],
    )
