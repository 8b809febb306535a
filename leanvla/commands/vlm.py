"""`leanvla vlm`: a vision-language model answers benchmark questions, dense and pruned."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from leanvla.errors import INTERRUPTED, UsageError
from vlm.errors import MissingDataError, RunError, TaskError

if TYPE_CHECKING:
    from leanvla.commands.vlm_results import Results
    from vlm.model import Vlm
    from vlm.runner import Plan
    from vlm.store import AnswerStore

NOT_COMPARED = ("out", "resume", "json", "pictures", "list")
SCENE_TASKS = ("scene_qa", "scene_clips", "needle")


@dataclass(frozen=True)
class VlmConfig:
    """Ask a vision-language model the questions of benchmarks, dense and pruned side by side.

    Every cell answers the same questions, one after the other on the same machine. Writes
    `answers.jsonl`, `metrics.json` and `report.html` into `out`: accuracy with 95 % intervals,
    paired differences to dense, prefill and decode latency, tokens, MACs, peak memory (of a GPU),
    and where the kept tokens lie. `leanvla vlm --list` shows the tasks and what to put where.

    Attributes:
        model: packaged model, or a checkpoint folder of a class that transformers has.
        tasks: tasks, separated by commas.
        method: pruning methods, separated by commas; `dense` always runs as the reference. Fields
            follow a name after colons (`divprune:sketch=128`), wrappers stand in front with a plus
            (`quota+divprune`); `leanvla methods` lists both. `kv_select:sinks=4:newest=32`, here
            alone, elects keys and values and lets no token leave.
        keep: keep ratios in (0, 1], separated by commas.
        limit: questions per task, spread evenly over it; 0 asks all.
        data: root of the data sets, one folder per task; DATA in what `--list` prints.
        out: folder of the results.
        resume: go on in `out`; answers that are there are kept.
        split: the benchmark's name of a part; its usual one when empty.
        frames: frames taken of a video.
        option: fields of the pruning methods, e.g. `cut=2`.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`.
        threads: threads of torch.
        pictures: questions whose kept tokens are drawn into the report, per task.
        list: show the tasks and end.
        json: print `metrics.json` instead of the table.
    """

    model: str = "mini-vlm"
    tasks: str = "scene_qa"
    method: str = "random,fastv,sparsevlm,divprune"
    keep: str = "0.25"
    limit: int = 300
    data: Path = Path("data")
    out: Path = Path("runs/vlm")
    resume: bool = False
    split: str = ""
    frames: int = 8
    option: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    pictures: int = 2
    list: bool = False
    json: bool = False


def run(config: VlmConfig) -> int:
    """Check everything, ask what is missing, write and print the results; gives the exit code.

    Raises:
        UsageError: for an impossible configuration, or methods that do not fit the model; nothing
            is written then.
        TaskError: for an unknown task, or a file that is not in the published format.
        MissingDataError: for a data set that is not there; says what to put where.
        ModelError: for a folder that is no model.
    """
    from leanvla.commands.vlm_plan import check_numbers, make_plan, print_tasks
    from leanvla.run_folder import check_run_folder, open_run_folder
    from vlm.model import load_vlm
    from vlm.store import AnswerStore
    from vlm.tasks.registry import find_task
    from vlm.zoo import resolve_model

    if config.list:
        return print_tasks(config.data)
    check_numbers(config)
    for name in config.tasks.split(","):
        find_task(name.strip())
    folder = resolve_model(config.model)
    draw_missing(config)
    plan = make_plan(config)
    check_run_folder(config.out, config, resume=config.resume, ignore=NOT_COMPARED)
    _say(f"loading {folder}")
    vlm = load_vlm(folder, device=config.device, dtype=config.dtype, threads=config.threads)
    check_methods(config, plan, vlm)
    out = open_run_folder(config.out, config, resume=config.resume, ignore=NOT_COMPARED)
    with AnswerStore(out / "answers.jsonl") as store:
        if store.notice:
            _say(store.notice)
        return _work(config, plan, vlm, store)


def check_methods(config: VlmConfig, plan: Plan, vlm: Vlm) -> None:
    """Try every cell; name all that do not fit, one line each.

    Raises:
        UsageError: when there is one.
    """
    from vlm.fit import try_cells

    sentences = try_cells(plan, vlm)
    for sentence in sentences:
        _say(sentence)
    if sentences:
        raise UsageError(
            f"not all methods can run on {config.model}, see above: change --method; nothing was "
            "written"
        )


def _work(config: VlmConfig, plan: Plan, vlm: Vlm, store: AnswerStore) -> int:
    from leanvla.commands.vlm_results import Results
    from vlm.fit import REFUSALS

    results = Results(config, plan, store, vlm.decoder)
    if len(store) == plan.answers and results.on_disk():
        _say(f"nothing to do: all {plan.answers} answers are in {config.out}")
        return results.show()
    kept = "{} of {} answers"
    try:
        _ask(config, plan, vlm, store, results)
    except KeyboardInterrupt:
        kept = kept.format(len(store), plan.answers)
        results.write(notice=f"Interrupted: these are {kept}; go on with --resume.")
        _say(f"interrupted: {kept} kept in {config.out}, go on with --resume")
        return INTERRUPTED
    except (RunError, MissingDataError, TaskError, *REFUSALS):
        results.write(notice=f"Stopped: these are {kept.format(len(store), plan.answers)}.")
        raise
    results.write()
    return results.show()


def _ask(config: VlmConfig, plan: Plan, vlm: Vlm, store: AnswerStore, results: Results) -> None:
    from leanvla.report.vlm_live import AnswerProgress
    from vlm.runner import run as ask

    with AnswerProgress(plan, list(store)) as progress:
        ask(plan, vlm, store, progress.answer)
    if config.pictures:
        results.draw(vlm)


def draw_missing(config: VlmConfig) -> None:
    """Draw the held-out `scene_qa` set when it is asked for and is not there.

    Raises:
        UsageError: when another split of it is missing: training data is not made by the way.
        EnvironmentFault: when this machine cannot render.
    """
    from leanvla.commands.scene_qa import SceneQa, draw
    from vlm.tasks.scene_qa import USUAL_SPLIT

    wanted = [name.strip() for name in config.tasks.split(",")]
    if not set(wanted) & set(SCENE_TASKS):
        return
    folder = config.data / "scene_qa" / (config.split or USUAL_SPLIT)
    if (folder / "dataset.json").exists():
        return
    if config.split not in ("", USUAL_SPLIT):
        raise UsageError(f"{folder} is missing: draw it with `leanvla scene-qa --out {folder}`")
    _say(f"drawing held-out scenes into {folder}")
    draw(SceneQa(out=folder))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
