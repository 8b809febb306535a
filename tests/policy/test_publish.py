"""Files appear whole, and others may read them as far as the user lets them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from policy.publish import publish


@pytest.fixture
def umask():
    """Sets the mask for new files, which is put back afterwards."""
    before = os.umask(0)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_have_the_rights_of_any_new_file(tmp_path, umask, mask, rights):
    umask(mask)
    path = tmp_path / "weights.safetensors"
    (tmp_path / "weights.safetensors.partial").touch(0o600)  # an earlier run was cut here
    for value in (1.0, 2.0):
        publish(path, lambda part, v=value: save_file({"w": np.full(3, v)}, part))
    assert path.stat().st_mode & 0o777 == rights
    assert os.listdir(tmp_path) == [path.name]


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        publish(path, lambda part: 1 / 0)
    assert path.read_text() == "old"
