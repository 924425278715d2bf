#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds everything and runs every test.
#
#   scripts/test.sh                 the release build, in build/cpu
#   scripts/test.sh --sanitize      the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   scripts/test.sh -- ARGS…        ARGS go to ctest, e.g. -R conformance
set -euo pipefail
cd "$(dirname "$0")/.."

preset=cpu
if [[ "${1:-}" == "--sanitize" ]]; then
  preset=sanitize
  shift
fi
[[ "${1:-}" == "--" ]] && shift

scripts/setup.sh
cmake --preset "$preset"
cmake --build --preset "$preset"
ctest --preset "$preset" "$@"
