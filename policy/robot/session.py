"""One robot and one policy: everything a node decides, without ROS, threads or clocks.

    messages in ─▶ senses ─▶ ask ─▶ look ─▶ (policy) ─▶ answer ─▶ broker ─▶ tick ─▶ commands out

`look` and the policy may run on another thread; all else is called under one lock. The same calls
with the same times give the same decisions, which is what makes a recording replayable.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from policy.contract_check import match
from policy.robot.broker import Broker, Plan
from policy.robot.health import Latest, Ledger
from policy.robot.instruction import InstructionError, clean_instruction
from policy.robot.messages import MessageError
from policy.robot.mover import Mover, Output
from policy.robot.rows import RefusedError
from policy.robot.senses import Senses
from policy.robot.watchdog import Watchdog
from policy.types import Observation, ObservationError

if TYPE_CHECKING:
    from policy.contract import Contract
    from policy.robot.commands import Command
    from policy.robot.pairing import Paired
    from policy.types import ActionSpec, Inference, ObservationSpec, Timing

MIN_INSTRUCTION_GAP_S = 0.2  # a flood of instructions is heard no more often than this


class Now(NamedTuple):
    """The node's clock (simulated where it is), and monotonic time for durations."""

    ros_s: float
    mono_s: float


class Question(NamedTuple):
    """What to ask the policy: undecoded messages, words, memory, and what it belongs to."""

    number: int
    epoch: int
    episode: int
    instruction: str
    paired: Paired
    memory: Any


