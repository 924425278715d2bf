// SPDX-License-Identifier: Apache-2.0
#include "host/cpu/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/columns_f64.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/highway.h>

#include "host/cpu/columns-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
ColumnNetwork network_f64(int points, bool middle) { return unrolled_network<KeysF64>(points, middle); }
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {
HWY_EXPORT(network_f64);
ColumnNetwork column_network_f64(int points, bool middle) {
  return HWY_DYNAMIC_DISPATCH(network_f64)(points, middle);
}
}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
