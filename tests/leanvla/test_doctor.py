from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import pytest

from leanvla.commands import doctor
from leanvla.commands.doctor import Check, Doctor, examine, run


def _only(check):
    return list(check())


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def broken():
        raise KeyError("MemAvailable")

    monkeypatch.setattr(doctor, "CHECKS", {"memory": broken})
    (check,) = examine()
    assert (check.name, check.status) == ("memory", "fail")
    assert "KeyError" in check.detail


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("note", 0), ("fail", 1)])
def test_exit_code_and_json(monkeypatch, capsys, status, code):
    finding = Check("disk", status, "0.1 GB free", "free some")
    monkeypatch.setattr(doctor, "CHECKS", {"disk": lambda: iter([finding])})
    assert run(Doctor(json=True)) == code
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (code == 0)
    assert told["checks"] == [
        {"name": "disk", "status": status, "detail": "0.1 GB free", "remedy": "free some"}
    ]


def test_the_list_shows_findings_and_remedies(monkeypatch, capsys):
    finding = Check("disk", "fail", "[0.1 GB] free", "free some")
    monkeypatch.setattr(doctor, "CHECKS", {"disk": lambda: iter([finding])})
    assert run(Doctor()) == 1
    out = capsys.readouterr().out
    assert "fail disk" in out
    assert "[0.1 GB] free" in out
    assert "→ free some" in out
    assert "1 check(s) failed" in out


def test_every_failing_check_has_a_remedy(monkeypatch, tmp_path):
    """Break the machine in every way that can be pretended, and look for a way out each time."""
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "SHA256").write_text(f"{'0' * 64}  model.safetensors\n")
    monkeypatch.setattr(doctor, "ZOO", tmp_path)
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (9, 0))
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    monkeypatch.setenv("OMP_NUM_THREADS", "9999")
    monkeypatch.setitem(doctor.CHECKS, "gl", _broken_gl)
    failed = {check.name: check for check in examine() if check.status == "fail"}
    assert {"python", "packages", "gl", "weights mini", "disk", "threads"} <= failed.keys()
    assert all(check.remedy for check in failed.values())


def _broken_gl():
    raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")


def test_a_half_installed_extra_fails_and_an_absent_one_is_a_note(monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda name: "1" if name == "mujoco" else None)
    extras = {check.name: check for check in _only(doctor.check_packages)}
    assert extras["extra sim"].status == "fail"
    assert "leanvla[sim]" in extras["extra sim"].remedy
    assert extras["extra torch"].status == "note"


def test_weights_are_compared_with_their_ledger(monkeypatch, tmp_path):
    folder = tmp_path / "mini"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    (folder / "SHA256").write_text(f"{digest}  model.safetensors\n")
    monkeypatch.setattr(doctor, "ZOO", tmp_path)
    assert _only(doctor.check_weights)[0].status == "ok"
    (folder / "model.safetensors").write_bytes(b"weightz")
    (check,) = _only(doctor.check_weights)
    assert check.status == "fail"
    assert "model.safetensors" in check.detail


def test_engines_are_listed_with_what_they_run(monkeypatch, tmp_path):
    import shutil

    from policy.registry import packaged_policies, resolve_policy

    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    shipped = _only(doctor.check_engines)
    assert [(graphs.name, graphs.status) for graphs in shipped] == [
        (f"graphs {name}", "ok") for name in packaged_policies()
    ]
    graphs = shipped[0]
    assert "run without torch: dense; vla_pruner at 0.5, 0.25, 0.125" in graphs.detail
    from policy.openvla.engine.packaged import packaged_engine

    kept = packaged_engine(resolve_policy("mini"))
    listed = _only(doctor.check_engines)[-1]
    assert listed.status == "ok"
    assert str(kept) in listed.detail
    assert "not compared here" in listed.detail
    (kept / "vision.onnx").unlink()
    damaged = _only(doctor.check_engines)[-1]
    assert (damaged.status, damaged.remedy) == (
        "note",
        f"nothing; it is made again when needed, or remove it: `rm -r {kept}`",
    )
    zoo = tmp_path / "zoo"
    shutil.copytree(resolve_policy("mini"), zoo / "mini")
    (zoo / "mini" / "graphs" / "vision.onnx").write_bytes(b"")
    monkeypatch.setattr(doctor, "ZOO", zoo)
    broken = _only(doctor.check_engines)[0]
    assert broken.status == "fail"
    assert "make graphs" in broken.remedy


@pytest.mark.parametrize(
    ("threads", "status"), [(None, "ok"), ("1", "ok"), ("0", "fail"), ("many", "fail")]
)
def test_threads(monkeypatch, threads, status):
    if threads is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert _only(doctor.check_threads)[0].status == status


def test_this_machine_can_be_examined():
    names = [check.name for check in examine()]
    assert {"python", "packages", "torch", "gl", "disk", "memory", "threads"} <= set(names)


def test_doctor_says_that_plans_were_not_executed(monkeypatch):
    from engines.tensorrt import library

    monkeypatch.setattr(library, "has_driver", lambda: False)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    (absent,) = doctor.check_tensorrt()
    assert absent.detail.startswith("absent")
    found = library.Library(library.TENSORRT_RTX, None, "1.7.1", driver=False)
    monkeypatch.setattr(library, "installed", lambda name: name == library.TENSORRT_RTX)
    monkeypatch.setattr(library, "find_library", lambda name: found)
    (check,) = doctor.check_tensorrt()
    assert (check.status, check.name) == ("note", "tensorrt")
    assert "tensorrt_rtx 1.7.1: plans are built here and not executed" in check.detail
