"""The policy's node: a lifecycle around one `Session`.

configure loads, checks, matches and warms; activate opens the gate; deactivate sends the declared
safe action and closes it; an error sends it and stays closed until somebody configures again.
Commands go to the guard, never to the robot.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from leanvla_ros.diagnostics import checks
from leanvla_ros.inputs import subscribe
from leanvla_ros.ladder import Ladder, RungError, parse_rung
from leanvla_ros.outputs import Outputs
from leanvla_ros.parameters import POLICY_NODE, contract_path, declare, value
from leanvla_ros.process import FAILED, GRACE_S, now, run, steady_timer, wait_for_clock
from leanvla_ros.qos import LATCHED
from leanvla_ros.runs import LOOK_S, Runs, serve_action
from leanvla_ros.tape import Tape
from leanvla_ros.worker import Worker
from policy.contract_file import read_contract
from policy.registry import engine_sha256
from policy.robot.session import Session

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleState
    from rclpy.parameter import Parameter

    from policy.contract import Contract
    from policy.robot.health import Check
    from policy.robot.mover import Output
    from policy.robot.session import Question

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class PolicyNode(LifecycleNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        declare(self, POLICY_NODE)
        self.exit_code: int | None = None
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._ladder: Ladder | None = None
        self._worker: Worker | None = None
        self._open = False
        self._crash = ""
        self._complete_s = 0.0
        self._outputs: Outputs | None = None
        self._runs: Runs | None = None
        self._tape = Tape(self.get_clock())
        self._made: list[tuple[Any, Any]] = []
        self.add_on_set_parameters_callback(self._on_parameters)
        for name, kind, callback in (
            ("reset", Trigger, self._on_reset),
            ("stop", Trigger, self._on_stop),
            ("pause", SetBool, self._on_pause),
            ("cancel", Trigger, self._on_cancel),
        ):
            self.create_service(kind, f"~/{name}", callback)
        self._action = serve_action(self, lambda: self._runs if self._open else None)

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check, match, warm."""
        self._crash = ""
        try:
            wait_for_clock(self, value(self, "clock_timeout_s"))
            contract = read_contract(contract_path(value(self, "contract")))
            self._ladder = self._load(contract)
            policy = self._ladder.current.policy
            execute = getattr(policy, "execute", None)
            self._session = Session(contract, policy.observation_spec, policy.action_spec, execute)
        except Exception as error:
            self.get_logger().error(f"cannot configure: {type(error).__name__}: {error}")
            return FAILURE
        self._connect(contract)
        for rung in self._ladder:
            what = f"{rung.runs_on}, because {rung.note}" if rung.note else rung.runs_on
            text = f"rung {rung.method}:{rung.keep:g} is warm, {rung.warm_ms:.1f} ms per query"
            self.get_logger().info(f"{text} ({what})")
        gc.collect()
        gc.freeze()  # a collection that walks a whole policy would hold a command up
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the gate, unless no guard listens or somebody else drives this robot."""
        session = self._the_session()
        hindrance = self._hindrance(session.contract)
        if hindrance:
            self.get_logger().error(f"cannot activate: {hindrance}")
            return FAILURE
        try:
            self._record(session.contract)
        except (OSError, ValueError) as error:
            self.get_logger().error(f"cannot activate: record: {error}")
            return FAILURE
        with self._lock:
            self._tape.remember(session.senses.pairing)
            session.mover.settle()  # what was told meanwhile was others' word
            session.new_epoch("activated", episode=True)
            self._open = True
            if self._runs is not None:
                self._runs.resume()
        self._timer = self.create_timer(session.contract.period_s, self._tick)
        self._worker = Worker(self, self._on_crash)
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Safe action, gate closed. After a fault this is how the error state is entered."""
        self._close("deactivated")
        return ERROR if self._crash else SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Safe action, and back to where only configure helps."""
        self._close(self._crash or "error")
        self.get_logger().error(f"in error state: {self._crash or 'see above'}")
        self._disconnect()
        return SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the robot and free the policy."""
        self._disconnect()
        self._ladder = None
        gc.unfreeze()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Safe action, gate closed."""
        self._close("shut down")
        return SUCCESS

    def leave(self) -> None:
        """The process ends: safe action once."""
        self._close("process ends")

    def _close(self, reason: str) -> None:
        with self._lock:
            if not self._open or self._session is None:
                return
            self._open = False
            self._publish(self._session.halt(reason, now(self)))
            if self._runs is not None:
                self._runs.close(reason)
        self.destroy_timer(self._timer)
        # The inference thread itself may be the one that found the fault.
        if self._worker is not None and threading.current_thread().name != "inference":
            if not self._worker.end(GRACE_S):
                self.get_logger().error("the inference thread does not end: it is left behind")
            self._worker = None
        said = self._tape.stop(reason, GRACE_S)
        if said:
            self.get_logger().info(f"recording: {said}")

    # Setting up.

    def _hindrance(self, contract: Contract) -> str:
        command = contract.command
        # Others may listen too, a recorder for one; only a guard also speaks behind.
        listened = self.count_subscribers(command.topic)
        if not listened or not self.count_publishers(command.guarded_topic):
            return f"no guard listens on {command.topic}: start guard_node"
        for topic in (command.topic, command.guarded_topic):
            others = self.count_publishers(topic)
            if others > 1:
                return f"{others} publishers on {topic}, one may command this robot"
        return ""

    def activate_when_guarded(self) -> None:
        """Activate as soon as nothing is in the way; the reason is said when nothing helps."""
        if self._session is None:
            self.exit_code = FAILED
            return
        self._give_up_s = time.monotonic() + value(self, "guard_timeout_s")
        self._waiting = steady_timer(self, 0.2, self._try_to_activate)

    def _try_to_activate(self) -> None:
        contract = self._the_session().contract
        if self._hindrance(contract) and time.monotonic() < self._give_up_s:
            return
        self.destroy_timer(self._waiting)
        if self.trigger_activate() != SUCCESS:
            self.exit_code = FAILED

    def _load(self, contract: Contract) -> Ladder:
        first = (value(self, "method"), value(self, "keep"))
        rungs = [first, *(parse_rung(text) for text in value(self, "ladder") if text)]
        source = value(self, "policy")
        return Ladder(
            source,
            rungs,
            contract,
            engine=value(self, "engine"),
            say=self.get_logger().info,
            unnorm_key=value(self, "unnorm_key") or None,
            device=value(self, "device"),
            threads=value(self, "threads"),
        )

    def _record(self, contract: Contract) -> None:
        facts = {name: value(self, name) for name in ("policy", "unnorm_key", "method", "keep")}
        engine = self._ladder.current.engine  # type: ignore[union-attr]
        facts["engine"] = engine_sha256(Path(engine)) if engine else ""
        where = self._tape.start(value(self, "record"), contract, value(self, "redact"), facts)
        if where is not None:
            self.get_logger().info(f"recording into {where}")

    def _connect(self, contract: Contract) -> None:
        tap = self._tape.message
        self._outputs = Outputs(self, contract, tap)
        self._outputs.tell_specs(contract, self._ladder.current.policy)  # type: ignore[union-attr]
        for subscription in subscribe(self, self._the_session(), self._lock, self._nudge, tap):
            self._keep(subscription, self.destroy_subscription)
        words = self.create_subscription(String, "~/instruction", self._on_instruction, LATCHED)
        self._keep(words, self.destroy_subscription)
        self._runs = Runs(self, self._the_session(), self._lock, self._outputs.tell_run)
        self._keep(steady_timer(self, LOOK_S, self._runs.look), self.destroy_timer)
        self._keep(steady_timer(self, 1.0, self._report), self.destroy_timer)

    def _keep(self, entity: Any, destroy: Any) -> None:
        self._made.append((entity, destroy))

    def _disconnect(self) -> None:
        with self._lock:
            while self._made:
                entity, destroy = self._made.pop()
                destroy(entity)
            if self._outputs is not None:
                self._outputs.close()
            self._session = self._outputs = self._runs = None

    def _the_session(self) -> Session:
        if self._session is None:
            raise RuntimeError("the node is not configured")
        return self._session

    # Words and buttons.

    def _on_instruction(self, message: String) -> None:
        refused: str | None
        if self._open and self._runs is not None:
            ended = self._runs.begin(message.data)
            refused = ended.reason if ended else None
        else:
            with self._lock:
                refused = self._the_session().instruct(message.data, now(self))
        if refused:
            self.get_logger().warning(f"instruction refused: {refused}")
        self._nudge()

    def _on_reset(self, request: Any, response: Any) -> Any:
        response = self._button(response, "reset")
        if self._open and self._runs is not None:
            self._runs.resume()
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        return self._button(response, "stop", "stopped by service")

    def _on_cancel(self, request: Any, response: Any) -> Any:
        response.success, response.message = self._runs is not None, "canceled"
        if self._runs is not None:
            self._runs.cancel()
        return response

    def _on_pause(self, request: Any, response: Any) -> Any:
        return self._button(response, "pause", request.data)

    def _button(self, response: Any, name: str, *args: Any) -> Any:
        with self._lock:
            response.success = self._session is not None
            response.message = name if response.success else "the node is not configured"
            if self._session is not None:
                getattr(self._session, name)(*args)
                if self._open and (self._session.fault or self._session.paused):
                    self._publish(self._session.tick(now(self)))  # a stop waits for no period
        return response

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Method and budget change together, to a rung that is loaded, from the next query on."""
        if self._open and any(p.name == "record" for p in parameters):
            reason = "record is read-only while the node is active: deactivate it first"
            return SetParametersResult(successful=False, reason=reason)
        wanted = {p.name: p.value for p in parameters if p.name in ("method", "keep")}
        if not wanted or self._ladder is None:
            return SetParametersResult(successful=True)
        before = self._ladder.current
        try:
            rung = self._ladder.find(
                wanted.get("method", before.method), wanted.get("keep", before.keep)
            )
        except RungError as error:
            return SetParametersResult(successful=False, reason=str(error))
        with self._lock:
            self._ladder.switch(rung.method, rung.keep)
            if rung.method != before.method and self._session is not None:
                self._session.new_epoch(f"method {rung.method}")
        return SetParametersResult(successful=True)

    # The desk of the worker.

    def next_question(self) -> Question | None:
        """What to ask now, if anything."""
        self._began_cpu_s = time.thread_time()
        with self._lock:
            if not self._open or self._session is None:
                return None
            self._asked = self._ladder.current  # type: ignore[union-attr]
            question = self._session.ask(now(self))
            if question is not None:
                self._tape.words(question.instruction)
            return question

    def work(self, question: Question) -> None:
        """Decode, infer, answer; move at once where nothing was left to run."""
        rung, session = self._asked, self._the_session()
        policy = rung.policy
        try:
            observation = session.look(question)
            memory = policy.initial_state() if question.memory is None else question.memory
            began_s, thinking_cpu_s = time.perf_counter(), time.thread_time()
            inference = policy.infer(observation, memory)
        except Exception as error:  # every error of a policy ends in the safe action, by name
            with self._lock:
                session.failed(question, error, now(self))
            self.get_logger().error(f"query failed: {type(error).__name__}: {error}")
            return
        thought_s = time.perf_counter() - began_s
        began_cpu_s = self._began_cpu_s + time.thread_time() - thinking_cpu_s
        with self._lock:
            due = session.answer(question, inference, now(self))
            outputs, going = self._outputs, self._open
            if due and going and outputs is not None:
                self._timer.reset()
                self._publish(session.tick(now(self)))
                spent_s = outputs.published_s - self._complete_s - thought_s
                outputs.note_overhead(spent_s, outputs.published_cpu_s - began_cpu_s)
            self._tape.answered(question, observation, inference, rung.name)
        if going and outputs is not None:
            outputs.show(observation, inference)

    def _nudge(self) -> None:
        self._complete_s = time.perf_counter()
        if self._worker is not None:
            self._worker.nudge()

    def _on_crash(self, error: Exception) -> None:
        self._crash = f"the inference thread ended: {type(error).__name__}: {error}"
        with self._lock:
            if self._session is not None:
                self._session.stop(self._crash)

    # Out.

    def _tick(self) -> None:
        with self._lock:
            session = self._session
            if not self._open or session is None:
                return
            self._publish(session.period(now(self)))
            if session.hung:
                self._crash = session.fault
        if self._worker is not None:
            self._worker.nudge()
        if self._crash:
            self.trigger_deactivate()

    def _publish(self, output: Output) -> None:
        if self._outputs is None:
            return
        self._outputs.send(output)
        if output.fresh:
            self._outputs.tell_status(self._checks(now(self).ros_s), output.stamp_s)

    def _report(self) -> None:
        with self._lock:
            if self._outputs is not None:
                now_s = now(self).ros_s
                self._outputs.tell_diagnostics(self._checks(now_s), now_s)

    def _checks(self, now_s: float) -> list[Check]:
        rung, times = self._ladder.current, self._outputs.times  # type: ignore[union-attr]
        return [*checks(self._the_session(), rung, times, now_s), *self._tape.checks()]


def _make() -> PolicyNode:
    node = PolicyNode()
    if value(node, "autostart"):
        node.trigger_configure()
        node.activate_when_guarded()
    return node


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(_make))


if __name__ == "__main__":
    main()
