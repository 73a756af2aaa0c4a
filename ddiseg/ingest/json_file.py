"""A JSON file that another tool wrote, read with care."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ddiseg.errors import InputError
from ddiseg.ingest.folder import FoundFile, read_file


def read_json(path: Path) -> Any:
    """What a file holds; raises InputError where it can't be read or is not JSON."""
    if not path.exists():
        raise InputError(f"{path.absolute()} does not exist")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the JSON file in it")
    try:
        data, _ = read_file(FoundFile(path.name, path))
        return json.loads(data)
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except (ValueError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{path} is not JSON ({first}): export it again, and copy it whole"
        ) from error
