"""`leanvla report` and `leanvla attribute` as a user meets them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil

import pytest
import yaml
from msgspec.structs import replace
from pyarrow import parquet

from leanvla.cli import main
from leanvla.commands.report import parse_side
from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_plan import make_spec
from leanvla.errors import UsageError
from leanvla.report.study import document
from leanvla.report.study_latex import latex
from leanvla.report.study_tables import TABLES, csv_text
from sim.rollout.types import Cell, QueryTruth
from sim.suites import suite_spec
from tests.leanvla.test_report import Balance
from tests.sim.analysis.makers import column, write_run
from tests.sim.twin_fakes import JUMPS

FILES = {
    *("config.yaml", "env.json", "metrics.json", "report.html", "cells.csv", "tasks.csv"),
    *("budgets.csv", "recall.csv", "cells.tex", "episodes.parquet"),
}
PAIRED = {"comparisons.csv", "comparisons.tex"}


def truth(won):
    return [QueryTruth("reach", {"object": [4, 2]}, {"object": [4 if won else 1, 0]})]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    quarter = [i >= 12 for i in range(20)]
    records = column([i != 3 for i in range(20)])
    for keep, wins in ((0.5, [True] * 20), (0.25, quarter)):
        cells = column(wins, "fastv", keep)
        records += [replace(r, truth=truth(r.outcome == "success")) for r in cells]
    return write_run(tmp_path_factory.mktemp("runs") / "a", records)


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    sides = [f"{folder}::fastv@0.25", f"{folder}::dense"]
    assert main(["report", str(folder), "--compare", *sides, "--out", str(out)]) == 0
    return out


def test_a_report_leaves_everything_that_was_promised(report):
    assert {path.name for path in report.iterdir()} == FILES | PAIRED
    page = Balance((report / "report.html").read_text())
    assert page.links == []  # self-contained
    words = " ".join(page.words)
    for part in (
        *("fastv @ 0.25 is worse than dense", "No difference to dense is shown for fastv @ 0.5"),
        *("points lost at", "no published row is about suite tabletop".capitalize()),
        *("GMACs per query", "reach", "correlation", "Abacus"),
    ):
        assert part in words, part


def test_metrics_hold_the_same_figures_as_the_tables(report):
    content = json.loads((report / "metrics.json").read_text())
    (study,) = content["studies"]
    assert content["schema"] == "leanvla.report/1"
    (named,) = content["comparisons"]
    assert named["verdict"] == "worse"
    rows = list(csv.DictReader(io.StringIO((report / "cells.csv").read_text())))
    assert [row["method"] for row in rows] == ["dense", "fastv", "fastv"]
    assert float(rows[2]["difference"]) == study["runs"][2]["comparison"]["paired"]["difference"]
    assert float(rows[0]["query_macs"]) > float(rows[2]["query_macs"]) > 0
    recall = list(csv.DictReader(io.StringIO((report / "recall.csv").read_text())))
    lost = next(row for row in recall if row["keep"] == "0.25" and row["phase"] == "reach")
    assert float(lost["correlation"]) == pytest.approx(1.0)
    episodes = parquet.read_table(report / "episodes.parquet")
    assert episodes.num_rows == 60
    assert {"seed", "outcome", "init_state_hash", "vision_ms", "kept"} <= set(episodes.column_names)
    tex = (report / "cells.tex").read_text()
    assert r"Method & Tokens & $n$ & Success" in tex
    assert r"fastv @ 0.25 & 72/288 & 20 & 40.0 [21.9, 61.3] & $-$55.0 [" in tex
    assert r" & 15.0 & 2.00$\times$ & 530 M & worse \\" in tex
    assert tex.count(r"\\") == 4


def test_an_empty_table_has_its_head(folder, tmp_path):
    """No truth was recorded in dense cells alone, and one cell has no budget curve."""
    alone = write_run(tmp_path / "a", column([True] * 4))
    assert main(["report", str(alone), "--no-parquet", "--out", str(tmp_path / "out")]) == 0
    for name, (columns, _) in TABLES.items():
        lines = (tmp_path / "out" / f"{name}.csv").read_text().splitlines()
        assert lines[0] == ",".join(columns)
        assert len(lines) == (1 if name in ("budgets", "recall") else 2 if name == "cells" else 3)


def test_a_comparison_alone_leaves_its_own_tables(folder, tmp_path, capsys):
    config = {"engine": "torch", "render_profile": "lowpoly"}
    wins = [i >= 12 for i in range(20)]
    other = write_run(
        tmp_path / ("a_folder_with_a_long_name" * 6), column(wins, "fastv", 0.25), **config
    )
    out = tmp_path / "out"
    sides = (f"{folder}::fastv@0.5", f"{other}::fastv@0.25")
    assert main(["report", str(folder), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["report", "--compare", *sides, "--out", str(out)]) == 0
    ever = {"config.yaml", "env.json", "metrics.json", "report.html"}
    assert {path.name for path in out.iterdir()} == ever | PAIRED  # an earlier report's are gone
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == [f"A = {folder}", f"B = {other}"]
    assert all(len(line.rstrip()) <= 80 for line in shown[2:5])
    assert "fastv @ 0.5" in shown[3]
    for part in ("20", "+60.0", "better"):
        assert part in shown[3]
    assert "  engine: not told | torch" in shown
    rows = list(csv.DictReader(io.StringIO((out / "comparisons.csv").read_text())))
    assert [(r["a"], r["b"], r["a_alone"], r["holm_cells"], r["verdict"]) for r in rows] == [
        ("fastv @ 0.5", "fastv @ 0.25", "12", "1", "better")
    ]
    assert "fastv @ 0.5 & fastv @ 0.25 & 20 & +60.0 [" in (out / "comparisons.tex").read_text()
    page = (out / "report.html").read_text()
    assert "<h1>fastv @ 0.5 against fastv @ 0.25: mini on tabletop;" in page
    words = " ".join(Balance(page).words)
    for part in ("How A and B differ", "render_profile", "Conditions of the comparison", "Abacus"):
        assert part in words
    assert "over 1 cell, is below 0.05" in words


def test_two_cells_of_one_run_differ_in_nothing_else(folder, tmp_path, capsys):
    sides = (f"{folder}::fastv@0.25", f"{folder}::fastv@0.5")
    assert main(["report", "--compare", *sides, "--out", str(tmp_path / "out")]) == 0
    assert "Both sides are of the same run" in capsys.readouterr().out


def test_a_word_needs_the_adjusted_test(tmp_path, capsys):
    """The legend says so, over how many cells; an interval alone is told, without a word."""
    records = column([True] * 20) + column([i >= 5 for i in range(20)], "fastv", 0.25)
    records += column([True] * 20, "fastv", 0.5)
    run = write_run(tmp_path / "a", records)
    assert main(["report", str(run), "--no-parquet", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "worse\n" not in shown
    assert "Holm-adjusted over 2 cells, is below 0.05" in shown
    words = " ".join(Balance((tmp_path / "out" / "report.html").read_text()).words)
    assert "The interval alone leaves zero out for fastv @ 0.25" in words
    assert "worse than dense" not in words
    assert "Holm-adjusted over 2 cells" in words


def test_published_rows_that_do_not_match_are_printed_apart(tmp_path):
    records = column([True] * 20) + column([True] * 20, "fastv", 0.25)
    run = write_run(tmp_path / "a", records, suite="libero_object", policy="mini-libero")
    assert main(["report", str(run), "--no-parquet", "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())["studies"][0]
    assert content["reference"] == []
    assert {row["policy"] for row in content["reference_context"]} == {
        *("openvla", "openvla_oft", "pi0")
    }
    words = " ".join(Balance((tmp_path / "out" / "report.html").read_text()).words)
    for part in (
        *("Context, not matched", "69.6%", "issue thread 12", "10.7 – 19.6"),
        "cut layer: theirs behind 3 of 32 layers, ours behind 2 of 6 layers",
    ):
        assert part in words
    assert "a openvla_oft" not in words


def test_a_report_may_be_written_again_but_never_over_a_run(folder, report, capsys):
    assert main(["report", str(folder), "--out", str(report), "--no-parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparisons"] == []
    before = (folder / "config.yaml").read_text()
    assert main(["report", str(folder), "--out", str(folder)]) == 2
    assert (folder / "config.yaml").read_text() == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "nothing to report"),
        (["/nowhere"], "has no episodes.jsonl"),
        (["--compare", "/nowhere::fastv", "/nowhere"], "give METHOD@KEEP"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, args, words):
    assert main(["report", *args, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sides_are_folders_and_cells():
    assert parse_side("runs/a").cell is None
    assert parse_side("runs/a::vla_pruner:hold=zero@0.5").cell == Cell("vla_pruner:hold=zero", 0.5)
    assert parse_side("runs/a::dense").cell == Cell("dense", 1.0)
    for bad in ("a::@0.5", "a::fastv@x", "a::"):
        with pytest.raises(UsageError, match="METHOD@KEEP"):
            parse_side(bad)


def test_nothing_from_outside_becomes_markup(report):
    content = json.loads((report / "metrics.json").read_text())
    study = content["studies"][0]
    study["title"] = study["notices"] = ["<script>"]
    study["title"] = "<script>x</script>"
    for run in study["runs"]:
        run["method"] = "<b>evil"
    assert "<script>x" not in document(content)
    assert "<b>evil" not in document(content)
    assert latex(r"a_b & 5% \x") == r"a\_b \& 5\% \textbackslash{}x"
    assert csv_text(("a", "b"), [{"a": "1,2", "b": None}]) == 'a,b\n"1,2",\n'


def test_truth_is_refused_where_there_is_none(monkeypatch):
    with pytest.raises(UsageError, match="keeps no tokens"):
        make_spec(Rollout(truth=True, policy="expert"))
    silent = dataclasses.replace(suite_spec("robosuite_stack"), roles=())
    monkeypatch.setattr("sim.suites.suite_spec", lambda name, **look: silent)
    with pytest.raises(UsageError, match="does not say what its views show"):
        make_spec(Rollout(truth=True, suite="robosuite_stack"))


@pytest.mark.parametrize("suite", ["robosuite_stack", "robosuite_wipe", "libero_10"])
def test_truth_is_taken_down_on_any_suite(suite):
    assert make_spec(Rollout(truth=True, suite=suite)).truth


def fall(out, suite, *more):
    policy = ("--policy", "tests.sim.twin_fakes:CliffPolicy")
    grid = ("--method", JUMPS, "--keep", "0.25", "--episodes", "2", "--seed", "5")
    how = ("--video", "0", "--workers", "1", *more, "--out", str(out))
    named = f"tests.sim.twin_fakes:{suite}"
    assert main(["rollout", "--suite", named, *policy, *grid, *how]) == 0
    return out


@pytest.fixture(scope="module")
def fallen(tmp_path_factory):
    """A real run in which the pruned policy jumps into the pit."""
    return fall(tmp_path_factory.mktemp("cliff") / "run", "CliffSuite", "--truth")


@pytest.fixture(scope="module")
def one_way(tmp_path_factory):
    """The same on a suite that cannot save a running episode."""
    return fall(tmp_path_factory.mktemp("one_way") / "run", "OneWaySuite")


def test_an_episode_is_attributed_from_its_run_folder(fallen, tmp_path, capsys):
    out = tmp_path / "why"
    args = ("--noise", "0.002", "--out", str(out))
    assert main(["attribute", str(fallen), "--episode", "5", *args]) == 0
    shown = capsys.readouterr().out
    assert "lost seed 5 in steps 6 to 8 of 40, phase reach" in shown
    assert "views were not told apart" in shown
    found = json.loads((out / "metrics.json").read_text())
    assert (found["kind"], found["query"], found["phase"]) == ("no_return", 3, "reach")
    page = Balance((out / "report.html").read_text())
    assert all(link.startswith("data:") for link in page.links)
    assert len(page.links) == 2
    for wrong, words in (
        (("--episode", "77"), "no such episode"),
        (("--trials", "4"), "odd number"),
        (("--cell", JUMPS), "METHOD@KEEP"),
    ):
        assert main(["attribute", str(fallen), *wrong, "--out", str(tmp_path / "no")]) == 2
        assert words in capsys.readouterr().err


def test_what_a_suite_cannot_is_told_before_a_folder_is_made(tmp_path, capsys):
    lost = [*column([True]), *column([False], "fastv", 0.25)]
    run = write_run(tmp_path / "wipe", lost, suite="robosuite_wipe")
    assert main(["attribute", str(run), "--out", str(tmp_path / "why")]) == 2
    said = capsys.readouterr().err
    assert "robosuite_wipe cannot save a running episode" in said
    assert "choose a run of tabletop" in said
    assert not (tmp_path / "why").exists()


def test_an_attempt_that_found_nothing_leaves_its_folder_free(fallen, one_way, tmp_path, capsys):
    args = ("--noise", "0.002", "--out", str(tmp_path))
    assert main(["attribute", str(one_way), *args]) == 2
    assert "fake cannot save a running episode" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.yaml", "env.json", "simulator.log")
    }
    assert main(["attribute", str(fallen), *args]) == 0
    assert main(["attribute", str(fallen), "--episode", "5", *args]) == 2
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.parametrize("run", ["fallen", "one_way"])
def test_a_gallery_shows_failures_and_where_they_diverge(run, request, tmp_path):
    out = tmp_path / "report"
    args = ("--gallery", "1", "--no-parquet", "--out", str(out))
    assert main(["report", str(request.getfixturevalue(run)), *args]) == 0
    page = Balance((out / "report.html").read_text())
    words = " ".join(page.words)
    assert "First diverging decision: step 6" in words
    assert "Dense solves this seed" in words
    assert "did not repeat" not in words
    assert sum(link.startswith("data:video/mp4") for link in page.links) == 1
    assert sum(link.startswith("data:image/png") for link in page.links) == 4
    assert len(list((out / "videos").glob("*.mp4"))) == 1


def changed(run, folder, **config):
    """A copy of a run whose configuration says something else."""
    shutil.copytree(run, folder)
    told = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**told, **config}))
    return folder


def test_a_report_is_whole_when_its_failures_cannot_be_filmed(fallen, tmp_path, capsys):
    run = changed(fallen, tmp_path / "run", suite="tests.sim.fakes:NoSuch")
    for _ in range(2):  # nor does it stand in the way of another try
        out = tmp_path / "report"
        assert main(["report", str(run), "--gallery", "3", "--out", str(out)]) == 3
        shown = capsys.readouterr()
        said = f"the report is written, but {JUMPS} @ 0.25, seed 5 could not be filmed: suite"
        assert said in shown.err
        assert f"{JUMPS} @ 0.25" in shown.out
        assert {path.name for path in out.iterdir()} == FILES
        assert "could not be filmed" in (out / "report.html").read_text()
    (notice,) = json.loads((out / "metrics.json").read_text())["studies"][0]["notices"]
    assert "cannot import 'tests.sim.fakes:NoSuch'" in notice
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert "could not be filmed" not in (out / "report.html").read_text()


def test_a_fault_of_ours_while_filming_keeps_its_traceback_and_the_report(fallen, tmp_path):
    run = changed(fallen, tmp_path / "run", policy="tests.sim.fakes:RaisingPolicy")
    out = tmp_path / "report"
    with pytest.raises(RuntimeError, match="made of cheese"):
        main(["report", str(run), "--gallery", "1", "--no-parquet", "--out", str(out)])
    assert "seed 5 could not be filmed: RuntimeError: weights" in (out / "report.html").read_text()


def test_a_gallery_without_a_loss_says_so(tmp_path, capsys):
    run = write_run(tmp_path / "run", column([True, False]))
    assert main(["report", str(run), "--gallery", "1", "--out", str(tmp_path / "out")]) == 0
    assert "nothing to film" in capsys.readouterr().err
