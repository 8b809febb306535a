"""A recorded run's scene and policies, made once more to look closer: for films and attribution."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_engine import with_engines
from leanvla.commands.rollout_plan import make_spec
from sim.attribution.lab import Actor, Lab
from sim.rollout.factories import make_policy
from sim.rollout.runner import Plan
from sim.rollout.types import DENSE, Cell

if TYPE_CHECKING:
    from sim.analysis.runs import RunFolder
    from sim.analysis.study import Study
    from sim.rollout.types import EpisodeRecord
    from sim.rollout.worker import WorkerSpec
    from sim.suites.base import SuiteSpec

DENSE_CELL = Cell(DENSE, 1.0)


class Twins(NamedTuple):
    """A scene with the dense policy and the pruned one."""

    lab: Lab
    dense: Actor
    pruned: Actor


def spec_of(folder: RunFolder, cell: Cell) -> WorkerSpec:
    """What the workers of a recorded run were told, for dense and one pruned cell.

    Raises:
        UsageError: when its suite is unknown here; PolicyNameError when its policy is.
    """
    known = {field.name for field in dataclasses.fields(Rollout)}
    told = {name: value for name, value in folder.config.items() if name in known}
    told["option"] = tuple(told.get("option") or ())
    config = Rollout(**{**told, "record": None, "truth": False})
    spec = make_spec(config)
    if "engine" not in told:  # runs of a time when every policy acted in torch
        return spec
    return with_engines(config, Plan((DENSE_CELL, cell), ()), spec)


def open_lab(folder: RunFolder, spec: WorkerSpec, seed: int, **more: Any) -> Lab:
    """The scene of a seed, as the run laid it out."""
    swap = bool(folder.config.get("swap_instruction"))
    return Lab(spec.suite, seed, swap=swap, deadlines=spec.deadlines, **more)


def make_twins(lab: Lab, spec: WorkerSpec, cell: Cell) -> Twins:
    """Dense and pruned policy in the scene of an open lab."""
    return Twins(lab, _actor(spec, DENSE_CELL, lab.suite), _actor(spec, cell, lab.suite))


def view_actors(spec: WorkerSpec, cell: Cell, suite: SuiteSpec) -> tuple[list[Actor], str]:
    """The policy with one view pruned at a time; or none, and why."""
    from policy.registry import is_engine, resolve_policy

    if ":" in spec.policy.name:
        return [], "the policy is not ours, so its views cannot be pruned one at a time"
    folder = resolve_policy(spec.policy.name)
    if is_engine(folder):
        return [], "an engine's selection is fixed, so its views cannot be pruned one at a time"
    from policy.openvla.config import load_config
    from policy.openvla.policy import OpenVLAPolicy
    from pruning.base import MethodError
    from pruning.registry import make_method
    from sim.attribution.one_view import one_view

    config = load_config(folder)
    views, unnorm_key = len(config.views), spec.policy.options.get("unnorm_key")
    if views < 2:
        return [], "the policy has one view"
    method = make_method(cell.method, keep=cell.keep, **spec.policy.method_options)
    actors = []
    try:
        for view, name in enumerate(config.views):
            one = one_view(method, view, views, config.tokens_per_view)
            policy = OpenVLAPolicy.from_folder(folder, method=one, unnorm_key=unnorm_key)
            actors.append(Actor(name, policy, suite, spec.execute))
    except MethodError as error:
        return [], str(error)
    return actors, ""


def losses(study: Study) -> dict[Cell, list[EpisodeRecord]]:
    """Failed pruned episodes whose dense twin succeeded, by cell, the largest budget first."""
    dense = study.judged(DENSE_CELL)
    won = {seed for seed, record in dense.items() if record.outcome == "success"}
    cells = sorted((cell for cell in study.cells if cell.pruned), key=lambda cell: -cell.keep)
    return {
        cell: [r for r in study.of(cell) if r.outcome == "failure" and r.seed in won]
        for cell in cells
    }


def _actor(spec: WorkerSpec, cell: Cell, suite: SuiteSpec) -> Actor:
    return Actor(str(cell), make_policy(spec.policy, cell, spec.threads), suite, spec.execute)
