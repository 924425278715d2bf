// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

/// Products and statistics of a batch of rows, all of dtype; of pairs, up to most_register_rows rows.
template <DType dtype>
void gram_chunks(const GramBatch& batch, Stream stream);

extern template void gram_chunks<DType::f32>(const GramBatch&, Stream);
extern template void gram_chunks<DType::f16>(const GramBatch&, Stream);
extern template void gram_chunks<DType::bf16>(const GramBatch&, Stream);
extern template void gram_chunks<DType::f64>(const GramBatch&, Stream);

}  // namespace bragg::detail::cuda
