"""What `leanvla rollout` leaves behind: `metrics.json`, `report.html`, videos, one table."""

from __future__ import annotations

import json
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engines.profile.calibrate import product_flop_per_s
from leanvla.commands.rollout_bound import tell_bounds
from leanvla.commands.rollout_engine import annotate
from leanvla.commands.rollout_provenance import surroundings
from leanvla.errors import CHECK_FAILED
from leanvla.report.console import print_table
from leanvla.report.rollout import Picture, write_report
from leanvla.run_folder import write_json
from sim.metrics import check_pruners_ran, summarise
from sim.rollout.runner import choose_overlays, choose_videos, record_episodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leanvla.commands.rollout import Rollout
    from sim.rollout.pool import Pool
    from sim.rollout.runner import Plan
    from sim.rollout.store import EpisodeStore
    from sim.rollout.types import Recording, Source


class Results:
    """Results of one run, written whole or not at all.

    Args:
        config: what was asked for.
        plan: cells and seeds.
        store: the episodes.
        provenance: weights, assets and packages, see `sim.sweep.provenance`.
        policy: tells which cells have an engine, and why others have none.
    """

    def __init__(
        self,
        config: Rollout,
        plan: Plan,
        store: EpisodeStore,
        provenance: Mapping[str, Mapping[str, Any]],
        policy: Source | None = None,
    ) -> None:
        self._config, self._plan, self._store, self._provenance = config, plan, store, provenance
        self._notes = policy.notes if policy else {}
        self._engine_folders = policy.engines if policy else {}
        self._strips: list[Picture] = []
        self._videos: list[Picture] = []

    def on_disk(self) -> bool:
        """Whether an earlier run came to its end and wrote everything that is asked for now."""
        out, rerun = self._config.out, self._config.rerun
        wanted = [out / "metrics.json", out / "report.html", *([rerun] if rerun else [])]
        if not all(path.is_file() for path in wanted):
            return False
        return not json.loads(wanted[0].read_text(encoding="utf-8")).get("notice")

    def film(self, pool: Pool) -> None:
        """Run a few episodes once more with the camera on, and write them.

        Raises:
            VideoError: when PyAV is not installed.
            RerunError: when `--rerun` is asked for and rerun-sdk is not installed.
        """
        from leanvla.report.pictures import film_strips, write_videos

        strips = choose_overlays(self._plan, self._store)
        videos = choose_videos(self._plan, self._store, self._config.video)
        wanted = {(record.cell, record.seed): record for record in (*strips, *videos)}
        if not wanted:
            return
        _say(f"filming {len(wanted)} episode(s)")
        films = {
            (film.record.cell, film.record.seed): film
            for film in record_episodes(self._plan, pool, wanted.values())
        }
        self._check_repeats(list(films.values()))
        filmed = [
            [films[r.cell, r.seed] for r in some if (r.cell, r.seed) in films]
            for some in (strips, videos)
        ]
        self._strips = film_strips(filmed[0])
        if filmed[1]:
            self._videos = write_videos(self._config.out, filmed[1])
        if self._config.rerun is not None:
            from sim.rerun_log import write_rerun

            write_rerun(self._config.rerun, films.values())

    def write(self, notice: str = "") -> None:
        """Write `metrics.json` and `report.html`.

        Args:
            notice: why the run is not whole, in both files; a whole run's pruners must have run.

        Raises:
            IdlePrunerError: when a pruner never ran; nothing is written then.
        """
        metrics = self._metrics(notice)
        if not notice:
            check_pruners_ran(metrics)
        folder = self._config.out
        write_json(folder / "metrics.json", metrics)
        write_report(
            folder / "report.html",
            metrics,
            self._conditions(metrics),
            overlays=self._strips,
            videos=self._videos,
            notice=notice,
        )

    def show(self) -> int:
        """Print the table or JSON; the exit code is 1 when a cell has no judged episode."""
        metrics = self._metrics()
        if self._config.json:
            print(json.dumps(metrics, indent=2))
        else:
            print_table(metrics)
        for run in metrics["runs"]:
            if run["engine_note"]:
                _say(f"{run['method']} @ {run['keep']:g}: {run['engine_note']}")
            if run["errors"]:
                _say(
                    f"{run['method']} @ {run['keep']:g}: {run['errors']} episode(s) were lost to "
                    f"the simulator; see {self._config.out / 'workers.log'}"
                )
        _say(f"report: {self._config.out / 'report.html'}")
        unjudged = any(run["success_rate"] is None for run in metrics["runs"])
        return CHECK_FAILED if unjudged else 0

    def _metrics(self, notice: str = "") -> dict[str, Any]:
        suite, policy = self._config.suite, self._config.policy
        metrics = summarise(self._plan, self._store, suite=suite, policy=policy)
        annotate(metrics["runs"], self._notes)
        tell_bounds(
            metrics["runs"],
            self._store.of,
            self._config,
            self._engine_folders,
            lambda: self._flop_per_s,
        )
        return {
            "schema": metrics["schema"],
            "notice": notice or None,
            "provenance": self._provenance,
            "runs": metrics["runs"],
        }

    @cached_property
    def _flop_per_s(self) -> float:
        """Measured once, so that the file and what is printed agree."""
        return product_flop_per_s()

    def _check_repeats(self, films: list[Recording]) -> None:
        for film in films:
            record = film.record
            measured = self._store.get(record.cell, record.seed)
            if measured and (record.outcome, record.steps) != (measured.outcome, measured.steps):
                _say(
                    f"{record.cell}, seed {record.seed} did not repeat when it was filmed: "
                    f"{measured.outcome} after {measured.steps} steps, now {record.outcome} after "
                    f"{record.steps}; policy or suite is not deterministic here"
                )

    def _conditions(self, metrics: dict[str, Any]) -> dict[str, object]:
        """What a stranger needs to repeat the run."""
        config, machine = self._config, surroundings(self._provenance)
        suite, policy = machine.get("suite", {}), machine.get("policy", {})
        profiles = {run["render_profile"] for run in metrics["runs"]} - {None}
        return {
            "seeds": f"{self._plan.seeds[0]} to {self._plan.seeds[-1]}, the same in every cell",
            "instruction": "swapped for another valid one" if self._plan.swap else "as judged",
            "render profile": ", ".join(sorted(profiles)) or None,
            "steps executed per query": config.execute or "the policy's own choice",
            "method options": ", ".join(config.option) or "defaults",
            "workers": f"{config.workers}, policy on {config.threads} thread(s) each",
            "engine": _engines(metrics),
            "weights": policy.get("weights"),
            "assets": suite.get("assets"),
            "packages of the suite": suite.get("packages"),
            "processor": machine["cpu_model"],
            "cores": machine["cores"],
            "system": machine["platform"],
            "python": machine["python"],
            "packages": machine["packages"],
            "commit": machine["git_commit"],
        }


def _engines(metrics: dict[str, Any]) -> str | None:
    """What ran which cells, and why."""
    told = {
        f"{run['method']} @ {run['keep']:g}: {run['engine']}"
        + (f" ({run['engine_note']})" if run["engine_note"] else "")
        for run in metrics["runs"]
        if run["engine"]
    }
    return "; ".join(sorted(told)) or None


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
