"""A tensor that stays on the device between two sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.errors import EngineError
from engines.tensorrt.types import numpy_type

if TYPE_CHECKING:
    import numpy as np

    from engines.session import TensorSpec
    from engines.tensorrt.cuda import Cuda


class DeviceTensor:
    """An output that was not copied to the host; another session takes it as an input.

    It is the producer's memory: valid until the producer runs again or is closed.

    Attributes:
        pointer: address on the device.
        shape: every size.
        dtype: of its numbers.

    Args:
        pointer: address on the device.
        spec: shape and type.
        cuda: CUDA calls.
    """

    def __init__(self, pointer: int, spec: TensorSpec, cuda: Cuda) -> None:
        self.pointer, self.shape = pointer, spec.shape
        self.dtype: np.dtype = numpy_type(spec.dtype)
        self._cuda = cuda

    def put(self, slot: int, value: DeviceTensor) -> None:
        """Write `value [a, b, 1, d]` into `[:, :, slot]` of this tensor `[a, b, slots, d]`.

        Raises:
            EngineError: when the shapes do not fit, or there is no such slot.
        """
        rows, slots, width = self.shape[:2], self.shape[2], self.shape[3]
        fits = value.shape == (*rows, 1, width) and value.dtype == self.dtype
        if not fits or not 0 <= slot < slots:
            raise EngineError(
                f"{value.dtype} {list(value.shape)} does not fit into slot {slot} of "
                f"{self.dtype} {list(self.shape)}"
            )
        line = width * self.dtype.itemsize
        self._cuda.copy_lines(
            self.pointer + slot * line, slots * line, value.pointer, line, line, rows[0] * rows[1]
        )
