"""Replay and conversion as a user meets them: rollout, bag, replay, data set, and back."""

from __future__ import annotations

import importlib.util
import json
import os

import numpy as np
import pytest

from leanvla.cli import main
from policy.replay.open import Options, open_episode
from sim.rollout.types import Cell, Job
from tests.policy.replay import makers
from tests.sim import fakes

POLICY = "tests.sim.fakes:FakePolicy"
GRID = ("--method", "random,vla_pruner", "--keep", "0.25")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Bags of a rollout: three cells, two seeds."""
    folder = tmp_path_factory.mktemp("rollout")
    arguments = ["--suite", "tests.sim.fakes:FakeSuite", "--policy", POLICY, "--episodes", "2"]
    arguments += ["--video", "0", "--workers", "1", *GRID]
    assert main(["rollout", *arguments, "--out", str(folder / "plain")]) == 0
    record = ["--record", str(folder / "bags")]
    assert main(["rollout", *arguments, "--out", str(folder / "taped"), *record]) == 0
    return folder


def replay(path, out, *more):
    return main(["replay", str(path), "--policy", POLICY, "--out", str(out), *more])


def metrics(out):
    return json.loads((out / "metrics.json").read_text())


def bag(recorded, name="vla_pruner_0.25_seed_000001"):
    return recorded / "bags" / name


def test_recording_changes_nothing_about_a_rollout(recorded):
    facts = ("seed", "method", "keep", "outcome", "steps", "kept", "init_state_hash")
    plain, taped = (
        {
            tuple(str(json.loads(line).get(name)) for name in facts)
            for line in (recorded / run / "episodes.jsonl").read_text().splitlines()
        }
        for run in ("plain", "taped")
    )
    assert plain == taped
    assert len(list((recorded / "bags").iterdir())) == 6


def test_a_rollouts_bag_replays_to_the_very_same_decisions(recorded, tmp_path, capsys):
    assert replay(bag(recorded), tmp_path / "out", *GRID, "--strict") == 0
    shown = capsys.readouterr()
    assert "success rate" in shown.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.yaml", "env.json", "metrics.json", "report.html")
    }
    found = metrics(tmp_path / "out")
    assert found["recording"]["facts"]["outcome"] == "success"
    cells = {(run["method"], run["keep"]): run for run in found["runs"]}
    assert list(cells) == [("dense", 1.0), ("random", 0.25), ("vla_pruner", 0.25)]
    again = cells["vla_pruner", 0.25]["recorded_decisions"]
    assert again["same_cell"]
    assert again["identical"] == again["compared"] == cells["dense", 1.0]["queries"] >= 3
    assert not cells["random", 0.25]["recorded_decisions"]["same_cell"]
    own = cells["vla_pruner", 0.25]["error_to_recording"]["values"]["dx_m"]
    assert own["max"] == 0.0
    assert cells["dense", 1.0]["error_to_dense"] is None
    assert cells["random", 0.25]["error_to_dense"]["chunks"] == again["compared"]
    assert found["kept_overlap"][0]["cells"] == ["random @ 0.25", "vla_pruner @ 0.25"]
    assert found["times_real_time"] > 0
    report = (tmp_path / "out/report.html").read_text()
    for part in ("Recorded and said", "no success rate", "Where two methods differ", "dx_m"):
        assert part in report
    assert "<script" not in report


def test_replaying_twice_gives_the_same_fingerprints(recorded, tmp_path):
    for number in (1, 2):
        assert replay(bag(recorded), tmp_path / str(number), *GRID) == 0
    one, two = (metrics(tmp_path / str(number))["runs"] for number in (1, 2))
    assert [run["decisions_sha256"] for run in one] == [run["decisions_sha256"] for run in two]
    assert len({run["decisions_sha256"] for run in one}) == 3


def test_a_policy_that_does_not_repeat_itself_fails_the_check(
    recorded, tmp_path, monkeypatch, capsys
):
    real = fakes.FakePolicy.infer

    def other(self, observation, state):
        answer = real(self, observation, state)
        answer.chunk.actions[0] += np.float32(1e-6)
        return answer

    monkeypatch.setattr(fakes.FakePolicy, "infer", other)
    assert replay(bag(recorded), tmp_path / "out", *GRID) == 1
    assert "repeats 0 of them" in capsys.readouterr().err


def test_a_folder_of_bags_is_read_by_number(recorded, tmp_path):
    assert replay(recorded / "bags", tmp_path / "out", "--episode", "5", "--limit", "2") == 0
    found = metrics(tmp_path / "out")
    assert found["recording"]["name"] == "vla_pruner_0.25_seed_000001"
    assert found["looks"] == 2


def test_nobody_looks_and_everything_is_decoded(recorded, tmp_path, capsys):
    arguments = ["--policy", "none", "--out", str(tmp_path / "out"), "--json"]
    assert main(["replay", str(bag(recorded)), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == metrics(tmp_path / "out")
    assert found["decoded"] == found["looks"] >= 3
    assert found["times_real_time"] > 10
    assert found["runs"] == []


def test_realtime_takes_the_recorded_time(recorded, tmp_path):
    assert replay(bag(recorded), tmp_path / "out", "--realtime", "--limit", "6") == 0
    found = metrics(tmp_path / "out")
    assert found["wall_s"] >= found["covered_s"] - 0.01 > 0.1


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 1, "`--recover` reads what is there"),
        (("--recover",), 0, "at least"),
        (("--recover", "--strict"), 1, "--strict: something was lost"),
    ],
)
def test_a_cut_recording(recorded, tmp_path, capsys, flags, code, said):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bag(recorded, "random_0.25_seed_000001"), copy)
    file = next(copy.glob("*.mcap"))
    os.truncate(file, file.stat().st_size * 3 // 5)
    assert replay(copy, tmp_path / "out", *flags) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    if "--recover" in flags:
        assert metrics(tmp_path / "out")["recording"]["losses"]["counts"]["cut_files"] == 1


def test_a_recording_that_does_not_fit_says_both_sides(tmp_path, capsys):
    root = makers.write_lerobot21(tmp_path / "set")
    assert replay(root, tmp_path / "out") == 2
    assert "reads view 'wrist', set, episode 0 shows front" in capsys.readouterr().err
    assert replay(root, tmp_path / "out", "--view", "wrist=front@180") == 2
    assert "reads state value 'x_m'" in capsys.readouterr().err
    flags = ("--view", "wrist=front@180", "--state-by-place")
    assert replay(root, tmp_path / "out", *flags) == 0
    found = metrics(tmp_path / "out")
    assert any("not compared" in note for note in found["not_compared"])
    assert found["runs"][0]["error_to_recording"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--keep", "2"), "ratios in (0, 1]"),
        (("--method", "nonsense"), "unknown"),
        (("--view", "front"), "VIEW=RECORDED"),
        (("--view", "chest=front"), "the policy reads front, wrist"),
        (("--limit", "0"), "--limit is 0"),
        (("--episode", "3"), "one episode"),
        (("--contract", "missing.yaml"), "no such contract"),
        (("--option", "window"), "field=value"),
    ],
)
def test_impossible_arguments_are_one_sentence(recorded, tmp_path, capsys, flags, said):
    assert replay(bag(recorded), tmp_path / "out", *flags) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="rerun-sdk is not installed")
def test_a_rerun_file_is_written(recorded, tmp_path):
    assert replay(bag(recorded), tmp_path / "out", "--rerun", str(tmp_path / "a.rrd")) == 0
    assert (tmp_path / "a.rrd").stat().st_size > 1000


@pytest.mark.skipif(importlib.util.find_spec("rerun") is not None, reason="rerun-sdk is installed")
def test_a_missing_rerun_says_what_to_install(recorded, tmp_path, capsys):
    assert replay(bag(recorded), tmp_path / "out", "--rerun", str(tmp_path / "a.rrd")) == 3
    assert "pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_expert_has_no_decisions_to_record(tmp_path, capsys):
    arguments = ["--policy", "expert", "--out", str(tmp_path / "out"), "--record", str(tmp_path)]
    assert main(["rollout", *arguments]) == 2
    assert "leanvla demos" in capsys.readouterr().err


# Conversion.


def walked(path, number=0):
    """Rows, looks and words of an episode, look by look."""
    found = open_episode(path, number, Options(every_look=True))
    steps = [step for step in found.steps() if len(step.rows)]
    return found.info, [step.look() for step in steps], np.concatenate([s.rows for s in steps])


def same(one, other, exact=True):
    (info, looks, rows), (info_2, looks_2, rows_2) = one, other
    assert info.instruction == info_2.instruction
    assert info.observation == info_2.observation
    assert (info.action.names, info.action.gripper) == (info_2.action.names, info_2.action.gripper)
    assert info.rate_hz == info_2.rate_hz
    np.testing.assert_array_equal(rows, rows_2)
    for look, look_2 in zip(looks, looks_2, strict=True):
        np.testing.assert_array_equal(look.state, look_2.state)
        for image, image_2 in zip(look.images, look_2.images, strict=True):
            gap = np.abs(image.astype(int) - image_2.astype(int))
            assert gap.max() == 0 if exact else gap.mean() < 4


def convert(source, destination, *more):
    return main(["convert", str(source), str(destination), *more])


def test_bag_to_data_set_and_back_is_exact(recorded, tmp_path, capsys):
    """Every step was seen, every row and value survives; pictures, too, where they are lossless."""
    bags = recorded / "bags"
    assert convert(bags, tmp_path / "set", "--to", "lerobot", "--pictures", "png") == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["episodes"] == 6
    assert counts["losses"] == {}
    assert convert(tmp_path / "set", tmp_path / "again", "--to", "mcap", "--episode", "5") == 0
    original = walked(bags, 5)
    same(original, walked(tmp_path / "set", 5))
    same(original, walked(tmp_path / "again"))
    replayed = metrics_of_replay(tmp_path / "again", tmp_path / "out")
    assert replayed["runs"][0]["queries"] >= 3


def metrics_of_replay(path, out):
    assert replay(path, out, "--strict") == 0
    return metrics(out)


def test_video_keeps_values_exactly_and_pictures_nearly(recorded, tmp_path):
    assert convert(bag(recorded), tmp_path / "set", "--to", "lerobot") == 0
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["features"]["observation.images.front"]["dtype"] == "video"
    same(walked(bag(recorded)), walked(tmp_path / "set"), exact=False)
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    rows = walked(bag(recorded))[2]
    assert stats["action"]["mean"] == pytest.approx(rows.mean(0).tolist(), abs=1e-6)
    assert stats["action"]["std"] == pytest.approx(rows.std(0).tolist(), abs=1e-6)
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)


def test_demonstration_shards_and_back(recorded, tmp_path):
    from sim.demos import read_shards

    assert convert(bag(recorded), tmp_path / "shards", "--to", "demos") == 0
    info, looks, rows = walked(bag(recorded))
    (episode,) = read_shards(tmp_path / "shards")
    assert (episode.instruction, episode.seed, episode.success) == (info.instruction, 1, True)
    np.testing.assert_array_equal(episode.arrays["actions"], rows)
    np.testing.assert_array_equal(episode.arrays["frames"][3][1], looks[3].images[1])
    assert np.isnan(episode.arrays["target_xyz"]).all()
    assert not episode.arrays["target_visible"].any()
    assert convert(tmp_path / "shards", tmp_path / "set", "--pictures", "png") == 0
    np.testing.assert_array_equal(walked(tmp_path / "set")[2], rows)


def test_looks_and_rows_that_are_not_one_to_one(tmp_path, capsys):
    """A robot's bag has more pictures than commands: nothing is invented without being told to."""
    thin = makers.write_bag(
        tmp_path / "bag",
        12,
        order=lambda messages: [
            m for n, m in enumerate(messages) if m[0] != "/command" or n % 2 == 0
        ],
    )
    (tmp_path / "robot.yaml").write_text(makers.CONTRACT)
    contract = ("--contract", str(tmp_path / "robot.yaml"))
    assert convert(thin, tmp_path / "set", *contract) == 2
    assert "--first-action" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".set*"))
    flags = ("--first-action", "--strict")
    assert convert(thin, tmp_path / "set", *contract, *flags) == 1  # told, but something was left
    counts = json.loads(capsys.readouterr().out)
    assert counts["rows"] == 6
    assert counts["losses"] == {"looks_left_out": 6}


