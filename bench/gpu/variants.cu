// SPDX-License-Identifier: Apache-2.0
// Each pass by itself on the current device, and beside what kernels/common/tuning.hpp chooses, what else it
// might choose: so that one run on hardware tells what to change there. No two results may differ but where
// sums are added in another order.
//
//   variants [SECONDS]     seconds for each timing (0.05); prints JSON
#include <bragg/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "host/cuda/runtime.hpp"
#include "kernels/combine/combine.cuh"
#include "kernels/gram/chunks.cuh"
#include "kernels/gram/gram.hpp"
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

/// n rows of d coordinates, a tensor, aligned.
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
  Cut cut(std::int64_t length) const {
    return {.tensors = 1, .pieces = (d + length - 1) / length, .length = length};
  }
  Target to() const { return {.data = static_cast<void* const*>(target.data()), .dtype = dtype}; }
  double bytes() const { return static_cast<double>(data.bytes()); }
};

/// Prints an item of the list. `difference`: the largest to what is chosen, relative to the largest result.
void print(const char* pass, const Matrix& m, const char* variant, bool chosen, double ms, double bytes,
           double difference) {
  static bool first = true;
  std::printf(
      "%s\n {\"pass\": \"%s\", \"n\": %d, \"d\": %lld, \"dtype\": \"%s\", \"variant\": \"%s\", \"chosen\": "
      "%s, ",
      first ? "" : ",", pass, m.n, static_cast<long long>(m.d), to_string(m.dtype), variant,
      chosen ? "true" : "false");
  std::printf("\"ms\": %.6f, \"gb_per_s\": %.1f, \"difference\": %.3g}", ms, bytes / ms / 1e6, difference);
  std::fflush(stdout);
  first = false;
}

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
  const auto words = static_cast<std::size_t>(m.row_bytes / 4);
  std::vector<std::uint32_t> expected;
  const auto time = [&]<class TuningT>(TuningT, bool chosen) {
    set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
    const double ms =
        watch.ms([&] { launch_direct_bucket<dtype, kPoints, true, TuningT>(arguments, watch.stream()); });
    const auto found = to_host<std::uint32_t>(m.out, words, watch.stream());
    if (chosen) expected = found;
    char name[80];
    std::snprintf(name, sizeof(name), "threads %d, vectors %d, blocks %d", TuningT::threads, TuningT::vectors,
                  TuningT::blocks);
    print("select median", m, name, chosen, ms, m.bytes() * (kPoints + 1) / kPoints,
          found == expected ? 0 : INFINITY);
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
  const auto words = static_cast<std::size_t>(m.row_bytes / 4);
  std::vector<std::uint32_t> expected;
  const auto time = [&]<class TuningT>(TuningT, bool chosen) {
    set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
    const double ms =
        watch.ms([&] { launch_tile_bucket<DType::f32, kPoints, TuningT>(arguments, watch.stream()); });
    const auto found = to_host<std::uint32_t>(m.out, words, watch.stream());
    if (chosen) expected = found;
    char name[80];
    std::snprintf(name, sizeof(name), "%s, blocks %d", TuningT::ahead ? "ahead" : "not ahead",
                  TuningT::blocks);
    print("mix+select trimmed_mean", m, name, chosen, ms, m.bytes() * (kPoints + 1) / kPoints,
          found == expected ? 0 : INFINITY);
  };
  time(TileTuning<DType::f32, kPoints>(), true);
  (time(VariantsT(), false), ...);
}

template <int kWarps, int kBlocks>
struct Fragment2 {
  static constexpr int warps = kWarps;
  static constexpr int blocks = kBlocks;
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

/// The largest difference, relative to the largest that is expected; NaN counts.
double difference_of(const std::vector<double>& found, const std::vector<double>& expected) {
  double largest = 0;
  double difference = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    if (!(std::abs(found[i] - expected[i]) <= difference)) difference = std::abs(found[i] - expected[i]);
  }
  return difference / largest;
}

/// Products of 8 · octets rows: other lengths of a chunk, and other shapes of a block.
template <int octets, class... VariantsT>
void time_fragments(std::int64_t d, Watch& watch) {
  const Matrix m(8 * octets, d, DType::f32, watch.stream());
  const DeviceMemory products(static_cast<std::size_t>(m.n) * static_cast<std::size_t>(m.n) * sizeof(double));
  std::vector<double> expected;
  const auto time = [&](const char* what, const char* name, std::int64_t length, bool chosen,
                        const auto& enqueue) {
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
    if (expected.empty()) expected = found;
    print(what, m, name, chosen, ms, m.bytes(), difference_of(found, expected));
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
      simt::launch(gram_fragments<DType::f32, octets, TuningT>, batch.chunks, 1, 32 * TuningT::warps, 0,
                   watch.stream(), batch);
    });
  };
  shape(FragmentTuning<DType::f32, octets>(), true);
  (shape(VariantsT(), false), ...);
}

