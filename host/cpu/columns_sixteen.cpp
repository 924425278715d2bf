// SPDX-License-Identifier: Apache-2.0
#include "host/cpu/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/columns_sixteen.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/highway.h>

#include "host/cpu/columns-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
ColumnNetwork network_sixteen(int points, bool middle) {
  return unrolled_network<KeysSixteen>(points, middle);
}
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {
HWY_EXPORT(network_sixteen);
ColumnNetwork column_network_sixteen(int points, bool middle) {
  return HWY_DYNAMIC_DISPATCH(network_sixteen)(points, middle);
}
}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
