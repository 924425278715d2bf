// SPDX-License-Identifier: Apache-2.0
// The kernels of select, each compiled in a file of its own.
#pragma once

#include "kernels/select/select.hpp"

namespace bragg::detail::cuda {

void direct_median_f32(const SelectArguments& arguments, Stream stream);
void direct_median_f16(const SelectArguments& arguments, Stream stream);
void direct_median_bf16(const SelectArguments& arguments, Stream stream);
void direct_median_f64(const SelectArguments& arguments, Stream stream);
void direct_trimmed_mean_f32(const SelectArguments& arguments, Stream stream);
void direct_trimmed_mean_f16(const SelectArguments& arguments, Stream stream);
void direct_trimmed_mean_bf16(const SelectArguments& arguments, Stream stream);
void direct_trimmed_mean_f64(const SelectArguments& arguments, Stream stream);

/// Mixed points and rules about a centre. The value's type: f32, or f64 of f64 rows.
void tile_f32(const SelectArguments& arguments, Stream stream);
void tile_f64(const SelectArguments& arguments, Stream stream);

/// Kind::none.
void mixed_f32(const SelectArguments& arguments, Stream stream);
void mixed_f64(const SelectArguments& arguments, Stream stream);

/// Any rule, and any number of points.
void chunks_f32(const SelectArguments& arguments, Stream stream);
void chunks_f64(const SelectArguments& arguments, Stream stream);
std::size_t chunks_f32_workspace(const SelectArguments& arguments);
std::size_t chunks_f64_workspace(const SelectArguments& arguments);

}  // namespace bragg::detail::cuda
