"""Where a training run stands, so that one that was cut goes on bit for bit as if it had not been.

One safetensors file: raw and averaged weights, the optimisers' state, and the place in the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from policy.publish import publish

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

NAME = "standing.safetensors"


class StandingError(ValueError):
    """A run that cannot go on from here: says why, and the remedy."""


class Standing(NamedTuple):
    """A place in a run.

    Attributes:
        part: recipe of the run: 0 before the first corrections, then one after each round.
        stage: of the recipe; the number of stages when the recipe is done.
        step: optimiser steps of the stage that are done.
        workers: processes that share every step.
    """

    part: int
    stage: int
    step: int
    workers: int


def write_standing(
    folder: Path,
    standing: Standing,
    net: torch.nn.Module,
    average: Sequence[Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Write the file, whole or not at all."""
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"average.{number}": value for number, value in enumerate(average)}
    for number, optimizer in enumerate(optimizers):
        for place, parameter in enumerate(_parameters(optimizer)):
            for name, value in optimizer.state[parameter].items():
                tensors[f"optimizer.{number}.{place}.{name}"] = value
    # Tied tensors and views of one storage are no part of the format: everything is its own copy.
    whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    facts = {name: str(value) for name, value in standing._asdict().items()}
    publish(folder / NAME, lambda path: save_file(whole, path, facts))


def read_standing(folder: Path) -> Standing | None:
    """Where the run in `folder` stands; None when nothing of it was saved.

    Raises:
        StandingError: when the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            place = file.metadata() or {}
        return Standing(*(int(place[name]) for name in Standing._fields))
    except (SafetensorError, KeyError, ValueError) as error:
        raise StandingError(f"{path}: damaged ({error}): start anew with `--out NEW`") from None


def standing_weights(folder: Path) -> dict[str, Tensor]:
    """The raw weights of the run in `folder`, by their names in `TrainingNet`."""
    tensors, prefix = load_file(folder / NAME), "net."
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def take_standing(
    folder: Path,
    net: torch.nn.Module,
    average: Sequence[Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Put everything back where `write_standing` took it from."""
    tensors = load_file(folder / NAME)
    net.load_state_dict(standing_weights(folder))
    for number, value in enumerate(average):
        value.copy_(tensors[f"average.{number}"])
    lists = [_parameters(optimizer) for optimizer in optimizers]
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            which, place, field = rest.split(".", 2)
            parameter = lists[int(which)][int(place)]
            # A step counter stays on the host, as the optimiser itself would have it.
            home = value if value.ndim == 0 else value.to(parameter.device)
            optimizers[int(which)].state[parameter][field] = home


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
