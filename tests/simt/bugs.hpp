// SPDX-License-Identifier: Apache-2.0
// Kernels with one mistake each, and the same kernels without it.
#pragma once

#include <span>

namespace bragg::test {

/// Which builds stop a mistake, whatever the schedule.
enum CaughtBy : unsigned {
  every_build = 1,      ///< simt::Failure
  shadow = 2,           ///< the hooks build: simt::Failure
  red_zones = 4,        ///< the plain build and the hooks build: simt::Failure
  address_build = 8,    ///< AddressSanitizer ends the program
  undefined_build = 16  ///< UndefinedBehaviorSanitizer ends the program
};

/// Orders under which wrong results show a mistake, in builds that do not stop it, one seed of forty or more.
enum ShownBy : unsigned { no_order = 0, forward = 1, reverse = 2, random = 4, greedy = 8, any_order = 15 };

struct Bug {
  const char* name;
  bool (*run)(bool broken);  ///< whether the result is right
  unsigned caught_by;        ///< CaughtBy
  const char* message;       ///< a part of the failure's
  unsigned shown_by = no_order;
};

std::span<const Bug> bugs();

}  // namespace bragg::test
