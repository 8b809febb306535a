"""A server in a process of its own, over loopback: what works, and what must not hurt anybody."""

from __future__ import annotations

import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import msgpack
import numpy as np
import pytest

from policy.serve import client as client_module
from policy.serve.client import ServedPolicy, open_connection
from policy.serve.errors import AddressError, ServeError
from policy.serve.server import PolicyServer
from policy.serve.wire import pack, unpack
from tests.policy.served import ACTION, CARD, SEEN, lying, plain_answer, seen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("websockets")
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    arguments = ("--method", "dense,vla_pruner", "--max-frame-mib", "1", "--max-connections", "3")
    with serving(*arguments) as (address, _):
        yield address


@pytest.fixture
def policy(address: str) -> Iterator[ServedPolicy]:
    policy = ServedPolicy(address)
    yield policy
    policy.close()


def test_a_served_policy_is_the_policy(policy: ServedPolicy) -> None:
    assert (policy.observation_spec, policy.action_spec, policy.execute) == (SEEN, ACTION, 2)
    state = policy.initial_state()
    for query in range(3):  # the server remembers what the ticket is for
        chunk, state, timing = policy.infer(seen(), state)
        assert chunk.actions.tolist() == [[query]] * 4
        assert chunk.normalized.tolist() == [[query / 2]] * 4
    assert [kept.tolist() for kept in chunk.kept] == [[0, 1, 2]] * 2
    assert (timing.visual_tokens, timing.kept_tokens) == (8, 6)
    assert {"vision": 2.0, "head": 1.0}.items() <= timing.phase_ms.items()
    assert {"wait", "trip"} <= set(timing.phase_ms)
    assert policy.infer(seen(), policy.initial_state()).chunk.actions[0, 0] == 0


def test_an_old_ticket_is_refused_and_the_connection_goes_on(policy: ServedPolicy) -> None:
    first = policy.infer(seen(), policy.initial_state()).state
    policy.infer(seen(), first)
    with pytest.raises(ServeError, match="the state of answer 1 was handed in"):
        policy.infer(seen(), first)
    assert policy.infer(seen(), first).chunk.actions[0, 0] == 0  # a new connection begins anew


def test_every_cell_has_its_own_path(address: str) -> None:
    policy = ServedPolicy(address, method="vla_pruner", keep=0.25)
    assert (policy.card.method, policy.card.keep) == ("vla_pruner", 0.25)
    policy.close()
    with pytest.raises(ServeError, match=r"404: /vla_pruner/0.5 is not served here: there are"):
        ServedPolicy(address, method="vla_pruner", keep=0.5)


def test_a_client_of_openpi_is_served(address: str) -> None:
    """By msgpack and keys as openpi's own client sends them."""
    connection = open_connection(address, None, 5.0)
    assert "leanvla" in msgpack.unpackb(connection.recv(timeout=5.0))
    front, wrist = seen().images
    message = {
        "observation/image": front,
        "observation/wrist_image": wrist,
        "observation/state": np.zeros(2),
        "prompt": "go left",
    }
    for query in range(2):
        connection.send(pack(message))
        answer = unpack(connection.recv(timeout=5.0))  # type: ignore[arg-type]
        assert answer["actions"].tolist() == [[query]] * 4
        assert answer["server_timing"]["infer_ms"] >= 0
    assert "prev_total_ms" in answer["server_timing"]
    connection.close()


def test_the_newest_request_wins_and_every_request_is_answered(address: str) -> None:
    connection = open_connection(address, None, 5.0)
    connection.recv(timeout=5.0)
    front, wrist = seen().images
    message = {"observation/image": front, "observation/wrist_image": wrist}
    message |= {"observation/state": np.zeros(2)}
    for words in ("sleep 0.5", "one", "two", "three"):
        connection.send(pack({**message, "prompt": words}))
        time.sleep(0.03)
    answers = [unpack(connection.recv(timeout=5.0)) for _ in range(4)]  # type: ignore[arg-type]
    connection.close()
    assert answers[0]["actions"][0, 0] == 0
    assert answers[1] == answers[2] == {"leanvla": {"superseded": True}}
    assert answers[3]["actions"][0, 0] == 1  # what was superseded was never computed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nan", r"refuses: the policy raised ServeError: action 'dx_m' of row 1 is nan"),
        ("raise", "refuses: the policy raised FloatingPointError: weights are made of cheese"),
    ],
)
def test_a_policy_that_fails_costs_its_client_the_query(
    policy: ServedPolicy, words: str, says: str
) -> None:
    with pytest.raises(ServeError, match=says):
        policy.infer(seen(words), policy.initial_state())
    assert policy.infer(seen(), policy.initial_state()).chunk.actions.shape == (4, 1)


@pytest.mark.parametrize("frame", [b"\xc1garbage", "words", pack({"prompt": "go"})])
def test_noise_is_answered_with_words(address: str, frame: bytes | str) -> None:
    connection = open_connection(address, None, 5.0)
    connection.recv(timeout=5.0)
    connection.send(frame)
    assert isinstance(connection.recv(timeout=5.0), str)
    connection.close()
    ServedPolicy(address).close()  # it serves on


