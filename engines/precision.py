"""Precisions of an engine: the type of everything, and what happens to products with weights."""

from __future__ import annotations

from typing import Literal, NamedTuple

Products = Literal["plain", "dynamic", "int8", "fp8"]


class Precision(NamedTuple):
    """What a name of `--precision` means.

    Attributes:
        base: numpy name of the type of everything that is not quantised.
        products: matrix products with weights: as they are, int8 with activations quantised as
            they come, or int8 and fp8 with calibrated ranges.
    """

    base: str
    products: Products = "plain"

    @property
    def calibrated(self) -> bool:
        """Ranges of activations must be measured first."""
        return self.products in ("int8", "fp8")

    @property
    def wire(self) -> str:
        """Type in which tensors pass between stages: numpy has no bfloat16."""
        return "float16" if self.base == "float16" else "float32"

    @property
    def weights(self) -> str:
        """Type in which the weights of products are stored, as `traffic.BYTES_OF` calls it."""
        names = {"plain": self.base, "dynamic": "int8", "int8": "int8", "fp8": "float8"}
        return names[self.products]


PRECISIONS = {
    "fp32": Precision("float32"),
    "fp16": Precision("float16"),
    "bf16": Precision("bfloat16"),
    "int8": Precision("float32", "dynamic"),
    "int8-static": Precision("float32", "int8"),
    "int8-static-fp16": Precision("float16", "int8"),
    "fp8": Precision("float32", "fp8"),
    "fp8-fp16": Precision("float16", "fp8"),
}
