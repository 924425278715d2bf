// SPDX-License-Identifier: Apache-2.0
// Squares of a chunk's rows of f32, f16 or bf16, and their products with the reference, where a device's f64
// is slow: each sum is two floats. What lengths.cuh is elsewhere.
//
// Order        A lane adds its 16 coordinates of a span as double_float.cuh does; lanes are added as a tree.
//              A warp's spans go to an f64 in order, and so do warps. One order for all products, so equal
//              rows have bit-equal ones.
// Error        As counted in double_float.cuh; spans go through 32 additions of a warp and four of warps.
//              About a centre a difference is two floats h + l exactly, |l| ≤ u|h|, and of a product of two
//              only l·l is left out: u²M. Its rest then is at most 3uM, of which 2 + 3 more round. In a lane
//              the roundings are 6 + 14 + 9 + 24 = 53 u²M, and all together 92·2⁻⁴⁸·M.
// Scale        A row's values, or differences, have a power of two each in a span. Differences that no float
//              holds are taken of quarters: then what underflows is nothing beside the rest.
// Map          One thread block per chunk and few rows; each warp takes every fourth span, each lane 16
//              coordinates of each row, whose loads are under way together. Unaligned rows and tails are
//              loaded element by element to the same places: the same bits. The reference and the centre are
//              read once for those rows, from L2 except the first time.
// Bound        Memory: some 15 f32 operations for each product and coordinate. f64: five operations of a warp
//              for a span of all its rows.
// Resources    128 threads; registers: 16 values of each row, of the reference and of the centre.
// Measured     Not yet run on hardware.
#pragma once

#include <type_traits>

#include "kernels/common/double_float.cuh"
#include "kernels/common/tuning.hpp"
#include "kernels/gram/double_float.cuh"
#include "kernels/gram/length_block.cuh"

namespace bragg::detail::cuda {

/// sum += the products of four coordinates, of differences.
BRAGG_DEVICE void add_products(DoubleFloat& sum, const DoubleFloat* a, const DoubleFloat* b) {
  float p[4];
  float rest[4];
  BRAGG_UNROLL
  for (int i = 0; i < 4; ++i) {
    p[i] = a[i].high * b[i].high;
    rest[i] = simt::fma(a[i].high, b[i].high, -p[i]);
    rest[i] = simt::fma(a[i].high, b[i].low, rest[i]);
    rest[i] = simt::fma(a[i].low, b[i].high, rest[i]);
  }
  add_four<true>(sum, p, rest);
}

/// A lane's coordinates of a span of rows, the last of them the centre, and their differences from it.
template <DType dtype, int rows, bool centered>
struct LaneSpan {
  static constexpr int run = vector_elements<dtype>;
  static constexpr int loads = span_elements / run;

  uint4 raw[rows][loads];

  BRAGG_DEVICE void load(const unsigned char* const* data, int begin) {
    BRAGG_UNROLL
    for (int r = 0; r < rows; ++r) {
      BRAGG_UNROLL
      for (int l = 0; l < loads; ++l) {
        const int at = begin * static_cast<int>(sizeof(Bits<dtype>)) + 16 * (32 * l + simt::lane());
        raw[r][l] = data[r] != nullptr ? simt::load16(data[r] + at) : uint4{0, 0, 0, 0};
      }
    }
  }
  BRAGG_DEVICE void load(const unsigned char* const* data, int begin, int size, Alignment alignment) {
    BRAGG_UNROLL
    for (int r = 0; r < rows; ++r) {
      load_by_elements<dtype>(raw[r], data[r], begin + run * simt::lane(), 32 * run, size, alignment);
    }
  }

  BRAGG_DEVICE float value(int row, int e) const { return value_at<dtype>(raw[row][e / run], e % run); }
  BRAGG_DEVICE float center(int e) const { return finite_or_zero(value(rows - 1, e)); }

  /// Bits of the largest magnitude of a row of `first` times the values, in any lane.
  BRAGG_DEVICE std::uint32_t largest(int row, float first) const {
    std::uint32_t most = 0;
    BRAGG_UNROLL
    for (int e = 0; e < span_elements; ++e) {
      raise_float(most, centered ? value(row, e) * first - center(e) * first : value(row, e));
    }
    return warp_max(most);
  }

  /// What a row is multiplied by, in turn.
  struct Scale {
    float first = 1;
    float second = 1;
    int exponent = 0;  ///< of the product of both
  };
  BRAGG_DEVICE Scale scale(int row) const {
    Scale scale;
    std::uint32_t most = largest(row, scale.first);
    if (centered && most >= 0x7F800000u) {
      scale.first = 0.25f;
      most = largest(row, scale.first);
    }
    scale.exponent = span_exponent(most);
    scale.second = float_power_of_two(scale.exponent);
    if (scale.first != 1) scale.exponent -= 2;
    return scale;
  }

