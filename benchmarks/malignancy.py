"""ROC-AUC of malignancy by recipe, beside colour alone and clinical answers alone: `python -m benchmarks.malignancy`.

On pad300's photographs, malignant where the diagnosis is BCC, SCC or MEL, with the answers of PAD-UFES-20's
table (PAD_TABLE names it). By default the photographs outside the test part are cross-validated over
patients, once those of the learn parts alone and once with the pool. `--read-test WHY` learns from them and
reads the test part, and logs that.

Photographs of unknown tone are all benign here, which lifts the figure of all: known tone stands apart.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol.estimates import Estimate
from benchmarks import reads, tables
from benchmarks.photographs import Photograph, Source, learn_part, missing, pool, tested_part
from fedd import pipeline
from fedd.backbone import LocalBackbone
from fedd.malignancy.classifier import Examples, default_settings, train_classifier
from fedd.malignancy.covariates import Answers, ClinicalTable, read_clinical
from fedd.malignancy.discrimination import discrimination_by_tone, roc_auc
from fedd.malignancy.linear import (
    LinearExamples,
    Reader,
    grouped_folds,
    linear_settings,
    train_linear,
)
from fedd.validation import stratified_validation
from fedd.weights.files import load_backbone

MALIGNANT = frozenset({"BCC", "SCC", "MEL"})

#: Clinical answers: what a person knows of the spot, where it is, and how old the patient is.
ANSWERS = ("age", "region", "itch", "grew", "hurt", "changed", "bleed", "elevation")

BACKBONES = ("small", "small+lite0")

SEEDS = range(5)

TABLE = Path(
    os.environ.get("PAD_TABLE", Source.PAD300.folder.parent / "csv" / "pad_ufes_20_metadata.csv")
)

Floats = NDArray[np.float64]

#: Returns the probabilities of the tested photographs by models of the learned ones, from a seed.
Predict = Callable[["Set", "Set", int], Floats]


@dataclass(frozen=True)
class Set:
    """Photographs with what is read of them, by name of the reading: (N, F) each."""

    photographs: Sequence[Photograph]
    features: Mapping[str, NDArray[np.float32]]
    answers: Sequence[Answers]

    def of(self, rows: NDArray[np.bool_]) -> Set:
        chosen = np.flatnonzero(rows)
        return Set(
            [self.photographs[row] for row in chosen],
            {name: found[chosen] for name, found in self.features.items()},
            [self.answers[row] for row in chosen],
        )

    @cached_property
    def malignant(self) -> NDArray[np.bool_]:
        return np.array([p.diagnosis in MALIGNANT for p in self.photographs])

    @property
    def patients(self) -> list[str]:
        return [p.example.patient for p in self.photographs]

    @property
    def tones(self) -> list[str]:
        return [p.example.tone or "unknown" for p in self.photographs]

    def linear(self, backbone: str) -> LinearExamples:
        return LinearExamples(self.features[f"ours {backbone}"], self.malignant, self.answers)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.malignancy", description=__doc__)
    reads.add_option(parser)
    read = reads.asked(chosen := parser.parse_args(), "malignancy")
    del chosen
    if why := missing([Source.PAD300]) or ("" if TABLE.is_file() else f"skipped: no table {TABLE}"):
        print(why)
        return
    torch.set_num_threads(1)
    table = read_clinical(TABLE)
    nets = {name: load_backbone(name) for name in BACKBONES}
    outside = [*learn_part(Source.PAD300), *pool(Source.PAD300)]
    learned = _set(outside, nets, table)
    in_parts = np.array([p.part != "pool" for p in outside])
    sets = {"90": learned.of(in_parts), str(len(outside)): learned}
    if read is None:
        lines = _lines(sets, _cross_validate)
    else:
        test = _set(tested_part(Source.PAD300, read), nets, table)
        lines = _lines(sets, partial(_test, test))
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    for line in lines:
        print(tables.line(line, widths))
    if read is not None:
        read.log(
            "; ".join(
                f"{line[0]}, learned from {line[1]}: {line[3]}, known tone {line[4]}"
                for line in lines[1:]
            )
        )


def rows(nets: Sequence[str] = BACKBONES) -> dict[str, Predict]:
    """Return what is compared, by name."""
    found: dict[str, Predict] = {
        "colour alone": partial(_linear, nets[0], (), Reader.COLOUR),
        "answers alone": partial(_linear, nets[0], ANSWERS, Reader.COVARIATES),
        "paper, small": _paper,
    }
    for name in nets:
        found[f"ours, {name}"] = partial(_linear, name, (), Reader.ALL)
    found[f"ours, {nets[-1]}, answers"] = partial(_linear, nets[-1], ANSWERS, Reader.ALL)
    return found


def _lines(
    sets: Mapping[str, Set], measure: Callable[[Predict, Set, int], tuple[Set, Floats]]
) -> list[tuple[str, ...]]:
    """Return the table: a line for each row and each number of photographs learned from."""
    lines = [("row", "learned from", "mean of 5 seeds", "all", "known tone", "by tone")]
    for count, learned in sets.items():
        for name, predict in rows().items():
            by_seed = [measure(predict, learned, seed) for seed in SEEDS]
            tested, first = by_seed[0]
            mean = np.mean([roc_auc(of.malignant, read) for of, read in by_seed])
            found = discrimination_by_tone(
                tested.malignant, first, tested.patients, tested.tones, 0.5
            )
            auc = {tone: of.roc_auc for tone, of in found.items()}
            known = auc.pop("known tone", auc["all"])
            every = auc.pop("all")
            tones = "; ".join(
                f"{tone} {_text(of)}" for tone, of in auc.items() if of.value is not None
            )
            lines.append((name, count, f"{mean:.3f}", _text(every), _text(known), tones))
    return lines


def _text(estimate: Estimate) -> str:
    return f"{estimate.text('.3f')} n={estimate.n} of {estimate.groups}"


def _cross_validate(predict: Predict, learned: Set, seed: int) -> tuple[Set, Floats]:
    """Return the photographs and their probabilities, each by models that saw none of its patient."""
    fold = grouped_folds(learned.malignant, learned.patients, 5, seed)
    found = np.zeros(len(fold))
    for number in range(int(fold.max()) + 1):
        left_out = fold == number
        found[left_out] = predict(learned.of(~left_out), learned.of(left_out), seed)
    return learned, found


def _test(test: Set, predict: Predict, learned: Set, seed: int) -> tuple[Set, Floats]:
    return test, predict(learned, test, seed)


def _linear(
    backbone: str, covariates: tuple[str, ...], reader: Reader, learned: Set, tested: Set, seed: int
) -> Floats:
    net = load_backbone(backbone)
    settings = replace(linear_settings(net, covariates), seed=seed)
    examples = learned.linear(backbone)
    classifier = train_linear(examples, learned.patients, net, settings).classifier
    of = tested.linear(backbone)
    return classifier.probabilities(of.features, of.answers, reader)


def _paper(learned: Set, tested: Set, seed: int) -> Floats:
    net = load_backbone("small")
    settings = replace(default_settings(net.config, len(learned.photographs)), seed=seed)
    validation = stratified_validation(
        learned.malignant.tolist(), learned.tones, learned.patients, settings.validation, seed
    )
    examples = Examples(torch.from_numpy(learned.features["paper"]), learned.malignant)
    done = train_classifier(examples.part(~validation), examples.part(validation), net, settings)
    return done.classifier.probabilities(torch.from_numpy(tested.features["paper"]))


def _set(
    photographs: Sequence[Photograph], nets: Mapping[str, LocalBackbone], table: ClinicalTable
) -> Set:
    """Return photographs with all readings of them."""
    wanted: dict[str, tuple[LocalBackbone, pipeline.Summary]] = {
        "paper": (nets["small"], default_settings(nets["small"].config, len(photographs)))
    }
    for name, net in nets.items():
        wanted[f"ours {name}"] = net, linear_settings(net)
    features = {}
    for name, (net, settings) in wanted.items():
        sources = [
            pipeline.Source(p.name, partial(np.asarray, p.example.photograph)) for p in photographs
        ]
        done = pipeline.summaries(net, sources, settings, expected=())
        features[name] = np.stack([each.features for each in done if each.features is not None])
    return Set(photographs, features, table.of([Path(p.name).stem for p in photographs]))


if __name__ == "__main__":
    main()
