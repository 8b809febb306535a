"""`leanvla methods`: the list, and all there is to say of one method."""

from __future__ import annotations

import json

import pytest

from leanvla.cli import main
from pruning.registry import METHODS, WRAPPERS


def test_the_list_has_every_method_and_says_what_is_found_elsewhere(capsys) -> None:
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    heads = {line.split()[0].removesuffix("+…") for line in out.splitlines() if line[:1].strip()}
    assert heads >= {*METHODS, *WRAPPERS}
    assert "kv_select:sinks=4:newest=32" in out


def test_a_name_shows_that_method_with_its_docstring(capsys) -> None:
    assert main(["methods", "vla_cache:static=0.9"]) == 0
    out = capsys.readouterr().out
    assert "vla_cache" in out
    assert "fastv" not in out
    assert "Deviations: relevance is the prompt's attention" in " ".join(out.split())
    assert "least cosine of a patch" in " ".join(out.split())
    assert main(["methods", "fastv", "quota", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)["methods"]
    assert [card["name"] for card in cards] == ["fastv", "quota"]


def test_what_is_no_method_has_a_docstring_and_no_card(capsys) -> None:
    assert main(["methods", "kv_select"]) == 0
    assert "least cosine with the query of the last election" in capsys.readouterr().out
    assert main(["methods", "kv_select", "--json"]) == 2
    assert "leave --json out" in capsys.readouterr().err


def test_an_unknown_name_is_answered_with_the_nearest(capsys) -> None:
    assert main(["methods", "fastvv"]) == 2
    assert "did you mean 'fastv'" in capsys.readouterr().err


def test_the_help_of_vlm_says_how_methods_are_spelt(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["vlm", "--help"])
    said = capsys.readouterr().out
    for part in ("quota+divprune", "divprune:sketch=128", "kv_select:sinks=4:newest=32"):
        assert part in said
