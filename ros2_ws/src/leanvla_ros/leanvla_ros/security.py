"""SROS 2 access control of one robot, written from its contract.

python -m leanvla_ros.security franka > franka.policy.xml

Only the guard may publish where the robot listens, and only the policy where the guard does. The
files in security/ are written by this and tested to be.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from leanvla_ros.parameters import contract_path
from policy.contract_file import read_contract

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policy.contract import Contract

ENCLAVES = "/leanvla"
_PARAMETERS = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "get_type_description",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
)
_LIFECYCLE = (
    "change_state",
    "get_available_states",
    "get_available_transitions",
    "get_state",
    "get_transition_graph",
)


def policy_xml(contract: Contract) -> str:
    """The access control policy of a robot's policy and guard, each in an enclave of its own."""
    root = ET.Element("policy", version="0.2.0")
    enclaves = ET.SubElement(root, "enclaves")
    _policy_node(_profile(enclaves, "policy_node"), contract)
    _guard_node(_profile(enclaves, "guard_node"), contract)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _policy_node(profile: ET.Element, contract: Contract) -> None:
    sources = [*(c.topic for c in contract.cameras), *(s.topic for s in contract.state)]
    commands = [contract.command.topic, *([contract.gripper.topic] if contract.gripper else [])]
    own = ("~status", "~specs", "~run", "~debug/image", "~transition_event")
    # It listens to what the guard lets pass, and never speaks there.
    heard = [*sources, *_feedback(contract), contract.command.guarded_topic, "~instruction"]
    _allow(profile, "topic", "subscribe", heard)
    _allow(profile, "topic", "publish", [*commands, *own])
    names = (*_LIFECYCLE, "reset", "stop", "pause", "cancel")
    _allow(profile, "service", "reply", [f"~{name}" for name in names])
    _allow(profile, "action", "execute", ["~run_instruction"])


def _guard_node(profile: ET.Element, contract: Contract) -> None:
    command, gripper = contract.command, contract.gripper
    # It also looks who else publishes behind it.
    heard = [command.topic, command.guarded_topic, *_feedback(contract)]
    told = [command.guarded_topic, "~status"]
    if gripper is not None:
        heard.append(gripper.topic)
    if gripper is not None and gripper.via == "action":
        _allow(profile, "action", "call", [gripper.guarded_topic])
    elif gripper is not None:
        told.append(gripper.guarded_topic)
    _allow(profile, "topic", "subscribe", heard)
    _allow(profile, "topic", "publish", told)
    _allow(profile, "service", "reply", ["~reset", "~stop"])


def _feedback(contract: Contract) -> list[str]:
    pose = contract.feedback.pose
    return [contract.feedback.joint_states, *([pose] if pose else [])]


def _profile(enclaves: ET.Element, node: str) -> ET.Element:
    enclave = ET.SubElement(enclaves, "enclave", path=f"{ENCLAVES}/{node}")
    profile = ET.SubElement(ET.SubElement(enclave, "profiles"), "profile", ns="/", node=node)
    _allow(profile, "topic", "subscribe", ["/clock", "/parameter_events"])
    _allow(profile, "topic", "publish", ["/rosout", "/parameter_events", "/diagnostics"])
    _allow(profile, "service", "reply", [f"~{name}" for name in _PARAMETERS])
    return profile


def _allow(profile: ET.Element, kind: str, what: str, names: Iterable[str]) -> None:
    rules = ET.SubElement(profile, f"{kind}s", {what: "ALLOW"})
    for name in dict.fromkeys(names):
        ET.SubElement(rules, kind).text = name


def main(argv: Sequence[str] | None = None) -> int:
    """Write the policy of one contract to stdout."""
    given = sys.argv[1:] if argv is None else list(argv)
    if len(given) != 1:
        sys.stderr.write("usage: python -m leanvla_ros.security CONTRACT\n")
        return 2
    sys.stdout.write(policy_xml(read_contract(contract_path(given[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
