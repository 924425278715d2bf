// SPDX-License-Identifier: Apache-2.0
// Which kernel computes what.
#include "kernels/select/select.hpp"

#include "kernels/common/registers.cuh"
#include "kernels/common/sum_unit.hpp"
#include "kernels/select/launch.hpp"
#include "kernels/select/mix_pairs.cuh"

namespace bragg::detail::cuda {
namespace {

using Kind = SelectRule::Kind;

bool is_wide(const SelectArguments& a) { return a.rows.dtype == DType::f64; }

bool is_in_registers(const SelectArguments& a) {
  const int most = is_wide(a) ? largest_bucket<DType::f64> : largest_bucket<DType::f32>;
  return a.weights == nullptr && a.points <= most;
}

/// Rows themselves, the median or trimmed mean of them, written in their own type or f32.
bool is_direct(const SelectArguments& a) {
  const bool has_kernel = a.rule.kind == Kind::median || a.rule.kind == Kind::trimmed_mean;
  const bool can_store = a.out.dtype == a.rows.dtype || (a.out.dtype == DType::f32 && !is_wide(a));
  return is_in_registers(a) && a.mix == nullptr && has_kernel && can_store;
}

/// Points that are mixed in pairs of floats: of rows of one dtype, where there is room for coefficients.
bool are_mixed_in_pairs(const SelectArguments& a) {
  const bool has_kernel = a.rule.kind == Kind::none || (a.rule.kind != Kind::sign_vote && is_in_registers(a));
  return a.mix != nullptr && !is_wide(a) && has_kernel && have_one_dtype(a.rows) &&
         pair_groups_held(a.points, mixed_rows(a.rows), a.rule.kind == Kind::none) > 0 &&
         settled(a.unit) == SumUnit::double_float;
}

template <DType value>
void select_values(const SelectArguments& a, Stream stream) {
  if constexpr (value == DType::f32) {
    if (are_mixed_in_pairs(a)) {
      return a.rule.kind == Kind::none ? launch_mixed<value, SumUnit::double_float>(a, stream)
                                       : launch_tile<value, SumUnit::double_float>(a, stream);
    }
  }
  if (a.rule.kind == Kind::none) return launch_mixed<value, SumUnit::f64>(a, stream);
  if (a.rule.kind == Kind::sign_vote) return launch_votes<value>(a, stream);
  if (is_in_registers(a)) return launch_tile<value, SumUnit::f64>(a, stream);
  launch_chunks<value>(a, stream);
}

}  // namespace

std::size_t select_workspace_bytes(const SelectArguments& arguments) {
  const bool has_tiles = arguments.rule.kind != Kind::none && arguments.rule.kind != Kind::sign_vote;
  if (!has_tiles || is_in_registers(arguments)) return 0;
  return is_wide(arguments) ? chunk_workspace<DType::f64>(arguments) : chunk_workspace<DType::f32>(arguments);
}

void select(const SelectArguments& arguments, Stream stream) {
  if (arguments.tiles.pieces == 0) return;
  if (is_direct(arguments)) {
    return with_dtype(arguments.rows.dtype, [&]<DType dtype>() {
      if (arguments.rule.kind == Kind::median) {
        return launch_direct<dtype, true, SumUnit::f64>(arguments, stream);
      }
      if constexpr (dtype != DType::f64) {
        if (settled(arguments.unit) == SumUnit::double_float) {
          return launch_direct<dtype, false, SumUnit::double_float>(arguments, stream);
        }
      }
      launch_direct<dtype, false, SumUnit::f64>(arguments, stream);
    });
  }
  is_wide(arguments) ? select_values<DType::f64>(arguments, stream)
                     : select_values<DType::f32>(arguments, stream);
}

}  // namespace bragg::detail::cuda
