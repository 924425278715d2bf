// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

/// Products and statistics of a batch of rows, all of dtype; of pairs, up to most_register_rows rows.
template <DType dtype>
void gram_chunks(const GramBatch& batch, Stream stream);

/// The same in pairs of floats (double_float.cuh, double_float_lengths.cuh) of any number of rows that are
/// not f64: of pairs not about a centre, of lengths about one, too.
template <DType dtype>
void gram_chunks_double_float(const GramBatch& batch, Stream stream);

/// The same of pairs by bytes on tensor cores (int8.cuh).
template <DType dtype>
void gram_chunks_int8(const GramBatch& batch, Stream stream);

}  // namespace bragg::detail::cuda
