"""Messages as openpi's client packs them: msgpack, with arrays as maps. Nothing in them executes.

An array is the map `{b"__ndarray__": true, b"data": bytes, b"dtype": "<f4", b"shape": [...]}`, a
numpy scalar `{b"__npgeneric__": true, b"data": number, b"dtype": "<f4"}`. Only the kinds of numbers
below are read; an array that lies about its size is refused before memory is taken for it.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from policy.serve.errors import WireError

DTYPES = frozenset(("|b1", "|u1", "<u2", "<i4", "<i8", "<f4", "<f8"))
MAX_DEPTH, MAX_DIMENSIONS = 16, 6
_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = (
    *(b"__ndarray__", b"__npgeneric__"),
    *(b"data", b"dtype", b"shape"),
)


def pack(message: dict[str, Any]) -> bytes:
    """One message as bytes.

    Raises:
        WireError: when it holds what cannot travel, such as an array of objects.
    """
    try:
        return msgspec.msgpack.encode(message, enc_hook=_encode)
    except NotImplementedError as error:
        raise WireError(str(error)) from None


def unpack(frame: bytes) -> dict[str, Any]:
    """The message in a frame.

    Raises:
        WireError: on anything that is no map of plain values and arrays.
    """
    try:
        message = msgspec.msgpack.decode(frame)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise WireError(f"{len(frame)} bytes that are no message: {error}") from None
    if not isinstance(message, dict):
        raise WireError(f"a message is a map, this is {type(message).__name__}")
    return _revive(message, MAX_DEPTH)


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.str in DTYPES:
        data = np.ascontiguousarray(value).tobytes()
        return {_ARRAY: True, _DATA: data, _DTYPE: value.dtype.str, _SHAPE: list(value.shape)}
    if isinstance(value, np.generic) and value.dtype.str in DTYPES:
        return value.item()
    kind = getattr(value, "dtype", type(value).__name__)
    raise NotImplementedError(f"{kind} cannot travel: send plain values and numeric arrays")


def _revive(value: Any, depth: int) -> Any:
    if depth < 0:
        raise WireError(f"a message nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_revive(item, depth - 1) for item in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        return _array(value)
    if _SCALAR in value:
        return _scalar(value)
    strange = next((key for key in value if not isinstance(key, str)), None)
    if strange is not None:
        raise WireError(f"key {strange!r} is no text")
    return {key: _revive(item, depth - 1) for key, item in value.items()}


def _dtype(value: dict[Any, Any]) -> np.dtype[Any]:
    name = value.get(_DTYPE)
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError(f"an array of {name!r}: {', '.join(sorted(DTYPES))} are read")
    return np.dtype(name)


def _array(value: dict[Any, Any]) -> np.ndarray:
    dtype, data, shape = _dtype(value), value.get(_DATA), value.get(_SHAPE)
    sizes: list[Any] = shape if isinstance(shape, list) else [None]
    whole = all(type(size) is int and size >= 0 for size in sizes)
    if not whole or len(sizes) > MAX_DIMENSIONS or not isinstance(data, bytes):
        raise WireError(f"an array of shape {shape!r} in {type(data).__name__}")
    if len(data) != dtype.itemsize * math.prod(sizes):
        raise WireError(f"an array of {dtype.str} {sizes} in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(sizes).copy()


def _scalar(value: dict[Any, Any]) -> np.generic:
    dtype, number = _dtype(value), value.get(_DATA)
    if not isinstance(number, (bool, int, float)):
        raise WireError(f"a number that is {type(number).__name__}")
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if limits and not (float(number).is_integer() and limits.min <= number <= limits.max):
        raise WireError(f"{number!r} is no {dtype.str}")
    return dtype.type(number)
