#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, in two calls that need no network, on a machine that is rented by the minute.
#
#   scripts/gpu_check.sh --build      where nvcc is: builds what is to be run into build/gpu/run, with its libraries, and
#                                     packs it into build/gpu/run.tar.xz: all that travels, beside the sources
#   scripts/gpu_check.sh --smoke      where a GPU is, in 100 s at most: whether there is one, select, gram, verify, each pass by
#                                     itself, the rules at n = 16, and verify with products in pairs of floats, in bytes
#                                     and by cuBLAS (BRAGG_GRAM)
#   scripts/gpu_check.sh              in 500 s at most: these, all choices of who computes products beside each other, more
#                                     shapes, the profiler, all tests, compute-sanitizer, the benchmarks readme, large-n and
#                                     tiny, Python, other libraries, huge updates
#   scripts/gpu_check.sh STEP…        some steps of it; any other word lists them
#
# Steps, their order and their limits are the table STEPS in bench/gpu/check.py. After each of them all results go anew into
# one archive, results.tar.gz in $OUT (build/gpu); a table of all figures ends the output. Without a device it fails, and
# so do tests that would be skipped. Exits non-zero if any step failed.
set -uo pipefail
cd "$(dirname "$0")/.."

programs=(device_there_test device_select_test device_mix_test device_gram_test device_combine_test device_plan_test
  device_graph_test pre_aggregate_cuda_test conformance_cuda_test hostile_cuda_test aimed_cuda_test device_sharded_test)

# find_python COMMAND…: the first that runs. A name on PATH may be no more than pyenv's word that another version has it.
find_python() {
  local python
  for python in "$@"; do
    if "$python" -c "" 2> /dev/null; then
      echo "$python"
      return 0
    fi
  done
  return 1
}

if [[ "${1:-}" == "--build" ]]; then
  set -e
  cmake --preset gpu
  cmake --build --preset gpu --target "${programs[@]}" bragg_cli bragg_gpu_variants
  rm -rf build/gpu/run
  mkdir -p build/gpu/run
  for program in "${programs[@]}"; do strip -o "build/gpu/run/$program" "build/gpu/tests/$program"; done
  strip -o build/gpu/run/bragg build/gpu/bin/bragg
  strip -o build/gpu/run/variants build/gpu/bench/gpu/variants
  # Libraries that the other machine may lack; not those that belong to its system. Programs look beside themselves (the
  # preset's RPATH), so nothing is to be set there.
  libraries() { for program in build/gpu/run/{*_test,bragg,variants}; do ldd "$program"; done | awk '/=> \// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so'; }
  libraries | xargs -I{} cp -L {} build/gpu/run/
  if libraries | grep -v "^$PWD/build/gpu/run/"; then
    echo "gpu_check: these are not taken from beside the programs" >&2
    exit 1
  fi
  # ByzFL's rules alone: the whole package wants much that the other machine lacks.
  for package in build/peers-venv/lib/python3*/site-packages/byzfl; do
    [[ -d "$package/aggregators" ]] || continue
    mkdir -p build/gpu/run/python/byzfl
    cp -r "$package/aggregators" "$package/utils" build/gpu/run/python/byzfl/
    find build/gpu/run/python -name __pycache__ -prune -exec rm -r {} +
  done
  # The package for that machine's Python, which may be any from 3.12 on, and what tests it.
  if python=$(find_python python3.12 ~/.pyenv/versions/3.12*/bin/python3.12 /usr/local/bin/python3.12 /opt/python/3.12*/bin/python3.12); then
    # shellcheck disable=SC2016 # the loader's own variable
    "$python" -m pip install -q --disable-pip-version-check --target build/gpu/run/python \
      -C cmake.define.BRAGG_CUDA=ON -C 'cmake.define.CMAKE_INSTALL_RPATH=$ORIGIN' \
      -C cmake.define.CMAKE_MODULE_LINKER_FLAGS=-Wl,--disable-new-dtags . pytest
    cp -L build/gpu/run/lib{hwy,gomp,z}.so.1 build/gpu/run/libfmt.so.* build/gpu/run/python/bragg/
  else
    echo "gpu_check: no python3.12 here: the Python package will not be tested"
  fi
  git describe --always --dirty --abbrev=40 > build/gpu/run/commit
  # Every program has the kernels once more: with a window that is longer than a program, only the first counts.
  tar -C build/gpu -c run | xz --lzma2=preset=3,dict=192MiB > build/gpu/run.tar.xz
  du -sh build/gpu/run build/gpu/run.tar.xz
  exit 0
fi

if ! python=$(find_python python3 python3.12 /usr/bin/python3 /opt/conda/bin/python3 ~/.pyenv/versions/3.*/bin/python3); then
  echo "gpu_check: no python3 here, which runs the steps" >&2
  exit 1
fi
run=${BRAGG_GPU_RUN:-build/gpu/run}
# Anew where the archive is newer than what was unpacked, and whole or not at all.
archive=${BRAGG_GPU_ARCHIVE:-build/gpu/run.tar.xz}
if [[ ! -d $run && ! -f $archive ]]; then
  echo "gpu_check: $archive: not there; scripts/gpu_check.sh --build makes it, where nvcc is" >&2
  exit 1
fi
if [[ ! -d $run || ($run == build/gpu/run && $archive -nt $run/unpacked) ]]; then
  rm -rf build/gpu/unpacking $run
  mkdir -p build/gpu/unpacking
  tar -C build/gpu/unpacking -xf $archive 2> /dev/null || "$python" -m tarfile -e $archive build/gpu/unpacking || exit 1
  touch build/gpu/unpacking/run/unpacked
  mv build/gpu/unpacking/run $run
fi
exec "$python" bench/gpu/check.py "$@"
