// SPDX-License-Identifier: Apache-2.0
#include "host/bench/ceilings.hpp"

#include "kernels/common/registers.cuh"

namespace bragg::bench {
namespace {

namespace simt = detail::simt;
using detail::cuda::Register;

constexpr int threads = 256;
constexpr int blocks_a_processor = 4;

int processors() {
  int device = 0;
  int count = 0;
  BRAGG_CUDA_CHECK(cudaGetDevice(&device));
  BRAGG_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

// Units -------------------------------------------------------------------------------------------------
// Each has registers that start from `seed`, a step, the operations of a lane in it, and bits that depend on
// all of them.

template <class T>
struct MultiplyAdds {
  static constexpr int chains = 8;
  static constexpr double operations = 4 * chains;
  T v[chains];
  T factor, term;

  BRAGG_DEVICE explicit MultiplyAdds(unsigned seed)
      : factor(T{1} / static_cast<T>(seed + 1)), term(static_cast<T>(seed)) {
    BRAGG_UNROLL
    for (int i = 0; i < chains; ++i) v[i] = static_cast<T>(i);
  }
  BRAGG_DEVICE void step() {
    BRAGG_UNROLL
    for (int k = 0; k < 4 * chains; ++k) v[k % chains] = simt::fma(v[k % chains], factor, term);
  }
  BRAGG_DEVICE std::uint32_t bits() const {
    T sum = 0;
    BRAGG_UNROLL
    for (int i = 0; i < chains; ++i) sum += v[i];
    return static_cast<std::uint32_t>(simt::bits_of(sum));
  }
};

struct TensorCores {
  static constexpr int chains = 4;
  static constexpr double operations = 4 * chains * (16 * 8 * 16 / 32);
  double c[chains][4] = {};
  double a[8], b[4];

  BRAGG_DEVICE explicit TensorCores(unsigned seed) {
    BRAGG_UNROLL
    for (int i = 0; i < 8; ++i) a[i] = static_cast<double>(seed + static_cast<unsigned>(i));
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) b[i] = a[i + 4];
  }
  BRAGG_DEVICE void step() {
    BRAGG_UNROLL
    for (int k = 0; k < 4 * chains; ++k) simt::mma_16x8x16(c[k % chains], a, b);
  }
  BRAGG_DEVICE std::uint32_t bits() const {
    double sum = 0;
    BRAGG_UNROLL
    for (int k = 0; k < chains; ++k) sum += c[k][0] + c[k][1] + c[k][2] + c[k][3];
    return static_cast<std::uint32_t>(simt::bits_of(sum));
  }
};

struct TensorCoresOfBytes {
  static constexpr int chains = 8;
  static constexpr double operations = 4 * chains * (16 * 8 * 32 / 32);
  int c[chains][4] = {};
  std::uint32_t a[4], b[2];

  BRAGG_DEVICE explicit TensorCoresOfBytes(unsigned seed) {
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = seed + static_cast<unsigned>(i);
    BRAGG_UNROLL
    for (int i = 0; i < 2; ++i) b[i] = a[i + 2];
  }
  BRAGG_DEVICE void step() {
    BRAGG_UNROLL
    for (int k = 0; k < 4 * chains; ++k) simt::mma_16x8x32(c[k % chains], a, b);
  }
  BRAGG_DEVICE std::uint32_t bits() const {
    std::uint32_t all = 0;
    BRAGG_UNROLL
    for (int k = 0; k < chains; ++k) all ^= static_cast<std::uint32_t>(c[k][0] ^ c[k][1] ^ c[k][2] ^ c[k][3]);
    return all;
  }
};

/// Comparators of neighbours, as a network has them: of even pairs, then of odd ones.
template <DType dtype>
struct Comparators {
  using R = Register<dtype>;
  static constexpr int registers = 16;
  static constexpr double operations = 2.0 * (registers - 1) * R::width;
  typename R::Type v[registers];

  BRAGG_DEVICE explicit Comparators(unsigned seed) {
    BRAGG_UNROLL
    for (int i = 0; i < registers; ++i)
      v[i] = R::of((seed + static_cast<unsigned>(simt::thread())) *
                       (2654435761u + 2u * static_cast<unsigned>(i)) >>
                   3);
  }
  BRAGG_DEVICE void step() {
    BRAGG_UNROLL
    for (int k = 0; k < registers - 1; ++k) {
      const int low = k < registers / 2 ? 2 * k : 2 * k - registers + 1;
      const auto a = v[low];
      const auto b = v[low + 1];
      v[low] = R::least(a, b);
      v[low + 1] = R::greatest(a, b);
    }
  }
  BRAGG_DEVICE std::uint32_t bits() const {
    std::uint32_t all = 0;
    BRAGG_UNROLL
    for (int i = 0; i < registers; ++i) all ^= static_cast<std::uint32_t>(R::bits(v[i]));
    return all;
  }
};

/// The upper half of a converted value is the next one.
struct Conversions {
  static constexpr int chains = 8;
  static constexpr double operations = 4 * chains;
  std::uint32_t v[chains];

