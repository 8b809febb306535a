"""Messages between a suite and its worker: a length, then msgpack. Nothing in them executes.

Arrays travel as one extension type: their kind and shape, then their bytes. Two 256 px frames are
0.4 MB, which a socket pair carries in less time than one physics step takes, so no memory is
shared and none can be left behind by a worker that dies.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    import socket

PROTOCOL = 1
MAX_BYTES = 64 * 2**20
_LENGTH = struct.Struct(">I")
_ARRAY = 1
_DTYPES = ("bool", "uint8", "int32", "int64", "float32", "float64")


class WireError(RuntimeError):
    """Bytes that are no message of this protocol."""


def send(stream: socket.socket, message: Any) -> None:
    """Send plain values, tuples, dataclasses and arrays.

    Raises:
        WireError: when the message is larger than a receiver accepts.
    """
    payload = msgspec.msgpack.encode(message, enc_hook=_encode)
    if len(payload) > MAX_BYTES:
        raise WireError(f"a message of {len(payload)} bytes: at most {MAX_BYTES} are allowed")
    stream.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(stream: socket.socket) -> Any:
    """The next message; tuples come back as lists, dataclasses as dictionaries.

    Raises:
        EOFError: when the other side is gone.
        TimeoutError: after the stream's timeout.
        WireError: on anything that is no message.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > MAX_BYTES:
        raise WireError(f"a message of {length} bytes is announced: at most {MAX_BYTES} are read")
    try:
        return msgspec.msgpack.decode(_exactly(stream, length), ext_hook=_decode)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"not a message: {error}") from None


def _exactly(stream: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        got = stream.recv_into(view[have:])
        if not got:
            raise EOFError
        have += got
    return data


def _encode(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray) or value.dtype.name not in _DTYPES:
        kind = getattr(value, "dtype", type(value).__name__)
        raise NotImplementedError(f"{kind} cannot travel")
    head = msgspec.msgpack.encode((value.dtype.name, value.shape))
    data = np.ascontiguousarray(value).tobytes()
    return msgspec.msgpack.Ext(_ARRAY, _LENGTH.pack(len(head)) + head + data)


def _decode(code: int, data: memoryview) -> np.ndarray:
    if code != _ARRAY or len(data) < _LENGTH.size:
        raise ValueError(f"extension {code} is unknown")
    start = _LENGTH.size + _LENGTH.unpack(data[: _LENGTH.size])[0]
    name, shape = msgspec.msgpack.decode(data[_LENGTH.size : start], type=tuple[str, list[int]])
    if name not in _DTYPES or min(shape, default=0) < 0:
        raise ValueError(f"array of {name} {shape}")
    dtype, body = np.dtype(name), data[start:]
    if len(body) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"array {name} {shape} in {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape).copy()
