// SPDX-License-Identifier: Apache-2.0
// Products of a chunk for 3 rows and more of f32, f16 or bf16 where a device's f64 is slow: each value is a
// fixed-point number of six bytes, and tensor cores multiply bytes (Ozaki's scheme).
//
// Scale        A row's values in a run of 128 coordinates are multiplied by a power of two of the row's own,
//              so that the largest is 0.99·2⁴⁶ to 0.99·2⁴⁷, and rounded to integers: X = Σ d_p·256^(6−p)
//              with six digits from −128 to 127. 16-bit types go the same way.
// Sum          X_i X_j = Σ d_p e_q·256^(12−p−q). Of the 36 products of digits the 26 with p + q ≤ 8 are
//              taken; those of equal weight are added in one int32, at most 6·128·2¹⁴. The seven sums make
//              an int64 of 62 bits, in units of 256⁵; runs are added in f64, in order.
// Order        Sums of a run are exact, so they are the same for equal rows, and so are those of runs. A
//              non-finite value makes its row's scale infinite, which stays in its row's pairs.
// Centre       A difference is two floats h + l exactly, each of which is rounded to an integer. Differences
//              that no float holds are taken of quarters: then what underflows is nothing beside the rest.
// Error        in units of 2⁻⁵³‖x_i‖‖x_j‖, where ‖X‖ ≥ 0.99·2⁴⁶ in a run: rounding to integers, ½ each of
//              128 values of both rows, √128·2⁻⁴⁶: 1455. Digits left out, four times at most 128·2³⁸·1.01:
//              261. The unit of the int64: 2. Sums of 512 runs: 513. Together 2231, less than
//              gram_additions are promised, and sums over runs are no more (Cauchy and Schwarz): the bound
//              of docs/numerics.md is the same. About a centre an integer is off by ¾ at most: if h is no
//              integer, |l| is ¼ at most and rounds to 0. So 2183 in place of 1455, together 2959.
// Map          One thread block per chunk. A warp stages 4 rows at a time, 16 coordinates of a row to a lane,
//              and asks for the next run in L2. Any assignment of coordinates to k gives the same sum if both
//              factors agree: a lane's four values are the four bytes of a register. Each warp then
//              multiplies 16 rows by 8 (of b bands of 16 rows b(b+1) warps), and keeps its sums. Above 64
//              rows a block takes two groups of 48, or one with itself. Tails and unaligned rows go to the
//              same places: the same bits.
//              The centre of the next run is staged while this one is multiplied; medians are found before
//              (centers.cuh).
// Bound        Tensor cores: 26 multiply-adds of bytes for each pair of whole tiles and coordinate; memory.
//              f64: eight operations of a warp per tile and run.
// Resources    64 to 640 threads; registers: 28 sums, 8 of f64, 16 of digits; shared 768 bytes a row,
//              and 512 for a run's centres.
// Measured     not yet run on hardware.
// Not done     Seven digits of 7 bits, whose sums are bytes too: 22 products by Karatsuba's rule, but more
//              to do for each value. Residues (Ozaki's scheme II): 14 products, and 80 instructions more for
//              each value: from 160 rows on that would be less (counted, not run).
#pragma once

#include "kernels/common/double_float.cuh"
#include "kernels/common/tuning.hpp"
#include "kernels/gram/center.cuh"
#include "kernels/gram/chunks.hpp"

