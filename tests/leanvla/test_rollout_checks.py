"""What a suite cannot do is refused in one sentence that names where it can be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leanvla.cli import main
from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_plan import make_spec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--suite", "libero_goal", "--policy", "expert"),
            "libero_goal has no scripted expert for all its tasks: tabletop, robosuite_lift, "
            "robosuite_stack, robosuite_pick_place, robosuite_nut_assembly, libero_object, "
            "metaworld_mt10, metaworld_mt50 have one",
        ),
        (("--suite", "robosuite", "--policy", "expert"), "robosuite has no scripted expert"),
        (
            ("--suite", "libero_spatial", "--swap-instruction"),
            "nothing else can be asked for in the scene of seed 0 of libero_spatial; it can in "
            "every scene of tabletop, robosuite_stack, robosuite_pick_place, "
            "robosuite_nut_assembly, libero_object, libero_goal, libero_90",
        ),
        (("--suite", "libero_10", "--swap-instruction"), "of seed 2 of libero_10"),
        (("--suite", "metaworld_mt10", "--perturb", "pose:0.1"), "cannot show pose: it can show"),
        (("--perturb", "camra:1"), "did you mean 'camera'"),
        (("--views", "side"), "suite tabletop shows agentview, robot0_eye_in_hand"),
        (("--suite", "metaworld_mt10", "--render-profile", "lowpoly"), "choose default or fast"),
    ],
)
def test_what_a_suite_cannot_do_is_refused(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["rollout", *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") <= 2
    assert not out.exists()


def test_what_it_can_do_is_not() -> None:
    make_spec(Rollout(suite="libero_object", policy="expert", swap_instruction=True))
    make_spec(Rollout(suite="libero_10", swap_instruction=True, episodes=2))
    spec = make_spec(Rollout(views="agentview", perturb="camera:0.05"))
    assert spec.suite.options == {"views": ("agentview",), "perturb": "camera:0.05"}


def test_demonstrations_need_an_expert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demos", "--suite", "robosuite_door", "--out", str(tmp_path / "x")]) == 2
    assert "robosuite_door has no scripted expert" in capsys.readouterr().err
