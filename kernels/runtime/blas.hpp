// SPDX-License-Identifier: Apache-2.0
// cuBLAS, as far as the Gram pass has a use for it.
#pragma once

#include <cstddef>
#include <set>
#include <string>

#include "kernels/runtime/stream.hpp"

struct cublasContext;

namespace bragg::detail::cuda {

/// For every k < count: products[k] = rows[k] · rows[k]ᵀ, both triangles, in f64. `rows` are
/// [count][n][depth], `products` [count][n][n], one behind the other.
struct BatchedProducts {
  const double* rows = nullptr;
  int n = 0;
  int depth = 0;
  int count = 0;
  double* products = nullptr;
  void* workspace = nullptr;  ///< Blas::workspace_bytes, at a multiple of 256
};

/// A handle of cuBLAS on the device that was current when it was made. Serves one thread at a time.
class Blas {
 public:
  /// @throws Error unsupported: bragg was built without cuBLAS, its library is not there or another release
  /// than the headers, or CUBLAS_EMULATE_DOUBLE_PRECISION asks for products of another precision; as
  /// BRAGG_CUDA_CHECK.
  Blas();
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  /// 32 MiB for 9.0, 4 MiB for others, as NVIDIA advises.
  std::size_t workspace_bytes() const noexcept { return workspace_bytes_; }

  /// Loads what products of a shape take, by making one of zeros in memory of its own; the first call for a
  /// number of rows does so. Waits. @throws Error out_of_memory.
  void make_ready(const BatchedProducts& shape);

  /// Enqueues; can be captured. Of one shape and one device the same bits each time, since cuBLAS uses
  /// nothing but the workspace. In which order products of a pair are added is cuBLAS' affair, and not alike
  /// for all pairs.
  void enqueue(const BatchedProducts& batch, Stream stream) const;

  /// "13.1.0", of the library that was loaded.
  static std::string version();

 private:
  cublasContext* handle_ = nullptr;
  std::size_t workspace_bytes_ = 0;
  std::set<int> ready_;  // numbers of rows
};

/// The release whose headers bragg was built with, "13.1"; empty: without.
std::string cublas_of_build();

/// An address in cuBLAS' library. @throws Error unsupported: there is no library, or no such function in it.
void* cublas_function(const char* name);

}  // namespace bragg::detail::cuda
