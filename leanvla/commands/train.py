"""`leanvla train`: a small OpenVLA-format policy from demonstrations, then from corrections."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leanvla.commands.rollout_checks import check_expert, check_suite_ready
from leanvla.errors import UsageError
from leanvla.report.training import write_training_report
from leanvla.run_folder import open_run_folder, write_json
from sim.suites import SUITES, unknown_suite

if TYPE_CHECKING:
    from policy.openvla.config import OpenVLAConfig
    from policy.training.data import TrainingData
    from policy.training.loop import Progress
    from policy.training.recipe import Recipe
    from sim.demos import Episode, Look

SCHEMA = "leanvla.train/1"
CORRECTION_SEEDS = 3_000_000
"""Corrections use seeds from here on, apart from demonstrations and from held-out evaluation."""


@dataclass(frozen=True)
class Train:
    """Train a small policy and write it as a checkpoint folder, `OUT/policy`.

    Beside it stand `metrics.json`, `report.html` with the losses, and the log of every stage.

    Attributes:
        recipe: `mini` decodes chunks of eight actions in parallel; `mini-suite` goes on from it
            (`--init mini`) on another suite; `mini-ar` goes on from it, too, and decodes token by
            token.
        suite: where corrections are driven; also names the statistics in the checkpoint.
        demos: folder of demonstrations (`leanvla demos`).
        out: folder for weights, log and policy.
        rounds: rounds of corrections: the policy drives, the expert labels and takes over, training
            goes on with both.
        corrections: episodes per round.
        effort: share of the recipe's samples; 0.001 tries the whole chain in minutes.
        workers: processes; 0 means one per core.
        init: weights to start from: a packaged policy, a checkpoint folder, or `raw.safetensors` of
            another run.
        compile: fuse the network with torch.compile; needs a C++ compiler on a CPU.
        device: `cpu` or `cuda`.
        seed: of initial weights and sampling.
        resume: go on in `out` with a run that was cut, from its last line of progress; the result
            is the one it would have had.
    """

    recipe: Literal["mini", "mini-suite", "mini-ar"] = "mini"
    suite: str = "tabletop"
    demos: Path = Path("data/demos")
    out: Path = Path("runs/train")
    rounds: int = 1
    corrections: int = 300
    effort: float = 1.0
    workers: int = 0
    init: str | None = None
    compile: bool = True
    device: Literal["cpu", "cuda"] = "cpu"
    seed: int = 0
    resume: bool = False


def run(config: Train) -> int:
    """Train, correct, train again; returns the exit code.

    Raises:
        UsageError: on values that ask for something impossible, before anything is read.
    """
    init = _check(config)
    from policy.training.mini import CORRECTED, RECIPES
    from sim.training_data import load_episodes

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    demonstrations = load_episodes([config.demos])
    look = _look(config)
    out = open_run_folder(config.out, config, resume=config.resume)
    learner = Learner(config, demonstrations, look, out)
    learner.learn(RECIPES[config.recipe], demonstrations, init)
    episodes, rounds = list(demonstrations), []
    for number in range(config.rounds):
        folder = out / f"corrections-{number}"
        rounds.append(learner.correct(folder, number))
        episodes += load_episodes([folder])
        learner.learn(CORRECTED[config.recipe], episodes, out / "raw.safetensors", number + 1)
    metrics = {
        "schema": SCHEMA,
        "recipe": config.recipe,
        "suite": config.suite,
        "render_profile": look.render_profile or None,
        "view_size": learner.view_size,
        "demonstrations": len(demonstrations),
        "demonstration_steps": sum(e.steps for e in demonstrations),
        "corrections": rounds,
    }
    write_json(out / "metrics.json", metrics)
    write_training_report(out, metrics, _log(out / "log.jsonl"))
    print(json.dumps(metrics, indent=2))
    return 0


def _log(path: Path) -> list[dict[str, Any]]:
    """Rows of the training log; a run too short for one has none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _check(config: Train) -> Path | None:
    """Refuse what is impossible; returns where the first weights are."""
    if config.suite not in SUITES:
        raise UsageError(str(unknown_suite(config.suite)))
    for name, least in (("rounds", 0), ("corrections", 1), ("workers", 0)):
        if getattr(config, name) < least:
            raise UsageError(f"--{name} is {getattr(config, name)}: give {least} or more")
    if config.rounds:
        check_expert(config.suite)
    check_suite_ready(config.suite)
    if config.init is None:
        if config.recipe != "mini":
            raise UsageError(
                f"{config.recipe} goes on from a trained mini: give --init mini, or your own"
            )
        return None
    if Path(config.init).is_file():
        return Path(config.init)
    from policy.registry import resolve_policy

    return resolve_policy(config.init)


