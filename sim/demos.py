"""Demonstrations: recording episodes, sharding them on disk, and collecting them from an expert.

A shard is one safetensors file that holds whole episodes end to end: per-step arrays concatenated
over time, and episode facts as JSON in the header. Frames are stored at every step, raw, so that
training can start a chunk anywhere and read shards straight into memory (55 KB a step at two views
of 96 x 96). A shard is written to a temporary name and renamed, so it is whole or absent.

Labels are the expert's clean actions. The executed action carries noise on some steps: the expert
is seen correcting errors that a policy will make (DART, Laskey et al. 2017).
"""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from policy.publish import publish
from sim.suites import make_suite, suite_spec
from sim.suites.base import EVAL_SEED_LIMIT as EVAL_SEED_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaxtyping import Bool, Float32

    from policy.types import Observation
    from sim.suites.base import TrainingSuite

Job = TypeVar("Job")
Done = TypeVar("Done")

TRAIN_SEED_BASE = 1_000_000
"""Demonstrations use seeds from here on."""

SCHEMA = "leanvla-demos-1"
EPISODES_PER_SHARD = 25
SETTLE_STEPS = 6
"""Steps recorded after success, so that a policy learns to let go, retreat and stay."""

_ARRAYS = (
    "frames",
    "states",
    "actions",
    "target_xyz",
    "goal_xyz",
    "target_uv",
    "goal_uv",
    "target_visible",
    "goal_visible",
)


class Look(NamedTuple):
    """What demonstrations were recorded on, as every shard says; empty where it is not known.

    Attributes:
        suite: its name.
        render_profile: how frames were rendered.
    """

    suite: str = ""
    render_profile: str = ""


UNKNOWN = Look()


class Grounding(NamedTuple):
    """Where target and goal are, in the world and in each view; a missing goal is invisible NaN."""

    target_xyz: Float32[np.ndarray, " 3"]
    goal_xyz: Float32[np.ndarray, " 3"]
    target_uv: Float32[np.ndarray, "views 2"]
    goal_uv: Float32[np.ndarray, "views 2"]
    target_visible: Bool[np.ndarray, " views"]
    goal_visible: Bool[np.ndarray, " views"]


def ground(suite: TrainingSuite) -> Grounding:
    """Grounding truth of the suite's present state."""
    points = suite.grounding()
    nothing = np.full(3, np.nan, np.float32)
    target, goal = points["target"], points.get("goal", nothing)
    uv, seen = zip(
        *(suite.project(np.stack([target, goal]), v) for v in suite.spec.observation.views),
        strict=True,
    )
    uvs, seens = np.stack(uv), np.stack(seen)
    return Grounding(target, goal, uvs[:, 0], uvs[:, 1], seens[:, 0], seens[:, 1])


@dataclass(frozen=True)
class Episode:
    """One recorded episode: facts, and arrays over its `steps`.

    Attributes:
        instruction: what was asked for.
        task: task family.
        seed: the suite's seed.
        source: `expert` for a demonstration, `dagger` for an expert's correction of a policy.
        success: whether the task was done in the end.
        arrays: per-step arrays by name, all of the same length (see `write_shard`).
    """

    instruction: str
    task: str
    seed: int
    source: str
    success: bool
    arrays: dict[str, np.ndarray]

    @property
    def steps(self) -> int:
        """Recorded steps."""
        return len(self.arrays["actions"])


