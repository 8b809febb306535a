"""A method that keeps the first tokens and remembers what it was shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from pruning.base import NEEDS, Method
from pruning.types import PruneContext, Selection

MET = NEEDS - {"action", "pixels", "output", "history"}


@dataclass(frozen=True)
class Spy(Method):
    name: ClassVar[str] = "spy"
    wants: frozenset[str] = MET
    seen: list[PruneContext] = field(default_factory=list)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return self.wants

    def select(self, ctx: PruneContext) -> Selection:
        self.seen.append(ctx)
        groups = ctx.features.shape[0]
        return Selection(torch.arange(ctx.keep).expand(groups, -1))
