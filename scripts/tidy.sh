#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy on the layers that differ from a revision (default: the last commit), or on all of them.
#
#   scripts/tidy.sh [--all | REVISION]
set -euo pipefail
cd "$(dirname "$0")/.."

# What a build without CUDA leaves out cannot be checked there, nor what only the test of the installed tree compiles.
database=build/cpu
without='host/cuda/(check|launch|runtime)|examples/consumer/'
if [[ -f build/cuda/compile_commands.json ]]; then
  database=build/cuda
  without='host/cuda/absent|examples/consumer/'
fi
base=${1:-HEAD~1}

sources() { git ls-files 'host/*.cpp' 'examples/*.cpp' | grep -vE "^($without)"; }
if [[ "$base" == "--all" ]] || ! git rev-parse --verify --quiet "$base^{commit}" >/dev/null; then
  files=$(sources)
else
  # A header concerns its whole layer, so a layer is checked when anything in it has changed.
  layers=$(git diff --name-only "$base" -- host examples include | sed -E 's|^(host/[^/]+)/.*|\1|; s|^examples/.*|examples|; s|^include/.*|host|' | sort -u)
  [[ -z "$layers" ]] && { echo "no layer has changed since $base"; exit 0; }
  files=$(sources | grep -E "^($(echo "$layers" | paste -sd'|'))/" || true)
fi
[[ -z "$files" ]] && { echo "no source to check"; exit 0; }
# shellcheck disable=SC2086
scripts/run_tidy.py "$database" $files