@dataclass
class EpisodeBuffer:
    """Collects the steps of one episode.

    Example:
        buffer = EpisodeBuffer(start.instruction, start.task, seed, source="dagger")
        buffer.record(suite.observe(), suite.expert_action(), ground(suite))
        episode = buffer.finish(success=True)
    """

    instruction: str
    task: str
    seed: int
    source: str = "expert"
    _rows: dict[str, list[np.ndarray]] = field(default_factory=lambda: {n: [] for n in _ARRAYS})

    def record(
        self, observation: Observation, action: Float32[np.ndarray, " dof"], grounding: Grounding
    ) -> None:
        """Add one step: what was seen and the expert's action there."""
        row = {
            "frames": np.stack(observation.images),
            "states": observation.state,
            "actions": np.clip(np.asarray(action, np.float32), -1.0, 1.0),
            **grounding._asdict(),
        }
        for name, value in row.items():
            self._rows[name].append(value)

    def __len__(self) -> int:
        """Recorded steps."""
        return len(self._rows["actions"])

    def finish(self, *, success: bool) -> Episode:
        """The episode so far."""
        arrays = {name: np.stack(rows) for name, rows in self._rows.items()}
        return Episode(self.instruction, self.task, self.seed, self.source, success, arrays)


def write_shard(path: Path, episodes: Sequence[Episode], look: Look = UNKNOWN) -> None:
    """Write episodes to one safetensors file, atomically.

    Arrays, with T the total number of steps and V views: `frames` uint8 [T, V, h, w, 3], `states`
    float32 [T, s], `actions` float32 [T, dof] (expert labels), `target_xyz` and `goal_xyz` float32
    [T, 3] (metres; NaN without a goal), `target_uv` and `goal_uv` float32 [T, V, 2] (0..1, from the
    top left), `target_visible` and `goal_visible` bool [T, V], `episode` int32 [T] (index into the
    header's list). The header's `episodes` is a JSON list of instruction, task, seed, source,
    success and steps; beside it stands `look`.

    Raises:
        ValueError: when there is no episode to write.
    """
    if not episodes:
        raise ValueError(f"{path}: no episode to write")
    arrays = {n: np.concatenate([e.arrays[n] for e in episodes]) for n in _ARRAYS}
    counts = [e.steps for e in episodes]
    arrays["episode"] = np.repeat(np.arange(len(episodes), dtype=np.int32), counts)
    facts = [
        {
            "instruction": e.instruction,
            "task": e.task,
            "seed": e.seed,
            "source": e.source,
            "success": e.success,
            "steps": e.steps,
        }
        for e in episodes
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"schema": SCHEMA, "episodes": json.dumps(facts), **look._asdict()}
    publish(path, lambda part: save_file(arrays, part, metadata=header))


def read_shard(path: Path) -> list[Episode]:
    """Episodes of one shard.

    Raises:
        ValueError: when the file is not a demonstration shard of this schema.
    """
    with safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        if header.get("schema") != SCHEMA:
            raise ValueError(f"{path}: not a {SCHEMA} shard; collect it again with `leanvla demos`")
        arrays = {name: file.get_tensor(name) for name in _ARRAYS}
    episodes, begin = [], 0
    for facts in json.loads(header["episodes"]):
        end = begin + facts.pop("steps")
        episodes.append(Episode(**facts, arrays={n: a[begin:end] for n, a in arrays.items()}))
        begin = end
    return episodes


def read_look(folder: Path) -> Look:
    """What the demonstrations in a folder were recorded on.

    Raises:
        ValueError: when they were recorded on more than one suite, or rendered in two ways.
    """
    looks = set()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
        looks.add(Look(*(header.get(name, "") for name in Look._fields)))
    if len(looks) > 1:
        kinds = " and ".join(sorted(f"{look.suite} ({look.render_profile})" for look in looks))
        raise ValueError(f"{folder} holds demonstrations of {kinds}: keep them in folders apart")
    return looks.pop() if looks else Look()


def read_shards(folder: Path) -> Iterator[Episode]:
    """Episodes of every shard in a folder, in the order of file names."""
    for path in sorted(Path(folder).glob("*.safetensors")):
        yield from read_shard(path)


