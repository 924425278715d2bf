# SPDX-License-Identifier: Apache-2.0
# Compile options shared by every target of this project; never exported.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
find_program(BRAGG_CCACHE ccache)
# What is compiled in one folder is not compiled again for another: paths count from the source's root, and debug
# information may name the first folder.
foreach(language CXX CUDA)
  if(BRAGG_CCACHE AND NOT CMAKE_${language}_COMPILER_LAUNCHER)
    set(CMAKE_${language}_COMPILER_LAUNCHER env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1 "${BRAGG_CCACHE}")
  endif()
endforeach()

add_library(bragg_options INTERFACE)
target_compile_features(bragg_options INTERFACE cxx_std_20)
# Results must be the same on every build: no contraction that the source does not ask for.
target_compile_options(bragg_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
                                               -ffp-contract=off
                                               # GCC 12 takes any sum of std::strings for overlapping memory (its bug 105651).
                                               $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(BRAGG_WERROR)
  target_compile_options(bragg_options INTERFACE -Werror)
endif()
if(BRAGG_SANITIZE)
  target_compile_options(bragg_options INTERFACE -fsanitize=${BRAGG_SANITIZE} -fno-sanitize-recover=all
                                                 -fno-omit-frame-pointer -g1
                                                 # Sanitizer branches make GCC 12 see unset variables in variants.
                                                 $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(bragg_options INTERFACE -fsanitize=${BRAGG_SANITIZE})
endif()
