// SPDX-License-Identifier: Apache-2.0
// Pass 1 on the device: inner products of rows, and which rows are not finite.
#pragma once

#include "kernels/common/rows.hpp"
#include "kernels/common/stream.hpp"
#include "kernels/common/tuning.hpp"

namespace bragg::detail::cuda {

/// Coordinates of a chunk of a pass over so many: a power of two.
constexpr std::int64_t gram_chunk_length(std::int64_t coordinates) {
  std::int64_t length = least_gram_chunk;
  while (length < longest_gram_chunk && coordinates / length >= 2 * wanted_gram_chunks) length *= 2;
  return length;
}

struct GramArguments {
  Rows rows;
  Cut chunks;
  Parts parts;  ///< of products, low, nonfinite, max_abs, scale, skip
  /// Products of a batch of chunks: gram_partial_doubles(rows, chunks, pairs).
  double* partial = nullptr;
  std::int64_t batch = 0;  ///< chunks of a batch: gram_batch(rows, chunks, pairs)

  /// [rows.count²] symmetric; rows and columns of zeros included. What a row with a non-finite value touches
  /// is unspecified. Null: only statistics are wanted.
  double* products = nullptr;
  /// [rows.count²] what rounding took from products when chunks were added; null: it is lost.
  double* low = nullptr;
  /// false: only products of each row with itself and with the reference; others are 0. At most one
  /// reference then, of the rows' dtype.
  bool pairs = true;
  bool add = false;  ///< to `products`, which hold sums of earlier windows of the same shape
  /// [rows.count] non-finite values are added to it; null: not counted.
  unsigned long long* nonfinite = nullptr;
  /// [rows.count] bits of the largest finite |x| of f64 rows, raised (0 at first); null: not wanted.
  unsigned long long* max_abs = nullptr;
  const double* scale = nullptr;  ///< f64 rows are multiplied by *scale, a power of two; null: 1
  const int* skip = nullptr;      ///< parts where *skip is not 0 are left alone; null: none
};

/// Chunks whose products are kept at a time, and the memory that takes. Bounded; functions of the shape only.
std::int64_t gram_batch(int rows, std::int64_t chunks, bool pairs = true);
std::size_t gram_partial_doubles(int rows, std::int64_t chunks, bool pairs = true);

/// Enqueues the pass. @throws Error as simt::launch.
void gram(const GramArguments& arguments, Stream stream);

}  // namespace bragg::detail::cuda
