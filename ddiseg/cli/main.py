"""All commands under one name; the module of a command is imported when the command runs."""

from __future__ import annotations

import sys

import click

from annotation_protocol.command_line import SectionedGroup, Sections
from ddiseg.cli.common import Group, common_options, run

#: What a person does, and the commands for it, the most used first.
SECTIONS: Sections = {
    "Set up": {
        "init": ("ddiseg.cli.init:init", "Make a workspace, or upgrade one to this version."),
        "demo": (
            "ddiseg.cli.demo:demo",
            "Run every step on rendered phantoms, and show how it is typed.",
        ),
        "config": (
            "ddiseg.cli.config:config",
            "Show and change the settings that all commands share.",
        ),
    },
    "Import": {
        "import": ("ddiseg.cli.import_:import_", "Import a folder of photographs."),
        "import-coco": (
            "ddiseg.cli.import_coco:import_coco",
            "Import photographs and masks of a COCO file.",
        ),
        "masks": ("ddiseg.cli.masks:masks", "Import masks that were drawn with other tools."),
        "datasets": (
            "ddiseg.cli.datasets:datasets",
            "List datasets, and correct their licence and source.",
        ),
    },
    "Label": {
        "label": (
            "ddiseg.cli.label:label",
            "Annotate in Label Studio: start one here, or use a team's.",
        ),
        "review": ("ddiseg.cli.review:review", "Have a second person review submitted masks."),
        "batch": (
            "ddiseg.cli.batch:batch",
            "Choose the images to label next; list, show and close batches.",
        ),
        "subset": (
            "ddiseg.cli.subset:subset",
            "Sample, list and show named subsets of the images.",
        ),
        "skip": ("ddiseg.cli.skip:skip", "Set an image aside that can't be labelled."),
        "reopen": ("ddiseg.cli.reopen:reopen", "Take a skipped or an accepted image back to work."),
    },
    "Model": {
        "refresh": ("ddiseg.cli.refresh:refresh", "Train the model on accepted masks."),
        "prelabel": (
            "ddiseg.cli.prelabel:prelabel",
            "Predict masks with the model version in use.",
        ),
        "evaluate": (
            "ddiseg.cli.evaluate:evaluate",
            "Score predictions: IoU and Dice by class and tone.",
        ),
        "loop": (
            "ddiseg.cli.loop:loop",
            "Pull, train when due, predict and push, once or for ever.",
        ),
        "models": (
            "ddiseg.cli.models:models",
            "List and compare model versions, and choose the one in use.",
        ),
        "serve": (
            "ddiseg.cli.serve:serve",
            "Serve predictions to Label Studio, and take its webhooks.",
        ),
        "sensitivity": (
            "ddiseg.cli.sensitivity:sensitivity",
            "Measure how much masks change with the light, by tone.",
        ),
        "malignancy": (
            "ddiseg.cli.malignancy:malignancy",
            "Estimate how likely an image is malignant: research, not a diagnosis.",
        ),
    },
    "Release": {
        "export": (
            "ddiseg.cli.export:export",
            "Write a release: accepted masks, photographs and licences.",
        ),
    },
    "Keep safe": {
        "verify": (
            "ddiseg.cli.verify:verify",
            "Check stored files, the catalogue and its events.",
        ),
        "backup": ("ddiseg.cli.backup:backup", "Write a backup of the catalogue."),
        "audit": (
            "ddiseg.cli.audit:audit",
            "Search a release for what should not be passed on.",
        ),
        "restore": ("ddiseg.cli.restore:restore", "Replace the catalogue by a backup."),
        "catalogue": (
            "ddiseg.cli.catalogue:catalogue",
            "Copy the catalogue to another database, such as PostgreSQL.",
        ),
    },
    "Inspect": {
        "status": (
            "ddiseg.cli.status:status",
            "Show the state of the workspace, and what to do next.",
        ),
        "report": (
            "ddiseg.cli.report:report",
            "Write one HTML page about the work, to read or to print.",
        ),
        "show": (
            "ddiseg.cli.show:show",
            "Show the record of one image: details, masks, reviews, events.",
        ),
        "agreement": (
            "ddiseg.cli.agreement:agreement",
            "Compare masks that two or more people drew of the same image.",
        ),
    },
}


class MainGroup(SectionedGroup, Group):
    """The group of all commands, which takes the common options too."""


@click.group(
    name="ddiseg",
    cls=MainGroup,
    sections=SECTIONS,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="ddiseg")
def cli() -> None:
    """From clinical photographs to a fair, reviewed, released segmentation dataset."""


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(cli))
