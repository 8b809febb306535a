"""Child processes that cannot hurt their parent: few threads, own output, certain death."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

_SPAWN = multiprocessing.get_context("spawn")
_PR_SET_PDEATHSIG = 1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Child:
    """A child process and our end of its pipe.

    Args:
        target: an importable function; its first argument is the child's end of the pipe.
        args: the rest of its arguments.
        threads: threads that numerical libraries may use in the child.
        log: file that takes the child's stdout and stderr; None leaves both on stderr.
    """

    def __init__(
        self, target: Callable[..., None], *args: Any, threads: int, log: str | None
    ) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_enter, args=(target, theirs, log, os.getpid(), args), daemon=False
        )
        with _thread_limits(threads):
            self._process.start()
        theirs.close()

    def end(self, grace_s: float = 0.0) -> str:
        """Kill the child and all that it started; returns how it had ended by itself, if it had.

        Args:
            grace_s: how long to wait for it to end by itself. A child whose pipe broke needs a
                moment before its exit code is known.
        """
        self._process.join(grace_s)
        code = self._process.exitcode
        if self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self.connection.close()
        return _describe_exit(code)


def _describe_exit(code: int | None) -> str:
    """`was ended by SIGSEGV`, `exited with 3`, or what else is known."""
    if code is None:
        return "closed its pipe"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"exited with {code}"


def _enter(
    target: Callable[..., None],
    connection: Connection,
    log: str | None,
    parent: int,
    args: tuple[Any, ...],
) -> None:
    os.setsid()  # a group of its own: Ctrl-C reaches only the supervisor, `end` reaches everything
    die_with(parent)
    _redirect(log)
    faulthandler.enable()
    with contextlib.suppress(BrokenPipeError, EOFError, ConnectionResetError):
        target(connection, *args)


def die_with(parent: int) -> None:
    """Ask the kernel (Linux) to end this process with its parent, even in a hung GL call."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _redirect(log: str | None) -> None:
    """Keep stdout clean: it carries the parent's data, and simulators like to talk."""
    if log is None:
        os.dup2(2, 1)
        return
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


@contextlib.contextmanager
def _thread_limits(threads: int) -> Iterator[None]:
    """Libraries read these when they are imported, so they must stand before the child begins."""
    wanted = dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {"LP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
