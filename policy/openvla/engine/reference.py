"""The stages of an engine on torch, with the weights of the checkpoint: the reference of graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engines.torch_session import TorchSession
from policy.openvla.engine.stages import RopeTable
from policy.openvla.shared import shared_network

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from engines.session import Session
    from engines.torch_session import Mode
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.engine.plan import Plan


class Reference:
    """Sessions by graph name, made when asked.

    Args:
        checkpoint: folder in the published layout.
        config: its configuration.
        plan: graphs and rungs.
        mode: how torch runs them; see `TorchSession`.
        device: where.
    """

    def __init__(
        self,
        checkpoint: Path,
        config: OpenVLAConfig,
        plan: Plan,
        mode: Mode = "eager",
        device: str = "cpu",
    ) -> None:
        self.model = shared_network(checkpoint, config, device, torch.float32)
        self.plan, self._mode, self._device = plan, mode, device
        self._sessions: dict[str, TorchSession] = {}

    def session(self, graph: str) -> Session:
        """The session of a stage."""
        if graph not in self._sessions:
            stage = self.plan.stages[graph](self.model).requires_grad_(False)
            table = getattr(stage, "rope", None)
            if isinstance(table, RopeTable):
                values = RopeTable.values(self.model.config.text, len(table.cos))
                table.cos.data, table.sin.data = values["rope.cos"], values["rope.sin"]
            self._sessions[graph] = TorchSession(graph, stage, self._mode, self._device)
        return self._sessions[graph]

    def load(self, graphs: Iterable[str]) -> None:
        """Make some sessions now."""
        for graph in graphs:
            self.session(graph)
