"""A Hugging Face vision-language model: pictures and words in, an answer and its times out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, StoppingCriteria

from vlm.errors import ModelError
from vlm.memory import peak_mb, reset_peak

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_IMAGE_TOKENS = ("image_token_id", "image_token_index")


class DecoderShape(NamedTuple):
    """What MACs are counted from."""

    layers: int
    width: int
    mlp_width: int


@dataclass(frozen=True)
class Answer:
    """What a model said, and how long it took.

    Attributes:
        text: the answer.
        prefill_ms: from the call to the first token: towers, projector, prefill.
        decode_ms: every further token.
        prompt_tokens: tokens of the prompt, visual ones included.
        visual_tokens: visual ones.
        peak_memory_mb: of the GPU for this answer; None on a CPU.
    """

    text: str
    prefill_ms: float
    decode_ms: tuple[float, ...]
    prompt_tokens: int
    visual_tokens: int
    peak_memory_mb: float | None


class Vlm:
    """One model with its processor.

    Args:
        model: a vision-language model that generates.
        processor: its processor.
        device: where it runs.
    """

    def __init__(self, model: Any, processor: Any, device: str = "cpu") -> None:
        self.model, self.processor, self.device = model, processor, device
        self._image_token = _image_token(model.config)

    @property
    def decoder(self) -> DecoderShape:
        """Shape of the language model."""
        text = self.model.config.get_text_config()
        return DecoderShape(text.num_hidden_layers, text.hidden_size, text.intermediate_size)

    def prepare(self, prompt: str, pictures: Sequence[Image]) -> dict[str, Any]:
        """The model's inputs; not part of any measured time.

        Raises:
            ModelError: when the prompt leaves no place for a picture.
        """
        text = self._text(prompt, len(pictures))
        given = self.processor(images=list(pictures), text=text, return_tensors="pt")
        inputs = {k: v.to(self.device) if hasattr(v, "to") else v for k, v in given.items()}
        pixels = inputs.get("pixel_values")
        if pixels is not None and pixels.is_floating_point():
            inputs["pixel_values"] = pixels.to(self.model.dtype)
        if not self.count_visual(inputs):
            raise ModelError("the processor made no visual token: is it the model's own?")
        return inputs

    def count_visual(self, inputs: dict[str, Any]) -> int:
        """Visual tokens of a prompt."""
        return int((inputs["input_ids"] == self._image_token).sum())

    def answer(self, inputs: dict[str, Any], max_new_tokens: int) -> Answer:
        """Greedy decoding, timed token by token."""
        clock = _Clock(self.device)
        reset_peak(self.device)
        with torch.inference_mode():
            begun = clock.now()
            ids = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                stopping_criteria=[clock],
                pad_token_id=self._pad(),
            )
        prompt = inputs["input_ids"]
        times = [begun, *clock.times]
        took_ms = [1e3 * (b - a) for a, b in pairwise(times)]
        said = self.processor.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)
        return Answer(
            said.strip(),
            took_ms[0],
            tuple(took_ms[1:]),
            prompt.shape[1],
            self.count_visual(inputs),
            peak_mb(self.device),
        )

    def _text(self, prompt: str, pictures: int) -> str:
        if not getattr(self.processor, "chat_template", None):
            return getattr(self.processor, "image_token", "<image>") * pictures + prompt
        content = [{"type": "image"}] * pictures + [{"type": "text", "text": prompt}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )

    def _pad(self) -> int | None:
        tokenizer = self.processor.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def load_vlm(folder: Path, *, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> Vlm:
    """Load a checkpoint folder of a class that transformers has; nothing in it is executed.

    Raises:
        ModelError: when it is no vision-language model, holds no safetensors, or lacks weights.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    torch.set_num_threads(threads)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, found = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True, **safe
        )
        processor = AutoProcessor.from_pretrained(folder, **safe)
    except (OSError, ValueError, KeyError) as error:
        sentence = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} cannot be loaded as a vision-language model: {sentence}"
        ) from error
    # transformers warns and draws them by chance; such a model would answer, and mean nothing.
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of {type(model).__name__}, first {missing[0]}: "
            "the files are not whole, or named for another version of transformers"
        )
    return Vlm(model.to(device).eval(), processor, device)


class _Clock(StoppingCriteria):
    """Never stops anything; takes down when each token was ready."""

    def __init__(self, device: str) -> None:
        self.times: list[float] = []
        self._wait = device.startswith("cuda")

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.times.append(self.now())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    def now(self) -> float:
        if self._wait:
            torch.cuda.synchronize()
        return time.perf_counter()


def _image_token(config: Any) -> int:
    for name in _IMAGE_TOKENS:
        token = getattr(config, name, None)
        if token is not None:
            return int(token)
    raise ModelError(f"{type(config).__name__} names no image token: is it a model that sees?")
