// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bragg/error.hpp>
#include <cstdlib>
#include <string>
#include <utility>

#include "kernels/gram/centers.cuh"
#include "kernels/gram/chunks.hpp"
#include "kernels/gram/library.cuh"
#include "kernels/gram/statistics.cuh"
#include "kernels/gram/sums.cuh"
#include "kernels/gram/tiles.cuh"
#include "kernels/runtime/launch.hpp"
#include "kernels/runtime/runtime.hpp"

namespace bragg::detail::cuda {
namespace {

thread_local GramUnit scoped_unit = GramUnit::automatic;

constexpr std::int64_t batch_doubles = std::int64_t{1} << 23;
/// Medians that are kept at a time, and their bytes where bytes are multiplied: those of 1024 of the longest
/// chunks of f32, each of which may be one block.
constexpr std::int64_t batch_centers = std::int64_t{1} << 23;
constexpr std::int64_t batch_center_bytes = std::int64_t{1} << 28;

/// Rows that are not zeros in every tensor.
int rows_read(const Rows& rows) {
  int count = rows.count;
  for (int r = rows.inputs; r < rows.count; ++r) count -= rows.zeros[r - rows.inputs] ? 1 : 0;
  return count;
}

bool goes_by_tiles(const Rows& rows, int rows_read, bool pairs) {
  return pairs && (rows_read > most_register_rows || !have_one_dtype(rows));
}

/// About a centre rows of zeros are rows as any other, of the others' dtype.
void read_zeros(Rows& rows) {
  for (int k = 0; k < rows.count - rows.inputs; ++k) {
    if (rows.zeros[k]) rows.reference_dtype[k] = rows.dtype;
    rows.zeros[k] = false;
  }
}

Rows rows_of_record(Rows rows, bool centered) {
  if (centered) read_zeros(rows);
  return rows;
}

/// A choice for so many rows: what is wanted, else what is preferred on a device.
GramUnit choice_of(GramUnit wanted, int device, int rows) {
  return wanted != GramUnit::automatic ? wanted : preferred_gram_unit(compute_capability(device), rows);
}

/// Who computes products of so many rows by a choice.
GramUnit unit_of(const Rows& rows, int read, bool pairs, bool centered, GramUnit unit) {
  if (!pairs) return unit_of_lengths(unit, rows.dtype);
  const GramUnit of_pairs = centered ? unit_about_center(unit) : unit;
  const bool fits = of_pairs == GramUnit::cublas || have_one_dtype(rows);
  return fits && has_kernel(of_pairs, read, rows.dtype) ? of_pairs : GramUnit::tensor;
}
GramUnit unit_of(const GramBatch& batch) {
  const GramArguments& pass = batch.pass;
  const GramUnit unit = unit_of(pass.rows, batch.rows, pass.pairs, pass.center != Center::none, pass.unit);
  // A library cannot leave a part alone.
  return unit == GramUnit::cublas && pass.skip != nullptr ? GramUnit::tensor : unit;
}

/// Whether medians are found by a kernel of their own, as of more rows than a warp's registers sort.
bool finds_centers_apart(const Rows& rows, bool pairs, GramUnit unit) {
  return !pairs || goes_by_tiles(rows, rows.count, pairs) ||
         unit_of(rows, rows.count, pairs, true, unit) != GramUnit::tensor;
}

/// Chunks whose medians are kept at a time: by the choice, whatever the rows' references.
std::int64_t center_batch(const Cut& chunks, DType dtype, GramUnit unit) {
  const bool is_int8 = unit_about_center(unit) == GramUnit::int8;
  const std::int64_t fit =
      (is_int8 ? batch_center_bytes / static_cast<std::int64_t>(size_of(dtype)) : batch_centers) /
      chunks.length;
  const std::int64_t most = fit > 1 ? fit : 1;
  return chunks.pieces < most ? chunks.pieces : most;
}

int as_many_as_fit(std::int64_t blocks, int resident) {
  return blocks < resident ? static_cast<int>(blocks) : resident;
}

int library_places(int rows) {
  const std::int64_t fit = LibraryTuning::doubles / (std::int64_t{LibraryTuning::depth} * rows);
  return static_cast<int>(std::clamp<std::int64_t>(fit, 1, LibraryTuning::most_places));
}

/// A library's memory, in doubles: of rows, of products, then its workspace. Of fewer rows there are not
/// more.
struct LibraryLayout {
  std::size_t products_at;
  std::size_t workspace_at;

