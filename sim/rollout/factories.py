"""From a `Source` to a live object: a registered name, or `module:callable` for one's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from policy.serve.address import is_address
from sim.rollout.types import DENSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from policy.types import Policy
    from sim.rollout.types import Cell, Source
    from sim.suites.base import Suite


def make_suite(source: Source) -> Suite:
    """The suite that `source` names, made in this process."""
    if ":" in source.name:
        return load_callable(source.name)(**source.options)
    from sim.suites import make_suite as make_registered

    return make_registered(source.name, **source.options)


def make_policy(source: Source, cell: Cell, threads: int) -> Policy:
    """The policy that `source` names, pruned as `cell` says."""
    fields = {} if cell.method == DENSE else source.method_options
    options = {"method": cell.method, "keep": cell.keep, **source.options, **fields}
    if is_address(source.name):
        from policy.serve.client import ServedPolicy

        return ServedPolicy(source.name, method=cell.method, keep=cell.keep)
    if ":" in source.name:
        return load_callable(source.name)(**options)
    from policy.registry import load_policy

    name = source.engines.get(cell, source.name)
    return load_policy(name, threads=threads, **options)


def load_callable(name: str) -> Callable[..., Any]:
    """The object that `module:attribute` names.

    Raises:
        ValueError: when the module or the attribute does not exist.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {name!r}: {error}; give module:callable") from None
