"""What a server says of itself in its first frame, and the contracts of servers that say nothing.

Both sides of a connection publish their spec. A client shows the server's as its own, so that
whoever uses it (a rollout, a robot's contract) compares as with a local policy and refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from policy.openvla.platforms import PLATFORMS
from policy.serve.errors import AddressError, ServeError
from policy.types import ActionSpec, ObservationSpec

if TYPE_CHECKING:
    from policy.types import Policy

PROTOCOL = 1
KEY = "leanvla"
ALIASES = ("observation/image", "observation/wrist_image")
"""What openpi's clients call the first and the second picture."""
STATE, PROMPT, ACTIONS = "observation/state", "prompt", "actions"


class Card(msgspec.Struct, frozen=True):
    """A policy behind a websocket.

    Attributes:
        policy: its name or folder there.
        method: pruning method at work.
        keep: its keep ratio.
        observation: what it reads.
        action: what it says.
        execute: rows of a chunk to execute before the next query.
        rows: rows of every chunk; 0 when a server does not promise a number.
        protocol: version of the `leanvla` section of messages.
    """

    policy: str
    method: str
    keep: float
    observation: ObservationSpec
    action: ActionSpec
    execute: int
    rows: int = 0
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Contract:
    """What is known of a server that does not describe itself.

    Attributes:
        card: its specs.
        images: the message key of each view.
    """

    card: Card
    images: tuple[str, ...]


def card_of(policy: Policy, name: str, method: str, keep: float) -> Card:
    """What a server says of a policy."""
    acts = policy.action_spec
    execute = getattr(policy, "execute", None) or acts.horizon
    return Card(name, method, keep, policy.observation_spec, acts, execute, acts.horizon)


def own_keys(card: Card) -> tuple[str, ...]:
    """The message key of each view for a server of ours."""
    return tuple(f"observation/{view}" for view in card.observation.views)


def metadata_of(card: Card) -> dict[str, Any]:
    """The first frame of a connection."""
    return {KEY: msgspec.to_builtins(card)}


def read_card(metadata: dict[str, Any]) -> Card | None:
    """The card in a first frame; None when the server does not describe itself.

    Raises:
        ServeError: when it does so in another version, or badly.
    """
    section = metadata.get(KEY)
    if section is None:
        return None
    version = section.get("protocol") if isinstance(section, dict) else None
    if version != PROTOCOL:
        raise ServeError(f"the server speaks protocol {version!r}, this client {PROTOCOL}")
    try:
        card = msgspec.convert(section, Card)
    except msgspec.ValidationError as error:
        raise ServeError(f"the server describes itself badly: {error}") from None
    if not card.observation.views or not card.action.names or card.execute < 1:
        raise ServeError("the server describes a policy without views, actions or steps")
    return card


def _openpi_libero() -> Contract:
    """openpi's LIBERO policies, as its example client talks to them and executes their actions."""
    platform = next(platform for platform in PLATFORMS if platform.name == "libero")
    names = (*platform.action_names[:-1], "gripper [-1..1]")
    action = ActionSpec(names, 10, platform.rate_hz, platform.rotation, "-1 open, +1 close")
    seen = ObservationSpec(platform.views, platform.state_names)
    return Contract(Card("openpi_libero", "dense", 1.0, seen, action, execute=5), ALIASES)


CONTRACTS = {"openpi_libero": _openpi_libero}


def contract_of(name: str) -> Contract:
    """The contract called `name`.

    Raises:
        AddressError: when there is none; it lists the known ones.
    """
    if name not in CONTRACTS:
        raise AddressError(f"unknown contract {name!r}: choose one of {', '.join(CONTRACTS)}")
    return CONTRACTS[name]()
