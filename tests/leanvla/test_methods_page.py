"""The page of methods is what the methods say of themselves today."""

from __future__ import annotations

import json
import re
from pathlib import Path

from leanvla.report.methods_page import page
from leanvla.report.methods_results import add_runs
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


EMPTY = {
    "tabletop": {"suite": "s", "policy": "p", "command": "c", "runs": [
        {"method": "fastv", "keep": 0.25, "successes": 1, "episodes": 2},
        {"method": "random", "keep": 0.25, "successes": 0, "episodes": 2},
    ]},
    "scenes": {"model": "m", "command": "c", "needles": "n", "runs": []},
    "times": {"command": "c", "runs": []},
}  # fmt: skip


def test_new_runs_take_the_place_of_old_cells() -> None:
    run = {"method": "fastv", "keep": 0.25, "successes": 150, "failures": 50}
    results = add_runs(EMPTY, {"schema": "leanvla.rollout/4", "runs": [run]})
    found = [(r["method"], r["successes"], r["episodes"]) for r in results["tabletop"]["runs"]]
    assert found == [("fastv", 150, 200), ("random", 0, 2)]
    assert "150/200 = 75%" in page(results)
    fewer = {"method": "fastv", "keep": 0.25, "successes": 20, "failures": 0}
    assert add_runs(results, {"schema": "leanvla.rollout/4", "runs": [fewer]}) == results


def _answers(task: str, method: str, keep: float, accuracy: float) -> dict[str, object]:
    lengths = [{"seconds": s, "prompt_tokens": round(270 * s), "questions": 5, "accuracy": accuracy}
               for s in (4.0, 16.0)]  # fmt: skip
    return {
        "task": task, "method": method, "keep": keep, "questions": 2000, "accuracy": accuracy,
        "figures": {"existence": 0.93}, "retention": {"recall": 0.4} if keep < 1 else None,
        "lengths": lengths if task == "needle" else [],
    }  # fmt: skip


def test_answers_become_accuracy_by_budget_and_by_length() -> None:
    runs = [
        _answers("scene_qa", "dense", 1.0, 0.85),
        _answers("scene_qa", "divprune:sketch=64", 0.25, 0.8125),
        _answers("needle", "quota+divprune", 0.25, 0.62),
        _answers("pope", "dense", 1.0, 0.5),
    ]
    text = page(add_runs(EMPTY, {"schema": "leanvla.vlm/1", "runs": runs}))
    assert "dense: 85.0% 83–86, 2,000 questions, existence 93.0%" in text
    assert "| `divprune:sketch=64` | 81.2% 79–83 (40%) |  |  |" in text
    assert "| method | 4 s, 1,080 tokens | 16 s, 4,320 tokens |" in text
    assert "| `quota+divprune` @ 0.25 | 62% 23–88 | 62% 23–88 |" in text
    assert "pope" not in text


def test_a_cell_says_to_how_many_questions_where_they_were_others() -> None:
    runs = [_answers("scene_qa", "dense", 1.0, 0.85), _answers("scene_qa", "fastv", 0.25, 0.8)]
    runs[1]["questions"] = 20
    text = page(add_runs(EMPTY, {"schema": "leanvla.vlm/1", "runs": runs}))
    assert "| `fastv` | 80.0% of 20 58–92 (40%) |  |  |" in text


def test_a_refusal_says_why_until_there_is_a_figure() -> None:
    refused = {"task": "scene_qa", "method": "oracle", "refused": "asks too often"}
    empty = EMPTY | {"scenes": EMPTY["scenes"] | {"runs": [refused]}}
    runs = [_answers("scene_qa", "vla_pruner", 0.25, 0.5)]
    results = add_runs(empty, {"schema": "leanvla.vlm/1", "runs": runs})
    text = page(results)
    assert "| `oracle` | refused: asks too often |  |  |" in text
    assert "| `vla_pruner` (without a history: equals prefill_mean) | 50.0% of" in text
    runs = [_answers("scene_qa", "oracle", 0.25, 0.5)]
    assert "asks too" not in page(add_runs(results, {"schema": "leanvla.vlm/1", "runs": runs}))


def test_the_committed_page_says_which_methods_scene_qa_cannot_have() -> None:
    rows = dict(re.findall(r"^\| `(vla_cache|oracle)` \| (refused: .+?) \|", page(RESULTS), re.M))
    assert set(rows) == {"vla_cache", "oracle"}


def test_times_of_choices_stand_beside_their_share() -> None:
    row = {"method": "divprune", "tokens": 576, "p50_us": 1234.0, "best_us": 1.0,
           "share_of_dense_query": 0.0012}  # fmt: skip
    bench = {"schema": "leanvla.bench_methods/1", "env": {"cpu_model": "CPU"}, "rows": [row],
             "loops": [row | {"method": "max_min", "p50_us": 90.0}]}  # fmt: skip
    text = page(add_runs(EMPTY, bench))
    assert "on one thread of CPU: " in text
    assert "| `divprune` | 1.23 ms, 0.12% |" in text
    assert "| loop | 576 tokens |\n| --- | --- |\n| `max_min` | 0.09 ms, 0.12% |" in text