namespace bragg::detail::cuda {

inline constexpr int digit_run = 128;  ///< coordinates that have a common scale
inline constexpr int digits = 6;
inline constexpr int digit_levels = 7;  ///< weights of products that are taken
inline constexpr int digit_steps = digit_run / 32;
/// Words of eight rows' digits of a run: [digit][step][lane][2], as mma_16x8x32 takes them.
inline constexpr int octet_words = digits * digit_steps * 64;

/// Where rows come from and where their digits go, in shared memory.
struct DigitRows {
  const unsigned char* const* data;  ///< [row]; null: zeros
  const uint4* centers;              ///< of a run's coordinates, f32, finite
  std::uint32_t* staged;             ///< [octet][octet_words]
  int* exponents;                    ///< [row] of the power of two that makes values of integers
};

/// Of a row with a value that is not finite: no sum of two such that a power of two would be finite.
inline constexpr int no_exponent = 4096;

/// 2^exponent, or infinity.
BRAGG_DEVICE double power_or_infinity(int exponent) {
  return exponent < 1024 ? double_power_of_two(exponent) : infinity_of<double>();
}

/// What makes integers of a row whose largest magnitude has these bits: factors, and the exponent of their
/// inverse.
struct DigitScale {
  float first;
  float second;  ///< of denormal numbers alone not 1
  int exponent;
};
BRAGG_DEVICE DigitScale digit_scale(std::uint32_t largest) {
  if (largest >= 0x7F800000u) return {1.0f, 1.0f, no_exponent};
  int tiny = 0;
  if (largest < 0x00800000u) {
    tiny = 24;
    largest = simt::bits_of(simt::float_of(largest) * 0x1p24f);
  }
  // The next power of two already where digits would not reach to the largest: from 0x1.FDFDFEp0 on.
  const int exponent = static_cast<int>((largest + 0x010101u) >> 23) - 127 - tiny;
  const int up = 22 - (largest == 0 ? 0 : exponent);
  const int first = up < 127 ? up : 127;
  return {float_power_of_two(first), float_power_of_two(up - first), -24 - up};
}

/// y in units of the last digit, rounded; |y| is ¼ at most.
BRAGG_DEVICE int units_of(float y) {
  constexpr float magic = 0x1.8p23f;  // what is added to it is rounded to a whole number
  return static_cast<int>(simt::bits_of(simt::fma(y, 0x1p24f, magic)) - 0x4B400000u);
}

/// The digits of y and `units` of the last, together less than 0x7F.7F7F7F7F7Fp16, each more by 128, as
/// bytes: three of them in each of two words.
struct DigitPair {
  std::uint32_t high;
  std::uint32_t low;
};
BRAGG_DEVICE DigitPair digits_of(float y, int units) {
  constexpr float magic = 0x1.8p25f;           // what is added to it is rounded to a multiple of 4
  constexpr std::uint32_t bits = 0x4C400000u;  // its own
  const float shifted = y + magic;
  const float rest = y - (shifted - magic);
  // Sums wrap, where the row is not finite and y anything.
  const std::uint32_t low = static_cast<std::uint32_t>(simt::round_to_int(rest * 0x1p24f)) +
                            static_cast<std::uint32_t>(units) + 0x808080u;
  const auto carry = static_cast<std::uint32_t>(static_cast<int>(low) >> 24);
  return {((simt::bits_of(shifted) - bits) << 2) + 0x808080u + carry, low};
}

/// Digit by digit those of four values, signed: [0] the highest.
BRAGG_DEVICE void transpose_digits(const DigitPair (&of)[4], std::uint32_t (&bytes)[digits]) {
  const auto three = [&](std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d, int first) {
    const std::uint32_t front = simt::pick_bytes(a, b, 0x5140u);
    const std::uint32_t back = simt::pick_bytes(c, d, 0x5140u);
    const std::uint32_t tops = simt::pick_bytes(a, b, 0x0062u);
    const std::uint32_t more = simt::pick_bytes(c, d, 0x0062u);
    bytes[first] = simt::pick_bytes(tops, more, 0x5410u) ^ 0x80808080u;
    bytes[first + 1] = simt::pick_bytes(front, back, 0x7632u) ^ 0x80808080u;
    bytes[first + 2] = simt::pick_bytes(front, back, 0x5410u) ^ 0x80808080u;
  };
  three(of[0].high, of[1].high, of[2].high, of[3].high, 0);
  three(of[0].low, of[1].low, of[2].low, of[3].low, 3);
}

/// The block's threads write the centres of a run from `begin`; p: of the piece.
template <DType dtype>
BRAGG_DEVICE void stage_centers(uint4* centers, const unsigned char* p, int begin, int size,
                                Alignment alignment) {
  BRAGG_ROLLED
  for (int i = simt::thread(); i < digit_run; i += simt::threads()) {
    float center = 0;
    if (p != nullptr && begin + i < size) {
      center = finite_or_zero(value_of<dtype>(load_element<dtype>(p, begin + i, alignment)));
    }
    reinterpret_cast<float*>(centers)[i] = center;
  }
}

/// A warp stages the digits of four rows of a run from `begin`, of which it loads whole vectors or not.
template <DType dtype, bool centered>
BRAGG_DEVICE void stage_digits(const DigitRows& rows, int first_row, int begin, int size, bool whole,
                               Alignment alignment) {
  constexpr int run = vector_elements<dtype>;
  constexpr int loads = 16 / run;
  const int row = first_row + simt::lane() / 8;
  const int place = simt::lane() % 8;
  const unsigned char* const p = rows.data[row];
  uint4 raw[loads];
  if (whole) {
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const std::int64_t at = static_cast<std::int64_t>(begin) * static_cast<int>(sizeof(Bits<dtype>));
      raw[l] = p != nullptr ? simt::load16(p + at + 16 * (8 * l + place)) : uint4{0, 0, 0, 0};
    }
  } else if (alignment == Alignment::byte) {
    // The question is asked here: within, a branch would part the loads.
    load_by_elements<dtype>(raw, p, begin + run * place, 8 * run, size, Alignment::byte);
  } else {
    load_by_elements<dtype>(raw, p, begin + run * place, 8 * run, size, Alignment::element);
  }
  const auto value = [&](int e) { return value_at<dtype>(raw[e / run], e % run); };
  const auto center = [&](int e) {
    return value_at<DType::f32>(rows.centers[run / 4 * (8 * (e / run) + place) + e % run / 4], e % 4);
  };
  const auto largest = [&](float unit) {
    std::uint32_t most = 0;
    BRAGG_UNROLL
    for (int e = 0; e < 16; ++e) raise_float(most, centered ? value(e) * unit - center(e) * unit : value(e));
    BRAGG_UNROLL
    for (int lanes = 4; lanes > 0; lanes /= 2) {
      const std::uint32_t other = simt::shuffle_xor(most, lanes);
      if (other > most) most = other;
    }
    return most;
  };
  float unit = 1.0f;
  std::uint32_t most = largest(unit);
  if constexpr (centered && dtype != DType::f16) {
    if (simt::any(most >= 0x7F800000u)) {
      if (most >= 0x7F800000u) unit = 0.25f;
      most = largest(unit);
    }
  }
  const DigitScale scale = digit_scale(most);
  if (place == 0) rows.exponents[row] = scale.exponent + (unit != 1.0f ? 2 : 0);
  // Register h = place / 4 of lane 4 · (row of the octet) + place % 4.
  std::uint32_t* const to = rows.staged + row / 8 * octet_words + 2 * (row % 8 * 4 + place % 4) + place / 4;
  BRAGG_UNROLL
  for (int step = 0; step < digit_steps; ++step) {
    DigitPair four[4];
    BRAGG_UNROLL
    for (int e = 0; e < 4; ++e) {
      const auto scaled = [&](float x) {
        x *= scale.first;
        return dtype != DType::f16 ? x * scale.second : x;
      };
      const float x = value(4 * step + e);
      if constexpr (centered) {
        float low;
        const float high = two_sum(x * unit, -center(4 * step + e) * unit, low);
        four[e] = digits_of(scaled(high), units_of(scaled(low)));
      } else {
        four[e] = digits_of(scaled(x), 0);
      }
    }
    std::uint32_t bytes[digits];
    transpose_digits(four, bytes);
    BRAGG_UNROLL
    for (int p_digit = 0; p_digit < digits; ++p_digit) {
      to[(p_digit * digit_steps + step) * 64] = bytes[p_digit];
    }
  }
}

