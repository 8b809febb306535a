"""What the ONNX exporter does not know: a stable sort, which makes every ranking deterministic.

torch.onnx.export(module, inputs, path, dynamo=True, custom_translation_table=translations())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Translations for the exporter's `custom_translation_table`.

    A stable sort becomes `TopK` over the whole axis, whose ties go to the lower index by its
    definition.
    """
    import torch
    from onnxscript import opset20

    op: Any = opset20  # annotated for tensors, and given constants too

    def sort_stable(
        self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
    ) -> Any:
        size = op.Slice(op.Shape(self), [dim], [dim + 1] if dim != -1 else [2**31 - 1])
        values, indices = op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)
        return values, indices

    return {torch.ops.aten.sort.stable: sort_stable}
