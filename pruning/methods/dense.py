"""No pruning: the model as it was trained, and the bar for every other method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, everything

if TYPE_CHECKING:
    from pruning.types import Budget, PruneContext, Selection


@dataclass(frozen=True)
class Dense(Method):
    """Keeps every token.

    Attributes:
        keep: always 1.0.

    Raises:
        MethodError: for any other `keep`.
    """

    name: ClassVar[str] = "dense"
    paper: ClassVar[str] = "none: the unpruned model"
    cost: ClassVar[str] = "nothing"
    exportable: ClassVar[bool] = True

    keep: Budget | float | int = 1.0

    def __post_init__(self) -> None:
        """Refuse any other `keep`."""
        super().__post_init__()
        if self.prunes:
            raise MethodError(f"dense keeps every token, keep is {self.keep}: choose a method")

    def select(self, ctx: PruneContext) -> Selection:
        """All tokens."""
        return everything(ctx)