  BRAGG_DEVICE explicit Conversions(unsigned seed) {
    BRAGG_UNROLL
    for (int i = 0; i < chains; ++i) v[i] = seed + static_cast<unsigned>(i);
  }
  BRAGG_DEVICE void step() {
    BRAGG_UNROLL
    for (int k = 0; k < 4 * chains; ++k) {
      const auto wide = static_cast<double>(simt::float_of(v[k % chains]));
      v[k % chains] = static_cast<std::uint32_t>(simt::bits_of(wide) >> 32);
    }
  }
  BRAGG_DEVICE std::uint32_t bits() const {
    std::uint32_t all = 0;
    BRAGG_UNROLL
    for (int i = 0; i < chains; ++i) all ^= v[i];
    return all;
  }
};

template <class UnitT>
BRAGG_KERNEL(threads, blocks_a_processor)
run_unit(int steps, unsigned seed, std::uint32_t* sink) {
  UnitT unit(seed);
  for (int k = 0; k < steps; ++k) unit.step();
  // There are no fewer steps than 0, but the compiler does not know: nothing is written or left out.
  if (steps < 0) *sink = unit.bits();
}

template <class UnitT>
double enqueue(int steps, std::uint32_t* sink, DeviceStream stream) {
  const int blocks = blocks_a_processor * processors();
  simt::launch(run_unit<UnitT>, blocks, 1, threads, 0, stream, steps, 1u, sink);
  return UnitT::operations * steps * threads * blocks;
}

// Memory ------------------------------------------------------------------------------------------------

/// use(p, v) of every 16 bytes, `loads` of a thread's under way at a time.
template <int loads, class UseT>
BRAGG_DEVICE void for_all(const uint4* from, std::size_t count, const UseT& use) {
  const std::size_t stride = static_cast<std::size_t>(simt::blocks()) * threads * loads;
  std::size_t at =
      static_cast<std::size_t>(simt::block()) * threads * loads + static_cast<std::size_t>(simt::thread());
  for (; at < count; at += stride) {
    uint4 v[loads];
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const std::size_t k = at + static_cast<std::size_t>(l * threads);
      v[l] = k < count ? simt::load16(from + k) : uint4{0, 0, 0, 0};
    }
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const std::size_t k = at + static_cast<std::size_t>(l * threads);
      if (k < count) use(k, v[l]);
    }
  }
}

template <int loads>
BRAGG_KERNEL(threads, 4)
read_all(const uint4* from, std::size_t count, std::uint32_t* sink) {
  std::uint32_t all = 0;
  for_all<loads>(from, count, [&](std::size_t, uint4 v) { all ^= v.x ^ v.y ^ v.z ^ v.w; });
  if (count == 0) *sink = all;  // never; see run_unit
}

template <int loads>
BRAGG_KERNEL(threads, 4)
copy_all(uint4* to, const uint4* from, std::size_t count) {
  for_all<loads>(from, count, [&](std::size_t k, uint4 v) { simt::store16(to + k, v); });
}

BRAGG_KERNEL(32, 1) nothing() {}

/// kernel<loads> of those that are compiled.
template <class F>
void with_loads(int loads, F f) {
  if (loads <= 2) {
    f(std::integral_constant<int, 2>());
  } else if (loads <= 4) {
    f(std::integral_constant<int, 4>());
  } else {
    f(std::integral_constant<int, 8>());
  }
}

}  // namespace

double enqueue_unit(DeviceUnit unit, int steps, std::uint32_t* sink, DeviceStream stream) {
  switch (unit) {
    case DeviceUnit::fma_f32:
      return enqueue<MultiplyAdds<float>>(steps, sink, stream);
    case DeviceUnit::fma_f64:
      return enqueue<MultiplyAdds<double>>(steps, sink, stream);
    case DeviceUnit::fma_f64_mma:
      return enqueue<TensorCores>(steps, sink, stream);
    case DeviceUnit::fma_int8_mma:
      return enqueue<TensorCoresOfBytes>(steps, sink, stream);
    case DeviceUnit::min_max_f32:
      return enqueue<Comparators<DType::f32>>(steps, sink, stream);
    case DeviceUnit::min_max_f64:
      return enqueue<Comparators<DType::f64>>(steps, sink, stream);
    case DeviceUnit::min_max_f16:
      return enqueue<Comparators<DType::f16>>(steps, sink, stream);
    case DeviceUnit::min_max_bf16:
      return enqueue<Comparators<DType::bf16>>(steps, sink, stream);
    case DeviceUnit::to_f64:
      return enqueue<Conversions>(steps, sink, stream);
  }
  return 0;
}

void enqueue_read(const void* data, std::size_t bytes, int loads, std::uint32_t* sink, DeviceStream stream) {
  with_loads(loads, [&](auto count) {
    const auto kernel = read_all<decltype(count)::value>;
    simt::launch(kernel, simt::resident_blocks(kernel, threads, 0), 1, threads, 0, stream,
                 static_cast<const uint4*>(data), bytes / 16, sink);
  });
}

void enqueue_copy(void* to, const void* from, std::size_t bytes, int loads, DeviceStream stream) {
  with_loads(loads, [&](auto count) {
    const auto kernel = copy_all<decltype(count)::value>;
    simt::launch(kernel, simt::resident_blocks(kernel, threads, 0), 1, threads, 0, stream,
                 static_cast<uint4*>(to), static_cast<const uint4*>(from), bytes / 16);
  });
}

void enqueue_nothing(DeviceStream stream) { simt::launch(nothing, 1, 1, 32, 0, stream); }

}  // namespace bragg::bench
