#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, in one call that needs no network and takes at most ten minutes.
#
#   scripts/gpu_check.sh --build     where nvcc is: builds what is to be run into build/gpu/run, with its libraries, and packs
#                                    it into build/gpu/run.tar.xz: all that travels, beside the sources
#   scripts/gpu_check.sh [STEP…]     where a GPU is: runs all steps, or those named; logs and JSON go to $OUT, or
#                                    build/gpu/results
#
# Steps, in this order: the tests of the device against the oracle (their names, or "tests"), verify, the benchmarks readme
# and variants, python (the package's tests), the benchmarks peers, tiny, rules (held against variants by pass-sums) and
# large-n, what dependent launches change (dependent-…: tests and rules), huge, and compute-sanitizer's memcheck, racecheck,
# initcheck and synccheck on small shapes. Each has a limit of its own, and none goes on after $LIMIT seconds (570): what
# there was no time for is named. Exits non-zero if any step failed.
set -uo pipefail
cd "$(dirname "$0")/.."

programs=(device_select_test device_gram_test device_combine_test device_plan_test device_graph_test pre_aggregate_cuda_test
  conformance_cuda_test hostile_cuda_test)

if [[ "${1:-}" == "--build" ]]; then
  set -e
  cmake --preset gpu
  cmake --build --preset gpu --target "${programs[@]}" bragg_cli bragg_gpu_variants
  rm -rf build/gpu/run
  mkdir -p build/gpu/run
  for program in "${programs[@]}"; do strip -o "build/gpu/run/$program" "build/gpu/tests/$program"; done
  strip -o build/gpu/run/bragg build/gpu/bin/bragg
  strip -o build/gpu/run/variants build/gpu/bench/gpu/variants
  # Libraries that the other machine may lack; not those that belong to its system.
  for program in build/gpu/run/*; do ldd "$program"; done | awk '/=> \// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' | xargs -I{} cp -L {} build/gpu/run/
  # ByzFL's rules alone: the whole package wants much that the other machine lacks.
  for package in build/peers-venv/lib/python3*/site-packages/byzfl; do
    [[ -d "$package/aggregators" ]] || continue
    mkdir -p build/gpu/run/python/byzfl
    cp -r "$package/aggregators" "$package/utils" build/gpu/run/python/byzfl/
    find build/gpu/run/python -name __pycache__ -prune -exec rm -r {} +
  done
  # The package for that machine's Python, which may be any from 3.12 on, and what tests it.
  if python3.12 -c "" 2> /dev/null; then
    CCACHE_BASEDIR=$PWD python3.12 -m pip install -q --disable-pip-version-check --target build/gpu/run/python \
      -C cmake.define.BRAGG_CUDA=ON . pytest
    mkdir build/gpu/run/python/lib
    cp -L build/gpu/run/lib{hwy,gomp}.so.1 build/gpu/run/python/lib/
  else
    echo "gpu_check: no python3.12 here: the Python package will not be tested"
  fi
  git describe --always --dirty --abbrev=40 > build/gpu/run/commit
  # Every program has the kernels once more: with a window that is longer than a program, only the first counts.
  tar -C build/gpu -c run | xz --lzma2=preset=3,dict=192MiB > build/gpu/run.tar.xz
  du -sh build/gpu/run build/gpu/run.tar.xz
  exit 0
fi

out=${OUT:-build/gpu/results}
mkdir -p "$out"
run=build/gpu/run
[[ -d $run ]] || python3 -m tarfile -e "$run.tar.xz" build/gpu || exit 1
export LD_LIBRARY_PATH=$PWD/$run
limit_of_all=${LIMIT:-570}
wanted=" $* "
failed=()
left_out=()

