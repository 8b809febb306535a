"""What the running nodes open is exactly what their access control allows."""

from __future__ import annotations

import pytest
from leanvla_ros.security import policy_xml

from tests.launch.test_security import allowed
from tests.ros.robot import Process, wait_for

MAYBE = {"/clock", "/parameter_events"}  # only with simulated time


def test_nothing_is_opened_that_is_not_allowed_and_nothing_more_is_allowed(robot):
    robot.chain()
    text, graph = policy_xml(robot.contract), robot.node
    for node in ("policy_node", "guard_node"):
        for kind, what, ask in (
            ("topic", "publish", graph.get_publisher_names_and_types_by_node),
            ("topic", "subscribe", graph.get_subscriber_names_and_types_by_node),
            ("service", "reply", graph.get_service_names_and_types_by_node),
        ):
            names = {name.replace("~", f"/{node}/") for name in allowed(text, node, kind, what)}

            def found(ask=ask, node=node) -> set[str]:
                # An action's own topics and services follow from the rule for the action.
                return {name for name, _ in ask(node, "/") if "/_action/" not in name}

            optional = MAYBE | {name for name in names if name.endswith("get_type_description")}
            wait_for(
                lambda names=names, found=found, optional=optional: (
                    names - optional <= found() <= names
                ),
                what=f"{node} may {what}: {sorted(names ^ found())}",
            )


KEYS = ("identity_ca.cert", "cert", "key", "permissions_ca.cert")


@pytest.mark.parametrize("enrolled", [False, True])
def test_security_that_cannot_be_enforced_refuses_to_start(tmp_path, monkeypatch, enrolled):
    """Never open where closed was asked for: no enclave, or keys that nothing here can read."""
    enclave = tmp_path / "enclaves/leanvla/guard_node"
    if enrolled:
        enclave.mkdir(parents=True)
        for name in (*(f"{key}.pem" for key in KEYS), "governance.p7s", "permissions.p7s"):
            (enclave / name).write_text("not a certificate")
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", str(tmp_path))
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    log = tmp_path / "guard.log"
    guard = Process("guard_node", log, "--enclave", "/leanvla/guard_node", contract="tabletop")
    try:
        assert guard.end(30.0) == 3, guard.text()
        assert "cannot start: " in guard.text()
        assert "ecurity" in guard.text()
    finally:
        guard.close()
