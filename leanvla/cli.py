"""The command line: a table of verbs, each imported only when it is asked for.

Nothing heavy is imported here, so that `leanvla --help` answers at once. Exit codes: 0 good, 1 a
check failed, 2 usage, 3 environment, 130 interrupted. stdout is data, stderr is talk.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from leanvla import __version__
from leanvla.errors import INTERRUPTED, USAGE, UsageError, explain, wants_traceback

if TYPE_CHECKING:
    from collections.abc import Sequence


class Verb(NamedTuple):
    """One verb: the module that does it, its configuration class there, and one line of help."""

    module: str
    config: str
    help: str


VERBS = {
    "rollout": Verb("rollout", "Rollout", "let a policy act in simulation, dense and pruned"),
    "report": Verb(
        "report", "Report", "one or several runs as a table, with intervals and verdicts"
    ),
    "attribute": Verb("attribute", "Attribute", "the step at which pruning lost an episode"),
    "sweep": Verb("sweep", "Sweep", "many rollouts into one store, on one machine or many"),
    "replay": Verb("replay", "Replay", "put a recorded episode through a policy, dense and pruned"),
    "record": Verb("record", "Record", "record a running robot's topics (needs rclpy)"),
    "convert": Verb("convert", "Convert", "turn recordings into MCAP, LeRobotDataset or shards"),
    "demos": Verb("demos", "Demos", "record demonstrations of the scripted experts"),
    "train": Verb("train", "Train", "train a small policy from demonstrations"),
    "vlm": Verb("vlm", "VlmConfig", "benchmark a vision-language model, dense and pruned"),
    "train-vlm": Verb("train_vlm", "TrainVlm", "train a small vision-language model"),
    "scene-qa": Verb("scene_qa", "SceneQa", "draw pictures, clips and questions with true answers"),
    "suites": Verb("suites", "Suites", "list the suites, install what a benchmark needs"),
    "methods": Verb("methods", "Methods", "list the pruning methods and their fields"),
    "bench-methods": Verb(
        "bench_methods", "BenchMethods", "what the choice of tokens costs, method by method"
    ),
    "infer": Verb("infer", "Infer", "one image and one instruction in, one action chunk out"),
    "serve": Verb("serve", "Serve", "a policy on a websocket, for robots that run elsewhere"),
    "export": Verb("export", "Export", "turn a policy into an engine that runs without torch"),
    "verify": Verb("verify", "Verify", "compare an engine with the model it was made from"),
    "profile": Verb("profile", "Profile", "where a query's time goes, dense and pruned"),
    "build": Verb("build", "Build", "ONNX files to TensorRT plans, and what is in them"),
    "inspect": Verb("inspect_", "Inspect", "what a checkpoint is and what pruning can save"),
    "doctor": Verb("doctor", "Doctor", "check this machine; every failing check names its remedy"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code. Bad input ends in one line, never in a traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        return _show_help(asked=bool(args))
    if args[0] in ("-V", "--version"):
        sys.stdout.write(f"leanvla {__version__}\n")
        return 0
    try:
        return _run_verb(args[0], args[1:])
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader has seen enough (`leanvla methods | head`); nothing may be flushed on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        known = explain(error)
        if known is None or wants_traceback():
            raise
        code, sentence = known
        return _say(f"error: {sentence}", code)


def _run_verb(name: str, args: list[str]) -> int:
    if name not in VERBS:
        raise UsageError(_unknown(name))
    verb = VERBS[name]
    module = importlib.import_module(f"leanvla.commands.{verb.module}")
    import tyro

    config = tyro.cli(
        getattr(module, verb.config), args=args, prog=f"leanvla {name}", description=verb.help
    )
    return module.run(config)


def _unknown(name: str) -> str:
    from pruning.spelling import did_you_mean

    hint = did_you_mean(name, VERBS, ", ") or ":"
    return f"unknown verb {name!r}{hint} choose one of {', '.join(VERBS)}"


def _show_help(*, asked: bool) -> int:
    lines = [
        "usage: leanvla VERB [options]        (options of a verb: leanvla VERB --help)",
        "",
        *(f"  {name:<9} {verb.help}" for name, verb in VERBS.items()),
        "",
        "Exit codes: 0 good, 1 a check failed, 2 usage, 3 environment.",
        "LEANVLA_DEBUG=1 shows where an error came from.",
    ]
    (sys.stdout if asked else sys.stderr).write("\n".join(lines) + "\n")
    return 0 if asked else USAGE


def _say(sentence: str, code: int) -> int:
    sys.stderr.write(f"leanvla: {sentence}\n")
    return code
