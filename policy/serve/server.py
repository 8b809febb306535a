"""The server: policies on a websocket, one connection one memory, one query at a time.

Every request is answered, in order. While the policy computes, later requests of a connection wait
in a slot for one: a newer one takes its place, and the older is answered `superseded` instead of
being computed for a robot that has moved on.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from policy.serve.address import LEAST_TOKEN_CHARS, TOKEN_VARIABLE, cell_path, is_loopback
from policy.serve.card import KEY, metadata_of
from policy.serve.errors import AddressError, RequestError, ServeError, WireError
from policy.serve.messages import Ticket, answer, check_actions, read_observation, read_ticket
from policy.serve.slot import ClosedSlotError, Slot
from policy.serve.thread import PolicyThread
from policy.serve.wire import pack, unpack
from policy.types import ObservationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from policy.serve.card import Card
    from policy.types import Inference, Observation, Policy
    from pruning.history import PrunerState

SUPERSEDED = {KEY: {"superseded": True}}
_BAD_DATA, _INTERNAL, _AGAIN = 1007, 1011, 1013
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a server.

    Attributes:
        frame_bytes: largest message that is read.
        connections: open at the same time.
        query_s: after so long a query has hung; the server ends, since its policy may never return.
        idle_s: a connection without a request for so long is closed.
        send_s: a client that does not take its answer in this time is closed.
    """

    frame_bytes: int = 16 * 2**20
    connections: int = 16
    query_s: float = 60.0
    idle_s: float = 600.0
    send_s: float = 10.0


class Cell(NamedTuple):
    """One policy on offer: a pruning method at a keep ratio."""

    card: Card
    policy: Policy


@dataclass
class _Memory:
    """One connection's: the pruner's state, and the answer that it belongs to."""

    state: PrunerState
    number: int = 0


@dataclass(frozen=True)
class _Reply:
    """What goes back: a message, or a refusal in words; `code` closes the connection after it."""

    frame: bytes | str
    code: int = 0


