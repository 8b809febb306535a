"""How two runs differ that are compared: settings, what ran the policy, machine, packages, code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from sim.analysis.runs import SHOWN_DIGITS, UNSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sim.analysis.runs import RunFolder

# Settings that say which episodes there are or what is written, not how an episode goes.
_BOOKKEEPING = frozenset(
    {
        *("method", "keep", "episodes", "seed", "out", "resume", "json"),
        *("video", "rerun", "record", "redact", "truth"),
    }
)
_MACHINE = ("git_commit", "packages", "python", "platform", "cpu_model", "cores", "threads")
_CONTENT = (("suite", "assets"), ("policy", "weights"), ("policy", "engine"), ("code",))


class Difference(NamedTuple):
    """One thing in which two set-ups differ; `not told` where a folder does not say."""

    what: str
    ours: str
    theirs: str


def setup_differences(ours: RunFolder, theirs: RunFolder) -> list[Difference]:
    """Everything that the two folders tell and that is not the same, settings first."""
    pairs = (
        (_settings(ours), _settings(theirs)),
        (_seen(ours), _seen(theirs)),
        (_content(ours), _content(theirs)),
        (_machine(ours), _machine(theirs)),
    )
    return [
        Difference(name, one.get(name, "not told"), other.get(name, "not told"))
        for one, other in pairs
        for name in {**one, **other}
        if one.get(name) != other.get(name)
    ]


def _settings(folder: RunFolder) -> dict[str, str]:
    return {
        name: "default" if value in UNSET else str(value)
        for name, value in folder.config.items()
        if name not in _BOOKKEEPING
    }


def _seen(folder: RunFolder) -> dict[str, str]:
    """What the episodes themselves say of how they were run."""
    found = {
        "ran on": {record.engine for record in folder.records},
        "drawn": {record.render_profile for record in folder.records},
    }
    return {name: _joined(values) for name, values in found.items() if values - {""}}


def _content(folder: RunFolder) -> dict[str, str]:
    """Hashes of weights, assets, engines and code, where the run or its sweep noted them."""
    path = folder.path / "run.json"
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, LookupError, TypeError):
        identity = {}
    found = {" ".join(keys): _at(identity, keys) or _at(folder.env, keys) for keys in _CONTENT}
    return {name: _digests(value) for name, value in found.items() if value}


def _machine(folder: RunFolder) -> dict[str, str]:
    told: dict[str, str] = {}
    suite = ("suite packages", _at(folder.env, ("suite", "packages")))
    for name, value in (*((name, folder.env.get(name)) for name in _MACHINE), suite):
        if isinstance(value, dict):
            told |= {f"{name} {key}": str(inner) for key, inner in value.items()}
        elif value is not None:
            told[name] = str(value)
    return told


def _at(values: Mapping[str, object], keys: Iterable[str]) -> object:
    found: object = values
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _digests(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(str(one)[:SHOWN_DIGITS] for one in values)


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values) - {""}))
