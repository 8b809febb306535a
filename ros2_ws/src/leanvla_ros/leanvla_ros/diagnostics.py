"""What the policy's node tells about itself, one check per thing that can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.robot.health import Check, Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from leanvla_ros.ladder import Rung
    from policy.robot.health import Latest
    from policy.robot.session import Session

WARN_RATE = 0.7  # of what the contract promises


def checks(
    session: Session, rung: Rung, times: Mapping[str, Latest], now_s: float
) -> Iterator[Check]:
    """All checks, cameras first; `times` are the node's own, in milliseconds."""
    yield from _cameras(session, now_s)
    yield _state(session, now_s)
    yield _inference(session, rung, times)
    yield _motion(session)


def _cameras(session: Session, now_s: float) -> Iterator[Check]:
    senses = session.senses
    missing = senses.pairing.missing(now_s)
    for camera in session.contract.cameras:
        hz = senses.rates[camera.view].hz()
        seen = senses.pairing.newest.get(camera.view)
        values = {"rate_hz": f"{hz:.1f}", "expected_hz": f"{camera.rate_hz:g}"}
        if seen is not None:
            values["age_ms"] = f"{(now_s - seen.stamp_s) * 1e3:.0f}"
            values["arrival_delay_ms"] = f"{(seen.arrived_s - seen.stamp_s) * 1e3:.1f}"
        lost = [text for text in missing if camera.view in text]
        dropped = session.ledger.notes.get("image", "")
        if lost:
            level, text = Level.ERROR, f"Timeout: {lost[0]}" if seen else f"NotReceived: {lost[0]}"
        elif hz < WARN_RATE * camera.rate_hz:
            level, text = Level.WARN, f"WarnRate: {hz:.1f} Hz of {camera.rate_hz:g} Hz"
        else:
            level, text = Level.OK, "OK"
        if level != Level.OK and camera.view in dropped:
            values["last_dropped"] = dropped
        yield Check(f"camera {camera.view}", level, text, values)


def _state(session: Session, now_s: float) -> Check:
    views = [camera.view for camera in session.contract.cameras]
    lost = [
        text
        for text in session.senses.pairing.missing(now_s)
        if not any(f"camera {view}" in text for view in views)
    ]
    values = {"skew_ms": f"{session.senses.pairing.skew_ms:.1f}"}
    dropped = session.ledger.notes.get("state", "")
    if dropped:
        values["last_dropped"] = dropped
    return Check("state", Level.ERROR if lost else Level.OK, lost[0] if lost else "OK", values)


def _inference(session: Session, rung: Rung, times: Mapping[str, Latest]) -> Check:
    watchdog, counters = session.watchdog, session.ledger.counters
    values = {
        "method": rung.method,
        "keep": f"{rung.keep:g}",
        "engine": rung.runs_on,
        "warm_query_ms": f"{rung.warm_ms:.1f}",
        **{
            f"{name}_p{part:.0f}_ms": f"{latest.percentile(part / 100):.2f}"
            for name, latest in times.items()
            for part in (50.0, 99.0)
        },
        "deadline_ms": f"{session.contract.execution.deadline_ms:g}",
        "deadline_misses": str(watchdog.missed),
        "stamp_to_command_p50_ms": f"{session.latency_ms.percentile(0.5):.1f}",
        "stamp_to_command_p99_ms": f"{session.latency_ms.percentile(0.99):.1f}",
        **{name: str(count) for name, count in sorted(counters.items())},
    }
    if session.fault:
        return Check("inference", Level.ERROR, session.fault, values)
    if watchdog.missed:
        return Check("inference", Level.WARN, f"{watchdog.missed} deadline(s) missed", values)
    return Check("inference", Level.OK, "OK", values)


def _motion(session: Session) -> Check:
    notes = session.ledger.notes
    values = {
        "instruction": repr(session.instruction),
        "episode": str(session.episode),
        "epoch": str(session.plan.epoch),
        "epoch_reason": notes.get("epoch", ""),
        "rows_left": str(session.plan.left),
        "seam": f"{session.plan.seam:.4g}",
        **{f"last_{name}": notes[name] for name in ("chunk", "clamped", "answer") if name in notes},
    }
    safe = session.fault or session.mover.safe
    if safe:
        return Check("motion", Level.ERROR, f"safe action: {safe}", values)
    return Check("motion", Level.OK, "OK" if session.mover.moved else "not moving", values)