@dataclass
class PolicyServer:
    """Serves some cells.

    Attributes:
        cells: what is on offer; the first is also found under `/`.
        host: where to listen.
        port: 0 takes a free one.
        token: what a client must know; may be left out on loopback alone.
        limits: what a client may ask.

    Raises:
        AddressError: when others than this machine could connect and no token is set.
    """

    cells: Sequence[Cell]
    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check who could connect."""
        if self.token is None and not is_loopback(self.host):
            raise AddressError(
                f"--host {self.host} can be reached by others: set {TOKEN_VARIABLE} to a secret of "
                f"{LEAST_TOKEN_CHARS} or more characters, or listen on 127.0.0.1"
            )
        self._by_path = {cell_path(c.card.method, c.card.keep): c for c in self.cells}
        self._by_path["/"] = self.cells[0]
        self._open = 0
        self._policies = PolicyThread()

    async def run(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Args:
            ready: told the port, once connections are accepted.
            stop: set it to end.

        Raises:
            ServeError: when a query hung: its policy may never return.
            OSError: when the port is taken.
        """
        from websockets.asyncio.server import serve

        self._stop, self._hung = stop, ""
        async with serve(
            self._handle,
            self.host,
            self.port,
            compression=None,
            max_size=self.limits.frame_bytes,
            max_queue=2,
            process_request=self._admit,
            origins=[None],  # no web page may speak to a robot, from whatever site it comes
            close_timeout=2.0,
        ) as server:
            ready(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()
            self._policies.abandon()
        if self._hung:
            raise ServeError(self._hung)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is no connection, and refuse those that may not connect."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self.token is not None and not _knows(request, self.token):
            return connection.respond(
                HTTPStatus.UNAUTHORIZED,
                f"a token is needed: set {TOKEN_VARIABLE} to the server's\n",
            )
        if path not in self._by_path:
            known = ", ".join(self._by_path)
            return connection.respond(
                HTTPStatus.NOT_FOUND, f"{path} is not served here: there are {known}\n"
            )
        if self._open >= self.limits.connections:
            return connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{self._open} connections are open, no more\n"
            )
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        request = connection.request
        cell = self._by_path[request.path.partition("?")[0] if request else "/"]
        self._open += 1
        slot = Slot()
        reader = asyncio.create_task(slot.fill(connection))
        try:
            await self._send(connection, pack(metadata_of(cell.card)))
            await self._converse(connection, cell, slot)
        except (ConnectionClosed, ClosedSlotError):
            return
        except TimeoutError:
            await connection.close(_AGAIN, "the answer was not taken")
        finally:
            self._open -= 1
            reader.cancel()

    async def _converse(self, connection: ServerConnection, cell: Cell, slot: Slot) -> None:
        memory, previous_ms = _Memory(cell.policy.initial_state()), None
        while True:
            try:
                taken = await asyncio.wait_for(slot.take(), self.limits.idle_s)
            except (TimeoutError, asyncio.TimeoutError):
                await connection.close(1000, f"no request in {self.limits.idle_s:g} s")
                return
            for _ in range(taken.superseded):
                await self._send(connection, pack(SUPERSEDED))
            reply = await self._reply(cell, memory, taken.frame, previous_ms)
            await self._send(connection, reply.frame)
            previous_ms = (time.perf_counter() - taken.since) * 1e3
            if reply.code:
                await connection.close(reply.code)
                return

    async def _send(self, connection: ServerConnection, frame: bytes | str) -> None:
        try:
            await asyncio.wait_for(connection.send(frame), self.limits.send_s)
        except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
            raise TimeoutError from None

    async def _reply(
        self, cell: Cell, memory: _Memory, frame: bytes | str, previous_ms: float | None
    ) -> _Reply:
        try:
            seen, ticket = _read(frame, cell, memory)
        except WireError as error:
            return _Reply(str(error), _BAD_DATA)
        except (RequestError, ObservationError) as error:
            return _Reply(str(error))
        state = memory.state if ticket.after else cell.policy.initial_state()
        queued = time.perf_counter()
        try:
            began, inference, ended = await self._policies.run(
                lambda: _infer(cell, seen, state), self.limits.query_s
            )
        except TimeoutError:
            return self._give_up(cell, ticket)
        except Exception as error:  # the policy's own; the client learns what, the log learns where
            _LOG.exception("request %d", ticket.number)
            return _Reply(f"the policy raised {type(error).__name__}: {error}", _INTERNAL)
        memory.state, memory.number = inference.state, ticket.number
        waited_ms, infer_ms = (began - queued) * 1e3, (ended - began) * 1e3
        message = answer(inference, ticket.number, waited_ms, infer_ms)
        if previous_ms is not None:
            message["server_timing"]["prev_total_ms"] = previous_ms
        return _Reply(pack(message))

    def _give_up(self, cell: Cell, ticket: Ticket) -> _Reply:
        waited = f"policy {cell.card.policy} gave no answer in {self.limits.query_s:g} s"
        self._hung = f"{waited} (request {ticket.number}); the server ends, start it again"
        self._stop.set()
        return _Reply(waited, _INTERNAL)


def _infer(cell: Cell, seen: Observation, state: PrunerState) -> tuple[float, Inference, float]:
    """Runs in the policy's thread; actions that no robot may execute never leave it."""
    began = time.perf_counter()
    inference = cell.policy.infer(seen, state)
    card = cell.card
    check_actions(inference.chunk.actions, card.action, card.rows, card.execute)
    return began, inference, time.perf_counter()


def _read(frame: bytes | str, cell: Cell, memory: _Memory) -> tuple[Observation, Ticket]:
    if isinstance(frame, str):
        raise WireError("a text frame: requests are binary")
    message: dict[str, Any] = unpack(frame)
    ticket = read_ticket(message)
    if ticket is None:  # a client of openpi: its connection is its episode, the clock is ours
        ticket = Ticket(memory.number + 1, memory.number, 0, time.monotonic())
    if ticket.after not in (0, memory.number):
        raise RequestError(
            f"the state of answer {ticket.after} was handed in, the server has that of answer "
            f"{memory.number} alone: a served policy goes on, or begins anew"
        )
    return read_observation(message, cell.card.observation, ticket), ticket


def _knows(request: Request, token: str) -> bool:
    given = request.headers.get_all("Authorization")
    wanted = [f"{scheme} {token}".encode() for scheme in ("Api-Key", "Bearer")]
    if len(given) != 1:
        return False
    said = given[0].encode(errors="replace")
    return any([hmac.compare_digest(said, right) for right in wanted])
