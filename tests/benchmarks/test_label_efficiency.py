"""The accuracy benchmark on two tiny sources: who learns, who is tested, and what is stored."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks import label_efficiency, rows, trials
from benchmarks.activation_bank import ActivationBank
from benchmarks.label_efficiency import Setup, measure, table
from benchmarks.paired import Measured
from benchmarks.photographs import LESION, SKIN, Photograph, Source, learned, missing
from benchmarks.reads import TestRead
from benchmarks.trials import Bench, Result, Trial, patient_folds
from fedd.backbone import DiffusionUNet
from fedd.probes.pixels import Example, Sampling, prepare_example, sample
from fedd.probes.training import train_probes
from tests.fedd.conftest import QUICK, TINY, spot

SIDE = 40


def _write(folder: Path, source: Source, parts: Sequence[tuple[str, int]]) -> None:
    """A source of discs: photographs of each part, each of a patient of its own."""
    for name in ("images", "masks"):
        (folder / source / name).mkdir(parents=True)
    names = [(f"{part}_{i}", part) for part, count in parts for i in range(count)]
    with (folder / source / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img_id", "patient_id", "diagnostic", "tone", "part"])
        for number, (name, part) in enumerate(names):
            photograph, mask = spot(number, (SIDE, SIDE))
            Image.fromarray(photograph).save(folder / source / "images" / f"{name}.png")
            lesion = (mask == LESION).astype(np.uint8) * 255
            Image.fromarray(lesion).save(folder / source / "masks" / f"{name}.png")
            writer.writerow([f"{name}.png", f"{source} {name}", "NEV", "I-II", part])


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    _write(tmp_path, Source.PAD300, [("train10", 2), ("train30", 2), ("train90", 20), ("test", 3)])
    _write(tmp_path, Source.PAD_HAND, [("learn10", 3), ("learn30", 3), ("test", 2)])
    for source in Source:
        monkeypatch.setenv(source.upper(), str(tmp_path / source))
    for cached in (trials._learned, trials._tested, trials.bank):
        cached.cache_clear()
    return tmp_path


class Disc:
    """Learns nothing: the lesion is a fifth of the photograph for an odd seed, all of it for an even one."""

    readings = ("whole",)
    made_of = "disc"

    def __init__(self) -> None:
        self.learned: list[list[str]] = []

    def learn(
        self,
        examples: Sequence[Example],
        photographs: Sequence[Example],
        bank: ActivationBank,
        seed: int,
    ) -> rows.Predict:
        assert not {e.patient for e in examples} & {e.patient for e in photographs}
        self.learned.append([e.patient for e in examples])

        def predict(photograph: NDArray[np.uint8]) -> dict[str, rows.Reading]:
            mask = np.full(photograph.shape[:2], LESION, np.uint8)
            if seed % 2:
                mask[SIDE // 5 :] = SKIN
            return {"whole": rows.Reading(mask)}

        return predict


@pytest.fixture
def disc(monkeypatch: pytest.MonkeyPatch) -> Disc:
    row = Disc()
    monkeypatch.setitem(rows.ROWS, "disc", row)
    return row


def test_learned__parts_nest(sources: Path) -> None:
    assert [len(learned(Source.PAD300, n)) for n in (10, 30, 90)] == [2, 4, 24]
    assert [len(learned(Source.PAD_HAND, n)) for n in (10, 30)] == [3, 6]


def test_missing__names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAD_HAND", str(tmp_path))
    assert "set PAD_HAND to its folder" in missing([Source.PAD_HAND])


def test_results__learn_parts_never_test_what_was_learned(
    sources: Path, disc: Disc, tmp_path: Path
) -> None:
    bench = Bench(tmp_path / "state")
    found = bench.results(
        [Trial("disc", Source.PAD300, 10, 0), Trial("disc", Source.PAD_HAND, 30, 0)]
    )
    first, second = (set(of.scores["whole"]) for of in found.values())
    # 22 of the learn part are left of pad300: tested as they are. None of pad_hand: cross-validated.
    assert len([name for name in first if name.startswith("pad300/")]) == 22
    assert len([name for name in first if name.startswith("pad_hand/")]) == 6
    assert len([name for name in second if name.startswith("pad_hand/")]) == 6
    assert [len(of) for of in disc.learned][:2] == [2, 6]
    assert len(disc.learned) == 2 + trials.FOLDS
    assert not any("test" in name for name in first | second)


def test_results__test_parts(sources: Path, disc: Disc, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state", TestRead("a test", "none"))
    (result,) = bench.results([Trial("disc", Source.PAD300, 10, 0)]).values()
    scores = result.scores
    assert sorted(scores["whole"]) == [
        *(f"pad300/test_{i}.png" for i in range(3)),
        *(f"pad_hand/test_{i}.png" for i in range(2)),
    ]


def test_results__stored_until_the_row_changes(sources: Path, disc: Disc, tmp_path: Path) -> None:
    bench, trial = Bench(tmp_path / "state"), Trial("disc", Source.PAD300, 10, 0)
    bench.results([trial])
    bench.results([trial])
    assert len(disc.learned) == 1
    disc.made_of = "another disc"
    assert bench.stored(trial) is None
    assert dataclasses.replace(bench, keep=frozenset(["disc"])).stored(trial) is not None


def test_table__difference_is_paired_and_seeds_are_averaged() -> None:
    photographs = [
        Photograph(Example(_grey(), _grey()[..., 0], f"patient {i}", "I-II"), f"{i}", "NEV", "test")
        for i in range(12)
    ]
    base = np.linspace(0.2, 0.9, 12)
    where = Source.PAD_HAND, Source.PAD300, 30
    measured = {
        Setup(*where, "small", "first pass"): Measured(np.stack([base, base]), photographs),
        Setup(*where, "lite0", "first pass"): Measured(np.stack([base, base + 0.1]), photographs),
    }
    lines = {cells[3]: cells for cells in table(measured, "small, first pass")}
    gain = lines["lite0, first pass"]
    assert gain[:3] == ("pad_hand", "pad300", "30")
    assert gain[6] == "+0.050 [+0.050, +0.050]"  # the same for each photograph
    assert gain[5] == "0.071"  # of two seeds 0.1 apart
    assert gain[7:] == ("12", "12", "2")
    assert lines["small, first pass"][6] == ""


def test_measure__by_source(sources: Path) -> None:
    trial = Trial("small", Source.PAD300, 10, 0)
    bench = Bench(sources)
    scores = {name: 0.5 for name in bench.photographs()}
    found = measure({trial: Result({"first pass": scores})}, bench.photographs())
    assert {setup.tested: of.values.shape for setup, of in found.items()} == {
        Source.PAD300: (1, 24),
        Source.PAD_HAND: (1, 6),
    }


def test_fill_docs__both_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_efficiency, "DOCS", tmp_path)
    names = ("accuracy", "groups_pad300", "groups_pad_hand")
    place = "<!-- table {0} -->\n<!-- end of {0} -->\n"
    (tmp_path / "model.md").write_text("".join(place.format(name) for name in names))
    (tmp_path / "benchmarks.md").write_text(place.format("label_efficiency"))
    photographs = [
        Photograph(Example(_grey(), _grey()[..., 0], f"{i}", "I-II"), f"{i}", "NEV", "test")
        for i in range(10)
    ]
    measured = {
        Setup(target, source, 30, row, "first pass"): Measured(np.full((2, 10), 0.5), photographs)
        for target in Source
        for source in Source
        for row in ("small", "lite0")
    }
    lines = list(table(measured, "small, first pass"))
    label_efficiency.fill_docs(measured, label_efficiency.HEADER, lines, "small, first pass")
    page = (tmp_path / "model.md").read_text()
    assert "lite0" not in page
    assert page.count("| tone | I-II | 10 | 10 | 0.500 [") == 2
    assert (tmp_path / "benchmarks.md").read_text().count("| lite0, first pass |") == 4


def test_patient_folds__every_photograph_once_and_patients_together() -> None:
    photographs = [
        Photograph(Example(_grey(), _grey()[..., 0], f"patient {i // 2}"), f"{i}", "NEV", "learn10")
        for i in range(20)
    ]
    folds = patient_folds(photographs)
    assert sorted(i for fold in folds for i in fold) == list(range(20))
    assert all((i ^ 1) in fold for fold in folds for i in fold)


def test_bank__samples_and_predicts_as_without(tmp_path: Path) -> None:
    tiny = DiffusionUNet.random(TINY, seed=1)
    examples = [Example(*spot(seed)) for seed in range(3)]
    prepared = [prepare_example(e, tiny.image_size) for e in examples]
    sampling = Sampling(views=1, count=64, balance=0.5, seed=3)
    spec = QUICK.features
    expected = sample(prepared, tiny, spec, sampling)
    bank = ActivationBank(tmp_path / "bank")
    bank.keep(examples, tiny.image_size)
    for _ in range(2):  # computed, then read
        found = bank.sampler(prepared, tiny, spec, sampling)
        assert found.activations.allclose(expected.activations, atol=2e-3)
        assert found.labels.equal(expected.labels)
        assert found.image.equal(expected.image)
    images = prepared[0].image[None]
    direct = tiny.activations(images, spec.timestep, spec.blocks)
    for stored in (bank.extract(tiny, images, spec), bank.extract(tiny, images, spec)):
        for block, activation in zip(spec.blocks, stored, strict=True):
            assert activation.allclose(direct[block], atol=2e-2)


def test_rows__names_of_readings_are_those_of_the_table() -> None:
    assert label_efficiency._arguments([]).against == f"small, {rows.REPLACE}"
    assert rows.REPLACE in rows.ROWS["small"].readings


def _grey() -> NDArray[np.uint8]:
    return np.full((4, 4, 3), SKIN, np.uint8)


@pytest.mark.training
def test_read__as_the_probes_predict(tmp_path: Path) -> None:
    tiny = DiffusionUNet.random(TINY, seed=1)
    settings = dataclasses.replace(QUICK, refined_class="lesion")
    probes = train_probes([Example(*spot(s)) for s in range(6)], tiny, settings, rows.CLASSES)
    bank = ActivationBank(tmp_path)
    photograph, _ = spot(9, (50, 60))
    found = rows.read(probes, tiny, photograph, bank, [rows.REPLACE, rows.MEAN, rows.OFF])
    for name, reading in found.items():
        probes.decision = rows.DECISIONS[name]
        predicted = probes.predict(tiny, [photograph], bank)[0]
        assert (reading.mask == predicted.mask).all()
        assert reading.expected == pytest.approx(predicted.expected_iou[LESION])
    assert len({reading.mask.tobytes() for reading in found.values()}) == 3