# step NAME LIMIT_S COMMAND…: its output to a log; the end of it here.
step() {
  local name=$1 limit=$2 began=$SECONDS left=$((limit_of_all - SECONDS)) status
  shift 2
  [[ "$wanted" == "  " || "$wanted" == *" $name "* ]] || return
  if ((left < 10)); then
    left_out+=("$name")
    return
  fi
  echo "=== $name"
  timeout -k 5 $((limit < left ? limit : left)) "$@" > "$out/$name.log" 2>&1
  status=$?
  if ((status == 0)); then
    echo "ok, $((SECONDS - began)) s"
  else
    echo "FAILED with $status, $((SECONDS - began)) s:"
    tail -n 20 "$out/$name.log"
    failed+=("$name")
  fi
}

bench() {
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "$run/bragg" bench --device cuda --json "$out/$name.json" "$@"
}

nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv |
  tee "$out/gpu.csv" || exit 1
echo "commit $(cat "$run/commit")" | tee "$out/commit"

[[ "$wanted" == *" tests "* ]] && wanted+="${programs[*]} "
export BRAGG_TEST_SHARE=${BRAGG_TEST_SHARE:-4}
for program in "${programs[@]}"; do step "$program" 60 "$run/$program" --gtest_brief=1; done
step verify 60 "$run/bragg" verify --device all --seconds 30 --json "$out/verify.json"

nnm='nnm(f=F) | trimmed_mean(f=F)'
rules=(median 'trimmed_mean(f=F)' 'krum(f=F)' 'multi_krum(f=F)' geometric_median 'centered_clipping(tau=100, iters=5)' "$nnm"
  'bulyan(f=F)')
bench readme 120 --preset readme --seconds 0.1
step variants 60 bash -c "$run/variants 0.05 > $out/variants.json"
times=()
[[ -f "$out/readme.json" ]] && times=(--times "$out/readme.json")
# Python has libraries of its own.
python=(env "LD_LIBRARY_PATH=$PWD/$run/python/lib" "PYTHONPATH=$PWD/$run/python" python3)
if "${python[@]}" -c 'import bragg, pytest' 2> /dev/null; then
  step python 60 "${python[@]}" -m pytest -q -p no:cacheprovider tests/python/test_gpu.py
else
  left_out+=("python (no package for this Python)")
fi
step peers 100 env -u LD_LIBRARY_PATH python3 bench/gpu/peers.py --bragg "$run/bragg" "${times[@]}" --json "$out/peers.json"
bench tiny 20 --preset tiny --seconds 0.05
bench rules 60 --rule "${rules[@]}" --n 16 --d 1e6 1e7 1e8 --seconds 0.1
[[ -f "$out/rules.json" && -f "$out/variants.json" ]] &&
  step pass-sums 5 python3 bench/gpu/pass_sums.py "$out/variants.json" "$out/rules.json"
bench large-n 60 --preset large-n --seconds 0.05
# The same with kernels that are set up while the one before still runs: results and times.
for program in device_plan_test device_graph_test pre_aggregate_cuda_test conformance_cuda_test; do
  step "dependent-$program" 40 env BRAGG_DEPENDENT_LAUNCHES=1 "$run/$program" --gtest_brief=1
done
step dependent-rules 40 env BRAGG_DEPENDENT_LAUNCHES=1 "$run/bragg" bench --device cuda --json "$out/dependent-rules.json" \
  --rule "${rules[@]}" --n 16 --d 1e6 1e7 --seconds 0.1
bench huge 100 --rule median "$nnm" --n 16 --d 1e9 --seconds 0.1

# One case in many: a sanitized kernel is a hundred times slower.
sanitizer=$(command -v compute-sanitizer || true)
export BRAGG_TEST_SHARE=400
for tool in memcheck racecheck initcheck synccheck; do
  if [[ -z "$sanitizer" ]]; then
    left_out+=("$tool (compute-sanitizer is not here)")
  else
    step "$tool" 100 "$sanitizer" --tool "$tool" --error-exitcode 9 --kernel-regex kns=bragg \
      "$run/conformance_cuda_test" --gtest_brief=1
  fi
done

echo "took $SECONDS s"
((${#left_out[@]} == 0)) || printf 'left out: %s\n' "${left_out[@]}"
if ((${#failed[@]} > 0)); then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all that ran passed"
