"""LIBERO and robomimic demonstrations: one HDF5 file, one group `data/demo_N` per episode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from policy.openvla.platforms import PLATFORMS
from policy.replay.types import ArrayEpisode, DamagedError, EpisodeInfo, Look, ReplayError, unnamed
from policy.robot.rotations import axis_angle, normalized
from policy.types import ActionSpec, ObservationSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RATE_HZ = 20.0  # of both, unless env_args say otherwise
_LIBERO = next(platform for platform in PLATFORMS if platform.name == "libero")
_POLARITY = "-1 open, +1 close"


def count_hdf5(path: Path) -> int:
    """Episodes in the file."""
    with _open(path) as file:
        return len(_demos(path, file))


def open_hdf5(path: Path, index: int, instruction: str | None = None) -> ArrayEpisode:
    """One demonstration.

    Pictures are as they were stored: LIBERO's and robosuite's stand on their heads, and policies
    for them were trained on pictures turned by 180 degrees (`--view VIEW=KEY@180`).

    Args:
        path: the file.
        index: which episode, by number of the demonstration.
        instruction: what was asked for; a LIBERO file says so itself.

    Raises:
        ReplayError: on a file of another kind, without pictures, or without an instruction.
        DamagedError: on a cut file, or arrays of different lengths.
    """
    file = _open(path)
    names = _demos(path, file)
    if not 0 <= index < len(names):
        raise ReplayError(f"{path}: episode {index} of {len(names)}: count from 0")
    demo = file["data"][names[index]]
    try:
        actions, (state_names, states) = np.asarray(demo["actions"], np.float32), _states(demo)
    except (OSError, KeyError) as error:
        raise DamagedError(f"{path}: {names[index]} cannot be read ({error})") from None
    views = _views(path, demo)
    _check_lengths(path, demo, len(actions), views)
    env, said = _env(file["data"].attrs), _instruction(file["data"].attrs)
    rate_hz = float(env.get("env_kwargs", {}).get("control_freq") or RATE_HZ)
    info = EpisodeInfo(
        name=f"{path.name}, {names[index]}",
        layout="hdf5",
        observation=ObservationSpec(tuple(views), state_names),
        action=_action_spec(actions.shape[1], rate_hz, env),
        rate_hz=rate_hz,
        instruction=instruction or said,
        steps=len(actions),
        duration_s=len(actions) / rate_hz,
        facts={"env": env.get("env_name")},
    )
    if not info.instruction:
        raise ReplayError(f"{path}: says no instruction: give it with `--instruction`")

    def look(number: int) -> Look:
        try:
            images = tuple(np.asarray(demo["obs"][view][number]) for view in views)
        except OSError as error:
            raise DamagedError(f"{info.name}: frame {number} cannot be read ({error})") from None
        return Look(images, states[number] if states is not None else None)

    return ArrayEpisode(info, actions, look)


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read as HDF5 ({error})") from None


def _demos(path: Path, file: Any) -> list[str]:
    names = [name for name in file.get("data", {}) if name.startswith("demo_")]
    if not names:
        raise ReplayError(f"{path}: has no data/demo_N: not a LIBERO or robomimic file")
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def _views(path: Path, demo: Any) -> list[str]:
    obs = demo.get("obs", {})
    views = [n for n, a in obs.items() if a.ndim == 4 and a.shape[3] == 3 and a.dtype == np.uint8]
    if not views:
        raise ReplayError(
            f"{path}: holds no pictures: render them first "
            "(robomimic's dataset_states_to_obs.py, LIBERO's create_dataset.py)"
        )
    return sorted(views)


def _states(demo: Any) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Proprioception: as LIBERO's policies read it where the keys are known, else none."""
    obs = demo["obs"]
    if {"ee_pos", "ee_ori", "gripper_states"} <= set(obs):
        parts = [obs["ee_pos"], obs["ee_ori"], obs["gripper_states"]]
    elif {"robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"} <= set(obs):
        turns = np.array([axis_angle(normalized(q)) for q in obs["robot0_eef_quat"][:]])
        parts = [obs["robot0_eef_pos"], turns, obs["robot0_gripper_qpos"]]
    else:
        return (), None
    states = np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)
    known = states.shape[1] == len(_LIBERO.state_names)
    return _LIBERO.state_names if known else unnamed(states.shape[1], "state"), states


def _action_spec(dof: int, rate_hz: float, env: Mapping[str, Any]) -> ActionSpec:
    """Operational-space deltas have names; any other controller's values have none."""
    controller = str(env.get("env_kwargs", {}).get("controller_configs", {}).get("type", ""))
    if dof == len(_LIBERO.action_names) and controller in ("OSC_POSE", ""):
        names = (*_LIBERO.action_names[:-1], f"gripper [{_POLARITY}]")
        return ActionSpec(names, 1, rate_hz, _LIBERO.rotation, _POLARITY)
    return ActionSpec(unnamed(dof, "action"), 1, rate_hz, "unknown", "unknown")


def _env(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return _json(attrs.get("env_args")) or {"env_name": attrs.get("env_name")}


def _instruction(attrs: Mapping[str, Any]) -> str:
    said = _json(attrs.get("problem_info")).get("language_instruction", "")
    return (said[0] if isinstance(said, list) and said else str(said)).strip('"')


def _json(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _check_lengths(path: Path, demo: Any, steps: int, views: list[str]) -> None:
    for view in views:
        have = demo["obs"][view].shape[0]
        if have != steps:
            raise DamagedError(f"{path}: {demo.name} has {steps} actions and {have} of {view}")
    if steps == 0:
        raise DamagedError(f"{path}: {demo.name} is empty")
