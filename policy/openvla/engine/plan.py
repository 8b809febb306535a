"""Which graphs an engine of the OpenVLA family needs, for some methods and budgets.

Graphs are shared wherever they are the same computation: `vision` and `head` by all rungs, the full
layers by all budgets of a method, the upper layers of a budget by all methods with its cut.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError
from engines.manifest import Rung
from policy.openvla.engine.spans import AT_CUT, EXPORTED, TOWER, Span
from policy.openvla.sequence import layout_of
from pruning.base import MethodError
from pruning.registry import all_methods, make_method
from pruning.runtime import Pruner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from engines.stage import StageModule
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sequence import Layout
    from pruning.base import Method

DENSE = "dense"
ALL = "all"
"""Instead of a method's name: every method that can be a graph of the checkpoint."""


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
    *,
    fused: bool = False,
) -> Plan:
    """The graphs and rungs of an engine; the dense model is always among them.

    Args:
        config: the checkpoint's architecture.
        methods: pruning methods, with options after colons; `all` stands for every one that can be
            a graph of this checkpoint.
        keeps: ratios of visual tokens that live.
        prompt: longest prompt, without BOS.
        float_type: in which tensors pass between stages.
        fused: everything between vision and head as one graph per rung, instead of one graph per
            stretch of layers and one per choice.

    Raises:
        EngineError: for a method that cannot become a graph; it lists those that can.
        MethodError, BudgetError: for an impossible method or budget.
    """
    planner = _Planner(config, prompt, float_type, fused)
    planner.add(DENSE, 1.0)
    for name in _named(methods, config):
        for keep in keeps:
            if name != DENSE and keep != 1:
                planner.add(name, keep)
    return Plan(planner.stages, planner.rungs)


def exportable_methods(config: OpenVLAConfig) -> list[str]:
    """Names of the methods that can be graphs of this checkpoint, `dense` left out."""
    found = []
    for name, kind in all_methods().items():
        if name != DENSE and kind.exportable and not kind.adaptive:
            with suppress(MethodError):  # it reads what this decoder lacks, or has no defaults
                method = pruner_of(make_method(name, keep=0.5), config).method
                found += [name] if method.needs <= EXPORTED else []
    return found


def fitted(method: Method, config: OpenVLAConfig) -> Method:
    """The method with the checkpoint's own cut, unless it names one itself."""
    return method if config.cut_layer is None else method.at_cut(config.cut_layer)


def pruner_of(method: Method, config: OpenVLAConfig) -> Pruner:
    """The method paired with the checkpoint's decoder."""
    causal = config.decoding == "autoregressive"
    return Pruner(fitted(method, config), config.text.num_hidden_layers, causal)


