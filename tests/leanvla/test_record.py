"""`leanvla record` where it cannot work."""

from __future__ import annotations

import importlib.util

import pytest

from leanvla.cli import main


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="rclpy is installed")
def test_without_ros_the_remedy_is_named(capsys):
    assert main(["record", "tabletop"]) == 3
    said = capsys.readouterr().err
    assert "rclpy cannot be imported" in said
    assert "setup.bash" in said
    assert "scripts/ros_venv.sh" in said


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_length_that_is_none_is_refused(capsys, seconds):
    assert main(["record", "tabletop", "--seconds", seconds]) == 2
    assert "give a length above zero" in capsys.readouterr().err
