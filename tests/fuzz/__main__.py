"""`python -m tests.fuzz --minutes 10`: odd files for every importer until the time is over."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import click
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS, Files, check, make_workspace

#: Inputs of one importer in a row.
ROUND = 100


class _Over(BaseException):
    """The time is over."""


def main() -> int:
    """Run all importers in turn; return 1 where an input broke one of the rules."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", choices=[[], *TARGETS], help="importers; all without any"
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given_options = parser.parse_args()
    inputs = dict.fromkeys(given_options.targets or TARGETS, 0)
    broken: dict[str, str] = {}
    end = time.monotonic() + 60 * given_options.minutes
    with tempfile.TemporaryDirectory() as folder:
        pristine, number = make_workspace(Path(folder)), given_options.seed
        while len(broken) < len(inputs) and time.monotonic() < end:
            for name in [name for name in inputs if name not in broken]:
                fault = _round(name, pristine, Path(folder) / "scratch", number, end, inputs)
                if fault is not None:
                    broken[name] = fault
            number += 1
    for name, count in inputs.items():
        click.echo(f"{name}: {count:,} inputs: {broken.get(name, 'nothing broken')}")
    click.echo(f"{sum(inputs.values()):,} inputs, {len(broken)} of {len(inputs)} importers broken")
    return 1 if broken else 0


def _round(
    name: str, pristine: Path, scratch: Path, number: int, end: float, inputs: dict[str, int]
) -> str | None:
    """Run one importer on ROUND inputs; return what went wrong with the smallest input that does it."""

    @seed(number)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(TARGETS[name].files)
    def one(files: Files) -> None:
        if time.monotonic() > end:
            raise _Over
        inputs[name] += 1
        check(TARGETS[name], files, pristine, scratch)

    try:
        one()
    except _Over:
        return None
    except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
        notes = "\n".join(getattr(error, "__notes__", []))
        return f"BROKEN: {type(error).__name__}: {error}\n{notes}"
    return None


if __name__ == "__main__":
    sys.exit(main())
