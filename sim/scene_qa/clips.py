"""Questions about a short clip: what was moved, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.scene_qa.questions import Question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.scene_qa.scenes import ClipPlan
    from sim.scene_qa.stage import Shot


def ask_clip(plan: ClipPlan, shots: Sequence[Shot]) -> list[Question]:
    """All questions of one clip; none when something that is asked about cannot be seen."""
    moved = [slot for slot in plan.moved if slot is not None]
    names = [plan.scenes[0].names[slot] for slot in moved]
    if any(shot.hidden for shot in shots) or not _really_moved(plan):
        return []
    if len(moved) == 1:
        return [_asked("moved", "one", "Which object was moved?", names[0], moved, shots)]
    first, last = names
    return [
        _asked("moved", "first", "Which object was moved first?", first, moved[:1], shots),
        _asked("moved", "last", "Which object was moved last?", last, moved[1:], shots),
        _asked(
            "order", "two", "In what order were the objects moved?",
            f"{first} then {last}", moved, shots,
        ),
    ]  # fmt: skip


def _really_moved(plan: ClipPlan) -> bool:
    pairs = zip(plan.scenes, plan.scenes[1:], plan.moved, strict=False)
    return all((before is not after) == (slot is not None) for before, after, slot in pairs)


def _asked(
    kind: str, variant: str, text: str, answer: str, slots: Sequence[str], shots: Sequence[Shot]
) -> Question:
    about = tuple(tuple(one.instance for one in shot.seen if one.slot in slots) for shot in shots)
    return Question(kind, variant, text, answer, about)
