"""The worker's side: a suite answers requests until the stream closes."""

from __future__ import annotations

import importlib
import traceback
from typing import TYPE_CHECKING, Any

from sim.suites.remote.wire import PROTOCOL, receive, send

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from sim.suites.base import Suite

REQUESTS = frozenset(
    (
        *("reset", "set_instruction", "alternative_instruction", "observe", "render"),
        *("step", "expert_action", "grounding", "segmentation", "project"),
        *("roles", "phase", "save_state", "load_state"),
    )
)


def serve(stream: socket.socket, factory: str, options: Mapping[str, Any]) -> None:
    """Make the suite and answer.

    Args:
        stream: our end of the socket pair.
        factory: `module:callable` that makes the suite.
        options: its keyword arguments.
    """
    try:
        suite = _make(factory, options)
    except Exception as error:
        traceback.print_exc()
        send(stream, ("unavailable", describe(error)))
        return
    send(stream, ("ready", PROTOCOL))
    try:
        while True:
            send(stream, _answer(suite, receive(stream)))
    except (EOFError, ConnectionError):
        return
    finally:
        suite.close()


def describe(error: BaseException) -> str:
    """`ValueError: what it said`."""
    return f"{type(error).__name__}: {error}"


def _make(factory: str, options: Mapping[str, Any]) -> Suite:
    module, _, name = factory.partition(":")
    return getattr(importlib.import_module(module), name)(**options)


def _answer(suite: Suite, message: Any) -> tuple[str, Any]:
    request, args = message
    if request not in REQUESTS:
        return "error", f"unknown request {request!r}"
    try:
        return "answer", getattr(suite, request)(*args)
    except Exception as error:
        traceback.print_exc()
        return "error", describe(error)
