"""Reading a robot contract: data only, every key known, every duplicate refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from policy.contract import Contract, ContractError
from policy.contract_check import check

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_BYTES = 256 * 1024


class _Loader(yaml.SafeLoader):
    """YAML without tags, and without the silence in which PyYAML drops a duplicate key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ContractError(f"key {key!r} stands twice, again in line {line}: keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise ContractError(f"line {line} has a YAML alias: write the value out")
        return super().compose_node(parent, index)


def read_contract(path: str | Path) -> Contract:
    """Read and check one contract.

    Raises:
        ContractError: on a missing or unreadable file, an unknown or duplicate key, a missing
            value, a value of a wrong type, or one that contradicts another.
    """
    path = Path(path)
    if not path.is_file():
        raise ContractError(f"{path}: no such contract file")
    if path.stat().st_size > MAX_BYTES:
        raise ContractError(f"{path}: larger than {MAX_BYTES} bytes, which no contract is")
    try:
        return parse_contract(path.read_text(encoding="utf-8"))
    except (ContractError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: {error}") from None


def parse_contract(text: str) -> Contract:
    """The contract that `text` holds.

    Raises:
        ContractError: as `read_contract`.
    """
    try:
        data = _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ContractError(f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ContractError("nested too deeply: this is no contract") from None
    try:
        contract = msgspec.convert(data, Contract)
    except msgspec.ValidationError as error:
        raise ContractError(str(error)) from None
    check(contract)
    return contract
