// SPDX-License-Identifier: Apache-2.0
// Each pass by itself on the current device, and beside what kernels/common/tuning.hpp chooses, what else it
// might choose: so that one run on hardware tells what to change there. No two results may differ but where
// sums are added in another order, or by another unit. Medians and trimmed means are held against a sort of
// the CUDA Toolkit's too, whole: a peer, which shares no code of the selection, and is no choice of ours.
//
//   variants [SECONDS]     seconds for each timing (0.05); prints a line of JSON for each, once it is there
//   variants --once NAME   a single launch, for a profiler: gram-N, median-N, mix-N of N rows, or steps
//
// What fails is a line with its `failure`, and the rest goes on. The exit status is 1 where something failed
// or a result differs.
#include <thrust/equal.h>
#include <thrust/execution_policy.h>
#include <bragg/error.hpp>
#include <bragg/plan.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/gpu/cub_sort.hpp"
#include "bench/gpu/sorted.hpp"
#include "kernels/combine/combine.cuh"
#include "kernels/common/sum_unit.hpp"
#include "kernels/gram/chunks.cuh"
#include "kernels/gram/gram.hpp"
#include "kernels/runtime/runtime.hpp"
#include "kernels/select/direct.cuh"
#include "kernels/select/tile.cuh"

namespace bragg::detail::cuda {
namespace {

/// Numbers of either sign, all different.
BRAGG_KERNEL(256, 4)
fill_random(std::uint32_t* words, std::size_t count, bool halves) {
  const std::size_t stride = static_cast<std::size_t>(simt::blocks()) * 256;
  for (std::size_t i =
           static_cast<std::size_t>(simt::block()) * 256 + static_cast<std::size_t>(simt::thread());
       i < count; i += stride) {
    std::uint64_t h = (i + 1) * 0x9E3779B97F4A7C15ull;
    h = (h ^ h >> 31) * 0xBF58476D1CE4E5B9ull;
    const auto bits = static_cast<std::uint32_t>(h >> 32);
    // Exponents of f32 (bf16) from 2^-4 to 2^-1: the sign and the last bits of the hash.
    words[i] = halves ? (bits & 0x81FF81FFu) | 0x3D803D80u : (bits & 0x81FFFFFFu) | 0x3D800000u;
  }
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

class Watch {
 public:
  explicit Watch(double seconds) : seconds_(seconds) {
    BRAGG_CUDA_CHECK(cudaEventCreate(&start_));
    BRAGG_CUDA_CHECK(cudaEventCreate(&stop_));
  }
  ~Watch() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  Stream stream() const { return stream_.get(); }

  /// Median of a call's milliseconds, after three to warm up.
  template <class EnqueueT>
  double ms(const EnqueueT& enqueue) {
    std::vector<double> times;
    double total = 0;
    for (int k = 0; k < 8 || (total < 1e3 * seconds_ && k < 1000); ++k) {
      BRAGG_CUDA_CHECK(cudaEventRecord(start_, stream()));
      enqueue();
      BRAGG_CUDA_CHECK(cudaEventRecord(stop_, stream()));
      BRAGG_CUDA_CHECK(cudaEventSynchronize(stop_));
      float ms = 0;
      BRAGG_CUDA_CHECK(cudaEventElapsedTime(&ms, start_, stop_));
      total += ms;
      if (k >= 3) times.push_back(ms);
    }
    return median(std::move(times));
  }

 private:
  double seconds_;
  OwnStream stream_;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

template <class T>
std::vector<T> to_host(const DeviceMemory& memory, std::size_t count, Stream stream) {
  std::vector<T> values(count);
  copy_to_host(values.data(), memory.data(), count * sizeof(T), stream);
  synchronize(stream);
  return values;
}

template <class T>
DeviceMemory to_device(const std::vector<T>& values, Stream stream) {
  DeviceMemory memory(values.size() * sizeof(T));
  copy_to_device(memory.data(), values.data(), values.size() * sizeof(T), stream);
  synchronize(stream);
  return memory;
}

/// Elements of a tensor, in each of n rows.
struct Shape {
  int n;
  std::int64_t d;
  DType dtype;
};

/// Rows of a shape, aligned.
struct Matrix {
  int n;
  std::int64_t d;
  DType dtype;
  std::size_t row_bytes;
  DeviceMemory data, out;
  DeviceMemory addresses, sizes, alignment, target;

  Matrix(int n_in, std::int64_t d_in, DType dtype_in, Stream stream)
      : n(n_in),
        d(d_in),
        dtype(dtype_in),
        row_bytes(static_cast<std::size_t>(d) * size_of(dtype)),
        data(row_bytes * static_cast<std::size_t>(n)),
        out(row_bytes) {
    simt::launch(fill_random, 1024, 1, 256, 0, stream, static_cast<std::uint32_t*>(data.data()),
                 data.bytes() / 4, size_of(dtype) == 2);
    std::vector<const void*> rows;
    for (int i = 0; i < n; ++i) {
      rows.push_back(static_cast<const unsigned char*>(data.data()) +
                     static_cast<std::size_t>(i) * row_bytes);
    }
    addresses = to_device(rows, stream);
    sizes = to_device(std::vector<std::int64_t>{d}, stream);
    alignment = to_device(std::vector<std::uint8_t>{static_cast<std::uint8_t>(Alignment::vector)}, stream);
    target = to_device(std::vector<void*>{out.data()}, stream);
  }

  Rows rows() const {
    return {.data = static_cast<const void* const*>(addresses.data()),
            .sizes = static_cast<const std::int64_t*>(sizes.data()),
            .alignment = static_cast<const std::uint8_t*>(alignment.data()),
            .tensors = 1,
            .count = n,
            .inputs = n,
            .dtype = dtype};
  }
  Shape shape() const { return {n, d, dtype}; }
  Cut cut(std::int64_t length) const {
    return {.tensors = 1, .pieces = (d + length - 1) / length, .length = length};
  }
  Target to() const { return {.data = static_cast<void* const*>(target.data()), .dtype = dtype}; }
  double bytes() const { return static_cast<double>(data.bytes()); }
};

/// What is measured: a pass on a shape, with a tuning, which is chosen or not; or what others have for it.
struct Variant {
  const char* pass;
  Shape shape;
  std::string name;
  bool chosen;
  bool peer = false;
};

struct Found {
  double ms;
  double bytes;                        ///< that are moved
  std::optional<double> difference;    ///< the largest to what is chosen, relative to the largest result
  double allowed = 1e-12;              ///< of it: the order of additions may differ, nothing else
  std::optional<double> sort_ms = {};  ///< of a peer, its sort's part
};

int complaints = 0;  // failures, and results that differ

std::string quoted(const char* text) {
  std::string out = "\"";
  for (; *text != 0; ++text) {
    if (*text == '"' || *text == '\\') out += '\\';
    out += static_cast<unsigned char>(*text) < 0x20 ? ' ' : *text;
  }
  return out + '"';
}

/// Prints the line of a variant: what `find` returns, or how it fails.
template <class FindT>
void measure(const Variant& variant, const FindT& find) {
  std::printf(
      "{\"pass\": %s, \"n\": %d, \"d\": %lld, \"dtype\": \"%s\", \"variant\": %s, \"chosen\": %s, "
      "\"peer\": %s, ",
      quoted(variant.pass).c_str(), variant.shape.n, static_cast<long long>(variant.shape.d),
      to_string(variant.shape.dtype), quoted(variant.name.c_str()).c_str(), variant.chosen ? "true" : "false",
      variant.peer ? "true" : "false");
  try {
    const Found found = find();
    const bool agrees = !found.difference || *found.difference <= found.allowed;
    if (!agrees) ++complaints;
    std::printf("\"ms\": %.6f, \"gb_per_s\": %.1f, \"agrees\": %s", found.ms, found.bytes / found.ms / 1e6,
                !found.difference ? "null"
                : agrees          ? "true"
                                  : "false");
    if (found.difference && std::isfinite(*found.difference)) {
      std::printf(", \"difference\": %.3g", *found.difference);
    }
    if (found.sort_ms) std::printf(", \"sort_ms\": %.6f", *found.sort_ms);
  } catch (const std::exception& error) {
    ++complaints;
    cudaGetLastError();  // what is not for good must not be the next one's
    std::printf("\"failure\": %s", quoted(error.what()).c_str());
  }
  std::printf("}\n");
  std::fflush(stdout);
}

/// All variants of a pass on a shape; a line, where not even their data can be made.
template <class CallT>
void group(const char* pass, const Shape& shape, const CallT& call) {
  try {
    call();
  } catch (const std::exception& error) {
    const std::string why = error.what();
    measure({pass, shape, "all", false}, [&]() -> Found { throw Error(Status::internal, why); });
  }
}

/// The output of what is chosen, on the device, where others are held against it bit by bit.
class Expected {
 public:
  /// Nothing, where what is chosen has failed.
  std::optional<double> difference(const Matrix& m, bool chosen, Stream stream) {
    const auto* const found = static_cast<const std::uint32_t*>(m.out.data());
    const auto words = static_cast<std::ptrdiff_t>(m.row_bytes / 4);
    if (chosen) {
      memory_ = DeviceMemory(m.row_bytes);
      BRAGG_CUDA_CHECK(cudaMemcpyAsync(memory_.data(), found, m.row_bytes, cudaMemcpyDeviceToDevice, stream));
      return 0.0;
    }
    if (memory_.data() == nullptr) return std::nullopt;
    const auto* const expected = static_cast<const std::uint32_t*>(memory_.data());
    return thrust::equal(thrust::cuda::par.on(stream), found, found + words, expected) ? 0.0 : INFINITY;
  }

 private:
  DeviceMemory memory_;
};

template <int kThreads, int kVectors, int kBlocks>
struct Direct3 {
  static constexpr int threads = kThreads;
  static constexpr int vectors = kVectors;
  static constexpr int blocks = kBlocks;
};

/// The median of exactly kPoints rows: as chosen, and with other tunings.
template <DType dtype, int kPoints, class... VariantsT>
void time_direct(std::int64_t d, Watch& watch) {
  const Matrix m(kPoints, d, dtype, watch.stream());
  const DeviceMemory counts(sizeof(unsigned long long) * kPoints);
  set_bytes(counts.data(), 0, counts.bytes(), watch.stream());
  const SelectArguments arguments{.rows = m.rows(),
                                  .tiles = m.cut(tile_length),
                                  .parts = {},
                                  .out = m.to(),
                                  .gate = {},
                                  .rule = {.kind = SelectRule::Kind::median},
                                  .points = kPoints,
                                  .nonfinite = static_cast<unsigned long long*>(counts.data())};
  Expected expected;
  const auto time = [&]<class TuningT>(TuningT, bool chosen) {
    char name[80];
    std::snprintf(name, sizeof(name), "threads %d, vectors %d, blocks %d", TuningT::threads, TuningT::vectors,
                  TuningT::blocks);
    measure({"select median", m.shape(), name, chosen}, [&]() -> Found {
      set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
      const double ms =
          watch.ms([&] { launch_direct_bucket<dtype, kPoints, true, TuningT>(arguments, watch.stream()); });
      return {ms, m.bytes() * (kPoints + 1) / kPoints, expected.difference(m, chosen, watch.stream())};
    });
  };
  time(DirectTuning<dtype, kPoints>(), true);
  (time(VariantsT(), false), ...);
}

/// As nnm(f = n/5) mixes: each point the mean of n − f rows.
DeviceMemory neighbor_means(int n, const Watch& watch) {
  const int kept = n - n / 5;
  std::vector<double> mix(static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
  for (int p = 0; p < n; ++p) {
    for (int k = 0; k < kept; ++k) {
      mix[static_cast<std::size_t>(p) * static_cast<std::size_t>(n) + static_cast<std::size_t>((p + k) % n)] =
          1.0 / kept;
    }
  }
  return to_device(mix, watch.stream());
}

template <bool kAhead, int kBlocks>
struct Tile2 {
  static constexpr bool ahead = kAhead;
  static constexpr int blocks = kBlocks;
};

/// A trimmed mean of exactly kPoints means of as many rows: as chosen, and with other tunings.
template <int kPoints, class... VariantsT>
void time_mixes(std::int64_t d, Watch& watch) {
  const Matrix m(kPoints, d, DType::f32, watch.stream());
  const DeviceMemory mix = neighbor_means(kPoints, watch);
  const SelectArguments arguments{.rows = m.rows(),
                                  .tiles = m.cut(tile_length),
                                  .parts = {},
                                  .out = m.to(),
                                  .gate = {},
                                  .rule = {.kind = SelectRule::Kind::trimmed_mean, .f = kPoints / 5},
                                  .points = kPoints,
                                  .mix = static_cast<const double*>(mix.data())};
  Expected expected;
  const auto time = [&]<class TuningT>(TuningT, bool chosen) {
    char name[80];
    std::snprintf(name, sizeof(name), "%s, blocks %d", TuningT::ahead ? "ahead" : "not ahead",
                  TuningT::blocks);
    measure({"mix+select trimmed_mean", m.shape(), name, chosen}, [&]() -> Found {
      set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
      const double ms =
          watch.ms([&] { launch_tile_bucket<DType::f32, kPoints, TuningT>(arguments, watch.stream()); });
      return {ms, m.bytes() * (kPoints + 1) / kPoints, expected.difference(m, chosen, watch.stream())};
    });
  };
  time(TileTuning<DType::f32, kPoints>(), true);
  (time(VariantsT(), false), ...);
}

/// The largest difference, relative to the largest that is expected; NaN counts. Nothing, where what is
/// chosen has failed.
std::optional<double> difference_of(const std::vector<double>& found, const std::vector<double>& expected) {
  if (expected.empty()) return std::nullopt;
  double largest = 0;
  double difference = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    if (!(std::abs(found[i] - expected[i]) <= difference)) difference = std::abs(found[i] - expected[i]);
  }
  return difference / largest;
}

/// The same of n means, added up in f64 and in pairs of floats. Values, and then their means, are rounded to
/// f32.
void time_mixes_by_unit(int n, std::int64_t d, DType dtype, Watch& watch) {
  const Matrix m(n, d, dtype, watch.stream());
  const DeviceMemory mix = neighbor_means(n, watch);
  const SumUnit chosen = sum_unit(current_device());
  const SumUnit other = chosen == SumUnit::f64 ? SumUnit::double_float : SumUnit::f64;
  std::vector<double> expected;
  for (const SumUnit unit : {chosen, other}) {
    measure({"mix+select trimmed_mean by unit", m.shape(), to_string(unit), unit == chosen}, [&]() -> Found {
      const DeviceMemory out(static_cast<std::size_t>(d) * sizeof(float));
      const DeviceMemory target = to_device(std::vector<void*>{out.data()}, watch.stream());
      set_bytes(out.data(), 0xFF, out.bytes(), watch.stream());
      const SelectArguments arguments{
          .rows = m.rows(),
          .tiles = m.cut(tile_length),
          .parts = {},
          .out = {.data = static_cast<void* const*>(target.data()), .dtype = DType::f32},
          .gate = {},
          .rule = {.kind = SelectRule::Kind::trimmed_mean, .f = n / 5},
          .points = n,
          .mix = static_cast<const double*>(mix.data()),
          .unit = unit};
      const double ms = watch.ms([&] { select(arguments, watch.stream()); });
      const auto values = to_host<float>(out, static_cast<std::size_t>(d), watch.stream());
      const std::vector<double> found(values.begin(), values.end());
      if (unit == chosen) expected = found;
      return {ms, m.bytes() * (n + 1) / n, difference_of(found, expected), 0x1p-22};
    });
  }
}

template <int kWarps, int kBlocks>
struct Fragment2 {
  static constexpr int warps = kWarps;
  static constexpr int blocks = kBlocks;
  static constexpr int centered_blocks = kBlocks;
};

/// Sums of the chunks' first `count` products of `stride`.
std::vector<double> sums_of(const DeviceMemory& partial, std::int64_t chunks, std::int64_t stride,
                            std::int64_t count, Stream stream) {
  const auto values = to_host<double>(partial, static_cast<std::size_t>(chunks * stride), stream);
  std::vector<double> sums(static_cast<std::size_t>(count));
  for (std::size_t k = 0; k < values.size(); ++k) {
    const std::size_t product = k % static_cast<std::size_t>(stride);
    if (product < sums.size()) sums[product] += values[k];
  }
  return sums;
}

/// Products of 8 · octets rows: other lengths of a chunk, and other shapes of a block.
template <int octets, class... VariantsT>
void time_fragments(std::int64_t d, Watch& watch) {
  const Matrix m(8 * octets, d, DType::f32, watch.stream());
  const DeviceMemory products(static_cast<std::size_t>(m.n) * static_cast<std::size_t>(m.n) * sizeof(double));
  std::vector<double> expected;
  const auto time = [&](const char* what, const char* name, std::int64_t length, bool chosen,
                        const auto& enqueue) {
    measure({what, m.shape(), name, chosen}, [&]() -> Found {
      const Cut cut = m.cut(length);
      const DeviceMemory partial(gram_partial_doubles(m.n, cut.pieces) * sizeof(double));
      set_bytes(partial.data(), 0xFF, partial.bytes(), watch.stream());
      const GramArguments arguments{.rows = m.rows(),
                                    .chunks = cut,
                                    .parts = {},
                                    .partial = static_cast<double*>(partial.data()),
                                    .batch = gram_batch(m.n, cut.pieces),
                                    .products = static_cast<double*>(products.data())};
      const double ms = watch.ms([&] { enqueue(arguments); });
      const auto found = sums_of(partial, cut.pieces, triangle(m.n), triangle(m.n), watch.stream());
      if (expected.empty() && chosen) expected = found;
      return {ms, m.bytes(), difference_of(found, expected)};
    });
  };
  const std::int64_t chosen = gram_chunk_length(d);
  for (const std::int64_t length : {chosen, chosen / 8, chosen / 4, chosen / 2, 2 * chosen}) {
    if (length < least_gram_chunk) continue;
    char name[80];
    std::snprintf(name, sizeof(name), "chunks of %lld", static_cast<long long>(length));
    time("gram", name, length, length == chosen,
         [&](const GramArguments& arguments) { gram(arguments, watch.stream()); });
  }
  const auto shape = [&]<class TuningT>(TuningT, bool is_chosen) {
    char name[80];
    std::snprintf(name, sizeof(name), "warps %d, blocks %d", TuningT::warps, TuningT::blocks);
    time("gram, before sums", name, chosen, is_chosen, [&](const GramArguments& arguments) {
      const GramBatch batch{arguments, 0, static_cast<int>(arguments.chunks.pieces), m.n};
      simt::launch(gram_fragments<DType::f32, octets, false, TuningT>, batch.chunks, 1, 32 * TuningT::warps,
                   0, watch.stream(), batch);
    });
  };
  shape(FragmentTuning<DType::f32, octets>(), true);
  (shape(VariantsT(), false), ...);
}

/// A Gram pass by some units, the first of which is chosen; cuBLAS where it is there.
void time_units(const char* pass, const Shape& shape, const std::vector<GramUnit>& units, bool pairs,
                Center center, Watch& watch) {
  const Matrix m(shape.n, shape.d, shape.dtype, watch.stream());
  const Cut cut = m.cut(gram_chunk_length(shape.d));
  const auto count = static_cast<std::size_t>(m.n) * static_cast<std::size_t>(m.n);
  const DeviceMemory products(count * sizeof(double));
  const DeviceMemory partial(gram_partial_doubles(m.n, cut.pieces, pairs) * sizeof(double));
  std::vector<double> expected;
  for (const GramUnit unit : units) {
    std::unique_ptr<Blas> blas;
    try {
      if (unit == GramUnit::cublas) blas = std::make_unique<Blas>();
    } catch (const Error& error) {
      if (error.status() != Status::unsupported) throw;
      continue;
    }
    measure({pass, shape, to_string(unit), unit == units.front()}, [&]() -> Found {
      const DeviceMemory memory(blas ? gram_library_bytes(m.n, *blas) : 0);
      const DeviceMemory centers(center == Center::median ? gram_center_bytes(m.rows(), cut, pairs, unit)
                                                          : 0);
      set_bytes(products.data(), pairs ? 0xFF : 0, products.bytes(), watch.stream());
      const double ms = watch.ms([&] {
        gram({.rows = m.rows(),
              .chunks = cut,
              .parts = {},
              .partial = static_cast<double*>(partial.data()),
              .batch = gram_batch(m.n, cut.pieces, pairs),
              .products = static_cast<double*>(products.data()),
              .pairs = pairs,
              .center = center,
              .centers = centers.data(),
              .unit = unit},
             watch.stream(), {.blas = blas.get(), .memory = memory.data()});
      });
      const auto found = to_host<double>(products, count, watch.stream());
      if (unit == units.front()) expected = found;
      return {ms, m.bytes(), difference_of(found, expected)};
    });
  }
}

/// Products by every unit: that of the device, then the others.
void time_all_units(const char* pass, const Shape& shape, Watch& watch) {
  std::vector<GramUnit> units{gram_unit(current_device(), shape.n)};
  for (const NamedGramUnit& one : named_gram_units) {
    if (one.unit != units.front()) units.push_back(one.unit);
  }
  time_units(pass, shape, units, true, Center::none, watch);
}

/// f64 and what takes its place where it is slow, that of the device first.
std::vector<GramUnit> both(GramUnit chosen, GramUnit instead) {
  return {chosen, chosen == GramUnit::tensor ? instead : GramUnit::tensor};
}

/// Products about the median in f64 and in bytes.
void time_units_about_medians(const char* pass, const Shape& shape, Watch& watch) {
  const GramUnit chosen = unit_about_center(gram_unit(current_device(), shape.n));
  time_units(pass, shape, both(chosen, GramUnit::int8), true, Center::median, watch);
}

/// Lengths alone in f64 and in pairs of floats.
void time_length_units(const char* pass, const Shape& shape, Watch& watch) {
  const GramUnit chosen = unit_of_lengths(gram_unit(current_device(), shape.n), shape.dtype);
  time_units(pass, shape, both(chosen, GramUnit::double_float), false, Center::none, watch);
}

template <int kWarps, int kRows, int kBlocks>
struct Lengths3 {
  static constexpr int warps = kWarps;
  static constexpr int rows = kRows;
  static constexpr int blocks = kBlocks;
  static constexpr int centered_blocks = kBlocks;
};

/// Squares of n rows before chunks are summed: as chosen, and with other tunings.
template <DType dtype, class... VariantsT>
void time_lengths(int n, std::int64_t d, Watch& watch) {
  const Matrix m(n, d, dtype, watch.stream());
  const Cut chunks = m.cut(gram_chunk_length(d));
  const DeviceMemory partial(gram_partial_doubles(n, chunks.pieces, false) * sizeof(double));
  const GramArguments arguments{.rows = m.rows(),
                                .chunks = chunks,
                                .parts = {},
                                .partial = static_cast<double*>(partial.data()),
                                .pairs = false};
  const GramBatch batch{arguments, 0, static_cast<int>(chunks.pieces), n};
  std::vector<double> expected;
  const auto time = [&]<class TuningT>(TuningT, bool chosen) {
    char name[80];
    std::snprintf(name, sizeof(name), "warps %d, rows %d, blocks %d", TuningT::warps, TuningT::rows,
                  TuningT::blocks);
    measure({"gram lengths, before sums", m.shape(), name, chosen}, [&]() -> Found {
      set_bytes(partial.data(), 0xFF, partial.bytes(), watch.stream());
      const double ms = watch.ms([&] { launch_lengths<dtype, TuningT>(batch, watch.stream()); });
      const auto found = sums_of(partial, chunks.pieces, products_of_chunk(n, false), n, watch.stream());
      if (chosen) expected = found;
      return {ms, m.bytes(), difference_of(found, expected)};
    });
  };
  time(LengthTuning(), true);
  (time(VariantsT(), false), ...);
}

template <int kThreads, int kLoads, int kBlocks>
struct Combine3 {
  static constexpr int threads = kThreads;
  static constexpr int loads = kLoads;
  static constexpr int blocks = kBlocks;
};

/// The mean of n rows: as chosen, and with other tunings.
template <DType dtype, class... VariantsT>
void time_combine(int n, std::int64_t d, Watch& watch) {
  const Matrix m(n, d, dtype, watch.stream());
  const DeviceMemory coefficients =
      to_device(std::vector<double>(static_cast<std::size_t>(n), 1.0 / n), watch.stream());
  const CombineArguments arguments{.rows = m.rows(),
                                   .tiles = m.cut(tile_length),
                                   .parts = {},
                                   .out = m.to(),
                                   .gate = {},
                                   .coefficients = static_cast<const double*>(coefficients.data())};
  Expected expected;
  const auto time = [&]<class TuningT>(TuningT, bool chosen) {
    char name[80];
    std::snprintf(name, sizeof(name), "threads %d, loads %d, blocks %d", TuningT::threads, TuningT::loads,
                  TuningT::blocks);
    measure({"combine", m.shape(), name, chosen}, [&]() -> Found {
      set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
      const double ms = watch.ms([&] { launch_combine<dtype, TuningT>(arguments, watch.stream()); });
      return {ms, m.bytes() * (n + 1) / n, expected.difference(m, chosen, watch.stream())};
    });
  };
  time(CombineTuning(), true);
  (time(VariantsT(), false), ...);
}

/// The passes as they are chosen, each by itself.
class Passes {
 public:
  Passes(int n, std::int64_t d, DType dtype, const Watch& watch)
      : m_(n, d, dtype, watch.stream()),
        stream_(watch.stream()),
        products_(static_cast<std::size_t>(n) * static_cast<std::size_t>(n) * sizeof(double)),
        chunks_(m_.cut(gram_chunk_length(d))),
        partial_(gram_partial_doubles(n, chunks_.pieces) * sizeof(double)),
        mixed_(neighbor_means(n, watch)) {}

  const Matrix& matrix() const { return m_; }

  void gram() const {
    cuda::gram({.rows = m_.rows(),
                .chunks = chunks_,
                .parts = {},
                .partial = static_cast<double*>(partial_.data()),
                .batch = gram_batch(m_.n, chunks_.pieces),
                .products = static_cast<double*>(products_.data())},
               stream_);
  }

  /// On the rows, or on as many means of them.
  SelectArguments selection(SelectRule::Kind kind, bool mixed) {
    SelectArguments arguments{.rows = m_.rows(),
                              .tiles = m_.cut(tile_length),
                              .parts = {},
                              .out = m_.to(),
                              .gate = {},
                              .rule = {.kind = kind, .f = m_.n / 5},
                              .points = m_.n,
                              .mix = mixed ? static_cast<const double*>(mixed_.data()) : nullptr};
    if (const std::size_t bytes = select_workspace_bytes(arguments); bytes > workspace_.bytes()) {
      workspace_ = DeviceMemory(bytes);
    }
    arguments.workspace = workspace_.data();
    return arguments;
  }

 private:
  Matrix m_;
  Stream stream_;
  DeviceMemory products_;
  Cut chunks_;
  DeviceMemory partial_, mixed_, workspace_;
};

void time_passes(int n, std::int64_t d, DType dtype, Watch& watch) {
  Passes passes(n, d, dtype, watch);
  const Matrix& m = passes.matrix();
  measure({"gram", m.shape(), "as chosen", true}, [&]() -> Found {
    return {watch.ms([&] { passes.gram(); }), m.bytes(), std::nullopt};
  });
  for (const bool mixed : {false, true}) {
    measure({mixed ? "mix+select trimmed_mean" : "select trimmed_mean", m.shape(), "as chosen", true},
            [&]() -> Found {
              const SelectArguments arguments = passes.selection(SelectRule::Kind::trimmed_mean, mixed);
              return {watch.ms([&] { select(arguments, watch.stream()); }),
                      m.bytes() + static_cast<double>(m.row_bytes), std::nullopt};
            });
  }
}

/// Bytes of each of the two copies of the keys that a peer sorts at a time: with CUB's own memory, 8 bytes a
/// coordinate, and the rows, that is less than half of a card of 24 GB.
constexpr std::size_t most_key_bytes = std::size_t{1} << 30;

/// The median or a trimmed mean of rows as chosen, and by CUB: each coordinate's values brought together,
/// sorted, and the ranks that the rule wants. To as many rows as a network takes the bits are the same.
void time_beside_sort(const char* pass, SelectRule::Kind kind, const Shape& shape, Watch& watch) {
  Passes passes(shape.n, shape.d, shape.dtype, watch);
  const Matrix& m = passes.matrix();
  const SelectArguments arguments = passes.selection(kind, false);
  const double bytes = m.bytes() + static_cast<double>(m.row_bytes);
  Expected expected;
  measure({pass, shape, "as chosen", true}, [&]() -> Found {
    set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
    const double ms = watch.ms([&] { select(arguments, watch.stream()); });
    return {ms, bytes, expected.difference(m, true, watch.stream())};
  });
  measure({pass, shape, "cub::DeviceSegmentedSort", false, true}, [&]() -> Found {
    const SortedRows rows(m.data.data(), shape.n, shape.d, shape.dtype, most_key_bytes);
    const CubSort cub(shape.n, rows.batch(), rows.key_bytes());
    const auto time = [&](const auto& sort) {
      set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
      return watch.ms([&] { rows.select(arguments.rule, m.out.data(), watch.stream(), sort); });
    };
    const double unsorted_ms = time([](void* keys, void*, std::int64_t) { return keys; });
    const double ms = time([&](void* keys, void* other, std::int64_t segments) {
      return cub.sort(keys, other, segments, watch.stream());
    });
    return {.ms = ms,
            .bytes = bytes,
            .difference = expected.difference(m, false, watch.stream()),
            .sort_ms = ms - unsorted_ms};
  });
}

void run(double seconds) {
  Watch watch(seconds);
  std::printf("{\"device\": %s, \"seconds\": %g}\n", quoted(device_name(current_device()).c_str()).c_str(),
              seconds);
  std::fflush(stdout);
  constexpr std::int64_t d = 10'000'000;
  constexpr DType f32 = DType::f32;
  constexpr DType bf16 = DType::bf16;
  const char* const median = "select median";
  group(median, {16, d, f32},
        [&] { time_direct<f32, 16, Direct3<128, 1, 8>, Direct3<128, 4, 3>, Direct3<256, 2, 3>>(d, watch); });
  group(median, {32, d, f32},
        [&] { time_direct<f32, 32, Direct3<128, 1, 7>, Direct3<128, 2, 3>>(d, watch); });
  group(median, {64, d, f32}, [&] { time_direct<f32, 64, Direct3<128, 1, 4>, Direct3<64, 1, 6>>(d, watch); });
  group(median, {16, d, bf16},
        [&] { time_direct<bf16, 16, Direct3<128, 1, 8>, Direct3<128, 4, 3>>(d, watch); });
  group(median, {64, d, bf16}, [&] { time_direct<bf16, 64, Direct3<128, 1, 4>>(d, watch); });
  const char* const products = "gram";
  group(products, {16, d, f32}, [&] { time_fragments<2, Fragment2<4, 5>, Fragment2<8, 2>>(d, watch); });
  group(products, {16, 10 * d, f32}, [&] { time_fragments<2>(10 * d, watch); });
  group(products, {32, d, f32}, [&] { time_fragments<4, Fragment2<8, 2>, Fragment2<8, 1>>(d, watch); });
  group(products, {48, d, f32}, [&] { time_fragments<6, Fragment2<4, 1>, Fragment2<2, 4>>(d, watch); });
  const auto by_unit = [&](const char* pass, const auto& time, const Shape& shape) {
    group(pass, shape, [&] { time(pass, shape, watch); });
  };
  for (const int n : {8, 16, 32, 48, 64, 128}) by_unit("gram by unit", time_all_units, {n, d, f32});
  for (const int n : {128, 256, 512}) by_unit("gram by unit", time_all_units, {n, d / 10, f32});
  by_unit("gram by unit", time_all_units, {16, d, bf16});
  for (const int n : {8, 16, 48})
    by_unit("gram about medians by unit", time_units_about_medians, {n, d, f32});
  by_unit("gram about medians by unit", time_units_about_medians, {16, 10 * d, f32});
  for (const int n : {16, 64}) by_unit("gram lengths by unit", time_length_units, {n, d, f32});
  by_unit("gram lengths by unit", time_length_units, {64, d, bf16});
  const char* const lengths = "gram lengths, before sums";
  for (const int n : {16, 64}) {
    group(lengths, {n, d, f32}, [&] {
      time_lengths<f32, Lengths3<4, 2, 12>, Lengths3<4, 8, 5>, Lengths3<8, 4, 4>, Lengths3<2, 4, 16>>(n, d,
                                                                                                      watch);
    });
  }
  group(lengths, {256, d / 10, f32},
        [&] { time_lengths<f32, Lengths3<2, 4, 16>, Lengths3<4, 8, 5>>(256, d / 10, watch); });
  group(lengths, {64, d, bf16},
        [&] { time_lengths<bf16, Lengths3<4, 2, 12>, Lengths3<4, 8, 5>>(64, d, watch); });
  for (const int n : {8, 16, 32, 64}) {
    group("combine", {n, d, f32}, [&] {
      time_combine<f32, Combine3<128, 4, 6>, Combine3<128, 16, 3>, Combine3<256, 8, 2>, Combine3<256, 4, 3>>(
          n, d, watch);
    });
  }
  group("combine", {16, d, bf16},
        [&] { time_combine<bf16, Combine3<128, 4, 4>, Combine3<64, 8, 8>>(16, d, watch); });
  const char* const mixes = "mix+select trimmed_mean";
  group(mixes, {16, d, f32}, [&] { time_mixes<16, Tile2<false, 3>>(d, watch); });
  group(mixes, {32, d, f32}, [&] { time_mixes<32, Tile2<true, 3>, Tile2<false, 2>>(d, watch); });
  group(mixes, {64, d, f32}, [&] { time_mixes<64, Tile2<false, 3>, Tile2<true, 2>>(d, watch); });
  for (const int n : {8, 16, 32, 64}) {
    group("mix+select trimmed_mean by unit", {n, d, f32}, [&] { time_mixes_by_unit(n, d, f32, watch); });
  }
  group("mix+select trimmed_mean by unit", {16, d, bf16}, [&] { time_mixes_by_unit(16, d, bf16, watch); });
  for (const int n : {96, 128}) {  // whose coefficients are filled in again and again
    group("mix+select trimmed_mean by unit", {n, d / 10, f32},
          [&] { time_mixes_by_unit(n, d / 10, f32, watch); });
  }
  const auto passes = [&](int n, std::int64_t length, DType dtype) {
    group("passes", {n, length, dtype}, [&] { time_passes(n, length, dtype, watch); });
  };
  for (const int n : {8, 16, 24, 32, 48, 64, 96, 128}) passes(n, d, f32);
  for (const int n : {16, 32, 64}) passes(n, d, bf16);
  for (const int n : {16, 64}) passes(n, d, DType::f64);
  for (const int n : {256, 512, 1024}) passes(n, d / 10, f32);
  // At the end: how long others take is not known, and the step has a limit.
  const auto beside_sort = [&](int n, std::int64_t length, DType dtype) {
    const Shape shape{n, length, dtype};
    const char* const medians = "select median beside a sort";
    group(medians, shape, [&] { time_beside_sort(medians, SelectRule::Kind::median, shape, watch); });
    const char* const means = "select trimmed_mean beside a sort";
    if (n > largest_bucket<f32>) return;  // added up in another order
    group(means, shape, [&] { time_beside_sort(means, SelectRule::Kind::trimmed_mean, shape, watch); });
  };
  for (const int n : {16, 64}) beside_sort(n, d, f32);
  for (const DType dtype : {bf16, DType::f16, DType::f64}) beside_sort(16, d, dtype);
  for (const int n : {128, 256}) beside_sort(n, d / 10, f32);
}

/// A single launch of what is named.
void once(const std::string& name) {
  const Watch watch(0);
  constexpr std::int64_t d = 2'000'000;
  if (name == "steps") {  // between the passes of a pipeline
    const Matrix m(16, d, DType::f32, watch.stream());
    const Updates updates = Updates::matrix(m.data.data(), m.n, d, m.dtype, -1, MemorySpace::cuda);
    Plan plan(parse("nnm(f=3) | trimmed_mean(f=3)"), bragg::Shape::of(updates), {.device = Device::cuda});
    plan.run(updates, Output(m.out.data()), watch.stream());
    synchronize(watch.stream());
    return;
  }
  const std::size_t dash = name.find('-');
  const std::string pass = name.substr(0, dash);
  const int n = dash == std::string::npos ? 0 : std::atoi(name.c_str() + dash + 1);
  if (n < 1 || n > 1024 || (pass != "gram" && pass != "median" && pass != "mix")) {
    throw Error(Status::invalid_argument, "--once: '" + name + "' is none of gram-N, median-N, mix-N, steps");
  }
  Passes passes(n, d, DType::f32, watch);
  if (pass == "gram") {
    passes.gram();
  } else {
    const bool mixed = pass == "mix";
    select(passes.selection(mixed ? SelectRule::Kind::trimmed_mean : SelectRule::Kind::median, mixed),
           watch.stream());
  }
  synchronize(watch.stream());
}

}  // namespace
}  // namespace bragg::detail::cuda

int main(int argc, char** argv) {
  using namespace bragg::detail::cuda;
  try {
    if (argc > 2 && std::strcmp(argv[1], "--once") == 0) {
      once(argv[2]);
    } else {
      run(argc > 1 ? std::atof(argv[1]) : 0.05);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "variants: error: %s\n", error.what());
    return 1;
  }
  if (complaints > 0) std::fprintf(stderr, "variants: %d failed or differ\n", complaints);
  return complaints > 0 ? 1 : 0;
}