class Learner:
    """One policy in the making."""

    def __init__(self, config: Train, demonstrations: list[Episode], look: Look, out: Path) -> None:
        from policy.openvla.mini_tokenizer import build_mini_tokenizer
        from sim.dagger import latest_take_over
        from sim.training_data import episode_stats

        self.config, self.look, self.out = config, look, out
        said = () if config.suite == "tabletop" else {e.instruction for e in demonstrations}
        self.tokenizer = build_mini_tokenizer(out / "tokenizer", said).parent
        self.latest = latest_take_over(demonstrations)
        self.stats = episode_stats(demonstrations)
        self.policy = self._architecture()
        self.view_size = _frame_size(demonstrations, self.policy)
        self.workers = 1 if config.device == "cuda" else config.workers or os.cpu_count() or 1

    def learn(
        self, recipe: Recipe, episodes: list[Episode], init: Path | None, part: int = 0
    ) -> None:
        """Run a recipe over some episodes and write the policy folder."""
        from policy.training.loop import Job, fit
        from policy.training.mini import save_policy, weights_of

        config = self.config
        weights = weights_of(self.policy.dof)
        job = Job(
            self.policy,
            replace(recipe.scaled(config.effort), action_weights=weights),
            self.out,
            self.workers,
            config.seed,
            init,
            config.compile,
            config.device,
            part,
            config.resume,
        )
        learnt = fit(job, self._data(episodes), _report)
        save_policy(learnt, self.policy, self.out / "policy", self.tokenizer)

    def correct(self, folder: Path, number: int) -> dict[str, float]:
        """Let the policy drive and the expert correct it."""
        from sim.dagger import collect_corrections

        done = folder / "corrections.json"
        if done.exists():
            return json.loads(done.read_text(encoding="utf-8"))
        if folder.exists():  # cut: how often the policy finished alone is known of whole rounds
            shutil.rmtree(folder)
        count = self.config.corrections
        first = CORRECTION_SEEDS + number * count
        alone = collect_corrections(
            str(self.out / "policy"),
            self.config.suite,
            range(first, first + count),
            folder,
            view_size=self.view_size,
            render_profile=self.look.render_profile or None,
            latest=self.latest,
            workers=self.workers,
            report=_report_corrections,
        )
        result = {"episodes": count, "finished_before_take_over": alone}
        write_json(done, result)
        return result

    def _architecture(self) -> OpenVLAConfig:
        from policy.training.mini import mini_config
        from sim.suites import suite_spec

        spec = suite_spec(self.config.suite)
        return mini_config(self.config.recipe, spec.name, self.stats, spec.observation, spec.action)

    def _data(self, episodes: list[Episode]) -> TrainingData:
        from policy.openvla.tokenizer import PromptTokenizer
        from policy.training.mini import CORRECTION_WEIGHT
        from sim.training_data import training_data

        encode = PromptTokenizer(self.tokenizer, self.policy)
        return training_data(
            episodes, self.stats, lambda text: encode(text)[0].tolist(), CORRECTION_WEIGHT
        )


def _look(config: Train) -> Look:
    """What the demonstrations were recorded on; refuses those of another suite."""
    from sim.demos import read_look

    look = read_look(config.demos)
    if look.suite not in ("", config.suite):
        raise UsageError(
            f"the demonstrations in {config.demos} are of {look.suite}, --suite is {config.suite}"
        )
    return look


def _frame_size(episodes: list[Episode], policy: OpenVLAConfig) -> int:
    """Side of the demonstrations' frames, pixels; refuses what this policy cannot learn from."""
    arrays, reads = episodes[0].arrays, policy.towers[0].image_size
    have = arrays["frames"].shape[1], arrays["states"].shape[1], arrays["actions"].shape[1]
    if have != (len(policy.views), policy.proprio_dim, policy.dof):
        raise UsageError(
            f"the demonstrations have {have[0]} views, {have[1]} state and {have[2]} action "
            f"values, --suite has {len(policy.views)}, {policy.proprio_dim} and {policy.dof}: give "
            "the suite that they were recorded on"
        )
    size = arrays["frames"].shape[2]
    if size != reads:
        raise UsageError(
            f"the demonstrations show {size} px frames, the recipe reads {reads}: record them with "
            f"`leanvla demos --view-size {reads}`"
        )
    return size


def _report(progress: Progress) -> None:
    line = (
        f"stage {progress.stage}/{progress.stages}  {progress.samples:,}/{progress.of:,} samples  "
        f"{progress.samples_per_s:.0f}/s  action {progress.action:.3f}  "
        f"grounding {progress.grounding:.3f}  position {progress.position:.3f}"
    )
    print(line, file=sys.stderr, flush=True)


def _report_corrections(done: int, alone: int) -> None:
    print(f"corrections: {done} episodes, {alone} done alone", file=sys.stderr, flush=True)
