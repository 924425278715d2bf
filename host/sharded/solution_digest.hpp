// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "host/plan/engine.hpp"
#include "host/sharded/agreement.hpp"

namespace bragg::detail {

/// Of what pass 2 makes the output of.
inline std::uint64_t digest_of(const Solution& solution) {
  Digest digest;
  digest.add(solution.status);
  digest.add(solution.infinite_everywhere);
  if (solution.status != Status::ok) return digest.value();
  if (!solution.coordinate_wise) {
    digest.add(solution.coefficients);
    return digest.value();
  }
  digest.add(solution.points);
  digest.add(solution.rows);
  digest.add(solution.mix);
  digest.add(solution.infinite);
  digest.add(solution.weights);
  return digest.value();
}

}  // namespace bragg::detail
