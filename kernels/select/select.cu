// SPDX-License-Identifier: Apache-2.0
// Which kernel computes what.
#include "kernels/select/select.hpp"

#include "kernels/common/registers.cuh"
#include "kernels/select/launch.hpp"

namespace bragg::detail::cuda {
namespace {

bool is_wide(const SelectArguments& a) { return a.rows.dtype == DType::f64; }

bool is_in_registers(const SelectArguments& a) {
  const int most = is_wide(a) ? largest_bucket<DType::f64> : largest_bucket<DType::f32>;
  return a.weights == nullptr && a.points <= most;
}

/// Rows themselves, the median or trimmed mean of them, written in their own type or f32.
bool is_direct(const SelectArguments& a) {
  const bool is_about_centre = a.rule.kind == SelectRule::Kind::closest_to_median ||
                               a.rule.kind == SelectRule::Kind::closest_to_trimmed_mean;
  const bool can_store = a.out.dtype == a.rows.dtype || (a.out.dtype == DType::f32 && !is_wide(a));
  return is_in_registers(a) && a.mix == nullptr && !is_about_centre && can_store;
}

void select_direct(const SelectArguments& a, Stream stream) {
  const bool median = a.rule.kind == SelectRule::Kind::median;
  switch (a.rows.dtype) {
    case DType::f32:
      return median ? direct_median_f32(a, stream) : direct_trimmed_mean_f32(a, stream);
    case DType::f16:
      return median ? direct_median_f16(a, stream) : direct_trimmed_mean_f16(a, stream);
    case DType::bf16:
      return median ? direct_median_bf16(a, stream) : direct_trimmed_mean_bf16(a, stream);
    case DType::f64:
      return median ? direct_median_f64(a, stream) : direct_trimmed_mean_f64(a, stream);
  }
}

}  // namespace

std::size_t select_workspace_bytes(const SelectArguments& arguments) {
  if (arguments.rule.kind == SelectRule::Kind::none || is_in_registers(arguments)) return 0;
  return is_wide(arguments) ? chunks_f64_workspace(arguments) : chunks_f32_workspace(arguments);
}

void select(const SelectArguments& arguments, Stream stream) {
  if (arguments.tiles.pieces == 0) return;
  if (arguments.rule.kind == SelectRule::Kind::none) {
    return is_wide(arguments) ? mixed_f64(arguments, stream) : mixed_f32(arguments, stream);
  }
  if (is_direct(arguments)) return select_direct(arguments, stream);
  if (is_in_registers(arguments)) {
    return is_wide(arguments) ? tile_f64(arguments, stream) : tile_f32(arguments, stream);
  }
  return is_wide(arguments) ? chunks_f64(arguments, stream) : chunks_f32(arguments, stream);
}

}  // namespace bragg::detail::cuda
