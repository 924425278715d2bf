#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a virtual environment with the peers' packages, in the versions of requirements.txt.
#
#   bench/peers/setup.sh [--light] [FOLDER]     FOLDER: build/peers-venv
#
# --light leaves out torch, and so ByzFL and geom_median: 0.3 GB, where all is 6 GB. PyPI's torch for Linux brings
# NVIDIA's libraries, without which it cannot be imported. A torch of the same version that is already in FOLDER, such
# as PyTorch's own build for CPUs, stays. PYTHON names the interpreter; it must be 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/../.."

requirements=bench/peers/requirements.txt
folder=build/peers-venv
for argument in "$@"; do
  case "$argument" in
    --light)
      light=$(mktemp)
      trap 'rm -f "$light"' EXIT
      sed '/^torch==/,$d' "$requirements" > "$light"
      requirements=$light
      ;;
    -*)
      echo "setup.sh: unknown option $argument" >&2
      exit 2
      ;;
    *) folder=$argument ;;
  esac
done

if [[ ! -x "$folder/bin/python" ]]; then
  "${PYTHON:-python3}" -m venv "$folder"
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
"$folder/bin/python" bench/peers/run.py --list
