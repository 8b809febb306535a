"""`report.html` of one lost episode: the moment, the votes around it, and the views."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from leanvla.report.page import image, page, paragraph, section, table
from leanvla.report.pictures import png
from leanvla.report.svg import round_step, svg, text
from leanvla.report.words import UNKNOWN
from sim.rollout.types import Recording
from sim.video import compose

if TYPE_CHECKING:
    from sim.attribution.attribute import Attribution, View
    from sim.attribution.bisect import Vote
    from sim.rollout.types import EpisodeRecord

WIDTH, LEFT, TOP, BOTTOM = 720, 56, 18, 210


def sentences(record: EpisodeRecord, found: Attribution) -> list[str]:
    """The answer in words."""
    where = f"in steps {found.step} to {found.until_step}"
    phase = f", phase {found.phase}" if found.phase else ""
    if found.kind == "no_return":
        first = (
            f"{record.cell} lost seed {record.seed} {where} of {found.pruned_steps}{phase}: before "
            "them the dense policy still wins from there, after them it does not."
        )
    else:
        first = (
            f"{record.cell} stalled on seed {record.seed}: for as long as there was time, the "
            f"dense policy could still have won. It cannot do what dense does {where} of "
            f"{found.dense_steps}{phase}."
        )
    told = [first, _about_noise(found), _about_views(found)]
    told += [_about_patches(view) for view in found.views if view.shown]
    told.append(
        f"The pruned decision differs from dense's by {found.gap:.2f} of the action range there. "
        f"{found.queries} queries, {found.seconds:.0f} s."
    )
    return [sentence for sentence in told if sentence]


def document(record: EpisodeRecord, found: Attribution) -> str:
    """The whole page."""
    title = f"{record.cell}, seed {record.seed}"
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences(record, found))
    path = "pruned" if found.kind == "no_return" else "dense"
    who = "dense" if found.kind == "no_return" else "pruned"
    intro = (
        f"Share of continuations by the {who} policy that win, from moments of the {path} "
        "episode. Most votes end with a majority; the two at the turning point are whole. Halving "
        "assumes that what is lost at one moment is lost at all later ones. A continuation may "
        "take half as many steps again as the dense episode; all but the first are disturbed."
    )
    body = [
        f"<h1>Where pruning lost it: {escape(title)}</h1>",
        paragraph(f"“{record.instruction}”", "soft"),
        f"<ul>{said}</ul>",
        section("The critical moment and the next query", _pictures(record, found)),
        section("Still to be won?", paragraph(intro, "soft"), _votes(found)),
        section("View by view", _views(found)),
    ]
    return page(f"LeanVLA attribution: {title}", body)


def _about_noise(found: Attribution) -> str:
    if found.mended is None:
        return ""
    return (
        f"A little noise on its actions mends this: so disturbed, the pruned policy wins "
        f"{found.mended.wins} of {found.mended.trials} from the very start. The steps named are "
        "those of the undisturbed course alone."
    )


def _about_views(found: Attribution) -> str:
    if found.views_note:
        return f"The views were not told apart: {found.views_note}."
    tried = [view for view in found.views if view.vote]
    if not tried:
        return ""
    culprits = found.culprits
    if not culprits:
        return "Neither view loses it when it alone is pruned: it takes all of them."
    if len(culprits) == len(tried):
        return "Each view loses it, even when it alone is pruned."
    return f"View {' and '.join(culprits)} loses it, even when it alone is pruned."


def _about_patches(view: View) -> str:
    parts = [
        f"{view.kept[role]} of {shown} patches of the {role}"
        for role, shown in view.shown.items()
        if shown
    ]
    return f"In {view.name} it kept {', '.join(parts)}." if parts else ""


def _pictures(record: EpisodeRecord, found: Attribution) -> str:
    film = Recording(record, (), found.moments, 1.0, found.view_tokens)
    shots = (image(png(compose(film, frame)), f"step {frame.step}", 500) for frame in found.moments)
    return f'<div class="row">{"".join(shots)}</div>'


def _votes(found: Attribution) -> str:
    votes = found.turning.votes
    per_query = max(1, found.until_step - found.step)
    last = max(one.moment for one in votes) or 1
    across, up = (WIDTH - LEFT - 30) / last, BOTTOM - TOP
    step = max(1, round(round_step(last / 8)))
    parts = [
        text(LEFT + tick * across, BOTTOM + 17, str(tick * per_query), "middle", "soft")
        for tick in range(0, last + 1, step)
    ]
    parts.append(text(WIDTH - 12, BOTTOM + 34, "control steps before the continuation", "end"))
    parts += [_line(level, BOTTOM - level * up) for level in (0.0, 0.5, 1.0)]
    turn = LEFT + (found.query + 0.5) * across
    parts.append(
        f'<line x1="{turn:.1f}" x2="{turn:.1f}" y1="{TOP}" y2="{BOTTOM}" stroke="var(--bad)" '
        'stroke-dasharray="4 4"/>'
    )
    parts += [_vote(one, LEFT + one.moment * across, up) for one in votes]
    return svg(BOTTOM + 44, parts, "continuations that win", WIDTH)


def _vote(one: Vote, x: float, up: float) -> str:
    low, high = (BOTTOM - end * up for end in one.ci95)
    y = BOTTOM - one.wins / one.trials * up
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="var(--c1)" '
        'opacity=".45" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="var(--c1)">'
        f"<title>query {one.moment}: {one.wins} of {one.trials}</title></circle>"
    )


def _line(level: float, y: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y}" y2="{y}" stroke="var(--line)"/>'
    return line + text(LEFT - 8, y + 4, f"{level:.0%}", "end", "soft")


def _views(found: Attribution) -> str:
    if not found.views:
        return ""
    roles = list(dict.fromkeys(role for view in found.views for role in view.shown))
    rows = (
        [
            escape(view.name),
            f"{view.vote.wins} of {view.vote.trials}" if view.vote else UNKNOWN,
            *(f"{view.kept[role]} of {view.shown[role]}" for role in roles),
        ]
        for view in found.views
    )
    head = ("view", "won when it alone is pruned", *(f"{role} patches kept" for role in roles))
    return table(head, rows)
