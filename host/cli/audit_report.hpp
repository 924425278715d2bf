// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/audit.hpp>
#include <string>
#include <vector>

namespace bragg::cli {

/// An audit, with the names of what it is about.
struct AuditReport {
  std::vector<std::string> workers;
  std::vector<std::string> tensors;  ///< the floating-point ones
  Audit audit;

  std::string text() const;  ///< for people
  std::string json() const;  ///< for programs
};

}  // namespace bragg::cli
