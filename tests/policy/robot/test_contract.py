"""A contract refuses in one sentence whatever it does not understand or cannot promise."""

from __future__ import annotations

import pytest
import yaml

from policy.contract import ContractError
from policy.contract_check import check, match
from policy.contract_file import parse_contract, read_contract
from policy.types import ActionSpec, ObservationSpec
from tests.policy.robot.fakes import CONFIG, CONTRACTS, changed, contract, specs


def text(name: str = "tabletop") -> str:
    return (CONFIG / f"{name}.yaml").read_text()


def edited(path: str, new, name: str = "tabletop") -> str:
    data = yaml.safe_load(text(name))
    *way, last = path.split(".")
    place = data
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    if new is None:
        del place[int(last) if isinstance(place, list) else last]
    else:
        place[int(last) if isinstance(place, list) else last] = new
    return yaml.safe_dump(data)


@pytest.mark.parametrize("name", CONTRACTS)
def test_shipped_contracts_hold_and_fit_their_own_policy(name):
    chosen = contract(name)
    match(chosen, *specs(chosen))


@pytest.mark.parametrize(
    ("path", "new", "says"),
    [
        ("limits.speed", 1.0, "unknown field `speed`"),
        ("limits", None, "missing required field `limits`"),
        ("limits.linear", None, "limits.linear is missing"),
        ("limits.linear.jerk", None, "missing required field `jerk`"),
        ("limits.linear.velocity", 0.0, "limits.linear.velocity is 0: give a positive number"),
        ("limits.linear.velocity", float("inf"), "limits.linear.velocity is inf"),
        ("limits.workspace", "joint limits only", "limits.workspace must be a box"),
        ("limits.workspace.lower", [0.5, 0.0, 0.0], "is not below upper"),
        ("command.safe_action", "hold_measured", "a twist robot can zero_twist or stop"),
        ("command.topic", "/sim/twist_cmds", "the guard must stand between"),
        ("cameras.0.age.max_ms", -1.0, "cameras.0.age.max_ms is -1: give a positive number"),
        ("cameras.0.encodings", ["yuv422"], "encodings yuv422: choose from rgb8"),
        ("cameras.0.crop", [0, 0, 97, 10], "leaves a frame of 96 x 96"),
        ("cameras.1.view", "agentview", "feed a view twice"),
        ("cameras", [], "cameras is empty"),
        ("action.scale.0", 0.0, "would silence an axis"),
        ("action.columns.0", 1, "not different places"),
        ("action.rate_hz", 10.0, "commands go out at 20"),
        ("gripper", None, "go together"),
        ("schema", 2, "Invalid enum value 2"),
        ("execution.hang_s", 0.1, "hang_s must be longer"),
    ],
)
def test_what_is_refused(path, new, says):
    with pytest.raises(ContractError, match=says.replace("(", r"\(")):
        parse_contract(edited(path, new))


def test_joints_without_limits_are_refused():
    with pytest.raises(ContractError, match=r"limits.joints lacks fr3_joint4"):
        parse_contract(edited("limits.joints.fr3_joint4", None, "franka"))
    with pytest.raises(ContractError, match=r"limits.joints lacks"):
        parse_contract(edited("limits.joints", {}, "franka"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: 1\na: 2\n", "key 'a' stands twice, again in line 2"),
        ("a: &x [1]\nb: *x\n", "line 2 has a YAML alias"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: [", "not YAML"),
        ("- 1\n", "Expected `object`"),
        ("", "Expected `object`"),
        ("[" * 3000, "nested too deeply"),
    ],
)
def test_hostile_files_are_data_and_refused(content, says):
    with pytest.raises(ContractError, match=says):
        parse_contract(content)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ContractError, match="no such contract file"):
        read_contract(tmp_path / "nothing.yaml")
    big = tmp_path / "big.yaml"
    big.write_text("# " + "x" * 300_000)
    with pytest.raises(ContractError, match="larger than"):
        read_contract(big)
    big.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ContractError, match=r"big.yaml"):
        read_contract(big)


def test_a_policy_that_means_something_else_is_refused_with_both_sides():
    chosen = contract()
    observation, action = specs(chosen)
    cases = [
        (ObservationSpec(("elsewhere",)), action, "reads view 'elsewhere'.*agentview"),
        (ObservationSpec(observation.views, ("q1",)), action, "reads state value 'q1'.*eef_x"),
        (
            observation,
            ActionSpec(action.names, 8, 20.0, "rpy_delta", action.gripper),
            "the policy says rpy_delta, robot tabletop takes axis_angle_delta",
        ),
        (
            observation,
            ActionSpec(action.names, 8, 20.0, action.rotation, "0 closed, 1 open"),
            "the policy says 0 closed, 1 open, robot tabletop takes -1 open, [+]1 close",
        ),
        (observation, ActionSpec(action.names, 8, 10.0), "says 10.0, robot tabletop takes 20.0"),
        (observation, ActionSpec(action.names[:6], 8, 20.0), "action names differs"),
    ]
    for seen, said, says in cases:
        with pytest.raises(ContractError, match=says):
            match(chosen, seen, said)
    with pytest.raises(ContractError, match="execute is 9"):
        match(changed(chosen, "execution.execute", 9), observation, action)


def test_every_limit_of_every_contract_is_checked():
    """Zero in any place that limits must be noticed: no limit may be silently absent."""
    for name in CONTRACTS:
        chosen = contract(name)
        paths = [f"limits.joints.{joint}" for joint in chosen.limits.joints]
        paths += [f"limits.{k}" for k in ("linear", "angular") if getattr(chosen.limits, k)]
        assert paths
        for path in paths:
            for kind in ("velocity", "acceleration", "jerk"):
                with pytest.raises(ContractError, match=f"{path}.{kind} is 0"):
                    check(changed(chosen, f"{path}.{kind}", 0.0))
