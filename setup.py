"""The part of the metadata that has to be computed: a package index shows README.md without this repository.

Everything else is in setup.cfg.
"""

import re
from pathlib import Path

from setuptools import setup

HOME = "https://github.com/ddiseg/ddiseg"


def long_description() -> str:
    """Return README.md with its relative links made absolute."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?://)", rf"\1{HOME}/raw/main/", text)
    return re.sub(r"(?<!!)(\[[^\]]*\]\()(?!https?://|#)", rf"\1{HOME}/blob/main/", text)


setup(long_description=long_description(), long_description_content_type="text/markdown")
