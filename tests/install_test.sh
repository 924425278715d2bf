#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs a finished build into an empty place, and uses bragg from there as a stranger would.
#   install_test.sh SOURCE BUILD
set -euo pipefail
source=$1
build=$2
cxx=${CXX:-c++}
cc=${CC:-cc}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/moved
cmake --install "$build" --prefix "$work/prefix" > /dev/null
mv "$work/prefix" "$prefix"  # nothing may point at where it was installed
lib=$(dirname "$(find "$prefix" -name 'libbragg.so')")

echo "== every public header compiles alone"
while read -r header; do
  "$cxx" -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I"$prefix/include" -x c++ - \
    <<< "#include <$header>"
done < <(cd "$prefix/include" && find bragg -name '*.hpp' ! -name mpi.hpp ! -name nccl.hpp -o -name '*.h')
"$cc" -std=c11 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I"$prefix/include" -x c - <<< '#include <bragg/bragg.h>'
if "$cc" -M -I"$prefix/include" -x c - <<< '#include <bragg/bragg.h>' | grep '\.hpp'; then
  echo "bragg.h includes a C++ header" >&2
  exit 1
fi

echo "== CMake package, shared and static"
cmake -G Ninja -S "$source/examples/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" > /dev/null
cmake --build "$work/consumer" > /dev/null
"$work/consumer/consumer"
"$work/consumer/consumer_static"

echo "== <bragg/mpi.hpp>, where MPI is"
if command -v mpicxx > /dev/null; then
  mkdir "$work/mpi"
  cat > "$work/mpi/CMakeLists.txt" << EOF
cmake_minimum_required(VERSION 3.25)
project(job LANGUAGES CXX)
find_package(bragg REQUIRED COMPONENTS mpi)
add_executable(job job.cpp)
target_link_libraries(job PRIVATE bragg::mpi)
EOF
  cp "$source/tests/mpi/mpi_test.cpp" "$work/mpi/job.cpp"
  cmake -G Ninja -S "$work/mpi" -B "$work/mpi/build" -DCMAKE_PREFIX_PATH="$prefix" > /dev/null
  cmake --build "$work/mpi/build" > /dev/null
  "$work/mpi/build/job"  # a job of one
fi

echo "== <bragg/nccl.hpp>, where NCCL is"
mkdir "$work/nccl"
cat > "$work/nccl/CMakeLists.txt" << EOF
cmake_minimum_required(VERSION 3.25)
project(job LANGUAGES CXX)
find_package(bragg REQUIRED OPTIONAL_COMPONENTS nccl)
if(bragg_nccl_FOUND)
  add_executable(job job.cpp)
  target_link_libraries(job PRIVATE bragg::nccl)
  target_compile_options(job PRIVATE -Wall -Wextra -Wpedantic -Werror)
endif()
EOF
cat > "$work/nccl/job.cpp" << EOF
#include <bragg/nccl.hpp>
#include <bragg/sharded.hpp>
#include <cstdio>
int main(int count, char**) {  // without a device there is nothing to run
  if (count > 1) bragg::nccl::Communicator ranks(ncclComm_t{});
  int version = 0;
  ncclGetVersion(&version);
  std::printf("NCCL %d\\n", version);
}
EOF
cmake -G Ninja -S "$work/nccl" -B "$work/nccl/build" -DCMAKE_PREFIX_PATH="$prefix" > /dev/null
cmake --build "$work/nccl/build" > /dev/null
if [[ -e $work/nccl/build/job ]]; then
  "$work/nccl/build/job"
fi

echo "== pkg-config"
cp -r "$source/examples/consumer" "$work/pkg-config"
export PKG_CONFIG_PATH=$lib/pkgconfig
make -C "$work/pkg-config" CXX="$cxx" > /dev/null
LD_LIBRARY_PATH="$lib" "$work/pkg-config/consumer"
static=$(pkg-config --cflags --static --libs bragg)
# shellcheck disable=SC2086  # the flags are words
"$cxx" -std=c++20 "$source/examples/consumer/main.cpp" -o "$work/static" ${static/-lbragg/-l:libbragg.a}
"$work/static"

echo "== without tools, as part of another project"
mkdir "$work/parent"
cat > "$work/parent/CMakeLists.txt" << EOF
cmake_minimum_required(VERSION 3.25)
project(parent LANGUAGES C CXX)
set(BRAGG_CUDA OFF)
add_subdirectory("$source" bragg)
add_executable(consumer "$source/examples/consumer/main.cpp")
target_link_libraries(consumer PRIVATE bragg::bragg_static)
EOF
cmake -G Ninja -S "$work/parent" -B "$work/parent/build" > /dev/null
# All that would be compiled: the library (and the consumer), no command, oracle, judge or measurement.
compiled=$(ninja -C "$work/parent/build" -t targets all | grep -o '^[^:]*\.o:' | grep -v '^CMakeFiles/consumer')
for folder in cli verify reference bench; do
  if grep "host/$folder/" <<< "$compiled"; then
    echo "a project that includes bragg compiles host/$folder" >&2
    exit 1
  fi
done
grep -q 'host/capi/capi' <<< "$compiled"

echo "== the command"
mkdir "$work/alone"
mv "$prefix/bin/bragg" "$work/alone"  # it has the library within
"$work/alone/bragg" rules > /dev/null
"$work/alone/bragg" verify --quick --device cpu --rule median > /dev/null