  /// Four coordinates of a row, scaled.
  BRAGG_DEVICE void four(int row, int e, const Scale& scale, FourFloats& x) const {
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) x.x[i] = value(row, e + i) * scale.second;
  }
  BRAGG_DEVICE void four(int row, int e, const Scale& scale, DoubleFloat (&x)[4]) const {
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) {
      x[i].high = two_sum(value(row, e + i) * scale.first, -center(e + i) * scale.first, x[i].low);
      x[i].high *= scale.second;
      x[i].low *= scale.second;
    }
  }
};

template <DType dtype, int references, bool centered,
          class TuningT = DoubleFloatLengthTuning<references, centered>>
BRAGG_KERNEL(32 * TuningT::warps, TuningT::blocks)
gram_double_float_lengths(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  constexpr int warps = TuningT::warps;
  using Block = LengthBlock<TuningT::rows, references, centered>;
  constexpr int rows = Block::rows;
  constexpr int read = Block::read;
  constexpr int products = Block::products;
  using Span = LaneSpan<dtype, read, centered>;
  using Four = std::conditional_t<centered, DoubleFloat[4], FourFloats>;
  BRAGG_SHARED(const unsigned char*, data, [read]);
  BRAGG_SHARED(int, exponents, [warps][rows + references]);
  using Totals = ChunkTotals<warps, products, rows>;
  BRAGG_SHARED(Totals, totals, [1]);
  const GramArguments& pass = batch.pass;
  const Block block(batch);
  const Piece& piece = block.piece;
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(pass.rows, piece.tensor);
  const int warp = simt::warp();
  if (simt::thread() < read) data[simt::thread()] = block.data(batch, simt::thread());
  if (simt::thread() < warps * products)
    totals[0].sums[simt::thread() / products][simt::thread() % products] = 0;
  simt::sync_threads();

  const int whole = alignment == Alignment::vector ? piece.size / span_length * span_length : 0;
  for (int begin = warp * span_length; begin < piece.size; begin += warps * span_length) {
    Span span;
    if (begin < whole) {
      span.load(data, begin);
    } else if (alignment == Alignment::byte) {
      // The question is asked here: within, a branch would part the loads.
      span.load(data, begin, piece.size, Alignment::byte);
    } else {
      span.load(data, begin, piece.size, Alignment::element);
    }
    typename Span::Scale of_reference;
    if constexpr (references > 0) {
      of_reference = span.scale(rows);
      if (simt::lane() == 0) exponents[warp][rows] = of_reference.exponent;
    }
    DoubleFloat sums[products] = {};
    BRAGG_UNROLL
    for (int r = 0; r < rows; ++r) {
      const auto scale = span.scale(r);
      if (simt::lane() == 0) exponents[warp][r] = scale.exponent;
      BRAGG_UNROLL
      for (int e = 0; e < span_elements; e += 4) {
        Four x;
        span.four(r, e, scale, x);
        const auto add = [&](DoubleFloat& sum, const Four& other) {
          if constexpr (centered) {
            add_products(sum, x, other);
          } else {
            add_products<dtype == DType::f32>(sum, x, other);
          }
        };
        add(sums[r], x);
        if constexpr (references > 0) {
          Four y;
          span.four(rows, e, of_reference, y);
          add(sums[rows + r], y);
        }
      }
    }
    BRAGG_UNROLL
    for (int p = 0; p < products; ++p) sums[p].high = two_sum(sums[p].high, sums[p].low, sums[p].low);
    int own = 0;
    int end = products;
    static_assert(products <= 32, "a lane is left with one of them");
    fold_lanes<products, 16>(sums, own, end);
    simt::sync_warp();
    if (own < end) {
      const int exponent = exponents[warp][own % rows] + exponents[warp][own < rows ? own : rows];
      // The same lane each time.
      totals[0].sums[warp][own] += to_double(sums[0]) * double_power_of_two(-exponent);
    }
    simt::sync_warp();
  }
  simt::sync_threads();
  block.write(batch, totals[0]);
  for (int r = warp; r < rows && block.first_row + r < batch.rows; r += warps) {
    settle_row<dtype>(batch, piece, block.first_row + r, data[r], totals[0].sum(r), 0);
  }
}

template <DType dtype>
void launch_double_float_lengths(const GramBatch& batch, Stream stream) {
  const auto launch = [&]<int references, bool centered>() {
    constexpr int rows = DoubleFloatLengthTuning<references, centered>::rows;
    constexpr int warps = DoubleFloatLengthTuning<references, centered>::warps;
    const int groups = (batch.rows + rows - 1) / rows;
    simt::launch_dependent(gram_double_float_lengths<dtype, references, centered>, batch.chunks * groups, 1,
                           32 * warps, 0, stream, batch);
  };
  const bool has_reference = batch.rows > batch.pass.rows.inputs;
  if (batch.pass.center == Center::none) {
    return has_reference ? launch.template operator()<1, false>() : launch.template operator()<0, false>();
  }
  has_reference ? launch.template operator()<1, true>() : launch.template operator()<0, true>();
}

}  // namespace bragg::detail::cuda
