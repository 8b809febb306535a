"""Parts of a report that go beyond counts: kept-token recall and filmed failures."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.page import image, paragraph, table, video
from leanvla.report.rollout import name
from leanvla.report.words import number, percent
from sim.rollout.types import DENSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leanvla.report.rollout import Picture

    Part = Mapping[str, Any]


@dataclass(frozen=True)
class Exhibit:
    """A filmed failure.

    Attributes:
        caption: cell, seed, instruction, outcome.
        told: what is known of it, one sentence each.
        strip: moments of the pruned episode with its kept tokens.
        clip: the pruned episode; None when it is a file beside the report only.
    """

    caption: str
    told: tuple[str, ...]
    strip: Picture
    clip: Picture | None = None


def recall_tables(recall: Sequence[Part]) -> list[str]:
    """Recall by cell, role and phase, and its correlation with success."""
    pruned = [one for one in recall if one["method"] != DENSE]
    if not pruned:
        return []
    intro = (
        "Of the patches that show a thing by the simulator's own segmentation, the share that "
        "reached the last layer. Correlation: of an episode's recall with its success, within one "
        "cell, where it has ten episodes and three of either outcome. It is no proof of a cause: a "
        "lost episode goes on longer and looks elsewhere."
    )
    views = pruned[0]["views"]
    head = (
        *("", "of the", "phase", "queries", "recall", *views),
        *("in successes", "in failures", "correlation", "episodes"),
    )
    return [paragraph(intro), table(head, map(_recall, pruned))]


def gallery(exhibits: Sequence[Exhibit]) -> list[str]:
    """Failed pruned episodes whose dense twin succeeded."""
    if not exhibits:
        return []
    intro = (
        "Failed pruned episodes whose dense twin on the same seed succeeded, run once more with "
        "the camera on. Patches that were pruned are dim."
    )
    parts = [paragraph(intro, "soft")]
    for exhibit in exhibits:
        told = "".join(f"<li>{escape(sentence)}</li>" for sentence in exhibit.told)
        shots = "".join(image(png, words, 250) for words, png in exhibit.strip.files)
        clip = exhibit.clip
        film = video(clip.files[0][1], clip.caption) if clip else ""
        parts += [
            paragraph(exhibit.caption),
            f"<ul>{told}</ul>" if told else "",
            f'<div class="row">{shots}</div>',
            f'<div class="row">{film}</div>' if film else "",
        ]
    return parts


def _recall(one: Part) -> list[str]:
    tied, low_high = f"<small>{escape(one['withheld'])}</small>", one["ci95"]
    if one["correlation"] is not None:
        words = f"{low_high[0]:+.2f} to {low_high[1]:+.2f}" if low_high else one["withheld"]
        tied = f"{one['correlation']:+.2f} <small>{escape(words)}</small>"
    return [
        escape(name(one)),
        escape(one["role"]),
        escape(one["phase"]),
        str(one["queries"]),
        percent(one["recall"]),
        *(percent(value) for value in _padded(one["by_view"], len(one["views"]))),
        percent(one["in_success"]),
        percent(one["in_failure"]),
        tied,
        number(one["episodes"], "d"),
    ]


def _padded(values: Sequence[float | None], length: int) -> list[float | None]:
    return [*values, *[None] * (length - len(values))]
