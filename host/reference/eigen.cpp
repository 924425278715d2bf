// SPDX-License-Identifier: Apache-2.0
#include "host/reference/eigen.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace bragg::reference {

namespace {

/// Rotates rows and columns p, q so that a[p][q] becomes 0; `vectors` holds eigenvectors as rows.
void rotate(std::vector<Vector>& a, std::vector<Vector>& vectors, std::size_t p, std::size_t q) {
  const long double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const long double t = std::copysign(1.0L, theta) / (std::abs(theta) + std::hypot(theta, 1.0L));
  const long double c = 1 / std::hypot(t, 1.0L);
  const long double s = t * c;
  const auto turn = [&](long double& x, long double& y) {
    const long double old = x;
    x = c * old - s * y;
    y = s * old + c * y;
  };
  for (std::size_t k = 0; k < a.size(); ++k) turn(a[k][p], a[k][q]);
  for (std::size_t k = 0; k < a.size(); ++k) turn(a[p][k], a[q][k]);
  for (std::size_t k = 0; k < a.size(); ++k) turn(vectors[p][k], vectors[q][k]);
  a[p][q] = 0;
  a[q][p] = 0;
}

}  // namespace

Eigen eigen(std::vector<Vector> matrix) {
  const std::size_t n = matrix.size();
  std::vector<Vector> vectors(n, Vector(n, 0));
  long double size = 0;
  for (std::size_t i = 0; i < n; ++i) {
    vectors[i][i] = 1;
    size += dot(matrix[i], matrix[i]);
  }
  const long double negligible = std::numeric_limits<long double>::epsilon() * std::sqrt(size) / 16;
  for (bool rotated = true; rotated;) {
    rotated = false;
    for (std::size_t p = 0; p < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        if (std::abs(matrix[p][q]) <= negligible) continue;
        rotate(matrix, vectors, p, q);
        rotated = true;
      }
    }
  }
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return matrix[i][i] > matrix[j][j]; });
  Eigen out;
  for (const std::size_t i : order) {
    out.values.push_back(matrix[i][i]);
    out.vectors.push_back(vectors[i]);
  }
  return out;
}

}  // namespace bragg::reference
