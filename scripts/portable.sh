#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds bragg with another compiler or for another processor than .ci/run, and runs its test programs there.
#
#   scripts/portable.sh clang       with Clang, for this machine
#   scripts/portable.sh aarch64     for 64-bit Arm: cross-compiled with GCC, run under qemu-user
#
# Further arguments go to ctest, e.g. -R conformance.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-}
if [[ "$preset" != clang && "$preset" != aarch64 ]]; then
  echo "usage: scripts/portable.sh clang|aarch64 [CTEST ARGUMENT...]" >&2
  exit 2
fi
shift

scripts/setup.sh "--$preset"
export CCACHE_BASEDIR=$PWD  # as scripts/test.sh
cmake --preset "$preset"
cmake --build --preset "$preset"
# Scripts start the command themselves, which is of the other processor.
[[ "$preset" != aarch64 ]] ||
  set -- --exclude-regex '^(bench_scripts|cli|docs|federated_digits|gpu_check|install|layers|peers|seed|symbols)_test$' "$@"
ctest --preset "$preset" "$@"
