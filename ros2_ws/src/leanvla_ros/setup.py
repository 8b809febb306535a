"""Build with colcon; the rooms of LeanVLA (`pip install leanvla`) are found at run time."""

from glob import glob

from setuptools import setup

NAME = "leanvla_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    package_data={NAME: ["*.yaml", "config/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/config", glob("config/*.yaml")),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/security", glob("security/*.policy.xml")),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"policy_node = {NAME}.policy_node:main",
            f"guard_node = {NAME}.guard_node:main",
            f"sim_node = {NAME}.sim_node:main",
        ]
    },
)
