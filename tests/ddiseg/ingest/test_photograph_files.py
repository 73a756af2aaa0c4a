"""Every kind of file that a folder of photographs may hold, through the import."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from syrupy.assertion import SnapshotAssertion

from ddiseg.errors import InputError
from ddiseg.images import open_photograph
from ddiseg.ingest.photographs import import_photographs
from ddiseg.outcomes import Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A small PNG whose header promises a picture of side x side."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def colours(shift: int = 0) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (c + shift, 40, 80)) for c in (0, 90, 180)]


PLAIN = Image.fromarray(np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8))
FRAMES: dict[str, Any] = {"save_all": True, "append_images": colours(40)[1:], "duration": 50}

BAD = {
    "truncated.png": (encode(PLAIN)[:-200], "damaged or cut short"),
    "truncated.jpg": (encode(PLAIN, "JPEG")[:-300], "damaged or cut short"),
    "one byte.png": (b"\x89", "not a photograph that can be read"),
    "empty.png": (b"", "not a photograph that can be read"),
    "text.png": (b"this is no picture\n" * 50, "not a photograph that can be read"),
    "page.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a photograph"),
    "bomb.png": (bomb(60_000), "larger than 178 megapixels when unpacked"),
    "small bomb.png": (bomb(13_500), "larger than 178 megapixels when unpacked"),
    "no pixels.png": (bomb(0), "not a photograph that can be read"),
    "animated.gif": (encode(colours()[0], "GIF", **FRAMES), "holds 3 frames"),
    "animated.png": (encode(colours()[0], **FRAMES), "holds 3 frames"),
    "animated.webp": (encode(colours()[0], "WEBP", **FRAMES), "holds 3 frames"),
    "pages.tif": (encode(colours()[0], "TIFF", save_all=True, append_images=colours()[1:]), "holds 3 frames"),
    "floats.tif": (encode(Image.fromarray(np.full((4, 4), -1, np.float32)), "TIFF"), "negative ones are no brightness"),
}  # fmt: skip


def test_import__bad_files_among_good_ones(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    PLAIN.save(root / "good.png")
    for name, (data, _) in BAD.items():
        (root / name).write_bytes(data)
    done = import_photographs(workspace, root)
    told = {o.name: o for o in done.outcomes}
    assert told.pop("good.png").outcome is Outcome.ADDED
    assert {name for name, o in told.items() if o.outcome is Outcome.REFUSED} == set(BAD)
    for name, (_, reason) in BAD.items():
        assert reason in str(told[name].note), name
        assert "\n" not in str(told[name].note)
        assert "0x" not in str(told[name].note)
    assert [i.name for i in workspace.catalogue.images.select()] == ["good.png"]
    assert len(workspace.store.digests(Kind.IMAGE)) == 1


def test_open_photograph__large_but_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Pillow warns, from half of its limit on, nothing is refused and nothing is printed."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PLAIN.width * PLAIN.height - 1)
    assert np.array_equal(open_photograph(encode(PLAIN)).pixels, np.asarray(PLAIN))


GREY = np.linspace(0, 255, 12 * 10).reshape(12, 10).astype(np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 10, 3), np.uint8)
ALPHA = np.dstack([COLOUR, np.full((12, 10), 255, np.uint8)])


def in_palette() -> Image.Image:
    return Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)


def half_clear() -> Image.Image:
    half = ALPHA.copy()
    half[:, :5, 3] = 0
    return Image.fromarray(half)


def grey_rgb() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.dstack([GREY] * 3)


@pytest.mark.parametrize(
    ("data", "expected", "note"),
    [
        (encode(Image.fromarray(COLOUR)), COLOUR, None),
        (encode(Image.fromarray(COLOUR), "BMP"), COLOUR, None),
        (encode(Image.fromarray(COLOUR), "TIFF"), COLOUR, None),
        (encode(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR, None),
        (encode(Image.fromarray(ALPHA)), COLOUR, None),
        (encode(Image.fromarray(GREY)), grey_rgb(), None),
        (encode(Image.fromarray(GREY).convert("LA")), grey_rgb(), None),
        (encode(Image.fromarray(GREY.astype(np.uint16) * 257)), grey_rgb(), "brought from 16 to 8 bits"),
        (encode(Image.fromarray(GREY.astype(np.uint16))), grey_rgb(), "brought to 8 bits: 0 to 255, the observed range, became 0 to 255"),
        (encode(in_palette()), np.asarray(in_palette().convert("RGB")), None),
        (encode(in_palette(), "GIF"), np.asarray(in_palette().convert("RGB")), None),
        (encode(Image.fromarray(GREY > 127)), np.where(grey_rgb() > 127, 255, 0), None),
        (
            encode(half_clear()),
            np.where(np.arange(10)[None, :, None] < 5, 255, COLOUR),
            "transparency laid on white",
        ),
    ],
    ids=["rgb", "bmp", "tiff", "webp", "rgba", "grey", "grey alpha", "16 bits", "8 bits in 16", "palette", "gif", "1 bit", "clear"],
)  # fmt: skip
def test_import__kinds(
    workspace: Workspace, tmp_path: Path, data: bytes, expected: Any, note: str | None
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.png").write_bytes(data)
    (told,) = import_photographs(workspace, root).outcomes
    assert (told.outcome, told.note) == (Outcome.ADDED, note)
    assert np.array_equal(workspace.photograph(workspace.catalogue.images.find("a.png")), expected)


def test_import__cmyk_jpeg(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK").save(root / "a.jpg", quality=100)
    (told,) = import_photographs(workspace, root).outcomes
    assert told.outcome is Outcome.ADDED
    pixels = workspace.photograph(workspace.catalogue.images.find("a.jpg"))
    assert np.abs(pixels.astype(int) - (200, 40, 90)).max() <= 3


#: What each EXIF orientation does to a picture when it is shown (EXIF 2.32, 4.6.4).
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", list(SHOWN))
def test_import__exif_orientation(
    workspace: Workspace, tmp_path: Path, orientation: int, kind: str
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(COLOUR).save(root / f"a.{kind}", exif=exif, **options)
    (told,) = import_photographs(workspace, root).outcomes
    image = workspace.catalogue.images.find(f"a.{kind}")
    pixels = workspace.photograph(image)
    assert np.array_equal(pixels, SHOWN[orientation](COLOUR))
    assert (image.height, image.width) == pixels.shape[:2]
    assert told.note == (None if orientation == 1 else "turned upright")


def test_import__jpeg_turned_upright(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:, 16:] = 255
    Image.fromarray(halves).save(root / "a.jpg", exif=exif, quality=100)
    import_photographs(workspace, root)
    pixels = workspace.photograph(workspace.catalogue.images.find("a.jpg"))
    assert pixels.shape == (32, 16, 3)
    assert (pixels[:14].max() < 20, pixels[18:].min() > 235) == (True, True)


SECRET = b"51.5007 N, Jane Doe"


def with_everything(kind: str) -> bytes:
    """A picture with every sort of metadata that its format has, the secret in each."""
    exif = Image.Exif()
    exif[0x010F] = exif[0x8298] = SECRET.decode()
    exif.get_ifd(0x8769)[0x9286] = SECRET
    exif.get_ifd(0x8825)[0x001D] = SECRET.decode()
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    options: dict[str, Any] = {"exif": exif, "icc_profile": bytes(profile)}
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", SECRET.decode())
        texts.add_text("Author", SECRET.decode(), zip=True)
        texts.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta>{SECRET.decode()}</x:xmpmeta>")
        options["pnginfo"] = texts
    else:
        options["xmp"] = b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
    if kind == "JPEG":
        options["comment"] = SECRET
    data = encode(PLAIN, kind, **options)
    if kind == "JPEG":  # IPTC in a Photoshop block, and something after the end
        iptc = b"\x1c\x02\x78" + struct.pack(">H", len(SECRET)) + SECRET
        block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc
        data = (
            data[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + data[2:] + SECRET
        )
    return data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_import__metadata_dropped(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    data = with_everything(kind)
    assert SECRET in data
    (root / "a.jpg").write_bytes(data)
    import_photographs(workspace, root)
    digest = workspace.catalogue.images.find("a.jpg").content_hash
    copy = workspace.store.get(Kind.IMAGE, digest)
    assert chunks(copy) == [b"IHDR", b"IDAT", b"IEND"]
    assert SECRET not in copy
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(copy))), open_photograph(data).pixels)
    for path in (workspace.root).rglob("*"):
        assert path.is_dir() or SECRET not in path.read_bytes()


def chunks(png: bytes) -> list[bytes]:
    """Kinds of the chunks of a PNG; fails where a byte is left over or a checksum is wrong."""
    kinds, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert chunk(kind, body) == png[at : at + 12 + length]
        kinds.append(kind)
        at += 12 + length
    return kinds


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_open_photograph__colour_profile(mode: str, wording: SnapshotAssertion) -> None:
    """Colours of another space are converted before the profile is dropped."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = profile.replace(b"\0s\0R\0G\0B", b"\0r\0e\0d\0s")
    for old, new in ((b"rXYZ", b"????"), (b"gXYZ", b"rXYZ"), (b"????", b"gXYZ")):
        other = other.replace(old, new)
    picture = Image.new(mode, (4, 4), (120, 60, 30))
    assert open_photograph(encode(picture, icc_profile=profile)).changes == ()
    opened = open_photograph(encode(picture, icc_profile=other))
    assert opened.changes == wording
    assert np.abs(opened.pixels.astype(int) - (60, 120, 30)).max() <= 2


