// SPDX-License-Identifier: Apache-2.0
// out[j] = Σ_i c_i x_i[j] of rows of 16 and 32 bits where a device's f64 is slow: a sum is two floats.
//
// Order        Rows in their order, then those whose terms are taken in f64: of another dtype, or of a
//              coefficient below 2⁻⁶⁰ or above 2¹⁴. One order at any alignment; no bits but by data.
// Error        With u = 2⁻²⁴ and M = Σ|c_i x_i| over K rows: a coefficient is two floats, off by u²|c|. Its
//              product with x is p and e, c·x = p + e but for 2u²|c x|. What an addition of p loses is
//              exact, at most uM. Those losses and e add up to `low`, of at most 11uM as it joins the sum
//              proper every eight rows or fewer: two additions of each row round by 12u²M and
//              u²(M + 2|c x|). Together less than 18·K·2⁻⁴⁸·M; then rounded to the output, once.
// Scale        Coefficients times 2⁻¹⁶: 2¹⁵ terms of the largest float do not overflow. A multiplication that
//              underflows is off by 2⁻¹⁵⁰, three a row: next to nothing beside a sum of 2⁻⁹⁶. A coordinate
//              whose sum is below that, or not finite, is added up once more in f64: IEEE propagation, and
//              exact zeros. Zeros are not converted, so rows that are 0 there take no f64.
// Map          as combine.cuh.
// Bound        Memory; 13 f32 operations a row and coordinate. f64: two to four operations a coordinate.
// Resources    128 threads, 128 registers at most (4 blocks resident); 7 KB shared.
// Measured     not yet run on hardware.
#pragma once

#include "kernels/combine/terms.cuh"
#include "kernels/common/double_float.cuh"

