"""The files `{part}--{step}_checkpoint.*` that OpenVLA-OFT puts beside a checkpoint."""

from __future__ import annotations

from pathlib import Path

from policy.openvla.errors import CheckpointError

SIDE_PARTS = ("proprio_projector", "action_head", "vision_backbone", "noisy_action_projector")


def side_files(folder: str | Path) -> dict[str, Path]:
    """The side files of a folder by part; a safetensors file wins over the `.pt` it was made of.

    Raises:
        CheckpointError: when a part is there in more than one training step.
    """
    found = {part: _newest_format(Path(folder), part) for part in SIDE_PARTS}
    return {part: path for part, path in found.items() if path is not None}


def _newest_format(folder: Path, part: str) -> Path | None:
    files = sorted(
        path for path in folder.glob(f"{part}--*") if path.suffix in (".pt", ".safetensors")
    )
    if len({path.stem for path in files}) > 1:
        names = ", ".join(path.name for path in files)
        raise CheckpointError(f"{folder}: several {part} files ({names}): keep one training step")
    return files[-1] if files else None
