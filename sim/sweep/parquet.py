"""All episodes of a store as one table: one row per episode, its address and its run beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sim.rollout.types import EpisodeRecord
from sim.sweep.digests import write_atomically
from sim.sweep.identity import episode_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sim.sweep.store import StoredRun

NAME = "episodes.parquet"
ADDRESS = ("key", "run", "suite", "policy")


def write_parquet(path: Path, runs: Sequence[StoredRun]) -> int:
    """Write the table, whole or not at all; returns its number of rows.

    Columns are `key` (of the episode), `run` (key of the run), `suite`, `policy`, and every field
    of an `EpisodeRecord` under its own name; `truth` is JSON text, or null.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [row for run in runs for row in _rows(run)]
    table = pyarrow.Table.from_pylist(rows, schema=_schema())
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
    return len(rows)


def _rows(run: StoredRun) -> Iterator[dict[str, Any]]:
    file = run.file
    for record in run.episodes():
        address = (episode_key(file.key, record.cell, record.seed), file.key)
        row = dict(zip(ADDRESS, (*address, file.suite, file.policy), strict=True))
        fields = msgspec.structs.asdict(record)
        maps = {name: list(v.items()) for name, v in fields.items() if isinstance(v, dict)}
        truth = msgspec.json.encode(record.truth).decode() if record.truth else None
        yield row | fields | maps | {"truth": truth}


def _schema() -> Any:
    """The table's columns, from the fields of a record, so that none can be forgotten."""
    import pyarrow as pa

    numbers, texts = pa.list_(pa.float64()), ("str", "str | None", "Outcome")
    kinds = {
        **dict.fromkeys(texts, pa.string()),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "list[int]": pa.list_(pa.int64()),
        "list[float]": numbers,
        "dict[str, list[float]]": pa.map_(pa.string(), numbers),
        "list[QueryTruth]": pa.string(),
    }
    names = EpisodeRecord.__annotations__
    own = [(name, kinds[names[name]]) for name in EpisodeRecord.__struct_fields__]
    return pa.schema([*((name, pa.string()) for name in ADDRESS), *own])
