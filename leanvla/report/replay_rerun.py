"""A replay as a rerun file: looks, kept tokens, recorded and said actions on one time line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.rerun_log import check_rerun
from sim.video import draw_kept

if TYPE_CHECKING:
    from pathlib import Path

    from leanvla.commands.replay_play import Played
    from policy.replay.run import Moment


class RerunLog:
    """Writes one `.rrd` while the replay runs.

    Args:
        path: the file.
        played: what is replayed.

    Raises:
        RerunError: when rerun-sdk is not installed.
    """

    def __init__(self, path: Path, played: Played) -> None:
        check_rerun()
        import rerun

        self._rerun, self._played = rerun, played
        self._stream: Any = rerun.RecordingStream("leanvla replay")
        self._stream.save(str(path))

    def add(self, moment: Moment) -> None:
        """Take one look and its answers in."""
        self._stream.set_time("recording", duration=moment.step.stamp_s)
        self._text("instruction", moment.step.instruction)
        for row in moment.step.rows[:1]:
            self._scalars("recorded", self._played.episode.info.action.names, row)
        if moment.look is None or not moment.answers:
            return
        views = self._views(len(moment.look.images))
        for view, image in zip(views, moment.look.images, strict=True):
            self._stream.log(f"seen/{view}", self._rerun.Image(image))
        for trace, answer in zip(self._played.traces, moment.answers, strict=True):
            root = trace.name.replace(" @ ", "_")
            self._scalars(root, self._played.names, answer.chunk.actions[0])
            self._stream.log(f"{root}/query_ms", self._rerun.Scalars(answer.timing.query_ms))
            tokens = answer.timing.visual_tokens // max(1, len(views))
            for view, image, kept in zip(views, moment.look.images, answer.chunk.kept, strict=True):
                drawn = draw_kept(image, np.asarray(kept, np.int64), tokens)
                self._stream.log(f"{root}/{view}", self._rerun.Image(drawn))

    def close(self) -> None:
        """End the file."""
        self._stream.disconnect()

    def _views(self, count: int) -> list[str]:
        return [f"view_{number}" for number in range(count)]

    def _text(self, path: str, text: str) -> None:
        self._stream.log(path, self._rerun.TextDocument(text))

    def _scalars(self, root: str, names: tuple[str, ...], row: np.ndarray) -> None:
        for name, value in zip(names, row, strict=False):
            plain = "".join(c if c.isalnum() else "_" for c in name).strip("_")
            self._stream.log(f"{root}/action/{plain}", self._rerun.Scalars(float(value)))
