// SPDX-License-Identifier: Apache-2.0
// Windows of the inputs, read into slots. They are read into buffers, not mapped: the bound on memory is
// exact, page tables do not grow with the files, and a window as large as a cache is read from memory once
// per pass.
#pragma once

#include <bragg/error.hpp>
#include <utility>

#include "host/files/inputs.hpp"
#include "host/files/window_passes.hpp"
#include "host/files/windows.hpp"

namespace bragg::detail {

class WindowReader {
 public:
  /// Table rows: the active ones, then the base where there is one.
  WindowReader(const Inputs& inputs, std::span<const int> active, std::int64_t row_stride,
               WindowPasses& passes, int threads);

  /// Rows that cannot be read, and why.
  using Failures = std::vector<std::pair<int, Error>>;

  /// Reads some rows of a window, its values as `dtype`: the window's `judged` or `combined`. Of integers, as
  /// they are.
  Failures load(const Window& window, int slot, std::span<const int> rows, DType dtype);

  /// Makes a row NaN in every slot, for all windows: it is not loaded any more.
  void make_infinite(int row);

  std::byte* row(int slot, std::size_t i) const {
    return passes_.rows(slot) + static_cast<std::int64_t>(i) * row_stride_;
  }
  /// Some pieces of the window in a slot, whose values were read as `dtype`; valid until the next call.
  RowTable table(const Window& window, int slot, Range pieces, DType dtype);

 private:
  WindowPasses& passes_;
  std::vector<RowReader> readers_;
  std::int64_t row_stride_;
  int inputs_, threads_;
  bool holds_files_ = false;  ///< between windows
  std::vector<const void*> pointers_;
  std::vector<std::int64_t> sizes_;
};

}  // namespace bragg::detail
