#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the random tests again and again, with a fresh seed in each round, until the time is up.
#
#   scripts/soak.sh [OPTIONS] [MINUTES] [-- ARGS…]
#
# MINUTES: no round starts after them; without, rounds go on until Ctrl-C. ARGS go to ctest, e.g. -R conformance.
# Options: --sanitize runs the sanitizers' build; --python runs tests/python too, on a wheel made when the soak begins;
# --fuzz fuzzes for ten minutes before the first round (scripts/fuzz.sh); --portable runs all tests with Clang, and for
# 64-bit Arm, before it (scripts/portable.sh); --experiments runs the quick form of each before it
# (scripts/experiments.sh); --bench measures the preset readme before it, and fails where a row is slower than in the
# latest result of this hardware in bench/results.
# After a round that fails, the seed and the command that repeats it are printed and the soak goes on. At the end all of
# them are printed again, and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=cpu
python=
fuzz=
experiments=
bench=
portable=()
minutes=
while (($# > 0)); do
  case "$1" in
    --sanitize) preset=sanitize ;;
    --fuzz) fuzz=600 ;;
    --experiments) experiments=yes ;;
    --bench) bench=yes ;;
    --portable) portable=(clang aarch64) ;;
    --python) python=build/python-venv/bin/python ;;
    --)
      shift
      break
      ;;
    *)
      if [[ -n "$minutes" || ! "$1" =~ ^[0-9]+$ ]]; then
        echo "soak.sh: $1 is neither minutes nor an option; see the head of this file" >&2
        exit 2
      fi
      minutes=$1
      ;;
  esac
  shift
done

if [[ -n "$bench" && "$preset" != cpu ]]; then
  echo "soak.sh: --bench measures the release build: leave out --sanitize" >&2
  exit 2
fi
scripts/setup.sh
unset BRAGG_SIMT_SEED
cmake --preset "$preset" > /dev/null
cmake --build --preset "$preset"
[[ -z "$python" ]] || scripts/python.sh -- -q

repeat=()
rounds=0
finish() {
  echo "soak: $rounds rounds in $SECONDS s, ${#repeat[@]} commands failed"
  ((${#repeat[@]} == 0)) && exit 0
  printf '  %s\n' "${repeat[@]}"
  exit 1
}
trap finish INT TERM

# failed COMMAND: how to see it fail again.
failed() {
  repeat+=("$1")
  printf 'soak: failed; to repeat it:\n  %s\n' "$1"
}

draw_seed() {
  BRAGG_TEST_SEED=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
  export BRAGG_TEST_SEED
}

SECONDS=0
if [[ -n "$fuzz" ]] && ! scripts/fuzz.sh "$fuzz"; then failed "scripts/fuzz.sh $fuzz"; fi
for each in "${portable[@]}"; do
  draw_seed
  scripts/portable.sh "$each" "$@" || failed "BRAGG_TEST_SEED=$BRAGG_TEST_SEED scripts/portable.sh $each $*"
done
if [[ -n "$experiments" ]] && ! scripts/experiments.sh --quick; then failed "scripts/experiments.sh --quick"; fi
if [[ -n "$bench" ]]; then
  build/cpu/bin/bragg bench --preset readme --device cpu --json build/bench.json
  bench/compare.py bench/results build/bench.json --fail-on-regression || failed "bench/compare.py bench/results build/bench.json"
fi
while [[ -z "$minutes" ]] || ((SECONDS < minutes * 60)); do
  draw_seed
  echo "soak: round $((++rounds)), BRAGG_TEST_SEED=$BRAGG_TEST_SEED"
  log=build/$preset/Testing/Temporary/LastTestsFailed.log
  rm -f "$log"
  if ! ctest --preset "$preset" --label-regex '^random$' "$@"; then
    names=$(cut -d: -f2 "$log" 2> /dev/null | paste -sd '|')
    failed "BRAGG_TEST_SEED=$BRAGG_TEST_SEED ctest --preset $preset -R '^(${names:-.*})\$'"
  fi
  if [[ -n "$python" ]] && ! "$python" -m pytest -q tests/python; then
    failed "BRAGG_TEST_SEED=$BRAGG_TEST_SEED $python -m pytest -q tests/python"
  fi
done
finish
