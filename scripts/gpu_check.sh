#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, in one call that needs no network.
#
#   scripts/gpu_check.sh --build    where nvcc is: builds what is to be run into build/gpu/run, with its libraries
#   scripts/gpu_check.sh            where a GPU is: runs it; logs and JSON go to $OUT, or build/gpu/results
#
# The second call runs the tests of the device against the oracle, `bragg verify`, `bragg bench`, and compute-sanitizer's
# four tools on small shapes, and exits non-zero if any of them failed. It takes under ten minutes.
set -uo pipefail
cd "$(dirname "$0")/.."

programs=(device_select_test device_gram_test device_combine_test device_plan_test device_graph_test conformance_cuda_test
  hostile_cuda_test)

if [[ "${1:-}" == "--build" ]]; then
  set -e
  cmake --preset gpu
  cmake --build --preset gpu --target "${programs[@]}" bragg_cli
  rm -rf build/gpu/run
  mkdir -p build/gpu/run
  for program in "${programs[@]}"; do strip -o "build/gpu/run/$program" "build/gpu/tests/$program"; done
  strip -o build/gpu/run/bragg build/gpu/bin/bragg
  # Libraries that the other machine may lack; not those that belong to its system.
  for program in build/gpu/run/*; do ldd "$program"; done | awk '/=> \// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' | xargs -I{} cp -L {} build/gpu/run/
  git rev-parse HEAD > build/gpu/run/commit
  du -sh build/gpu/run
  exit 0
fi

out=${OUT:-build/gpu/results}
mkdir -p "$out"
run=build/gpu/run
export LD_LIBRARY_PATH=$PWD/$run
failed=()

# step NAME LIMIT_S COMMAND…: its output to a log; the end of it here.
step() {
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  echo "=== $name"
  if timeout "$limit" "$@" > "$out/$name.log" 2>&1; then
    echo "ok, $((SECONDS - began)) s"
  else
    echo "FAILED with $?, $((SECONDS - began)) s:"
    tail -n 20 "$out/$name.log"
    failed+=("$name")
  fi
}

nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm --format=csv | tee "$out/gpu.csv"
echo "commit $(cat "$run/commit")"

export BRAGG_TEST_SHARE=${BRAGG_TEST_SHARE:-4}
for program in "${programs[@]}"; do step "$program" 150 "$run/$program" --gtest_brief=1; done
step verify 120 "$run/bragg" verify --device all --seconds 60 --json "$out/verify.json"
step bench 150 "$run/bragg" bench --preset readme --device cuda --seconds 0.1 --json "$out/bench.json"

# One case in many: a sanitized kernel is a hundred times slower.
sanitizer=$(command -v compute-sanitizer || true)
if [[ -z "$sanitizer" ]]; then
  echo "compute-sanitizer: not found; not run" | tee "$out/sanitizer.log"
else
  export BRAGG_TEST_SHARE=400
  for tool in memcheck racecheck initcheck synccheck; do
    step "$tool" 100 "$sanitizer" --tool "$tool" --error-exitcode 9 --kernel-regex kns=bragg \
      "$run/conformance_cuda_test" --gtest_brief=1
  done
fi

if ((${#failed[@]} > 0)); then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all passed"
