"""What OpenVLA-OFT adds around the decoder: proprio projector and L1 regression head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig


class ProprioProjector(nn.Module):
    """Normalised proprioception into one decoder token."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.proprio_dim, config.text.hidden_size)
        self.fc2 = nn.Linear(config.text.hidden_size, config.text.hidden_size)

    def forward(self, proprio: Float[Tensor, "b p"]) -> Float[Tensor, "b 1 d"]:
        """One token per observation."""
        return self.fc2(functional.gelu(self.fc1(proprio)))[:, None]


class ResidualBlock(nn.Module):
    """LayerNorm, Linear, ReLU, and around it the residual (`ffn.0`, `ffn.1`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Float[Tensor, "b c d"]) -> Float[Tensor, "b c d"]:
        """Add the block's output."""
        return x + self.ffn(x)


class MLPResNet(nn.Module):
    """The published regression network."""

    def __init__(self, width_in: int, width: int, width_out: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width_in)
        self.fc1 = nn.Linear(width_in, width)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(2))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, width_out)

    def forward(self, x: Float[Tensor, "b c d"]) -> Float[Tensor, "b c a"]:
        """Regress every row of the chunk by itself."""
        x = functional.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1ActionHead(nn.Module):
    """Hidden states of the action positions to normalised actions (arXiv 2502.19645)."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        width = config.text.hidden_size
        self.dof = config.dof
        self.model = MLPResNet(width * config.dof, width, config.dof)

    def forward(self, hidden: Float[Tensor, "b cd d"]) -> Float[Tensor, "b c dof"]:
        """The `dof` hidden states of a row are read side by side."""
        b, rows, width = hidden.shape
        return self.model(hidden.reshape(b, rows // self.dof, self.dof * width))
