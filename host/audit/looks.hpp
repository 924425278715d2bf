// SPDX-License-Identifier: Apache-2.0
// Which rows look bad.
#pragma once

#include <vector>

#include "host/audit/rows.hpp"

namespace bragg::detail {

struct Looks {
  std::vector<AuditRow> rows;
  std::vector<bool> finite;  ///< whether the row can be computed with
  /// More than half of the finite rows are copies of each other, which says nothing then.
  bool most_are_copies = false;
  /// One row of each set of copies is taken for good, as no majority would be left without them.
  bool spares_copies = false;

  std::vector<int> honest() const;
};

/// Reads the rows once. Each is compared with the majority of the others, so fewer than half of them decide
/// nothing about the rest.
Looks look_at(AuditRows& rows);

}  // namespace bragg::detail
