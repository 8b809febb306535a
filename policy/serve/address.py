"""Where a server is: `ws://host:port`, and which of its policies is meant."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from policy.serve.errors import AddressError

SCHEMES = ("ws", "wss")
TOKEN_VARIABLE = "LEANVLA_TOKEN"
LEAST_TOKEN_CHARS = 16


class Address(NamedTuple):
    """A server.

    Attributes:
        uri: scheme, host and port, as a websocket client takes them.
        contract: what the server is when it does not describe itself; empty when it does.
    """

    uri: str
    contract: str = ""

    def cell(self, method: str, keep: float) -> str:
        """The URI of one pruning method and keep ratio; of whatever it serves, for a contract."""
        return self.uri if self.contract else f"{self.uri}{cell_path(method, keep)}"


def cell_path(method: str, keep: float) -> str:
    """The path under which a server offers a method: `/vla_pruner/0.25`."""
    return f"/{quote(method, safe='+:=,')}/{keep:g}"


def is_address(text: str) -> bool:
    """Whether a policy's name is that of a server."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def parse_address(text: str) -> Address:
    """`ws://host:port` or `wss://host:port`, with `?as=CONTRACT` for a server of others.

    Raises:
        AddressError: for anything else.
    """
    try:
        parts = urlsplit(text)
        query, port = parse_qs(parts.query, strict_parsing=bool(parts.query)), parts.port
    except ValueError as error:
        raise AddressError(f"{text!r} is no address: {error}") from None
    if parts.scheme not in SCHEMES or not parts.hostname or parts.path not in ("", "/"):
        raise AddressError(f"{text!r} is no address: give ws://host:port, e.g. ws://127.0.0.1:8000")
    if parts.username or parts.password or set(query) - {"as"}:
        raise AddressError(
            f"{parts.hostname}: only ?as=CONTRACT may follow the port; a token is read from "
            f"{TOKEN_VARIABLE}"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    uri = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    return Address(uri, query.get("as", [""])[0])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_token(file: Path | None = None) -> str | None:
    """The secret that a client must know: a file's first line, or the environment variable's.

    Raises:
        AddressError: when it is too short to keep anybody out.
    """
    text = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text(encoding="utf-8")
    token = (text or "").strip()
    if not token and file is None:
        return None
    if len(token) < LEAST_TOKEN_CHARS or not token.isascii() or " " in token:
        where = TOKEN_VARIABLE if file is None else str(file)
        raise AddressError(
            f"the token in {where} has {len(token)} characters: give {LEAST_TOKEN_CHARS} or more "
            "of ASCII without spaces, e.g. from `openssl rand -hex 32`"
        )
    return token
