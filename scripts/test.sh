#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds everything and runs every test.
#
#   scripts/test.sh                 the release build, in build/cpu; kernels run on the CPU, by their own source
#   scripts/test.sh --cuda          with the CUDA backend, in build/cuda; its tests need nvcc, and a GPU not to be skipped
#   scripts/test.sh --sanitize      the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   scripts/test.sh -- ARGS…        ARGS go to ctest, e.g. -R conformance
set -euo pipefail
cd "$(dirname "$0")/.."

preset=cpu
if [[ "${1:-}" == "--sanitize" ]]; then
  preset=sanitize
  shift
elif [[ "${1:-}" == "--cuda" ]]; then
  preset=cuda
  shift
fi
[[ "${1:-}" == "--" ]] && shift

scripts/setup.sh
cmake --preset "$preset"
cmake --build --preset "$preset"
ctest --preset "$preset" "$@"
