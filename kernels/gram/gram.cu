// SPDX-License-Identifier: Apache-2.0
#include "kernels/gram/chunks.hpp"
#include "kernels/gram/statistics.cuh"
#include "kernels/gram/sums.cuh"
#include "kernels/gram/tiles.cuh"

namespace bragg::detail::cuda {
namespace {

constexpr std::int64_t batch_doubles = std::int64_t{1} << 23;

/// Rows that are not zeros in every tensor.
int rows_read(const Rows& rows) {
  int count = rows.count;
  for (int r = rows.inputs; r < rows.count; ++r) count -= rows.zeros[r - rows.inputs] ? 1 : 0;
  return count;
}

void launch_chunks(const GramBatch& batch, Stream stream) {
  if (batch.pass.pairs && (batch.rows > most_register_rows || !have_one_dtype(batch.pass.rows))) {
    const auto tiles = static_cast<int>(triangle((batch.rows + tile_rows - 1) / tile_rows));
    return simt::launch_dependent(gram_tiles, batch.chunks * tiles, 1, tile_threads, tile_shared, stream,
                                  batch);
  }
  switch (batch.pass.rows.dtype) {
    case DType::f32:
      return gram_chunks<DType::f32>(batch, stream);
    case DType::f16:
      return gram_chunks<DType::f16>(batch, stream);
    case DType::bf16:
      return gram_chunks<DType::bf16>(batch, stream);
    case DType::f64:
      return gram_chunks<DType::f64>(batch, stream);
  }
}

int as_many_as_fit(std::int64_t blocks, int resident) {
  return blocks < resident ? static_cast<int>(blocks) : resident;
}

}  // namespace

std::int64_t gram_batch(int rows, std::int64_t chunks, bool pairs) {
  const std::int64_t fit = batch_doubles / products_of_chunk(rows, pairs);
  const std::int64_t most = fit > 1 ? fit : 1;
  return chunks < 1 ? 1 : chunks < most ? chunks : most;
}

std::size_t gram_partial_doubles(int rows, std::int64_t chunks, bool pairs) {
  return static_cast<std::size_t>(gram_batch(rows, chunks, pairs) * products_of_chunk(rows, pairs));
}

void gram(const GramArguments& arguments, Stream stream) {
  GramBatch batch{arguments, 0, 0, rows_read(arguments.rows)};
  const std::int64_t pieces = arguments.chunks.pieces;
  if (arguments.products == nullptr) {
    const int resident = simt::resident_blocks(gram_statistics, statistics_threads, 0);
    return simt::launch_dependent(gram_statistics, as_many_as_fit(pieces, resident), 1, statistics_threads, 0,
                                  stream, batch);
  }
  const int resident = simt::resident_blocks(gram_sums, sum_threads, 0);
  const std::int64_t parts = arguments.parts.per_tensor ? arguments.rows.tensors : 1;
  const std::int64_t groups = parts * ((triangle(arguments.rows.count) + 31) / 32);
  do {
    const std::int64_t left = pieces - batch.first;
    batch.chunks = static_cast<int>(left < arguments.batch ? left : arguments.batch);
    if (batch.chunks > 0) launch_chunks(batch, stream);
    simt::launch_dependent(gram_sums, as_many_as_fit(groups, resident), 1, sum_threads, 0, stream, batch);
    batch.first += batch.chunks;
  } while (batch.first < pieces);
}

}  // namespace bragg::detail::cuda
