"""Recorded episodes as a rerun file: frames, kept tokens and latencies on one time line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.video import draw_kept

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sim.rollout.types import Recording


class RerunError(RuntimeError):
    """No rerun file can be written here: says what to install."""


def check_rerun() -> None:
    """Find out before a long run whether rerun is here.

    Raises:
        RerunError: when rerun-sdk is not installed.
    """
    try:
        import rerun  # noqa: F401
    except ImportError:
        raise RerunError("--rerun needs rerun-sdk: pip install 'rerun-sdk>=0.23'") from None


def write_rerun(path: Path, recordings: Iterable[Recording]) -> None:
    """Write all recordings into one `.rrd`, one entity tree per episode.

    Raises:
        RerunError: when rerun-sdk is not installed.
    """
    check_rerun()
    import rerun

    stream = rerun.RecordingStream("leanvla rollout")
    stream.save(str(path))
    for film in recordings:
        record = film.record
        root = f"{record.cell} seed {record.seed}".replace(" @ ", "_").replace(" ", "_")
        stream.log(f"{root}/instruction", rerun.TextDocument(record.instruction), static=True)
        for frame in film.frames:
            stream.set_time("step", sequence=frame.step)
            kept = frame.kept or ((),) * len(frame.images)
            for view, image, tokens in zip(film.views, frame.images, kept, strict=True):
                drawn = draw_kept(image, np.asarray(tokens, np.int64), film.view_tokens)
                stream.log(f"{root}/{view}/seen", rerun.Image(image))
                stream.log(f"{root}/{view}/kept", rerun.Image(drawn))
        stream.reset_time()
        for query, ms in enumerate(record.query_ms):
            stream.set_time("query", sequence=query)
            stream.log(f"{root}/query_ms", rerun.Scalars(ms))
    stream.disconnect()
