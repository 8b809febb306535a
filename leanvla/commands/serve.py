"""`leanvla serve`: a policy on a websocket, for robots and simulators that run elsewhere."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from leanvla.commands.arguments import parse_options, parse_ratio, split_list
from leanvla.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from policy.serve.server import Cell, PolicyServer


@dataclass(frozen=True)
class Serve:
    """Serve a policy in the protocol of openpi's websocket client.

    Prints its address once it can be used. Without a token it listens on this machine alone; the
    token is read from `LEANVLA_TOKEN` or a file, never from the command line. SIGTERM ends it.

    Attributes:
        policy: packaged policy, checkpoint or engine folder, or `module:callable`.
        engine: `auto` runs every cell that can be a graph on ONNX Runtime and says which cannot;
            `torch` runs all of them eagerly; or the folder of an exported engine.
        method: pruning methods on offer, separated by commas; the first is the one under `/`.
        keep: keep ratios in (0, 1], separated by commas.
        option: fields of the pruning methods, e.g. `window=5 gamma=0.7`.
        unnorm_key: data set whose statistics give actions their units.
        threads: threads of the policy.
        host: address to listen on; any but a loopback one needs a token.
        port: 0 takes a free one.
        token_file: file whose content is the token.
        max_frame_mib: largest message that is read.
        max_connections: open at the same time.
        query_timeout: seconds after which a query has hung; the server ends then.
        idle_timeout: seconds without a request after which a connection is closed.
    """

    policy: str = "mini"
    engine: str = "auto"
    method: str = "dense"
    keep: str = "0.25"
    option: tuple[str, ...] = ()
    unnorm_key: str | None = None
    threads: int = 1
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    max_frame_mib: int = 16
    max_connections: int = 16
    query_timeout: float = 60.0
    idle_timeout: float = 600.0


def run(config: Serve) -> int:
    """Check everything, load, serve until told to end; returns the exit code.

    Raises:
        UsageError: for a number that makes no sense, or a port that is taken.
        AddressError: when others could connect and no token is set.
        ServeError: when a query hung.
    """
    _check(config)
    from policy.serve.address import find_token
    from policy.serve.server import Limits, PolicyServer

    limits = Limits(
        config.max_frame_mib * 2**20,
        config.max_connections,
        config.query_timeout,
        config.idle_timeout,
    )
    token = find_token(config.token_file)
    _check_websockets()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    server = PolicyServer(_cells(config), config.host, config.port, token, limits)
    try:
        asyncio.run(_serve(server, config.host))
    except OSError as error:
        raise UsageError(f"cannot listen on {config.host}:{config.port}: {error}") from None
    return 0


async def _serve(server: PolicyServer, host: str) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        print(f"ws://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        for cell in server.cells:
            card, runs_on = cell.card, getattr(cell.policy, "runs_on", "")
            line = f"{card.policy}: {card.method} @ {card.keep:g}"
            print(f"{line} on {runs_on}" if runs_on else line, file=sys.stderr, flush=True)

    await server.run(ready, stop)


def _cells(config: Serve) -> list[Cell]:
    """Every method at every keep ratio, loaded; eager ones share one network."""
    from leanvla.commands.rollout_engine import choose_runtimes
    from policy.serve.card import card_of
    from policy.serve.server import Cell
    from sim.rollout.factories import make_policy
    from sim.rollout.types import DENSE, Source
    from sim.rollout.types import Cell as Square

    own = ":" in config.policy
    options = {} if own else {"unnorm_key": config.unnorm_key}
    source = Source(config.policy, options, parse_options(config.option))
    keeps = [parse_ratio(text) for text in split_list(config.keep, "--keep")]
    squares = [
        Square(method, keep)
        for method in split_list(config.method, "--method")
        for keep in ([1.0] if method == DENSE else keeps)
    ]
    engines, notes = choose_runtimes(config.policy, config.engine, squares, config.option)
    source = replace(source, engines=engines, notes=notes)
    cells = []
    for square in squares:
        policy = make_policy(source, square, config.threads)
        cells.append(Cell(card_of(policy, config.policy, square.method, square.keep), policy))
    return cells


def _check(config: Serve) -> None:
    from policy.serve.address import is_address
    from sim.rollout.types import EXPERT

    if is_address(config.policy) or config.policy == EXPERT:
        raise UsageError(f"--policy is {config.policy}: give a policy that runs here")
    least = {"threads": 1, "port": 0, "max_frame_mib": 1, "max_connections": 1}
    for name, low in least.items():
        if getattr(config, name) < low:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is {getattr(config, name)}: give {low} or more")
    for name in ("query_timeout", "idle_timeout"):
        if not 0 < getattr(config, name) < float("inf"):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is {getattr(config, name)}: give seconds above 0")
    if config.port > 65535:
        raise UsageError(f"--port is {config.port}: give at most 65535")


def _check_websockets() -> None:
    import importlib.util

    if importlib.util.find_spec("websockets") is None:
        raise EnvironmentFault("serving needs websockets: pip install 'leanvla[serve]'")
