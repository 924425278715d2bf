// SPDX-License-Identifier: Apache-2.0
// The Gram pass by itself, over rows in a device's memory.
#pragma once

#include <memory>
#include <vector>

#include "kernels/gram/gram.hpp"
#include "kernels/runtime/runtime.hpp"

namespace bragg::bench {

class DeviceProducts {
 public:
  /// Of n rows of d elements that lie one behind the other, by the thread's choice (wanted_gram_unit);
  /// `pairs` false: of each row with itself alone. Waits. @throws Error out_of_memory.
  DeviceProducts(const void* rows, int n, std::int64_t d, DType dtype, bool pairs,
                 detail::cuda::Stream stream);

  void enqueue(detail::cuda::Stream stream) const;
  /// [n²] of what was enqueued last; of no pairs 0. Waits.
  std::vector<double> take(detail::cuda::Stream stream) const;

 private:
  detail::cuda::GramArguments arguments_;
  detail::cuda::DeviceMemory table_, partial_, products_, library_memory_;
  std::unique_ptr<detail::cuda::Blas> blas_;
};

}  // namespace bragg::bench
