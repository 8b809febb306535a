"""The rules of the house as functions: sources in, one line per breach out."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]
# Which rooms a room may import, besides itself. `sim` rolls out a policy, whose temporal state is a
# value of `pruning`.
FLOORS = {
    "leanvla": {"policy", "pruning", "sim", "engines", "vlm"},
    "sim": {"policy", "pruning"},
    "vlm": {"pruning"},
    "policy": {"pruning", "engines"},
    "engines": set(),
    "pruning": set(),
    "leanvla_ros": {"policy", "engines"},
}
FOLDERS = {"leanvla_ros": "ros2_ws/src/leanvla_ros/leanvla_ros"}
# The robot of the demo and the tests is a simulator; no other node knows of it. One verb is a node.
ALSO = {
    "ros2_ws/src/leanvla_ros/leanvla_ros/sim_node.py": {"sim"},
    "leanvla/commands/record.py": {"leanvla_ros"},
    # Weights move alike, whatever the network.
    "vlm/training/loop.py": {"policy"},
    # How a misspelt name is answered.
    "engines/profile/peaks.py": {"pruning"},
    # Where everybody's cache is.
    "engines/cache.py": {"pruning"},
}
NEVER_IMPORTED = {"dill", "joblib", "shelve", "marshal", "torchvision", "timm"}
NEVER_CALLED = {"eval", "exec", "breakpoint", "__import__"}
_MARKERS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


class Source(NamedTuple):
    room: str
    name: str
    text: str
    tree: ast.Module


def parse(room: str, name: str, text: str) -> Source:
    return Source(room, name, text, ast.parse(text, name))


def read_rooms(rooms: Iterable[str] = tuple(FLOORS)) -> list[Source]:
    return [
        parse(room, str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for room in rooms
        for path in sorted((ROOT / FOLDERS.get(room, room)).rglob("*.py"))
    ]


def wrong_floor(source: Source) -> Iterator[str]:
    for line, module in imports(source):
        room = module.partition(".")[0]
        allowed = {source.room} | FLOORS[source.room] | ALSO.get(source.name, set())
        if room in FLOORS and room not in allowed:
            yield f"{source.name}:{line} imports {module}"


def runs_data(source: Source) -> Iterator[str]:
    """Anything by which a file from elsewhere could execute code, and packages the house avoids."""
    for line, module in imports(source):
        if module.partition(".")[0] in NEVER_IMPORTED:
            yield f"{source.name}:{line} imports {module}"
    for call in _nodes(source, ast.Call):
        name = ast.unparse(call.func)
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if (
            name in NEVER_CALLED
            or name.startswith("pickle.")
            or name == "yaml.load"
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False")
        ):
            yield f"{source.name}:{call.lineno} calls {name}"


def prints(source: Source) -> Iterator[str]:
    for call in _nodes(source, ast.Call):
        if source.room != "leanvla" and ast.unparse(call.func) == "print":
            yield f"{source.name}:{call.lineno} prints"


def asserts(source: Source) -> Iterator[str]:
    yield from (f"{source.name}:{node.lineno} asserts" for node in _nodes(source, ast.Assert))


def bare_excepts(source: Source) -> Iterator[str]:
    for node in _nodes(source, ast.ExceptHandler):
        if node.type is None:
            yield f"{source.name}:{node.lineno} catches everything"


def unfinished(source: Source) -> Iterator[str]:
    for line, text in enumerate(source.text.splitlines(), 1):
        if _MARKERS.search(text):
            yield f"{source.name}:{line} is left to do"


def unannotated(source: Source) -> Iterator[str]:
    for node in _nodes(source, ast.FunctionDef):
        named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
        if not node.name.startswith("_") and (bare or node.returns is None):
            yield f"{source.name}:{node.lineno} {node.name} lacks annotations"


def function_lengths(source: Source) -> Iterator[tuple[str, int]]:
    for kind in (ast.FunctionDef, ast.AsyncFunctionDef):
        for node in _nodes(source, kind):
            yield f"{source.name}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and module of every import, those inside functions too."""
    for node in _nodes(source, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names)
    for node in _nodes(source, ast.ImportFrom):
        yield node.lineno, node.module or ""


def _nodes(source: Source, kind: type) -> Iterator:
    return (node for node in ast.walk(source.tree) if isinstance(node, kind))
