from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

from leanvla.commands.methods import Methods, run
from pruning.base import NEEDS, Method, MethodError
from pruning.bench import dense_query_us, measure, measure_loops
from pruning.cards import describe
from pruning.registry import METHODS, WRAPPERS, all_methods, find_method, make_method


@dataclass(frozen=True)
class Guest(Method):
    """A method of another package."""

    name: ClassVar[str] = "guest"


def plug(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    point = EntryPoint("guest", target, "leanvla.pruning")
    monkeypatch.setattr("pruning.registry.entry_points", lambda group: [point])
    monkeypatch.setitem(sys.modules, "pruning.guest_under_test", sys.modules[__name__])


def test_unknown_names_list_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(MethodError, match=r"choose from adp, .*did you mean 'vla_pruner'"):
        make_method("vla-pruner", keep=0.5)
    with pytest.raises(MethodError, match=r"unknown field of fastv 'kep'.*did you mean 'keep'"):
        make_method("fastv", kep=0.5)
    with pytest.raises(MethodError, match=r"choose from paper, release, release_oft"):
        make_method("vla_pruner", keep=0.5, compat="relase")
    with pytest.raises(MethodError, match="choose from none"):
        make_method("adp", keep=0.5, compat="release")
    with pytest.raises(MethodError, match="needs keep"):
        make_method("fastv")


def test_one_word_names_a_variant() -> None:
    release = make_method("vla_pruner", keep=0.25, compat="release")
    assert make_method("vla_pruner:release", keep=0.25) == release
    assert make_method("vla_pruner:release:hold=decay", keep=0.25).hold == "decay"
    variant = make_method("vla_pruner:window=1:gamma=0.5:normalise=false:cut=4", keep=0.25)
    assert (variant.window, variant.gamma, variant.normalise, variant.cut) == (1, 0.5, False, 4)
    assert make_method("fastv:keep=7").keep == 7
    assert make_method("fastv:keep=0.5").keep == 0.5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vla_pruner:windw=1", "did you mean 'window'"),
        ("vla_pruner:relase", "did you mean 'release'"),
        ("vla_pruner:window=two", "window is 'two': give a number"),
        ("vla_pruner:window=1.5", "window is '1.5': give a number"),
        ("vla_pruner:bf16=1", "give true or false"),
        ("vla_pruner:keep=0.5", r"keep is 0\.25 and 0\.5 for vla_pruner: give it once"),
    ],
)
def test_bad_variants_are_refused(spec: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make_method(spec, keep=0.25)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("window", 2.5, "a whole number"),
        ("window", True, "a whole number"),
        ("gamma", "abc", "a number"),
        ("normalise", 1, "true or false"),
        ("hold", 3, "a word"),
        ("action_layer", "abc", "the number of a layer"),
        ("name", "x", "unknown field"),
        ("compat", 5, "unknown profile"),
    ],
)
def test_values_of_a_wrong_type_are_refused(field: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_method("vla_pruner", **{"keep": 0.25, field: value})


def test_an_integer_serves_where_a_float_stands() -> None:
    assert make_method("vla_pruner", keep=0.25, gamma=1).gamma == 1


def test_names_files_and_classes_agree() -> None:
    for name, kind in METHODS.items():
        assert kind.__module__ == f"pruning.methods.{name}"
        assert kind.__name__.lower() == name.replace("_", "")
        assert kind.paper
        assert kind(keep=1.0).needs <= NEEDS
    for name, wrapper in WRAPPERS.items():
        assert wrapper.__module__ == f"pruning.wrappers.{name}"
        assert wrapper.__name__.lower() == name


def test_methods_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, "pruning.guest_under_test:Guest")
    assert find_method("guest") is Guest
    assert list(all_methods()) == [*METHODS, "guest"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("pruning.guest_under_test:Absent", "Absent"),
        ("no_such_package:Guest", "no_such_package"),
        ("pruning.guest_under_test:plug", "not a Method class"),
    ],
)
def test_broken_plugins_are_named(
    monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    plug(monkeypatch, target)
    with pytest.raises(MethodError, match=message):
        find_method("guest")


SOURCES = ("eq. ", "Eq. ", "release's code", "published code", "paper's text", "code only")


@pytest.mark.parametrize("name", [n for n, k in METHODS.items() if not k.paper.startswith("none")])
def test_every_published_method_says_where_its_formulas_stand(name: str) -> None:
    kind = METHODS[name]
    said = f"{kind.__doc__} {kind.paper}".replace("\n    ", " ")
    assert any(source in said for source in SOURCES), said


@pytest.mark.parametrize(
    ("code", "error"),
    [("1 / 0", "ZeroDivisionError"), ("nobody", "NameError"), ("def f(:", "SyntaxError")],
)
def test_whatever_a_plugin_raises_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, error: str
) -> None:
    module = f"guest_{error.lower()}"
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    plug(monkeypatch, f"{module}:Guest")
    for find in (all_methods, lambda: find_method("guest")):
        with pytest.raises(
            MethodError, match=rf"'guest' at {module}:Guest does not load \({error}"
        ):
            find()


@pytest.mark.parametrize("name", [*METHODS, *WRAPPERS])
def test_every_field_is_documented(name: str) -> None:
    card = describe(find_method(name))
    assert all(field.doc for field in card.fields), card.fields
    assert [f.name for f in card.fields][:2] == ["keep", "cut"]
    assert card.summary.endswith(".")


def test_listing_as_json_and_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Methods(json=True)) == 0
    listed = json.loads(capsys.readouterr().out)
    cards = {card["name"]: card for card in listed["methods"]}
    assert list(cards) == [*METHODS, *WRAPPERS]
    assert cards["vla_pruner"]["needs"] == ["features", "history", "prefill"]
    assert cards["vla_pruner"]["cut"] == {"causal": 3, "parallel": 4, "of_layers": 32}
    assert (cards["transprune"]["cuts"], cards["divprune"]["cuts"]) == ([7, 9, 12], [0])
    assert [name for name, card in cards.items() if card["wraps"]] == list(WRAPPERS)
    assert cards["pact"]["adaptive"]
    assert not cards["pact"]["exportable"]
    assert run(Methods()) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in METHODS)
    assert "2511.16449" in table


def test_listing_and_history_do_not_import_torch() -> None:
    code = (
        "import sys, pruning.runtime, pruning.history, leanvla.commands.methods as m; "
        "m.run(m.Methods(json=True)); sys.exit('torch' in sys.modules or 'policy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_selection_times_cover_every_method() -> None:
    rows = measure((2, 36, 16), rounds=2)
    assert {row.method.partition(":")[0] for row in rows} == {*METHODS} - {"oracle"}
    assert all(0 <= row.best_us <= row.p50_us for row in rows)
    assert dense_query_us(4) > 0


@pytest.mark.parametrize("tokens", [256, 576, 768])
def test_greedy_loops_take_less_than_two_milliseconds(tokens: int) -> None:
    pytest.importorskip("numba", reason="the loops are compiled by numba")
    rows = {row.method: row for row in measure_loops(tokens, rounds=5)}
    assert set(rows) == {"max_min", "max_coverage", "dpp_map"}
    for loop in ("max_min", "max_coverage"):
        assert 0 < rows[loop].best_us < 2000
