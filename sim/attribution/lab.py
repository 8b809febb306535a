"""One seed's scene, and the policies that are let loose in it: from its start, or from any moment.

Every suite can be walked through from its start. To continue from a moment it must save a running
episode. Everything is deterministic: the same saved state, policy and number of a trial give the
same continuation. Trial 0 is undisturbed; the others get a little noise on every action, the same
for every policy, because a single continuation says nothing about how close it was.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from sim.rollout.match import adapt_actions, match
from sim.rollout.simulator import Simulator
from sim.rollout.types import Deadlines, Frame

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64
    from numpy import ndarray
    from typing_extensions import Self

    from policy.types import Observation, Policy
    from pruning.history import PrunerState
    from sim.rollout.simulator import Opening
    from sim.rollout.types import Source
    from sim.suites.base import SuiteSpec
    from sim.truth import Truth

NOISE = 0.02


class AttributionError(ValueError):
    """An episode in which nothing can be attributed: says what it lacks.

    Args:
        message: one sentence.
        exit_code: 2 when something else should be asked for, 1 when the answer is that no single
            step lost it.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_saves(suite: SuiteSpec) -> None:
    """Refuse a suite of which nothing can be continued from its middle.

    Raises:
        AttributionError: naming the suites of which it can.
    """
    if suite.saves:
        return
    from sim.suites import SUITES, suite_spec

    able = ", ".join(name for name in SUITES if suite_spec(name).saves)
    raise AttributionError(
        f"suite {suite.name} cannot save a running episode, so nothing can be continued from its "
        f"middle: choose a run of {able}; where an episode first departs from dense is told on "
        "every suite by `leanvla report RUN --gallery 1`"
    )


class Decision(NamedTuple):
    """One query's answer: the rows to execute, in the suite's own action units.

    Attributes:
        view_tokens: visual tokens of one view; 0 when the policy has none.
    """

    actions: Float32[ndarray, "rows dof"]
    kept: tuple[Int64[ndarray, " k"], ...]
    state: PrunerState
    view_tokens: int


class Actor:
    """A policy fitted to a suite. Keeps nothing between queries.

    Args:
        name: what it is called in results.
        policy: who decides.
        suite: what is shown and taken.
        execute: rows of a chunk to execute; None asks the policy, then the chunk.

    Raises:
        MismatchError: when the policy does not fit the suite.
    """

    def __init__(
        self, name: str, policy: Policy, suite: SuiteSpec, execute: int | None = None
    ) -> None:
        self.name, self.policy = name, policy
        own = getattr(policy, "execute", None) or policy.action_spec.horizon
        self.execute: int = execute or own
        self._choose, self._adapter = match(policy, suite), adapt_actions(policy, suite)

    def fresh(self) -> PrunerState:
        """The state before a first query."""
        return self.policy.initial_state()

    def decide(self, seen: Observation, state: PrunerState) -> Decision:
        """Ask once."""
        chunk, state, timing = self.policy.infer(self._choose(seen), state)
        actions = chunk.actions[: self.execute]
        if self._adapter is not None:
            actions = self._adapter.convert(actions)
        view_tokens = timing.visual_tokens // max(len(chunk.kept), 1)
        return Decision(actions, chunk.kept, state, view_tokens)


class Checkpoint(NamedTuple):
    """The moment before a query.

    Attributes:
        query: its number.
        step: control steps executed before it.
        saved: the simulator; None when the suite cannot save it.
        state: the acting policy's temporal state.
        seen: what the query looks at.
        kept: per view, the tokens that it then kept.
        actions: the rows that were then executed.
    """

    query: int
    step: int
    saved: Float64[ndarray, " state"] | None
    state: PrunerState
    seen: Observation
    kept: tuple[Int64[ndarray, " k"], ...]
    actions: Float32[ndarray, "rows dof"]


class Walk(NamedTuple):
    """One whole episode with a checkpoint before every query.

    Attributes:
        frames: pictures, when they were asked for.
        view_tokens: visual tokens of one view.
    """

    checkpoints: list[Checkpoint]
    success: bool
    steps: int
    opening: Opening
    frames: tuple[Frame, ...]
    view_tokens: int


class Trial(NamedTuple):
    """One continuation: whether it succeeded, and after how many control steps."""

    success: bool
    steps: int


