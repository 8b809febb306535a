"""A simulator in a process of its own, and the handle that never waits for it forever.

One request carries a whole chunk of actions and brings back one observation, so a query costs one
round trip. Whatever the simulator does (raises, hangs, segfaults in the GL driver), the handle
raises `SimulatorLostError` within the deadline, and the next request starts a fresh simulator.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sim.rollout.factories import make_suite
from sim.rollout.process import Child
from sim.rollout.types import EpisodeLostError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from jaxtyping import Float32, Float64, UInt8
    from numpy import ndarray

    from policy.types import Observation
    from sim.rollout.types import Deadlines, Source
    from sim.suites.base import (
        EpisodeStart,
        SavesState,
        ShowsTruth,
        StepResult,
        Suite,
        SuiteSpec,
    )
    from sim.truth import Truth

    Images = tuple[UInt8[ndarray, "size size 3"], ...]

FILM_EVERY = 2  # control steps between recorded frames


class SimulatorLostError(EpisodeLostError):
    """The simulator hung, crashed or raised; the episode is lost, the next one need not be."""


class SuiteUnavailableError(RuntimeError):
    """The suite cannot be made at all: no retry mends that."""


class Opening(NamedTuple):
    """The beginning of an episode."""

    start: EpisodeStart
    observation: Observation
    images: Images


class Advance(NamedTuple):
    """What a chunk of control steps led to.

    Attributes:
        steps: control steps executed; fewer than asked for when the task was solved.
        observation: what is seen now; None once solved, when nobody will look.
        film: recorded frames as (control steps into this chunk, one image per view).
        thinking_ms: time the expert took for each step; empty for a policy's chunk.
        watched: what was seen between the steps, when that was asked for.
    """

    steps: int
    success: bool
    wrong_object: bool
    observation: Observation | None
    film: list[tuple[int, Images]]
    thinking_ms: list[float]
    watched: tuple[Observation, ...] = ()


class Simulator:
    """Handle of one simulator process; starts it when first needed.

    Args:
        suite: what to simulate.
        deadlines: how long to wait for the process to stand, and for an answer.
        log: file that takes the simulator's own output.
    """

    def __init__(self, suite: Source, deadlines: Deadlines, log: str | None) -> None:
        self._suite, self._deadlines, self._log = suite, deadlines, log
        self._child: Child | None = None
        self._spec: SuiteSpec | None = None

    def start(self) -> Child:
        """Start the process if there is none, without waiting for it to stand."""
        if self._child is None:
            self._spec = None
            self._child = Child(serve_suite, self._suite, threads=1, log=self._log)
        return self._child

    @property
    def spec(self) -> SuiteSpec:
        """What the suite shows and takes; waits until it stands."""
        child = self.start()
        if self._spec is None:
            self._spec = self._receive(child, "start", self._deadlines.start)
        return self._spec

    def begin(self, seed: int, *, swap: bool, film: int | None) -> Opening:
        """Reset to `seed` and look."""
        return self._ask("begin", seed, swap, film)

    def advance(
        self, actions: Float32[ndarray, "k dof"], film: int | None, *, watch: bool = False
    ) -> Advance:
        """Execute up to `k` control steps, then look; with `watch`, look between them, too."""
        return self._ask("advance", actions, film, watch)

    def follow_expert(self, steps: int, film: int | None) -> Advance:
        """Let the scripted expert act for up to `steps` control steps, then look."""
        return self._ask("follow_expert", steps, film)

    def truth(self) -> Truth:
        """What matters now, and where it appears; for suites that tell it."""
        return self._ask("truth")

    def save(self) -> Float64[ndarray, " state"]:
        """The running episode, to be returned to; for suites that save theirs."""
        return self._ask("save")

    def restore(
        self, seed: int, state: Float64[ndarray, " state"], film: int | None = None, *, swap: bool
    ) -> Opening:
        """Return to a saved state of an episode of `seed`, whatever ran since, and look."""
        return self._ask("restore", seed, swap, state, film)

    def close(self) -> None:
        """End the process. Safe to call at any time, any number of times."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _ask(self, request: str, *args: Any) -> Any:
        _ = self.spec  # it must stand before the shorter deadline of a request may count
        child = self.start()
        with contextlib.suppress(ConnectionError):  # receiving tells more
            child.connection.send((request, args))
        return self._receive(child, request, self._deadlines.request)

    def _receive(self, child: Child, request: str, deadline_s: float) -> Any:
        try:
            if not child.connection.poll(deadline_s):
                self.close()
                raise SimulatorLostError(
                    f"simulator gave no answer to `{request}` in {deadline_s:g} s"
                )
            kind, value = child.connection.recv()
        except (EOFError, ConnectionError):
            self._child = None
            raise SimulatorLostError(
                f"simulator {child.end(grace_s=1.0)} during `{request}`"
            ) from None
        if kind == "answer":
            return value
        self.close()
        if kind == "unavailable":
            raise SuiteUnavailableError(value)
        raise SimulatorLostError(f"simulator raised in `{request}`: {value}")


