"""What `leanvla report` computes and leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanvla.report.study import document
from leanvla.report.study_latex import latex_comparisons, latex_table
from leanvla.report.study_tables import TABLES, comparison_rows, csv_text, write_parquet
from leanvla.run_folder import to_plain, write_json, write_text
from sim.analysis import cells, context, reference
from sim.analysis.recall import recalls
from sim.analysis.setups import setup_differences
from sim.analysis.study import put_together
from sim.rollout.types import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from leanvla.report.study_truth import Exhibit
    from policy.openvla.config import OpenVLAConfig
    from sim.analysis.pairs import Comparison
    from sim.analysis.runs import RunFolder
    from sim.analysis.study import Study

SCHEMA = "leanvla.report/1"
TABLE_FILES = {
    *(f"{name}.csv" for name in TABLES),
    *("cells.tex", "comparisons.csv", "comparisons.tex"),
}
_FIGURES = (
    *("success", "success_range", "relative", "speedup", "macs_t", "latency_ms"),
    *("dense_latency_ms", "prefill_ms", "decode_ms", "filter_ms"),
)
_MACS = (
    "MACs of a query are counted from the lengths it reported: vision, decoder, head; the mean of "
    "all queries, warm-up included. Choosing the tokens is not counted."
)


def build(
    studies: Sequence[Study],
    comparisons: Sequence[Comparison],
    compared: tuple[RunFolder, RunFolder] | None = None,
) -> dict[str, Any]:
    """The content of `metrics.json`, plain values only.

    Args:
        studies: what has a table of its own.
        comparisons: of one folder with another.
        compared: these two folders.
    """
    return to_plain(
        {
            "schema": SCHEMA,
            "studies": [_study(study) for study in studies],
            "comparisons": [cells.comparison_entry(one) for one in comparisons],
            "compared": compared and _compared(*compared),
        }
    )


def write(
    out: Path,
    content: dict[str, Any],
    studies: Sequence[Study],
    exhibits: Sequence[Exhibit],
    *,
    parquet: bool,
) -> None:
    """Write the files of a report, each whole or not at all; those of an earlier one go."""
    write_json(out / "metrics.json", content)
    write_text(out / "report.html", document(content, exhibits))
    tables = _tables(content)
    for name, words in tables.items():
        write_text(out / name, words)
    for name in TABLE_FILES - set(tables):
        (out / name).unlink(missing_ok=True)
    if not studies:
        (out / "episodes.parquet").unlink(missing_ok=True)
    elif parquet:
        episodes = [
            ({"suite": study.setup.suite, "policy": study.setup.policy}, record)
            for study in studies
            for cell in study.cells
            for record in study.of(cell)
        ]
        write_parquet(out / "episodes.parquet", episodes)


def _tables(content: dict[str, Any]) -> dict[str, str]:
    """The files of figures by name: those of studies, those of a comparison, or both."""
    found = {}
    studies, comparisons = content["studies"], content["comparisons"]
    if studies:
        for name, (columns, rows) in TABLES.items():
            found[f"{name}.csv"] = csv_text(columns, [row for one in studies for row in rows(one)])
        found["cells.tex"] = "\n".join(map(latex_table, studies))
    if content["compared"]:
        paired = comparison_rows(comparisons, content["compared"])
        found["comparisons.csv"] = csv_text(list(paired[0]), paired)
        found["comparisons.tex"] = latex_comparisons(comparisons, content["compared"])
    return found


def architecture(policy: str) -> OpenVLAConfig | None:
    """The policy's architecture from its folder; None when there is none to read."""
    from policy.openvla.config import load_config
    from policy.openvla.errors import CheckpointError, PolicyNameError
    from policy.registry import describing_files, resolve_policy

    try:
        return load_config(describing_files(resolve_policy(policy)))
    except (PolicyNameError, CheckpointError, OSError):
        return None


