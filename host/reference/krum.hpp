// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host/reference/points.hpp"

namespace bragg::reference {

struct KrumScores {
  Vector score;  ///< per candidate: Σ of its `neighbors` least squared distances to the other candidates
  Vector terms;  ///< size of the terms of each
};

KrumScores krum_scores(const Stage& stage, const std::vector<int>& candidates, int neighbors);

}  // namespace bragg::reference
