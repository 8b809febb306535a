"""Recordings of messages as an episode, through the same decoders and pairing as live.

A recording that holds decisions is walked decision by decision: each names the messages it was
made from, so the same pictures and state come together again whatever the threads did that day.
Any other recording is paired as a node pairs: newest complete set, within the contract's skew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from policy.contract_check import check
from policy.replay.commands import CommandReader
from policy.replay.layout import LAYOUT_RECORD, RESULT_RECORD, Layout, layout_of
from policy.replay.messages import NS, STRING, decode, header_ns, read_decision
from policy.replay.storage import RawMessage, Recording, Records, find_recording
from policy.replay.types import Decision, EpisodeInfo, Look, Losses, ReplayError, Step
from policy.robot.health import Ledger
from policy.robot.messages import stamp_s
from policy.robot.pairing import Paired, Stamped
from policy.robot.senses import Senses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policy.contract import Contract

REMEMBERED_NS = 20 * NS  # how long before a decision its messages may lie


@dataclass(frozen=True)
class _Catalog:
    """What a first walk found: topics with counts, words, and the time that is covered."""

    topics: dict[str, tuple[str, int]]
    instruction: str
    begin_ns: int
    end_ns: int


@dataclass
class BagEpisode:
    """One recording. Use `open_bag`."""

    recording: Recording
    layout: Layout
    contract: Contract | None
    info: EpisodeInfo
    decided: bool
    recover: bool
    found: Losses = field(default_factory=Losses)  # before any message was read
    losses: Losses = field(default_factory=Losses)

    def steps(self) -> Iterator[Step]:
        """Walk through it once."""
        losses = self.losses = Losses(0.0, dict(self.found.counts), list(self.found.notes))
        messages = self.recording.messages(losses, Records(), recover=self.recover)
        walk = _DecidedWalk(self, losses) if self.decided else _PairedWalk(self, losses)
        yield from walk.steps(messages)
        walk.finish()


def open_bag(
    path: Path,
    contract: Contract | None = None,
    instruction: str | None = None,
    *,
    recover: bool = False,
    every_look: bool = False,
) -> BagEpisode:
    """A rosbag2 folder, or a file of one, as an episode.

    Args:
        path: the folder or file.
        contract: which topic is what; needed unless we recorded it ourselves.
        instruction: what was asked for; overrides recorded words.
        recover: read what a damaged file still holds.
        every_look: pass over recorded decisions.

    Raises:
        ReplayError: without a contract, or when a topic that it names was not recorded.
        DamagedError: when something is missing and `recover` is off.
    """
    found, records = Losses(), Records()
    recording = find_recording(path, found)
    messages = recording.messages(Losses(), records, recover=recover)
    catalog = _read_catalog(messages)
    layout = _layout(path, records, contract)
    contract = layout.contract
    _check_topics(path, layout, catalog)
    decided = layout.decision_topic in catalog.topics and not every_look
    words = instruction or catalog.instruction
    if not words and not decided:
        raise ReplayError(
            f"{path}: no message on {layout.instruction_topic}: give the words with `--instruction`"
        )
    info = EpisodeInfo(
        name=path.name,
        layout=f"rosbag2 {recording.storage}" if recording.bag else recording.storage,
        observation=layout.observation,
        action=layout.action,
        rate_hz=layout.rate_hz,
        instruction=words,
        steps=catalog.topics[layout.decision_topic][1] if decided else None,
        duration_s=max(0, catalog.end_ns - catalog.begin_ns) / NS,
        facts={**layout.facts, **records.found.get(RESULT_RECORD, {})},
    )
    return BagEpisode(recording, layout, contract, info, decided, recover, found)


def _read_catalog(messages: Iterator[RawMessage]) -> _Catalog:
    counts: dict[str, tuple[str, int]] = {}
    words, begin, end = "", 0, 0
    for message in messages:
        kind, count = counts.get(message.topic, (message.type, 0))
        counts[message.topic] = (kind, count + 1)
        begin, end = begin or message.log_ns, max(end, message.log_ns)
        if not words and message.type == STRING and message.topic.endswith("/instruction"):
            words = decode(message.data, STRING).data
    return _Catalog(counts, words, begin, end)


def _layout(path: Path, records: Records, contract: Contract | None) -> Layout:
    """What is said on the command line goes before what the recording says of itself."""
    record = records.found.get(LAYOUT_RECORD)
    try:
        own = None if record is None else msgspec.json.decode(record.get("json", ""), type=Layout)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        if contract is None:
            raise ReplayError(f"{path}: its layout record cannot be read: {error}") from None
        own = None
    if contract is not None:
        return msgspec.structs.replace(layout_of(contract), facts={} if own is None else own.facts)
    if own is None:
        raise ReplayError(
            f"{path}: does not say which topic is what: give the robot's contract with "
            "`--contract FILE.yaml`"
        )
    if own.contract is not None:
        check(own.contract)
    return own


def _check_topics(path: Path, layout: Layout, catalog: _Catalog) -> None:
    wanted = [(c.topic, c.type) for c in layout.cameras] + [(s.topic, s.type) for s in layout.state]
    for topic, kind in wanted:
        if topic not in catalog.topics:
            have = ", ".join(sorted(catalog.topics)) or "nothing"
            raise ReplayError(f"{path}: topic {topic} was not recorded; there are: {have}")
        if catalog.topics[topic][0] != kind:
            raise ReplayError(
                f"{path}: {topic} carries {catalog.topics[topic][0]}, the contract says {kind}"
            )


class _Walk:
    """What both ways of walking share: words, executed rows, and the step in progress."""

    def __init__(self, episode: BagEpisode, losses: Losses) -> None:
        self.episode, self.layout, self.losses = episode, episode.layout, losses
        # A layout is a contract as far as seeing goes: same cameras, state, ages and skew.
        seen = cast("Contract", episode.contract or episode.layout)
        self.ledger = Ledger()
        self.senses = Senses(seen, episode.layout.observation, self.ledger)
        self.words = episode.info.instruction
        self._commands = CommandReader(episode.contract) if episode.contract else None
        self._open: Step | None = None
        self._rows: list[np.ndarray] = []
        self._own_rows = False

    def steps(self, messages: Iterator[RawMessage]) -> Iterator[Step]:
        for message in messages:
            try:
                step = self._take(message)
            except ReplayError as error:
                self.losses.count("undecodable")
                self.losses.note(f"{message.topic}: {error}")
                continue
            if step is not None:
                yield from self._close()
                self._open = step
        yield from self._close()

    def finish(self) -> None:
        """Count what the senses dropped, as they would have live."""
        for what, times in self.ledger.counters.items():
            if what.endswith("_dropped"):
                self.losses.count(what, times)
                self.losses.note(self.ledger.notes[what.removesuffix("_dropped")])

    def _take(self, message: RawMessage) -> Step | None:
        topic, layout = message.topic, self.layout
        if topic == layout.instruction_topic:
            self.words = decode(message.data, STRING).data
        elif topic == layout.action_topic:
            self._own_rows = True
            self._add_rows(message)
        elif self._commands and topic in self._commands.topics and not self._own_rows:
            row = self._commands.row(message)
            self._rows += [] if row is None else [row]
        else:
            return self._see(message)
        return None

    def _see(self, message: RawMessage) -> Step | None:
        raise NotImplementedError

    def _add_rows(self, message: RawMessage) -> None:
        points = decode(message.data, message.type).points
        self._rows += [np.asarray(point.positions, np.float32) for point in points]

    def _close(self) -> Iterator[Step]:
        rows, self._rows = self._rows, []
        if self._open is not None:
            dof = len(self.layout.action_names)
            stacked = np.array(rows, np.float32).reshape(-1, dof)
            yield self._open._replace(rows=stacked)
        self._open = None

    def _looker(self, paired: Paired) -> Any:
        def look() -> Look:
            return Look(*self.senses.decode(paired))

        return look


class _PairedWalk(_Walk):
    """As a node does: the newest complete set of pictures and state."""

    def __init__(self, episode: BagEpisode, losses: Losses) -> None:
        super().__init__(episode, losses)
        self._views: dict[str, list[str]] = {}
        for camera in self.layout.cameras:
            self._views.setdefault(camera.topic, []).append(camera.view)
        self._states = {source.topic for source in self.layout.state}
        self._last: Paired | None = None

    def _see(self, message: RawMessage) -> Step | None:
        now_s, topic = message.log_ns / NS, message.topic
        if topic not in self._views and topic not in self._states:
            return None
        decoded = decode(message.data, message.type)
        for view in self._views.get(topic, ()):
            self.senses.image(view, decoded, now_s)
        if topic in self._states:
            self.senses.state(topic, decoded, now_s)
        paired = self.senses.pairing.slot
        if paired is None or paired is self._last or not self._newer(paired):
            return None
        self._last = paired
        nothing = np.zeros((0, 0), np.float32)
        return Step(paired.stamp_s, self.words, self._looker(paired), nothing)

    def _newer(self, paired: Paired) -> bool:
        """State alone makes no new look: the pictures must have moved on."""
        last = self._last
        return last is None or any(
            a is not b for a, b in zip(paired.images, last.images, strict=True)
        )


class _DecidedWalk(_Walk):
    """Decision by decision, from the messages that each of them names."""

    def __init__(self, episode: BagEpisode, losses: Losses) -> None:
        super().__init__(episode, losses)
        topics = [c.topic for c in self.layout.cameras] + [s.topic for s in self.layout.state]
        self._recent: dict[str, deque[tuple[int, RawMessage]]] = {t: deque() for t in topics}

    def _see(self, message: RawMessage) -> Step | None:
        if message.topic in self._recent:
            ring = self._recent[message.topic]
            ring.append((header_ns(message.data), message))
            while ring[0][1].log_ns < message.log_ns - REMEMBERED_NS:
                ring.popleft()
            return None
        if message.topic != self.layout.decision_topic:
            return None
        decision = read_decision(message.data)
        paired = self._paired(decision)
        if paired is None:
            self.losses.count("decision_without_observation")
            return None
        nothing = np.zeros((0, 0), np.float32)
        look = self._looker(paired)
        return Step(paired.stamp_s, decision.instruction, look, nothing, decision)

    def _paired(self, decision: Decision) -> Paired | None:
        images = [
            self._find(camera.topic, ns)
            for camera, ns in zip(self.layout.cameras, decision.images, strict=False)
        ]
        states = [
            self._find(source.topic, ns)
            for source, ns in zip(self.layout.state, decision.states, strict=False)
        ]
        whole = len(images) == len(self.layout.cameras) and len(states) == len(self.layout.state)
        if not whole or None in images or None in states:
            return None
        seen = cast("list[Stamped]", images)
        newest_s = max(stamped.stamp_s for stamped in seen)
        return Paired(newest_s, 0.0, tuple(seen), tuple(cast("list[Stamped]", states)))

    def _find(self, topic: str, ns: int) -> Stamped | None:
        for stamp_ns, message in reversed(self._recent[topic]):
            if stamp_ns == ns:
                decoded = decode(message.data, message.type)
                return Stamped(stamp_s(decoded), message.log_ns / NS, decoded)
        return None
