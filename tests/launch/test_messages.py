"""The interface package is whole, and its action agrees with the code; no ROS reads it here."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from policy.robot.run import Code, Progress
from tests.launch.stubs import FOLDER

PACKAGE = FOLDER.resolve().parents[1] / "leanvla_msgs"


def sections() -> list[list[list[str]]]:
    parts = (PACKAGE / "action/RunInstruction.action").read_text().split("\n---\n")
    return [
        [line.split() for line in part.splitlines() if line and not line.startswith("#")]
        for part in parts
    ]


def test_goal_result_and_feedback_are_what_the_code_says():
    goal, result, feedback = sections()
    assert [name for _, name in goal] == ["instruction", "max_duration", "episode_id"]
    constants = dict(name.split("=") for _, name in result if "=" in name)
    assert constants == {code.name: str(int(code)) for code in Code}
    assert [name for _, name in feedback] == list(Progress._fields)


def test_the_package_generates_it():
    package = ET.parse(PACKAGE / "package.xml").getroot()
    assert package.findtext("name") == "leanvla_msgs"
    assert package.findtext("member_of_group") == "rosidl_interface_packages"
    build = (PACKAGE / "CMakeLists.txt").read_text()
    assert '"action/RunInstruction.action"' in build
    for depend in package.iter("depend"):
        assert f"find_package({depend.text} REQUIRED)" in build
