// SPDX-License-Identifier: Apache-2.0
// Who runs a solver: a Team is one serial thread on the host, or one thread block. Solvers are written
// against these few operations only, so the code that the CPU tests exercise is the code that a GPU runs.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define BRAGG_HD __host__ __device__
#define BRAGG_HD_INLINE __host__ __device__ __forceinline__
/// Called from several places, and too long for a copy at each.
#define BRAGG_HD_CALLED __host__ __device__ __noinline__
#else
#define BRAGG_HD
#define BRAGG_HD_INLINE inline
#define BRAGG_HD_CALLED
#endif

/// Copies of a loop's body in device code: one, unless iterations have loads that should not wait for one
/// another. Solvers wait for memory and barriers, and more copies only fill instruction caches.
#if defined(__CUDA_ARCH__)
#define BRAGG_HD_PRAGMA(text) _Pragma(#text)
#define BRAGG_HD_UNROLL(copies) BRAGG_HD_PRAGMA(unroll copies)
#else
#define BRAGG_HD_UNROLL(copies)
#endif

namespace bragg::detail {

/// f(i, j) for every step-th item of rows × columns from `first` on, row by row: a share of a team in step.
/// One division, where each item's own would be as long as the rest of it.
template <class F>
BRAGG_HD_INLINE void take_share(int first, int step, int rows, int columns, F f) {
  if (columns <= 0) return;
  const int down = step / columns;
  const int across = step % columns;
  int i = first / columns;
  int j = first % columns;
  BRAGG_HD_UNROLL(1)
  while (i < rows) {
    f(i, j);
    i += down;
    j += across;
    if (j >= columns) {
      j -= columns;
      ++i;
    }
  }
}

/// One thread. Every operation ends with all members seeing all writes.
struct SerialTeam {
  /// Whether a member is one of many that go in step: then they share an inner loop better than an outer one.
  static constexpr bool in_step = false;
  /// Whether what members wrote in one operation is there for all in the next.
  static constexpr bool waits = true;

  /// f(i) for i in [0, n), in any order.
  template <class IndexT, class F>
  BRAGG_HD void parallel_for(IndexT n, F f) const {
    for (IndexT i = 0; i < n; ++i) f(i);
  }
  /// Σ f(i) in a fixed order; every member gets it.
  template <class F>
  BRAGG_HD double sum(int n, F f) const {
    double total = 0;
    for (int i = 0; i < n; ++i) total += f(i);
    return total;
  }
  /// The lowest i of least f(i), where NaN reads as +inf; 0 when every f(i) is +inf.
  template <class F>
  BRAGG_HD int argmin(int n, F f) const {
    int best = 0;
    double least = __builtin_huge_val();
    for (int i = 0; i < n; ++i) {
      const double value = f(i);
      if (value < least) {
        least = value;
        best = i;
      }
    }
    return best;
  }
  /// found = the i in [0, n) that f(i) holds for, ascending; how many they are.
  template <class F>
  BRAGG_HD int collect(int n, F f, int* found) const {
    int count = 0;
    for (int i = 0; i < n; ++i) {
      if (f(i)) found[count++] = i;
    }
    return count;
  }
  /// f(team, i) for i in [0, n), each by a team of its own, of which operations may be asked.
  template <class F>
  BRAGG_HD void divide(int n, F f) const {
    for (int i = 0; i < n; ++i) f(*this, i);
  }
  /// One member runs f.
  template <class F>
  BRAGG_HD void single(F f) const {
    f();
  }
};

/// f(i, j) for i in [0, rows) and j in [0, columns), in any order.
template <class TeamT, class F>
BRAGG_HD void parallel_for_2d(TeamT team, int rows, int columns, F f) {
  if constexpr (TeamT::in_step) {
    team.parallel_for_2d(rows, columns, f);
  } else {
    team.parallel_for(rows, [&](int i) {
      for (int j = 0; j < columns; ++j) f(i, j);
    });
  }
}

/// out(i)[j] = start(i, j) + Σ_k coefficient(i, k)·from(k)[j] over k in [0, inner) ascending, for i in [0,
/// rows) and j in [0, columns). Coefficients of 0 are skipped: what they would multiply may hold anything.
template <class TeamT, class StartF, class CoefficientF, class FromF, class OutF>
BRAGG_HD void multiply(TeamT team, int rows, int columns, int inner, StartF start, CoefficientF coefficient,
                       FromF from, OutF out) {
  if constexpr (TeamT::in_step) {
    parallel_for_2d(team, rows, columns, [&](int i, int j) {
      double total = start(i, j);
      BRAGG_HD_UNROLL(4)
      for (int k = 0; k < inner; ++k) {
        const double c = coefficient(i, k);
        if (c != 0) total += c * from(k)[j];
      }
      out(i)[j] = total;
    });
  } else {
    team.parallel_for(rows, [&](int i) {
      double* const to = out(i);
      for (int j = 0; j < columns; ++j) to[j] = start(i, j);
      for (int k = 0; k < inner; ++k) {
        const double c = coefficient(i, k);
        if (c == 0) continue;
        const double* const row = from(k);
        for (int j = 0; j < columns; ++j) to[j] += c * row[j];
      }
    });
  }
}

}  // namespace bragg::detail
