"""Means over seeds with intervals over patients, and the paired difference of two readings.

Arrays: S seeds, T photographs; values are (S, T).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import Sample
from annotation_protocol.intervals import Scale
from benchmarks.photographs import SIZES, Photograph

Values = NDArray[np.float64]

ALL = "all"


@dataclass(frozen=True)
class Measured:
    """The lesion IoU of one reading on the photographs of one source, (S, T)."""

    values: Values
    photographs: Sequence[Photograph]

    @property
    def patients(self) -> list[str]:
        return [p.example.patient for p in self.photographs]

    @property
    def spread(self) -> float:
        """Standard deviation over seeds of the mean; NaN of one seed."""
        if len(self.values) < 2:
            return float("nan")
        return float(self.values.mean(1).std(ddof=1))

    def mean(self) -> str:
        """Return the mean with its interval over patients; each photograph counts with its mean over seeds."""
        return Sample(self.values.mean(0), self.patients).estimate().text(".3f")

    def minus(self, other: Measured) -> str:
        """Return the mean difference on the same photographs, paired, with its interval over patients."""
        gain = self.values.mean(0) - other.values.mean(0)
        return Sample(gain, self.patients, scale=Scale.SIGNED).estimate().text("+.3f")

    def of(self, rows: Sequence[int]) -> Measured:
        """Return some of the photographs."""
        return Measured(self.values[:, list(rows)], [self.photographs[row] for row in rows])

    def sizes(self) -> tuple[str, str]:
        """Return the numbers of photographs and of patients."""
        return str(len(self.photographs)), str(len(set(self.patients)))


def groups(photographs: Sequence[Photograph]) -> dict[str, dict[str, list[int]]]:
    """Return the positions of photographs by tone, by size of the lesion and by diagnosis."""
    by: Mapping[str, list[str]] = {
        "tone": [p.example.tone for p in photographs],
        "lesion": [p.size for p in photographs],
        "diagnosis": [p.diagnosis for p in photographs],
    }
    order = {name: place for place, (_, name) in enumerate(reversed(SIZES))}
    return {
        kind: {
            name: [i for i, of in enumerate(names) if of == name]
            for name in sorted(set(names), key=lambda n: (order.get(n, 0), n))
        }
        for kind, names in by.items()
    }
