"""What no policy may act on is refused where it enters, in one sentence that says what and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy.types import MAX_INSTRUCTION_CHARS, Observation, ObservationError, ObservationSpec

FRAME = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
GOOD = Observation((FRAME, FRAME), np.zeros(2, np.float32), "pick up the red cube")
BLACK = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"images": ()}, "no camera frame"),
        ({"images": (FRAME, BLACK)}, "view 1: every pixel is 0: .*`leanvla doctor`"),
        ({"images": (BLACK + 255,)}, "view 0: every pixel is 255"),
        ({"images": (FRAME.astype(np.float32),)}, "frame is float32, give a uint8"),
        ({"images": ([[0, 1], [2, 3]],)}, "frame is list"),
        ({"images": (FRAME[..., 0],)}, r"shape \(8, 8\)"),
        ({"images": (np.dstack([FRAME, FRAME[..., :1]]),)}, r"shape \(8, 8, 4\)"),
        ({"images": (FRAME[:4],)}, "at least 8 x 8"),
        ({"state": np.array([0.0, np.nan], np.float32)}, r"not finite at index \[1\]"),
        ({"state": np.array([np.inf, 0.0], np.float32)}, r"not finite at index \[0\]"),
        ({"state": np.zeros(2)}, "one-dimensional float32"),
        ({"state": np.zeros((1, 2), np.float32)}, "one-dimensional float32"),
        ({"state": [0.0, 0.0]}, "one-dimensional float32"),
        ({"instruction": ""}, "instruction is empty"),
        ({"instruction": " \n\t"}, "instruction is empty"),
        ({"instruction": "x" * (MAX_INSTRUCTION_CHARS + 1)}, "has 513 characters, at most 512"),
        ({"instruction": "cube \udcff"}, "not UTF-8 text"),
        ({"instruction": b"cube"}, "instruction is bytes: give UTF-8 text"),
        ({"stamp_s": float("nan")}, "stamp_s is nan"),
        ({"stamp_s": float("inf")}, "stamp_s is inf"),
    ],
)
def test_a_bad_observation_is_refused(wrong, sentence):
    with pytest.raises(ObservationError, match=sentence):
        replace(GOOD, **wrong)


@pytest.mark.parametrize(
    ("views", "state_names", "sentence"),
    [
        (("a",), ("x", "y"), r"2 camera frame\(s\) given, the policy reads 1: a"),
        (("a", "b", "c"), ("x", "y"), r"2 camera frame\(s\) given, the policy reads 3: a, b, c"),
        (("a", "b"), ("x", "y", "z"), r"state has 2 value\(s\), the policy reads 3: x, y, z"),
    ],
)
def test_an_observation_of_another_robot_is_refused(views, state_names, sentence):
    with pytest.raises(ObservationError, match=sentence):
        GOOD.check_against(ObservationSpec(views, state_names))


def test_a_missing_state_is_refused_only_by_a_policy_that_reads_one():
    blind = replace(GOOD, state=None)
    blind.check_against(ObservationSpec(("a", "b")))
    with pytest.raises(ObservationError, match=r"state has 0 value\(s\), the policy reads 1"):
        blind.check_against(ObservationSpec(("a", "b"), ("x",)))


def test_any_language_and_the_longest_instruction_pass():
    for text in (
        "\u628a\u7ea2\u8272\u65b9\u5757\u653e\u8fdb\u7bb1\u5b50",
        "x" * MAX_INSTRUCTION_CHARS,
    ):
        assert replace(GOOD, instruction=text).instruction == text
