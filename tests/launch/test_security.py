"""Access control says what the contract says, for every robot that ships."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from leanvla_ros.security import main, policy_xml

from tests.policy.robot.fakes import CONFIG, CONTRACTS, contract

FOLDER = CONFIG.parent / "security"


def allowed(text: str, node: str, kind: str, what: str) -> set[str]:
    (profile,) = ET.fromstring(text).iterfind(f".//profile[@node='{node}']")
    return {item.text or "" for rules in profile.iterfind(f"{kind}s[@{what}]") for item in rules}


@pytest.mark.parametrize("robot", CONTRACTS)
def test_the_shipped_file_is_what_the_contract_gives(robot, capsys):
    assert main([robot]) == 0
    written = capsys.readouterr().out
    assert (FOLDER / f"{robot}.policy.xml").read_text() == written


@pytest.mark.parametrize("robot", CONTRACTS)
def test_only_the_guard_speaks_to_the_robot_and_only_the_policy_to_the_guard(robot):
    chosen = contract(robot)
    text, command = policy_xml(chosen), chosen.command
    policy = allowed(text, "policy_node", "topic", "publish")
    guard = allowed(text, "guard_node", "topic", "publish")
    assert command.guarded_topic in guard - policy
    assert command.topic in policy - guard
    if chosen.gripper is not None:
        behind = guard | allowed(text, "guard_node", "action", "call")
        assert chosen.gripper.guarded_topic in behind - policy
        assert chosen.gripper.topic in policy - guard
    assert {camera.topic for camera in chosen.cameras} <= allowed(
        text, "policy_node", "topic", "subscribe"
    )


def test_one_contract_is_asked_for(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