/// Asks for a whole run of four rows in L2.
template <DType dtype>
BRAGG_DEVICE void prefetch_run(const DigitRows& rows, int first_row, int begin) {
  constexpr int element = static_cast<int>(sizeof(Bits<dtype>));
  constexpr int lines = digit_run * element / 128;
  if (simt::lane() >= 4 * lines) return;
  const unsigned char* const p = rows.data[first_row + simt::lane() / lines];
  if (p == nullptr) return;
  simt::prefetch_l2(p + static_cast<std::int64_t>(begin) * element + 128 * (simt::lane() % lines));
}

/// Products of 16 staged rows, a band, with 8, an octet.
struct DigitTile {
  int band;
  int octet;

  /// The one of a warp: of a triangle of bands, or of a square of `side` of them with as many before.
  BRAGG_DEVICE static DigitTile of(int warp, bool is_square, int side) {
    if (is_square) return {side + warp / (2 * side), warp % (2 * side)};
    int band = 0;
    while ((band + 1) * (band + 2) <= warp) ++band;
    return {band, warp - band * (band + 1)};
  }

  /// The lane's four sums of a staged run, in units of 256⁵.
  BRAGG_DEVICE void multiply(const std::uint32_t* staged, std::int64_t (&products)[4]) const {
    const auto fragment = [&](int of_octet, int digit, int step) {
      const std::uint32_t* const at =
          staged + of_octet * octet_words + (digit * digit_steps + step) * 64 + 2 * simt::lane();
      return *reinterpret_cast<const uint2*>(at);
    };
    int sums[digit_levels][4] = {};
    BRAGG_ROLLED
    for (int step = 0; step < digit_steps; ++step) {
      std::uint32_t b[digits][2];
      BRAGG_UNROLL
      for (int q = 0; q < digits; ++q) {
        const uint2 words = fragment(octet, q, step);
        b[q][0] = words.x;
        b[q][1] = words.y;
      }
      BRAGG_UNROLL
      for (int p = 0; p < digits; ++p) {
        const uint2 upper = fragment(2 * band, p, step);
        const uint2 lower = fragment(2 * band + 1, p, step);
        const std::uint32_t a[4] = {upper.x, lower.x, upper.y, lower.y};
        BRAGG_UNROLL
        for (int q = 0; q < digits && p + q < digit_levels; ++q) simt::mma_16x8x32(sums[p + q], a, b[q]);
      }
    }
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) {
      std::int64_t sum = sums[0][i];
      BRAGG_UNROLL
      for (int level = 1; level < 6; ++level) sum = sum * 256 + sums[level][i];
      products[i] = sum + ((sums[6][i] + 128) >> 8);
    }
  }
};

