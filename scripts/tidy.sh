#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy on sources that changed, and on those that include what changed.
#
#   scripts/tidy.sh              since the last release or, without one, since main forked off or a day before the last commit;
#                                at most $MOST sources (20), those nearest to a change
#   scripts/tidy.sh REVISION     since REVISION
#   scripts/tidy.sh --all        all sources, as for a release
set -euo pipefail
cd "$(dirname "$0")/.."

# Sources that a build without CUDA leaves out cannot be checked there, nor those that only install_test compiles.
database=build/cpu
without='kernels/runtime/check|kernels/runtime/runtime|examples/consumer/'
if [[ -f build/cuda/compile_commands.json ]]; then
  database=build/cuda
  without='host/(cuda/absent|(plan|sharded|files)/cuda_absent)|examples/consumer/'
fi
# The revision that changes are counted from; nothing: there is none so old.
base_of_changes() {
  local base
  git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2> /dev/null && return
  base=$(git merge-base origin/main HEAD 2> /dev/null || true)
  if [[ -n "$base" && "$base" != "$(git rev-parse HEAD)" ]]; then
    echo "$base"
    return
  fi
  # HEAD is main, and what came before this landing is not known in a fresh clone: its last day is taken for it.
  git rev-list --first-parent --max-count=1 --before="$(($(git log -1 --format=%ct) - 86400))" HEAD
}

options=()
if [[ "${1:-}" != "--all" ]]; then
  base=${1:-$(base_of_changes)}
  if [[ -n "$base" ]]; then
    git rev-parse --verify --quiet "$base^{commit}" > /dev/null || { echo "tidy.sh: no revision $base" >&2; exit 2; }
    echo "changes since $(git log -1 --format='%h %s' "$base")"
    options+=(--since "$base")
  fi
  [[ $# -gt 0 ]] || options+=(--most "${MOST:-20}")
fi
git ls-files 'rules/*.cpp' 'kernels/*.cpp' 'host/*.cpp' 'examples/*.cpp' | grep -vE "^($without)" |
  xargs scripts/run_tidy.py ${options[@]+"${options[@]}"} "$database"
