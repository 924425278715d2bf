// SPDX-License-Identifier: Apache-2.0
// What a rule asks of distances where their order alone decides its result.
#pragma once

namespace bragg::detail {

/// Each point's `taken` nearest points count, itself among them; or, `by_score`, the `kept` points whose
/// `taken` least squared distances to others have the least sums. Of equal ones those of lower indices.
struct NeededOrder {
  bool by_score = false;
  int taken = 0;
  int kept = 0;
};

}  // namespace bragg::detail
