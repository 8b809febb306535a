"""Which graphs an engine of the OpenVLA family needs, for some methods and budgets.

Graphs are shared wherever they are the same computation: `vision` and `head` by all rungs, the full
layers by all budgets of a method, the upper layers of a budget by all methods with its cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError
from engines.manifest import Rung
from engines.session import TensorSpec
from policy.openvla.sequence import layout_of
from pruning.base import ROW_KINDS
from pruning.registry import all_methods, make_method
from pruning.runtime import Pruner
from pruning.wrappers.base import chain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engines.session import Specs
    from engines.stage import StageModule
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sequence import Layout
    from pruning.base import Method

DENSE = "dense"


@dataclass(frozen=True)
class Plan:
    """Stages by graph name, made from a network when asked, and what runs them.

    Attributes:
        stages: makes a stage from the network.
        rungs: the dense model first, then every method at every budget.
    """

    stages: dict[str, Callable[[OpenVLAModel], StageModule]]
    rungs: list[Rung]


def make_plan(
    config: OpenVLAConfig,
    methods: Sequence[str],
    keeps: Sequence[float],
    prompt: int,
    float_type: str = "float32",
) -> Plan:
    """The graphs and rungs of an engine; the dense model is always among them.

    Args:
        config: the checkpoint's architecture.
        methods: pruning methods, with options after colons.
        keeps: ratios of visual tokens that live.
        prompt: longest prompt, without BOS.
        float_type: in which tensors pass between stages.

    Raises:
        EngineError: for a method that cannot become a graph; it lists those that can.
        MethodError, BudgetError: for an impossible method or budget.
    """
    planner = _Planner(config, prompt, float_type)
    planner.add(DENSE, 1.0)
    for name in methods:
        for keep in keeps:
            if name != DENSE and keep != 1:
                planner.add(name, keep)
    return Plan(planner.stages, planner.rungs)


def fitted(method: Method, config: OpenVLAConfig) -> Method:
    """The method with the checkpoint's own cut, unless it names one itself."""
    return method if config.cut_layer is None else method.at_cut(config.cut_layer)


def pruner_of(method: Method, config: OpenVLAConfig) -> Pruner:
    """The method paired with the checkpoint's decoder."""
    causal = config.decoding == "autoregressive"
    return Pruner(fitted(method, config), config.text.num_hidden_layers, causal)


