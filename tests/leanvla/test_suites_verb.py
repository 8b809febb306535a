"""`leanvla suites`, and the target that leans on it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from leanvla.cli import main
from sim.suites.libero.assets import NEEDED, VARIABLE
from tests.house.rules import ROOT


def test_assets_are_found_or_asked_for(tmp_path, monkeypatch, capsys):
    """With nothing installed: that comes later and takes longer."""
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, "")
    assert main(["suites", "assets", "libero"]) == 3
    assert f"LIBERO's meshes and textures are nowhere: set {VARIABLE}" in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert main(["suites", "assets", "libero"]) == 3
    assert "has no scenes" in capsys.readouterr().err
    for name in NEEDED:
        (tmp_path / name).mkdir()
    assert main(["suites", "assets", "libero"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path)
    assert main(["suites", "assets", "metaworld"]) == 2
    assert "metaworld brings its assets along" in capsys.readouterr().err
    assert main(["suites", "assets"]) == 2
    assert "no environment is named" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")
def test_make_libero_looks_for_the_assets_before_it_installs():
    command = ["make", "--dry-run", "--no-print-directory", "libero"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    words = ("suites assets libero", "suites install libero", "rollout --suite libero_object")
    places = [done.stdout.find(each) for each in words]
    assert -1 not in places
    assert places == sorted(places)
