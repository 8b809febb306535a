"""Published annotation files: JSON, JSON lines, tables; what is wrong with one, in one sentence."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlm.errors import MissingDataError, TaskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def need(path: Path, where: str) -> Path:
    """`path`, which must be there.

    Raises:
        MissingDataError: saying what to put where.
    """
    if not path.exists():
        raise MissingDataError(f"{path} is missing: {where}")
    return path


def first_of(folder: Path, names: Sequence[str], where: str) -> Path:
    """The first of several names under which a file is published.

    Raises:
        MissingDataError: when there is none.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise MissingDataError(f"{folder / names[0]} is missing: {where}")


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        TaskError: when it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} is no JSON ({error}): get the file again") from None


def read_lines(path: Path) -> list[Any]:
    """JSON, one value a line.

    Raises:
        TaskError: for a line that is none.
    """
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise TaskError(f"{path} line {number} is no JSON ({error})") from None
    return rows


def read_table(path: Path) -> list[dict[str, str]]:
    """A table with tabs and a head, as MMBench's; cells may hold whole pictures."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Rows of a Parquet file.

    Raises:
        MissingDataError: when pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingDataError(f"{path.name} needs pyarrow: pip install pyarrow") from None
    return parquet.read_table(path).to_pylist()


@contextmanager
def published(path: Path) -> Iterator[None]:
    """Turn a missing field into a sentence that names the file and the field.

    Raises:
        TaskError: when the file is not in the published format.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise TaskError(
            f"{path} is not in the published format: {type(error).__name__} {error}"
        ) from None
