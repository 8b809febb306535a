"""The page of methods is what the methods say of themselves today."""

from __future__ import annotations

import json
import re
from pathlib import Path

from leanvla.report.methods_page import add_runs, page
from pruning.base import NEEDS
from pruning.registry import METHODS, WRAPPERS

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS = json.loads((DOCS / "methods.json").read_text(encoding="utf-8"))


def test_the_committed_page_is_current() -> None:
    committed = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert committed == page(RESULTS), "run: python scripts/methods_page.py"


def test_every_method_wrapper_and_need_is_on_the_page() -> None:
    text = page(RESULTS)
    for name in (*METHODS, *WRAPPERS, *NEEDS):
        assert f"`{name}`" in text, name


def test_rows_have_as_many_cells_as_their_head() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", page(RESULTS), re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1


def test_new_runs_take_the_place_of_old_cells() -> None:
    old = {"suite": "s", "policy": "p", "command": "c", "runs": [
        {"method": "fastv", "keep": 0.25, "successes": 1, "episodes": 2},
        {"method": "random", "keep": 0.25, "successes": 0, "episodes": 2},
    ]}  # fmt: skip
    run = {"method": "fastv", "keep": 0.25, "successes": 150, "failures": 50}
    runs = add_runs(old, {"runs": [run]})["runs"]
    found = [(r["method"], r["successes"], r["episodes"]) for r in runs]
    assert found == [("fastv", 150, 200), ("random", 0, 2)]
    assert "150/200 = 75%" in page({**old, "runs": runs})
