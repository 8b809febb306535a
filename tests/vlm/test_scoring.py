"""Scores against the benchmarks' own rules, case by case and against slow counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.media import Pictures
from vlm.scoring.options import ask_options, chosen_letter, summarise_circular
from vlm.scoring.text import relaxed_match, score_exact
from vlm.scoring.vqa import normalise, score_vqa
from vlm.scoring.yes_no import (
    mme_reading,
    pope_reading,
    score_mme,
    summarise_mme,
    summarise_pope,
)
from vlm.types import Judged, Question


def question(*answers: str, kind: str = "", group: str = "") -> Question:
    return Question("1", "?", Pictures(()), answers, kind, group)


@pytest.mark.parametrize(
    ("answer", "reading"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("No, there is none.", "no"),
        ("There is not a dog", "no"),
        ("Yes. There is no cat.", "yes"),
        ("nothing", "yes"),
        ("", "yes"),
    ],
)
def test_pope_reads_the_first_sentence(answer: str, reading: str) -> None:
    assert pope_reading(answer) == reading


def test_popes_figures() -> None:
    said = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no"), ("yes", "yes")]
    figures = summarise_pope([Judged(question(true), answer, 0) for answer, true in said])
    assert figures == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes_share": 3 / 5}
    )
    assert summarise_pope([])["f1"] == 0.0


def test_mme_counts_pictures_both_of_whose_answers_are_right() -> None:
    assert [mme_reading(a) for a in ("Yes, it", "No.", "maybe", "I say yes")] == [
        "yes",
        "no",
        "other",
        "other",
    ]
    asked = [("a", "yes", "yes"), ("a", "no", "no"), ("b", "yes", "yes"), ("b", "no", "yes")]
    judged = []
    for group, true, said in asked:
        one = question(true, kind="existence", group=group)
        judged.append(Judged(one, said, score_mme(said, one)))
    figures = summarise_mme(judged)
    assert figures["points_existence"] == pytest.approx(75 + 50)
    assert figures["perception"] == pytest.approx(125)
    assert figures["cognition"] == 0


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ("A Red Car.", "red car"),
        ("two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("yes!", "yes"),
        ("3.5", "3.5"),
        ("St. Louis", "st louis"),
        ("the  dog\n", "dog"),
        ("what?", "what"),
        ("top-left", "top left"),
        ("isnt", "isn't"),
    ],
)
def test_answers_are_compared_as_the_challenge_does(answer: str, compared: str) -> None:
    # `yes!` and `what?` end in a mark that becomes a space, which splitting takes away.
    assert normalise(answer) == compared


@given(st.lists(st.sampled_from("abcd"), min_size=10, max_size=10), st.sampled_from("bcde"))
def test_vqa_accuracy_is_the_mean_over_nine_others(answers: list[str], said: str) -> None:
    shares = []
    for left_out in range(10):
        others = [a for i, a in enumerate(answers) if i != left_out]
        shares.append(min(1.0, sum(normalise(a) == normalise(said) for a in others) / 3))
    assert score_vqa(said, question(*answers)) == pytest.approx(sum(shares) / 10)


@pytest.mark.parametrize(
    ("said", "right", "counts"),
    [
        ("104", "100", True),
        ("106", "100", False),
        ("Yes", "yes", True),
        ("50%", "0.5", True),
        ("14.0", "14", True),
        ("0", "0", True),
        ("0.0", "0", False),
        ("-95", "-100", True),
        ("red", "blue", False),
        ("3 dogs", "3", False),
    ],
)
def test_charts_may_be_five_percent_off(said: str, right: str, counts: bool) -> None:
    assert relaxed_match(said, right) is counts


def test_exact_answers_ignore_case_and_a_full_stop() -> None:
    assert score_exact(" Red  Cube.", question("red cube")) == 1
    assert score_exact("red", question("red cube")) == 0


OPTIONS = ("the apple", "the sea", "A man is running", "a man")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("D.", "D"),
        ("A: the apple", "A"),
        ("The answer is B.", "B"),
        ("Option (c)", "C"),
        ("the sea", "B"),
        ("It must be the sea, I think", "B"),
        ("A man is running", "C"),
        ("E", None),
        ("", None),
        ("the apple or the sea", None),
        ("b", None),
        ("Banana", None),
    ],
)
def test_which_option_an_answer_names(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, OPTIONS) == letter


@given(
    st.lists(
        st.text(st.characters(categories=["Ll"]), min_size=3, max_size=8),
        min_size=2,
        max_size=5,
        unique=True,
    )
)
def test_naming_an_option_by_letter_or_text_finds_it(options: list[str]) -> None:
    for place, option in enumerate(options):
        letter = "ABCDE"[place]
        assert chosen_letter(letter, options) == letter
        assert chosen_letter(f"{letter}. {option}", options) == letter
        assert chosen_letter(option, options) == letter
    assert ask_options("Which?", options).count("\n") == len(options)


def test_a_rotated_question_must_be_right_every_time() -> None:
    scores = {"a": (1, 1), "b": (1, 0), "c": (1,)}
    judged = [
        Judged(question("A", group=group), "A", score)
        for group, several in scores.items()
        for score in several
    ]
    assert summarise_circular(judged) == {"circular_accuracy": pytest.approx(2 / 3)}
