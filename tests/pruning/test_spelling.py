from __future__ import annotations

from pruning.spelling import did_you_mean


def test_the_nearest_name_is_asked_for_and_none_that_is_far():
    assert did_you_mean("fastw", ["fastv", "dense"]) == "; did you mean 'fastv'?"
    assert did_you_mean("fastw", iter(["fastv"]), ", ") == ", did you mean 'fastv'?"
    assert did_you_mean("kangaroo", ["fastv", "dense"]) == ""
    assert did_you_mean("kangaroo", ["fastv"], cutoff=0.0) == "; did you mean 'fastv'?"
    assert did_you_mean("fastv", []) == ""
