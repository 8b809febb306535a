"""Both ROS packages are what colcon, rosdep and `ros2 run` expect; none of those is needed here."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.launch.stubs import FILES, FOLDER

SOURCES = FOLDER.resolve().parents[1]
PACKAGES = ("leanvla_ros", "leanvla_msgs")
NODES = ("guard_node", "policy_node", "sim_node")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_manifest_says_what_format_three_asks_for(name):
    package = ET.parse(SOURCES / name / "package.xml").getroot()
    assert package.get("format") == "3"
    assert package.findtext("name") == name
    assert package.findtext("version").count(".") == 2
    assert package.findtext("description").strip()
    assert package.findtext("license") == "Apache-2.0"
    assert "@" in package.find("maintainer").get("email")
    # The schema is a sequence: name, version, description, people, licence; then dependencies.
    order = [element.tag for element in package]
    assert order[:5] == ["name", "version", "description", "maintainer", "license"]
    assert order[-1] == "export"
    depends = [(e.tag, e.text) for e in package if e.tag.endswith("depend")]
    assert len(set(depends)) == len(depends)


def test_the_scripts_go_where_ros2_run_looks():
    setup = configparser.ConfigParser()
    setup.read(SOURCES / "leanvla_ros/setup.cfg")
    assert setup["develop"]["script_dir"] == "$base/lib/leanvla_ros"
    assert setup["install"]["install_scripts"] == "$base/lib/leanvla_ros"


def test_an_install_is_complete(tmp_path):
    """What colcon's task for ament_python runs, without colcon: the same command of setup.py."""
    pytest.importorskip("setuptools")
    source, prefix = tmp_path / "src", tmp_path / "install"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCES / "leanvla_ros", source, ignore=ignored)
    command = [sys.executable, "-W", "ignore", "setup.py", "install", "--prefix", str(prefix)]
    command += ["--record", str(tmp_path / "files"), "--single-version-externally-managed"]
    env = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    share, scripts = prefix / "share", prefix / "lib/leanvla_ros"
    assert (share / "ament_index/resource_index/packages/leanvla_ros").is_file()
    assert (share / "leanvla_ros/package.xml").is_file()
    assert sorted(path.name for path in scripts.iterdir()) == list(NODES)
    assert all(os.access(path, os.X_OK) for path in scripts.iterdir())
    for folder in ("config", "launch", "security"):
        have = {path.name for path in (share / "leanvla_ros" / folder).iterdir()}
        kept = (SOURCES / "leanvla_ros" / folder).iterdir()
        assert have == {path.name for path in kept if path.suffix != ".pyc"} - {"__pycache__"}
    assert all((share / "leanvla_ros/launch" / path.name).is_file() for path in FILES)
    (code,) = (prefix / "lib").glob("python*/site-packages/leanvla_ros")
    assert (code / "config/tabletop.yaml").is_file()  # where the node looks contracts up
    assert (code / "no_parameters.yaml").is_file()
    (info,) = importlib.metadata.distributions(name="leanvla_ros", path=[str(code.parent)])
    assert info.version == ET.parse(SOURCES / "leanvla_ros/package.xml").findtext("version")
    starts = {point.name: point.value for point in info.entry_points}
    assert starts == {name: f"leanvla_ros.{name}:main" for name in NODES}
    modules = {path.name for path in Path(SOURCES / "leanvla_ros/leanvla_ros").glob("*.py")}
    assert modules <= {path.name for path in code.iterdir()}