def test_open_photograph__colour_profile_unreadable(wording: SnapshotAssertion) -> None:
    opened = open_photograph(encode(PLAIN, icc_profile=b"no profile"))
    assert opened.changes == wording
    assert np.array_equal(opened.pixels, np.asarray(PLAIN))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
def test_open_photograph__any_damage_is_told(kind: str) -> None:
    """Whatever is cut or flipped: a photograph or an InputError, never another exception."""
    whole = encode(PLAIN, kind)
    chance = random.Random(kind)
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 6)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            outcomes.add(open_photograph(bytes(data)).pixels.ndim)
        except InputError as error:
            outcomes.add(str(error).count("\n"))
    assert outcomes <= {3, 0}
    assert 0 in outcomes


def test_import__folder_in_the_store_refuses_that_photograph_alone(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    PLAIN.save(folder / "a.png")
    import_photographs(workspace, folder)
    PLAIN.rotate(180).save(folder / "b.png")
    digest = workspace.catalogue.images.find("a.png").content_hash
    path = Path(workspace.store.path(Kind.IMAGE, digest))
    path.unlink()
    path.mkdir()
    done = import_photographs(workspace, folder)
    outcomes = {each.name: each.outcome for each in done.outcomes}
    assert outcomes == {"a.png": Outcome.REFUSED, "b.png": Outcome.ADDED}
    (refused,) = [each.note for each in done.outcomes if each.outcome is Outcome.REFUSED]
    assert "is a folder, and the store keeps a file there" in refused
    assert "space" not in refused
    assert [p.line for p in verify(workspace).problems if "is a folder" in p.line]
