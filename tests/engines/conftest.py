from __future__ import annotations

import shutil

import pytest

from tests.engines.plain import write_plain


@pytest.fixture(scope="session")
def plain_engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines") / "plain"
    write_plain(folder)
    return folder


@pytest.fixture
def engine_copy(plain_engine, tmp_path):
    """An engine that a test may damage."""
    return shutil.copytree(plain_engine, tmp_path / "engine")