def demonstrate(suite: TrainingSuite, seed: int, noise: float) -> Episode:
    """Run the expert through one episode.

    Noise strikes half of the steps: sigma `noise` on the translation, a quarter of it on the
    rotation, none on the gripper. The label stays clean.
    """
    start = suite.reset(seed)
    rng = np.random.default_rng([seed, 1])
    buffer = EpisodeBuffer(start.instruction, start.task, seed)
    dof = suite.spec.action.dof
    sigma = noise * np.array([1.0, 1.0, 1.0, *[0.25] * (dof - 4), 0.0])
    left = suite.spec.max_steps
    success = False
    while left > 0:
        label = suite.expert_action()
        buffer.record(suite.observe(), label, ground(suite))
        strikes = rng.random() < 0.5
        result = suite.step(label + strikes * sigma * rng.standard_normal(dof))
        left -= 1
        if result.success and not success:
            success, left = True, min(left, SETTLE_STEPS)
    return buffer.finish(success=success)


@dataclass(frozen=True)
class Collection:
    """What a collection did: kept episodes, failures of the expert, recorded steps."""

    kept: int
    failed: int
    steps: int


def collect(
    suite: str,
    seeds: Sequence[int],
    out: Path,
    *,
    noise: float = 0.4,
    view_size: int | None = None,
    render_profile: str | None = None,
    workers: int = 1,
    on_shard: Callable[[int, Collection], None] | None = None,
) -> Collection:
    """Demonstrate every seed and write the successful episodes, one shard per 25 seeds.

    A shard whose file exists is read for its count and not collected again, so an interrupted
    collection continues where it stopped. Inside a shard the seeds of one scene follow each other.

    Args:
        suite: name of the suite.
        seeds: one episode each.
        out: folder of the shards.
        noise: sigma of the injected action noise, in normalised action units.
        view_size: side of the recorded frames, px; None takes the suite's own.
        render_profile: how frames are rendered; None takes the suite's own.
        workers: processes.
        on_shard: called after each shard with its number and its counts.

    Returns:
        Counts over all shards.
    """
    spec = suite_spec(suite, render_profile=render_profile)
    jobs = [
        _Shard(Look(suite, spec.render_profile), view_size, noise, part, _shard_path(out, part[0]))
        for part in portions(seeds)
    ]
    total = Collection(0, 0, 0)
    for index, done in enumerate(run_jobs(_collect_shard, jobs, workers)):
        total = Collection(*(a + b for a, b in zip(_counts(total), _counts(done), strict=True)))
        if on_shard is not None:
            on_shard(index, done)
    return total


def portions(seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """Seeds as shards."""
    count = EPISODES_PER_SHARD
    return [tuple(seeds[i : i + count]) for i in range(0, len(seeds), count)]


def by_scene(seeds: Sequence[int], suite: TrainingSuite) -> list[int]:
    """Seeds in an order that compiles every scene once."""
    return sorted(seeds, key=lambda seed: seed % suite.spec.scenes)


def _counts(collection: Collection) -> tuple[int, int, int]:
    return collection.kept, collection.failed, collection.steps


def _shard_path(out: Path, first_seed: int) -> Path:
    return Path(out) / f"demos-{first_seed:09d}.safetensors"


def run_jobs(work: Callable[[Job], Done], jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """`work` of every job in order, in this process or in spawned ones."""
    if workers <= 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: a GL context does not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(work, jobs)


class _Shard(NamedTuple):
    """What one job of a collection makes."""

    look: Look
    view_size: int | None
    noise: float
    seeds: tuple[int, ...]
    path: Path


_SUITES: dict[tuple[Look, int | None], TrainingSuite] = {}


def _collect_shard(job: _Shard) -> Collection:
    if job.path.exists():
        episodes = read_shard(job.path)
    else:
        suite = _suite(job)
        tries = (demonstrate(suite, seed, job.noise) for seed in by_scene(job.seeds, suite))
        episodes = [episode for episode in tries if episode.success]
        if episodes:
            write_shard(job.path, episodes, job.look)
    steps = sum(e.steps for e in episodes)
    return Collection(len(episodes), len(job.seeds) - len(episodes), steps)


def _suite(job: _Shard) -> TrainingSuite:
    name, profile = job.look
    key = job.look, job.view_size
    if key not in _SUITES:
        _SUITES[key] = make_suite(name, render_profile=profile, view_size=job.view_size)
    return _SUITES[key]
