"""What was measured of the methods, as sections of `docs/methods.md`.

`docs/methods.json` holds three lists, each filled by `scripts/methods_page.py` from what a verb
wrote: episodes (`leanvla rollout`, `leanvla sweep`), answers (`leanvla vlm`), times (`leanvla
bench-methods`). A cell that was measured anew takes the place of the older one, unless that had
more episodes or questions. After a change of the model its list is emptied by hand.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pruning.kv_select import NAME as KV_SELECT
from pruning.registry import make_method
from sim.statistics import wilson_interval
from vlm.fit import without_history

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Cells = Mapping[Any, Mapping[str, Any]]

KEEPS = (0.25, 0.125, 0.0625)
TASKS = ("scene_qa", "scene_clips", "needle")
DENSE = ("dense", 1.0)
_EMPTY = "An empty cell has not been measured"
_NOTHING = "Not measured yet.\n"


def add_runs(results: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Results with the cells of one run in them, in place of older ones of no more episodes.

    Args:
        results: the content of `docs/methods.json`.
        metrics: the `metrics.json` of `leanvla rollout` or `leanvla vlm`, or what
            `leanvla bench-methods --json` printed.
    """
    schema = str(metrics.get("schema", ""))
    if schema.startswith("leanvla.vlm/"):
        rows = [_answers(run) for run in metrics["runs"] if run["task"] in TASKS]
        return results | {"scenes": _merged(results["scenes"], rows, ("task", "method", "keep"))}
    if schema.startswith("leanvla.bench_methods/"):
        timed = [*metrics["rows"], *(row | {"loop": True} for row in metrics["loops"])]
        rows = [{k: v for k, v in row.items() if k != "best_us"} for row in timed]
        merged = _merged(results["times"], rows, ("method", "tokens"))
        return results | {"times": merged | {"cpu": metrics["env"]["cpu_model"]}}
    rows = [_episodes(run) for run in metrics["runs"]]
    return results | {"tabletop": _merged(results["tabletop"], rows, ("method", "keep"))}


def sections(listed: Sequence[str], results: dict[str, Any]) -> list[str]:
    """Everything measured, one section each.

    Args:
        listed: methods in order, `dense` left out.
        results: the content of `docs/methods.json`.
    """
    return [
        _tabletop(listed, results["tabletop"]),
        _scenes(listed, results["scenes"]),
        _needles(results["scenes"]),
        _times(listed, results["times"]),
    ]


def _merged(
    kept: dict[str, Any], rows: Sequence[dict[str, Any]], key: tuple[str, ...]
) -> dict[str, Any]:
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in (*kept["runs"], *rows):
        place = tuple(row.get(name, 0.0) for name in key)  # a refused one has no budget
        if place not in cells or _weight(row) >= _weight(cells[place]):
            cells[place] = row
    return kept | {"runs": [cells[name] for name in sorted(cells)]}


def _weight(row: Mapping[str, Any]) -> int:
    return row.get("episodes", row.get("questions", 0))


def _episodes(run: Mapping[str, Any]) -> dict[str, Any]:
    cell = {name: run[name] for name in ("method", "keep", "successes")}
    return cell | {"episodes": run["successes"] + run["failures"]}


def _answers(run: Mapping[str, Any]) -> dict[str, Any]:
    cell = {name: run[name] for name in ("task", "method", "keep", "questions", "accuracy")}
    cell["existence"] = run["figures"].get("existence")
    cell["recall"] = (run["retention"] or {}).get("recall")
    return cell | {"lengths": run["lengths"]}


def _tabletop(listed: Sequence[str], measured: dict[str, Any]) -> str:
    cells = {(run["method"], run["keep"]): run for run in measured["runs"]}
    dense = _rate(cells.get(DENSE))
    text = (
        f"Policy `{measured['policy']}`; dense: {dense or 'not measured'}. Successes of episodes, "
        f"the same seeds in every cell. {_EMPTY}; intervals and latency stand in "
        "[results.md](results.md)."
    )
    head = _head("Success on `tabletop`", measured, text)
    return head + _by_keep(listed, cells, KEEPS, _rate)


def _scenes(listed: Sequence[str], measured: dict[str, Any]) -> str:
    mine = [run for run in measured["runs"] if run["task"] == "scene_qa"]
    cells = {(run["method"], run["keep"]): run for run in mine if "refused" not in run}
    refused = {run["method"]: run["refused"] for run in mine if "refused" in run}
    dense = cells.get(DENSE)
    said, asked = "not measured", 0
    if dense:
        existence = f", existence {dense['existence']:.1%}" if dense["existence"] else ""
        asked = dense["questions"]
        said = f"{_right(dense, asked)}, {asked:,} questions{existence}"
    text = (
        f"Model `{measured['model']}`; dense: {said}. Share of right answers to as many questions, "
        "unless a cell says to how many; with it Wilson's 95 % interval in percent, in brackets "
        "the share of patches with what was asked about that live (recall). The questions are the "
        "same in every cell; paired differences, which are narrower, stand in the report of a run. "
        f"Every question is asked once, so that nothing is remembered. {_EMPTY}."
    )
    head = _head("Accuracy on `scene_qa`", measured, text)
    if not cells:
        return head + _NOTHING
    return head + _by_keep(
        listed, cells, KEEPS, lambda run: _right(run, asked), _unremembered, refused
    )


