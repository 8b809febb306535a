"""`leanvla vlm` from folders to a report, on a small random model that really prunes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leanvla.cli import main
from leanvla.commands.vlm_metrics import summarise
from leanvla.report.vlm import write_report
from pruning.macs import prefill_macs
from pruning.registry import make_method
from tests.vlm import published
from vlm.errors import ModelError, RunError
from vlm.media import Pictures
from vlm.model import DecoderShape, load_vlm
from vlm.pruned import pruned
from vlm.retained import retained
from vlm.runner import DENSE, Asked, Plan, take
from vlm.store import AnswerStore, Cell, Record
from vlm.tasks.registry import find_task
from vlm.types import Question, Truth
from vlm.zoo import resolve_model

if TYPE_CHECKING:
    from pathlib import Path

METHODS = "random,fastv"


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return ["vlm", "--model", str(model), "--data", str(data), "--out", str(out),
            "--method", METHODS, "--keep", "0.25", "--limit", "6", *more]  # fmt: skip


@pytest.fixture(scope="module")
def run(small_model: Path, squares: Path, tmp_path_factory) -> tuple[Path, str]:
    import contextlib
    import io

    out = tmp_path_factory.mktemp("run") / "out"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        tasks = ("--tasks", "scene_qa,scene_clips", "--pictures", "1", "--json")
        assert main(command(small_model, squares, out, *tasks)) == 0
    return out, printed.getvalue()


def test_every_cell_answers_every_question(run) -> None:
    out, printed = run
    metrics = json.loads(printed)
    assert metrics == json.loads((out / "metrics.json").read_text())
    cells = [(r["task"], r["method"], r["questions"]) for r in metrics["runs"]]
    tasks, methods = ("scene_qa", "scene_clips"), ("dense", "random", "fastv")
    assert cells == [(task, method, 6) for task in tasks for method in methods]
    by_cell = {(r["task"], r["method"]): r for r in metrics["runs"]}
    for task, visual in (("scene_qa", 256), ("scene_clips", 1024)):
        dense, fastv = by_cell[task, "dense"], by_cell[task, "fastv"]
        assert dense["tokens"] == {**dense["tokens"], "visual": visual, "kept": visual}
        assert fastv["tokens"]["kept"] == visual // 4
        assert dense["layers"] == {"dense": 3, "of": 3}
        assert fastv["layers"] == {"dense": 2, "of": 3}
        assert dense["prefill_macs_ratio"] == 1.0
        assert 1.0 < fastv["prefill_macs_ratio"] < 3.0
        assert fastv["paired_difference_to_dense"]["n"] == 6
        assert dense["paired_difference_to_dense"] is None
        assert fastv["retention"]["recall"] is not None
        assert fastv["prefill_ms"]["p50"] > 0
        assert fastv["query_ms"]["p50"] >= fastv["prefill_ms"]["p50"]


def test_the_report_shows_what_lived(run) -> None:
    text = (run[0] / "report.html").read_text()
    for part in ("Precision-Ω", "fastv @ 0.25", "Which tokens live", "data:image/png", "<circle"):
        assert part in text


def test_memory_is_one_figure_of_the_run_on_a_cpu_and_one_of_each_cell_on_a_gpu(run) -> None:
    metrics = json.loads((run[0] / "metrics.json").read_text())
    assert metrics["process_peak_memory_mb"] > 50
    assert [one["peak_memory_mb"] for one in metrics["runs"]] == [None] * 6
    text = (run[0] / "report.html").read_text()
    assert "peak memory of the process" in text
    assert "GPU peak MB" not in text
    for one in metrics["runs"]:
        one["peak_memory_mb"] = 4321.0
    write_report(run[0].parent / "gpu.html", metrics, {})
    text = (run[0].parent / "gpu.html").read_text()
    assert "GPU peak MB" in text
    assert "4321" in text


def test_a_draw_belongs_to_its_question(small_model, squares, monkeypatch) -> None:
    from vlm import pruned as room
    from vlm import runner

    vlm, task = load_vlm(small_model), find_task("scene_qa")
    questions = task.read(squares, _options())[:3]
    plan = Plan({Cell("random", 0.25): make_method("random", keep=0.25)}, (Asked(task, questions),))

    def draw() -> list[list[int]]:
        kept = []

        def ask(*words):
            answer, trace = room.ask(*words)
            kept.append(trace.kept[0].tolist())
            return answer, trace

        monkeypatch.setattr(runner, "ask", ask)
        runner.run(plan, vlm, _Forgets())
        return kept

    first, again = draw(), draw()
    assert first == again
    assert len({tuple(kept) for kept in first}) == 3
    method = plan.methods[Cell("random", 0.25)]
    shown = [runner.look(vlm, method, task, question)[0].tolist() for question in questions]
    assert shown == first  # pictures show what lived when it was answered
    assert room.seed_of("scene_qa", "1") == room.seed_of("scene_qa", "1")
    assert room.seed_of("scene_qa", "1") != room.seed_of("needle", "1")


class _Forgets:
    """A store in which nothing is yet."""

    def __contains__(self, key: object) -> bool:
        return False

    def append(self, record: Record) -> None:
        assert record.kept_tokens == 64


def test_a_run_goes_on_where_it_stopped(run, small_model, squares, tmp_path, capsys) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(run[0], out)
    lines = (out / "answers.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 36
    (out / "answers.jsonl").write_bytes(b"".join(lines[:30]) + lines[30][:20])
    (out / "metrics.json").unlink()
    tasks = ("--tasks", "scene_qa,scene_clips", "--pictures", "0")
    again = command(small_model, squares, out, *tasks)
    assert main(again) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*again, "--resume"]) == 0
    said = capsys.readouterr()
    assert "torn last line" in said.err
    assert "scene_clips" in said.out
    assert len((out / "answers.jsonl").read_bytes().splitlines()) == 36
    assert main([*again, "--resume"]) == 0
    said = capsys.readouterr().err
    assert "nothing to do" in said
    assert "peak memory of the process" in said


def test_a_missing_picture_keeps_what_was_answered(small_model, tmp_path, capsys) -> None:
    published.pope(tmp_path / "data")
    published.picture(tmp_path / "data/pope/val2014/b.jpg")
    path = tmp_path / "data/pope/coco_pope_random.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    there, absent = {**rows[0], "image": "b.jpg"}, {**rows[0], "image": "absent.jpg"}
    published.lines(path, [there, {**absent, "question_id": 2}])
    words = command(small_model, tmp_path / "data", tmp_path / "out", "--tasks", "pope")
    assert main([*words, "--split", "random"]) == 3
    assert "absent.jpg is missing" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["notice"] == "Stopped: these are 3 of 6 answers."


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--tasks", "popee"), 2, "did you mean 'pope'"),
        (("--tasks", "gqa"), 3, "testdev_balanced_questions.json"),
        (("--tasks", "pope,gqa"), 3, "coco_pope_random.json is missing"),
        (("--tasks", "pope,gqa"), 3, "testdev_balanced_questions.json is missing"),
        (("--tasks", "pope,gqa"), 3, "DATA is the folder given by --data"),
        (("--method", "fastvv"), 2, "fastv"),
        (("--method", "kvselect"), 2, "did you mean 'kv_select'? kv_select:sinks=4:newest=32"),
        (("--keep", "0"), 2, "keep is 0"),
        (("--limit", "-1"), 2, "--limit is -1"),
        (("--model", "nothing"), 2, "no model 'nothing'"),
        (("--split", "train"), 2, "leanvla scene-qa"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(
    words, code, says, small_model, squares, tmp_path, capsys
) -> None:
    line = command(small_model, squares, tmp_path / "out", *words)
    assert main(line) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_list_says_what_to_put_where(capsys) -> None:
    assert main(["vlm", "--list"]) == 0
    out = capsys.readouterr().out
    assert "coco_pope_random.json" in out
    assert "egoschema" in out
    assert "DATA is the folder given by --data: data" in out
    assert "kv_select:sinks=4:newest=32" in out


def test_leaving_a_pruned_model_leaves_the_dense_one(small_model, squares) -> None:
    vlm = load_vlm(small_model)
    question = find_task("scene_qa").read(squares, _options())[0]
    inputs = vlm.prepare(question.prompt, question.media.load())
    before = vlm.model(**inputs).logits
    with pruned(vlm.model, make_method("fastv", keep=0.25)) as watch:
        answer = vlm.answer(inputs, 3)
        trace = watch.trace()
    assert [len(kept) for kept in trace.kept] == [64]
    assert trace.layer_tokens == (answer.prompt_tokens,) * 2 + (answer.prompt_tokens - 192,)
    assert 1 + len(answer.decode_ms) <= 3
    assert answer.peak_memory_mb is None
    assert before.equal(vlm.model(**inputs).logits)
    with pruned(vlm.model, make_method("dense", keep=1.0)) as watch:
        assert vlm.answer(inputs, 1).decode_ms == ()
    assert watch.trace().kept is None


def _options():
    from vlm.types import ReadOptions

    return ReadOptions()


def test_a_changed_or_foreign_model_is_refused(small_model, tmp_path) -> None:
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(small_model, folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(ModelError, match="not the file that SHA256 states"):
        resolve_model(str(folder))
    (folder / "SHA256").unlink()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_vlm(resolve_model(str(folder)))
    with pytest.raises(ModelError, match="did you mean 'mini-vlm'"):
        resolve_model("mini-vml")


def test_a_model_without_some_of_its_weights_is_refused(small_model, tmp_path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(small_model, folder)
    weights = load_file(folder / "model.safetensors")
    tower = [name for name in weights if name.startswith("vision_tower.vision_model.encoder")]
    for name in tower:
        weights[f"elsewhere.{name}"] = weights.pop(name)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks {len(tower)} weights of LlavaFor"):
        load_vlm(folder)


def test_weights_are_named_as_published_ones_are(small_model) -> None:
    from safetensors.torch import load_file

    names = load_file(small_model / "model.safetensors")
    parts = {name.partition(".layers.")[0] for name in names if ".layers." in name}
    assert parts == {"language_model.model", "vision_tower.vision_model.encoder"}


def record(number: int, cell: Cell, score: float, prefill_ms: float, **more) -> Record:
    return Record("t", str(number), cell.method, cell.keep, "a", score, prefill_ms, [1.0], 110,
                  100, 25, [110, 35], 0.5, 10.0, **more)  # fmt: skip


def test_metrics_are_paired_and_counted(tmp_path: Path) -> None:
    fastv = Cell("fastv", 0.25)
    questions = [Question(str(i), "?", Pictures(()), ("a",), kind="ab"[i % 2]) for i in range(4)]
    plan = Plan({DENSE: None, fastv: None}, (Asked(_task(), questions),))
    with AnswerStore(tmp_path / "answers.jsonl") as store:
        for i in range(4):
            store.append(record(i, DENSE, 1.0, 10.0))
            store.append(record(i, fastv, float(i > 0), 5.0 if i < 3 else 2.0, recall=0.5))
        with pytest.raises(RunError, match="already"):
            store.append(record(0, DENSE, 1.0, 1.0))
        dense, pruned_run = summarise(plan, store, "m", DecoderShape(2, 8, 16))["runs"]
    assert pruned_run["accuracy"] == 0.75
    assert pruned_run["paired_difference_to_dense"]["lost"] == 1
    assert pruned_run["paired_difference_to_dense"]["difference"] == -0.25
    assert pruned_run["prefill_speedup_p50"] == 2.0
    kinds = {kind: one["accuracy"] for kind, one in pruned_run["kinds"].items()}
    assert kinds == {"a": 0.5, "b": 1.0}
    assert pruned_run["retention"] == {"recall": 0.5}
    assert pruned_run["prefill_macs"] == prefill_macs([110, 35], 8, 16)
    assert pruned_run["layers"] == {"dense": 1, "of": 2}
    assert dense["retention"] is None


def _task():
    from vlm.tasks.base import Task

    return Task("t", "", "", lambda root, options: [], lambda answer, question: 0.0)


def test_a_limit_keeps_groups_whole_and_spreads() -> None:
    questions = [Question(str(i), "?", Pictures(()), ("a",), group=str(i // 2)) for i in range(20)]
    taken = [q.id for q in take(questions, 6)]
    assert taken == ["0", "1", "6", "7", "12", "13"]
    assert take(questions, 0) == take(questions, 99) == questions


def test_kept_tokens_meet_the_mask() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:16, :16], mask[48:, 48:] = 1, 2

    class Masks:
        def load(self, number: int) -> np.ndarray:
            return mask

    truth = Truth(Masks(), ((1,), ()), ({"gripper": (2,)}, {}))
    found = retained(truth, [np.array([0, 15]), np.array([3])], 32, 2)
    assert found.recall == 1.0
    assert found.iou == 0.5
    assert found.precision_omega == 1.0
    assert found.omega_share == 2 / 16
    assert retained(truth, [np.array([0])], 30, 2).recall is None
