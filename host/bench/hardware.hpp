// SPDX-License-Identifier: Apache-2.0
// The machine's description of itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace bragg::bench {

struct Hardware {
  std::string cpu = "unknown";
  int cores = 1;  ///< logical, that this process may use
  std::int64_t l1d_bytes = 0, l2_bytes = 0;
  std::int64_t cache_bytes = 0;  ///< the whole last level
  std::int64_t memory_bytes = 0;
  std::string instruction_set;  ///< what the passes run
  std::string huge_pages;       ///< the system's word on transparent ones
};

Hardware this_hardware();

/// Memory that can be had without swapping.
std::int64_t available_memory();

/// Resident memory of this process, now and at its peak. A new peak is begun by reset_peak.
std::int64_t resident_bytes();
std::optional<std::int64_t> peak_bytes();
/// False where the system does not let it.
bool reset_peak();

/// `git describe` of the sources when the build was configured, or "unknown".
const char* build_commit();

}  // namespace bragg::bench
