"""What a wrapper is: a method that holds another one and changes when, where or how much it keeps.

It needs what the inner method needs and cuts where that one cuts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float
    from torch import Tensor

    from pruning.base import Stage
    from pruning.history import HistoryRule
    from pruning.types import PruneContext


@dataclass(frozen=True)
class Wrapper(Method):
    """Base of all wrappers.

    Attributes:
        keep: as of any method; the inner method has the same.
        cut: none: it is the inner method's.
        inner: the method inside, named after a plus: `quota+fastv`.

    Class attributes: `own_needs`, what the wrapper itself reads; `traceable`, whether it is static
    when the inner method is; `scores`, whether it needs an inner method that ranks tokens.

    Raises:
        MethodError: without an inner method, with a cut of its own, or around what cannot rank.
    """

    own_needs: ClassVar[frozenset[str]] = frozenset()
    traceable: ClassVar[bool] = False
    scores: ClassVar[bool] = False

    inner: Method | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        self.wrapped  # noqa: B018 - refused first: all else asks the inner method
        super().__post_init__()
        if self.cut is not None:
            raise MethodError(f"{self.name} cuts where the method inside does: give that one cut")
        if self.name in (method.name for method in chain(self.wrapped)):
            raise MethodError(f"{self.name} is named twice: once is enough")
        if self.scores and not ranks(self.wrapped):
            raise MethodError(
                f"{self.name} works on scores and {self.wrapped.name} chooses without: wrap a "
                "method that ranks tokens, e.g. fastv"
            )

    @property
    def wrapped(self) -> Method:
        """The inner method, which is always there once checked."""
        if self.inner is None:
            raise MethodError(
                f"{self.name} wraps a method: name it after a plus, e.g. {self.name}+fastv"
            )
        return self.inner

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # fixed per class elsewhere
        """The inner method's needs and one's own."""
        return self.wrapped.needs | self.own_needs

    @property
    def exportable(self) -> bool:  # type: ignore[override]
        """Static when both are."""
        return self.traceable and self.wrapped.exportable

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        """Adaptive when the inner method is."""
        return self.wrapped.adaptive

    @property
    def before_decoder(self) -> bool:  # type: ignore[override]
        """Before the decoder when the inner method is."""
        return self.wrapped.before_decoder

    @property
    def row_stride(self) -> int:  # type: ignore[override]
        """The inner method's."""
        return self.wrapped.row_stride

    @property
    def history(self) -> HistoryRule | None:
        """The inner method's."""
        return self.wrapped.history

    def full_layers(self, num_layers: int, causal: bool) -> int:
        """The inner method's cut."""
        return self.wrapped.full_layers(num_layers, causal)

    def at_cut(self, cut: int) -> Method:
        """The inner method's answer, wrapped."""
        return replace(self, inner=self.wrapped.at_cut(cut))

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """The inner method's cuts."""
        return self.wrapped.stages(num_layers, causal)

    def stage_needs(self, stage: int) -> frozenset[str]:
        """The inner method's needs of this stage, and one's own."""
        return self.wrapped.stage_needs(stage) | self.own_needs

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """The inner method's scores."""
        return self.wrapped.score(ctx)


def chain(method: Method) -> Iterator[Method]:
    """A method and all that it wraps, from the outside in."""
    yield method
    if isinstance(method, Wrapper):
        yield from chain(method.wrapped)


def ranks(method: Method) -> bool:
    """True for a method that stands on the rung of scores, with the shared top-k behind it."""
    kind = type(method)
    if isinstance(method, Wrapper):
        return kind.score is not Wrapper.score and ranks(method.wrapped)
    return kind.score is not Method.score
