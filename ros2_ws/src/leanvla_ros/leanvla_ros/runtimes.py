"""What runs each rung of a checkpoint: an engine, or torch and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from policy.registry import is_engine, resolve_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from policy.openvla.engine.choose import Wanted

    Key = tuple[str, float]

AUTO, TORCH = "auto", "torch"


class EngineChoiceError(ValueError):
    """An engine that does not go with the policy."""


class Runtime(NamedTuple):
    """What a rung is loaded from.

    Attributes:
        source: what `load_policy` takes.
        engine: the engine's folder; empty for torch and for a policy with its own runtime.
        note: why it is torch where `auto` was asked for.
    """

    source: str
    engine: str = ""
    note: str = ""


def choose_runtimes(
    source: str,
    rungs: Iterable[Key],
    engine: str,
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> dict[Key, Runtime]:
    """What every rung is loaded from.

    Args:
        source: a packaged name, a folder of a checkpoint or an engine, or module:callable.
        rungs: methods and budgets.
        engine: `auto`, an engine where there is one and torch elsewhere; `torch`; or the folder of
            an engine that runs every rung.
        device: of the policy; `auto` is for `cpu`, where it is known to be faster.
        say: told of engines that are made now.

    Raises:
        PolicyNameError: on an unknown policy.
        EngineChoiceError: for an engine beside a policy that brings its own runtime.
        EngineError: for an engine that is damaged, of other weights, or without a rung.
    """
    keys = list(dict.fromkeys(rungs))
    if ":" in source:
        return _own(source, keys, engine, "")
    folder = resolve_policy(source)
    if is_engine(folder):
        return _own(source, keys, engine, str(folder))
    if engine == TORCH:
        return dict.fromkeys(keys, Runtime(source))
    from policy.openvla.engine.choose import Wanted, choose_engines

    wanted = [Wanted.named(*key) for key in keys]
    if engine != AUTO:
        return dict.fromkeys(keys, _given(Path(engine), folder, wanted))
    if device != "cpu":
        note = f"device is {device}: export an engine and name its folder"
        return dict.fromkeys(keys, Runtime(source, note=note))
    choices = choose_engines(folder, wanted, say)
    found = (
        Runtime(source, note=choice.reason)
        if choice.engine is None
        else Runtime(str(choice.engine), str(choice.engine))
        for choice in choices
    )
    return dict(zip(keys, found, strict=True))


def _own(source: str, keys: Iterable[Key], engine: str, folder: str) -> dict[Key, Runtime]:
    if engine not in (AUTO, TORCH):
        raise EngineChoiceError(
            f"engine is {engine!r}, but policy {source} brings its own runtime: leave one out"
        )
    return dict.fromkeys(keys, Runtime(source, folder))


def _given(engine: Path, checkpoint: Path, wanted: Iterable[Wanted]) -> Runtime:
    from policy.openvla.engine.choose import check_engine

    if not is_engine(engine):
        raise EngineChoiceError(
            f"engine is {str(engine)!r}: give {AUTO}, {TORCH}, or a folder of `leanvla export`"
        )
    check_engine(engine, checkpoint, wanted)
    return Runtime(str(engine), str(engine))
