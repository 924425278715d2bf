// SPDX-License-Identifier: Apache-2.0
// Eigenvalues of small real symmetric matrices: Householder reduction to tridiagonal form, bisection on Sturm
// counts, and inverse iteration for the vectors that are wanted (Golub & Van Loan, ch. 8). Every step is
// backward stable, so errors are a few n·2⁻⁵³ of the norm. Scale the matrix to a norm near 1 first: squares
// of entries are taken.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "rules/solve/points.hpp"
#include "rules/solve/team.hpp"

namespace bragg::detail {

/// Σ a_i b_i in four chains: one alone would wait for each of its additions.
BRAGG_HD inline double inner_product(const double* a, const double* b, int n) {
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  int i = 0;
  BRAGG_HD_UNROLL(1)
  for (; i + 4 <= n; i += 4) {
    s0 += a[i] * b[i];
    s1 += a[i + 1] * b[i + 1];
    s2 += a[i + 2] * b[i + 2];
    s3 += a[i + 3] * b[i + 3];
  }
  BRAGG_HD_UNROLL(1)
  for (; i < n; ++i) s0 += a[i] * b[i];
  return (s0 + s1) + (s2 + s3);
}

/// T = Qᵀ A Q as its diagonal (n) and off-diagonal (n−1). Q = H_0 H_1 …, H_s = I − factor[s]·v vᵀ, where v
/// stands in row s of `a`, right of the diagonal.
struct Tridiagonal {
  int n = 0;
  double* diagonal = nullptr;  ///< n
  double* off = nullptr;       ///< n
  double* factor = nullptr;    ///< n
};

/// Overwrites the symmetric matrix `a` (n × n, both triangles, row stride ld). `work`: n.
template <class TeamT>
BRAGG_HD void tridiagonalize(TeamT team, double* a, int ld, const Tridiagonal& t, double* work) {
  constexpr double negligible = 1e-280;  // far below rounding, and 2 / tail is still finite
  const int n = t.n;
  for (int s = 0; s + 2 < n; ++s) {
    double* const v = a + static_cast<std::size_t>(s) * ld + s + 1;
    const int length = n - s - 1;
    const double head = v[0];
    const double tail = team.sum(length - 1, [&](int i) { return v[i + 1] * v[i + 1]; });
    if (!(tail > negligible)) {
      team.single([&] {
        t.off[s] = head;
        t.factor[s] = 0;
      });
      continue;
    }
    const double norm = std::sqrt(head * head + tail);
    const double image = head > 0 ? -norm : norm;  // of the sign that avoids cancellation
    const double first = head - image;
    const double factor = 2 / (first * first + tail);
    team.single([&] {
      v[0] = first;
      t.off[s] = image;
      t.factor[s] = factor;
    });
    double* const rest = a + static_cast<std::size_t>(s + 1) * ld + s + 1;
    team.parallel_for(length, [&](int i) {
      work[i] = factor * inner_product(rest + static_cast<std::size_t>(i) * ld, v, length);
    });
    const double half = factor / 2 * team.sum(length, [&](int i) { return work[i] * v[i]; });
    team.parallel_for(length, [&](int i) { work[i] -= half * v[i]; });
    team.parallel_for(length, [&](int i) {
      double* const row = rest + static_cast<std::size_t>(i) * ld;
      const double vi = v[i];
      const double wi = work[i];
      BRAGG_HD_UNROLL(4)
      for (int j = 0; j < length; ++j) row[j] -= vi * work[j] + wi * v[j];
    });
  }
  team.parallel_for(n, [&](int i) { t.diagonal[i] = a[static_cast<std::size_t>(i) * ld + i]; });
  team.single([&] {
    if (n >= 2) {
      t.off[n - 2] = a[static_cast<std::size_t>(n - 2) * ld + n - 1];
      t.factor[n - 2] = 0;
    }
  });
}

/// How many eigenvalues of T are greater than x.
BRAGG_HD inline int count_above(const Tridiagonal& t, double x) {
  constexpr double least_pivot = 1e-290;
  int above = 0;
  double pivot = 1;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < t.n; ++i) {
    const double coupling = i > 0 ? t.off[i - 1] * t.off[i - 1] : 0;
    pivot = x - t.diagonal[i] - coupling / pivot;
    if (std::fabs(pivot) < least_pivot) pivot = least_pivot;
    above += pivot < 0;
  }
  return above;
}

