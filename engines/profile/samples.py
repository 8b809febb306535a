"""Samples on disk, one JSON object per line: `samples.jsonl` of a profile folder."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from engines.profile.measure import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILE = "samples.jsonl"
_DIGITS = 4


class SamplesError(ValueError):
    """A file of samples that cannot be used: says which line and why."""


def to_lines(samples: Iterable[Sample]) -> str:
    """The content of `samples.jsonl`."""
    return "".join(json.dumps(_rounded(asdict(sample))) + "\n" for sample in samples)


def read_samples(folder: Path) -> list[Sample]:
    """The samples of a profile folder.

    Raises:
        SamplesError: when the file is missing, or a line is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise SamplesError(f"{path} is missing: give a folder that `leanvla profile` has written")
    known = {field.name for field in fields(Sample)}
    samples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            read = json.loads(line)
            spans = tuple((str(n), float(a), float(b)) for n, a, b in read.pop("spans", []))
            samples.append(Sample(**{k: v for k, v in read.items() if k in known}, spans=spans))
            _ = samples[-1].query_ms + samples[-1].cpu_ms
        except (json.JSONDecodeError, TypeError, ValueError, AttributeError) as error:
            raise SamplesError(
                f"{path}:{number} is damaged ({error}): measure again into a new folder"
            ) from None
    return samples


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
