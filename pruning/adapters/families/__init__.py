"""One file per family of models."""

from pruning.adapters.families.idefics3 import Idefics3
from pruning.adapters.families.internvl import InternVL
from pruning.adapters.families.llava import Llava
from pruning.adapters.families.llava_next import LlavaNext
from pruning.adapters.families.llava_onevision import LlavaOneVision
from pruning.adapters.families.paligemma import PaliGemma
from pruning.adapters.families.qwen_vl import Qwen3VL, QwenVL
from pruning.adapters.family import Family

FAMILIES: tuple[Family, ...] = (
    Llava(), LlavaNext(), LlavaOneVision(), QwenVL(), Qwen3VL(), PaliGemma(), Idefics3(),
    InternVL(),
)  # fmt: skip
