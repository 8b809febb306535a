"""What `leanvla vlm` leaves behind: `metrics.json`, `report.html`, one table."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from leanvla.commands.vlm_metrics import summarise
from leanvla.report.vlm import write_report
from leanvla.report.vlm_console import print_table
from leanvla.run_folder import environment, write_json
from vlm.memory import process_peak_mb

if TYPE_CHECKING:
    from leanvla.commands.vlm import VlmConfig
    from leanvla.report.rollout import Picture
    from vlm.model import DecoderShape, Vlm
    from vlm.runner import Plan
    from vlm.store import AnswerStore


class Results:
    """Results of one run, written whole or not at all."""

    def __init__(
        self, config: VlmConfig, plan: Plan, store: AnswerStore, shape: DecoderShape
    ) -> None:
        self._config, self._plan, self._store, self._shape = config, plan, store, shape
        self._pictures: list[Picture] = []
        self._peak_mb: float | None = None

    def on_disk(self) -> bool:
        """Whether an earlier run came to its end and wrote everything."""
        files = [self._config.out / name for name in ("metrics.json", "report.html")]
        if not all(path.is_file() for path in files):
            return False
        return not json.loads(files[0].read_text(encoding="utf-8")).get("notice")

    def draw(self, vlm: Vlm) -> None:
        """Ask a few questions once more, to draw which tokens lived."""
        from leanvla.report.vlm_pictures import overlays

        _say("drawing kept tokens")
        self._pictures = overlays(vlm, self._plan, self._config.pictures)

    def write(self, notice: str = "") -> None:
        """Write `metrics.json` and `report.html`; a `notice` says why the run is not whole."""
        self._peak_mb = process_peak_mb()
        metrics = self._metrics(notice)
        folder = self._config.out
        write_json(folder / "metrics.json", metrics)
        write_report(
            folder / "report.html", metrics, self._conditions(), self._pictures, notice=notice
        )

    def show(self) -> int:
        """Print the table or JSON of what is on disk."""
        metrics = json.loads((self._config.out / "metrics.json").read_text(encoding="utf-8"))
        if self._config.json:
            print(json.dumps(metrics, indent=2))
        else:
            print_table(metrics)
        if metrics.get("process_peak_memory_mb"):
            _say(f"peak memory of the process: {metrics['process_peak_memory_mb']:.0f} MB")
        _say(f"report: {self._config.out / 'report.html'}")
        return 0

    def _metrics(self, notice: str = "") -> dict[str, Any]:
        metrics = summarise(self._plan, self._store, self._config.model, self._shape)
        head = {"schema": metrics["schema"], "notice": notice or None}
        return head | {"process_peak_memory_mb": self._peak_mb, "runs": metrics["runs"]}

    def _conditions(self) -> dict[str, object]:
        """What a stranger needs to repeat the run."""
        config, machine = self._config, environment()
        asked = {one.task.name: len(one.questions) for one in self._plan.asked}
        return {
            "questions": asked,
            "split": config.split or "the usual one",
            "frames of a video": config.frames,
            "method options": ", ".join(config.option) or "defaults",
            "number format": config.dtype,
            "device": f"{config.device}, {config.threads} thread(s)",
            "peak memory of the process": f"{self._peak_mb:.0f} MB" if self._peak_mb else "unknown",
            "processor": machine["cpu_model"],
            "system": machine["platform"],
            "python": machine["python"],
            "packages": machine["packages"],
            "commit": machine["git_commit"],
        }


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