def _study(study: Study) -> dict[str, Any]:
    suite, policy, rest = study.setup
    config = architecture(policy)
    rows = cells.cell_rows(study, config)
    family = reference.family_of(config)
    published = reference.read_reference()
    found = reference.beside(published.rows, rows, family)
    ours = context.Ours(suite, policy, config, _machine(study), _drawn(study))
    return {
        "title": str(study.setup),
        "setup": {
            "suite": suite,
            "policy": policy,
            "settings": " ".join(f"{name}={value}" for name, value in rest),
        },
        "folders": [str(folder.path) for folder in study.folders],
        "notices": study.notices,
        "runs": rows,
        "budgets": {
            method: [one._asdict() for one in budgets]
            for method, budgets in cells.method_budgets(study).items()
        },
        "recall": _recall(study, config),
        "reference": _shown(context.matched(published, found, ours)),
        "reference_context": _shown(context.context(published, rows, family, ours)),
        "reference_times": _shown(context.times(published, rows, ours)),
        "reference_note": "" if found else reference.why_none(published.rows, suite, family),
        "macs_note": _MACS
        if config
        else f"MACs are unknown: the architecture of {policy} cannot be read here.",
        "conditions": _conditions(study),
    }


def _recall(study: Study, config: OpenVLAConfig | None) -> list[dict[str, Any]]:
    views = list(config.views) if config else []
    found = []
    for cell in study.cells:
        for one in recalls(study.of(cell)):
            names = views or [f"view {i}" for i in range(len(one.by_view))]
            entry = {"method": cell.method, "keep": cell.keep, "views": names}
            found.append({**entry, **one._asdict()})
    return found


def _compared(one: RunFolder, other: RunFolder) -> dict[str, Any]:
    """Both sides of a comparison, and in what they differ beside the cells."""
    sides = {}
    for name, folder in (("a", one), ("b", other)):
        (study,) = put_together([folder])
        sides[name] = {
            "folder": str(folder.path),
            "title": str(folder.setup),
            "conditions": _conditions(study),
        }
    differences = [found._asdict() for found in setup_differences(one, other)]
    return {**sides, "same_run": one.path == other.path, "differences": differences}


def _shown(found: Sequence[context.Shown]) -> list[dict[str, Any]]:
    return [
        {
            "published": str(one.row),
            "kind": one.row.kind,
            "source": one.row.source,
            "policy": one.row.policy,
            "suite": one.row.suite,
            **{name: getattr(one.row, name) for name in _FIGURES},
            "cell": one.cell and str(Cell(one.cell["method"], one.cell["keep"])),
            "ours": one.cell and one.cell["success_rate"],
            "differences": one.differences,
        }
        for one in found
    ]


def _drawn(study: Study) -> str:
    """How it was rendered, where that is not the suite's default."""
    profiles = {r.render_profile for c in study.cells for r in study.of(c)} - {"", "default"}
    size = dict(study.setup.rest).get("view_size")
    return ", ".join([*sorted(profiles), *([f"{size} px"] if size else [])])


def _machine(study: Study) -> str:
    found = [str(f.env["cpu_model"]) for f in study.folders if f.env.get("cpu_model")]
    return ", ".join(dict.fromkeys(found)) or "an untold machine"


def _conditions(study: Study) -> dict[str, Any]:
    seeds = sorted({record.seed for cell in study.cells for record in study.of(cell)})
    profiles = {r.render_profile for c in study.cells for r in study.of(c)} - {""}
    first = study.folders[0]
    return {
        "seeds": f"{len(seeds)}, from {seeds[0]} to {seeds[-1]}",
        "settings": ", ".join(f"{name} {value}" for name, value in study.setup.rest) or "defaults",
        "render profile": ", ".join(sorted(profiles)) or None,
        "processor": _machine(study),
        "system": first.env.get("platform"),
        "python": first.env.get("python"),
        "packages": first.env.get("packages"),
        "packages of the suite": (first.env.get("suite") or {}).get("packages"),
        "commit": ", ".join(
            dict.fromkeys(str(folder.env.get("git_commit")) for folder in study.folders)
        ),
    }
