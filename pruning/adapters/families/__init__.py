"""One file per family of models."""

from pruning.adapters.families.llava import Llava
from pruning.adapters.family import Family

FAMILIES: tuple[Family, ...] = (Llava(),)