namespace bragg::detail::cuda {

/// Coefficients of the terms that pairs suit, times pair_scale, beside the f64 ones of CombineTerms.
BRAGG_DEVICE DoubleFloat* pair_coefficients() {
  BRAGG_SHARED(DoubleFloat, coefficients, [combine_group]);
  return coefficients;
}

/// As collect_terms; terms that pairs suit first, then the others. count[1]: how many those are.
BRAGG_DEVICE void collect_pair_terms(const CombineArguments& a, int tensor, int first,
                                     const CombineTerms& terms) {
  const double* const coefficients = a.parts.of(a.coefficients, tensor);
  DoubleFloat* const pairs = pair_coefficients();
  const void* const* const data = a.rows.data + static_cast<std::int64_t>(tensor) * a.rows.count;
  const int lane = simt::lane();
  int count = 0;
  int alike = 0;
  BRAGG_ROLLED
  for (int pass = 0; pass < 2; ++pass) {
    BRAGG_ROLLED
    for (int base = first; base < first + combine_group && base < a.rows.count; base += 32) {
      const int row = base + lane;
      const bool inside = row < a.rows.count;
      const double c = inside ? coefficients[row] : 0;
      const auto* const p = inside ? static_cast<const unsigned char*>(data[row]) : nullptr;
      const bool suits = inside && a.rows.dtype_of(row) == a.rows.dtype && suits_pairs(c);
      const bool wanted = c != 0 && p != nullptr && suits == (pass == 0);
      const unsigned kept = simt::ballot(wanted);
      if (wanted) {
        const int place = count + simt::popcount(kept & ((1u << lane) - 1));
        terms.data[place] = p;
        terms.coefficient[place] = c;
        terms.row[place] = row;
        if (pass == 0) pairs[place] = pair_of(c * pair_scale);
      }
      count += simt::popcount(kept);
    }
    if (pass == 0) alike = count;
  }
  if (lane == 0) {
    terms.count[0] = count;
    terms.count[1] = alike;
  }
}

/// sum += c·x.
BRAGG_DEVICE void add_term(DoubleFloat& sum, const DoubleFloat& c, float x) {
  const float product = c.high * x;
  const float rest = simt::fma(c.low, x, simt::fma(c.high, x, -product));
  float lost = 0;
  sum.high = two_sum(sum.high, product, lost);
  sum.low += lost + rest;
}

BRAGG_DEVICE void join(DoubleFloat& sum) { sum.high = two_sum(sum.high, sum.low, sum.low); }

/// Adds the first terms, which pairs suit.
template <class TileT>
BRAGG_DEVICE void add_pairs(const TileT& tile, const CombineTerms& terms, DoubleFloat (&sums)[TileT::own]) {
  constexpr int run = TileT::run;
  constexpr int loads = TileT::own / run;
  constexpr int rows = TileT::rows < 8 ? TileT::rows : 8;  // that join the sum together
  using Element = Bits<TileT::dtype>;
  const DoubleFloat* const pairs = pair_coefficients();
  const int end = terms.count[1];
  const std::int64_t at = (tile.begin + tile.first()) * static_cast<std::int64_t>(sizeof(Element));
  BRAGG_ROLLED
  for (int k = 0; k < end; k += rows) {
    if constexpr (TileT::vector) {
      uint4 raw[rows][loads];
      BRAGG_UNROLL
      for (int u = 0; u < rows; ++u) {
        BRAGG_UNROLL
        for (int l = 0; l < loads; ++l) {
          raw[u][l] = k + u < end ? simt::load16(terms.data[k + u] + at + l * (TileT::threads * 16))
                                  : uint4{0, 0, 0, 0};
        }
      }
      BRAGG_UNROLL
      for (int u = 0; u < rows; ++u) {
        const DoubleFloat c = k + u < end ? pairs[k + u] : DoubleFloat{0, 0};
        BRAGG_UNROLL
        for (int i = 0; i < TileT::own; ++i) {
          add_term(sums[i], c, value_at<TileT::dtype>(raw[u][i / run], i % run));
        }
      }
    } else {
      BRAGG_ROLLED
      for (int u = k; u < k + rows && u < end; ++u) {
        Element bits[TileT::own];
        BRAGG_UNROLL
        for (int i = 0; i < TileT::own; ++i) {
          const std::int64_t index = tile.begin + tile.first() + tile.step(i);
          bits[i] =
              tile.has(i) ? load_element<TileT::dtype>(terms.data[u], index, tile.alignment) : Element{0};
        }
        const DoubleFloat c = pairs[u];
        BRAGG_UNROLL
        for (int i = 0; i < TileT::own; ++i) add_term(sums[i], c, value_of<TileT::dtype>(bits[i]));
      }
    }
    BRAGG_UNROLL
    for (int i = 0; i < TileT::own; ++i) join(sums[i]);
  }
}

/// Adds the other terms, each rounded to f64.
template <class TileT>
BRAGG_DEVICE void add_others(const Rows& rows, const TileT& tile, const CombineTerms& terms,
                             DoubleFloat (&sums)[TileT::own]) {
  BRAGG_ROLLED
  for (int k = terms.count[1]; k < terms.count[0]; ++k) {
    const double c = terms.coefficient[k] * pair_scale;
    with_dtype(rows.dtype_of(terms.row[k]), [&]<DType known>() {
      BRAGG_UNROLL
      for (int i = 0; i < TileT::own; ++i) {
        const std::int64_t index = tile.begin + tile.first() + tile.step(i);
        const Bits<known> bits = tile.has(i) ? load_element<known>(terms.data[k], index, tile.alignment) : 0;
        sums[i] = sums[i] + pair_of(c * static_cast<double>(value_of<known>(bits)));
        join(sums[i]);
      }
    });
  }
}

/// sums of the coordinates in `wanted`, a bit each, in f64.
template <class TileT>
BRAGG_DEVICE void add_again(const Rows& rows, const TileT& tile, const CombineTerms& terms, unsigned wanted,
                            double (&sums)[TileT::own]) {
  BRAGG_ROLLED
  for (int k = 0; k < terms.count[0]; ++k) {
    const double c = terms.coefficient[k];
    with_dtype(rows.dtype_of(terms.row[k]), [&]<DType known>() {
      BRAGG_UNROLL
      for (int i = 0; i < TileT::own; ++i) {
        if ((wanted >> i & 1) == 0) continue;
        const std::int64_t index = tile.begin + tile.first() + tile.step(i);
        const Bits<known> bits = load_element<known>(terms.data[k], index, tile.alignment);
        if (static_cast<Bits<known>>(bits << 1) == 0 && is_finite(c)) continue;
        sums[i] = simt::fma(c, static_cast<double>(value_of<known>(bits)), sums[i]);
      }
    });
  }
}

/// values = the tile's sums. `hold(tensor, first)` brings the terms of a group of rows to shared memory.
template <class TileT, class HoldT>
BRAGG_DEVICE void add_in_pairs(const Rows& rows, const TileT& tile, const CombineTerms& terms,
                               double (&values)[TileT::own], const HoldT& hold) {
  DoubleFloat sums[TileT::own] = {};
  for (int first = 0; first < rows.count; first += combine_group) {
    hold(tile.tensor, first);
    add_pairs(tile, terms, sums);
    add_others(rows, tile, terms, sums);
  }
  unsigned unsure = 0;
  BRAGG_UNROLL
  for (int i = 0; i < TileT::own; ++i) {
    const bool is_sure = fabsf(sums[i].high) >= least_pair_sum;  // what overflowed is NaN by now
    unsure |= !is_sure && tile.has(i) ? 1u << i : 0u;
    values[i] = is_sure ? to_double(sums[i]) * (1 / double{pair_scale}) : 0;
  }
  if (!simt::sync_threads_or(unsure != 0)) return;
  for (int first = 0; first < rows.count; first += combine_group) {
    hold(tile.tensor, first);
    if (unsure != 0) add_again(rows, tile, terms, unsure, values);
  }
}

}  // namespace bragg::detail::cuda
