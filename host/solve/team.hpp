// SPDX-License-Identifier: Apache-2.0
// Who runs a solver: a Team is one serial thread on the host or, later, one thread block. Solvers are written
// against these few operations only, so the code that the CPU tests exercise is the code that a GPU runs.
#pragma once

#if defined(__CUDACC__)
#define BRAGG_HD __host__ __device__
#else
#define BRAGG_HD
#endif

namespace bragg::detail {

/// One thread. Every operation ends with all members seeing all writes.
struct SerialTeam {
  /// f(i) for i in [0, n), in any order.
  template <class F>
  BRAGG_HD void parallel_for(int n, F f) const {
    for (int i = 0; i < n; ++i) f(i);
  }
  /// Σ f(i) in a fixed order; every member gets it.
  template <class F>
  BRAGG_HD double sum(int n, F f) const {
    double total = 0;
    for (int i = 0; i < n; ++i) total += f(i);
    return total;
  }
  /// The lowest i of least f(i); 0 when every f(i) is +inf.
  template <class F>
  BRAGG_HD int argmin(int n, F f) const {
    int best = 0;
    double least = f(0);
    for (int i = 1; i < n; ++i) {
      const double value = f(i);
      if (value < least) {
        least = value;
        best = i;
      }
    }
    return best;
  }
  /// One member runs f.
  template <class F>
  BRAGG_HD void single(F f) const {
    f();
  }
};

}  // namespace bragg::detail
