#!/usr/bin/env bash
# Build the environment in $VENV on a bare Debian or Ubuntu machine; called by the Makefile.
#
# Reads: VENV (folder), PYTHON (interpreter, empty to look for one), TORCH (requirement, empty to
# install none), TORCH_INDEX (package index for torch, empty for pip's own).
# Root installs missing system packages with apt; anyone else is told their names. Nothing here is
# compiled: every pinned package has a wheel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-}
TORCH=${TORCH-torch==2.13.0}
TORCH_INDEX=${TORCH_INDEX:-}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }

# A library is known to the dynamic loader, whichever package brought it.
has_library() { [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p) == *"$1"* ]]; }

has_rasteriser() { compgen -G '/usr/lib*/*/dri/*swrast*' || compgen -G '/usr/lib*/*/libgallium*'; } >/dev/null

# An interpreter of 3.10 or newer that can make virtual environments.
is_usable() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
  local name
  # 3.11 first: it is what the lock was measured with.
  for name in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3}; do
    if is_usable "$name"; then command -v "$name"; return; fi
  done
  return 1
}

apt_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  say "apt-get install $*"
  { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
  } >"$LOG" 2>&1 || { tail -n 5 "$LOG" >&2; return 1; }
}

install_system_libraries() {
  local missing=()
  has_library libEGL.so.1 || missing+=(libegl1)
  # A vendor's driver, or Mesa's software rasteriser.
  has_library libEGL_nvidia.so.0 || { has_library libEGL_mesa.so.0 && has_rasteriser; } ||
    missing+=(libegl-mesa0 libgl1-mesa-dri)
  # PyOpenGL loads the GL functions themselves from one of these.
  has_library libOpenGL.so.0 || has_library libGL.so.1 || missing+=(libopengl0)
  if [ ${#missing[@]} -gt 0 ]; then
    apt_install "${missing[@]}" ||
      say "simulation cannot render until root has run: apt-get install ${missing[*]}"
  fi
  # The second backend; newer distributions have dropped it, and EGL is enough.
  has_library libOSMesa.so || apt_install libosmesa6 || say "going on without libosmesa6 (EGL is enough)"
}

make_environment() {
  local python
  if [ -x "$VENV/bin/python" ] && is_usable "$VENV/bin/python"; then return; fi
  if ! python=$(find_python); then
    [ -z "$PYTHON" ] || die "$PYTHON is not a Python >= 3.10 with venv: set PYTHON to one that is"
    apt_install python3 python3-venv || true
    python=$(find_python) || die "no Python >= 3.10 with venv: run apt-get install python3 python3-venv"
  fi
  say "$("$python" --version) at $python"
  "$python" -m venv --clear "$VENV"
}

install_packages() {
  local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet)
  say "installing pinned packages"
  # A lock is complete, so nothing is resolved; numpy is there before torch looks for it.
  "${pip[@]}" install --no-deps --only-binary=:all: -r constraints.txt
  if [ -n "$TORCH" ]; then
    say "installing $TORCH"
    [ -n "$TORCH_INDEX" ] || [ -e /proc/driver/nvidia ] ||
      say "no NVIDIA GPU here: TORCH_INDEX=<index of CPU wheels> makes this download far smaller"
    "${pip[@]}" install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
  fi
  "${pip[@]}" install --no-deps --no-build-isolation -e .
}

LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
started=$SECONDS
install_system_libraries
make_environment
install_packages
say "ready in $((SECONDS - started)) s"
