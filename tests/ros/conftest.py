"""Real nodes over real DDS. These tests run in the environment that scripts/ros_venv.sh builds."""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import tempfile

HAVE_ROS = importlib.util.find_spec("rclpy") is not None
collect_ignore_glob = [] if HAVE_ROS else ["test_*.py"]


def pytest_report_header() -> list[str]:
    if HAVE_ROS:
        return [f"ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}"]
    return ["tests/ros: left out, rclpy is not installed here (make test runs them in .venv-ros)"]


def _free_domain() -> int:
    """A domain whose discovery port nobody holds; ports follow from the DDS specification."""
    for domain in random.SystemRandom().sample(range(1, 100), 99):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("0.0.0.0", 7400 + 250 * domain))
            except OSError:
                continue
            return domain
    raise RuntimeError("no free ROS domain")


if HAVE_ROS:
    os.environ["ROS_DOMAIN_ID"] = str(_free_domain())
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="ros-log-"))

    import pytest
    import rclpy

    from tests.ros.robot import Robot

    @pytest.fixture(scope="session", autouse=True)
    def _ros():
        rclpy.init()
        yield
        rclpy.try_shutdown()

    @pytest.fixture
    def robot(tmp_path):
        with Robot(tmp_path) as one:
            yield one
