"""Models by name: packaged ones, and folders."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pruning.spelling import did_you_mean
from vlm.errors import ModelError

ZOO = Path(__file__).with_name("zoo")
"""Folder of the packaged models, beside this file."""


def packaged() -> list[str]:
    """Names of the models that come with this package."""
    return sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def resolve_model(name: str) -> Path:
    """The folder of a model.

    Raises:
        ModelError: when there is no such model, or a file differs from its stated hash.
    """
    folder = ZOO / name if name in packaged() else Path(name)
    if not (folder / "config.json").is_file():
        raise ModelError(_unknown(name))
    _check_hashes(folder)
    return folder


def _unknown(name: str) -> str:
    hint = did_you_mean(name, packaged(), ", ") or ":"
    known = ", ".join(packaged())
    return f"no model {name!r}{hint} give a checkpoint folder with config.json, or one of: {known}"


def _check_hashes(folder: Path) -> None:
    sums = folder / "SHA256"
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8").splitlines():
        expected, _, file = line.partition("  ")
        path = folder / file
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != expected:
            raise ModelError(f"{path} is not the file that {sums.name} states: get the model again")