/// A bound on |λ| of T, by Gershgorin's circles.
BRAGG_HD inline double spectral_bound(const Tridiagonal& t) {
  double bound = 0;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < t.n; ++i) {
    const double left = i > 0 ? std::fabs(t.off[i - 1]) : 0;
    const double right = i + 1 < t.n ? std::fabs(t.off[i]) : 0;
    const double reach = std::fabs(t.diagonal[i]) + left + right;
    if (reach > bound) bound = reach;
  }
  return bound;
}

/// The eigenvalue of T that `index` others exceed: 0 asks for the largest.
BRAGG_HD inline double eigenvalue(const Tridiagonal& t, int index) {
  const double bound = spectral_bound(t);
  double low = -bound;
  double high = bound;
  while (high - low > 0x1p-53 * bound) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    if (count_above(t, middle) > index) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low + (high - low) / 2;
}

/// x ← (T − shift)⁻¹ x by elimination with row exchanges; pivots below `least` are raised to it. `work`: 3n.
BRAGG_HD inline void solve_shifted(const Tridiagonal& t, double shift, double least, double* x,
                                   double* work) {
  const int n = t.n;
  double* const u0 = work;
  double* const u1 = work + n;
  double* const u2 = work + 2 * static_cast<std::size_t>(n);
  const auto raised = [&](double pivot) { return std::fabs(pivot) < least ? least : pivot; };
  double pivot = t.diagonal[0] - shift;  // of the row that is being eliminated: (pivot, next)
  double next = n > 1 ? t.off[0] : 0;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i + 1 < n; ++i) {
    const double below = t.off[i];
    const double diagonal = t.diagonal[i + 1] - shift;
    const double right = i + 2 < n ? t.off[i + 1] : 0;
    if (std::fabs(pivot) >= std::fabs(below)) {
      u0[i] = raised(pivot);
      u1[i] = next;
      u2[i] = 0;
      const double ratio = below / u0[i];
      pivot = diagonal - ratio * next;
      next = right;
      x[i + 1] -= ratio * x[i];
    } else {
      u0[i] = raised(below);
      u1[i] = diagonal;
      u2[i] = right;
      const double ratio = pivot / u0[i];
      pivot = next - ratio * diagonal;
      next = -ratio * right;
      const double moved = x[i];
      x[i] = x[i + 1];
      x[i + 1] = moved - ratio * x[i];
    }
  }
  u0[n - 1] = raised(pivot);
  x[n - 1] /= u0[n - 1];
  if (n > 1) x[n - 2] = (x[n - 2] - u1[n - 2] * x[n - 1]) / u0[n - 2];
  BRAGG_HD_UNROLL(1)
  for (int i = n - 3; i >= 0; --i) x[i] = (x[i] - u1[i] * x[i + 1] - u2[i] * x[i + 2]) / u0[i];
}

/// Scales x to length 1 after taking its parts along vectors[0..count) out of it.
BRAGG_HD inline void orthonormalize(double* x, int n, const double* vectors, int count) {
  double largest = 0;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < n; ++i) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < n; ++i) x[i] /= largest;
  // The second pass removes what rounding left of the first.
  BRAGG_HD_UNROLL(1)
  for (int pass = 0; pass < 2; ++pass) {
    BRAGG_HD_UNROLL(1)
    for (int k = 0; k < count; ++k) {
      const double* const other = vectors + static_cast<std::size_t>(k) * n;
      const double part = inner_product(x, other, n);
      BRAGG_HD_UNROLL(4)
      for (int i = 0; i < n; ++i) x[i] -= part * other[i];
    }
    const double norm = std::sqrt(inner_product(x, x, n));
    BRAGG_HD_UNROLL(1)
    for (int i = 0; i < n; ++i) x[i] /= norm;
  }
}

