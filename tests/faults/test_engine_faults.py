"""Engines that are damaged, foreign or too large, and runtimes that are not what they seem."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import onnxruntime
import pytest

import engines.ort
from engines.artefact import Engine
from engines.errors import EngineError, EngineLostError, EngineMemoryError, EngineUnavailableError
from engines.manifest import MANIFEST, read_manifest
from engines.ort import OrtSession
from engines.weights import WEIGHTS
from tests.engines.plain import WIDTH, write_plain

X = np.ones((1, 4, WIDTH), np.float32)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine") / "plain"
    write_plain(folder)
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "engine")


class Runtime:
    """Opens no graph without being noticed; may fail like a device does."""

    def __init__(self, fail: str = "", on: str = "") -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.fail, self.on = fail, on

    def __call__(self, path):
        self.opened.append(path.stem)
        if path.stem == self.on:
            raise EngineMemoryError(self.fail)
        session = OrtSession(path)
        close = session.close
        session.close = lambda: (self.closed.append(path.stem), close())[1]
        return session


def rewrite(folder, change) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


# F23, F24: memory


def test_out_of_memory_at_load_leaves_nothing_loaded(folder):
    """F23."""
    runtime = Runtime("BFCArena: failed to allocate", on="small")
    engine = Engine(folder, runtime)
    with pytest.raises(EngineMemoryError, match=r"weights take .* MiB, .* MiB of host memory are"):
        engine.load(["large", "small"])
    assert runtime.closed == ["large"]


@pytest.mark.parametrize(
    "text",
    ["CUDA failure 2: out of memory", "std::bad_alloc", "BFCArena::AllocateRawInternal failed"],
)
def test_a_runtime_without_memory_is_recognised(folder, monkeypatch, text):
    """F23, F24: whatever words the runtime finds for it."""
    session = OrtSession(folder / "large.onnx")

    class Full:
        def run_with_iobinding(self, binding):
            raise RuntimeError(text)

    monkeypatch.setattr(session, "_session", Full())
    with pytest.raises(EngineMemoryError, match="MiB of host memory are free"):
        session.run({"x": X})


# F25: the device is lost


@pytest.mark.parametrize(
    "text", ["CUDA failure 700: an illegal memory access", "CUDA error: device-side assert"]
)
def test_a_lost_device_is_never_used_again(folder, monkeypatch, text):
    """F25."""
    session = OrtSession(folder / "large.onnx")

    class Lost:
        runs = 0

        def run_with_iobinding(self, binding):
            Lost.runs += 1
            raise RuntimeError(text)

    monkeypatch.setattr(session, "_session", Lost())
    for _ in range(2):
        with pytest.raises(EngineLostError):
            session.run({"x": X})
    assert Lost.runs == 1


# F26, F28: files


@pytest.mark.parametrize("name", [WEIGHTS, "large.onnx", "small.onnx"])
def test_a_flipped_bit_is_refused_before_a_runtime_sees_it(folder, name):
    """F26."""
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    runtime = Runtime()
    with pytest.raises(EngineError, match=rf"{name} does not have the hash .* `leanvla export"):
        Engine(folder, runtime)
    assert not runtime.opened


@pytest.mark.parametrize("name", [WEIGHTS, "large.onnx"])
def test_a_truncated_file_is_refused_by_its_length(folder, name):
    """F28."""
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(EngineError, match=rf"{name} has {len(data) - 1} bytes.*rebuild with"):
        Engine(folder)


def test_a_missing_file_is_named(folder):
    """F28."""
    (folder / WEIGHTS).unlink()
    with pytest.raises(EngineError, match=rf"{WEIGHTS} is missing: rebuild with `leanvla export"):
        Engine(folder)


def test_a_truncated_manifest_is_refused(folder):
    """F28."""
    text = (folder / MANIFEST).read_text()
    for end in (0, 1, len(text) // 2, len(text) - 3):
        (folder / MANIFEST).write_text(text[:end])
        with pytest.raises(EngineError, match="damaged"):
            Engine(folder)


# F27: foreign


def test_another_schema_is_refused(folder):
    """F27."""
    rewrite(folder, lambda manifest: manifest.update(schema=2, wings=4))
    with pytest.raises(EngineError, match="schema 2, this version of leanvla reads 1"):
        Engine(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(wings=4),
        lambda m: m.update(opset="new"),
        lambda m: m.pop("rungs"),
        lambda m: m["files"][WEIGHTS].update(bytes="many"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(folder, change):
    """F27."""
    rewrite(folder, change)
    with pytest.raises(EngineError, match="export it again"):
        Engine(folder)


def test_a_manifest_that_leads_out_of_the_folder_is_refused(folder):
    """F27."""
    for name in ("../secret", "/etc/passwd", "a/../../b"):
        rewrite(folder, lambda m, name=name: m["files"].update({name: {"bytes": 1, "sha256": ""}}))
        with pytest.raises(EngineError, match="outside the folder"):
            Engine(folder)
        rewrite(folder, lambda m, name=name: m["files"].pop(name))


def test_a_rung_without_its_graph_is_refused(folder):
    """F27."""
    rewrite(folder, lambda m: m["rungs"][0]["stages"].update(stage="gone"))
    with pytest.raises(EngineError, match="names graph gone"):
        Engine(folder)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("inputs", "x", {"shape": [1, 9, 64], "dtype": "float32"}),
     ("outputs", "y", {"shape": [1, 4, 64], "dtype": "float16"})],
)  # fmt: skip
def test_other_shapes_or_types_than_the_manifest_says_are_refused(folder, part, field, value):
    """F27."""
    rewrite(folder, lambda m: m["graphs"]["large"][part].update({field: value}))
    engine = Engine(folder)
    with pytest.raises(EngineError, match=rf"{part} of graph large.*`leanvla export"):
        engine.session("large")


def test_other_weights_than_the_policy_has_are_refused(folder):
    """F27."""
    engine = Engine(folder)
    engine.check_policy("0" * 64)
    with pytest.raises(EngineError, match=r"made from other weights .* `leanvla export"):
        engine.check_policy("1" * 64)


def test_a_file_that_is_no_graph_is_one_sentence(folder):
    (folder / "large.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match="stage large: ONNX Runtime refuses it"):
        OrtSession(folder / "large.onnx")


# F29: providers


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_missing_provider_is_refused_unless_the_cpu_is_allowed(folder, provider, monkeypatch):
    """F29."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineUnavailableError, match="allow the CPU with --allow-cpu"):
        OrtSession(folder / "large.onnx", provider=provider)
    allowed = OrtSession(folder / "large.onnx", provider=provider, allow_cpu=True)
    assert allowed.provider == "CPUExecutionProvider"
    assert np.isfinite(allowed.run({"x": X})["y"]).all()