/// Rows of a group, where there are more than a block stages: it takes two groups then, or one with itself.
inline constexpr int digit_group = 48;
inline constexpr int most_digit_rows = 64;

BRAGG_HD constexpr bool goes_by_digit_groups(int rows) { return rows > most_digit_rows; }
BRAGG_HD constexpr std::int64_t digit_tiles(int rows) {
  return goes_by_digit_groups(rows) ? triangle((rows + digit_group - 1) / digit_group) : 1;
}
/// Bands that a block stages at most, and its warps: one for each tile.
BRAGG_HD constexpr int digit_bands(int rows) {
  return goes_by_digit_groups(rows) ? 2 * digit_group / 16 : (rows + 15) / 16;
}
constexpr int digit_warps(int rows) {
  constexpr int side = digit_group / 16;
  const int bands = digit_bands(rows);
  return goes_by_digit_groups(rows) ? 2 * side * side : bands * (bands + 1);
}

template <DType dtype, int most_warps, bool centered>
BRAGG_KERNEL(32 * most_warps, Int8Tuning<most_warps>::blocks)
gram_int8(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  constexpr int group = digit_group;
  const GramArguments& pass = batch.pass;
  const std::int64_t tiles = digit_tiles(batch.rows);
  const auto chunk = static_cast<int>(simt::block() / tiles);
  const std::int64_t tile = simt::block() - chunk * tiles;
  const auto tile_row = static_cast<int>(triangle_row(tile));
  const auto tile_column = static_cast<int>(tile - triangle(tile_row));
  const bool is_square = tile_row != tile_column;
  const int bands = is_square || !goes_by_digit_groups(batch.rows) ? digit_bands(batch.rows) : group / 16;
  const int rows = 16 * bands;
  // Row r of the batch, where it is among the first group's rows that are staged, or among the others.
  const int first_group = tile_column * group;
  const int second_group = is_square ? tile_row * group : first_group + group;
  const auto row_at = [&](int r) { return r < group ? first_group + r : second_group + r - group; };
  const int warps = simt::threads() / 32;
  const int warp = simt::warp();
  const int lane = simt::lane();
  BRAGG_SHARED(uint4, centers, [centered ? digit_run / 4 : 1]);
  simt::DynamicShared dynamic;
  std::uint32_t* const staged =
      dynamic.take<std::uint32_t>(static_cast<std::size_t>(2 * bands * octet_words));
  const unsigned char** const data = dynamic.take<const unsigned char*>(static_cast<std::size_t>(rows + 1));
  int* const exponents = dynamic.take<int>(static_cast<std::size_t>(rows));
  const Piece piece = locate(pass.chunks, pass.rows.sizes, batch.first + chunk);
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(pass.rows, piece.tensor);
  for (int r = simt::thread(); r < rows; r += simt::threads()) data[r] = row_data(batch, piece, row_at(r));
  if constexpr (centered) {
    const unsigned char* const center = center_row_of(batch, piece, chunk).data;
    if (simt::thread() == 0) data[rows] = center;
    stage_centers<dtype>(centers, center, 0, piece.size, alignment);
  }
  simt::sync_threads();

  const DigitTile own = DigitTile::of(warp, is_square, group / 16);
  const bool has_tile =
      own.band < bands && row_at(16 * own.band) < batch.rows && row_at(8 * own.octet) < batch.rows;
  const DigitRows of_run{data, centers, staged, exponents};
  const int whole = alignment == Alignment::vector ? piece.size / digit_run * digit_run : 0;
  double sums[4] = {};
  for (int begin = 0; begin < piece.size; begin += digit_run) {
    BRAGG_ROLLED
    for (int r = 4 * warp; r < rows; r += 4 * warps) {
      stage_digits<dtype, centered>(of_run, r, begin, piece.size, begin < whole, alignment);
      if (begin + digit_run < whole) prefetch_run<dtype>(of_run, r, begin + digit_run);
    }
    simt::sync_threads();
    if constexpr (centered) {
      stage_centers<dtype>(centers, data[rows], begin + digit_run, piece.size, alignment);
    }
    if (has_tile) {
      std::int64_t products[4];
      own.multiply(staged, products);
      BRAGG_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int up = exponents[16 * own.band + 8 * (i / 2) + lane / 4] +
                       exponents[8 * own.octet + 2 * (lane % 4) + i % 2];
        sums[i] = simt::fma(static_cast<double>(products[i]), power_or_infinity(40 + up), sums[i]);
      }
    }
    simt::sync_threads();
  }

  double* const partial = pass.partial + chunk * triangle(batch.rows);
  BRAGG_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = row_at(16 * own.band + 8 * (i / 2) + lane / 4);
    const int column = row_at(8 * own.octet + 2 * (lane % 4) + i % 2);
    if (has_tile && row < batch.rows && column <= row) partial[triangle(row) + column] = sums[i];
  }
  if (is_square) return;
  simt::sync_threads();
  for (int r = warp; r < rows && row_at(r) < batch.rows; r += warps) {
    const int row = row_at(r);
    settle_row<dtype>(batch, piece, row, data[r], partial[triangle(row) + row], 0);
  }
}

template <DType dtype>
void gram_chunks_int8(const GramBatch& batch, Stream stream) {
  const auto launch = [&](auto kernel) {
    const auto rows = static_cast<std::size_t>(16 * digit_bands(batch.rows));
    simt::launch_dependent(
        kernel, batch.chunks * static_cast<int>(digit_tiles(batch.rows)), 1, 32 * digit_warps(batch.rows),
        simt::shared_bytes<std::uint32_t>(rows / 8 * octet_words) +
            simt::shared_bytes<const unsigned char*>(rows + 1) + simt::shared_bytes<int>(rows),
        stream, batch);
  };
  // With fewer warps a block there would be 80 registers, and centres take some more.
  if (batch.pass.center != Center::none) return launch(gram_int8<dtype, 20, true>);
  if (digit_warps(batch.rows) <= 12) return launch(gram_int8<dtype, 12, false>);
  launch(gram_int8<dtype, 20, false>);
}

}  // namespace bragg::detail::cuda
