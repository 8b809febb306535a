"""Launch files agree with the nodes: their arguments are parameters, and of the right type."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET

import pytest
import yaml
from leanvla_ros.parameters import NODES, contract_path

from policy.contract import ContractError
from policy.contract_file import read_contract
from tests.launch.stubs import FILES, FOLDER, load, stubbed

PACKAGE = FOLDER.resolve().parent
NAV2 = ("namespace", "use_sim_time", "params_file", "use_respawn", "log_level")
WANTED = {"robot", "sim", "replay", "profile"}


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def description(request):
    with stubbed():
        yield load(request.param).args[0]


def named(items, kind):
    return [item for item in items if type(item).__name__ == kind]


def test_every_use_has_its_file():
    assert {path.name.removesuffix(".launch.py") for path in FILES} == WANTED
    assert FOLDER.is_symlink()  # one set of files: the ROS package installs the same


def test_arguments_are_the_nodes_parameters(description):
    declared = [argument.args[0] for argument in named(description, "DeclareLaunchArgument")]
    assert len(set(declared)) == len(declared)
    assert set(NAV2) <= set(declared)
    assert "autostart" in declared
    nodes = named(description, "Node")
    assert {node.words["executable"] for node in nodes} >= {"policy_node", "guard_node"}
    for node in nodes:
        table = NODES[node.words["executable"]]
        given = node.words["parameters"][0]
        for name, value in given.items():
            assert name == "use_sim_time" or name in table
            assert value.args[0].args == (name,)  # taken from the argument of the same name
            assert name in declared
            kind = value.words["value_type"]
            default = table[name].default if name in table else False
            assert isinstance(default, list) == (kind == list[str])
            assert isinstance(default, list) or kind is type(default)
        assert set(given) >= set(table) - {"autostart"}  # nothing that only a file could set


def test_defaults_are_those_of_the_nodes(description):
    nodes = {node.words["executable"]: node for node in named(description, "Node")}
    changed = {"use_sim_time", "clock_timeout_s", "episodes", "params_file"}
    for argument in named(description, "DeclareLaunchArgument"):
        name, text = argument.args[0], argument.words.get("default_value")
        for executable in nodes:
            if name in NODES[executable] and name not in changed:
                assert yaml.safe_load(text) == NODES[executable][name].default or text == ""
        assert argument.words["description"]


def test_the_simulator_makes_the_time_that_the_others_take(description):
    nodes = {node.words["executable"]: node for node in named(description, "Node")}
    assert ("use_sim_time" in nodes["policy_node"].words["parameters"][0]) is True
    if "sim_node" in nodes:
        assert "use_sim_time" not in nodes["sim_node"].words["parameters"][0]
        defaults = {
            a.args[0]: a.words.get("default_value")
            for a in named(description, "DeclareLaunchArgument")
        }
        assert defaults["use_sim_time"] == "true"


@pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros is not installed: it comes with a ROS installation only",
)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_real_launch_loads_it(path):
    assert load(path).entities


def test_the_package_installs_what_it_needs():
    package = ET.parse(PACKAGE / "package.xml").getroot()
    depends = {element.text for element in package.iter("exec_depend")}
    assert package.findtext("export/build_type") == "ament_python"
    assert (PACKAGE / "resource" / package.findtext("name")).is_file()
    imported = {
        line.split()[1].split(".")[0]
        for path in (PACKAGE / "leanvla_ros").glob("*.py")
        for line in path.read_text().splitlines()
        if line.lstrip().startswith(("from ", "import ")) and len(line.split()) > 1
    }
    ours = {"leanvla_ros", "policy", "sim"}
    ros = {
        name for name in imported if name.endswith("_msgs") or name.startswith(("rcl", "launch"))
    }
    assert (ros | {"std_srvs"}) - ours <= depends | {"rcl_interfaces", "ament_index_python"}
    setup = (PACKAGE / "setup.py").read_text()
    for executable in NODES:
        assert f"{executable} = {{NAME}}.{executable}:main" in setup


def test_contracts_are_found_by_name_and_by_path():
    assert read_contract(contract_path("tabletop")).robot == "tabletop"
    path = str(PACKAGE / "config/franka.yaml")
    assert contract_path(path) == PACKAGE / "config/franka.yaml"
    assert contract_path("franka").resolve() == PACKAGE / "config/franka.yaml"


def test_an_unknown_contract_is_named_with_those_there_are():
    with pytest.raises(ContractError, match=r"no contract 'nobody': .*franka"):
        contract_path("nobody")
