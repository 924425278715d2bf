// SPDX-License-Identifier: Apache-2.0
// The kernels of select. Each instance is compiled in a file of its own (kernels/CMakeLists.txt).
#pragma once

#include "kernels/select/select.hpp"

namespace bragg::detail::cuda {

/// The median or the trimmed mean of rows. `unit`: of means of 16 and 32 bits.
template <DType dtype, bool median, SumUnit unit>
void launch_direct(const SelectArguments& a, Stream stream);

/// Rules of mixed points, and rules about a centre. `value`: f32, or f64 of f64 rows. `unit` double_float: of
/// mixed points, as select chooses.
template <DType value, SumUnit unit>
void launch_tile(const SelectArguments& a, Stream stream);

/// Kind::none; as above.
template <DType value, SumUnit unit>
void launch_mixed(const SelectArguments& a, Stream stream);

/// Kind::sign_vote.
template <DType value>
void launch_votes(const SelectArguments& a, Stream stream);

/// Any rule but those two, and any number of points.
template <DType value>
void launch_chunks(const SelectArguments& a, Stream stream);
template <DType value>
std::size_t chunk_workspace(const SelectArguments& a);

}  // namespace bragg::detail::cuda
