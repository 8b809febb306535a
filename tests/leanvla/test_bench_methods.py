"""`leanvla bench-methods`: times of choices, and what they are a share of."""

from __future__ import annotations

import json

import pytest

from leanvla.cli import main
from pruning import bench


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WIDTH", 32)


def test_every_method_is_timed_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-methods", "--tokens", "16,36", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["tokens"] for row in found["rows"]} == {16, 36}
    assert {row["method"] for row in found["rows"]} == set(bench.names())
    assert {row["method"] for row in found["loops"]} == {"max_min", "max_coverage", "dpp_map"}
    for row in (*found["rows"], *found["loops"]):
        assert 0 < row["best_us"] <= row["p50_us"]
        assert row["share_of_dense_query"] > 0


def test_the_table_has_one_row_per_method(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench-methods", "--tokens", "16", "--method", "divprune,divprune:sketch=8"]
    assert main(words) == 0
    head, *rows = capsys.readouterr().out.strip().splitlines()
    assert "16 ms" in head
    assert [row.split()[0] for row in rows] == ["divprune", "divprune:sketch=8"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tokens", "4"], "whole numbers from 8 on"),
        (["--tokens", "many"], "whole numbers from 8 on"),
        (["--rounds", "0"], "give 1 or more"),
        (["--method", "nonsense"], "nonsense"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench-methods", *words]) == 2
    assert sentence in capsys.readouterr().err
