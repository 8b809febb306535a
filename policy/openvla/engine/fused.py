"""Everything between vision and head as one graph: no host between scores, choice and gather.

On a CPU the split graphs are as fast, share their lower layers between budgets, and tell phases
apart; on a device a choice that stays inside saves a synchronisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.stage import StageModule
from policy.openvla.engine.stages import Select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from engines.session import Specs

ARRIVING = {"arriving": "hidden", "traced": "trace"}
INSIDE = frozenset({"arriving", "traced", "kept", "present", "merge", "hidden", "trace"})
PASSED = ("keys_", "values_")
ALWAYS = {"visual", "text", "prompt", "proprio"}


class Prefill(StageModule):
    """Layers and choices in a row.

    Inputs: those of the parts that no part gives. Outputs: `rows`, caches, `alive` (the tokens that
    live, where some left), `action_attention` and, where that is neither all tokens nor `alive`,
    `seen`: the tokens that its layer saw.

    Args:
        parts: spans of layers, and a choice between each two.
    """

    def __init__(self, parts: Sequence[StageModule]) -> None:
        inputs = _outer(parts)
        super().__init__(inputs, optional=inputs.keys() - ALWAYS)
        self.parts = parts  # a plain list: weights are named once, by the network that parts share
        first: Any = parts[0]
        self.model, self.rope = first.model, first.rope
        for part in parts:
            if not isinstance(part, Select):
                part.rope = self.rope

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Walk the parts."""
        have, out = dict(inputs), {}
        alive: Tensor | None = None
        for part in self.parts:
            names = {name: ARRIVING.get(name, name) for name in part.inputs}
            found = part.compute(
                **{n: have[source] for n, source in names.items() if source in have}
            )
            have |= found
            if isinstance(part, Select):
                kept = found["kept"]
                alive = kept if alive is None else alive.gather(1, kept)
                continue
            if alive is not None:
                have["present"] = alive
            if "action_attention" in found:
                out["action_attention"] = found["action_attention"]
                out |= {} if alive is None else {"seen": alive}
            out |= {name: value for name, value in found.items() if name.startswith(PASSED)}
        if out.get("seen") is alive:
            out.pop("seen", None)
        return {"rows": have["rows"], **out, **({} if alive is None else {"alive": alive})}


def _outer(parts: Sequence[StageModule]) -> Specs:
    """What comes from outside: history, prompt, and what vision gives."""
    given: set[str] = set(INSIDE)
    inputs: Specs = {}
    for part in parts:
        inputs |= {n: s for n, s in part.inputs.items() if n not in given and n not in inputs}
        given |= {"transition", "text_rows", "heads_q", "heads_k"}
    return {n: s for n, s in inputs.items() if not n.startswith("attention_") or "tower" in n}
