"""What `leanvla report` computes and leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanvla.report.study import document
from leanvla.report.study_tables import (
    budget_rows,
    cell_rows,
    csv_text,
    latex_table,
    recall_rows,
    task_rows,
    write_parquet,
)
from leanvla.run_folder import to_plain, write_json, write_text
from sim.analysis import cells, reference
from sim.analysis.recall import recalls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from leanvla.report.study_truth import Exhibit
    from policy.openvla.config import OpenVLAConfig
    from sim.analysis.pairs import Comparison
    from sim.analysis.study import Study

SCHEMA = "leanvla.report/1"
_MACS = (
    "MACs of a query are counted from the lengths it reported: vision, decoder, head; the mean of "
    "all queries, warm-up included. Choosing the tokens is not counted."
)


def build(studies: Sequence[Study], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The content of `metrics.json`, plain values only."""
    return to_plain(
        {
            "schema": SCHEMA,
            "studies": [_study(study) for study in studies],
            "comparisons": [cells.comparison_entry(one) for one in comparisons],
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
    """Write every file of a report, each whole or not at all."""
    write_json(out / "metrics.json", content)
    write_text(out / "report.html", document(content, exhibits))
    for name, rows in (
        ("cells", cell_rows),
        ("tasks", task_rows),
        ("budgets", budget_rows),
        ("recall", recall_rows),
    ):
        found = [row for study in content["studies"] for row in rows(study)]
        write_text(out / f"{name}.csv", csv_text(found))
    write_text(out / "cells.tex", "\n".join(map(latex_table, content["studies"])))
    if parquet:
        episodes = [
            ({"suite": study.setup.suite, "policy": study.setup.policy}, record)
            for study in studies
            for cell in study.cells
            for record in study.of(cell)
        ]
        write_parquet(out / "episodes.parquet", episodes)


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
    machine = _machine(study)
    found = reference.beside(published, rows, family, machine)
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
        "reference": [_beside(one) for one in found],
        "reference_note": "" if found else reference.why_none(published, suite, family),
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


def _beside(one: reference.Beside) -> dict[str, Any]:
    from leanvla.report.rollout import name

    return {
        "cell": name(one.cell),
        "kind": one.row.kind,
        "source": one.row.source,
        "success": one.row.success,
        "ours": one.cell["success_rate"],
        "differences": list(one.differences),
    }


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
