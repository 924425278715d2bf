#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the generated files of the tree again.
#
#   scripts/generate.sh             writes them
#   scripts/generate.sh --check     writes nothing; prints the differences and fails where a file is out of date
#
# BRAGG names the command of this source (default: build/cpu/bin/bragg, from scripts/test.sh). PYTHON names an
# interpreter that has the package of this source installed (default: that of scripts/python.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

bragg=${BRAGG:-build/cpu/bin/bragg}
python=${PYTHON:-build/python-venv/bin/python}
[[ -x "$bragg" ]] || { echo "generate.sh: no $bragg; run scripts/test.sh, or set BRAGG" >&2; exit 1; }
"$python" -c "import bragg" 2> /dev/null ||
  { echo "generate.sh: $python does not import bragg; run scripts/python.sh, or set PYTHON" >&2; exit 1; }

check=
case "${1-}" in
  "") ;;
  --check) check=1 ;;
  *)
    echo "usage: scripts/generate.sh [--check]" >&2
    exit 2
    ;;
esac

made=$(mktemp)
trap 'rm -f "$made"' EXIT
status=0
# generate FILE COMMAND…: FILE is what COMMAND prints.
generate() {
  local file=$1
  shift
  "$@" > "$made"
  if [[ -z "$check" ]]; then
    cmp --silent "$made" "$file" || { cat "$made" > "$file" && echo "$file"; }
  elif ! diff --unified --label "$file" --label "$file, made again" "$file" "$made"; then
    status=1
  fi
}

generate docs/rules.md scripts/make_rules_page.py "$bragg"
generate python/bragg/rules.pyi "$python" scripts/make_rule_stubs.py
generate rules/networks/schedules.hpp scripts/make_schedules.py
exit "$status"
