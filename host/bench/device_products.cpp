// SPDX-License-Identifier: Apache-2.0
#include "host/bench/device_products.hpp"

#include "host/cuda/table.hpp"
#include "kernels/common/upload.hpp"

namespace bragg::bench {

namespace cuda = detail::cuda;

DeviceProducts::DeviceProducts(const void* rows, int n, std::int64_t d, DType dtype, bool pairs,
                               cuda::Stream stream) {
  cuda::RunTable table(1, n, 1);
  table.start(n);
  table.numbers()[0] = d;
  const auto row_bytes = static_cast<std::size_t>(d) * size_of(dtype);
  for (int i = 0; i < n; ++i) {
    table.set_row(0, i, static_cast<const std::byte*>(rows) + static_cast<std::size_t>(i) * row_bytes, dtype);
  }
  table_ = cuda::DeviceMemory(table.bytes());
  cuda::upload(table_.data(), table.data(), table.bytes(), stream);
  cuda::synchronize(stream);

  const std::int64_t length = cuda::gram_chunk_length(d);
  const cuda::Cut chunks{.tensors = 1, .pieces = (d + length - 1) / length, .length = length};
  partial_ = cuda::DeviceMemory(cuda::gram_partial_doubles(n, chunks.pieces, pairs) * sizeof(double));
  products_ = cuda::DeviceMemory(static_cast<std::size_t>(n) * static_cast<std::size_t>(n) * sizeof(double));
  arguments_ = {.rows = {.data = table.at().rows.in(table_.data()),
                         .sizes = table.at().numbers.in(table_.data()),
                         .alignment = table.at().alignment.in(table_.data()),
                         .tensors = 1,
                         .count = n,
                         .inputs = n,
                         .dtype = dtype},
                .chunks = chunks,
                .parts = {},
                .partial = static_cast<double*>(partial_.data()),
                .batch = cuda::gram_batch(n, chunks.pieces, pairs),
                .products = static_cast<double*>(products_.data()),
                .pairs = pairs,
                .unit = cuda::wanted_gram_unit()};
  if (arguments_.unit != cuda::GramUnit::cublas || !pairs) return;
  blas_ = std::make_unique<cuda::Blas>();
  library_memory_ = cuda::DeviceMemory(cuda::gram_library_bytes(n, *blas_));
}

void DeviceProducts::enqueue(cuda::Stream stream) const {
  cuda::gram(arguments_, stream, {.blas = blas_.get(), .memory = library_memory_.data()});
}

std::vector<double> DeviceProducts::take(cuda::Stream stream) const {
  std::vector<double> products(products_.bytes() / sizeof(double));
  cuda::copy_to_host(products.data(), products_.data(), products_.bytes(), stream);
  cuda::synchronize(stream);
  return products;
}

}  // namespace bragg::bench
