"""Published rows: whole, beside ours where they match, apart where they do not."""

from __future__ import annotations

import dataclasses

import pytest

from policy.openvla.config import load_config
from policy.registry import resolve_policy
from sim.analysis.cells import cell_rows
from sim.analysis.context import Ours, context, matched, times
from sim.analysis.reference import beside, family_of, read_reference, why_none
from sim.analysis.runs import read_run
from sim.analysis.study import put_together
from tests.sim.analysis.makers import column, write_run

PUBLISHED = read_reference()


def rows_of(tmp_path, suite, policy="p"):
    records = column([True] * 20, render_profile="lowpoly")
    records += column([True] * 20, "fastv", 0.25)
    folder = write_run(tmp_path / "a", records, suite=suite, policy=policy)
    (study,) = put_together([read_run(folder)])
    return cell_rows(study, None)


@pytest.fixture(scope="module")
def mini_libero():
    config = load_config(resolve_policy("mini-libero"))
    return Ours("libero_object", "mini-libero", config, "Abacus", "lowpoly, 96 px")


def test_published_rows_are_whole_and_marked():
    rows = PUBLISHED.rows
    assert len(rows) > 90
    assert {row.kind for row in rows} == {"claim", "reproduction", "audit"}
    for row in rows:
        assert row.source
        assert row.read_in
        assert row.success is None or 0 <= row.success <= 1.1
        assert row.keep is None or 0 <= row.keep <= 1
    ours = [r for r in rows if r.suite == "libero_spatial" and r.method == "vla_pruner"]
    eighth = {r.kind: r.success for r in ours if r.policy == "openvla" and r.keep == 0.125}
    assert eighth["claim"] == 0.802
    assert eighth["reproduction"] < 0.8


def test_the_ablation_and_the_oracle_are_there():
    told = {(r.configuration or "", r.keep): r for r in PUBLISHED.rows}
    for words, quarter, eighth in (
        ("ablation: prefill score alone", 0.67, 0.55),
        ("ablation: action score alone", 0.63, 0.48),
        ("ablation: weighted fusion of the two scores", 0.65, 0.52),
        ("ablation: the full method", 0.75, 0.68),
    ):
        assert (told[words, 0.25].success, told[words, 0.125].success) == (quarter, eighth)
    assert {r.cut: r.success for r in PUBLISHED.rows if r.cut} == {3: 0.7453, 2: 0.5848}
    (oracle,) = [r for r in PUBLISHED.rows if (r.policy, r.method) == ("openvla_oft", "oracle")]
    assert (oracle.success_range, oracle.keep) == ((0.95, 0.98), 1 / 256)


def test_published_rows_stand_beside_ours_where_the_setup_matches(tmp_path):
    rows = rows_of(tmp_path, "libero_spatial")
    found = beside(PUBLISHED.rows, rows, "openvla")
    assert {one.row.method for one in found} == {"dense", "fastv"}
    assert all(abs(one.row.keep - one.cell["keep"]) < 0.005 for one in found)
    ours = Ours("libero_spatial", "p", None, "Abacus", "lowpoly")
    words = " ".join(matched(PUBLISHED, found, ours)[0].differences)
    for part in ("ours p", "Abacus", "lowpoly", "OpenVLA 7B", "ours 20", "third-party notes"):
        assert part in words
    assert beside(PUBLISHED.rows, rows, None) == []
    tabletop = [{**row, "suite": "tabletop"} for row in rows]
    assert beside(PUBLISHED.rows, tabletop, "openvla") == []
    assert "suite tabletop" in why_none(PUBLISHED.rows, "tabletop", "openvla")
    assert "none is of openvla_oft" in why_none(PUBLISHED.rows, "libero_object", "openvla_oft")


def test_families_are_told_by_how_they_decode():
    config = load_config(resolve_policy("mini"))
    assert family_of(config) == "openvla_oft"
    assert family_of(dataclasses.replace(config, decoding="autoregressive", head="discrete")) == (
        "openvla"
    )


def test_rows_that_do_not_match_are_a_context_with_their_differences(tmp_path, mini_libero):
    """No published row can match the shipped LIBERO policy; none may vanish for that."""
    rows = rows_of(tmp_path, "libero_object", "mini-libero")
    family = family_of(mini_libero.config)
    assert beside(PUBLISHED.rows, rows, family) == []
    found = context(PUBLISHED, rows, family, mini_libero)
    wanted = [r for r in PUBLISHED.rows if r.suite in ("libero_object", "libero_average")]
    assert len(found) == len(wanted) > 20
    first, second = found[:2]  # what we measured, too, comes first
    assert (str(first.row), str(second.row)) == ("dense", "fastv @ 0.25")
    assert second.cell["method"] == "fastv"
    assert second.differences[:5] == (
        "policy: theirs OpenVLA 7B, ours mini-libero",
        "views: theirs 1 of 256 tokens, ours 2 of 144 tokens",
        "cut layer: theirs behind 3 of 32 layers, ours behind 2 of 6 layers",
        "drawn: theirs by the benchmark's own rendering and assets, ours lowpoly, 96 px",
        "demonstrations: theirs the benchmark's, by people, ours a scripted expert's, made by "
        "simulation",
    )
    average = next(one for one in found if one.row.suite == "libero_average")
    assert average.cell is None  # one suite of ours is no average
    assert any(said.startswith("suite: theirs the average of four") for said in average.differences)


def test_a_matched_row_is_no_context(tmp_path):
    rows = rows_of(tmp_path, "libero_spatial")
    ours = Ours("libero_spatial", "p", None, "Abacus", "")
    beside_ours = {id(one.row) for one in beside(PUBLISHED.rows, rows, "openvla")}
    apart = {id(one.row) for one in context(PUBLISHED, rows, "openvla", ours)}
    assert beside_ours
    assert not beside_ours & apart


def test_times_of_others_are_shown_whatever_the_suite(tmp_path, mini_libero):
    found = times(PUBLISHED, rows_of(tmp_path, "tabletop"), mini_libero._replace(suite="tabletop"))
    audits = [r for r in PUBLISHED.rows if r.suite == "latency"]
    assert {id(r) for r in audits} <= {id(one.row) for one in found}
    assert {one.row.method for one in found if one.row.kind == "claim"} == {"dense", "fastv"}
    claims = [str(one.row) for one in found if one.row.kind == "claim"]
    assert len(claims) == len(set(claims))  # four suites tell one time
    assert not any("demonstrations" in said for one in found for said in one.differences)