class _Planner:
    def __init__(self, config: OpenVLAConfig, prompt: int, float_type: str) -> None:
        self.config, self.layout = config, layout_of(config, prompt)
        self.float_type = float_type
        self.stages: dict[str, Callable[[OpenVLAModel], StageModule]] = {}
        self.rungs: list[Rung] = []

    def add(self, name: str, keep: float) -> None:
        """Add the rung of one method at one budget."""
        from policy.openvla.engine.stages import Head, Vision

        method = make_method(name, keep=keep)
        if not method.exportable:
            able = ", ".join(sorted(n for n, kind in all_methods().items() if kind.exportable))
            raise EngineError(f"{method.name} cannot become a graph: choose from {able}")
        _check_stages(name, method, pruner_of(method, self.config))
        pruner, tokens = pruner_of(method, self.config), method.budget.tokens(self.layout.tokens)
        layer = pruner.action_layer if method.prunes else None
        roles = {
            "vision": self._stage("vision", lambda m: Vision(m, self.layout)),
            "below": self._below(pruner, layer if method.prunes else None),
            "head": self._stage("head", lambda m: Head(m, self.layout)),
        }
        kept = tokens if tokens < self.layout.tokens else None
        roles |= self._above(pruner.cut, kept, layer, "above", "decode")
        if kept is not None:
            roles |= self._selects(name, method, tokens)
            if method.history is not None and method.history.dense_warmup:
                roles |= self._above(pruner.cut, None, layer, "warmup_above", "warmup_decode")
        self.rungs.append(Rung(name, float(keep), tokens, pruner.cut, roles))

    def _stage(self, name: str, make: Callable[[OpenVLAModel], StageModule]) -> str:
        self.stages.setdefault(name, make)
        return name

    def _below(self, pruner: Pruner, layer: int | None) -> str:
        from policy.openvla.engine.stretches import Below

        rows = tuple(sorted(pruner.rows)) if pruner.method.prunes else ()
        stride = pruner.row_stride if rows else 1
        layer = layer if layer is not None and layer < pruner.cut else None
        name = "_".join(
            [f"below{pruner.cut}", *rows, *_if(f"stride{stride}", stride > 1), *_layer(layer)]
        )
        return self._stage(
            name,
            partial(
                _make, Below, self.layout, cut=pruner.cut, action_layer=layer, rows=rows,
                stride=stride,
            ),
        )  # fmt: skip

    def _above(
        self, cut: int, kept: int | None, layer: int | None, role: str, decode_role: str
    ) -> dict[str, str]:
        """The upper layers for a budget, and the decode step on their cache."""
        from policy.openvla.engine.stretches import Above, Decode

        upper = layer if layer is not None and layer >= cut else None
        size = "all" if kept is None else f"keep{kept}"
        name = "_".join([f"above{cut}", size, *_layer(upper)])
        above = partial(_make, Above, self.layout, cut=cut, kept=kept, action_layer=upper)
        roles = {role: self._stage(name, above)}
        if self.config.decoding == "autoregressive" and self.config.dof > 1:
            name = "_".join([f"decode{cut}", size, *_layer(layer)])
            step = partial(_make, Decode, self.layout, cut=cut, kept=kept, action_layer=layer)
            roles[decode_role] = self._stage(name, step)
        return roles

    def _selects(self, name: str, method: Method, tokens: int) -> dict[str, str]:
        """The choice, and for a method with memory the choice while nothing is remembered."""
        from policy.openvla.engine.stages import Select

        stem = f"select_{re.sub(r'[^a-z0-9]+', '_', name.lower())}_keep{tokens}"
        method = fitted(method, self.config)
        inputs = self._select_inputs(method)
        cold = {key: spec for key, spec in inputs.items() if key != "history"}
        roles = {"select": self._stage(stem, lambda _: Select(method, self.layout, tokens, inputs))}
        rule = method.history
        if rule is not None and not rule.dense_warmup:
            roles["select_cold"] = self._stage(
                f"{stem}_cold", lambda _: Select(method, self.layout, tokens, cold)
            )
        return roles

    def _select_inputs(self, method: Method) -> Specs:
        layout = self.layout
        row = TensorSpec((layout.views, layout.tokens), "float32")
        inputs = {}
        if "features" in method.needs:
            shape = (layout.views, layout.tokens, self.config.text.hidden_size)
            inputs["visual"] = TensorSpec(shape, self.float_type)
        for kind in sorted(method.needs - {"features", "history"}):
            inputs[f"attention_{kind}"] = row
        return inputs | ({"history": row} if method.history is not None else {})


def _check_stages(name: str, method: Method, pruner: Pruner) -> None:
    """Refuse what a graph could do and these stages do not: other inputs, memory, several cuts.

    Raises:
        EngineError: naming what is missing.
    """
    inputs = method.needs - ROW_KINDS - {"features", "history"}
    stateful = any(one.remembers for one in chain(method))
    lacks = [
        *(f"input {need}" for need in sorted(inputs)),
        *_if("memory between selections", stateful),
        *_if(f"{len(pruner.stages)} cuts", len(pruner.stages) > 1),
        *_if("a cut before the decoder", pruner.cut == 0),
    ]
    if lacks and method.prunes:
        raise EngineError(
            f"{name} cannot run on an engine yet, whose stages lack {', '.join(lacks)}: run it on "
            "torch, or choose a method that needs attention rows, features and history alone"
        )


def _make(
    kind: Callable[..., StageModule], layout: Layout, model: OpenVLAModel, **fields: Any
) -> StageModule:
    return kind(model, layout, **fields)


def _if(word: str, condition: bool) -> list[str]:
    return [word] if condition else []


def _layer(layer: int | None) -> list[str]:
    return [] if layer is None else [f"action{layer}"]
