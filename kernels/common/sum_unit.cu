// SPDX-License-Identifier: Apache-2.0
#include "kernels/common/sum_unit.hpp"

#include <bragg/error.hpp>
#include <cstdlib>
#include <string>

#include "kernels/runtime/runtime.hpp"

namespace bragg::detail::cuda {

const char* to_string(SumUnit unit) {
  return unit == SumUnit::automatic ? "automatic" : unit == SumUnit::f64 ? "f64" : "double_float";
}

SumUnit sum_unit_of(const char* name) {
  if (name == nullptr || *name == '\0') return SumUnit::automatic;
  for (const SumUnit unit : {SumUnit::f64, SumUnit::double_float}) {
    if (std::string(name) == to_string(unit)) return unit;
  }
  throw Error(Status::invalid_argument,
              std::string("BRAGG_SUMS=") + name + ": needs f64 or double_float, or nothing: by device");
}

SumUnit sum_unit(int device) {
  static const SumUnit wanted = sum_unit_of(std::getenv("BRAGG_SUMS"));
  return wanted != SumUnit::automatic ? wanted : preferred_sum_unit(compute_capability(device));
}

SumUnit settled(SumUnit asked) { return asked == SumUnit::automatic ? sum_unit(current_device()) : asked; }

}  // namespace bragg::detail::cuda
