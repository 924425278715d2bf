// SPDX-License-Identifier: Apache-2.0
// Teams of the device: who runs the solvers of rules/ there.
#pragma once

#include "kernels/common/simt.cuh"
#include "rules/solve/team.hpp"

namespace bragg::detail::cuda {

/// One thread block, of whole warps. An operation begins with a barrier, so that what a member read since the
/// last one is not overwritten under it, and ends with one, so that every member sees what all have written.
/// Sums are taken in an order that depends on n and the block's size alone.
struct BlockTeam {
  static constexpr bool in_step = true;
  static constexpr bool waits = true;

  template <class IndexT, class F>
  BRAGG_DEVICE void parallel_for(IndexT n, F f) const {
    simt::sync_threads();
    BRAGG_ROLLED
    for (IndexT i = simt::thread(); i < n; i += simt::threads()) f(i);
    simt::sync_threads();
  }

  template <class F>
  BRAGG_DEVICE void parallel_for_2d(int rows, int columns, F f) const {
    simt::sync_threads();
    take_share(simt::thread(), simt::threads(), rows, columns, f);
    simt::sync_threads();
  }

  template <class F>
  BRAGG_DEVICE double sum(int n, F f) const {
    BRAGG_SHARED(double, warp_sums, [most_warps]);
    double total = 0;
    BRAGG_ROLLED
    for (int i = simt::thread(); i < n; i += simt::threads()) total += f(i);
    BRAGG_UNROLL
    for (int lanes = 16; lanes > 0; lanes /= 2) total += simt::shuffle_xor(total, lanes);
    simt::sync_threads();
    if (simt::lane() == 0) warp_sums[simt::warp()] = total;
    simt::sync_threads();
    total = 0;
    BRAGG_ROLLED
    for (int w = 0; w < simt::threads() / 32; ++w) total += warp_sums[w];
    return total;
  }

  template <class F>
  BRAGG_DEVICE int argmin(int n, F f) const {
    BRAGG_SHARED(double, warp_least, [most_warps]);
    BRAGG_SHARED(int, warp_best, [most_warps]);
    double least = infinity;
    int best = n;
    BRAGG_ROLLED
    for (int i = simt::thread(); i < n; i += simt::threads()) {
      const double value = f(i);
      if (best == n) best = i;
      if (value < least) {  // never where it is NaN, so that all members find the same
        least = value;
        best = i;
      }
    }
    const auto take = [&](double value, int i) {
      if (value < least || (value == least && i < best)) {
        least = value;
        best = i;
      }
    };
    BRAGG_UNROLL
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const double value = simt::shuffle_xor(least, lanes);
      const int i = simt::shuffle_xor(best, lanes);
      take(value, i);
    }
    simt::sync_threads();
    if (simt::lane() == 0) {
      warp_least[simt::warp()] = least;
      warp_best[simt::warp()] = best;
    }
    simt::sync_threads();
    BRAGG_ROLLED
    for (int w = 0; w < simt::threads() / 32; ++w) take(warp_least[w], warp_best[w]);
    return best;
  }

  template <class F>
  BRAGG_DEVICE int collect(int n, F f, int* found) const {
    BRAGG_SHARED(int, warp_found, [most_warps]);
    int count = 0;
    BRAGG_ROLLED
    for (int first = 0; first < n; first += simt::threads()) {
      const int i = first + simt::thread();
      const unsigned lanes = simt::ballot(i < n && f(i));
      simt::sync_threads();
      if (simt::lane() == 0) warp_found[simt::warp()] = simt::popcount(lanes);
      simt::sync_threads();
      int place = count + simt::popcount(lanes & ((1u << simt::lane()) - 1));
      BRAGG_ROLLED
      for (int w = 0; w < simt::threads() / 32; ++w) {
        if (w < simt::warp()) place += warp_found[w];
        count += warp_found[w];
      }
      if ((lanes >> simt::lane() & 1) != 0) found[place] = i;
    }
    simt::sync_threads();
    return count;
  }

  template <class F>
  BRAGG_DEVICE void divide(int n, F f) const {
    BRAGG_ROLLED
    for (int i = 0; i < n; ++i) f(*this, i);
  }

  template <class F>
  BRAGG_DEVICE void single(F f) const {
    simt::sync_threads();
    if (simt::thread() == 0) f();
    simt::sync_threads();
  }

 private:
  static constexpr int most_warps = 8;
  static constexpr double infinity = __builtin_huge_val();
};

/// A whole grid, for steps whose blocks never wait for each other.
struct GridTeam {
  static constexpr bool in_step = true;
  static constexpr bool waits = false;

  template <class IndexT, class F>
  BRAGG_DEVICE void parallel_for(IndexT n, F f) const {
    const auto step = static_cast<IndexT>(simt::threads()) * simt::blocks();
    for (IndexT i = static_cast<IndexT>(simt::block()) * simt::threads() + simt::thread(); i < n; i += step) {
      f(i);
    }
  }
  template <class F>
  BRAGG_DEVICE void parallel_for_2d(int rows, int columns, F f) const {
    take_share(simt::block() * simt::threads() + simt::thread(), simt::threads() * simt::blocks(), rows,
               columns, f);
  }
  /// A block each.
  template <class F>
  BRAGG_DEVICE void divide(int n, F f) const {
    BRAGG_ROLLED
    for (int i = simt::block(); i < n; i += simt::blocks()) f(BlockTeam{}, i);
  }
};

}  // namespace bragg::detail::cuda
