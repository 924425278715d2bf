// SPDX-License-Identifier: Apache-2.0
// Rows at drawn coordinates, widened to f64.
//
// Map          a thread for each coordinate drawn and eight rows (grid.y), of one part after another.
// Bound        latency: each value is a sector of its own, and where it lies is known after 60 rounds
//              of Philox for each attempt of the walk, of which there are four on average at the most.
// Resources    128 threads, 64 registers at most.
// Determinism  no sums.
// Measured     not yet run on hardware.
#include "kernels/sample/sample.hpp"

#include <algorithm>

#include "kernels/common/values.cuh"

namespace bragg::detail::cuda {

namespace {

constexpr int sample_threads = 128;
constexpr int rows_of_thread = 8;

}  // namespace

BRAGG_KERNEL(sample_threads, 4)
sample_kernel(BRAGG_GRID_CONSTANT SampleArguments pass) {
  simt::grid_dependency_sync();
  const Rows& rows = pass.rows;
  const int first_row = simt::block_y() * rows_of_thread;
  const std::int64_t step = static_cast<std::int64_t>(simt::blocks()) * sample_threads;
  BRAGG_ROLLED
  for (int part = 0; part < pass.parts; ++part) {
    const std::int64_t before = pass.per_tensor ? pass.coordinates.first[part] : 0;
    const std::int64_t end = pass.per_tensor ? pass.coordinates.first[part + 1] : pass.coordinates.pieces;
    const std::int64_t drawn = pass.sampling.of(end - before);
    BRAGG_ROLLED
    for (std::int64_t k = static_cast<std::int64_t>(simt::block()) * sample_threads + simt::thread();
         k < drawn; k += step) {
      const std::int64_t coordinate =
          sampled_coordinate(pass.sampling, *pass.round, pass.sample, end - before, k);
      const Piece at = locate(pass.coordinates, rows.sizes, before + coordinate);
      const std::int64_t element = at.begin - (pass.begins == nullptr ? 0 : pass.begins[at.tensor]);
      const bool is_here = element >= 0 && element < rows.sizes[at.tensor];
      const auto alignment = static_cast<Alignment>(rows.alignment[at.tensor]);
      BRAGG_ROLLED
      for (int row = first_row; row < rows.count && row < first_row + rows_of_thread; ++row) {
        const void* const from = rows.data[static_cast<std::int64_t>(at.tensor) * rows.count + row];
        const double value =
            from == nullptr || !is_here ? 0 : load_f64(from, element, rows.dtype_of(row), alignment);
        const void* const to = pass.to[static_cast<std::int64_t>(part) * rows.count + row];
        static_cast<double*>(const_cast<void*>(to))[k] = value;
      }
    }
  }
}

void sample(const SampleArguments& arguments, Stream stream) {
  constexpr std::int64_t most_blocks = 1024;
  const std::int64_t drawn = arguments.sampling.of(arguments.longest);
  if (drawn == 0) return;
  const auto blocks = static_cast<int>(std::min((drawn + sample_threads - 1) / sample_threads, most_blocks));
  const int rows = (arguments.rows.count + rows_of_thread - 1) / rows_of_thread;
  simt::launch_dependent(sample_kernel, blocks, rows, sample_threads, 0, stream, arguments);
}

}  // namespace bragg::detail::cuda
