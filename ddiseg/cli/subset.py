"""`ddiseg subset`: named subsets of the images."""

from __future__ import annotations

from typing import Any

import click

from ddiseg.cli.common import Command, Group, Settings, common_options, pass_settings, sizes_by_tone
from ddiseg.cli.params import tone_option


class _Sizes(click.ParamType[tuple[int, ...]]):
    """Numbers of images such as 10,20,30,40."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"'{value}': give numbers from 1 up, such as 10,20,30,40", param, ctx)
        if len(set(map(int, parts))) < len(parts):
            self.fail(f"'{value}': a number stands twice; keep one of them", param, ctx)
        return tuple(sorted(map(int, parts)))


@click.group("subset", cls=Group, params=common_options())
def subset() -> None:
    """Sample, list and show named subsets of the images."""


@subset.command("draw", cls=Command)
@click.argument("name")
@click.option(
    "--per-tone",
    type=_Sizes(),
    metavar="N[,N...]",
    help="Images of each tone group. Several numbers make NAME-10, NAME-20, ..., each within the next.",
)
@click.option(
    "--balance",
    type=click.Choice(["malignant"]),
    help="Half malignant, half benign within each tone group.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other images.")
@click.option(
    "--from", "source", metavar="SUBSET", help="Sample from the images of this subset only."
)
@tone_option
@click.option(
    "--disjoint-from",
    metavar="SUBSET",
    multiple=True,
    help="Keep apart from this subset only; may be repeated.  [default: from all other subsets]",
)
@click.option("--strict", is_flag=True, help="Refuse where a tone can't be filled or balanced.")
@click.option(
    "--partial", is_flag=True, help="For the paper's splits: take the images that are there."
)
@pass_settings
def draw(
    settings: Settings,
    name: str,
    per_tone: tuple[int, ...] | None,
    balance: str | None,
    seed: int,
    source: str | None,
    tones: tuple[str, ...],
    disjoint_from: tuple[str, ...],
    strict: bool,
    partial: bool,
) -> None:
    """Sample the subset NAME, with as many images of each tone group.

    Other subsets' images, their patients and near-duplicates are left out. Of each group of
    near-duplicates one image is taken, and of a patient too, as long as there are others. The same
    seed gives the same images; a subset never changes.

    The FEDD paper's own splits of DDI need no numbers: fedd-2023-5, -10, -15, -20, -val and -test,
    or fedd-2023 for all of them.
    """
    from ddiseg.sampling.paper_splits import ALL, draw_presets, preset_names
    from ddiseg.sampling.subsets import SubsetRequest
    from ddiseg.sampling.subsets import draw as draw_new
    from ddiseg.workspace.workspace import default_actor

    names = preset_names() if name == ALL else [name]
    is_preset = names[0] in preset_names()
    if is_preset and (per_tone or balance or seed or source or tones or disjoint_from or strict):
        raise click.UsageError(
            f"'{name}' is a split of the paper: it takes no option but --partial"
        )
    if partial and not is_preset:
        raise click.UsageError("--partial is for the paper's own splits: leave it out")
    if is_preset:
        workspace = settings.open()
        drawn = draw_presets(workspace.catalogue, names, default_actor(), partial=partial)
    elif per_tone is not None:
        request = SubsetRequest(per_tone, seed, bool(balance), source, tones, disjoint_from or None)
        workspace = settings.open()
        drawn = draw_new(workspace.catalogue, name, request, default_actor(), strict=strict)
    else:
        raise click.UsageError(
            f"give '{name}' a size with --per-tone, or name one of the paper's splits: "
            + ", ".join([ALL, *preset_names()])
        )
    lines = [
        f"{n}: {drawn.outcomes[n]}, {sizes_by_tone(sizes)}" for n, sizes in drawn.sizes.items()
    ]
    lines += [f"  note     {note}" for note in drawn.notes]
    lines += [f"  lacking  {lack}" for lack in drawn.lacking]
    data = {
        "subsets": {
            n: {"outcome": drawn.outcomes[n].value, "n": sum(sizes.values()), "by_tone": sizes}
            for n, sizes in drawn.sizes.items()
        },
        "notes": drawn.notes,
        "lacking": drawn.lacking,
    }
    settings.emit(data, "\n".join(lines))


@subset.command("list", cls=Command)
@pass_settings
def list_subsets(settings: Settings) -> None:
    """List the subsets with their sizes by tone group."""
    subsets = settings.open().catalogue.subsets
    found, retired = subsets.sizes(), subsets.retired()
    lines = [
        f"{name}: {sizes_by_tone(sizes)}{', retired' if name in retired else ''}"
        for name, sizes in found.items()
    ]
    data = {
        n: {"n": sum(sizes.values()), "by_tone": sizes, "retired": n in retired}
        for n, sizes in found.items()
    }
    settings.emit({"subsets": data}, "\n".join(lines) or "no subsets yet: 'ddiseg subset draw'")


@subset.command("retire", cls=Command)
@click.argument("name")
@pass_settings
def retire(settings: Settings, name: str) -> None:
    """Retire the subset NAME, which leaks.

    For a subset that turned out to share patients, lesions or near-duplicates with one that it was
    sampled apart from. It keeps its images and stays listed; 'ddiseg verify' and 'ddiseg status' no longer
    check it. New subsets still keep apart from it, unless --disjoint-from names others.
    """
    from ddiseg.workspace.workspace import default_actor

    new = settings.open().catalogue.subsets.retire(name, default_actor())
    text = f"{name}: retired; it keeps its images" if new else f"{name}: unchanged, retired before"
    settings.emit({"name": name, "retired": new}, text)


@subset.command("show", cls=Command)
@click.argument("name")
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Show how the subset NAME was sampled, and its images."""
    catalogue = settings.open().catalogue
    drawn = catalogue.subsets.get(name)
    images = catalogue.images.select(subset=name)
    lines = [f"{name}: {sizes_by_tone(catalogue.subsets.sizes()[name])}, drawn {drawn.created_at}"]
    lines += [f"  {key}: {_plain(value)}" for key, value in drawn.drawn_by.items() if value]
    lines += [
        f"#{i.id}  {i.name}  {i.tone}  {_MALIGNANCY[i.malignant]}  {i.patient or 'patient unknown'}  {i.state}"
        for i in images
    ]
    data = {
        "name": name,
        "drawn_at": drawn.created_at,
        "drawn_by": drawn.drawn_by,
        "images": [
            {
                "id": i.id,
                "name": i.name,
                "tone": i.tone,
                "malignant": i.malignant,
                "patient": i.patient,
                "state": i.state,
            }
            for i in images
        ],
    }
    settings.emit(data, "\n".join(lines))


_MALIGNANCY = {True: "malignant", False: "benign", None: "not known whether malignant"}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{k} {_plain(v)}" for k, v in value.items() if v or (v == 0 and v is not False)
        )
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
