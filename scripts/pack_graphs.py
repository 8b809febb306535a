"""Make the graphs that ship beside a packaged policy: `python scripts/pack_graphs.py` or
`make graphs`.

Run it when the architecture of the policy, or the code that shapes graphs, has changed; other
weights need nothing. The graphs are compared with the model before they are put into place.
"""

from __future__ import annotations

import argparse
import sys

from policy.openvla.engine.pack import KEEPS, METHODS, pack_graphs
from policy.registry import DEFAULT_POLICY, ZOO


def main() -> None:
    """Pack the graphs of one packaged policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default=DEFAULT_POLICY)
    parser.add_argument("--method", default=",".join(METHODS))
    parser.add_argument("--keep", default=",".join(f"{keep:g}" for keep in KEEPS))
    args = parser.parse_args()
    folder = ZOO / args.policy
    pack_graphs(
        folder,
        args.method.split(","),
        [float(keep) for keep in args.keep.split(",")],
        progress=lambda step: print(step, file=sys.stderr, flush=True),
    )


if __name__ == "__main__":
    main()