def test_a_frame_that_is_too_large_ends_its_connection_alone(
    address: str, policy: ServedPolicy
) -> None:
    other = ServedPolicy(address)
    large = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    observation = seen()
    object.__setattr__(observation, "images", (large, large))
    with pytest.raises(ServeError, match=r"is lost.*1009"):
        other.infer(observation, other.initial_state())
    assert policy.infer(seen(), policy.initial_state()).chunk.actions.shape == (4, 1)


def test_connections_are_counted(address: str) -> None:
    some = [ServedPolicy(address) for _ in range(3)]
    with pytest.raises(ServeError, match="503: 3 connections are open, no more"):
        ServedPolicy(address)
    some.pop().close()
    time.sleep(0.3)
    some.append(ServedPolicy(address))
    for policy in some:
        policy.close()


def test_health_is_told_and_web_pages_are_turned_away(address: str) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with urllib.request.urlopen(address.replace("ws", "http") + "/healthz", timeout=5) as answer:
        assert answer.read() == b"OK\n"
    with (
        pytest.raises(InvalidStatus, match="403"),
        connect(address, additional_headers={"Origin": "http://evil.example"}, proxy=None),
    ):
        pass


def test_a_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEANVLA_TOKEN", raising=False)
    with pytest.raises(AddressError, match=r"--host 0.0.0.0 can be reached by others"):
        PolicyServer([], "0.0.0.0")
    with serving("--host", "0.0.0.0", token=TOKEN) as (address, _):
        address = address.replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(ServeError, match="401: a token is needed"):
            ServedPolicy(address)
        monkeypatch.setenv("LEANVLA_TOKEN", TOKEN[::-1])
        with pytest.raises(ServeError, match="401"):
            ServedPolicy(address)
        monkeypatch.setenv("LEANVLA_TOKEN", TOKEN)
        ServedPolicy(address).close()


def test_a_server_that_is_killed_is_an_error_at_once_and_may_come_back() -> None:
    with serving() as (address, process):
        policy = ServedPolicy(address)
        state = policy.infer(seen(), policy.initial_state()).state
        process.send_signal(signal.SIGKILL)
        with pytest.raises(ServeError, match=f"the policy server at {address}/dense/1 is lost"):
            policy.infer(seen(), state)
        with pytest.raises(ServeError, match="nobody serves a policy at"):
            policy.infer(seen(), state)
    port = address.rpartition(":")[2]
    with serving("--port", port):
        chunk, state, _ = policy.infer(seen(), state)
        assert chunk.actions[0, 0] == 0  # the memory went with the server
        assert policy.infer(seen(), state).chunk.actions[0, 0] == 1
        policy.close()


def test_a_policy_that_hangs_ends_its_server() -> None:
    with serving("--query-timeout", "0.5") as (address, process):
        policy = ServedPolicy(address, answer_s=5.0)
        with pytest.raises(ServeError, match=r"gave no answer in 0.5 s"):
            policy.infer(seen("sleep 60"), policy.initial_state())
        assert process.wait(10) == 3
        assert "start it again" in process.stderr.read()  # type: ignore[union-attr]


def test_a_slow_server_is_not_waited_for() -> None:
    def slow(message: dict[str, object]) -> dict[str, object]:
        time.sleep(1.0)
        return plain_answer(message)

    with lying(slow) as address:
        policy = ServedPolicy(address, answer_s=0.2)
        began = time.monotonic()
        with pytest.raises(ServeError, match=r"no answer .* in 0.2 s"):
            policy.infer(seen(), policy.initial_state())
        assert time.monotonic() - began < 3.0


def answer_with(**changes: object):
    return lambda message: {**plain_answer(message), **changes}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda _: b"\xc1garbage", "bytes that are no message"),
        (lambda _: "Traceback: no such checkpoint", "refuses: Traceback: no such checkpoint"),
        (answer_with(actions=np.full((4, 1), np.nan, np.float32)), "of row 0 is nan"),
        (answer_with(actions=np.zeros((4, 7), np.float32)), "4 rows of 1 are due"),
        (answer_with(actions=None), "actions are missing"),
        (answer_with(leanvla={"number": 9}), "section leanvla of the answer"),
        (lambda _: b"x" * (2 * 2**20), "is lost.*1009"),
    ],
)
def test_a_server_that_lies_moves_no_robot(
    answer, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "FRAME_BYTES", 2**20)
    with lying(answer) as address:
        policy = ServedPolicy(address)
        with pytest.raises(ServeError, match=says):
            policy.infer(seen(), policy.initial_state())


def test_a_server_that_says_nothing_of_itself_needs_a_contract() -> None:
    with lying(plain_answer, metadata=pack({"reset_pose": [0.0]})) as address:
        with pytest.raises(ServeError, match=r"name its contract, e.g. \?as=openpi_libero"):
            ServedPolicy(address)
        policy = ServedPolicy(f"{address}?as=openpi_libero")
        assert policy.card.action.dof == 7
        policy.close()
        with pytest.raises(AddressError, match="ask for `dense`"):
            ServedPolicy(f"{address}?as=openpi_libero", method="random", keep=0.5)


def test_nobody_is_there() -> None:
    with pytest.raises(ServeError, match=r"nobody serves a policy at ws://127.0.0.1:9"):
        ServedPolicy("ws://127.0.0.1:9")
    assert CARD.rows == 4
