// SPDX-License-Identifier: Apache-2.0
#include "host/bench/device_updates.hpp"

#include <thrust/execution_policy.h>
#include <thrust/tabulate.h>

#include "host/bench/noise.hpp"

namespace bragg::bench {
namespace {

template <DType dtype>
struct Value {
  int n;
  std::uint64_t d;

  BRAGG_HD Bits<dtype> operator()(std::uint64_t index) const {
    return bits_of<dtype>(deviation_of(static_cast<int>(index / d), n) * bell(index));
  }
};

template <DType dtype>
void fill(void* data, int n, std::int64_t d, detail::cuda::Stream stream) {
  auto* const values = static_cast<Bits<dtype>*>(data);
  thrust::tabulate(thrust::cuda::par_nosync.on(stream), values, values + n * d,
                   Value<dtype>{n, static_cast<std::uint64_t>(d)});
}

}  // namespace

void enqueue_updates(void* data, int n, std::int64_t d, DType dtype, detail::cuda::Stream stream) {
  switch (dtype) {
    case DType::f32:
      return fill<DType::f32>(data, n, d, stream);
    case DType::f64:
      return fill<DType::f64>(data, n, d, stream);
    case DType::f16:
      return fill<DType::f16>(data, n, d, stream);
    case DType::bf16:
      return fill<DType::bf16>(data, n, d, stream);
  }
}

}  // namespace bragg::bench
