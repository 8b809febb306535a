"""The house rules that a machine can check: floors, sizes, and what must not stand in the code."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

from tests.house import rules

RULES = (
    rules.wrong_floor,
    rules.runs_data,
    rules.prints,
    rules.asserts,
    rules.bare_excepts,
    rules.unfinished,
    rules.unannotated,
)
BREACHES = {
    rules.wrong_floor: "def f() -> None:\n    from sim.suites.base import Suite\n",
    rules.runs_data: "import torch\nweights = torch.load('a.pt')\n",
    rules.prints: "print('hello')\n",
    rules.asserts: "assert True\n",
    rules.bare_excepts: "try:\n    pass\nexcept:\n    pass\n",
    rules.unfinished: "# TO" + "DO: later\n",
    rules.unannotated: "def f(x) -> int:\n    return x\n",
}


@pytest.fixture(scope="module")
def sources() -> list[rules.Source]:
    return rules.read_rooms()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rooms_keep_the_rule(rule, sources):
    breaches = [line for source in sources for line in rule(source)]
    assert not breaches, "\n" + "\n".join(breaches)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_sees_a_breach(rule):
    assert list(rule(rules.parse("pruning", "sample.py", BREACHES[rule])))


def test_files_stay_readable(sources):
    lengths = [(source.name, source.text.count("\n")) for source in sources if source.text.strip()]
    # Median 130 and p90 400 are the aim; over the median one thinks, over the rest one splits.
    _check_lengths("file", lengths, median=160, p90=400, most=600)


def test_functions_stay_short(sources):
    lengths = [length for source in sources for length in rules.function_lengths(source)]
    _check_lengths("function", lengths, median=10, p90=35, most=60)


def test_tests_stay_readable():
    for path in (rules.ROOT / "tests").rglob("*.py"):
        assert path.read_text(encoding="utf-8").count("\n") <= 600, path


def _check_lengths(kind, lengths, *, median, p90, most):
    counts = sorted(lines for _, lines in lengths)
    middle, ninth = statistics.median(counts), counts[int(0.9 * (len(counts) - 1))]
    print(f"\n{len(counts)} {kind}s: median {middle:.0f}, p90 {ninth}, longest {counts[-1]} lines")
    longest = [name for name, lines in lengths if lines > most]
    assert not longest, f"{kind}s of more than {most} lines: {longest}"
    assert ninth <= p90
    assert middle <= median


@pytest.mark.parametrize(
    "code",
    [
        "import policy.types",
        "import pruning.types",
        "import sim.suites.base",
        "import vlm.tasks.registry as r; r.all_tasks()",
        "import policy.robot.session, policy.robot.guard, policy.contract_file",
        "import leanvla.run_folder, leanvla.commands.doctor",
        "import leanvla.commands.sweep, leanvla.commands.sweep_work, sim.sweep.merge",
        "import leanvla.cli as c; c.main(['--help'])",
        "import leanvla.cli as c; c.main(['nonsense'])",
    ],
)
def test_nothing_heavy_is_imported(code):
    heavy = ("torch", "transformers", "mujoco", "robosuite", "onnxruntime", "ray")
    probe = f"{code}\nimport sys\nprint([m for m in {heavy} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(rules.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
