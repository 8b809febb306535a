"""What suites tell of their tasks: which instance is which, and the phase an episode is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import mujoco
import numpy as np
import pytest

from sim.suites import SUITES, make_suite, suite_spec
from sim.suites.instances import ARM, GRIPPER, geoms_of, instances
from sim.suites.libero.roles import next_goal
from sim.suites.metaworld.spec import PICKED, WORDS
from sim.suites.metaworld.spec import roles_of as metaworld_roles
from sim.suites.phases import acting, at, gap, picking, touching
from sim.suites.robosuite.spec import SUITES as ROBOSUITE
from sim.suites.robosuite.spec import roles_of, tasks_of
from sim.truth import suite_truth
from tests.sim.phases import phases_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.suites.base import ShowsTruth

ROLES = {"object", "gripper", "goal"}
BOXES = """
<mujoco><worldbody>
  <body name="chest" pos="1 0 0"><geom type="box" size=".1 .2 .3"/>
    <body name="drawer" pos="0 .3 0"><geom type="box" size=".1 .1 .1"/></body></body>
  <body name="arm0" pos="0 0 5"><geom size=".1"/>
    <body name="hand" pos="0 0 .5"><geom size=".1"/></body></body>
  <body name="spot a" pos="3 0 0"><freejoint/><geom size=".1"/></body>
  <body name="spot b" pos="3.15 0 0"><freejoint/><geom size=".1"/></body>
</worldbody></mujoco>"""


def test_the_hand_decides_the_phase() -> None:
    assert picking(held=False, near=False) == "reach"
    assert picking(held=False, near=True, over=True) == "grasp"
    assert picking(held=True, near=True) == "carry"
    assert picking(held=True, near=True, over=True) == "place"
    assert picking(held=False, near=True, over=True, rests=True) == "place"
    assert (acting(near=False), acting(near=True)) == ("reach", "act")


def test_instances_nest_and_a_hand_is_at_what_it_is_close_to_or_touches() -> None:
    model = mujoco.MjModel.from_xml_string(BOXES)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    body = {model.body(i).name: i for i in range(model.nbody)}
    bodies = {name: body[name] for name in ("chest", "drawer")}
    spots = [body["spot a"], body["spot b"]]
    told = instances(model, {**bodies, "spots": spots, GRIPPER: body["hand"]}, ("arm",))
    assert told[1] == {1: "chest", 2: "drawer", 3: "spots", 4: GRIPPER, 5: ARM}
    assert told[0].tolist() == [1, 2, 5, 4, 3, 3]
    chest, nothing = geoms_of(told, "chest"), geoms_of(told, "nothing")
    point = np.array([1.0, 0.0, 0.35])
    assert gap(model, data, chest, point) == pytest.approx(0.05)
    assert gap(model, data, chest, np.array([1.05, 0.1, 0.1])) == 0.0
    assert gap(model, data, nothing, point) == np.inf
    hand = geoms_of(told, GRIPPER, ARM)
    assert at(model, data, point, hand, chest, 0.06)
    assert not at(model, data, point, hand, chest, 0.04)
    one, other = ([number] for number in geoms_of(told, "spots"))
    assert touching(data, one, other)
    assert not touching(data, one, chest)


def test_the_first_goal_that_is_left_comes_next_and_what_is_filled_is_closed_last() -> None:
    close, fill = ("close", "cabinet_1_top_region"), ("in", "bowl_1", "cabinet_1_top_region")
    oven, mug = ("close", "oven_1"), ("in", "mug_1", "oven_1_heating_region")
    assert next_goal([close, fill], [False, False]) == fill
    assert next_goal([close, fill], [False, True]) == close
    assert next_goal([oven, mug], [False, False]) == mug
    assert next_goal([close, mug], [False, False]) == close
    assert next_goal([("open", "a"), fill], [True, False]) == fill
    assert next_goal([close, fill], [True, True]) == fill


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_tells_the_truth(name: str) -> None:
    assert {GRIPPER} < set(suite_spec(name).roles) <= ROLES


def test_roles_are_those_of_the_spec_and_a_task_lacks_some() -> None:
    for suite in ROBOSUITE:
        told = {role for task in tasks_of(suite) for role in roles_of(task)}
        assert told == set(suite_spec(suite).roles)
    assert set(suite_spec("robosuite_lift").roles) == {"object", "gripper"}
    tasks = {task: metaworld_roles(task) for task in WORDS}
    assert [task for task in tasks if "object" not in tasks[task]] == [
        *("hand-insert", "reach", "reach-wall")
    ]
    assert tasks["push"] == {"object": "obj", "gripper": "gripper", "goal": "goal mark"}
    assert "goal" not in tasks["button-press"]
    assert set(WORDS) > PICKED


@pytest.fixture(scope="module")
def robosuite() -> Iterator[ShowsTruth]:
    suite = cast("ShowsTruth", make_suite("robosuite"))
    yield suite
    suite.close()


@pytest.mark.gl
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seed", "roles", "phases"),
    [
        (100, {"object": "cube"}, ["reach", "grasp", "carry"]),
        (101, {"object": "cubeA", "goal": "cubeB"}, ["reach", "grasp", "carry", "place"]),
        (102, {"object": "Milk", "goal": "bin2"}, ["reach", "grasp", "carry", "place"]),
        (117, {"object": "RoundNut", "goal": "peg2"}, ["reach", "grasp", "carry", "place"]),
        (108, {"object": "door", "goal": "handle"}, ["reach", "act"]),
        (109, {"object": "dirt"}, ["reach", "act"]),
    ],
)
def test_a_robosuite_task_shows_its_roles_and_walks_through_its_phases(
    robosuite: ShowsTruth, seed: int, roles: dict[str, str], phases: list[str]
) -> None:
    robosuite.reset(seed)
    truth = suite_truth(robosuite)
    assert robosuite.roles() == {**roles, "gripper": "gripper"}
    assert all(masks[0].any() for masks in truth.masks.values())
    assert not (truth.masks["object"][0] & truth.masks["gripper"][0]).any()
    assert phases_of(robosuite, 200, expert="carry" in phases) == phases
