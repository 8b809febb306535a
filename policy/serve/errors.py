"""What can go wrong between a policy's server and its client."""

from __future__ import annotations


class AddressError(ValueError):
    """An address that names no server, or asks for what no server may do."""


class WireError(ValueError):
    """Bytes that are no message of this protocol."""


class RequestError(ValueError):
    """A message that the policy cannot answer: says what is missing or wrong."""


class ServeError(RuntimeError):
    """A server that cannot be reached, refuses, is lost, or answers what no robot may execute."""

    exit_code = 3
