"""`fedd reproduce`: the paper's experiments, with our results and the paper's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from fedd.cli import options
from fedd.errors import FeddError, FigureError, ReproductionError

if TYPE_CHECKING:
    from fedd.backbone import LocalBackbone
    from fedd.baselines import Recipe
    from fedd.explore.ablation import Ablation
    from fedd.reproduce import Cell, PaperSplit, Plan, PlanOutcome, Starts, Workbench


@click.command(cls=options.Command)
@click.option(
    "--ddi", type=options.FOLDER, help="Folder with DDI's photographs and ddi_metadata.csv."
)
@click.option(
    "--masks", type=options.FOLDER, help="Folder with the published sDDI masks, at any depth."
)
@click.option(
    "--weights",
    help="Backbone: imagenet-256 once it is fetched, a weights file, or 'small' for the shipped one.",
)
@options.out(
    "Folder of cells, tables and figures; a stopped run in it is resumed.", options.NEW_FOLDER
)
@options.devices("cpu")
@options.PRECISION
@options.ENSEMBLE
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of seeds: 3 are the seeds 0, 1 and 2.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="A task (segmentation, classification), a model (FEDD, VGG16 ...) or figure6, the block x timestep "
    "grid; repeat for more.",
)
@click.option("--from-scratch", is_flag=True, help="Start baselines from random weights.")
@click.option(
    "--recipe",
    type=click.Choice(["paper", "ours"]),
    default="paper",
    show_default=True,
    help="Training of the baselines: paper as its authors' notebooks, ours end to end and augmented.",
)
@click.option(
    "--baseline-weights",
    type=options.FOLDER,
    help="Folder with the baselines' initial weights, with the names of 'fedd baseline' "
    "(efficientnet-b0.pth, deepderm.pth ...). The others start from ImageNet's; DeepDerm needs its own.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Leave out photographs of the split that are missing, and baselines whose packages or weights "
    "are missing, and still exit with 0.",
)
@click.option(
    "--small",
    is_flag=True,
    help="Try everything in minutes, on rendered phantoms and the shipped backbone.",
)
@click.option(
    "--plan", "plan_only", is_flag=True, help="Print what it will cost, and compute nothing."
)
def reproduce(
    ddi: Path | None,
    masks: Path | None,
    weights: str | None,
    out: Path,
    device: str,
    precision: str,
    ensemble: str,
    seeds: int,
    only: tuple[str, ...],
    from_scratch: bool,
    recipe: str,
    baseline_weights: Path | None,
    partial: bool,
    small: bool,
    plan_only: bool,
) -> None:
    """Run the experiments of the FEDD paper and compare the results with the paper's.

    Four fractions of DDI, FEDD and the baselines, segmentation and classification. It prints what it will
    cost before it starts. A finished cell is not run again. The exit status is 1 if a requested cell is
    missing, unless --partial allows it. Probabilities are research output, not a diagnosis.
    """
    from fedd.baselines import Recipe, Start
    from fedd.network.devices import existing_devices
    from fedd.precision import place_in, trial_later, trial_of_masks
    from fedd.reproduce import Starts, Workbench
    from fedd.reproduce.figure6 import ablation_of
    from fedd.reproduce.plan import with_figure6
    from fedd.segment import Ensemble
    from fedd.weights.files import load_backbone

    _check_usage(ddi, masks, weights, small)
    starts = Starts(Start.SCRATCH if from_scratch else Start.IMAGENET, baseline_weights)
    loaded = load_backbone(weights or "small")
    trained_by = Recipe(recipe)
    plan, splits = (
        _small(_scratch_folder() if plan_only else out, seeds, trained_by)
        if small
        else _paper(loaded, starts, seeds, trained_by, ddi, masks, only, partial)
    )
    plan = plan.deciding_by(Ensemble(ensemble))
    trial = trial_of_masks(splits.learned[max(plan.fractions)], plan.probes)
    backbone = place_in(loaded, device, precision, trial_later if plan_only else trial)
    # The baselines are trained on one device: the first of those that the backbone is on.
    workbench = Workbench(plan, splits, backbone, out, str(existing_devices(device)[0]))
    ablation = ablation_of(workbench, out) if with_figure6(only) else None
    work = _announce(workbench, ablation, out, only, to_stderr=not plan_only)
    if not plan_only and not _run(workbench, ablation, out, only, work, partial=partial):
        sys.exit(1)


def _announce(
    workbench: Workbench,
    ablation: Ablation | None,
    out: Path,
    only: tuple[str, ...],
    *,
    to_stderr: bool,
) -> dict[Cell, float]:
    """Print what will be computed, and what can't be; returns the operations of the cells."""
    from fedd.reproduce.cells import missing_cells, unavailable_cells
    from fedd.reproduce.cost import cost_of, work_of

    cells = missing_cells(workbench, out, only)
    cost = cost_of(workbench, cells, ablation)
    lacking = unavailable_cells(workbench, only)
    lines = ["Nothing that can be run is left to compute."]
    if cost.steps or not lacking:
        lines = cost.lines(workbench.backbone, out)
    if cost.steps and any((out / "features").glob("*/*")):
        lines.append(
            f"FEDD takes at most this: what is in {out / 'features'} already is not computed again."
        )
    for line in [*lines, *_gaps(workbench.split), *_not_run(lacking)]:
        click.echo(line, err=to_stderr)
    return work_of(workbench, cells)


