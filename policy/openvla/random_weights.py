"""A network of some architecture with random weights, made in place on its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from policy.openvla.model import OpenVLAModel
from policy.openvla.policy import OpenVLAPolicy
from policy.openvla.tokenizer import PromptTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from policy.openvla.config import OpenVLAConfig
    from pruning.base import Method

STD = 0.02


def random_network(
    config: OpenVLAConfig,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> OpenVLAModel:
    """A network whose matrices are small noise and whose gains are one.

    Nothing is made in float32 first: the peak is the weights themselves, in `dtype`.
    """
    with torch.device("meta"):
        network = OpenVLAModel(config)
    network = network.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device=device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, STD, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return network


def random_checkpoint(folder: Path, config: OpenVLAConfig, seed: int = 0) -> Path:
    """A checkpoint folder of an architecture with random weights, stored as bfloat16.

    Its tokenizer is the packaged small one. A folder that is one already, of the same architecture,
    is left as it is.
    """
    from policy.openvla.checkpoint import save_checkpoint
    from policy.openvla.config import load_config
    from policy.registry import ZOO

    if (folder / "config.json").is_file() and load_config(folder) == config:
        return folder
    network = random_network(config, dtype=torch.bfloat16, seed=seed)
    files = [path for path in (ZOO / "mini").iterdir() if "token" in path.name]
    return save_checkpoint(folder, config, network.state_dict(), files)


def random_policy(network: OpenVLAModel, config: OpenVLAConfig, method: Method) -> OpenVLAPolicy:
    """A policy around a random network. Its tokenizer is the packaged small one."""
    from policy.registry import ZOO

    return OpenVLAPolicy(config, network, PromptTokenizer(ZOO / "mini", config), method)