class Session:
    """State of one robot and one policy.

    Args:
        contract: the robot.
        observation_spec, action_spec: the policy.
        execute: rows that the policy wants executed per chunk; the contract's word goes first.

    Raises:
        ContractError: when the policy does not fit the robot.
    """

    def __init__(
        self,
        contract: Contract,
        observation_spec: ObservationSpec,
        action_spec: ActionSpec,
        execute: int | None = None,
    ) -> None:
        match(contract, observation_spec, action_spec)
        execution, horizon = contract.execution, action_spec.horizon
        # Overlap needs rows that are left when the next look is asked for.
        default = horizon if execution.mode == "sequential" else max(1, horizon // 2)
        rows = min(execution.execute or execute or default, horizon)
        self.contract, self.ledger = contract, Ledger()
        self.senses = Senses(contract, observation_spec, self.ledger)
        self.mover = Mover(contract, self.senses, self.ledger)
        self.broker = Broker(execution, rows, horizon, contract.period_s)
        self.watchdog = Watchdog(execution.deadline_ms * 1e-3, execution.hang_s)
        self.latency_ms = Latest()
        self.timing: Timing | None = None
        self.goals = self.rows = 0  # instructions taken, and rows that the robot was told
        self.plan = Plan()
        self.instruction, self.fault, self.episode, self.paused = "", "", 0, False
        self.hung = False
        self._memory: Any = None
        self._fresh = False
        self._refused = 0
        self._unseen = ""
        self._starved_s: float | None = None
        self._last_ros_s = self._last_words_s = self._at_once_s = -math.inf
        self._pending: str | None = None

    # Messages in.

    def image(self, view: str, message: Any, now: Now) -> None:
        """A picture arrived."""
        self._clock(now)
        self.senses.image(view, message, now.ros_s)

    def state(self, topic: str, message: Any, now: Now) -> None:
        """Proprioception arrived."""
        self._clock(now)
        self.senses.state(topic, message, now.ros_s)

    def heard(self, command: Command, now: Now) -> None:
        """A command left the guard. Where it is not ours, our plan is not what the robot does."""
        self._clock(now)
        if self.mover.told.hear(command):
            self.ledger.count("overridden")
            self.new_epoch("the guard told the robot something else")

    # Words and buttons.

    def instruct(self, text: str, now: Now) -> str | None:
        """New words are a new goal. Why they were refused, or None."""
        self._clock(now)
        try:
            words = clean_instruction(text)
        except InstructionError as error:
            self.ledger.drop("instruction", str(error))
            return str(error)
        if now.mono_s - self._last_words_s < MIN_INSTRUCTION_GAP_S:
            self._pending = words  # the newest of a flood is heard when the flood ends
            self.ledger.count("instructions_held_back")
        else:
            self._hear(words, now)
        return None

    def dismiss(self, reason: str) -> None:
        """Follow the instruction no longer; the robot comes to rest until there is another."""
        self.instruction, self._pending = "", None
        self.new_epoch(reason)

    def new_epoch(self, reason: str, *, episode: bool = False) -> None:
        """Drop the chunk, the pruner's memory, and every answer still under way."""
        self.plan = self.broker.drop(self.plan)
        self._memory = None
        self.episode += episode
        self.ledger.count("epochs")
        self.ledger.notes["epoch"] = reason

    def reset(self) -> None:
        """A new episode; releases a latched fault."""
        self.fault, self._refused, self.paused = "", 0, False
        self.new_epoch("reset", episode=True)

    def stop(self, reason: str) -> None:
        """Latch the safe action until `reset`."""
        if not self.fault:
            self.fault = reason
            self.ledger.count("latched")
            self.new_epoch(reason)

    def pause(self, paused: bool) -> None:
        """Hold, and later go on with a fresh look."""
        if paused != self.paused:
            self.paused = paused
            self.new_epoch("pause" if paused else "resume")

    # Questions and answers.

    def ask(self, now: Now) -> Question | None:
        """What to ask the policy now, if anything; at most one question is under way."""
        self._clock(now)
        self._hear_pending(now)
        paired = self.senses.pairing.slot
        idle = self.watchdog.check(now.mono_s) == "idle"
        if not idle or paired is None or not self.instruction or self.paused or self.fault:
            return None
        wanted = self.broker.wants(self.plan, paired.stamp_s)
        if not wanted or self.senses.pairing.missing(now.ros_s):
            return None
        number = self.watchdog.begin(now.mono_s)
        return Question(
            number, self.plan.epoch, self.episode, self.instruction, paired, self._memory
        )

    def look(self, question: Question) -> Observation:
        """Decode a question's messages.

        Raises:
            MessageError, ObservationError: when they cannot be acted on.
        """
        images, state = self.senses.decode(question.paired)
        return Observation(
            images, state, question.instruction, question.paired.stamp_s, question.episode
        )

    def answer(self, question: Question, inference: Inference, now: Now) -> bool:
        """Take an answer; whether a row of it is due at once, because nothing was left to run.

        Simulated time may stand still: no two rows are for the same instant.
        """
        self._clock(now)
        if not self.watchdog.end(question.number, now.mono_s):
            self.ledger.drop("answer", "answer came after its deadline")
            return False
        due = self.plan.left == 0 and now.ros_s > self.plan.moved_s
        try:
            rows = self.mover.rows(inference.chunk.actions, now.ros_s)
        except RefusedError as error:
            if question.epoch == self.plan.epoch:
                self._refuse(str(error))
            return False
        stamp_s = question.paired.stamp_s
        plan, dropped = self.broker.adopt(self.plan, rows, stamp_s, question.epoch, now.ros_s)
        if dropped:
            self.ledger.drop("answer", dropped)
            return False
        self.plan, self._memory, self._refused, self._fresh = plan, inference.state, 0, True
        self.ledger.count("chunks")
        self.timing = inference.timing
        self._at_once_s = now.ros_s if due else -math.inf
        return due

    def failed(self, question: Question, error: Exception, now: Now) -> None:
        """The look or the policy raised."""
        self.watchdog.end(question.number, now.mono_s)
        if not isinstance(error, (MessageError, ObservationError)):
            self.stop(f"the policy failed: {type(error).__name__}: {error}")
            return
        # One bad frame: the chunk goes on to its end, and only then the robot must stop.
        self.ledger.drop("observation", str(error))
        self._unseen = str(error)

    # Commands out.

    def period(self, now: Now) -> Output:
        """The timer went off: `tick`, unless a row has just gone out at once in its stead."""
        if abs(now.ros_s - self._at_once_s) < self.contract.period_s / 2:
            return Output(safe=self.mover.safe)
        return self.tick(now)

    def tick(self, now: Now) -> Output:
        """The next command."""
        self._clock(now)
        self._hear_pending(now)
        reason = self._why_safe(now)
        if reason:
            return self.mover.go_safe(reason, now.ros_s)
        plan, row = self.broker.take(self.plan, now.ros_s)
        try:
            if row is None:
                return self._starve(now)
            self.plan, self._starved_s = plan, None
            ahead = self.broker.ahead(plan, self.contract.command.lookahead)
            output = self.mover.move(row, ahead, now.ros_s)
        except RefusedError as error:
            self._refuse(str(error))
            return self.mover.go_safe(str(error), now.ros_s)
        return self._moving(output, now)

    def halt(self, reason: str, now: Now) -> Output:
        """The safe action of a node that is being taken down."""
        self.new_epoch(reason)
        output = self.mover.go_safe(reason, now.ros_s)
        self.mover.settle()
        return output

    def _moving(self, output: Output, now: Now) -> Output:
        fresh, self._fresh, self._unseen = self._fresh, False, ""
        self.rows += 1
        if fresh:
            self.latency_ms.add((now.ros_s - self.plan.stamp_s) * 1e3)
        return output._replace(stamp_s=self.plan.stamp_s, fresh=fresh)

    def _why_safe(self, now: Now) -> str:
        if self.watchdog.check(now.mono_s) == "hung":
            self.hung = True
            self.stop(f"inference hangs: no answer in {self.watchdog.hang_s:g} s")
        if self.fault or self.paused or not self.instruction:
            return self.fault or ("paused" if self.paused else "no instruction")
        missing = self.senses.pairing.missing(now.ros_s)
        if not missing:
            return ""
        if self.plan.rows is not None:
            self.new_epoch(missing[0])
        return missing[0]

    def _starve(self, now: Now) -> Output:
        """Nothing to run: come to rest, and call it unsafe when it lasts."""
        if not self.mover.moved:
            return Output(safe=self._unseen or "waiting for the first chunk")
        if self._starved_s is None:
            self._starved_s = now.mono_s
        if self.mover.safe or self._refused:
            return self.mover.go_safe(self._unseen or self.mover.safe, now.ros_s)
        if now.mono_s - self._starved_s > self.watchdog.deadline_s:
            reason = self._unseen or "no chunk within the deadline"
            return self.mover.go_safe(reason, now.ros_s)
        return self.mover.rest(now.ros_s)

    # Small things.

    def _refuse(self, reason: str) -> None:
        self.ledger.drop("chunk", reason)
        self._unseen = reason
        self._refused += 1
        self.new_epoch(reason)
        if self._refused >= self.contract.command.latch_after:
            self.stop(f"{self._refused} chunks refused in a row, the last: {reason}")

    def _hear(self, words: str, now: Now) -> None:
        self._last_words_s, self._pending = now.mono_s, None
        self.instruction = words
        self.goals += 1
        self.new_epoch(f"instruction {words!r}", episode=True)

    def _hear_pending(self, now: Now) -> None:
        due = now.mono_s - self._last_words_s >= MIN_INSTRUCTION_GAP_S
        if self._pending is not None and due:
            self._hear(self._pending, now)

    def _clock(self, now: Now) -> None:
        back_s = self._last_ros_s - now.ros_s
        self._last_ros_s = now.ros_s
        if back_s > 1e-9:
            self.senses.clear()
            self.mover.told.forget_time()
            self.plan = replace(self.plan, moved_s=-math.inf)
            self.ledger.count("clock_jumps")
            self.new_epoch(f"the clock jumped back by {back_s:.3f} s", episode=True)
