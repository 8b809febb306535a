"""A suite in another interpreter, seen as a suite.

Whatever ends the worker is an error of the request that was open. A rollout keeps this object in a
simulator process under its watchdog; the worker stays in that process's group and dies with it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sim
from policy.types import Observation
from sim.suites.base import EpisodeStart, StepResult
from sim.suites.remote.wire import PROTOCOL, WireError, receive, send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float32, Float64, Int32, UInt8

    from sim.suites.base import SuiteSpec

LAUNCH = Path(__file__).with_name("launch.py")
ROOT = Path(sim.__file__).resolve().parent.parent
START_TIMEOUT_S = 170.0
REQUEST_TIMEOUT_S = 120.0


class RemoteSuiteError(RuntimeError):
    """A worker that could not start, raised, hung or died."""


class RemoteSuite:
    """Handle of a worker; starts it at once.

    Args:
        spec: what the suite shows and takes; the worker is made to fit it.
        python: interpreter of the suite's environment.
        factory: `module:callable` that makes the suite there.
        options: its keyword arguments, as JSON can carry them.
        environment: variables that the worker gets on top of ours.
        start_timeout_s: how long it may take to stand.
        request_timeout_s: how long it may take to answer.

    Raises:
        RemoteSuiteError: when the worker cannot stand.
    """

    def __init__(
        self,
        spec: SuiteSpec,
        python: Path,
        factory: str,
        options: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self.spec = spec
        self._stream, theirs = socket.socketpair()
        command = [python, "-I", LAUNCH, ROOT, str(theirs.fileno()), str(os.getpid()), factory]
        self._process = subprocess.Popen(
            [*map(str, command), json.dumps(dict(options))],
            env={**os.environ, **(environment or {})},
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=2,  # simulators like to talk; our stdout is data
        )
        theirs.close()
        self._stream.settimeout(start_timeout_s)
        version = self._answer("start", "ready")
        if version != PROTOCOL:
            self.close()
            raise RemoteSuiteError(
                f"suite {spec.name}: its worker speaks protocol {version}, this is {PROTOCOL}"
            )
        self._stream.settimeout(request_timeout_s)

    def reset(self, seed: int) -> EpisodeStart:
        """Lay out the scene of `seed`."""
        return EpisodeStart(*self._ask("reset", seed))

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; success still judges the task of the reset."""
        self._ask("set_instruction", instruction)

    def alternative_instruction(self, seed: int) -> str:
        """Another instruction that is valid in this scene and asks for something else."""
        return self._ask("alternative_instruction", seed)

    def observe(self) -> Observation:
        """Render all views and read proprioception."""
        seen = self._ask("observe")
        return Observation(**{**seen, "images": tuple(seen["images"])})

    def step(self, action: Float32[np.ndarray, " dof"]) -> StepResult:
        """Advance one control step."""
        return StepResult(*self._ask("step", np.asarray(action, np.float32)))

    def expert_action(self) -> Float32[np.ndarray, " dof"]:
        """The scripted expert's action in the present state."""
        return self._ask("expert_action")

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """World positions, metres, of `target` and, where there is one, of `goal`."""
        return self._ask("grounding")

    def segmentation(self, view: str) -> tuple[Int32[np.ndarray, "h w"], dict[int, str]]:
        """Instance mask of a view and the name of each id (0 is background)."""
        mask, names = self._ask("segmentation", view)
        return mask, names

    def roles(self) -> dict[str, str]:
        """Name in `segmentation` of each role, of a suite whose spec has some."""
        return self._ask("roles")

    def phase(self) -> str:
        """What the task asks for now, of a suite whose spec has roles."""
        return self._ask("phase")

    def save_state(self) -> Float64[np.ndarray, " state"]:
        """The running episode, of a suite whose spec saves it."""
        return self._ask("save_state")

    def load_state(self, state: Float64[np.ndarray, " state"]) -> None:
        """Return to a state that was saved in an episode of the same seed."""
        self._ask("load_state", np.asarray(state, np.float64))

    def render(self, view: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """One frame of a view at another size, for videos."""
        return self._ask("render", view, size)

    def project(
        self, points: Float32[np.ndarray, "k 3"], view: str
    ) -> tuple[Float32[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
        """Where world points, metres, appear in a view: (u, v) in [0, 1], and whether in frame."""
        where, inside = self._ask("project", np.asarray(points, np.float32), view)
        return where, inside

    def close(self) -> None:
        """End the worker. Safe to call at any time, any number of times."""
        self._stream.close()
        self._end(grace_s=2.0)

    def _ask(self, request: str, *args: Any) -> Any:
        try:
            send(self._stream, (request, args))
        except OSError:
            raise self._lost(request) from None
        return self._answer(request, "answer")

    def _answer(self, request: str, wanted: str) -> Any:
        try:
            kind, value = receive(self._stream)
        except TimeoutError:
            waited = self._stream.gettimeout()
            self._end(grace_s=0.0)
            raise RemoteSuiteError(
                f"suite {self.spec.name}: no answer to `{request}` in {waited:g} s"
            ) from None
        except (EOFError, OSError, WireError, ValueError, TypeError) as error:
            raise self._lost(request, error) from None
        if kind == wanted:
            return value
        if kind != "error":
            self.close()
        raise RemoteSuiteError(f"suite {self.spec.name}: `{request}` raised {value}")

    def _lost(self, request: str, error: Exception | None = None) -> RemoteSuiteError:
        code = self._end(grace_s=1.0)
        how = f"exited with {code}"
        if isinstance(error, WireError):
            how = f"sent what is {error}"
        elif code is None:
            how = "closed its stream"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        return RemoteSuiteError(f"suite {self.spec.name}: its worker {how} during `{request}`")

    def _end(self, grace_s: float) -> int | None:
        """Wait a moment, then kill; returns how it had ended by itself, None if it had not."""
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None
