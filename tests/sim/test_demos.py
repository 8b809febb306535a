from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leanvla.commands.demos import Demos, run
from leanvla.errors import EnvironmentFault, UsageError
from sim import demos
from sim.demos import EPISODES_PER_SHARD, SETTLE_STEPS, TRAIN_SEED_BASE
from sim.render import GLReport

if TYPE_CHECKING:
    from pathlib import Path

    from sim.suites.tabletop.suite import Tabletop

pytestmark = pytest.mark.gl


@pytest.fixture(autouse=True)
def shared_suite(tabletop: Tabletop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demos, "_SUITES", {(demos.Look("tabletop", "lowpoly"), None): tabletop})


@pytest.fixture(scope="module")
def episode(tabletop: Tabletop) -> demos.Episode:
    return demos.demonstrate(tabletop, TRAIN_SEED_BASE, noise=0.4)


def test_an_episode_has_every_array_at_every_step(episode: demos.Episode) -> None:
    shapes = {name: array.shape[1:] for name, array in episode.arrays.items()}
    assert shapes == {
        "frames": (2, 96, 96, 3),
        "states": (8,),
        "actions": (7,),
        "target_xyz": (3,),
        "goal_xyz": (3,),
        "target_uv": (2, 2),
        "goal_uv": (2, 2),
        "target_visible": (2,),
        "goal_visible": (2,),
    }
    assert {len(a) for a in episode.arrays.values()} == {episode.steps}
    assert np.abs(episode.arrays["actions"]).max() <= 1.0
    assert episode.success


def test_recording_goes_on_after_success(tabletop: Tabletop) -> None:
    seed = TRAIN_SEED_BASE
    start = tabletop.reset(seed)
    steps = 1
    while not tabletop.step(tabletop.expert_action()).success:
        steps += 1
    clean = demos.demonstrate(tabletop, seed, noise=0.0)
    assert clean.instruction == start.instruction
    assert clean.steps == steps + SETTLE_STEPS


def test_labels_are_the_clean_actions_of_a_noisy_run(tabletop: Tabletop) -> None:
    noisy = demos.demonstrate(tabletop, TRAIN_SEED_BASE + 1, noise=0.4)
    clean = demos.demonstrate(tabletop, TRAIN_SEED_BASE + 1, noise=0.0)
    assert np.array_equal(noisy.arrays["actions"][0], clean.arrays["actions"][0])
    assert not np.array_equal(noisy.arrays["states"][:20], clean.arrays["states"][:20])


def test_a_pick_has_no_goal(tabletop: Tabletop) -> None:
    seed = next(s for s in range(48) if tabletop.reset(s).task == "pick")
    tabletop.reset(seed)
    truth = demos.ground(tabletop)
    assert np.isnan(truth.goal_xyz).all()
    assert not truth.goal_visible.any()
    assert truth.target_visible[0]


def test_shards_give_back_what_was_written(episode: demos.Episode, tmp_path: Path) -> None:
    buffer = demos.EpisodeBuffer("push the red cube to the left", "push", 9, source="dagger")
    assert len(buffer) == 0
    other = demos.Episode(buffer.instruction, "push", 9, "dagger", False, episode.arrays)
    demos.write_shard(tmp_path / "a.safetensors", [episode, other])
    first, second = demos.read_shards(tmp_path)
    assert (second.source, second.success, second.seed) == ("dagger", False, 9)
    for name, array in episode.arrays.items():
        assert np.array_equal(first.arrays[name], array, equal_nan=array.dtype.kind == "f")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    demos.save_file({"a": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="collect it again"):
        demos.read_shard(path)
    with pytest.raises(ValueError, match="no episode"):
        demos.write_shard(path, [])


def test_collection_resumes_and_counts_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, episode: demos.Episode
) -> None:
    played = []

    def play(suite: Tabletop, seed: int, noise: float) -> demos.Episode:
        played.append(seed)
        return demos.Episode("pick", "pick", seed, "expert", seed % 10 != 0, episode.arrays)

    monkeypatch.setattr(demos, "demonstrate", play)
    seeds = range(TRAIN_SEED_BASE, TRAIN_SEED_BASE + EPISODES_PER_SHARD + 5)
    first = demos.collect("tabletop", seeds, tmp_path)
    assert (first.kept, first.failed) == (27, 3)
    (tmp_path / f"demos-{TRAIN_SEED_BASE:09d}.safetensors").unlink()
    played.clear()
    assert demos.collect("tabletop", seeds, tmp_path) == first
    assert played == list(seeds[:EPISODES_PER_SHARD])


def test_seeds_of_one_scene_follow_each_other(tabletop: Tabletop) -> None:
    assert demos.by_scene([3, 1, 2], tabletop) == [3, 1, 2]  # one scene: in the order given
    spec = replace(tabletop.spec, scenes=2)
    assert demos.by_scene([3, 4, 5, 6], SimpleNamespace(spec=spec)) == [4, 6, 3, 5]


def test_a_folder_says_what_it_was_recorded_on(tmp_path: Path, episode: demos.Episode) -> None:
    look = demos.Look("tabletop", "lowpoly")
    demos.write_shard(tmp_path / "a.safetensors", [episode], look)
    assert demos.read_look(tmp_path) == look
    demos.write_shard(tmp_path / "b.safetensors", [episode], look._replace(suite="robosuite_lift"))
    with pytest.raises(ValueError, match="keep them in folders apart"):
        demos.read_look(tmp_path)
    assert demos.read_look(tmp_path / "none") == demos.UNKNOWN


def test_the_command_collects_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Demos(episodes=2, workers=1, out=tmp_path)) == 0
    assert '"kept": 2' in capsys.readouterr().out
    written = {"config.yaml", "env.json", "metrics.json"}
    assert written <= {path.name for path in tmp_path.iterdir()}
    assert len(list(demos.read_shards(tmp_path))) == 2


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        (Demos(suite="tabletp"), "did you mean 'tabletop'"),
        (Demos(seed=5), "held out for evaluation"),
        (Demos(episodes=0), "at least one"),
        (Demos(workers=-1), "one per core"),
        (Demos(noise=-1.0), "0 or more"),
        (Demos(noise=float("nan")), "0 or more"),
    ],
)
def test_bad_usage_is_refused(config: Demos, remedy: str) -> None:
    with pytest.raises(UsageError, match=remedy):
        run(config)


def test_a_folder_of_another_noise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanvla.commands.demos.check_gl", lambda: GLReport("egl", ok=True))
    assert run(Demos(episodes=1, workers=1, out=tmp_path)) == 0
    with pytest.raises(UsageError, match=r"noise was 0\.4, is 0\.0"):
        run(Demos(episodes=1, workers=1, out=tmp_path, noise=0.0))


def test_a_blind_machine_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = GLReport("egl", ok=False, problem="no backend", remedy="install libegl1")
    monkeypatch.setattr("leanvla.commands.demos.check_gl", lambda: blind)
    with pytest.raises(EnvironmentFault, match="install libegl1"):
        run(Demos(out=tmp_path))
