// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "host/files/inputs.hpp"

namespace bragg::detail {

/// What the floating-point values of a row are like.
struct Health {
  std::int64_t nonfinite = 0;  ///< NaN or infinite; the rest is of the finite ones
  double norm = 0;
  std::size_t dominant = 0;  ///< the tensor with the largest share of the squared norm
  double share = 0;
};

/// Reads a row once, in little memory. @throws Error io_error; bad_file where the file changed.
Health examine(const Inputs& inputs, const InputRow& row);

}  // namespace bragg::detail
