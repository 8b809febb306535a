"""The policy's node, which also tells from inside, twice a second, how much it holds.

Its statistics keep few values, so that every ring is full when a test begins to compare.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

from leanvla_ros import policy_node
from leanvla_ros.process import steady_timer

from policy.robot import health
from policy.robot.senses import Senses

health.NEWEST = 16


class Counted(Senses):
    """Senses that count pictures."""

    frames = 0

    def image(self, view: str, message: object, now_s: float) -> None:
        Counted.frames += 1
        super().image(view, message, now_s)


class Weighed(policy_node.PolicyNode):
    """The node, with a line of JSON for every weighing."""

    def __init__(self) -> None:
        super().__init__()
        steady_timer(self, 0.5, self._weigh)

    def _weigh(self) -> None:
        gc.collect()
        status = Path("/proc/self/status").read_text().split()
        session = self._session
        found = {
            "frames": Counted.frames,
            "chunks": session.ledger.counters.get("chunks", 0) if session else 0,
            "blocks": sys.getallocatedblocks(),
            "private_kib": int(status[status.index("RssAnon:") + 1]),
            "shared_kib": int(status[status.index("RssShmem:") + 1]),
        }
        sys.stdout.write(f"weighed {json.dumps(found)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    policy_node.PolicyNode = Weighed
    sys.modules["policy.robot.session"].Senses = Counted
    policy_node.main()
