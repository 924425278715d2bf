// SPDX-License-Identifier: Apache-2.0
// Products of rows of one dtype, of pairs up to 48 rows: which kernel makes them.
#pragma once

#include <type_traits>

#include "kernels/gram/chunks.hpp"
#include "kernels/gram/few.cuh"
#include "kernels/gram/fragments.cuh"
#include "kernels/gram/lengths.cuh"

namespace bragg::detail::cuda {

template <DType dtype, bool centered>
void gram_pairs(const GramBatch& batch, Stream stream) {
  const auto few = [&](auto kernel) {
    simt::launch_dependent(kernel, batch.chunks, 1, few_threads, 0, stream, batch);
  };
  const auto fragments = [&](auto octets) {
    constexpr int count = decltype(octets)::value;
    simt::launch_dependent(gram_fragments<dtype, count, centered>, batch.chunks, 1,
                           32 * FragmentTuning<dtype, count>::warps, 0, stream, batch);
  };
  if (batch.rows <= 2) return few(gram_few<dtype, 2, centered>);
  if (batch.rows <= 4) return few(gram_few<dtype, 4, centered>);
  if (batch.rows <= 6) return few(gram_few<dtype, 6, centered>);
  if (batch.rows <= 8) return few(gram_few<dtype, 8, centered>);
  if (batch.rows <= 16) return fragments(std::integral_constant<int, 2>());
  if (batch.rows <= 24) return fragments(std::integral_constant<int, 3>());
  if (batch.rows <= 32) return fragments(std::integral_constant<int, 4>());
  // 40 doubles, their network and the products do not fit in registers; 48 do.
  if constexpr (!centered || dtype != DType::f64) {
    if (batch.rows <= 40) return fragments(std::integral_constant<int, 5>());
  }
  fragments(std::integral_constant<int, 6>());
}

template <DType dtype>
void gram_chunks(const GramBatch& batch, Stream stream) {
  if (!batch.pass.pairs) return launch_lengths<dtype>(batch, stream);
  if (batch.pass.center == Center::none) return gram_pairs<dtype, false>(batch, stream);
  gram_pairs<dtype, true>(batch, stream);
}

}  // namespace bragg::detail::cuda
