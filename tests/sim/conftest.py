from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sim.suites import make_suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.suites.tabletop.suite import Tabletop


@pytest.fixture(scope="session")
def tabletop() -> Iterator[Tabletop]:
    suite = make_suite("tabletop")
    yield suite
    suite.close()
