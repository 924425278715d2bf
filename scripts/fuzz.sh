#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fuzzes what reads strangers' bytes (tests/fuzz) with libFuzzer, under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   scripts/fuzz.sh [SECONDS] [TARGET…]    SECONDS in all, 60 by default; without TARGETs all of them share the time
#
# What libFuzzer finds new stays in build/fuzz/corpus for the next time. An input that fails is left in build/fuzz, and
# repeated by build/fuzz/tests/fuzz/TARGET_fuzz FILE; put it into tests/fuzz/corpus/TARGET when it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=60
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi
targets=("$@")
if ((${#targets[@]} == 0)); then
  for folder in tests/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
fi
for target in "${targets[@]}"; do
  [[ -d tests/fuzz/corpus/$target ]] || { echo "fuzz.sh: no target $target; see tests/fuzz/corpus" >&2; exit 2; }
done

scripts/setup.sh --clang
cmake --preset fuzz > /dev/null
cmake --build --preset fuzz

failed=()
for target in "${targets[@]}"; do
  echo "fuzz: $target"
  found=build/fuzz/corpus/$target
  mkdir -p "$found"
  log=build/fuzz/$target.log
  # SIGINT ends the script too. What libFuzzer says is of interest where it fails.
  if build/fuzz/tests/fuzz/"${target}"_fuzz "$found" "tests/fuzz/corpus/$target" -max_total_time=$((seconds / ${#targets[@]} + 1)) \
    -max_len=4096 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="build/fuzz/$target-" -print_final_stats=1 > "$log" 2>&1; then
    grep -E 'number_of_executed_units|^Done' "$log" || true
  else
    tail -40 "$log"
    failed+=("$target")
  fi
done
if ((${#failed[@]} > 0)); then
  echo "fuzz: failed: ${failed[*]}" >&2
  exit 1
fi
