"""Our model of lmms-eval against stand-ins of its three names; that package is not installed."""

from __future__ import annotations

import abc
import importlib
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class Lmms(abc.ABC):
    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    registered: dict[str, type] = {}

    def register_model(name: str):
        def keep(kind: type) -> type:
            registered[name] = kind
            return kind

        return keep

    contents = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.models": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.api.registry": {"register_model": register_model},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, values in contents.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "vlm.lmms_eval_model", raising=False)
    yield registered
    sys.modules.pop("vlm.lmms_eval_model", None)


def test_the_manifest_leads_to_a_chat_model(library) -> None:
    from vlm.lmms_eval_plugin import model_manifest

    manifest = model_manifest()
    module, _, name = manifest.chat_class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    assert issubclass(kind, Lmms)
    assert kind.is_simple is False
    assert library == {manifest.model_id: kind}


def test_the_entry_point_is_declared() -> None:
    from tests.house.rules import ROOT
    from vlm.lmms_eval_plugin import MODEL_ID

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    group = text.partition('[project.entry-points."lmms_eval.models"]')[2].partition("\n[")[0]
    assert group.strip() == f'{MODEL_ID} = "vlm.lmms_eval_plugin:model_manifest"'


@pytest.mark.parametrize("older", [False, True])
def test_it_answers_with_a_method_at_work(library, small_model: Path, older: bool) -> None:
    kind = importlib.import_module("vlm.lmms_eval_model").PrunedModel
    model = kind(str(small_model), method="fastv", keep="0.25", device="cpu", dtype="float32")
    model.task_dict = {"pope": {"test": [{"question": "Is there a red cube?"}]}}

    def doc_to_messages(doc: dict) -> list:
        picture = {"type": "image", "url": Image.new("RGB", (50, 40), (200, 0, 0))}
        return [{"role": "user", "content": [picture, {"type": "text", "text": doc["question"]}]}]

    args = (doc_to_messages, {"max_new_tokens": 2, "until": ["\n\n"]}, 0, "pope", "test")
    request = types.SimpleNamespace(args=("context", *args) if older else args)
    (answer,) = model.generate_until([request])
    assert isinstance(answer, str)
    with pytest.raises(NotImplementedError, match="by generating"):
        model.loglikelihood([])
    with pytest.raises(ValueError, match="takes 1"):
        kind(str(small_model), batch_size=4)
