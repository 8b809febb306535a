"""How weights move, whatever the network: Muon and AdamW, shared gradients, averaged weights."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def spread(work: Callable[..., None], arguments: tuple[Any, ...], workers: int) -> None:
    """Run `work(rank, meeting, *arguments)` in so many processes; one stays in this one.

    The workers are forked, so that all of them read one copy of what was loaded.
    """
    if workers == 1:
        work(0, None, *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meet"
        torch.multiprocessing.start_processes(
            work, (meeting, *arguments), workers, start_method="fork"
        )


def make_optimizers(
    net: torch.nn.Module,
    learning_rate: float,
    weight_decay: float,
    is_inner: Callable[[str], bool],
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices that `is_inner` names, AdamW for everything else."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in net.named_parameters():
        (matrices if parameter.ndim == 2 and is_inner(name) else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def learning_scale(step: int, steps: int, warmup_steps: int, final: float) -> float:
    """Share of the peak learning rate: a linear rise, and a fall to 0 over the last `final`."""
    warm = min(1.0, (step + 1) / warmup_steps)
    fall = steps * final
    return warm * min(1.0, (steps - step) / fall) if fall else warm


def take_step(
    net: torch.nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    average: Sequence[Tensor],
    *,
    scale: float,
    decay: float,
    workers: int,
) -> None:
    """Move the weights along the gradients that all workers found, and their average after them."""
    if workers > 1:
        _average_gradients(net, workers)
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * scale
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch._foreach_lerp_(list(average), list(net.parameters()), 1 - decay)


def host_state(net: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of all weights on the host."""
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}


def _average_gradients(net: torch.nn.Module, workers: int) -> None:
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
