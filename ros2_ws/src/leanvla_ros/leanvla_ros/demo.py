"""The laptop demo without `ros2 launch`: simulator, guard and policy, each a process of its own.

python -m leanvla_ros.demo --episodes 3 --method vla_pruner --keep 0.25
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAIN = "87"
CLOCK_S = 60.0
GRACE_S = 10.0
POLL_S = 0.2
FAILED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when every episode came to its end."""
    args = _parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the nodes must not outlive this
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "episodes.json"
        code = _run(args, out)
        episodes = json.loads(out.read_text())["episodes"] if out.is_file() else []
    solved = sum(episode["outcome"] == "success" for episode in episodes)
    sys.stdout.write(f"{solved} of {len(episodes)} episodes solved\n")
    return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="leanvla-robot-demo", description=__doc__)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="mini")
    parser.add_argument("--method", default="dense")
    parser.add_argument("--keep", type=float, default=1.0)
    parser.add_argument("--ladder", default="", help="further rungs, as METHOD:KEEP,METHOD:KEEP")
    parser.add_argument("--engine", default="auto", help="auto, torch, or an engine's folder")
    parser.add_argument("--record", default="", help="folder for a recording of what happens")
    parser.add_argument("--domain", default=os.environ.get("ROS_DOMAIN_ID", DOMAIN))
    return parser.parse_args(argv)


def _run(args: argparse.Namespace, out: Path) -> int:
    rungs = "[" + ", ".join(f"'{rung}'" for rung in args.ladder.split(",")) + "]"
    simulated = {"use_sim_time": "true", "clock_timeout_s": CLOCK_S}
    policy = {"policy": args.policy, "method": args.method, "keep": args.keep, "ladder": rungs}
    policy["engine"] = args.engine
    if args.record:
        policy["record"] = Path(args.record).resolve()
    env = {
        **os.environ,
        "ROS_DOMAIN_ID": args.domain,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    env.setdefault("OMP_NUM_THREADS", "1")
    episodes = {"episodes": args.episodes, "seed": args.seed, "out": out}
    nodes = {"guard_node": simulated, "policy_node": simulated | policy, "sim_node": episodes}
    with contextlib.ExitStack() as stack:
        running = {}
        for name, values in nodes.items():
            running[name] = _start(name, values, env)
            stack.callback(_end, running[name])
        with contextlib.suppress(KeyboardInterrupt):
            return _wait(running)
    return 130


def _wait(running: dict[str, subprocess.Popen[bytes]]) -> int:
    """The simulator's exit code, or that of the first node that it cannot go on without."""
    while True:
        for name, process in running.items():
            code = process.poll()
            if code is None:
                continue
            if name != "sim_node":
                sys.stderr.write(f"{name} ended with exit code {code}: see above\n")
                return code or FAILED
            return code
        time.sleep(POLL_S)


def _start(name: str, values: dict[str, object], env: dict[str, str]) -> subprocess.Popen[bytes]:
    parameters = [part for key, value in values.items() for part in ("-p", f"{key}:={value}")]
    command = [sys.executable, "-m", f"leanvla_ros.{name}", "--ros-args", *parameters]
    return subprocess.Popen(command, env=env, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
