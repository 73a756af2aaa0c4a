"""Options that list things with commas between."""

from __future__ import annotations

import csv

from ddiseg.errors import InputError


def split_option(option: str, text: str) -> list[str]:
    """Split what was given to `option` at its commas; a part with a comma stands in quotes.

    Raises:
        InputError: text of several lines, or longer than CSV allows.
    """
    text = text.strip()
    if "\n" in text or "\r" in text:
        raise InputError(f"{option} has several lines: write it in one line, with commas between")
    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"{option} can't be read: {error}") from error
