// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

/// Products and statistics of a batch of rows, all of dtype; of pairs, up to most_register_rows rows.
template <DType dtype>
void gram_chunks(const GramBatch& batch, Stream stream);

}  // namespace bragg::detail::cuda
