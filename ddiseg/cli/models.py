"""`ddiseg models`: which versions of the model there are, which is in use, and how to change that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import Command, Group, Settings, common_options, pass_settings
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.catalogue.tables import ModelVersion
    from ddiseg.model.performance import PerformanceTable
    from ddiseg.model.registry import PromotionChange, VersionDifference
    from ddiseg.outcomes import FileOutcome
    from ddiseg.workspace.workspace import Workspace

#: The kinds of ddiseg.catalogue.ModelKind, which is too slow to import for a --help.
KINDS = ("segmentation", "malignancy")

kind_option = click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="segmentation",
    show_default=True,
    help="What the version is for.",
)
card_path = click.Path(path_type=Path)


@click.group("models", cls=Group, params=common_options())
def models() -> None:
    """List and compare model versions, and choose the one in use."""


@models.command("list", cls=Command)
@click.option("--kind", type=click.Choice(KINDS), help="Only versions for this.  [default: all]")
@pass_settings
def list_models(settings: Settings, kind: str | None) -> None:
    """List the model versions, oldest first; a star marks those in use.

    The gate is "passed", "refused", "not evaluated" (too little to compare) or "not asked" (no hold-out
    set). Lesion IoU is that of its own hold-out set.
    """
    from ddiseg.catalogue import ModelKind
    from ddiseg.model.performance import estimate_text, holdout_lesion_iou
    from ddiseg.model.registry import gate_status, in_use, learned_from

    workspace = settings.open()
    found: list[dict[str, Any]] = [
        {
            "name": version.name,
            "kind": version.kind,
            "in_use": in_use(workspace, version),
            "trained_at": version.created_at,
            "learned_from": len(learned_from(version)),
            "gate": gate_status(version).value,
            "held_out_lesion_iou": holdout_lesion_iou(version),
        }
        for version in workspace.catalogue.models.all(ModelKind(kind) if kind else None)
    ]
    rows = [
        (
            ("* " if each["in_use"] else "  ") + each["name"],
            each["kind"],
            _when(each["trained_at"]),
            f"{each['learned_from']} {_LEARNED[each['kind']]}",
            each["gate"],
            estimate_text(each["held_out_lesion_iou"]),
        )
        for each in found
    ]
    head = ("  name", "kind", "trained", "trained on", "gate", "lesion IoU, hold-out set")
    settings.emit({"models": found}, "\n".join(_columns([head, *rows])) if rows else _NONE)


@models.command("show", cls=Command)
@click.argument("name")
@click.option(
    "--card",
    "target",
    type=card_path,
    help="Write the model card too: a .md or .json file, or a folder for both.",
)
@pass_settings
def show(settings: Settings, name: str, target: Path | None) -> None:
    """Show all that is known of the model version NAME.

    Estimates are listed by tone, each with its n and 95 % interval; estimates on its own training images
    are not shown.
    """
    from ddiseg.model.cards import model_card, write_card

    workspace = settings.open()
    version = workspace.catalogue.models.get(name)
    card = model_card(workspace, version)
    written = write_card(card, target) if target is not None else []
    lines = _shown(card)
    promotions = _promotions(workspace, version)
    lines += ["", "Promotions, oldest first", *map(_promotion_line, promotions)]
    if written:
        lines += ["", *_written(written)]
    data = {**card, "promotions": promotions, "files": _files(written)}
    settings.emit(data, "\n".join(lines))


@models.command("card", cls=Command)
@click.argument("name", required=False)
@click.option(
    "--to",
    "target",
    type=card_path,
    required=True,
    help="A .md or .json file to write, or a folder for both.",
)
@pass_settings
def card(settings: Settings, name: str | None, target: Path) -> None:
    """Write the model card of NAME, or of the version in use: Markdown, JSON, or both.

    It says what the version is for, what it learned from, how well it does by tone, what the gate
    said, where it ends, and how to make it again. It names none of the people who worked on it. An
    earlier card in the place is replaced, any other file is not.
    """
    from ddiseg.model.cards import model_card, write_card

    workspace = settings.open()
    catalogue = workspace.catalogue
    version = catalogue.models.get(name) if name else catalogue.models.current()
    written = write_card(model_card(workspace, version), target)
    settings.emit({"model": version.name, "files": _files(written)}, "\n".join(_written(written)))


@models.command("diff", cls=Command)
@click.argument("first")
@click.argument("second")
@pass_settings
def diff(settings: Settings, first: str, second: str) -> None:
    """Show how two model versions differ: settings, what they learned from, scores.

    Where the gate compared one with the other, their scores are on the same images and the
    difference is given with its interval; all others are each version's own.
    """
    from ddiseg.model.registry import diff as compare

    found = compare(settings.open(), first, second)
    settings.emit(found.to_dict(), "\n".join(_compared(found)))


@models.command("promote", cls=Command)
@click.argument("name")
@click.option("--force", is_flag=True, help="Though the gate refused it, or never evaluated it.")
@click.option("--why", metavar="TEXT", help="The reason, kept on record; --force needs one.")
@pass_settings
def promote(settings: Settings, name: str, force: bool, why: str | None) -> None:
    """Bring the model version NAME into use.

    One that passed the gate, or was in use before, needs no force. No force brings in one of another
    version of the annotation protocol, or one whose file or backbone is missing or was changed.
    """
    from ddiseg.model.registry import promote as promote_version
    from ddiseg.workspace.workspace import default_actor

    _emit_change(
        settings, promote_version(settings.open(), name, default_actor(), why=why, force=force)
    )


@models.command("rollback", cls=Command)
@kind_option
@click.option("--why", metavar="TEXT", help="The reason, kept on record.")
@pass_settings
def rollback(settings: Settings, kind: str, why: str | None) -> None:
    """Bring back the model version that was in use before the present one.

    Again, and it goes one further back, never back and forth: coming back to a version forgets what
    was promoted after it. 'ddiseg models promote NAME' goes forward again.
    """
    from ddiseg.catalogue import ModelKind
    from ddiseg.model.registry import rollback as roll_back
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    _emit_change(settings, roll_back(workspace, default_actor(), why=why, kind=ModelKind(kind)))


_LEARNED = {"segmentation": "masks", "malignancy": "images"}
_FROM_NOW_ON = {
    "segmentation": "'ddiseg prelabel' predicts",
    "malignancy": "'ddiseg prelabel --malignancy' estimates",
}
_NONE = "no model yet: accept some masks, then run 'ddiseg refresh'"


def _when(at: str) -> str:
    return f"{at[:10]} {at[11:16]}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose cells stand below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _wrapped(text: str, first: str = "  - ") -> str:
    indent = " " * len(first)
    return click.wrap_text(text, 100, initial_indent=first, subsequent_indent=indent)


def _shown(card: Mapping[str, Any]) -> list[str]:
    """A card as lines for a terminal."""
    from ddiseg.model.performance import LEGEND, tones_text

    details, data, gate = card["details"], card["data"], card["gate"]
    went_on = f", going on from {details['went_on_from']}" if details["went_on_from"] else ""
    compared = f", compared with {gate['compared_with']}" if gate["compared_with"] else ""
    facts = [
        ("kind", details["kind"]),
        ("in use", "yes" if details["in_use"] else "no"),
        ("trained", f"{_when(details['trained_at'])} UTC{went_on}"),
        ("protocol", details["protocol_version"]),
        (
            "backbone",
            f"{details['backbone']} ({details['backbone_hash'][:12]}), {details['weights']}",
        ),
        ("activations", f"in {details['precision']}"),
        (
            "learned from",
            f"{data['n']} {_LEARNED[details['kind']]} ({tones_text(data['by_tone'])}), digest "
            f"{data['digest'][:12]}",
        ),
        ("gate", gate["said"] + compared),
    ]
    if calibration := card["calibration"]:
        facts.append(
            (
                "calibration",
                f"temperature {calibration['temperature']:.2f}, calibration error "
                f"{calibration['ece']:.3f} ({calibration['ece_before']:.3f} before; "
                f"n = {counted(calibration['images'], 'image')})",
            )
        )
    lines = [details["name"], *_columns([(f"  {key}", value) for key, value in facts])]
    if gate["reasons"]:
        lines += ["", "The gate's reasons", *map(_wrapped, gate["reasons"])]
    lines += ["", "Limits", *map(_wrapped, card["limits"])]
    for table in card["metrics"].values():
        lines += ["", *_table(table)]
    lines += ["", _wrapped(LEGEND, "")]
    lines += ["", f"Made by '{card['reproduce']['command']}' with"]
    settings = ", ".join(f"{name} {value}" for name, value in card["reproduce"]["settings"].items())
    return [*lines, _wrapped(settings, "  ")]


def _table(table: PerformanceTable) -> list[str]:
    from ddiseg.model.performance import row_texts

    head = ("tone", "measure", *table["columns"])
    rows = [(row["tone"], row["measure"], *row_texts(table, row)) for row in table["rows"]]
    lines = [f"  {line}" for line in _columns([head, *rows])]
    return [table["title"], _wrapped(table["about"], "  "), *lines]


def _promotions(workspace: Workspace, version: ModelVersion) -> list[dict[str, Any]]:
    from ddiseg.catalogue import ModelKind

    kind = ModelKind(version.kind)
    names = {each.id: each.name for each in workspace.catalogue.models.all(kind)}
    return [
        {
            "at": each.created_at,
            "model": names[each.model_version_id],
            "actor": each.actor,
            "why": each.why,
            "forced": each.forced,
        }
        for each in workspace.catalogue.models.promotions(kind)
    ]


def _promotion_line(promotion: Mapping[str, Any]) -> str:
    how = ", forced" if promotion["forced"] else ""
    return _wrapped(
        f"{_when(promotion['at'])} {promotion['model']} by {promotion['actor']}{how}: "
        f"{promotion['why']}"
    )


def _files(written: Sequence[FileOutcome]) -> list[dict[str, str]]:
    return [{"path": each.name, "outcome": each.outcome.value} for each in written]


def _written(written: Sequence[FileOutcome]) -> list[str]:
    return [f"{each.name}: {each.outcome.value}" for each in written]


def _compared(found: VersionDifference) -> list[str]:
    """A comparison as lines for a terminal."""
    from ddiseg.model.performance import LEGEND, tones_text

    first, second = found.names
    lines = ["Settings"]
    rows = [(f"  {key}", *map(_value, pair)) for key, pair in found.settings.items()]
    lines += _columns([("  ", first, second), *rows]) if rows else ["  the same"]
    lines += ["", "Learned from"]
    for who, by_tone in (
        ("both", found.in_both),
        (f"{first} only", found.only[0]),
        (f"{second} only", found.only[1]),
    ):
        n = sum(by_tone.values())
        lines.append(f"  {who}: {n}" + (f" ({tones_text(by_tone)})" if n else ""))
    for table in found.tables.values():
        lines += ["", *_table(table)]
    end = _wrapped(LEGEND, "") if found.tables else "Nothing was measured of either."
    return [*lines, "", end]


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = "none" if value is None or value == [] else text
    return text if len(text) <= 36 else f"{text[:35]}…"


def _emit_change(settings: Settings, change: PromotionChange) -> None:
    version = change.version
    data = {
        "model": version.name,
        "kind": version.kind,
        "before": change.before.name if change.before else None,
        "changed": change.changed,
        "forced": change.forced,
        "why": change.why,
    }
    if not change.changed:
        settings.emit(data, f"{version.name} is in use already: nothing changed")
        return
    instead = f", in place of {change.before.name}" if change.before else ""
    forced = ", by force" if change.forced else ""
    settings.emit(
        data,
        f"{version.name} is in use now{instead}{forced} ({change.why}); "
        f"{_FROM_NOW_ON[version.kind]} with it from now on",
    )