class _Planner:
    def __init__(self, config: OpenVLAConfig, prompt: int, float_type: str, fused: bool) -> None:
        self.config, self.layout = config, layout_of(config, prompt)
        self.float_type, self.fused = float_type, fused
        self.stages: dict[str, Callable[[OpenVLAModel], StageModule]] = {}
        self.rungs: list[Rung] = []

    def add(self, name: str, keep: float) -> None:
        """Add the rung of one method at one budget."""
        method = fitted(make_method(name, keep=keep), self.config)
        _check(name, method)
        pruner, n = pruner_of(method, self.config), self.layout.tokens
        kept = [min(n, stage.keep.tokens(n)) for stage in pruner.stages]
        if not method.prunes:
            kept = [n for _ in kept]
        merges = [_merges(name, method, *pair) for pair in pairwise([n, *kept])]
        roles = {"vision": self._vision(method)}
        spans = self._spans(pruner, kept, merges)
        if self.fused:
            roles |= self._prefills(name, method, list(spans.values()), kept)
        else:
            roles |= {role: self._layers(span) for role, span in spans.items()}
        roles |= self._decode("decode", list(spans.values()), pruner.action_layer)
        roles["head"] = self._stage("head", lambda m: _stages().Head(m, self.layout))
        if method.prunes:
            for number, (before, tokens) in enumerate(pairwise([n, *kept])):
                if not self.fused:
                    roles |= self._selects(name, method, number, before, tokens)
            if method.history is not None and method.history.dense_warmup:
                roles |= self._warmup(pruner, spans["below"])
        self.rungs.append(Rung(name, float(keep), method.budget.tokens(n), pruner.cut, roles))

    def _spans(self, pruner: Pruner, kept: list[int], merges: list[bool]) -> dict[str, Span]:
        """The decoder between its cuts: `below`, `middle1` ..., `above`."""
        method, tokens = pruner.method, [self.layout.tokens, *kept]
        cuts = [0, *(stage.cut for stage in pruner.stages), self.config.text.num_hidden_layers]
        layer = pruner.action_layer if method.prunes else None
        trace = pruner.cut - 1 if method.prunes and "transition" in method.needs else None
        spans = {}
        for number, (first, last) in enumerate(pairwise(cuts)):
            ends = number == len(kept)
            role = "above" if ends else f"middle{number}" if number else "below"
            looks = AT_CUT & method.stage_needs(number) if not ends and method.prunes else ()
            spans[role] = Span(
                first,
                last,
                before=tokens[max(0, number - 1)],
                tokens=tokens[number],
                merges=number > 0 and merges[number - 1],
                action_layer=layer if layer is not None and first <= layer < last else None,
                looks=tuple(sorted(looks)),
                stride=pruner.row_stride if looks else 1,
                trace_from=None if trace is None or (ends and trace < first) else trace,
            )
        return spans

    def _warmup(self, pruner: Pruner, below: Span) -> dict[str, str]:
        """The upper layers with every token, until the history is filled."""
        n, layers = self.layout.tokens, self.config.text.num_hidden_layers
        layer = pruner.action_layer
        upper = layer if layer is not None and layer >= pruner.cut else None
        above = Span(pruner.cut, layers, n, n, action_layer=upper)
        if self.fused:
            graph = self._prefill("prefill_warmup_" + _name(above, self.layout), [below, above], [])
            roles = {"warmup_prefill": graph}
        else:
            roles = {"warmup_above": self._layers(above)}
        return {
            **roles,
            **self._decode("warmup_decode", [below, above], layer),
        }

    def _prefills(
        self, name: str, method: Method, spans: list[Span], kept: list[int]
    ) -> dict[str, str]:
        """All of a rung between vision and head, and the same while nothing is remembered."""
        if not method.prunes:
            return {"prefill": self._prefill("prefill_dense", spans, [])}
        rule, tokens = method.history, [self.layout.tokens, *kept]
        stem = f"prefill_{_slug(name)}_keep{kept[-1]}"
        without = frozenset() if rule is not None else frozenset({"history"})
        cold = frozenset({"history"})
        roles = {}
        for role, left_out in (("prefill", without), ("prefill_cold", cold)):
            if role == "prefill_cold" and (rule is None or rule.dense_warmup):
                continue
            choices = [
                self._chooser(method, number, *pair, method.stage_needs(number) - left_out)
                for number, pair in enumerate(pairwise(tokens))
            ]
            roles[role] = self._prefill(stem + role.removeprefix("prefill"), spans, choices)
        return roles

    def _prefill(self, name: str, spans: list[Span], choices: list[Callable[[], Any]]) -> str:
        def make(model: OpenVLAModel) -> StageModule:
            from policy.openvla.engine.fused import Prefill
            from policy.openvla.engine.stretches import Layers

            parts: list[StageModule] = []
            for number, span in enumerate(spans):
                parts.append(Layers(model, self.layout, span))
                parts += [choice() for choice in choices[number : number + 1]]
            return Prefill(parts)

        return self._stage(name, make)

    def _vision(self, method: Method) -> str:
        looks = sorted(TOWER & method.needs) if method.prunes else []
        return self._stage(
            "_".join(["vision", *looks]), lambda m: _stages().Vision(m, self.layout, looks)
        )

    def _layers(self, span: Span) -> str:
        from policy.openvla.engine.stretches import Layers

        return self._stage(_name(span, self.layout), lambda m: Layers(m, self.layout, span))

    def _decode(self, role: str, spans: list[Span], layer: int | None) -> dict[str, str]:
        """A decode step on the caches of these spans."""
        from policy.openvla.engine.stretches import Decode

        if self.config.decoding != "autoregressive" or self.config.dof < 2:
            return {}
        caches = tuple((s.first, s.last, s.tokens) for s in spans if s.last > s.first)
        layer = layer if any(span.action_layer is not None for span in spans) else None
        name = "decode_" + "_".join(f"{first}keep{tokens}" for first, _, tokens in caches)
        name += "" if layer is None else f"_action{layer}"
        return {role: self._stage(name, lambda m: Decode(m, self.layout, caches, layer))}

    def _selects(
        self, name: str, method: Method, number: int, before: int, tokens: int
    ) -> dict[str, str]:
        """The choice at a cut, and with memory also the choice while nothing is remembered."""
        needs = method.stage_needs(number)
        if method.history is None:
            needs -= {"history"}
        role = f"select{number or ''}"
        stem = f"{role}_{_slug(name)}_{before}keep{tokens}"
        roles = {role: self._select(stem, method, number, before, tokens, needs)}
        rule = method.history
        if rule is not None and not rule.dense_warmup:
            cold = self._select(f"{stem}_cold", method, number, before, tokens, needs - {"history"})
            roles[f"{role}_cold"] = cold
        return roles

    def _select(
        self,
        name: str,
        method: Method,
        number: int,
        before: int,
        tokens: int,
        needs: frozenset[str],
    ) -> str:
        choose = self._chooser(method, number, before, tokens, needs)
        return self._stage(name, lambda _: choose())

    def _chooser(
        self, method: Method, number: int, before: int, tokens: int, needs: frozenset[str]
    ) -> Callable[[], StageModule]:
        stages, layout = _stages(), self.layout
        inputs = stages.select_inputs(self.config, layout, needs, before, self.float_type)
        return lambda: stages.Select(method, layout, tokens, number, inputs)

    def _stage(self, name: str, make: Callable[[OpenVLAModel], StageModule]) -> str:
        self.stages.setdefault(name, make)
        return name


