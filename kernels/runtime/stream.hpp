// SPDX-License-Identifier: Apache-2.0
#pragma once

struct CUstream_st;

namespace bragg::detail::cuda {

/// A cudaStream_t.
using Stream = ::CUstream_st*;

}  // namespace bragg::detail::cuda
