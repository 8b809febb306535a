"""Any episode as a rosbag2 folder that says itself which topic is what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.contract import Image
from policy.replay.bag_writer import BagWriter
from policy.replay.layout import Layout, layout_for
from policy.replay.messages import (
    NS,
    STRING,
    TRAJECTORY,
    image_message,
    rows_message,
    state_message,
    text_message,
)

if TYPE_CHECKING:
    from pathlib import Path

    from policy.replay.layout import Fact
    from policy.replay.types import Episode, EpisodeInfo, Look

BEGIN_NS = NS  # a stamp of zero would mean: not stamped


def write_bag(episode: Episode, folder: Path) -> int:
    """Write an episode; gives the number of looks.

    Raises:
        ReplayError: when the recording is damaged.
        OSError: when the folder cannot be written.
    """
    writer: BagWriter | None = None
    layout, begin_s, looks, words = None, None, 0, ""
    for step in episode.steps():
        look = step.look()
        if writer is None or layout is None:
            layout = _layout(episode.info, look)
            writer = BagWriter(folder, layout)
        begin_s = step.stamp_s if begin_s is None else begin_s
        now = BEGIN_NS + round((step.stamp_s - begin_s) * NS)
        if step.instruction != words:
            words = step.instruction
            writer.write(layout.instruction_topic, STRING, text_message(words), now)
        _write_look(writer, layout, look, now)
        for number, row in enumerate(step.rows):
            at = now + round(number / layout.rate_hz * NS)
            data = rows_message(layout.action_names, row[None], at, layout.rate_hz)
            writer.write(layout.action_topic, TRAJECTORY, data, at)
        looks += 1
    if writer is not None:
        writer.close()
    return looks


def _layout(info: EpisodeInfo, look: Look) -> Layout:
    sizes = {
        view: (image.shape[1], image.shape[0])
        for view, image in zip(info.observation.views, look.images, strict=True)
    }
    facts: dict[str, Fact] = {
        name: value
        for name, value in info.facts.items()
        if isinstance(value, (str, int, float, bool)) or value is None
    }
    return layout_for(info.observation, info.action, sizes, {**facts, "converted_from": info.name})


def _write_look(writer: BagWriter, layout: Layout, look: Look, now: int) -> None:
    for camera, image in zip(layout.cameras, look.images, strict=True):
        writer.write(camera.topic, Image, image_message(image, now), now)
    if look.state is not None and layout.state:
        source = layout.state[0]
        data = state_message(tuple(source.values), look.state, now)
        writer.write(source.topic, source.type, data, now)
