"""One odd file among good ones is refused, whatever its reader meets; the good ones come in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_protocol.errors import UserError
from ddiseg import images
from ddiseg.cli.common import run as run_command
from ddiseg.cli.main import cli
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.ingest import png_masks
from ddiseg.ingest.labelled_masks import Labels, import_labelled_masks
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.outcomes import one_file
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import HEIGHT, OUTLINE, PROTOCOL, WIDTH, coco_file, run, write
from tests.wording import Refusal


def told(outcomes: Any) -> dict[str, str]:
    return {o.name: o.outcome.value for o in outcomes}


def task(number: int, name: str, **changes: Any) -> dict[str, Any]:
    points = [
        [100 * x / WIDTH, 100 * y / HEIGHT] for x, y in zip(*[iter(OUTLINE)] * 2, strict=True)
    ]
    region = {
        "id": "r", "type": "polygonlabels", "from_name": "tag", "to_name": "img",
        "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": {"points": points, "polygonlabels": ["lesion"], "closed": True},
    }  # fmt: skip
    made = {"id": 1, "completed_by": {"id": 3, "email": "a@x.org"}, "result": [region]}
    annotation = {**made, "updated_at": "2026-01-01T00:00:00Z", **changes}
    return {"id": number, "annotations": [annotation], "data": {"image": f"/x/{name}"}}


@pytest.fixture
def catalogued(workspace: Workspace, folder: Callable[..., Path]) -> Workspace:
    import_photographs(workspace, folder("a.png", "b.png"))
    return workspace


def import_export(workspace: Workspace, path: Path) -> Any:
    labels = Labels(PROTOCOL)
    return import_labelled_masks(workspace, path, format_name="labelstudio", labels=labels)


def test_one_file__any_exception_is_a_refusal(refusal: Refusal) -> None:
    with refusal(InputError) as caught, one_file():
        raise KeyError("first line\nsecond line")
    assert isinstance(caught.value.__cause__, KeyError)


def test_one_file__no_memory(refusal: Refusal) -> None:
    with refusal(InputError), one_file():
        raise MemoryError


@pytest.mark.parametrize(
    "error", [WorkspaceError("disk full"), KeyboardInterrupt(), InputError("x")]
)
def test_one_file__what_ends_the_import_goes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, one_file():
        raise error
    assert caught.value is error


def test_import__a_photograph_whose_reader_fails(
    workspace: Workspace, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder("a.png", "b.png")
    odd = (root / "b.png").read_bytes()
    read = images.open_photograph

    def fails(data: bytes) -> images.Opened:
        if data == odd:
            raise RecursionError("too deep")
        return read(data)

    monkeypatch.setattr(images, "open_photograph", fails)
    done = import_photographs(workspace, root)
    assert told(done.outcomes) == {"a.png": "added", "b.png": "refused"}


@pytest.mark.parametrize("debug", [False, True])
def test_import__traceback_with_debug(
    workspace: Workspace,
    folder: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    debug: bool,
) -> None:
    def fails(_data: bytes) -> images.Opened:
        raise RecursionError("too deep")

    monkeypatch.setattr(images, "open_photograph", fails)
    flags = ["--debug"] * debug
    root = str(workspace.root)
    run_command(cli, ["--workspace", root, *flags, "import", str(folder("a.png"))])
    printed = capsys.readouterr()
    assert ("Traceback" in printed.err) == debug
    assert "this looks like a damaged or unusual file (RecursionError: too deep)" in printed.out


def test_import__npy_of_negative_shape(workspace: Workspace, folder: Any, tmp_path: Path) -> None:
    import_photographs(workspace, folder("a.png", "b.png"))
    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m/a.npy", np.full((256, 256), 1, np.int32))
    data = (tmp_path / "m/a.npy").read_bytes()
    header = b"{'descr': '<i4', 'fortran_order': False, 'shape': (-256, -256), }"
    padded = header.ljust(117) + b"\n"
    (tmp_path / "m/b.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data[128:]
    )
    done = import_masks(workspace, tmp_path / "m", format_name="sddi", annotator="r")
    assert told(done.outcomes) == {"a.npy": "added", "b.npy": "refused"}
    assert "(-256, -256)" in str(done.outcomes[1].note)


def test_import__a_png_whose_reader_fails(
    catalogued: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "m").mkdir(exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT), 1).save(tmp_path / f"m/{name}.png")
    read = png_masks._load

    def fails(file: Any, *more: Any) -> Any:
        if file.name == "b.png":
            raise IndexError("index 3 is out of bounds")
        return read(file, *more)

    monkeypatch.setattr(png_masks, "_load", fails)
    for mapping in (None, {1: 1}):
        done = import_masks(
            catalogued, tmp_path / "m", format_name="png", annotator="r", mapping=mapping
        )
        assert told(done.outcomes)["b.png"] == "refused"


@pytest.mark.parametrize(
    "odd",
    [
        {**task(2, "b.png"), "data": {"image": "http://[::1"}},
        {**task(2, "b.png"), "data": {"image": "http://[::1/b.png"}},
        task(2, "b.png", completed_by={"id": 3, "email": "\ud800@x.org"}),
        task(2, "b.png", completed_by={"id": 3, "email": "a" * 300}),
        task(2, "b.png", result=[{**task(2, "b.png")["annotations"][0]["result"][0], "value": {"points": "x", "polygonlabels": ["lesion"]}}]),
    ],
    ids=["address", "address with a file", "half a character", "long name", "points"],
)  # fmt: skip
def test_import__odd_task_of_an_export(catalogued: Workspace, tmp_path: Path, odd: Any) -> None:
    path = write(tmp_path, [task(1, "a.png"), odd])
    outcomes = told(import_export(catalogued, path).outcomes)
    assert outcomes.pop("a.png (task 1)") == "added"
    assert list(outcomes.values()) == ["refused"]


def test_import__numeric_address_of_an_annotator(catalogued: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path, [task(1, "a.png", completed_by={"id": 3, "email": 12})])
    assert told(import_export(catalogued, path).outcomes) == {"a.png (task 1)": "added"}
    assert catalogued.catalogue.masks.all()[0].annotator == "12"


def test_import__odd_image_of_a_coco_file(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png", "b.png")
    document = coco_file()
    document["images"][1]["attributes"] = {"diagnosis": "\ud800", "patient": 7}
    done = run(workspace, write(root, document))
    assert told(done.photographs.outcomes) == {"a.png": "added", "b.png": "refused"}
    assert told(done.masks) == {"a.png": "added", "b.png": "refused"}


#: Values that may stand anywhere in a JSON file.
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.just("\ud800"),
    st.just(""), st.just("x" * 300), st.just("http://[::1"), st.just([]), st.just({}), st.just([[]]),
    st.just([1, "a", None]), st.just({"size": [-1, 2], "counts": "\u00ff"}), st.text(max_size=5),
)  # fmt: skip


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield from _places(node[key], (*path, key))


def _with(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


COCO, EXPORT = coco_file(), [task(1, "a.png"), task(2, "b.png")]
COCO["images"][0]["attributes"] = {
    "name": "a.png",
    "tone": "12",
    "annotator": "x",
    "malignant": True,
}


@pytest.mark.property
@given(data=st.data())
@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("document", [COCO, EXPORT], ids=["coco", "labelstudio"])
def test_import__any_odd_value_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, pixels: Any, document: Any, data: st.DataObject
) -> None:
    """Nothing but a UserError leaves an importer, whatever value stands at one or two places."""
    from PIL import Image

    root = tmp_path_factory.mktemp("odd")
    changed = document
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(_places(changed))))
        changed = _with(changed, path, data.draw(ODD))
    workspace = Workspace.create(root / "w")
    for seed, name in enumerate(("a.png", "b.png")):
        Image.fromarray(pixels(seed)).save(root / name)
    (root / "x.json").write_text(json.dumps(changed))
    with closing(workspace.catalogue), suppress(UserError):
        if document is COCO:
            run(workspace, root / "x.json", photographs=root)
        else:
            import_photographs(workspace, root)
            import_export(workspace, root / "x.json")
