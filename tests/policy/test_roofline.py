from __future__ import annotations

import json

import pytest

from engines.profile.peaks import (
    UnknownPeakError,
    device_names,
    memory_bytes,
    peak_of,
    reported,
    sources_of,
    table,
)
from engines.profile.roofline import Peak, Stage, bound, bounds, query_ms
from leanvla.cli import main
from policy.openvla.shapes import shape
from policy.openvla.traffic import Cut, query_stages
from tests.policy.roofline import validate

FACTOR = 2.2
"""Measured over predicted; 1.1 to 1.6 on the processor that this was written on."""

NOISE = 0.75
"""A peak that was measured in a slow moment may lie below what the queries then reach."""


@pytest.mark.alone
@pytest.mark.slow
def test_the_roofline_bounds_real_queries_within_a_stated_factor():
    for row in validate():
        print(f"\n{row.name}: {row.predicted_ms:.1f} ms at least, {row.measured_ms:.1f} measured")
        assert NOISE < row.factor < FACTOR, row


def test_the_larger_of_compute_and_memory_decides():
    peak = Peak("d", 1e12, 1e11)
    busy = bound(Stage("busy", 1e9, 1e6, 0), peak)
    idle = bound(Stage("idle", 1e6, 1e9, 1e9), peak)
    assert (busy.ms, busy.limited_by) == (pytest.approx(2.0), "compute")
    assert (idle.ms, idle.limited_by) == (pytest.approx(20.0), "memory")
    found = bounds([Stage("busy", 1e9, 1e6, 0), Stage("none", 0, 0, 0)], peak)
    assert [each.name for each in found] == ["busy"]
    assert query_ms(found) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="positive"):
        Peak("d", 0, 1)


def test_every_row_of_the_table_says_where_it_comes_from():
    for name in device_names():
        row = table()["devices"][name]
        assert all(rate > 0 for rate in row["tera_op_per_s"].values())
        assert memory_bytes(name) >= 8e9
        said = " ".join(source["for"] for source in sources_of(name))
        assert "rates" in said
        assert "bandwidth" in said
        for source in sources_of(name):
            assert source["read"] in ("document", "quoted", "derived")
            assert source["url"].startswith("https://")
            assert source["title"]
            assert source["quote"]
    for row in table()["reported"]:
        assert row["device"] in device_names()
        assert row["url"].startswith("https://")


def test_what_others_reported_is_not_below_the_bound():
    """A measurement faster than its lower bound would mean that the table or the count is wrong."""
    for row in table()["reported"]:
        config = shape(row["shape"])
        kept = round(row["keep"] * config.tokens_per_view)
        peak = peak_of(row["device"], "float16")
        found = {b.name: b.ms for b in bounds(query_stages(config, Cut(3, kept)), peak)}
        assert found["prefill_below"] + found["prefill_above"] < row["phase_ms"]["prefill"]
        assert found["decode"] < row["phase_ms"]["decode"]
        assert sum(found.values()) < row["query_ms"]
    assert reported("rtx4090", "openvla-7b")
    assert reported("h100", "openvla-7b") == []


def test_unknown_devices_and_precisions_list_the_known_ones():
    with pytest.raises(UnknownPeakError, match="did you mean 'orin-agx-64'"):
        peak_of("orin-agx", "float16")
    with pytest.raises(UnknownPeakError, match="no float8 rate for orin-nano: it has float16"):
        peak_of("orin-nano", "float8")


def test_a_prediction_is_marked_as_one_and_shows_where_pruning_cannot_help(tmp_path, capsys):
    args = ["profile", "--shape", "openvla-oft-7b", "--keep", "0.25", "--out", str(tmp_path / "o")]
    assert main([*args, "--predict", "orin-agx-64,orin-nano", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "o" / "metrics.json").read_text())
    agx, nano = result["devices"]
    assert (agx["weights_fit"], nano["weights_fit"]) == (True, False)
    dense, pruned = agx["cells"]
    assert dense["predicted"] is pruned["predicted"] is True
    assert dense["speedup"] == 1.0 < pruned["speedup"] < 3.0
    above = {s["stage"]: s for s in pruned["stages"]}["prefill_above"]
    assert above["limited_by"] == "compute"
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Predicted, not measured" in page
    assert "DS-10662-001" in page


def test_the_table_on_stdout_says_predicted(tmp_path, capsys):
    args = ["profile", "--predict", "rtx4090", "--shape", "openvla-7b", "--out"]
    assert main([*args, str(tmp_path / "o")]) == 0
    out = capsys.readouterr().out
    assert out.count(" predicted ") + out.count("predicted\n") >= 2
    assert "reported by others" in out
    assert "Predicted, not measured" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--predict", "orin"), "no peak rates for 'orin'"),
        (("--predict", "h100", "--dtype", "int4"), "choose one of float32"),
        (("--predict", "h100", "--dtype", "float32"), "no float32 rate for h100"),
        (("--predict", "h100", "--cut", "40"), "cut at 0 to 31"),
        (("--predict", "cpu", "--dtype", "int8"), "not in int8"),
    ],
)
def test_impossible_predictions_are_refused(args, said, tmp_path, capsys):
    out = tmp_path / "o"
    assert main(["profile", "--shape", "openvla-7b", *args, "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_devices_can_be_listed(capsys):
    assert main(["profile", "--predict", "list"]) == 0
    assert capsys.readouterr().out.split() == [*device_names(), "cpu"]


def test_every_shape_makes_a_policy(tmp_path, capsys):
    """Statistics, names and prompt of a shape must satisfy a policy; widths do not matter here."""
    from dataclasses import replace

    from policy.openvla.random_weights import random_network, random_policy
    from policy.openvla.shapes import shape_names
    from pruning.registry import make_method

    for name in shape_names():
        config = shape(name, layers=3)
        text = replace(
            config.text,
            hidden_size=32,
            intermediate_size=32,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
        towers = tuple(replace(t, width=16, depth=2, heads=2, mlp_width=16) for t in config.towers)
        config = replace(config, text=text, towers=towers)
        assert random_policy(random_network(config), config, make_method("dense", keep=1.0))
