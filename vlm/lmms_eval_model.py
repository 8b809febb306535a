"""A model of `lmms-eval` whose arguments name a pruning method and a budget.

Needs `lmms-eval`, which loads it; nothing else here imports it. Written from that project's model
guide; its chat models get messages, pictures among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmms_eval.api.model import lmms
from lmms_eval.api.registry import register_model

from pruning.registry import make_method
from vlm.lmms_eval_plugin import MODEL_ID
from vlm.model import load_vlm
from vlm.pruned import pruned, seed_of
from vlm.video import sample_video
from vlm.zoo import resolve_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

LONGEST_ANSWER = 128


@register_model(MODEL_ID)
class PrunedModel(lmms):
    """Answers greedily, one request at a time, with a method at work in the model.

    Args:
        pretrained: packaged model or checkpoint folder.
        method: a pruning method as on our command line; `dense` prunes nothing.
        keep: share of the visual tokens that live.
        device: where the model runs.
        dtype: `float32`, `bfloat16` or `float16`.
        frames: frames taken of a video.
        batch_size: must be 1.

    Raises:
        ValueError: for another batch size.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        method: str = "dense",
        keep: float = 1.0,
        device: str = "cuda",
        dtype: str = "bfloat16",
        frames: int = 8,
        batch_size: int | str = 1,
        **_: Any,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1":
            raise ValueError(f"batch_size is {batch_size}: leanvla_pruned takes 1")
        self.vlm = load_vlm(resolve_model(pretrained), device=device, dtype=dtype)
        self.method = make_method(method, keep=float(keep))
        self.frames = int(frames)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One answer per request, cut at the request's stop words."""
        return [self._answer(request) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered.

        Raises:
            NotImplementedError: always; pruned prefills are measured by what they say.
        """
        raise NotImplementedError(
            "leanvla_pruned answers by generating: choose a task that asks so"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered.

        Raises:
            NotImplementedError: always; a kept set belongs to one prompt.
        """
        raise NotImplementedError("leanvla_pruned answers in one round: choose another task")

    def _answer(self, request: Any) -> str:
        # Older versions hand in the plain context first.
        *_, doc_to_messages, settings, doc_id, task, split = request.args
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        parts = [part for message in messages for part in message["content"]]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        inputs = self.vlm.prepare(text, list(self._pictures(parts)))
        with pruned(self.vlm.model, self.method, seed_of(task, str(doc_id))):
            answer = self.vlm.answer(inputs, settings.get("max_new_tokens", LONGEST_ANSWER)).text
        for stop in _stops(settings):
            answer = answer.partition(stop)[0]
        return answer

    def _pictures(self, parts: Sequence[dict[str, Any]]) -> Iterator[Image]:
        from pathlib import Path

        for part in parts:
            if part["type"] == "image":
                yield part["url"].convert("RGB")
            if part["type"] == "video":
                yield from sample_video(Path(part["url"]), self.frames)


def _stops(settings: dict[str, Any]) -> list[str]:
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)
