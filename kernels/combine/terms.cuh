// SPDX-License-Identifier: Apache-2.0
// What a sum over rows is made of.
#pragma once

#include "kernels/combine/combine.hpp"
#include "kernels/common/vectors.cuh"

namespace bragg::detail::cuda {

inline constexpr int combine_group = 256;  ///< rows whose terms shared memory holds at a time

/// Rows with a coefficient, in row order, in shared memory.
struct CombineTerms {
  const unsigned char** data;
  double* coefficient;
  int* row;
  int* count;  ///< [0] terms; [1] how many of them, from the front, are rows of the input's dtype
};

}  // namespace bragg::detail::cuda
