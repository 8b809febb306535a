"""Requests and answers: observations and action chunks as messages, checked on both sides.

A request of openpi's clients is understood as it is. Ours adds a section `leanvla`: the number of
the request, the answer whose memory it goes on from, episode and time. Answers add everything that
a local policy tells beside its actions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from policy.serve.card import ACTIONS, ALIASES, KEY, PROMPT, STATE
from policy.serve.errors import RequestError, ServeError
from policy.types import ActionChunk, Observation, Timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32

    from policy.serve.card import Card
    from policy.types import ActionSpec, Inference, ObservationSpec

WAIT = "wait"
"""The phase in which a query waits for those of other clients."""


class Ticket(msgspec.Struct, frozen=True):
    """Our section of a request.

    Attributes:
        number: of this request, from 1.
        after: number of the answer whose memory it goes on from; 0 for none.
        episode: see `Observation`.
        stamp_s: see `Observation`.
    """

    number: int
    after: int = 0
    episode: int = 0
    stamp_s: float = 0.0


class _Times(msgspec.Struct, frozen=True):
    """What a query's time went into, as it travels; the fields are those of `Timing`."""

    query_ms: float
    phase_ms: dict[str, float] = {}
    visual_tokens: int = 0
    kept_tokens: int = 0
    dense_warmup: bool = False
    sequence_tokens: int = 0
    kept_sequence_tokens: int = 0
    layer_sequence_tokens: float = 0.0


class _Told(msgspec.Struct, frozen=True):
    """Our section of an answer, without its arrays."""

    number: int
    wait_ms: float
    infer_ms: float
    timing: _Times


def request(observation: Observation, keys: Sequence[str], ticket: Ticket) -> dict[str, Any]:
    """An observation as a message.

    Args:
        observation: what is seen.
        keys: message key of each view.
        ticket: our section.
    """
    message: dict[str, Any] = dict(zip(keys, observation.images, strict=True))
    if observation.state is not None:
        message[STATE] = observation.state
    return {**message, PROMPT: observation.instruction, KEY: msgspec.to_builtins(ticket)}


def read_ticket(message: dict[str, Any]) -> Ticket | None:
    """Our section of a request; None from a client that has none.

    Raises:
        RequestError: when it is damaged.
    """
    if KEY not in message:
        return None
    try:
        return msgspec.convert(message[KEY], Ticket)
    except msgspec.ValidationError as error:
        raise RequestError(f"section {KEY} of the request: {error}") from None


def read_observation(message: dict[str, Any], spec: ObservationSpec, ticket: Ticket) -> Observation:
    """The observation in a request.

    Raises:
        RequestError: when a picture, the state or the words are missing or of the wrong kind.
        ObservationError: when they are what no policy may act on.
    """
    images = tuple(_picture(message, view, place) for place, view in enumerate(spec.views))
    state = message.get(STATE)
    if state is not None:
        if not isinstance(state, np.ndarray) or state.dtype.kind not in "fiu":
            raise RequestError(f"{STATE} is {_kind(state)}: send numbers")
        state = state.astype(np.float32)
    prompt = message.get(PROMPT)
    if not isinstance(prompt, str):
        raise RequestError(f"{PROMPT} is {_kind(prompt)}: send the instruction as text")
    seen = Observation(images, state, prompt, ticket.stamp_s, ticket.episode)
    seen.check_against(spec)
    return seen


def _picture(message: dict[str, Any], view: str, place: int) -> np.ndarray:
    keys = [f"observation/{view}", *ALIASES[place : place + 1]]
    found = next((message[key] for key in keys if key in message), None)
    if not isinstance(found, np.ndarray):
        raise RequestError(
            f"view {view!r} is {_kind(found)}: send RGB as {' or '.join(keys)}; the policy reads "
            "uint8 arrays [h, w, 3]"
        )
    return found


