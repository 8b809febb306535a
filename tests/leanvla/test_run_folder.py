from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from leanvla.errors import UsageError
from leanvla.run_folder import environment, open_run_folder, to_plain, write_json


@dataclass(frozen=True)
class Config:
    policy: str = "mini"
    keep: tuple[float, ...] = (0.25, 1.0)
    workers: int = 2
    out: Path = Path("runs/x")


def test_a_fresh_folder_tells_what_was_asked_and_where(tmp_path):
    out = open_run_folder(tmp_path / "a" / "b", Config(), resume=False)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config == {"policy": "mini", "keep": [0.25, 1.0], "workers": 2, "out": "runs/x"}
    env = json.loads((out / "env.json").read_text())
    assert env["cores"] >= 1
    assert env["packages"]["numpy"] == np.__version__
    assert set(env) == set(environment())


def test_results_are_not_overwritten_unless_continued(tmp_path):
    out = open_run_folder(tmp_path, Config(), resume=False)
    (out / "episodes.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="--resume"):
        open_run_folder(tmp_path, Config(), resume=False)
    open_run_folder(tmp_path, Config(workers=4, out=Path("y")), resume=True)
    assert (out / "episodes.jsonl").read_text() == "{}\n"


def test_a_run_that_never_began_may_be_started_again(tmp_path):
    open_run_folder(tmp_path, Config(), resume=False)
    open_run_folder(tmp_path, Config(policy="other"), resume=False)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["policy"] == "other"


def test_logs_are_no_results_but_a_log_of_somebody_else_is_theirs(tmp_path):
    open_run_folder(tmp_path, Config(), resume=False)
    (tmp_path / "simulator.log").write_text("it did not start\n")
    open_run_folder(tmp_path, Config(policy="other"), resume=False)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["policy"] == "other"
    (tmp_path / "metrics.json").touch()
    with pytest.raises(UsageError, match="policy was 'other', is 'mini'"):
        open_run_folder(tmp_path, Config(), resume=True)
    for name in ("metrics.json", "env.json"):
        (tmp_path / name).unlink()
    with pytest.raises(UsageError, match="--out NEW"):
        open_run_folder(tmp_path, Config(), resume=False)


def test_another_configuration_is_refused_even_on_resume(tmp_path):
    open_run_folder(tmp_path, Config(), resume=False)
    (tmp_path / "episodes.jsonl").touch()
    with pytest.raises(UsageError, match=r"keep was \[0.25, 1.0\], is \[0.5\].*--out NEW"):
        open_run_folder(tmp_path, Config(keep=(0.5,)), resume=True)


@pytest.mark.parametrize("content", ["[unclosed", "just words"])
def test_a_damaged_or_foreign_config_is_refused(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    (tmp_path / "episodes.jsonl").touch()
    with pytest.raises(UsageError, match="--out NEW"):
        open_run_folder(tmp_path, Config(), resume=True)


def test_a_foreign_folder_or_a_file_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="something else"):
        open_run_folder(tmp_path, Config(), resume=True)
    with pytest.raises(UsageError, match="is a file"):
        open_run_folder(tmp_path / "holiday.jpg", Config(), resume=False)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"schema": 1, "rates": np.array([0.5, 1.0]), "n": np.int64(3)})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"rate": float("nan")})
    assert json.loads(path.read_text()) == {"schema": 1, "rates": [0.5, 1.0], "n": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_sets_become_sorted_lists():
    assert to_plain({"names": {"b", "a"}, 1: (Path("x"),)}) == {"names": ["a", "b"], "1": ["x"]}
