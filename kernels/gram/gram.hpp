// SPDX-License-Identifier: Apache-2.0
// Pass 1 on the device: inner products of rows, and which rows are not finite.
#pragma once

#include <string>
#include <vector>

#include "kernels/common/rows.hpp"
#include "kernels/common/tuning.hpp"
#include "kernels/runtime/blas.hpp"
#include "kernels/runtime/stream.hpp"

namespace bragg::detail::cuda {

/// Coordinates of a chunk of a pass over so many: a power of two.
constexpr std::int64_t gram_chunk_length(std::int64_t coordinates) {
  std::int64_t length = least_gram_chunk;
  while (length < longest_gram_chunk && coordinates / length >= 2 * wanted_gram_chunks) length *= 2;
  return length;
}

/// The centre that is subtracted from every row before rows are multiplied.
enum class Center {
  none,
  row,     ///< a row of the table
  median,  ///< per coordinate, the lower median of the worker rows that count; 0 where it is not finite
};

/// Additions that one product goes through before chunks are added up, whatever the kernel and the chunk;
/// sums of chunks are compensated. About a centre each factor is rounded once more. Products in pairs of
/// floats and of bytes are as right as after so many additions (double_float.cuh, int8.cuh).
inline constexpr int longest_sum = 4096;  ///< without a sum of sums
inline constexpr int gram_additions = longest_sum + 64;

/// Who is asked for whatever the device: a GramUnitScope of the thread says so, else BRAGG_GRAM, read once;
/// automatic: neither. @throws Error as gram_unit_of.
GramUnit wanted_gram_unit();
/// Who computes products of so many rows on a device: who is wanted, else what is preferred on its kind.
/// @throws Error as gram_unit_of; what CUDA reports.
GramUnit gram_unit(int device, int rows);
/// The same of any number of rows, in words; where they are the same, bits are.
std::string gram_units(int device);
/// Of a choice by name; null or empty: automatic. @throws Error invalid_argument: there is none of that name.
GramUnit gram_unit_of(const char* name);

/// While it lives, plans that its thread makes take a choice, for measurements; automatic: as without it.
class GramUnitScope {
 public:
  explicit GramUnitScope(GramUnit unit) noexcept;
  ~GramUnitScope();
  GramUnitScope(const GramUnitScope&) = delete;
  GramUnitScope& operator=(const GramUnitScope&) = delete;

 private:
  GramUnit before_;
};

struct GramArguments {
  Rows rows;
  Cut chunks;
  Parts parts;  ///< of products, low, nonfinite, max_abs, scale, skip, left_out
  /// Products of a batch of chunks: gram_partial_doubles(rows, chunks, pairs).
  double* partial = nullptr;
  std::int64_t batch = 0;  ///< chunks of a batch: gram_batch(rows, chunks, pairs)

  /// [rows.count²] symmetric; rows and columns of zeros included. What a row with a non-finite value touches
  /// is unspecified. Null: only statistics are wanted.
  double* products = nullptr;
  /// false: only products of each row with itself and with the reference; others are 0. At most one
  /// reference then, of the rows' dtype.
  bool pairs = true;
  bool add = false;  ///< to `products`, which hold sums of earlier windows of the same shape
  /// [rows.count²] what is to be added to `products`, so that sums of any number of windows, or of one, have
  /// the same bits; with `add` both are read. Null: products are whole.
  double* low = nullptr;
  /// [rows.count] non-finite values are added to it; null: not counted.
  unsigned long long* nonfinite = nullptr;
  /// [rows.count] bits of the largest finite |x|, or |x − centre|, of f64 rows, not scaled; raised (0 at
  /// first); null: not wanted.
  unsigned long long* max_abs = nullptr;
  const double* scale = nullptr;  ///< f64 rows are multiplied by *scale, a power of two; null: 1
  const int* skip = nullptr;      ///< parts where *skip is not 0 are left alone; null: none

  /// Products are those of rows less the centre then, and so are references', those of zeros too. The
  /// difference is taken in f64, and then scaled; or in two floats, exactly.
  Center center = Center::none;
  int center_row = 0;                      ///< of Center::row
  const std::uint8_t* left_out = nullptr;  ///< [rows.inputs] not 0: not in the median; null: all are
  const double* weights = nullptr;  ///< [rows.inputs] ≥ 0, of every part: a weighted lower median; null: 1
  void* centers = nullptr;          ///< of Center::median: gram_center_bytes(rows, chunks, pairs, unit)

  GramUnit unit = GramUnit::automatic;  ///< automatic: as the kind of device asks
};

/// Chunks whose products are kept at a time, and the memory that takes. Bounded; functions of the shape only.
std::int64_t gram_batch(int rows, std::int64_t chunks, bool pairs = true);
std::size_t gram_partial_doubles(int rows, std::int64_t chunks, bool pairs = true);

/// Memory for medians of a batch of chunks, aligned to 16 bytes. Bounded; 0 where blocks find them in
/// passing. `unit`: of the pass.
std::size_t gram_center_bytes(const Rows& rows, const Cut& chunks, bool pairs, GramUnit unit);

/// What GramUnit::cublas takes besides. It computes pairs that are not about a centre, where no part may be
/// skipped; the others tensor does.
struct GramLibrary {
  Blas* blas = nullptr;
  void* memory = nullptr;  ///< gram_library_bytes(rows, *blas), at a multiple of 256
};
std::size_t gram_library_bytes(int rows, const Blas& blas);

/// Enqueues the pass. @throws Error as simt::launch and Blas::enqueue; internal: the library is wanted, and
/// not given.
void gram(const GramArguments& arguments, Stream stream, const GramLibrary& library = {});

/// The same for somebody else to add up: the products of each chunk, its record, stay in `partial`, one
/// behind the other, where there is room for all. `products` says whether they are wanted, and is left alone.
void gram_records(const GramArguments& arguments, Stream stream, const GramLibrary& library = {});

/// The product of two rows of the table at a place of a record.
struct RecordEntry {
  std::int64_t place = 0;
  int row = 0;
  int column = 0;
};

/// Doubles of a record, and what it has: of rows that are zeros in every tensor nothing, unless rows are
/// taken about a centre.
std::int64_t gram_record_doubles(const Rows& rows, bool pairs, bool centered);
std::vector<RecordEntry> gram_record(const Rows& rows, bool pairs, bool centered);

}  // namespace bragg::detail::cuda
