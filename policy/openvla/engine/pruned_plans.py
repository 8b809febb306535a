"""Is pruning inside the plans of an engine? Followed from graph to graph, rung by rung."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.manifest import Manifest, Rung
    from engines.tensorrt.contents import Contents

KEPT = "kept"


def unpruned(manifest: Manifest, contents: Mapping[str, Contents]) -> dict[str, str]:
    """Rungs of whose plans pruning is no part, and why: by `method at keep`.

    A fused rung ranks and gathers in one graph. A split one gives `kept` in the graph of its
    choice, from a top-k or as a constant, and gathers by it in the layers that follow.

    Args:
        manifest: of the engine.
        contents: what is in the plan of each graph, by the graph's name.
    """
    found = {}
    for rung in manifest.rungs:
        why = _lacking(rung, contents)
        if why:
            found[f"{rung.method} at {rung.keep:g}"] = why
    return found


def _lacking(rung: Rung, contents: Mapping[str, Contents]) -> str | None:
    stages = rung.stages
    if rung.method == "dense":
        return None
    if "prefill" in stages:
        graph = stages["prefill"]
        return None if contents[graph].prunes else f"{graph} gathers by no top-k"
    number = 0
    while (role := f"select{number or ''}") in stages:
        for each in (role, f"{role}_cold"):
            if each in stages and KEPT not in contents[stages[each]].choices:
                return f"{stages[each]} does not choose"
        following = f"middle{number + 1}"
        graph = stages[following if following in stages else "above"]
        if KEPT not in contents[graph].indexed_by:
            return f"{graph} gathers by no {KEPT}"
        number += 1
    return None if number else "there is no choice"
