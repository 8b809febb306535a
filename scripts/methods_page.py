"""Write docs/methods.md, after adding what was measured to docs/methods.json.

python scripts/methods_page.py [FILE ...]

FILE is the metrics.json of `leanvla rollout` or `leanvla vlm`, or the output of
`leanvla bench-methods --json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from leanvla.report.methods_page import page  # noqa: E402
from leanvla.report.methods_results import add_runs  # noqa: E402


def main(paths: list[str]) -> None:
    """Merge and write."""
    source = ROOT / "docs" / "methods.json"
    results = json.loads(source.read_text(encoding="utf-8"))
    for path in paths:
        results = add_runs(results, json.loads(Path(path).read_text(encoding="utf-8")))
    source.write_text(_one_line_per_cell(results), encoding="utf-8")
    results = json.loads(source.read_text(encoding="utf-8"))
    (ROOT / "docs" / "methods.md").write_text(page(results), encoding="utf-8")


def _one_line_per_cell(results: dict) -> str:
    """JSON whose history can be read line by line."""
    rows = {}
    for name, part in results.items():
        if isinstance(part, dict):
            rows[f"@{name}"] = part["runs"]
            results = results | {name: part | {"runs": f"@{name}"}}
    text = json.dumps(results, indent=1)
    for mark, runs in rows.items():
        lines = "".join(f"\n   {json.dumps(run)}," for run in runs).removesuffix(",")
        text = text.replace(json.dumps(mark), f"[{lines}{chr(10) + '  ' if runs else ''}]")
    return text + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
