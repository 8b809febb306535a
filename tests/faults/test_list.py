"""The list of faults in README.md is true: every fault is there, and every test it names exists."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
# Not here: what no room of this repository can meet yet is not claimed.
WANTED = {
    *range(1, 30),
    *range(34, 37),
    *(45, 48),
    *range(50, 57),
    *range(61, 67),
}


def rows() -> list[tuple[str, str]]:
    lines = (HERE / "README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    return [(fault, tests) for fault, tests in cells if fault.startswith("F")]


def numbers(text: str) -> set[int]:
    """`F04 – F06` and `F35, F36` as numbers."""
    found = [int(n) for n in re.findall(r"F(\d\d)", text)]
    if "–" in text:
        first, *_ = found
        spans = re.findall(r"F(\d\d) – F(\d\d)", text)
        return {n for a, b in spans for n in range(int(a), int(b) + 1)} | {first} | set(found)
    return set(found)


def test_every_fault_has_a_row():
    listed = set().union(*(numbers(fault) for fault, _ in rows()))
    assert sorted(WANTED - listed) == []


def test_every_test_that_is_named_exists():
    for fault, named in rows():
        references = re.findall(r"`([\w/]+)(?:::(\w+)…?)?`", named)
        assert references, fault
        for place, test in references:
            path = TESTS / f"{place}.py"
            path = path if path.is_file() else HERE / f"{place}.py"
            assert path.is_file(), f"{fault}: {place}"
            if test:
                assert f"def {test}" in path.read_text(), f"{fault}: {place}::{test}"
