"""Write docs/methods.md, after adding the cells of rollouts to docs/methods.json.

python scripts/methods_page.py [runs/x/metrics.json ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from leanvla.report.methods_page import add_runs, page  # noqa: E402


def main(paths: list[str]) -> None:
    """Merge and write."""
    source = ROOT / "docs" / "methods.json"
    results = json.loads(source.read_text(encoding="utf-8"))
    for path in paths:
        results = add_runs(results, json.loads(Path(path).read_text(encoding="utf-8")))
    runs = ",\n  ".join(json.dumps(run) for run in results.pop("runs"))
    head = json.dumps(results, indent=1).removesuffix("\n}")
    source.write_text(f'{head},\n "runs": [\n  {runs}\n ]\n}}\n', encoding="utf-8")
    results = json.loads(source.read_text(encoding="utf-8"))
    (ROOT / "docs" / "methods.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
