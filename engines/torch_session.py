"""A stage on torch: the reference that other runtimes are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engines.session import Closing, Specs, check_feeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.stage import StageModule


class TorchSession(Closing):
    """A stage module with its weights, run eagerly.

    Args:
        name: of the stage, for messages.
        stage: the module.
    """

    provider = "torch"

    def __init__(self, name: str, stage: StageModule) -> None:
        self.name, self._stage = name, stage.eval()
        self.inputs: Specs = stage.inputs
        self.outputs: Specs = stage.outputs()

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the stage once."""
        check_feeds(self.name, self.inputs, feeds)
        tensors = {name: torch.from_numpy(np.asarray(feeds[name])) for name in self.inputs}
        return {name: value.numpy() for name, value in self._stage.compute(**tensors).items()}
