"""What `pip install .` carries: everything that a plain installation reads."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("leanvla", "policy", "pruning", "sim", "engines", "vlm")
ROS = Path("ros2_ws/src/leanvla_ros/leanvla_ros")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built beside the tree, so that no build folder is left in it; without network."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for path in ROOT.iterdir():
        if path.name in (*ROOMS, "ros2_ws", "pyproject.toml", "README.md", "LICENSE"):
            (tree / path.name).symlink_to(path)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "--wheel-dir", str(out), str(tree)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_every_file_that_code_reads_is_in_the_wheel(wheel):
    found = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"leanvla_ros/config/{p.name}" for p in (ROOT / ROS / "config").glob("*.yaml")}
    assert len(wanted) >= 4
    kinds = {".py", ".yaml", ".json", ".xml", ".safetensors", ".onnx", ".txt"}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts:
                wanted.add(str(path.relative_to(ROOT)))
    for path in (ROOT / ROS).glob("*"):
        if path.suffix in kinds:
            wanted.add(f"leanvla_ros/{path.name}")
    assert sorted(wanted - found) == []
    assert not any(name.startswith("tests/") for name in found)


def test_contracts_are_found_in_a_plain_installation(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from leanvla_ros.parameters import contract_path\n"
        "from policy.contract_file import read_contract\n"
        "for name in ('tabletop', 'franka', 'ur5e_servo', 'so101'):\n"
        "    path = contract_path(name)\n"
        "    print(path, read_contract(path).robot)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else None
    done = subprocess.run(
        command or [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(str(tmp_path)) for line in lines)
