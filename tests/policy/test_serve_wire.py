from __future__ import annotations

import contextlib
from pathlib import Path

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.serve.address import (
    TOKEN_VARIABLE,
    cell_path,
    find_token,
    is_address,
    is_loopback,
    parse_address,
)
from policy.serve.card import contract_of, metadata_of, read_card
from policy.serve.errors import AddressError, RequestError, ServeError, WireError
from policy.serve.messages import Ticket, check_actions, read_observation, read_ticket, request
from policy.serve.wire import DTYPES, MAX_DEPTH, pack, unpack
from policy.types import ObservationError
from sim.rollout.match import match
from sim.suites import suite_spec
from tests.policy.served import ACTION, CARD, SEEN, seen


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 3)])
def test_arrays_travel_unchanged(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    back = unpack(pack({"a": [array]}))["a"][0]
    assert (back.dtype, back.shape) == (array.dtype, shape)
    assert np.array_equal(back, array)
    assert back.flags.writeable


def openpi_frame(value: np.ndarray) -> bytes:
    """As openpi's client packs it, by the library that it uses."""
    layout = {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str}
    return msgpack.packb({"x": {**layout, b"shape": value.shape}, "prompt": "go"})


def test_the_layout_is_that_of_openpi() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    ours, theirs = pack({"x": value, "prompt": "go"}), openpi_frame(value)
    assert ours == theirs
    assert np.array_equal(unpack(theirs)["x"], value)
    plain = msgpack.unpackb(ours)["x"]
    assert set(plain) == {b"__ndarray__", b"data", b"dtype", b"shape"}
    scalar = {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"}
    assert unpack(msgpack.packb({"s": scalar}))["s"] == np.float32(0.5)


def array(**changes: object) -> dict[bytes, object]:
    names = {name.encode(): value for name, value in changes.items()}
    return {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [1], **names}


@pytest.mark.parametrize(
    "value",
    [
        array(dtype="|O"),
        array(dtype="<c8"),
        array(dtype=7),
        array(shape=[1000, 1000]),
        array(shape=[-1]),
        array(shape=[True]),
        array(shape="1"),
        array(shape=[1] * 9),
        array(data="1234"),
        {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"},
        {b"__npgeneric__": True, b"data": 2**40, b"dtype": "<i4"},
        {1: 2},
    ],
)
def test_what_is_no_array_is_refused(value: object) -> None:
    with pytest.raises(WireError):
        unpack(msgpack.packb({"x": value}))


def test_depth_is_bounded() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH + 2):
        value = [value]
    with pytest.raises(WireError, match="deeper than"):
        unpack(msgpack.packb({"x": value}))
    with pytest.raises(WireError):
        unpack(b"\x81\xa1x" + b"\x91" * 100_000)


@given(st.binary(max_size=64))
def test_noise_is_refused(noise: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(unpack(noise), dict)


def test_objects_do_not_travel() -> None:
    for value in (np.array([print], object), print, 1j):
        with pytest.raises(WireError, match="cannot travel"):
            pack({"x": value})


def test_a_request_is_read_as_it_was_said() -> None:
    said = seen("go left", episode=7)
    message = unpack(pack(request(said, ("observation/front", "observation/wrist"), Ticket(3, 2))))
    assert read_ticket(message) == Ticket(3, 2)
    back = read_observation(message, SEEN, Ticket(3, 2, 7))
    assert all(map(np.array_equal, back.images, said.images))
    assert np.array_equal(back.state, said.state)
    assert (back.instruction, back.episode) == ("go left", 7)


def test_a_client_of_openpi_is_understood() -> None:
    front, wrist = seen().images
    message = {
        "observation/image": front,
        "observation/wrist_image": wrist,
        "observation/state": np.zeros(2),
        "prompt": "go left",
    }
    back = read_observation(unpack(pack(message)), SEEN, Ticket(1))
    assert back.state is not None
    assert back.state.dtype == np.float32
    assert read_ticket(message) is None
    assert np.array_equal(back.images[1], wrist)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"observation/wrist": None}, "view 'wrist' is missing"),
        ({"observation/wrist": "a"}, "view 'wrist' is str"),
        ({"prompt": 3}, "prompt is int"),
        ({"observation/state": "a"}, "observation/state is str"),
    ],
)
def test_a_request_that_lacks_something_is_refused(change: dict[str, object], says: str) -> None:
    keys = ("observation/front", "observation/wrist")
    message = {**request(seen(), keys, Ticket(1)), **change}
    with pytest.raises(RequestError, match=says):
        read_observation({k: v for k, v in message.items() if v is not None}, SEEN, Ticket(1))


