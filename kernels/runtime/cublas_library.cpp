// SPDX-License-Identifier: Apache-2.0
// cuBLAS is opened when it is first asked for: it is half a gigabyte, which most who have bragg do not need.
#include <cublas_v2.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <bragg/error.hpp>

#include "kernels/runtime/blas.hpp"

namespace bragg::detail::cuda {

void* cublas_function(const char* name) {
  // Never closed: handles may outlive whoever asked first.
  static const std::string file = fmt::format("libcublas.so.{}", CUBLAS_VER_MAJOR);
  static void* const library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const address = library != nullptr ? ::dlsym(library, name) : nullptr;
  if (address == nullptr) {
    const char* const why = ::dlerror();
    throw Error(Status::unsupported,
                fmt::format("BRAGG_GRAM=cublas: {}: {}", library != nullptr ? name : file,
                            why != nullptr ? why : "it is not there"));
  }
  return address;
}

}  // namespace bragg::detail::cuda