def _unremembered(name: str) -> str:
    """What to say beside a method's name where every question is asked once."""
    if name.partition(":")[0] == KV_SELECT:
        return ""
    note = without_history(name, make_method(name, keep=KEEPS[0]))
    return f" ({note})" if note else ""


def _needles(measured: dict[str, Any]) -> str:
    runs = [r for r in measured["runs"] if r["task"] == "needle" and "refused" not in r]
    text = (
        "The needle probe: one small object in one frame of many. Accuracy against the length of "
        "the context, with 95 % intervals; a second is one frame."
    )
    head = _head("Accuracy against length", {"command": measured["needles"]}, text)
    lengths = {x["seconds"]: x["prompt_tokens"] for run in runs for x in run["lengths"]}
    if not lengths:
        return head + _NOTHING
    heads = [f"{s:g} s, {lengths[s]:,} tokens" for s in sorted(lengths)]
    rows = []
    for run in runs:
        found = {x["seconds"]: _at_length(x) for x in run["lengths"]}
        name = "`dense`" if run["method"] == "dense" else f"`{run['method']}` @ {run['keep']:g}"
        rows.append([name, *(found.get(s, "") for s in sorted(lengths))])
    return head + _grid(["method", *heads], rows)


def _times(listed: Sequence[str], measured: dict[str, Any]) -> str:
    cells = {(row["method"], row["tokens"]): row for row in measured["runs"]}
    counts = sorted({tokens for _, tokens in cells})
    text = (
        "One choice of a quarter of the tokens, width 4096, on one thread"
        f"{' of ' + measured['cpu'] if measured.get('cpu') else ''}: processor time, median, and "
        "its share of the dense prefill of a 7 B decoder on the same thread. Attention rows, "
        "towers and projectors are not in it. `sketch=128` folds the embeddings before they are "
        "compared, which changes the kept set."
    )
    head = _head("Time of a choice", measured, text)
    if not counts:
        return head + _NOTHING
    # zoo_prune and others are timed under a spelling with fields: order by method, then as spelt.
    names = sorted({m for m, _ in cells}, key=lambda m: (_place(listed, m), m))
    loops = {row["method"] for row in measured["runs"] if row.get("loop")}

    def table(title: str, which: Sequence[str]) -> str:
        rows = [[f"`{n}`", *(_took(cells.get((n, count))) for count in counts)] for n in which]
        return _grid([title, *(f"{count:,} tokens" for count in counts)], rows)

    choices = head + table("method", [name for name in names if name not in loops])
    if not loops:
        return choices
    alone = (
        "\nOf which the greedy loop alone, after the product of every token with every other one: "
        "of `divprune`, `todre` and `vla_pruner`; of `mmtok`; of `cdpruner`. The first two stay "
        "below 2 ms up to 768 tokens (tested); a whole choice by them does not, for the product: "
        "n² d multiply-accumulates, halved by symmetry, on one core.\n\n"
    )
    return choices + alone + table("loop", ("max_min", "max_coverage", "dpp_map"))


def _place(listed: Sequence[str], name: str) -> int:
    plain = name.partition(":")[0]
    return listed.index(plain) if plain in listed else -1


def _head(title: str, measured: Mapping[str, Any], text: str) -> str:
    return f"## {title}\n\n    {measured['command']}\n\n{text}\n\n"


def _by_keep(
    listed: Sequence[str],
    cells: Cells,
    keeps: Sequence[float],
    show: Callable[[Mapping[str, Any] | None], str],
    note: Callable[[str], str] = lambda name: "",
    refused: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """One row per method, those with fields below; an empty cell was not measured.

    A `note` stands behind a name, the reason of a refusal in the first cell.
    """
    measured = {method for method, _ in cells}
    rows = []
    for name in [*listed, *sorted((measured | refused.keys()) - {*listed, "dense"})]:
        shown = [show(cells.get((name, keep))) for keep in keeps]
        if name in refused and name not in measured:
            shown[0] = f"refused: {refused[name]}"
        rows.append([f"`{name}`{note(name)}", *shown])
    return _grid(["method", *(f"keep {keep:g}" for keep in keeps)], rows)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def _rate(run: Mapping[str, Any] | None) -> str:
    if run is None or not run["episodes"]:
        return ""
    return f"{run['successes']}/{run['episodes']} = {run['successes'] / run['episodes']:.0%}"


def _right(run: Mapping[str, Any] | None, asked: int) -> str:
    """`82.8% 77–87 (89%)`; how many questions, where it is not the usual number."""
    if run is None:
        return ""
    n = run["questions"]
    low, high = wilson_interval(round(run["accuracy"] * n), n)
    of = "" if n == asked else f" of {n:,}"
    recall = "" if run["recall"] is None else f" ({run['recall']:.0%})"
    return f"{run['accuracy']:.1%}{of} {low * 100:.0f}–{high * 100:.0f}{recall}"


def _at_length(cell: Mapping[str, Any]) -> str:
    n = cell["questions"]
    low, high = wilson_interval(round(cell["accuracy"] * n), n)
    return f"{cell['accuracy']:.0%} {low * 100:.0f}–{high * 100:.0f}"


def _took(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['p50_us'] / 1e3:.2f} ms, {row['share_of_dense_query']:.2%}"