def test_an_observation_is_checked_again() -> None:
    keys = ("observation/front", "observation/wrist")
    message = request(seen(), keys, Ticket(1))
    with pytest.raises(ObservationError, match="shape"):
        read_observation({**message, keys[0]: np.zeros((4, 4), np.uint8)}, SEEN, Ticket(1))
    with pytest.raises(ObservationError, match="3 value"):
        read_observation({**message, "observation/state": np.zeros(3)}, SEEN, Ticket(1))
    with pytest.raises(RequestError, match="section leanvla"):
        read_ticket({"leanvla": {"number": "one"}})


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        (None, "are missing"),
        (np.zeros((4, 1), np.int32), "are int32"),
        (np.zeros((4, 2), np.float32), r"shape \[4, 2\]: 4 rows of 1"),
        (np.zeros((3, 1), np.float32), r"shape \[3, 1\]"),
        (np.array([[0], [np.nan], [0], [0]], np.float32), "action 'dx_m' of row 1 is nan"),
        (np.array([[0], [0], [np.inf], [0]], np.float32), "of row 2 is inf"),
    ],
)
def test_actions_that_no_robot_may_execute_are_refused(actions: object, says: str) -> None:
    with pytest.raises(ServeError, match=says):
        check_actions(actions, ACTION, 4, 2)


def test_a_card_travels() -> None:
    assert read_card(unpack(pack(metadata_of(CARD)))) == CARD
    assert read_card({"reset_pose": [0.0]}) is None
    with pytest.raises(ServeError, match="protocol 9, this client 1"):
        read_card({"leanvla": {"protocol": 9}})
    with pytest.raises(ServeError, match="describes itself badly"):
        read_card({"leanvla": {**msgspec.to_builtins(CARD), "execute": "two"}})


class Promises:
    def __init__(self, card: object) -> None:
        self.observation_spec, self.action_spec = card.observation, card.action


def test_the_contract_of_openpis_libero_policies_fits_the_suites() -> None:
    card = contract_of("openpi_libero").card
    match(Promises(card), suite_spec("libero_object"))  # type: ignore[arg-type]
    with pytest.raises(AddressError, match="choose one of openpi_libero"):
        contract_of("openpi_liberty")


def test_addresses() -> None:
    assert is_address("ws://a:1")
    assert is_address("wss://a")
    assert not is_address("module:callable")
    assert parse_address("ws://[::1]:80/").uri == "ws://[::1]:80"
    where = parse_address("ws://h:8000?as=openpi_libero")
    assert where.cell("dense", 1.0) == "ws://h:8000"
    assert parse_address("ws://h:8000").cell("vla_pruner", 0.25) == "ws://h:8000/vla_pruner/0.25"
    assert cell_path("quota+fastv:window=5", 0.5) == "/quota+fastv:window=5/0.5"
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("robot")


@pytest.mark.parametrize(
    "text",
    ["ws://", "ws://h:99999", "ws://h/dense", "ws://me:secret@h", "ws://h?token=1", "ws://h?x"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert "secret@" not in str(caught.value)


def test_tokens_come_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert find_token() is None
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(AddressError, match="has 5 characters"):
        find_token()
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    assert find_token(file) == "0123456789abcdef"
    file.write_text("")
    with pytest.raises(AddressError, match="has 0 characters"):
        find_token(file)
