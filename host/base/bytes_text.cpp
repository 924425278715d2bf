// SPDX-License-Identifier: Apache-2.0
#include "host/base/bytes_text.hpp"

#include <fmt/format.h>

#include <array>
#include <cstddef>

namespace bragg::detail {

std::string bytes_text(double bytes) {
  constexpr std::array<const char*, 5> units = {"B", "kB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < units.size()) {
    bytes /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes,
                     unit == 0 || bytes >= 99.95 ? 0
                     : bytes >= 9.995            ? 1
                                                 : 2,
                     units[unit]);
}

}  // namespace bragg::detail
