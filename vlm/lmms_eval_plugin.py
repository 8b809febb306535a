"""Entry point for `lmms-eval` (group `lmms_eval.models`): its model `leanvla_pruned` is ours.

    lmms-eval --model leanvla_pruned --tasks pope \\
        --model_args pretrained=/models/llava-1.5-7b-hf,method=divprune,keep=0.25
"""

from __future__ import annotations

from typing import Any

MODEL_ID = "leanvla_pruned"
CLASS_PATH = "vlm.lmms_eval_model.PrunedModel"


def model_manifest() -> Any:
    """What `lmms-eval` registers at its start; the class is imported when it is chosen."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, chat_class_path=CLASS_PATH)
