"""A policy behind a websocket, seen as a policy.

It speaks to `leanvla serve` and to openpi's policy server. The pruner's memory stays with the
server; the state that a caller holds is a ticket for it. A connection that was lost is made anew by
the next query, which then begins without memory, as after a gap in time.
"""

from __future__ import annotations

import dataclasses
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from policy.serve.address import find_token, parse_address
from policy.serve.card import contract_of, own_keys, read_card
from policy.serve.errors import AddressError, ServeError, WireError
from policy.serve.messages import Ticket, read_answer, request
from policy.serve.wire import pack, unpack
from policy.types import Inference
from pruning.history import PrunerState, fresh

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from policy.serve.card import Card
    from policy.types import Observation

FRAME_BYTES = 16 * 2**20
CONNECT_S, ANSWER_S = 10.0, 60.0
TRIP = "trip"
"""The phase that is left of a query when the server's own time is taken off."""


class ServedPolicy:
    """Handle of a served policy; connects at once.

    Attributes:
        card: what the server says of itself, or what its contract knows.
        observation_spec: views and proprioception that it reads.
        action_spec: what one action row means.
        execute: rows of a chunk to execute before the next query.

    Args:
        address: `ws://host:port`, see `parse_address`.
        method: pruning method that the server shall run.
        keep: its keep ratio.
        answer_s: how long an answer may take, seconds.

    Raises:
        AddressError: for an address that is none.
        ServeError: when nobody answers there, or not with this method.
    """

    def __init__(
        self,
        address: str,
        *,
        method: str = "dense",
        keep: float = 1.0,
        answer_s: float = ANSWER_S,
    ) -> None:
        where = parse_address(address)
        self._uri, self._answer_s = where.cell(method, keep), answer_s
        self._contract = contract_of(where.contract) if where.contract else None
        if self._contract is not None and method != "dense":
            raise AddressError(f"{address}: what this server prunes is not told; ask for `dense`")
        self._token = find_token()
        self._numbers = 0
        self._first = 1
        connection, card = self._connect()
        self._connection: ClientConnection | None = connection
        self.card: Card = self._known(card, method, keep)
        self._keys = own_keys(self.card) if self._contract is None else self._contract.images
        self.observation_spec, self.action_spec = self.card.observation, self.card.action
        self.execute = self.card.execute

    def initial_state(self) -> PrunerState:
        """Nothing remembered."""
        return fresh()

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        """Run one query over there.

        Raises:
            ObservationError: when the observation lacks a view or proprioception.
            ServeError: when the server is lost, refuses, or answers what no robot may execute.
        """
        observation.check_against(self.observation_spec)
        began = time.perf_counter()
        connection = self._connection or self._reconnect()
        self._numbers += 1
        after = state.queries if state.queries >= self._first else 0
        ticket = Ticket(self._numbers, after, observation.episode, observation.stamp_s)
        message = self._exchange(connection, request(observation, self._keys, ticket))
        chunk, told, there_ms = read_answer(message, self.card, self._numbers)
        total_ms = (time.perf_counter() - began) * 1e3
        phases = {**told.phase_ms, TRIP: max(0.0, total_ms - there_ms)}
        timing = dataclasses.replace(told, query_ms=total_ms, phase_ms=phases)
        return Inference(chunk, PrunerState(queries=self._numbers), timing)

    def close(self) -> None:
        """Hang up. Safe at any time, any number of times."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> tuple[ClientConnection, Card | None]:
        connection = open_connection(self._uri, self._token, self._answer_s)
        try:
            return connection, read_card(_receive(connection, self._uri, CONNECT_S))
        except BaseException:
            connection.close()
            raise

    def _reconnect(self) -> ClientConnection:
        connection, card = self._connect()
        if card is not None and card != self.card:
            connection.close()
            raise ServeError(f"{self._uri} serves another policy now: {card}; it was {self.card}")
        self._connection, self._first = connection, self._numbers + 1
        return connection

    def _known(self, card: Card | None, method: str, keep: float) -> Card:
        if self._contract is not None:
            return self._contract.card
        if card is None:
            self.close()
            raise ServeError(
                f"{self._uri} does not say what it reads and what its actions mean: name its "
                "contract, e.g. ?as=openpi_libero"
            )
        if card.method != method or (method != "dense" and card.keep != keep):
            self.close()
            raise ServeError(
                f"{self._uri} runs {card.method} @ {card.keep:g}, {method} @ {keep:g} was asked for"
            )
        return card

    def _exchange(self, connection: ClientConnection, message: dict[str, Any]) -> dict[str, Any]:
        try:
            _send(connection, self._uri, pack(message))
            return _receive(connection, self._uri, self._answer_s)
        except BaseException:
            self.close()
            raise


def open_connection(uri: str, token: str | None, send_s: float) -> ClientConnection:
    """A connection whose sends cannot wait forever.

    Raises:
        ServeError: when nobody answers, or with a refusal.
    """
    from websockets.exceptions import InvalidStatus, WebSocketException
    from websockets.sync.client import connect

    headers = {"Authorization": f"Api-Key {token}"} if token else None
    try:
        # Entered here and closed by `close`; newer versions warn of a connection that is not.
        connection = connect(
            uri,
            compression=None,
            max_size=FRAME_BYTES,
            additional_headers=headers,
            open_timeout=CONNECT_S,
            close_timeout=1.0,
            proxy=None,
        ).__enter__()
    except InvalidStatus as error:
        said = (error.response.body or b"")[:200].decode(errors="replace").strip()
        code = error.response.status_code
        raise ServeError(f"{uri} refuses with {code}: {said or 'no reason given'}") from None
    except (OSError, WebSocketException) as error:
        raise ServeError(f"nobody serves a policy at {uri}: {error}") from None
    seconds, rest = divmod(send_s, 1.0)
    limit = struct.pack("ll", int(seconds), int(rest * 1e6))
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return connection


def _send(connection: ClientConnection, uri: str, frame: bytes) -> None:
    from websockets.exceptions import ConnectionClosed

    if len(frame) > FRAME_BYTES:
        raise ServeError(f"a request of {len(frame)} bytes: at most {FRAME_BYTES} are sent")
    try:
        connection.send(frame)
    except (OSError, ConnectionClosed) as error:
        raise ServeError(f"the policy server at {uri} is lost: {error}") from None


def _receive(connection: ClientConnection, uri: str, timeout_s: float) -> dict[str, Any]:
    from websockets.exceptions import ConnectionClosed

    try:
        frame = connection.recv(timeout=timeout_s)
    except TimeoutError:
        raise ServeError(f"no answer of the policy server at {uri} in {timeout_s:g} s") from None
    except (OSError, ConnectionClosed) as error:
        raise ServeError(f"the policy server at {uri} is lost: {error}") from None
    if isinstance(frame, str):
        raise ServeError(f"the policy server at {uri} refuses: {frame[:500]}")
    try:
        return unpack(frame)
    except WireError as error:
        raise ServeError(f"the policy server at {uri} sent {error}") from None
