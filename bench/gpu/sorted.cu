// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu/sorted.hpp"

#include "kernels/common/values.cuh"

namespace bragg::detail::cuda {
namespace {

constexpr int threads = 256;
constexpr int tile_elements = 4096;  ///< that a block brings from one order to another at a time
constexpr int most_ranks = 128;      ///< of a tile: rows, or ranks that are kept

/// Coordinates of a tile beside so many ranks: at most one for each thread, at least one for each lane.
int tile_width(int ranks) {
  int width = 32;
  while (width < threads && 2 * width * ranks <= tile_elements) width *= 2;
  return width;
}

template <DType dtype>
inline constexpr Bits<dtype> infinity_bits = dtype == DType::f32   ? 0x7F800000u
                                             : dtype == DType::f16 ? 0x7C00u
                                                                   : 0x7F80u;
template <>
inline constexpr std::uint64_t infinity_bits<DType::f64> = 0x7FF0000000000000u;
template <DType dtype>
inline constexpr Bits<dtype> sign_bit = static_cast<Bits<dtype>>(Bits<dtype>{1}
                                                                 << (8 * sizeof(Bits<dtype>) - 1));

/// An unsigned integer that is larger where the value is: NaN is +inf.
template <DType dtype>
BRAGG_DEVICE Bits<dtype> key_of(Bits<dtype> bits) {
  const auto magnitude = static_cast<Bits<dtype>>(bits & ~sign_bit<dtype>);
  if (magnitude > infinity_bits<dtype>) bits = infinity_bits<dtype>;
  return static_cast<Bits<dtype>>((bits & sign_bit<dtype>) != 0 ? ~bits : bits | sign_bit<dtype>);
}

template <DType dtype>
BRAGG_DEVICE double value_of_key(Bits<dtype> key) {
  const bool positive = (key & sign_bit<dtype>) != 0;
  return static_cast<double>(
      value_of<dtype>(static_cast<Bits<dtype>>(positive ? key & ~sign_bit<dtype> : ~key)));
}

/// keys[coordinate][row] of `count` coordinates from `first` on, a tile of `width` of them a block.
template <DType dtype>
BRAGG_KERNEL(threads, 4)
keys_of_rows(const Bits<dtype>* rows, int n, std::int64_t d, std::int64_t first, std::int64_t count,
             int width, Bits<dtype>* keys) {
  BRAGG_SHARED(Bits<dtype>, tile, [tile_elements + most_ranks]);
  const std::int64_t begin = static_cast<std::int64_t>(simt::block()) * width;
  const int left = count - begin < width ? static_cast<int>(count - begin) : width;
  for (int low = 0; low < n; low += most_ranks) {
    const int some = n - low < most_ranks ? n - low : most_ranks;
    for (int e = simt::thread(); e < some * width; e += threads) {
      const int row = e / width;
      const int c = e % width;
      if (c < left) tile[row * (width + 1) + c] = key_of<dtype>(rows[(low + row) * d + first + begin + c]);
    }
    simt::sync_threads();
    for (int e = simt::thread(); e < some * left; e += threads) {
      const int c = e / some;
      const int row = e % some;
      keys[(begin + c) * n + low + row] = tile[row * (width + 1) + c];
    }
    simt::sync_threads();
  }
}

/// The midpoint of the two middle ranks, or the middle one.
template <DType dtype>
BRAGG_KERNEL(threads, 4)
medians_of_keys(const Bits<dtype>* keys, int n, std::int64_t count, Bits<dtype>* out) {
  const std::int64_t c = static_cast<std::int64_t>(simt::block()) * threads + simt::thread();
  if (c >= count) return;
  const double low = value_of_key<dtype>(keys[c * n + (n - 1) / 2]);
  const double high = value_of_key<dtype>(keys[c * n + n / 2]);
  double median = low;
  if (low < high && low > -infinity_of<double>()) {
    const double sum = low + high;
    median = is_finite(sum) || !is_finite(high) ? sum / 2 : low / 2 + high / 2;
  }
  out[c] = round_to<dtype>(median);
}

/// The mean of ranks [f, n − f): their sum in f64, ascending, a coordinate's by one thread.
template <DType dtype>
BRAGG_KERNEL(threads, 4)
means_of_keys(const Bits<dtype>* keys, int n, int f, std::int64_t count, int width, Bits<dtype>* out) {
  BRAGG_SHARED(Bits<dtype>, tile, [tile_elements + most_ranks]);
  const std::int64_t begin = static_cast<std::int64_t>(simt::block()) * width;
  const int left = count - begin < width ? static_cast<int>(count - begin) : width;
  const int c = simt::thread();
  double least = 0;
  double most = 0;
  double scale = 1;  // of f64, whose sums may overflow
  if (c < left) {
    least = value_of_key<dtype>(keys[(begin + c) * n + f]);
    most = value_of_key<dtype>(keys[(begin + c) * n + n - f - 1]);
    if (least <= -0x1p1000 || most >= 0x1p1000) scale = 0x1p-64;
  }
  double sum = 0;
  for (int low = f; low < n - f; low += most_ranks) {
    const int some = n - f - low < most_ranks ? n - f - low : most_ranks;
    for (int e = simt::thread(); e < some * left; e += threads) {
      const int coordinate = e / some;
      const int rank = e % some;
      tile[rank * (width + 1) + coordinate] = keys[(begin + coordinate) * n + low + rank];
    }
    simt::sync_threads();
    if (c < left) {
      for (int rank = 0; rank < some; ++rank)
        sum += value_of_key<dtype>(tile[rank * (width + 1) + c]) * scale;
    }
    simt::sync_threads();
  }
  if (c >= left) return;
  double mean = sum / (n - 2 * f) / scale;
  if (!(mean >= least)) mean = least;  // −inf beside +inf, too
  if (mean > most) mean = most;
  out[begin + c] = round_to<dtype>(mean);
}

int blocks_of(std::int64_t count, int width) { return static_cast<int>((count + width - 1) / width); }

}  // namespace

SortedRows::SortedRows(const void* rows, int n, std::int64_t d, DType dtype, std::size_t most_bytes)
    : rows_(rows), n_(n), d_(d), dtype_(dtype) {
  const std::size_t segment = static_cast<std::size_t>(n) * size_of(dtype);
  batch_ = std::min(d, static_cast<std::int64_t>(std::max<std::size_t>(most_bytes / segment, 1)));
  keys_ = DeviceMemory(static_cast<std::size_t>(batch_) * segment);
  other_ = DeviceMemory(keys_.bytes());
}

void SortedRows::enqueue_keys(std::int64_t first, std::int64_t count, Stream stream) const {
  const int width = tile_width(std::min(n_, most_ranks));
  with_dtype(dtype_, [&]<DType dtype>() {
    simt::launch(keys_of_rows<dtype>, blocks_of(count, width), 1, threads, 0, stream,
                 static_cast<const Bits<dtype>*>(rows_), n_, d_, first, count, width,
                 static_cast<Bits<dtype>*>(keys_.data()));
  });
}

void SortedRows::enqueue_results(const void* keys, const SelectRule& rule, std::int64_t first,
                                 std::int64_t count, void* out, Stream stream) const {
  with_dtype(dtype_, [&]<DType dtype>() {
    const auto* const from = static_cast<const Bits<dtype>*>(keys);
    auto* const to = static_cast<Bits<dtype>*>(out) + first;
    if (rule.kind == SelectRule::Kind::median) {
      simt::launch(medians_of_keys<dtype>, blocks_of(count, threads), 1, threads, 0, stream, from, n_, count,
                   to);
    } else {
      const int width = tile_width(std::min(n_ - 2 * rule.f, most_ranks));
      simt::launch(means_of_keys<dtype>, blocks_of(count, width), 1, threads, 0, stream, from, n_, rule.f,
                   count, width, to);
    }
  });
}

}  // namespace bragg::detail::cuda