def answer(inference: Inference, number: int, wait_ms: float, infer_ms: float) -> dict[str, Any]:
    """An action chunk, and where its time went, as a message."""
    chunk, _, timing = inference
    fields = {name: getattr(timing, name) for name in _Times.__struct_fields__}
    times = _Times(**{**fields, "phase_ms": dict(timing.phase_ms)})
    told = msgspec.to_builtins(_Told(number, wait_ms, infer_ms, times))
    arrays = {"normalized": chunk.normalized, "tokens": chunk.tokens, "kept": list(chunk.kept)}
    timings = {"infer_ms": infer_ms, "wait_ms": wait_ms}
    return {ACTIONS: chunk.actions, "server_timing": timings, KEY: {**told, **arrays}}


def check_actions(actions: Any, spec: ActionSpec, rows: int, least: int) -> None:
    """Refuse what no robot may execute.

    Args:
        actions: what a policy said.
        spec: what it should mean.
        rows: rows that there must be; 0 for at least `least`.
        least: see `rows`.

    Raises:
        ServeError: for anything but a table of finite numbers of the promised shape.
    """
    if not isinstance(actions, np.ndarray) or actions.dtype.kind != "f":
        raise ServeError(f"actions are {_kind(actions)}: a table of numbers was expected")
    shape = actions.shape
    fits = len(shape) == 2 and shape[1] == spec.dof
    if not fits or (shape[0] != rows if rows else shape[0] < least):
        wanted = rows or f"at least {least}"
        raise ServeError(f"actions have shape {list(shape)}: {wanted} rows of {spec.dof} are due")
    if not np.isfinite(actions).all():
        row, column = np.argwhere(~np.isfinite(actions))[0]
        raise ServeError(f"action {spec.names[column]!r} of row {row} is {actions[row, column]}")


class Answer(NamedTuple):
    """What came back.

    Attributes:
        timing: what the server's policy tells of its time.
        there_ms: time that the server spent on the request, waiting included.
    """

    chunk: ActionChunk
    timing: Timing
    there_ms: float


def read_answer(message: dict[str, Any], card: Card, number: int) -> Answer:
    """The chunk in an answer, and what the server tells of its time.

    Raises:
        ServeError: when it is no answer to request `number`, or nothing to execute.
    """
    said: Any = message.get(ACTIONS)
    check_actions(said, card.action, card.rows, card.execute)
    actions = said.astype(np.float32)
    section = message.get(KEY)
    if section is None:
        timing = _plain_timing(message)
        return Answer(ActionChunk(actions, actions, None, ()), timing, timing.query_ms)
    try:
        told = msgspec.convert(section, _Told)
    except msgspec.ValidationError as error:
        raise ServeError(f"section {KEY} of the answer: {error}") from None
    if told.number != number:
        raise ServeError(f"answer {told.number} came where answer {number} was due")
    chunk = ActionChunk(actions, _normalized(section, actions), _tokens(section), _kept(section))
    fields = msgspec.structs.asdict(told.timing)
    fields["phase_ms"] = {**told.timing.phase_ms, WAIT: told.wait_ms}
    return Answer(chunk, Timing(**fields), told.wait_ms + told.infer_ms)


def _plain_timing(message: dict[str, Any]) -> Timing:
    """What openpi's server tells: how long its policy took."""
    told = message.get("server_timing")
    spent = told.get("infer_ms") if isinstance(told, dict) else None
    if not isinstance(spent, (int, float)) or isinstance(spent, bool):
        return Timing(query_ms=0.0)
    return Timing(query_ms=float(spent), phase_ms={"infer": float(spent)})


def _normalized(section: dict[str, Any], actions: np.ndarray) -> Float32[np.ndarray, "rows dof"]:
    found = section.get("normalized")
    if not isinstance(found, np.ndarray) or found.shape != actions.shape:
        raise ServeError("the answer's normalised actions are not those of its actions")
    return found.astype(np.float32)


def _tokens(section: dict[str, Any]) -> np.ndarray | None:
    found = section.get("tokens")
    return found.astype(np.int64) if isinstance(found, np.ndarray) else None


def _kept(section: dict[str, Any]) -> tuple[np.ndarray, ...]:
    found = section.get("kept")
    if not isinstance(found, list) or not all(isinstance(view, np.ndarray) for view in found):
        raise ServeError("the answer does not tell which tokens were kept")
    return tuple(view.astype(np.int64) for view in found)


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