def _gaps(split: PaperSplit) -> list[str]:
    """Return which photographs of the split are not used, as lines."""
    from fedd.network.cost import counted
    from fedd.reproduce.split import named

    lines = []
    if split.missing:
        count = counted(len(split.missing), "photograph")
        lines.append(
            f"Left out, missing or unlabelled: {count} of the split, {named(split.missing)}."
        )
    if split.unlabelled:
        count = counted(len(split.unlabelled), "photograph")
        lines.append(f"Not tested on, malignancy unknown: {count}, {named(split.unlabelled)}.")
    return lines


def _not_run(lacking: Mapping[Cell, str]) -> list[str]:
    """Return which cells can't be run and why, a line for each reason."""
    from fedd.network.cost import counted

    lines = []
    for reason in dict.fromkeys(lacking.values()):
        cells = [cell for cell, why in lacking.items() if why == reason]
        models = ", ".join(dict.fromkeys(cell.model for cell in cells))
        tasks = " and ".join(dict.fromkeys(cell.task for cell in cells))
        lines.append(f"Can't be run: {models}, {tasks} ({counted(len(cells), 'cell')}): {reason}")
    return lines


def _run(
    workbench: Workbench,
    ablation: Ablation | None,
    out: Path,
    only: tuple[str, ...],
    work: dict[Cell, float],
    *,
    partial: bool,
) -> bool:
    """Run cells and ablation, write the report, and say what is missing; whether nothing is."""
    from fedd.network.cost import counted
    from fedd.reproduce import run_cells
    from fedd.reproduce.plan import chosen

    outcome = run_cells(workbench, out, only, work)
    no_figure = _reported(workbench, outcome, out)
    no_figure6 = ""
    if ablation is not None:
        try:
            ablation.run(options.progress("cells of figure 6"))
        except FeddError as error:  # the rest of the report stands without it
            no_figure6 = str(error)
        no_figure = _reported(workbench, outcome, out)
    asked = set(chosen(workbench.plan.cells, only))
    done = sum(result.cell in asked for result in outcome.done)
    of_asked = f"{done} of {len(asked)} cells done, {len(outcome.ran)} in this run"
    click.echo(f"{of_asked if asked else 'No cell was requested'}: {out / 'index.html'}")
    for reason in dict.fromkeys(outcome.missing.values()):
        count = list(outcome.missing.values()).count(reason)
        click.echo(f"{counted(count, 'cell')} missing: {reason}", err=True)
    if no_figure6:
        click.echo(f"figure 6 missing: {no_figure6}", err=True)
    if no_figure:
        click.echo(f"figure missing: {no_figure}", err=True)
    lacking = outcome.unavailable and not (partial and outcome.done)
    return not (outcome.failed or no_figure6 or no_figure or lacking)


def _reported(workbench: Workbench, outcome: PlanOutcome, out: Path) -> str:
    """Write the report; returns why a figure is missing, or ""."""
    from fedd.reproduce import write_report

    try:
        write_report(workbench, outcome, out)
    except FigureError as error:
        return str(error)
    return ""


def _check_usage(ddi: Path | None, masks: Path | None, weights: str | None, small: bool) -> None:
    given = {"--ddi": ddi, "--masks": masks, "--weights": weights}
    if small and (superfluous := [name for name, value in given.items() if value]):
        raise click.UsageError(
            f"--small renders its own photographs and uses the shipped backbone: leave out {superfluous[0]}"
        )
    if not small and (lacking := [name for name, value in given.items() if not value]):
        raise click.UsageError(
            f"{' and '.join(lacking)} missing: give DDI's photographs, the sDDI masks and the "
            "backbone's weights ('fedd weights fetch imagenet-256'), or try --small"
        )


def _scratch_folder() -> Path:
    """Return a folder that is removed when the command ends."""
    folder = TemporaryDirectory(prefix="fedd-plan-")
    return Path(click.get_current_context().with_resource(folder))


def _small(out: Path, seeds: int, recipe: Recipe) -> tuple[Plan, PaperSplit]:
    from fedd.dataset import read_dataset
    from fedd.reproduce import small_plan, split, write_phantoms

    photographs, masks = out / "phantoms" / "photographs", out / "phantoms" / "masks"
    try:
        splits = write_phantoms(photographs, masks)
    except OSError as error:
        raise ReproductionError(f"{out} can't be written: {error.strerror}") from error
    items = read_dataset(photographs, masks=masks)
    return small_plan(range(seeds), recipe), split(items, splits)


def _paper(
    backbone: LocalBackbone,
    starts: Starts,
    seeds: int,
    recipe: Recipe,
    ddi: Path | None,
    masks: Path | None,
    only: tuple[str, ...],
    partial: bool,
) -> tuple[Plan, PaperSplit]:
    from fedd.dataset import read_dataset
    from fedd.paper import splits
    from fedd.reproduce import paper_plan, split
    from fedd.reproduce.plan import TASKS, chosen, with_figure6
    from fedd.reproduce.reading import readable, report_strays

    assert ddi is not None
    assert masks is not None
    plan = paper_plan(backbone.config, starts, range(seeds), recipe)
    tasks = set(TASKS if with_figure6(only) else (c.task for c in chosen(plan.cells, only)))
    items = read_dataset(ddi, masks=masks, partial=True)  # the split says which are missing
    report_strays(items, masks)
    items = readable(items, partial=partial)
    return plan, split(items, splits(), tasks=tasks, partial=partial)
