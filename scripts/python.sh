#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Python package's wheel, installs it where there is nothing else, and tests it there.
#
#   scripts/python.sh                 the wheel goes to build/python-wheel; for the CPU
#   scripts/python.sh --cuda          with the CUDA backend, where nvcc is found
#   scripts/python.sh --torch         and the tests of PyTorch with Debian's (python3-torch), on the system's Python
#   scripts/python.sh --peers         with PyTorch, ByzFL, Flower and NVFlare in the tests: 6 GB from PyPI, the first time
#   scripts/python.sh -- ARGS…        ARGS go to pytest, e.g. -k oracle
#
# PYTHON names the interpreter; it must be 3.10 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."

cuda=OFF
torch=
requirements=(--requirement tests/python/requirements.txt)
while (($# > 0)); do
  case "$1" in
    --cuda) cuda=ON ;;
    --torch) torch=build/python-torch-venv ;;
    --peers) requirements+=(--requirement bench/peers/requirements.txt ray==2.55.1 nvflare==2.9.0 safetensors) ;;
    --)
      shift
      break
      ;;
    *)
      echo "python.sh: unknown option $1; see the head of this file" >&2
      exit 2
      ;;
  esac
  shift
done

scripts/setup.sh
venv=build/python-venv
if [[ ! -x "$venv/bin/python" ]]; then
  "${PYTHON:-python3}" -m venv "$venv"
fi
pip=(-m pip --quiet --disable-pip-version-check)
"$venv/bin/python" "${pip[@]}" install "${requirements[@]}"

# CMake's own choice for scripts/test.sh, whose objects are used again: Python may name the same compiler otherwise, and
# ccache goes by names.
export CC=${CC:-cc} CXX=${CXX:-c++}
rm -rf build/python-wheel
"$venv/bin/python" "${pip[@]}" wheel --no-deps --wheel-dir build/python-wheel -C cmake.define.BRAGG_CUDA="$cuda" \
  -C cmake.define.BRAGG_WERROR=ON .
"$venv/bin/python" "${pip[@]}" install --force-reinstall --no-deps build/python-wheel/bragg-*.whl
ls -sh build/python-wheel

# No test may find the source: only the wheel's package is imported.
"$venv/bin/python" -m pytest tests/python "$@"

if [[ -n "$torch" ]]; then
  # It goes with the system's NumPy, and not with the one above.
  /usr/bin/python3 -m venv --system-site-packages "$torch"
  "$torch/bin/python" "${pip[@]}" install pytest
  "$torch/bin/python" "${pip[@]}" install --force-reinstall --no-deps build/python-wheel/bragg-*.whl
  "$torch/bin/python" -c "import torch"
  "$torch/bin/python" -m pytest tests/python -k torch "$@"
fi
