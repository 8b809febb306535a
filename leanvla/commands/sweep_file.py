"""The file of a sweep: what it may say, checked before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from leanvla.errors import UsageError
from pruning.spelling import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from yaml.nodes import MappingNode


class SuiteEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A suite, or only its name.

    Attributes:
        name: as in `leanvla suites`, or `module:callable`.
        label: what it is called in the store; its name when left out.
        tasks: only seeds that ask for one of these: families of `tabletop`, numbers of a LIBERO
            suite's tasks.
        seeds: how many seeds; those of the sweep when left out.
        render_profile: `default`, `fast` or `lowpoly`; the suite's own when left out.
        view_size: side of the frames that the policy sees, pixels; the suite's own when left out.
        views: cameras to show, main first; all when left out.
        perturb: perturbations of every episode, e.g. `camera:0.05,lighting:0.3`.
    """

    name: str
    label: str = ""
    tasks: list[str | int] = []
    seeds: int | None = None
    render_profile: str | None = None
    view_size: int | None = None
    views: list[str] = []
    perturb: str = ""


class PolicyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy, or only its name.

    Attributes:
        name: packaged policy, checkpoint or engine folder, `expert`, or `module:callable`.
        label: what it is called in the store; the last part of its name when left out.
        suites: labels of the suites that it acts in; all when left out.
        unnorm_key: data set whose statistics give actions their units.
        execute: control steps executed of each chunk; the policy's own choice when left out.
        engine: `torch`, or the folder of an engine of its weights that has every method and budget.
        device: torch device, or an engine's; `cpu` when left out.
        dtype: torch type of weights and activations; `float32` when left out.
        threads: threads of each policy process.
        batch: observations of several environments that may share a forward pass (needs `--ray`).
    """

    name: str
    label: str = ""
    suites: list[str] = []
    unnorm_key: str | None = None
    execute: int | None = None
    engine: str = "torch"
    device: str | None = None
    dtype: str | None = None
    threads: int = 1
    batch: int = 1


class SweepFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """suites × tasks × policies × methods × keep ratios × seeds.

    Attributes:
        suites: names, or entries of their own.
        policies: names, or entries of their own.
        methods: pruning methods; `dense` always runs as the reference.
        keep: keep ratios in (0, 1].
        seeds: how many seeds, one after the other from `first_seed`; a seed is a scene and its
            task.
        first_seed: the first one; seeds below 100,000 are held out.
        option: fields of the pruning methods.
        swap_instruction: tell the policy another valid instruction, judge the original.
        truth: record what every query kept of the object, the gripper and the goal.
        sim_timeout: seconds without an answer after which a simulator is ended.
    """

    suites: list[str | SuiteEntry]
    policies: list[str | PolicyEntry]
    methods: list[str]
    keep: tuple[float, ...] = (1.0,)
    seeds: int = 50
    first_seed: int = 0
    option: dict[str, Any] = {}
    swap_instruction: bool = False
    truth: bool = False
    sim_timeout: float = 60.0

    def suite_entries(self) -> list[SuiteEntry]:
        """Every suite as an entry, its label filled in."""
        entries = [SuiteEntry(s) if isinstance(s, str) else s for s in self.suites]
        return [msgspec.structs.replace(s, label=s.label or s.name) for s in entries]

    def policy_entries(self) -> list[PolicyEntry]:
        """Every policy as an entry, its label filled in."""
        entries = [PolicyEntry(p) if isinstance(p, str) else p for p in self.policies]
        return [msgspec.structs.replace(p, label=p.label or _base(p.name)) for p in entries]


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep's file.

    Raises:
        UsageError: naming the file, the place in it, what is wrong, and the nearest valid key.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file: give a sweep's YAML file, or `merge` or `status`")
    try:
        tree = _Strict(path.read_text(encoding="utf-8")).get_single_data()
        _check_keys(tree, SweepFile, path.name)
        for field, kind in (("suites", SuiteEntry), ("policies", PolicyEntry)):
            for number, entry in enumerate(_list(tree.get(field))):
                _check_keys(entry, kind, f"{path.name}, {field}[{number}]", plain=str)
        file = msgspec.convert(tree, SweepFile)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from None
    _check_values(file, path.name)
    return file


class _Strict(yaml.SafeLoader):
    """YAML without repeated keys: the second one would silently win."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.YAMLError(f"{twice!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def _check_keys(tree: Any, kind: type[msgspec.Struct], where: str, plain: type = dict) -> None:
    if isinstance(tree, plain) and plain is not dict:
        return
    if not isinstance(tree, dict):
        raise UsageError(f"{where}: give keys and values, or see docs/sweeps.md")
    known = kind.__struct_fields__
    for key in tree:
        if key not in known:
            hint = did_you_mean(str(key), known, ", ") or ":"
            raise UsageError(f"{where}: unknown key {key!r}{hint} choose from {', '.join(known)}")


def _check_values(file: SweepFile, where: str) -> None:
    suites, policies = file.suite_entries(), file.policy_entries()
    for field, entries in (("suites", suites), ("policies", policies)):
        labels = [entry.label for entry in entries]
        if not labels:
            raise UsageError(f"{where}: {field} is empty: name at least one")
        twice = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
        if twice:
            raise UsageError(f"{where}: {field} has {twice[0]!r} twice: give each its own `label`")
    if not file.methods or not file.keep:
        raise UsageError(f"{where}: methods and keep need at least one value each")
    names = [suite.label for suite in suites]
    for policy in policies:
        for label in policy.suites:
            if label not in names:
                raise UsageError(
                    f"{where}: policy {policy.label} acts in {label!r}, which is no suite here: "
                    f"choose from {', '.join(names)}"
                )
        if policy.batch < 1:
            raise UsageError(f"{where}: batch of {policy.label} is {policy.batch}: give 1 or more")
    for count in (file.seeds, *(s.seeds for s in suites if s.seeds is not None)):
        if count < 1:
            raise UsageError(f"{where}: seeds is {count}: give 1 or more")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _base(name: str) -> str:
    return name if ":" in name else name.rstrip("/").rpartition("/")[2]
