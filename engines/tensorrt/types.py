"""Names of types between TensorRT and numpy."""

from __future__ import annotations

import numpy as np

from engines.errors import EngineUnavailableError


def numpy_type(name: str) -> np.dtype:
    """The numpy type of a name; bfloat16 and the 8-bit floats come from ml_dtypes.

    Raises:
        EngineUnavailableError: when ml_dtypes is missing.
    """
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError:
        raise EngineUnavailableError(
            f"{name} inputs and outputs need ml_dtypes: run `pip install ml_dtypes`, or export "
            "with float32 inputs"
        ) from None
    return np.dtype(getattr(ml_dtypes, name))