class Lab:
    """One seed's scene. A context manager: leaving it ends the simulator's process.

    Args:
        suite: what to simulate.
        seed: scene and task.
        swap: tell the policies another valid instruction, as the run did.
        noise: standard deviation of what is added to every action but the gripper's, in its own
            units, in all trials but the first.
        deadlines: how long the simulator may be silent.
        log: file that takes the simulator's own output.
    """

    def __init__(
        self,
        suite: Source,
        seed: int,
        *,
        swap: bool = False,
        noise: float = NOISE,
        deadlines: Deadlines | None = None,
        log: str | None = None,
    ) -> None:
        self.seed, self.noise, self._swap = seed, noise, swap
        self._simulator = Simulator(suite, deadlines or Deadlines(), log)
        self.queries = 0

    def __enter__(self) -> Self:
        """Let the simulator start while the policies load."""
        self._simulator.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the simulator."""
        self._simulator.close()

    @property
    def suite(self) -> SuiteSpec:
        """What the suite shows and takes; waits until it stands."""
        return self._simulator.spec

    def walk(self, actor: Actor, film: int | None = None) -> Walk:
        """Run the whole episode as a rollout does; where the suite can, save it at every query."""
        spec, simulator = self.suite, self._simulator
        opening = simulator.begin(self.seed, swap=self._swap, film=film)
        frames, checkpoints = [Frame(0, opening.images, ())], list[Checkpoint]()
        seen: Observation | None = opening.observation
        state, steps, success, view_tokens = actor.fresh(), 0, False, 0
        while seen is not None and steps < spec.max_steps:
            seen = self._named(seen)
            decision = actor.decide(seen, state)
            self.queries += 1
            actions = decision.actions[: spec.max_steps - steps]
            kept, saved = decision.kept, simulator.save() if spec.saves else None
            checkpoints.append(
                Checkpoint(len(checkpoints), steps, saved, state, seen, kept, actions)
            )
            advance = simulator.advance(actions, film)
            frames += [Frame(steps + at, images, kept) for at, images in advance.film]
            steps, state = steps + advance.steps, decision.state
            view_tokens = decision.view_tokens
            success, seen = advance.success, advance.observation
        return Walk(checkpoints, success, steps, opening, tuple(frames), view_tokens)

    def trial(
        self,
        start: Checkpoint,
        actor: Actor,
        number: int,
        most: int,
        *,
        first: Actor | None = None,
        state: PrunerState | None = None,
    ) -> Trial:
        """Continue from a checkpoint.

        Args:
            start: where.
            actor: who acts.
            number: of the trial; 0 is undisturbed.
            most: control steps at most.
            first: who answers the first query instead, with the checkpoint's own state.
            state: what `actor` remembers; None lets it begin afresh.

        Raises:
            AttributionError: when the suite cannot go back, as `truth_at` and `photograph` do.
        """
        opening = self._return_to(start)
        rng = np.random.default_rng([self.seed, number])
        seen: Observation | None = opening.observation
        steps, success = 0, False
        memory = actor.fresh() if state is None else state
        while seen is not None and steps < most:
            named = self._named(seen)
            self.queries += 1
            if first is not None and steps == 0:
                actions = first.decide(named, start.state).actions
            else:
                decision = actor.decide(named, memory)
                actions, memory = decision.actions, decision.state
            advance = self._simulator.advance(
                self._disturbed(actions[: most - steps], rng, number), None
            )
            steps, success = steps + advance.steps, advance.success
            seen = advance.observation
        return Trial(success, steps)

    def truth_at(self, start: Checkpoint) -> Truth | None:
        """What mattered at a checkpoint; None when the suite tells no truth."""
        if not self.suite.roles:
            return None
        self._return_to(start)
        return self._simulator.truth()

    def photograph(self, start: Checkpoint, size: int) -> Frame:
        """The views of a checkpoint, with the tokens that its query kept."""
        return Frame(start.step, self._return_to(start, size).images, start.kept)

    def _return_to(self, start: Checkpoint, film: int | None = None) -> Opening:
        check_saves(self.suite)
        saved = cast("Float64[ndarray, ' state']", start.saved)
        return self._simulator.restore(self.seed, saved, film, swap=self._swap)

    def _named(self, seen: Observation) -> Observation:
        """Called by its seed, as in a rollout: a method that draws draws the same again."""
        return dataclasses.replace(seen, episode=self.seed)

    def _disturbed(
        self, actions: Float32[ndarray, "rows dof"], rng: np.random.Generator, number: int
    ) -> Float32[ndarray, "rows dof"]:
        if number == 0:
            return actions
        moving = actions.shape[1] - (self.suite.action.gripper != "none")
        noisy = actions.copy()
        noisy[:, :moving] += self.noise * rng.standard_normal((len(actions), moving))
        return noisy.astype(np.float32)