template <int kWarps, int kRows, int kBlocks>
struct Lengths3 {
  static constexpr int warps = kWarps;
  static constexpr int rows = kRows;
  static constexpr int blocks = kBlocks;
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
    set_bytes(partial.data(), 0xFF, partial.bytes(), watch.stream());
    const double ms = watch.ms([&] { launch_lengths<dtype, TuningT>(batch, watch.stream()); });
    const auto found = sums_of(partial, chunks.pieces, products_of_chunk(n, false), n, watch.stream());
    if (chosen) expected = found;
    char name[80];
    std::snprintf(name, sizeof(name), "warps %d, rows %d, blocks %d", TuningT::warps, TuningT::rows,
                  TuningT::blocks);
    print("gram lengths, before sums", m, name, chosen, ms, m.bytes(), difference_of(found, expected));
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
  const auto words = static_cast<std::size_t>(m.row_bytes / 4);
  std::vector<std::uint32_t> expected;
  const auto time = [&]<class TuningT>(TuningT, bool chosen) {
    set_bytes(m.out.data(), 0xFF, m.row_bytes, watch.stream());
    const double ms = watch.ms([&] { launch_combine<dtype, TuningT>(arguments, watch.stream()); });
    const auto found = to_host<std::uint32_t>(m.out, words, watch.stream());
    if (chosen) expected = found;
    char name[80];
    std::snprintf(name, sizeof(name), "threads %d, loads %d, blocks %d", TuningT::threads, TuningT::loads,
                  TuningT::blocks);
    print("combine", m, name, chosen, ms, m.bytes() * (n + 1) / n, found == expected ? 0 : INFINITY);
  };
  time(CombineTuning(), true);
  (time(VariantsT(), false), ...);
}

/// Passes as they are, at more shapes.
void time_passes(int n, std::int64_t d, DType dtype, Watch& watch) {
  const Matrix m(n, d, dtype, watch.stream());
  const DeviceMemory products(static_cast<std::size_t>(n) * static_cast<std::size_t>(n) * sizeof(double));
  const Cut chunks = m.cut(gram_chunk_length(d));
  const DeviceMemory partial(gram_partial_doubles(n, chunks.pieces) * sizeof(double));
  print("gram", m, "as chosen", true, watch.ms([&] {
    gram({.rows = m.rows(),
          .chunks = chunks,
          .parts = {},
          .partial = static_cast<double*>(partial.data()),
          .batch = gram_batch(n, chunks.pieces),
          .products = static_cast<double*>(products.data())},
         watch.stream());
  }),
        m.bytes(), 0);

  const double bytes = m.bytes() + static_cast<double>(m.row_bytes);
  const int f = n / 5;
  const DeviceMemory mixed = neighbor_means(n, watch);
  for (const bool is_mixed : {false, true}) {
    SelectArguments arguments{.rows = m.rows(),
                              .tiles = m.cut(tile_length),
                              .parts = {},
                              .out = m.to(),
                              .gate = {},
                              .rule = {.kind = SelectRule::Kind::trimmed_mean, .f = f},
                              .points = n,
                              .mix = is_mixed ? static_cast<const double*>(mixed.data()) : nullptr};
    const DeviceMemory workspace(select_workspace_bytes(arguments));
    arguments.workspace = workspace.data();
    print(is_mixed ? "mix+select trimmed_mean" : "select trimmed_mean", m, "as chosen", true,
          watch.ms([&] { select(arguments, watch.stream()); }), bytes, 0);
  }
}

void run(double seconds) {
  Watch watch(seconds);
  std::printf("{\"device\": \"%s\", \"seconds\": %g, \"variants\": [", device_name(current_device()).c_str(),
              seconds);
  constexpr std::int64_t d = 10'000'000;
  time_direct<DType::f32, 16, Direct3<128, 1, 8>, Direct3<128, 4, 3>, Direct3<256, 2, 3>>(d, watch);
  time_direct<DType::f32, 32, Direct3<128, 1, 7>, Direct3<128, 2, 3>>(d, watch);
  time_direct<DType::f32, 64, Direct3<128, 1, 4>, Direct3<64, 1, 6>>(d, watch);
  time_direct<DType::bf16, 16, Direct3<128, 1, 8>, Direct3<128, 4, 3>>(d, watch);
  time_direct<DType::bf16, 64, Direct3<128, 1, 4>>(d, watch);
  time_fragments<2, Fragment2<4, 5>, Fragment2<8, 2>>(d, watch);
  time_fragments<2>(10 * d, watch);
  time_fragments<4, Fragment2<8, 2>, Fragment2<8, 1>>(d, watch);
  time_fragments<6, Fragment2<4, 1>, Fragment2<2, 4>>(d, watch);
  for (const int n : {16, 64}) {
    time_lengths<DType::f32, Lengths3<4, 2, 12>, Lengths3<4, 8, 5>, Lengths3<8, 4, 4>, Lengths3<2, 4, 16>>(
        n, d, watch);
  }
  time_lengths<DType::f32, Lengths3<2, 4, 16>, Lengths3<4, 8, 5>>(256, 1'000'000, watch);
  time_lengths<DType::bf16, Lengths3<4, 2, 12>, Lengths3<4, 8, 5>>(64, d, watch);
  for (const int n : {8, 16, 32, 64}) {
    time_combine<DType::f32, Combine3<128, 4, 6>, Combine3<128, 16, 3>, Combine3<256, 8, 2>,
                 Combine3<256, 4, 3>>(n, d, watch);
  }
  time_combine<DType::bf16, Combine3<128, 4, 4>, Combine3<64, 8, 8>>(16, d, watch);
  time_mixes<16, Tile2<false, 3>>(d, watch);
  time_mixes<32, Tile2<true, 3>, Tile2<false, 2>>(d, watch);
  time_mixes<64, Tile2<false, 3>, Tile2<true, 2>>(d, watch);
  for (const int n : {8, 16, 24, 32, 48, 64, 96, 128}) time_passes(n, d, DType::f32, watch);
  for (const int n : {16, 32, 64}) time_passes(n, d, DType::bf16, watch);
  for (const int n : {256, 512, 1024}) time_passes(n, 1'000'000, DType::f32, watch);
  std::printf("\n]}\n");
}

}  // namespace
}  // namespace bragg::detail::cuda

int main(int argc, char** argv) {
  try {
    bragg::detail::cuda::run(argc > 1 ? std::atof(argv[1]) : 0.05);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "variants: error: %s\n", error.what());
    return 1;
  }
  return 0;
}