def test_a_provider_that_is_dropped_silently_is_refused(folder, monkeypatch, tmp_path):
    """F29: the build has it, a library of it does not load, ONNX Runtime goes on with the CPU."""
    start = engines.ort._start
    have = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: have)
    monkeypatch.setattr(
        engines.ort, "_start", lambda path, _, threads: start(path, have[1], threads)
    )
    library = tmp_path / "libonnxruntime_providers_cuda.so"
    library.write_bytes(b"no library")
    monkeypatch.setattr(engines.ort, "_provider_library", lambda provider: library)
    said = r"was dropped .*does not load \(.*libonnxruntime_providers_cuda\.so"
    with pytest.raises(EngineUnavailableError, match=said):
        OrtSession(folder / "large.onnx", provider="cuda")
    open_anyway = partial(OrtSession, provider="cuda", allow_cpu=True)
    assert open_anyway(folder / "large.onnx").provider == "CPUExecutionProvider"


def test_an_unknown_provider_lists_the_known(folder):
    """F29."""
    with pytest.raises(EngineError, match="choose from cpu, cuda, tensorrt"):
        OrtSession(folder / "large.onnx", provider="quantum")


def test_a_folder_without_manifest_is_no_engine(tmp_path):
    with pytest.raises(EngineError, match=r"no engine\.json"):
        read_manifest(tmp_path)