/// vectors (count × n) = orthonormal eigenvectors of the matrix that was reduced to `t` and reflectors in
/// `a`, of its `count` largest eigenvalues, which go to `values`. Where eigenvalues lie within rounding of
/// each other the vectors are a basis of their common space. `work`: 3n.
template <class TeamT>
BRAGG_HD void top_eigenvectors(TeamT team, const double* a, int ld, const Tridiagonal& t, int count,
                               double* values, double* vectors, double* work) {
  const int n = t.n;
  const double least = 0x1p-53 * spectral_bound(t);
  team.single([&] {
    std::uint32_t state = 1;
    for (int k = 0; k < count; ++k) {
      values[k] = eigenvalue(t, k);
      double* const x = vectors + static_cast<std::size_t>(k) * n;
      BRAGG_HD_UNROLL(1)
      for (int i = 0; i < n; ++i) {
        state = state * 1664525u + 1013904223u;
        x[i] = 0.5 + 0x1p-32 * state;
      }
      // A start that happens to be orthogonal to the vector costs one step; two more than are needed are
      // taken.
      BRAGG_HD_UNROLL(1)
      for (int step = 0; step < 4; ++step) {
        orthonormalize(x, n, vectors, k);
        solve_shifted(t, values[k], least, x, work);
      }
      orthonormalize(x, n, vectors, k);
    }
  });
  team.parallel_for(count, [&](int k) {
    double* const x = vectors + static_cast<std::size_t>(k) * n;
    for (int s = n - 3; s >= 0; --s) {
      const double* const v = a + static_cast<std::size_t>(s) * ld + s + 1;
      const int length = n - s - 1;
      const double part = t.factor[s] * inner_product(v, x + s + 1, length);
      BRAGG_HD_UNROLL(4)
      for (int i = 0; i < length; ++i) x[s + 1 + i] -= part * v[i];
    }
  });
}

/// The eigenvectors of a symmetric matrix whose eigenvalues are the largest one, but for a share of 1e-9.
struct TopEigenspace {
  double* matrix = nullptr;   ///< n × n
  double* vectors = nullptr;  ///< rank × m, orthonormal
  double* values = nullptr;   ///< rank, descending
  double* work = nullptr;     ///< 3n, whose content is lost
  Tridiagonal tridiagonal = {};

  /// Room for matrices of up to n × n: 2n² + 7n doubles.
  BRAGG_HD static TopEigenspace carve(Scratch& scratch, std::size_t n) {
    TopEigenspace space;
    space.matrix = scratch.take_doubles(n * n);
    space.vectors = scratch.take_doubles(n * n);
    space.values = scratch.take_doubles(n);
    space.work = scratch.take_doubles(3 * n);
    space.tridiagonal.diagonal = scratch.take_doubles(n);
    space.tridiagonal.off = scratch.take_doubles(n);
    space.tridiagonal.factor = scratch.take_doubles(n);
    return space;
  }

  /// Of the m × m matrix that `matrix` holds (both triangles, of a norm near 1), which is overwritten; the
  /// rank, at least 1.
  template <class TeamT>
  BRAGG_HD int find(TeamT team, int m) {
    tridiagonal.n = m;
    tridiagonalize(team, matrix, m, tridiagonal, work);
    const int above = count_above(tridiagonal, eigenvalue(tridiagonal, 0) * (1 - 1e-9));
    const int rank = above > 1 ? above : 1;
    top_eigenvectors(team, matrix, m, tridiagonal, rank, values, vectors, work);
    return rank;
  }
};

}  // namespace bragg::detail