  explicit LibraryLayout(int rows) {
    constexpr std::int64_t most = LibraryTuning::most_places;
    const auto whole = [](std::int64_t doubles) {
      return (static_cast<std::size_t>(doubles) + 31) / 32 * 32;
    };
    const std::int64_t place = std::int64_t{LibraryTuning::depth} * rows;
    const std::int64_t square = std::int64_t{rows} * rows;
    products_at = whole(std::max(place, std::min(most * place, LibraryTuning::doubles)));
    workspace_at =
        products_at + whole(std::max(square, std::min(most * square,
                                                      LibraryTuning::doubles / LibraryTuning::depth * rows)));
  }
};

void launch_library(const GramBatch& batch, const GramLibrary& library, Stream stream) {
  if (library.blas == nullptr) throw Error(Status::internal, "products by cuBLAS without a handle of it");
  const int rows = batch.rows;
  const std::int64_t length = batch.pass.chunks.length;
  const auto depth = static_cast<int>(std::min<std::int64_t>(LibraryTuning::depth, length));
  const int at_a_time = library_places(rows);
  auto* const memory = static_cast<double*>(library.memory);
  const LibraryLayout layout(batch.pass.rows.count);
  Places places{.of_chunk = static_cast<int>((length + depth - 1) / depth),
                .depth = depth,
                .rows = memory,
                .products = memory + layout.products_at};
  const BatchedProducts product{.rows = places.rows,
                                .n = rows,
                                .depth = depth,
                                .count = at_a_time,
                                .products = places.products,
                                .workspace = memory + layout.workspace_at};
  const int resident = simt::resident_blocks(gram_gather, widen_threads, 0);
  const std::int64_t all = std::int64_t{batch.chunks} * places.of_chunk;
  for (; places.first < all; places.first += at_a_time) {
    places.count = static_cast<int>(std::min<std::int64_t>(all - places.first, at_a_time));
    const int groups = (rows + widen_rows - 1) / widen_rows;
    simt::launch_dependent(gram_widen, places.count * groups, 1, widen_threads, 0, stream, batch, places);
    if (is_rehearsal()) {
      library.blas->make_ready(product);
    } else {
      const std::size_t place =
          sizeof(double) * static_cast<std::size_t>(rows) * static_cast<std::size_t>(depth);
      const auto count = static_cast<std::size_t>(places.count);
      set_bytes(reinterpret_cast<std::byte*>(places.rows) + count * place, 0,
                (static_cast<std::size_t>(at_a_time) - count) * place, stream);
      library.blas->enqueue(product, stream);
    }
    const std::int64_t chunks = std::min<std::int64_t>(batch.chunks, places.count / places.of_chunk + 2);
    const std::int64_t blocks = (chunks * triangle(rows) + widen_threads - 1) / widen_threads;
    simt::launch_dependent(gram_gather, as_many_as_fit(blocks, resident), 1, widen_threads, 0, stream, batch,
                           places);
  }
}

void launch_chunks(const GramBatch& batch, const GramLibrary& library, Stream stream) {
  const GramUnit unit = unit_of(batch);
  if (unit == GramUnit::cublas) return launch_library(batch, library, stream);
  if (unit != GramUnit::tensor) {
    return with_dtype(batch.pass.rows.dtype, [&]<DType dtype>() {
      if constexpr (dtype != DType::f64) {
        if (unit == GramUnit::int8) return gram_chunks_int8<dtype>(batch, stream);
        gram_chunks_double_float<dtype>(batch, stream);
      }
    });
  }
  if (goes_by_tiles(batch.pass.rows, batch.rows, batch.pass.pairs)) {
    const auto tiles = static_cast<int>(triangle((batch.rows + tile_rows - 1) / tile_rows));
    const auto kernel = batch.pass.center == Center::none ? gram_tiles<false> : gram_tiles<true>;
    return simt::launch_dependent(kernel, batch.chunks * tiles, 1, gram_tile_threads, tile_shared, stream,
                                  batch);
  }
  with_dtype(batch.pass.rows.dtype, [&]<DType dtype>() { gram_chunks<dtype>(batch, stream); });
}

void enqueue(const GramArguments& arguments, bool keeps_records, const GramLibrary& library, Stream stream) {
  GramBatch batch{.pass = arguments};
  if (arguments.center != Center::none) read_zeros(batch.pass.rows);
  batch.rows = rows_read(batch.pass.rows);
  const std::int64_t pieces = arguments.chunks.pieces;
  if (arguments.products == nullptr) {
    const int resident = simt::resident_blocks(gram_statistics, statistics_threads, 0);
    return simt::launch_dependent(gram_statistics, as_many_as_fit(pieces, resident), 1, statistics_threads, 0,
                                  stream, batch);
  }
  batch.pass.unit = choice_of(arguments.unit, current_device(), batch.rows);
  const int resident = simt::resident_blocks(gram_sums, sum_threads, 0);
  const std::int64_t parts = arguments.parts.per_tensor ? arguments.rows.tensors : 1;
  const std::int64_t groups = parts * ((triangle(arguments.rows.count) + 31) / 32);
  const bool medians_apart = arguments.center == Center::median &&
                             finds_centers_apart(arguments.rows, arguments.pairs, batch.pass.unit);
  const std::int64_t most =
      medians_apart
          ? std::min(arguments.batch, center_batch(arguments.chunks, arguments.rows.dtype, batch.pass.unit))
          : arguments.batch;
  do {
    batch.chunks = static_cast<int>(std::min(pieces - batch.first, most));
    if (batch.chunks > 0 && medians_apart) launch_centers(batch, stream);
    if (batch.chunks > 0) launch_chunks(batch, library, stream);
    if (keeps_records) {
      batch.pass.partial += batch.chunks * products_of_chunk(batch.rows, arguments.pairs);
    } else {
      simt::launch_dependent(gram_sums, as_many_as_fit(groups, resident), 1, sum_threads, 0, stream, batch);
    }
    batch.first += batch.chunks;
  } while (batch.first < pieces);
}

}  // namespace

GramUnit gram_unit_of(const char* name) {
  if (name == nullptr || *name == '\0') return GramUnit::automatic;
  std::string names;
  for (const NamedGramUnit& one : named_gram_units) {
    if (std::string(name) == one.name) return one.unit;
    names += std::string(one.name) + ", ";
  }
  throw Error(Status::invalid_argument,
              std::string("BRAGG_GRAM=") + name + ": needs one of " + names + "or nothing: by device");
}

GramUnitScope::GramUnitScope(GramUnit unit) noexcept : before_(std::exchange(scoped_unit, unit)) {}
GramUnitScope::~GramUnitScope() { scoped_unit = before_; }

GramUnit wanted_gram_unit() {
  static const GramUnit of_environment = gram_unit_of(std::getenv("BRAGG_GRAM"));
  return scoped_unit != GramUnit::automatic ? scoped_unit : of_environment;
}

GramUnit gram_unit(int device, int rows) { return choice_of(wanted_gram_unit(), device, rows); }

std::string gram_units(int device) {
  const GramUnit wanted = wanted_gram_unit();
  if (wanted != GramUnit::automatic) return to_string(wanted);
  const int capability = compute_capability(device);
  if (has_fast_f64(capability)) return to_string(GramUnit::tensor);
  return std::string(to_string(GramUnit::double_float)) + ", from " +
         std::to_string(least_int8_rows(capability)) + " rows on " + to_string(GramUnit::int8);
}

std::int64_t gram_batch(int rows, std::int64_t chunks, bool pairs) {
  const std::int64_t fit = batch_doubles / products_of_chunk(rows, pairs);
  const std::int64_t most = fit > 1 ? fit : 1;
  return chunks < 1 ? 1 : chunks < most ? chunks : most;
}

std::size_t gram_partial_doubles(int rows, std::int64_t chunks, bool pairs) {
  // And a low part a row, of squares, which is carried from one batch to the next (sums.cuh).
  return static_cast<std::size_t>(gram_batch(rows, chunks, pairs) * products_of_chunk(rows, pairs) + rows);
}

std::int64_t gram_record_doubles(const Rows& rows, bool pairs, bool centered) {
  return products_of_chunk(rows_read(rows_of_record(rows, centered)), pairs);
}

std::vector<RecordEntry> gram_record(const Rows& rows, bool pairs, bool centered) {
  const Rows read = rows_of_record(rows, centered);
  std::vector<int> found;
  for (int r = 0; r < read.count; ++r) {
    if (r < read.inputs || !read.zeros[r - read.inputs]) found.push_back(r);
  }
  std::vector<RecordEntry> entries;
  const int count = static_cast<int>(found.size());
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j <= i; ++j) {
      if (!pairs && i != j && i < read.inputs) continue;
      const std::int64_t place = pairs ? triangle(i) + j : i == j ? i : count + j;
      entries.push_back({place, found[static_cast<std::size_t>(i)], found[static_cast<std::size_t>(j)]});
    }
  }
  return entries;
}

std::size_t gram_center_bytes(const Rows& rows, const Cut& chunks, bool pairs, GramUnit unit) {
  const GramUnit choice = choice_of(unit, current_device(), rows.count);
  if (!finds_centers_apart(rows, pairs, choice)) return 0;
  return static_cast<std::size_t>(center_batch(chunks, rows.dtype, choice) * chunks.length) *
         size_of(rows.dtype);
}

std::size_t gram_library_bytes(int rows, const Blas& blas) {
  return LibraryLayout(rows).workspace_at * sizeof(double) + blas.workspace_bytes();
}

void gram(const GramArguments& arguments, Stream stream, const GramLibrary& library) {
  enqueue(arguments, false, library, stream);
}
void gram_records(const GramArguments& arguments, Stream stream, const GramLibrary& library) {
  enqueue(arguments, true, library, stream);
}

}  // namespace bragg::detail::cuda
