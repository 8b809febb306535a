"""`leanvla report`: one or several runs as a table that survives review."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro

from leanvla.commands.arguments import parse_cell
from leanvla.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leanvla.commands.report_gallery import Unfilmed
    from sim.analysis.pairs import Comparison
    from sim.analysis.study import Study
    from sim.rollout.types import Cell


@dataclass(frozen=True)
class Report:
    """Put runs together and say what they show, with intervals.

    Reads folders of `leanvla rollout` and stores of `leanvla sweep`; folders of one set-up become
    one table. Writes
    `metrics.json`, `report.html`, `cells.csv`, `tasks.csv`, `budgets.csv`, `recall.csv`,
    `cells.tex` and `episodes.parquet` into `out`; a comparison adds `comparisons.csv` and
    `comparisons.tex`, and alone writes no others of the tables.

    Attributes:
        folders: run folders, or stores of a sweep.
        compare: two of them, or `FOLDER::METHOD@KEEP`, to be paired seed by seed; refused when they
            are not pairs.
        out: folder of the results.
        gallery: failed pruned episodes to run once more and film, whose dense twin succeeded; needs
            the simulator and the policy. The report is written before them, and again with them.
        parquet: write `episodes.parquet`.
        json: print `metrics.json` instead of the table.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    compare: tuple[str, str] | None = None
    out: Path = Path("runs/report")
    gallery: int = 0
    parquet: bool = True
    json: bool = False


class Side(NamedTuple):
    """One side of a comparison: a run folder, and one of its cells when it is named."""

    folder: Path
    cell: Cell | None


def run(config: Report) -> int:
    """Read, compute, write and print; gives the exit code.

    Raises:
        UsageError: when there is nothing to report, or `out` is something else's folder.
        ResultsError: when a folder cannot be read, or runs cannot be put together or paired.
        EnvironmentFault: when a package is missing.
        GalleryError: when an episode could not be filmed; all the rest is written.
    """
    from leanvla.commands.report_results import build, write
    from leanvla.report.study_console import print_report
    from leanvla.run_folder import open_run_folder
    from sim.analysis.runs import read_run, run_folders
    from sim.analysis.study import put_together

    sides = [parse_side(text) for text in config.compare or ()]
    _check(config)
    asked = dict.fromkeys(path for folder in config.folders for path in run_folders(folder))
    folders = {path: read_run(path) for path in [*asked, *(_single(side) for side in sides)]}
    studies = put_together(folders[path] for path in asked)
    comparisons: list[Comparison] = []
    compared = None
    if sides:
        from sim.analysis.pairs import compare_folders

        compared = folders[_single(sides[0])], folders[_single(sides[1])]
        comparisons = compare_folders(*compared, (sides[0].cell, sides[1].cell))
    content = build(studies, comparisons, compared)
    out = open_run_folder(config.out, config, resume=_ours(config.out), ignore=_FIELDS)
    write(out, content, studies, (), parquet=config.parquet)
    lost = _add_gallery(out, content, studies, config.gallery) if config.gallery else []
    if config.json:
        print(json.dumps(content, indent=2))
    else:
        print_report(content)
    print(f"report: {out / 'report.html'}", file=sys.stderr)
    if lost:
        from leanvla.commands.report_gallery import refuse

        refuse(lost)
    return 0


def parse_side(text: str) -> Side:
    """`FOLDER`, or `FOLDER::METHOD@KEEP`.

    Raises:
        UsageError: when what stands behind the colons is no cell.
    """
    folder, colons, named = text.partition("::")
    return Side(Path(folder), parse_cell(named, "--compare") if colons else None)


def _single(side: Side) -> Path:
    """The one run folder of a side.

    Raises:
        UsageError: for a sweep's store with several runs.
    """
    from sim.analysis.runs import run_folders

    found = run_folders(side.folder)
    if len(found) > 1:
        raise UsageError(
            f"{side.folder} holds {len(found)} runs: compare two of them, e.g. {found[0]}"
        )
    return found[0]


def _add_gallery(
    out: Path, content: dict[str, Any], studies: Sequence[Study], most: int
) -> list[Unfilmed]:
    """Write the report once more with films, and with a notice for each that is not there."""
    from leanvla.commands.report_gallery import film
    from leanvla.commands.report_results import write

    exhibits, lost = film(studies, most, out)
    for one in lost:
        content["studies"][one.study]["notices"].append(one.notice)
    write(out, content, studies, exhibits, parquet=False)
    return lost


_FIELDS = tuple(Report.__dataclass_fields__)


def _ours(out: Path) -> bool:
    """Whether `out` is an earlier report: it is derived from runs, so it may be written anew."""
    return any((out / name).is_file() for name in ("cells.csv", "comparisons.csv"))


def _check(config: Report) -> None:
    if not config.folders and not config.compare:
        raise UsageError("nothing to report: give run folders, or --compare A B")
    if config.gallery < 0:
        raise UsageError(f"--gallery is {config.gallery}: give 0 or more")
    if config.gallery and not config.folders:
        raise UsageError("--gallery films episodes of the run folders: give some")
    if config.gallery and importlib.util.find_spec("av") is None:
        raise EnvironmentFault("videos need PyAV: pip install av, or leave out --gallery")
    if config.parquet and importlib.util.find_spec("pyarrow") is None:
        raise EnvironmentFault(
            "episodes.parquet needs pyarrow: pip install 'leanvla[replay]', or run with "
            "--no-parquet"
        )
