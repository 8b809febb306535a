"""What the running nodes open is exactly what their access control allows."""

from __future__ import annotations

from leanvla_ros.security import policy_xml

from tests.launch.test_security import allowed
from tests.ros.robot import wait_for

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