def test_a_destination_that_exists_is_left_alone(recorded, tmp_path, capsys):
    assert convert(bag(recorded), tmp_path) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("lerobot") is None, reason="lerobot is not installed")
def test_lerobot_reads_what_we_write(recorded, tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    assert convert(recorded / "bags", tmp_path / "set", "--pictures", "png") == 0
    data = LeRobotDataset("made/here", root=tmp_path / "set")
    rows = walked(recorded / "bags")[2]
    assert data.meta.total_episodes == 6
    np.testing.assert_array_equal(data[2]["action"].numpy(), rows[2])
    assert data[2]["task"] == walked(recorded / "bags")[0].instruction


@pytest.mark.gl
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tabletop_and_mini_repeat_themselves_from_a_bag(tmp_path):
    """Real physics, real pictures, the real policy with its history, on the engine by default."""
    arguments = ["--episodes", "1", "--video", "0", "--workers", "1", "--method", "vla_pruner"]
    folders = ["--out", str(tmp_path / "run"), "--record", str(tmp_path / "bags")]
    assert main(["rollout", *arguments, *folders]) == 0
    from sim.rollout.tape import tape_name

    name = tape_name(Job(Cell("vla_pruner", 0.25), 0))
    bag_arguments = [str(tmp_path / "bags" / name), "--out", str(tmp_path / "out"), "--strict"]
    assert main(["replay", *bag_arguments]) == 0
    dense, pruned = metrics(tmp_path / "out")["runs"]
    again = pruned["recorded_decisions"]
    assert again["same_cell"]
    assert again["identical"] == again["compared"] == dense["queries"] > 5
    assert pruned["tokens"] == {"visual": 288, "kept": 72}
    assert pruned["error_to_recording"]["relative"] == 0.0
    assert dense["engine"] == pruned["engine"] == "onnxruntime cpu fp32"
    few = ("--engine", "torch", "--limit", "3", "--out", str(tmp_path / "torch"))
    assert main(["replay", bag_arguments[0], *few]) == 0, "another runtime promises no bits"
    dense, pruned = metrics(tmp_path / "torch")["runs"]
    assert dense["engine"] == pruned["engine"] == "torch cpu float32"
    assert not pruned["recorded_decisions"]["same_cell"]
