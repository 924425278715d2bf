// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host/reference/points.hpp"

namespace bragg::reference {

struct Eigen {
  Vector values;                ///< descending
  std::vector<Vector> vectors;  ///< of unit length, in the same order
};

/// Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations.
Eigen eigen(std::vector<Vector> matrix);

}  // namespace bragg::reference