def serve_suite(connection: Connection, source: Source) -> None:
    """Body of the simulator process: answer requests until the pipe closes."""
    try:
        suite = make_suite(source)
    except Exception as error:
        traceback.print_exc()
        connection.send(("unavailable", f"suite {source.name!r} cannot start: {describe(error)}"))
        return
    desk = _Desk(suite)
    connection.send(("answer", suite.spec))
    try:
        while True:
            request, args = connection.recv()
            connection.send(_answer(desk, request, args))
    finally:
        suite.close()


def describe(error: BaseException) -> str:
    """`ValueError: what it said`."""
    return f"{type(error).__name__}: {error}"


def _answer(desk: _Desk, request: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "answer", getattr(desk, request)(*args)
    except Exception as error:
        traceback.print_exc()
        return "error", describe(error)


class _Desk:
    """The simulator's side of the requests of `Simulator`."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self._seed: tuple[int, bool] | None = None
        self._start: EpisodeStart | None = None

    def begin(self, seed: int, swap: bool, film: int | None) -> Opening:
        start = self._reset(seed, swap)
        return Opening(start, self.suite.observe(), self._look(film))

    def truth(self) -> Truth:
        from sim.truth import suite_truth

        return suite_truth(cast("ShowsTruth", self.suite))

    def save(self) -> Float64[ndarray, " state"]:
        return cast("SavesState", self.suite).save_state()

    def restore(
        self, seed: int, swap: bool, state: Float64[ndarray, " state"], film: int | None
    ) -> Opening:
        start = self._start
        if start is None or self._seed != (seed, swap):
            start = self._reset(seed, swap)
        cast("SavesState", self.suite).load_state(state)
        return Opening(start, self.suite.observe(), self._look(film))

    def _reset(self, seed: int, swap: bool) -> EpisodeStart:
        self._start = self.suite.reset(seed)
        self._seed = seed, swap
        if swap:
            self.suite.set_instruction(self.suite.alternative_instruction(seed))
        return self._start

    def advance(
        self, actions: Float32[ndarray, "k dof"], film: int | None, watch: bool = False
    ) -> Advance:
        walk = _Walk(self.suite, film, watch)
        for action in actions:
            if walk.step(action):
                break
        return walk.arrive([])

    def follow_expert(self, steps: int, film: int | None) -> Advance:
        walk, thinking_ms = _Walk(self.suite, film), []
        for _ in range(steps):
            began = time.perf_counter()
            action = self.suite.expert_action()
            thinking_ms.append((time.perf_counter() - began) * 1e3)
            if walk.step(action):
                break
        return walk.arrive(thinking_ms)

    def _look(self, film: int | None) -> Images:
        return _photograph(self.suite, film) if film else ()


class _Walk:
    """Some control steps in a row, with a frame now and then."""

    def __init__(self, suite: Suite, film: int | None, watch: bool = False) -> None:
        self._suite, self._size, self._watch = suite, film, watch
        self._watched: list[Observation] = []
        self._steps = 0
        self._film: list[tuple[int, Images]] = []
        self._success = self._wrong = False

    def step(self, action: Float32[ndarray, " dof"]) -> bool:
        if self._watch and self._steps:
            self._watched.append(self._suite.observe())
        result: StepResult = self._suite.step(action)
        self._steps += 1
        self._success = bool(result.success)
        self._wrong |= bool(result.wrong_object)
        if self._size and (self._success or self._steps % FILM_EVERY == 0):
            self._film.append((self._steps, _photograph(self._suite, self._size)))
        return self._success

    def arrive(self, thinking_ms: list[float]) -> Advance:
        seen = None if self._success else self._suite.observe()
        film, watched = self._film, tuple(self._watched)
        return Advance(self._steps, self._success, self._wrong, seen, film, thinking_ms, watched)


def _photograph(suite: Suite, size: int) -> Images:
    return tuple(suite.render(view, size) for view in suite.spec.observation.views)
