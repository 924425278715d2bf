// SPDX-License-Identifier: Apache-2.0
// The honest rows as attacks see them.
#pragma once

#include <algorithm>
#include <bragg/attacks.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bragg::detail {

/// `count` values of one tensor of a row, from `begin` on, in double.
void load(const Updates& honest, int row, std::size_t tensor, std::int64_t begin, std::int64_t count,
          double* to);

/// @throws Error invalid_argument: the rows are not in host memory.
void check_host(const Updates& honest);

/// visit(k, count, values) for the coordinates [k, k + count), tensors one behind the other; values[row *
/// count + i] is row's coordinate k + i. Each value is read once.
template <class VisitF>
void for_blocks(const Updates& honest, VisitF visit) {
  constexpr std::int64_t block = 256;
  check_host(honest);
  std::vector<double> values(static_cast<std::size_t>(honest.n()) * block);
  std::size_t k = 0;
  for (std::size_t t = 0; t < honest.sizes().size(); ++t) {
    for (std::int64_t begin = 0; begin < honest.sizes()[t]; begin += block) {
      const std::int64_t count = std::min(block, honest.sizes()[t] - begin);
      for (int row = 0; row < honest.n(); ++row) load(honest, row, t, begin, count, &values[row * count]);
      visit(k, static_cast<std::size_t>(count), static_cast<const double*>(values.data()));
      k += static_cast<std::size_t>(count);
    }
  }
}

/// The moments of a block's coordinates into `moments`, where those are still 0.
void add_moments(int rows, std::size_t begin, std::size_t count, const double* values,
                 attacks::Moments& moments);

/// @throws Error invalid_argument: one of the row's values is NaN, infinite or beyond 2^480: sums of
/// squares would have no room.
void check_values(int row, std::span<const double> values);

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b);
/// Σ (a_k − b_k)².
double squared_distance(const Vector& a, const Vector& b);
/// a + factor · b.
Vector plus(const Vector& a, double factor, const Vector& b);

/// What the honest rows and the directions of attacks are to each other, of one read of the data: their
/// coordinates in an orthonormal basis of their span, n + 3 numbers each. Lengths, distances and products are
/// those of the rows themselves, to an error of some 1e-15 of the vectors' lengths.
struct Frame {
  attacks::Moments moments;
  std::vector<Vector> deviations;  ///< x_i − μ
  Vector mean;                     ///< μ
  Vector deviation;                ///< σ
  Vector sign;                     ///< sgn μ

  /// The rows x_i.
  std::vector<Vector> rows() const;
};

/// @throws Error invalid_argument: rows that are not in host memory, or as check_values.
Frame frame_of(const Updates& honest);

}  // namespace bragg::detail