def _named(methods: Sequence[str], config: OpenVLAConfig) -> list[str]:
    """The methods by their own names, each once."""
    named = [exportable_methods(config) if name == ALL else [name] for name in methods]
    return list(dict.fromkeys(chain.from_iterable(named)))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _stages() -> ModuleType:
    """The stage modules, which import torch: the policy that runs an engine must not."""
    from policy.openvla.engine import stages

    return stages


def _check(name: str, method: Method) -> None:
    """Refuse what no graph can do."""
    if not method.exportable or method.adaptive:
        able = ", ".join(
            sorted(n for n, kind in all_methods().items() if kind.exportable and not kind.adaptive)
        )
        raise EngineError(f"{name} cannot become a graph: choose from {able}")
    if unmet := sorted(method.needs - EXPORTED):
        raise EngineError(f"{name} reads {', '.join(unmet)}, which no graph of an engine gives")


def _merges(name: str, method: Method, before: int, tokens: int) -> bool:
    """Whether the method merges when it keeps `tokens` of `before`."""
    if not method.prunes:
        return False
    from pruning.example import example_context

    chosen = method.select(example_context((2, before, 16), tokens))
    if chosen.memory or chosen.reuse or chosen.views > 1:
        raise EngineError(
            f"{name} remembers more than action attention, or divides its budget among views: "
            "engines take plain methods"
        )
    return chosen.merge is not None


def _name(span: Span, layout: Layout) -> str:
    """A name that two spans share only when they are the same computation."""
    words = [f"layers{span.first}to{span.last}"]
    if span.before < layout.tokens:
        words.append(f"of{span.before}")
    if span.tokens < layout.tokens:
        words.append(f"keep{span.tokens}")
    if span.merges:
        words.append("merged")
    words += span.looks
    if span.stride > 1:
        words.append(f"stride{span.stride}")
    if span.trace_from is not None:
        words.append(f"trace{span.trace_from}")
    if span.action_layer is not None:
        words.append(f"action{span.action_layer}")
    return "_".join(words)
