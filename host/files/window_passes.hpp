// SPDX-License-Identifier: Apache-2.0
// Interface of the passes over windows of rows in host memory. A window lies in a slot; work on a slot may be
// under way until it is waited for, while the caller fills another.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "host/plan/engine.hpp"

namespace bragg::detail {

/// The memory of a slot: table rows that are read from files, `row_stride` bytes apart (a multiple of 64),
/// and a row of output.
struct SlotShape {
  int rows = 0;
  std::int64_t row_stride = 0;
};

class WindowPasses {
 public:
  virtual ~WindowPasses() = default;

  virtual int slots() const noexcept = 0;
  virtual std::byte* rows(int slot) noexcept = 0;
  virtual std::byte* output(int slot) noexcept = 0;

  /// Until nothing is under way in the slot: it may be filled, and its output read.
  virtual void wait(int /*slot*/) {}
  /// The first `bytes` bytes of these rows were filled.
  virtual void loaded(int /*slot*/, std::span<const int> /*rows*/, std::int64_t /*bytes*/) {}

  /// Pass 1 over one window; its table points into the slot. All windows' sums are in `sums` after `collect`.
  virtual void accumulate(int slot, const RowTable& window, GramSums& sums) = 0;
  virtual void collect(GramSums& /*sums*/) {}

  /// Counts the non-finite values of each table row in a window that rows are not judged by: they make a row
  /// infinite too. `scanned` adds those of all windows since, and forgets them.
  virtual void scan(int slot, const RowTable& window) = 0;
  virtual void scanned(std::span<std::int64_t> nonfinite) = 0;

  /// Pass 2: start once, then apply to each window; non-finite counts are in the solution's report after
  /// `finish`.
  virtual void start(const Solution& /*solution*/) {}
  virtual void apply(int slot, const RowTable& window, const OutTable& out, Solution& solution) = 0;
  virtual void finish(Solution& /*solution*/) {}
};

std::unique_ptr<WindowPasses> make_cpu_passes(Engine& engine, const SlotShape& shape);
/// `coordinates`: of all windows, `active`: caller's indices of the table's inputs. @throws Error
/// unsupported, invalid_argument: no such device; out_of_memory.
std::unique_ptr<WindowPasses> make_cuda_passes(const Options& options, const SlotShape& shape,
                                               std::int64_t coordinates, std::span<const int> active);

}  // namespace bragg::detail
