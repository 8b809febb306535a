"""The one call: a model and a method in, a context manager out.

with prune(model, VLAPruner(keep=0.25)) as session:
    model.generate(**inputs)
session.counts.calls, session.counts.tokens_out, session.kept
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from pruning.adapters.errors import AdapterError
from pruning.adapters.families import FAMILIES
from pruning.base import Method, MethodError
from pruning.registry import make_method

if TYPE_CHECKING:
    from pruning.adapters.family import Family
    from pruning.adapters.session import Session

GROUP = "leanvla.adapters"
PAGE = "docs/adapters.md"


def prune(
    model: Any,
    method: Method | str,
    keep: float | int | None = None,
    *,
    seed: int = 0,
    positions: Literal["keep", "repack"] = "keep",
) -> Session:
    """Prune visual tokens in `model` for as long as the returned context lasts.

    Nothing of the model is changed: hooks are set on entering and taken off on leaving, also after
    an exception. Leaving without an exception and without a single selection raises, so that a
    result of a run that never pruned cannot pass for a pruned one. A method that keeps everything
    (`dense`, or `keep=1.0`) sets no hook at all.

    Args:
        model: a Hugging Face vision-language model of a supported family, or an object that brings
            its own adapter as a method `pruning_session(method)`, as our policies do.
        method: a method, e.g. `VLAPruner(keep=0.25)`, or its name as on a command line, e.g.
            `"vla_pruner"`, `"quota+divprune"`.
        keep: with a name, the budget: tokens of each view (image, tile or video frame) that live,
            as a ratio in (0, 1] or a count. A method has its own already.
        seed: for methods that draw (`random`, `zoo_prune`): each prefill draws from the seed and
            its number in the session, so that the same seed and the same prompts in the same order
            give the same sets, and another seed gives others. Give one per question where every
            question has a session of its own.
        positions: what survivors are numbered by behind a cut, and tokens that follow on the cache:
            `keep` their original positions, or `repack` to consecutive ones, as TransPrune's
            release does. Layers before the cut, where every token lives, keep the original ones.

    Returns:
        The session: `counts` (selections, tokens in and out of every layer, time) and `kept`
        (survivors of every view at the last prefill) may be read inside and after.

    Raises:
        AdapterError: for an unsupported model (lists those that are supported), or a method whose
            needs this model cannot meet (says which, and why); for positions that it cannot number
            anew; for a seed that is no whole number of at least 0; and for both where an object
            brings its own adapter.
        MethodError: for an unknown name, an impossible cut, or `keep` given twice.
        BudgetError: for an impossible `keep`.
    """
    method = _method(method, keep)
    if hasattr(model, "pruning_session"):
        if seed or positions != "keep":
            raise AdapterError(
                f"seed is {seed} and positions {positions!r}, and {type(model).__name__} draws by "
                "episode and query and keeps positions: leave both out"
            )
        return model.pruning_session(method)
    family = family_of(model)
    from pruning.adapters.hooks import HookSession

    return HookSession(model, family, method, seed, positions)


def supported() -> list[str]:
    """Names of the supported model classes, those of other packages last."""
    return [name for family in _families() for name in family.models]


def _method(method: Method | str, keep: float | int | None) -> Method:
    if isinstance(method, str):
        return make_method(method) if keep is None else make_method(method, keep=keep)
    if not isinstance(method, Method):
        raise MethodError(
            f"{method!r} is no pruning method: give one, e.g. VLAPruner(keep=0.25), or a name"
        )
    if keep is not None:
        raise MethodError(f"keep is {method.keep} in {method.name} and {keep} here: give it once")
    return method


def family_of(model: Any) -> Family:
    """The adapter of a model.

    Raises:
        AdapterError: for an unsupported model; lists those that are supported.
    """
    names = [kind.__name__ for kind in type(model).__mro__]
    for family in _families():
        if any(name in family.models for name in names):
            return family
    raise AdapterError(
        f"no adapter for {type(model).__name__}: supported are {', '.join(supported())}, and any "
        f"object with a method pruning_session; {PAGE} says how to write one"
    )


def _families() -> list[Family]:
    """The built-in families, then those of other packages in order of name."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return [*FAMILIES, *(point.load()() for point in points)]
