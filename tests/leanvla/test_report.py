from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from leanvla.report import markdown
from leanvla.report.charts import Bar, Point, latency_bars, success_curves
from leanvla.report.rollout import Picture, findings, write_report
from leanvla.report.training import write_training_report
from sim.statistics import paired_difference, wilson_interval
from sim.video import captioned, compose, draw_kept, moments, write_mp4

VOID = {"meta", "img", "br"}


class Balance(HTMLParser):
    """Fails on tags that do not close, collects words and everything that could be fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.links = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def run(method="vla_pruner", keep=0.25, *, wins=18, dense_wins=20, p50=6.0, **more):
    n = 20
    paired = paired_difference([i < wins for i in range(n)], [i < dense_wins for i in range(n)])
    base = {
        "suite": "tabletop",
        "policy": "mini",
        "method": method,
        "keep": keep,
        "episodes": n,
        "successes": wins,
        "failures": n - wins,
        "errors": 0,
        "success_rate": wins / n,
        "success_ci95": wilson_interval(wins, n),
        "wrong_object_rate": 0.1,
        "paired_difference_to_dense": None if method == "dense" else paired._asdict(),
        "query_latency_ms": {"p50": p50, "p95": 9.0, "mean": 6.5},
        "phase_latency_ms": {"vision": 2.0, "prefill_above": p50 - 3.0},
        "dense_query_latency_ms": {"p50": 10.0, "p95": 12.0, "mean": 10.5},
        "speedup_p50": 10.0 / p50,
        "speedup_ceiling": 1.0 if method == "dense" else 2.0,
        "steps_per_s": 30.0,
        "tokens": {"visual": 288, "kept": round(288 * keep)},
        "pruner": {"calls": 100, "dense_warmup_calls": 0},
        "tasks": {"pick": {"episodes": n, "successes": wins, "success_rate": wins / n}},
        "render_profile": "lowpoly",
        "reused_from": None,
    }
    return {**base, **more}


def report(tmp_path, runs, **more):
    path = tmp_path / "report.html"
    write_report(path, {"schema": "x", "runs": runs}, {"seeds": "0 to 19"}, **more)
    text = path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return text, Balance(text)


def test_the_report_is_one_file_that_fetches_nothing(tmp_path):
    strip = Picture("kept", (("step 2", b"\x89PNG"),))
    clip = Picture("film", (("a.mp4", b"mp4"),))
    text, page = report(
        tmp_path, [run("dense", 1.0, wins=20), run()], overlays=[strip], videos=[clip]
    )
    assert len(page.links) == 2
    assert all(link.startswith("data:") for link in page.links)
    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(r"url\(|https?:", text)


def test_the_report_shows_intervals_differences_speed_and_ceiling(tmp_path):
    _, page = report(tmp_path, [run("dense", 1.0, wins=20), run()])
    words = " ".join(page.words)
    for shown in ("90.0%", "69.9 – 97.2", "−10.0", "1.67×", "2.00×", "83%", "72 / 288", "18/20"):
        assert shown in words, shown
    assert "ceiling 5.0" in words  # 10 ms over 2


@pytest.mark.parametrize(
    ("wins", "dense_wins", "says"),
    [
        (18, 20, "no difference to dense could be shown with 20 paired episodes"),
        (5, 20, "worse than dense"),
        (20, 5, "better than dense"),
    ],
)
def test_findings_say_what_the_interval_says(wins, dense_wins, says):
    (sentence,) = findings([run("dense", 1.0), run(wins=wins, dense_wins=dense_wins)])
    assert says in sentence


def test_findings_need_the_test_over_all_cells():
    """Six of twenty lost: alone a finding, among three cells not."""
    runs = [run("dense", 1.0), run(wins=14), run(keep=0.5, wins=20), run(keep=0.125, wins=20)]
    assert "worse than dense" in findings(runs[:2])[0]
    assert "no difference to dense could be shown" in findings(runs)[0]


def test_a_slower_pruner_is_called_slower():
    (sentence,) = findings([run(p50=12.5)])
    assert "0.80× slower: it costs more than it saves" in sentence


def test_many_cells_are_summed_up_by_their_lowest_keep():
    keeps = (0.5, 0.25, 0.125, 0.0625)
    said = findings([run(method, keep) for method in ("random", "fastv") for keep in keeps])
    assert [sentence.partition(":")[0] for sentence in said] == [
        "random @ 0.0625",
        "fastv @ 0.0625",
    ]


def test_text_from_outside_is_escaped(tmp_path):
    bad = "<script>alert(1)</script>"
    text, _ = report(tmp_path, [run(policy=bad, method=bad)], notice=bad)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_markdown_row_has_every_column_even_when_nothing_was_judged():
    nothing = {"success_rate": None, "success_ci95": (0.0, 1.0), "wrong_object_rate": None}
    silent = {"query_latency_ms": {"p50": None, "p95": None, "mean": None}, "speedup_p50": None}
    pairless = {"paired_difference_to_dense": paired_difference([], [])._asdict()}
    lost = run(**nothing, **silent, **pairless, successes=0, failures=0, errors=20)
    lines = markdown.table({"runs": [run("dense", 1.0, wins=20), run(), lost]}).splitlines()
    assert {line.count("|") for line in lines} == {12}
    assert "18/20 = 90.0%" in lines[3]
    assert "-10.0%" in lines[3]
    assert lines[4].startswith("| vla_pruner | 0.25 | 72 of 288 | – |")


def test_a_run_of_errors_and_an_empty_run_still_make_a_page(tmp_path):
    nothing = {"p50": None, "p95": None, "mean": None}
    lost = run(
        successes=0,
        failures=0,
        errors=20,
        success_rate=None,
        success_ci95=wilson_interval(0, 0),
        wrong_object_rate=None,
        paired_difference_to_dense=paired_difference([], [])._asdict(),
        query_latency_ms=nothing,
        phase_latency_ms={},
        speedup_p50=None,
        speedup_ceiling=None,
        tasks={},
        render_profile=None,
    )
    _, page = report(tmp_path, [run("dense", 1.0), lost], notice="Interrupted: 3 of 9 episodes.")
    assert "Interrupted: 3 of 9 episodes." in page.words
    (tmp_path / "report.html").unlink()
    report(tmp_path, [])


def test_bars_are_to_scale_and_carry_the_ceiling():
    svg = latency_bars(
        [Bar("dense", [("vision", 6.0)], 10.0, None), Bar("p", [("vision", 5.0)], 5.0, 4.0)]
    )
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)" height="17"', svg)]
    assert widths[0] / widths[2] == pytest.approx(6 / 5, rel=1e-3)
    assert widths[1] / widths[0] == pytest.approx(4 / 6, rel=1e-3)  # overhead of the dense query
    left = float(re.search(r'<rect x="([\d.]+)"', svg).group(1))
    tick = float(re.search(r'<line x1="([\d.]+)"[^>]*stroke="var\(--ink\)"', svg).group(1))
    assert (tick - left) / widths[2] == pytest.approx(4 / 5, rel=1e-2)
    assert latency_bars([]) == ""


def test_curves_rise_with_success():
    points = [Point(0.25, 0.2, 0.1, 0.4), Point(0.5, 0.8, 0.6, 0.9)]
    svg = success_curves({"random": points}, Point(1.0, 0.9, 0.8, 0.95))
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert heights[0] > heights[1]
    assert places[0] < places[1]
    Balance(svg)
    assert success_curves({}, None) == ""
    Balance(success_curves({"random": points[:1]}, None))


def test_pruned_patches_are_dim_and_kept_ones_untouched_inside():
    image = np.full((96, 96, 3), 200, np.uint8)
    drawn = draw_kept(image, np.array([0, 143]), 144)
    assert (drawn[3:5, 3:5] == 200).all()
    assert (drawn[-5:-3, -5:-3] == 200).all()
    assert (drawn[40:50, 40:50] == 60).all()
    assert (image == 200).all()


@pytest.mark.parametrize(("kept", "tokens"), [((), 144), (range(144), 144), ((0, 1), 150), ((), 0)])
def test_nothing_is_drawn_where_nothing_was_pruned_or_no_grid_is_known(kept, tokens):
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    assert draw_kept(image, np.array(kept, np.int64), tokens) is image


def test_a_video_plays_every_frame_at_the_right_speed(tmp_path):
    av = pytest.importorskip("av")
    film = recording()
    write_mp4(tmp_path / "a.mp4", captioned(film), film.frames_per_s)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert stream.codec_context.name == "h264"
    assert stream.average_rate == 10
    assert len(frames) == len(film.frames)
    assert frames[0].shape == (128 + 44, 256, 3)
    picture = compose(film, film.frames[3]).astype(int)
    assert np.abs(frames[3][:128].astype(int) - picture).mean() < 12


def test_strips_show_moments_in_which_a_query_acted():
    film = recording()
    chosen = moments(film.frames, 4)
    assert [frame.step for frame in chosen] == [2, 8, 12, 18]
    assert all(frame.kept for frame in chosen)
    assert len(moments(film.frames[:2], 4)) == 1


def test_film_strips_are_real_pictures():
    from PIL import Image

    from leanvla.report.pictures import film_strips

    (strip,) = film_strips([recording()])
    assert [caption for caption, _ in strip.files] == ["step 2", "step 8", "step 12", "step 18"]
    assert Image.open(io.BytesIO(strip.files[0][1])).size == (256, 128)


def recording():
    from sim.rollout.types import EpisodeRecord, Frame, Recording

    record = EpisodeRecord(
        3, "random", 0.25, "success", instruction="pick up the red cube", steps=18
    )
    rng = np.random.default_rng(0)
    frames = []
    for step in range(0, 20, 2):
        view = np.full((128, 128, 3), 90, np.uint8)
        view[step * 4 : step * 4 + 30] = (200, 40, 40)
        kept = tuple(np.sort(rng.choice(144, 36, replace=False)) for _ in range(2)) if step else ()
        frames.append(Frame(step, (view, view), kept))
    return Recording(record, ("front", "wrist"), tuple(frames), 10.0, 144)


def test_a_training_report_shows_every_stage_of_every_recipe(tmp_path):
    def stage(number, of, samples):
        row = {"stage": number, "stages": of, "of": 200, "samples_per_s": 50.0}
        losses = {"action": 1 / samples, "grounding": 0.5, "position": 0.25}
        return {**row, "samples": samples, **losses}

    log = [stage(1, 2, 100), stage(1, 2, 200), stage(2, 2, 100), stage(1, 1, 100)]
    rounds = [{"episodes": 30, "finished_before_take_over": 0.5}]
    write_training_report(tmp_path, {"recipe": "mini", "corrections": rounds}, log)
    text = (tmp_path / "report.html").read_text()
    assert [text.count(f"<td>{cell}</td>") for cell in ("1 of 2", "2 of 2", "1 of 1")] == [1, 1, 1]
    assert text.count("<polyline") == 9  # three losses of three stages
    assert "50.0%" in text
