"""What needs neither LIBERO's environment nor its assets."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from policy.types import ActionSpec
from sim.demos import EVAL_SEED_LIMIT, TRAIN_SEED_BASE
from sim.rollout.match import MismatchError, adapt_actions, openvla_libero
from sim.suites import LIBERO, make_suite, suite_spec
from sim.suites.environment import Environment, SuiteEnvironmentError, environments
from sim.suites.libero.assets import NEEDED, VARIABLE, AssetsError, assets_hash, find_assets
from sim.suites.libero.convert import InitStateError, digest, read_states
from sim.suites.libero.scene import Task
from sim.suites.libero.spec import TASKS, axis_angle, make_example, place_of, task_names


@pytest.mark.parametrize("suite", LIBERO)
def test_the_first_seeds_are_the_published_episodes_each_once(suite: str) -> None:
    count = TASKS[suite] * 50
    places = [place_of(suite, seed) for seed in range(count)]
    assert len(set(places)) == count
    assert {p.state for p in places} == set(range(50))
    assert [p.task for p in places[: TASKS[suite]]] == list(range(TASKS[suite]))
    assert place_of(suite, count) == place_of(suite, 0)


def test_training_seeds_never_begin_in_an_evaluated_state() -> None:
    assert place_of("libero_object", EVAL_SEED_LIMIT - 1).state is not None
    assert place_of("libero_object", EVAL_SEED_LIMIT) == (0, None)
    assert place_of("libero_90", TRAIN_SEED_BASE + 1).state is None


@pytest.mark.parametrize("suite", LIBERO)
def test_every_task_has_a_name(suite: str) -> None:
    assert len(set(task_names(suite))) == TASKS[suite]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pick_up_the_milk_and_place_it", "pick up the milk and place it"),
        ("KITCHEN_SCENE10_close_the_top_drawer", "close the top drawer"),
        ("LIVING_ROOM_SCENE2_pick_up_the_butter", "pick up the butter"),
    ],
)
def test_what_is_said_is_the_name_of_the_task(name: str, says: str) -> None:
    assert Task(name, Path("unused.bddl")).instruction == says


@pytest.mark.parametrize("suite", LIBERO)
def test_the_example_fits_the_spec(suite: str) -> None:
    spec, (observation, action) = suite_spec(suite), make_example()
    observation.check_against(spec.observation)
    assert action.shape == (spec.action.dof,)
    assert spec.render_profile == "default"


def test_the_published_gripper_becomes_that_of_the_simulator() -> None:
    rows = np.zeros((4, 7), np.float32)
    rows[:, -1] = (0.0, 0.49, 0.51, 1.0)
    assert openvla_libero(rows)[:, -1].tolist() == [1.0, 1.0, -1.0, -1.0]
    assert rows[:, -1].tolist() == pytest.approx([0.0, 0.49, 0.51, 1.0])


class Says:
    def __init__(self, gripper: str) -> None:
        self.action_spec = ActionSpec(("x",) * 7, 8, 20.0, gripper=gripper)


def test_a_gripper_is_converted_by_a_declared_adapter_or_refused() -> None:
    suite = suite_spec("libero_goal")
    adapter = adapt_actions(Says("0 closed, 1 open"), suite)  # type: ignore[arg-type]
    assert adapter is not None
    assert adapter.name == "openvla_libero"
    assert adapt_actions(Says("-1 open, +1 close"), suite) is None  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match="no conversion between them is declared"):
        adapt_actions(Says("0 open, 1 close"), suite)  # type: ignore[arg-type]


def test_axis_angle_keeps_the_quaternions_sign() -> None:
    half = np.sqrt(0.5)
    assert axis_angle(np.array([half, half, 0, 0])) == pytest.approx([np.pi / 2, 0, 0])
    assert axis_angle(np.array([-half, -half, 0, 0])) == pytest.approx([-1.5 * np.pi, 0, 0])
    assert axis_angle(np.array([1.0, 0, 0, 0])).tolist() == [0, 0, 0]


def archive(folder: Path, content: bytes) -> Path:
    path = folder / "task.pruned_init"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
    return path


def test_initial_states_are_read_from_their_pickles(tmp_path: Path) -> None:
    table = np.random.default_rng(0).random((50, 7))
    states = read_states(archive(tmp_path, pickle.dumps(table, protocol=2)))
    assert np.array_equal(states, table)
    assert digest(states) == digest(table) != digest(table[::-1])


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_pickle_that_would_act_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, pickle.dumps(Payload(tmp_path / "touched"), protocol=2))
    with pytest.raises(InitStateError, match="is no part of an array"):
        read_states(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "table",
    [np.zeros((3, 7)), np.full((50, 7), np.nan), np.zeros((50, 7), np.float32), [1.0, 2.0]],
)
def test_tables_that_are_no_initial_states_are_refused(tmp_path: Path, table: object) -> None:
    with pytest.raises(InitStateError):
        read_states(archive(tmp_path, pickle.dumps(table, protocol=2)))


def test_noise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.pruned_init"
    path.write_bytes(b"PK\x03\x04 noise")
    with pytest.raises(InitStateError, match="not a table"):
        read_states(path)


def test_a_suite_that_is_not_installed_names_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path))
    with pytest.raises(SuiteEnvironmentError, match="run `leanvla suites install libero`"):
        make_suite("libero_object")


def test_assets_that_are_missing_name_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(AssetsError, match=f"set {VARIABLE}"):
        find_assets()
    with pytest.raises(AssetsError, match="has no scenes"):
        find_assets(str(tmp_path))
    for name in NEEDED:
        (tmp_path / name).mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    empty = assets_hash(find_assets())
    (tmp_path / "scenes" / "a.xml").write_text("<mujoco/>")
    assets_hash.cache_clear()
    assert assets_hash(find_assets()) != empty


def test_another_lock_is_another_environment(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("a==1\n")
    first = Environment("x", lock).folder
    lock.write_text("a==2\n")
    assert Environment("x", lock).folder != first


def test_the_lock_is_pinned_to_the_last_line() -> None:
    lines = environments()["libero"].lock.read_text().splitlines()
    assert all("==" in line for line in lines if line)
    assert {"robosuite==1.4.0", "mujoco==3.3.2", "hf-libero==0.1.4"} <= set(lines)


def test_an_install_that_fails_leaves_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path))
    lock = tmp_path / "lock.txt"
    lock.write_text("not a requirement\n")
    environment = Environment("x", lock)
    with pytest.raises(SuiteEnvironmentError, match="could not install its packages"):
        environment.install()
    assert not environment.installed
