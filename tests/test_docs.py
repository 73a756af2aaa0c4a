"""What the documents say is what the program does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_command_reference__is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location(
        "make_commands", ROOT / "docs" / "make_commands.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "commands.md").read_text() == module.page(), (
        "run: python docs/make_commands.py > docs/commands.md"
    )


def test_command_reference__has_the_sections_of_the_help() -> None:
    from ddiseg.cli.main import SECTIONS
    from fedd.cli.main import SECTIONS as FEDD_SECTIONS

    text = (ROOT / "docs" / "commands.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.M) == [
        *(f"ddiseg: {heading}" for heading in SECTIONS),
        *(f"fedd: {heading}" for heading in FEDD_SECTIONS),
    ]
    top = [line.split()[1] for line in re.findall(r"^### (ddiseg .*)$", text, re.M)]
    listed = [name for names in SECTIONS.values() for name in names]
    assert list(dict.fromkeys(top)) == listed


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links__lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def _typed(page: Path) -> list[str]:
    """The command lines of a page's shell blocks, continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(
    "line", [x for page in PAGES for x in _typed(page) if x.startswith(("ddiseg ", "fedd "))]
)
def test_typed_commands__exist_with_their_options(line: str) -> None:
    from ddiseg.cli.main import cli
    from fedd.cli.main import cli as fedd_cli

    program, *words = line.split()
    command = {"ddiseg": cli, "fedd": fedd_cli}[program]
    options = {o for p in command.params for o in p.opts}
    while words:
        word = words.pop(0)
        children = getattr(command, "commands", None)
        if children and word in children:
            command = children[word]
            options |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        elif word.startswith("--"):
            assert word in options, f"{word} in: {line}"
    assert not getattr(command, "commands", None), f"no such command: {line}"


def test_readme__shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.process
def test_readme__quick_start_runs(tmp_path: Path) -> None:
    """The README's own lines, on a folder as its reader has it, in the order in which they stand."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- quick start -->\n```sh\n(.*?)```", text, re.S)
    assert block is not None
    script = f"set -eu\nexport PATH={Path(sys.executable).parent}:$PATH\n{block.group(1)}"
    _pad_ufes(tmp_path)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "malignancy from diagnosis, by PAD-UFES-20's codes: 6 malignant" in done.stdout
    assert (tmp_path / "release" / "annotations.json").is_file()
    assert (tmp_path / "work" / "report.html").is_file()


def _pad_ufes(folder: Path) -> None:
    """images/ of 12 phantoms, metadata.csv as PAD-UFES-20 has it, masks of 6 and test_masks of 3."""
    from ddiseg.ingest.rendered import render_ddi

    render_ddi(folder / "images", folder / "all", 12, seed=3)
    (folder / "images" / "ddi_metadata.csv").unlink()
    rows = ["patient_id,lesion_id,fitspatrick,diagnostic,img_id"]
    for part in ("masks", "test_masks"):
        (folder / part).mkdir()
    for number, path in enumerate(sorted((folder / "all").iterdir())):
        code, tone = ("NEV", "BCC")[number % 2], ("1.0", "4.0", "")[number % 3]
        rows.append(f"PAT_{number},{number},{tone},{code},{path.name}")
        lesion = np.asarray(Image.open(path)) == 1
        if number < 9:
            part = "masks" if number < 6 else "test_masks"
            Image.fromarray(lesion.astype(np.uint8) * 255).save(folder / part / path.name)
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
