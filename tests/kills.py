"""`python -m tests.kills --kills 40`: kills at random moments of import and prelabel on a Ray cluster.

It prints a line a kill, and the sum. See tests/ddiseg/compute/test_killed_at_random.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.update(DDISEG_KILLS=str(given.kills), DDISEG_KILLS_SEED=str(given.seed))
    test = Path(__file__).parent / "ddiseg" / "compute" / "test_killed_at_random.py"
    return pytest.main(["-q", "-p", "no:cacheprovider", str(test)])


if __name__ == "__main__":
    sys.exit(main())
