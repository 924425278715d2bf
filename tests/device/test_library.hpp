// SPDX-License-Identifier: Apache-2.0
// What products by cuBLAS take, for tests of the Gram pass.
#pragma once

#include <bragg/error.hpp>
#include <memory>

#include "kernels/gram/gram.hpp"
#include "kernels/runtime/runtime.hpp"

namespace bragg::test {

/// Whether cuBLAS can be called here: always on the executor.
inline bool has_library() {
  static const bool has = [] {
    try {
      detail::cuda::Blas();
      return true;
    } catch (const Error& error) {
      if (error.status() != Status::unsupported) throw;
      return false;
    }
  }();
  return has;
}

class TestLibrary {
 public:
  explicit TestLibrary(const detail::cuda::GramArguments& arguments) {
    using detail::cuda::GramUnit;
    const GramUnit unit =
        arguments.unit == GramUnit::automatic ? detail::cuda::wanted_gram_unit() : arguments.unit;
    if (unit != GramUnit::cublas) return;
    blas_ = std::make_unique<detail::cuda::Blas>();
    memory_ = detail::cuda::DeviceMemory(detail::cuda::gram_library_bytes(arguments.rows.count, *blas_));
  }
  detail::cuda::GramLibrary get() const { return {.blas = blas_.get(), .memory = memory_.data()}; }

 private:
  std::unique_ptr<detail::cuda::Blas> blas_;
  detail::cuda::DeviceMemory memory_;
};

}  // namespace bragg::test
