"""Which folder an engine's name on the command line means."""

from __future__ import annotations

from pathlib import Path

from leanvla.errors import UsageError


def engine_folder(name: str | Path) -> Path:
    """An engine's folder; for the name of a packaged policy that of the graphs it ships with.

    Raises:
        UsageError: when it ships without.
    """
    from policy.openvla.engine.packaged import packaged_engine, packaged_graphs
    from policy.registry import packaged_policies, resolve_policy

    if str(name) not in packaged_policies():
        return Path(name)
    checkpoint = resolve_policy(name)
    if packaged_graphs(checkpoint) is None:
        raise UsageError(f"{name} ships without graphs: export it, and name that folder")
    return packaged_engine(checkpoint)
