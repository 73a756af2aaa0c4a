"""`ddiseg export`: write a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar, report_outcomes
from ddiseg.cli.params import Place
from ddiseg.outcomes import counted, escaped

if TYPE_CHECKING:
    from ddiseg.release.folder import WrittenRelease
    from ddiseg.release.upload import UploadedRelease


@click.command(cls=Command)
@click.option(
    "--format",
    "format_name",
    required=True,
    shell_complete=lambda _context, _parameter, given: _format_names(given),
    help="coco, png, sddi, or a format that another package adds.",
)
@click.option(
    "--to",
    "target",
    required=True,
    type=Place(),
    help="Folder to make, or s3://BUCKET/PREFIX; nothing in it is ever overwritten.",
)
@click.option("--subset", help="Export the images of this subset only.")
@click.option(
    "--include-predictions",
    is_flag=True,
    help="Add the newest prediction of each image that has no accepted mask and is not skipped, marked as not accepted.",
)
@click.option(
    "--images/--no-images",
    default=True,
    show_default=True,
    help="Put the photographs in, as PNG without metadata.",
)
@click.option(
    "--strict", is_flag=True, help="Write nothing where a single image can't be exported."
)
@click.option(
    "--keep-names",
    is_flag=True,
    help="Keep the names of files, patients, lesions and people, and the times of the masks; otherwise the "
    "release has pseudonyms.",
)
@pass_settings
def export(
    settings: Settings,
    format_name: str,
    target: Path | str,
    subset: str | None,
    include_predictions: bool,
    images: bool,
    strict: bool,
    keep_names: bool,
) -> None:
    """Write a release: accepted masks, photographs and licences.

    \b
    coco  annotations.json with one lossless RLE a class an image, and images/
    png   masks/ as palette PNG, images/, metadata.csv and classes.json
    sddi  labels/ as 256x256 int32 .npy, named as in the published FEDD masks

    More than 10,000 images are divided into several COCO files, coco-00001-of-00004.json, and folders of
    10,000 files.

    Images, patients, lesions and people have pseudonyms, the same in every release of the workspace;
    pseudonyms.csv in the workspace says what they stand for, and is never in a release. 'ddiseg audit
    privacy' searches a release for names and ids. DDI's own file names are public: --keep-names keeps
    them, as readers of sDDI expect.

    Each release has a manifest, ddiseg-release.json, with the hash of every file, and a LICENCE.txt.
    The folder is there whole or not at all; the same export again finds it unchanged. In a bucket the
    manifest is written last; an export that was broken off goes on when it is run again.
    """
    from ddiseg.release.folder import MANIFEST, write_release
    from ddiseg.release.release import Release
    from ddiseg.release.upload import upload_release
    from ddiseg.workspace.pseudonym_key import TABLE_FILE

    workspace = settings.open()
    release = Release.gather(
        workspace, subset=subset, include_predictions=include_predictions, keep_names=keep_names
    )
    with progress_bar("export") as progress:
        options: dict[str, Any] = {"images": images, "strict": strict, "progress": progress}
        written: WrittenRelease | UploadedRelease
        if isinstance(target, Path):
            written = write_release(release, format_name, target, **options)
            place = str(written.folder)
        else:
            written = upload_release(release, format_name, target, **options)
            place = written.url
    manifest = written.manifest
    by_tone = ", ".join(f"{tone} {c['images']}" for tone, c in manifest["by_tone"].items())
    licences = ", ".join(
        f"{d['name']} ({d['licence'] or 'licence not recorded'})" for d in manifest["datasets"]
    )
    report_outcomes(
        settings,
        written.outcomes,
        "images",
        strict=False,
        extra={
            "to": place,
            "unchanged": not written.new,
            "manifest": str(Path(place, MANIFEST))
            if isinstance(target, Path)
            else f"{place}/{MANIFEST}",
            **{key: manifest[key] for key in _SHOWN},
        },
        lines=[
            f"{format_name} release {manifest['content'][:12]} "
            f"{'written to' if written.new else 'stands unchanged in'} {place}: "
            f"{counted(manifest['accepted'], 'accepted mask')}, "
            f"{counted(manifest['predictions'], 'prediction')}, "
            f"{counted(len(manifest['files']), 'file')}",
            f"by tone: {by_tone}",
            f"datasets: {licences}",
            *_partly_labelled(manifest["partly_labelled"]),
            *(
                escaped(f"{kind} '{name}' is called {label}: a name or an id is in its name")
                for kind, label, name in release.names.renamed()
            ),
            "names: as in the catalogue"
            if keep_names
            else f"names: pseudonyms, explained in {workspace.root / TABLE_FILE}",
        ],
    )


#: What of the manifest JSON output repeats.
_SHOWN = (
    "format", "content", "images", "accepted", "predictions", "photographs", "by_tone", "partly_labelled", "with_class",
    "datasets",
)  # fmt: skip


def _partly_labelled(count: dict[str, int]) -> list[str]:
    """Return the line about masks that are labelled in part; none where all are whole."""
    if not count["images"]:
        return []
    return [
        f"labelled in part: {counted(count['images'], 'mask')}, {counted(count['unlabelled_pixels'], 'pixel')} "
        "without a class; who uses the release must leave these pixels out (docs/annotating.md)"
    ]


def _format_names(given: str) -> list[str]:
    from ddiseg.formats import RELEASES, format_names

    return [name for name in format_names(RELEASES) if name.startswith(given)]
