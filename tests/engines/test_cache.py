"""Engines that are kept: made once, made again when damaged, never half."""

from __future__ import annotations

import shutil
import threading

import pytest

from engines.cache import cache_folder, cached_engine, kept_engines, trouble
from engines.errors import EngineError, EngineUnavailableError
from engines.weights import WEIGHTS
from sim.suites.environment import environments


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def maker(plain_engine):
    """Makes the plain engine, and counts."""
    made = []

    def make(out):
        made.append(out)
        shutil.copytree(plain_engine, out)

    make.made = made
    return make


def test_an_engine_is_made_once_for_each_key(cache, maker):
    first = cached_engine("plain", {"weights": "a", "keeps": [0.5]}, maker)
    assert cached_engine("plain", {"keeps": [0.5], "weights": "a"}, maker) == first
    other = cached_engine("plain", {"weights": "b", "keeps": [0.5]}, maker)
    assert maker.made == [first, other]
    assert first.parent == cache
    assert [(folder, bool(manifest)) for folder, manifest, _ in kept_engines()] == sorted(
        [(first, True), (other, True)]
    )


def test_a_damaged_engine_is_made_again(maker):
    folder = cached_engine("plain", {}, maker)
    (folder / WEIGHTS).write_bytes(b"")
    assert "has 0 bytes" in (trouble(folder) or "")
    assert [manifest for _, manifest, _ in kept_engines()] == [None]
    assert cached_engine("plain", {}, maker) == folder
    assert trouble(folder) is None
    assert len(maker.made) == 2


def test_what_its_maker_refuses_is_not_found_later(maker):
    def refuse(out):
        maker(out)
        raise EngineError("it differs from its model")

    for _ in range(2):
        with pytest.raises(EngineError, match="differs"):
            cached_engine("plain", {}, refuse)
    assert len(maker.made) == 2
    assert not list(kept_engines())


def test_processes_that_ask_at_the_same_time_make_it_once(maker):
    asking = [threading.Thread(target=cached_engine, args=("plain", {}, maker)) for _ in range(4)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len(maker.made) == 1


def test_engines_lie_where_suites_lie(monkeypatch, tmp_path):
    """Our own variable wins over XDG's, whose relative path is no path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "cache" / "engines"
    assert environments()["libero"].folder.parent == tmp_path / "cache" / "suites"
    monkeypatch.delenv("LEANVLA_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "leanvla" / "engines"
    assert environments()["libero"].folder.parent == tmp_path / "xdg" / "leanvla" / "suites"
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "leanvla" / "engines"


def test_a_cache_that_cannot_be_written_names_the_way_out(cache, maker):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file stands in the way")
    with pytest.raises(EngineUnavailableError, match=r"LEANVLA_CACHE.*--engine torch"):
        cached_engine("plain", {}, maker)
