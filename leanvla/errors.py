"""What an error says and which exit code it gives: 1 a check failed, 2 usage, 3 environment.

The rooms below declare their own errors and know nothing of exit codes. A `ValueError` of theirs is
bad input; any other error of theirs is an environment that cannot do the job, unless its class says
otherwise with an attribute `exit_code`. Everything else is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import os
import traceback

CHECK_FAILED = 1
USAGE = 2
ENVIRONMENT = 3
INTERRUPTED = 130

ROOMS = ("leanvla", "policy", "pruning", "sim", "engines", "vlm")
_EXTRA_OF_MODULE = {
    "torch": "torch",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "numba": "sim",
    "mujoco": "sim",
    "robosuite": "sim",
    "scipy": "sim",
    "av": "sim",
    "trimesh": "sim",
    "fast_simplification": "sim",
    "rerun": "viz",
    "h5py": "replay",
    "mcap": "replay",
    "pyarrow": "replay",
    "transformers": "vlm",
    "rosbags": "replay",
    "ray": "sweep",
    "websockets": "serve",
    "gymnasium": "gym",
    "tensorrt_rtx_bindings": "trt-rtx",
}


class UsageError(ValueError):
    """Arguments that ask for something impossible; the message names the remedy."""


class EnvironmentFault(RuntimeError):  # noqa: N818 - `EnvironmentError` is Python's old OSError.
    """A machine that cannot do the job as it is; the message names the remedy."""


def explain(error: Exception) -> tuple[int, str] | None:
    """Exit code and sentence of an error that a user can act on; None for a fault of ours."""
    if isinstance(error, ModuleNotFoundError):
        return _explain_missing(error)
    if isinstance(error, OSError) and error.filename is not None:
        return USAGE, f"{error.filename}: {error.strerror or error}"
    if not _speaks_for_itself(error):
        return None
    default = USAGE if isinstance(error, ValueError) else ENVIRONMENT
    return getattr(error, "exit_code", default), " ".join(str(error).split())


def wants_traceback() -> bool:
    """Whether `LEANVLA_DEBUG` asks to see where an error came from."""
    return os.environ.get("LEANVLA_DEBUG", "0") not in ("", "0")


def _explain_missing(error: ModuleNotFoundError) -> tuple[int, str] | None:
    module = (error.name or "").partition(".")[0]
    if module in ROOMS or not module:
        return None
    extra = _EXTRA_OF_MODULE.get(module)
    package = f"'leanvla[{extra}]'" if extra else module
    return ENVIRONMENT, f"Python package {module!r} is missing: run `pip install {package}`"


def _speaks_for_itself(error: Exception) -> bool:
    """Whether a room wrote the sentence: its own class, or a `raise ValueError` in its code."""
    if type(error).__module__.partition(".")[0] in ROOMS:
        return True
    if type(error) is not ValueError or error.__traceback__ is None:
        return False
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    summary = traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name)
    room = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return room in ROOMS and (summary.line or "").startswith("raise ")
