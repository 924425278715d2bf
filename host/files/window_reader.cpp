// SPDX-License-Identifier: Apache-2.0
#include "host/files/window_reader.hpp"

#include <cstring>
#include <exception>

#include "host/base/team.hpp"
#include "host/files/convert.hpp"
#include "rules/floating_environment.hpp"

namespace bragg::detail {

WindowReader::WindowReader(const Inputs& inputs, std::span<const int> active, std::int64_t row_stride,
                           WindowPasses& passes, int threads)
    : passes_(passes), row_stride_(row_stride), inputs_(static_cast<int>(active.size())), threads_(threads) {
  for (const int row : active) {
    const InputRow& input = inputs.rows[static_cast<std::size_t>(row)];
    readers_.emplace_back(inputs.models[input.model], inputs.tensors, input.offset);
  }
  if (inputs.base) readers_.emplace_back(*inputs.base, inputs.tensors, 0);
  holds_files_ = readers_.size() <= files_to_hold();
  for (int i = 0; i < inputs_; ++i) {
    if (!inputs.rows[static_cast<std::size_t>(active[static_cast<std::size_t>(i)])].bad.empty())
      make_infinite(i);
  }
}

void WindowReader::make_infinite(int i) {
  for (int slot = 0; slot < passes_.slots(); ++slot) {
    passes_.wait(slot);
    // All bits set are a NaN of every floating-point type.
    std::memset(row(slot, static_cast<std::size_t>(i)), 0xFF, static_cast<std::size_t>(row_stride_));
    passes_.loaded(slot, {&i, 1}, row_stride_);
  }
}

WindowReader::Failures WindowReader::load(const Window& window, int slot, std::span<const int> rows,
                                          DType dtype) {
  const std::int64_t size = window.type->bytes;
  const bool floating = window.type->kind == ElementKind::floating;
  const std::int64_t wide = floating ? static_cast<std::int64_t>(size_of(dtype)) : size;
  passes_.wait(slot);
  std::vector<std::exception_ptr> caught(rows.size());
#pragma omp parallel for schedule(dynamic) num_threads(team(threads_))
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const FloatingEnvironment environment;
    try {
      const auto i = static_cast<std::size_t>(rows[k]);
      std::byte* const begin = row(slot, i);
      std::byte* to = begin + window.elements * (wide - size);
      for (const Piece& piece : window.pieces) {
        readers_[i].read(piece.tensor, piece.begin * size, piece.size() * size, to);
        to += piece.size() * size;
      }
      readers_[i].pause(holds_files_);
      if (floating) widen(begin, window.elements, *window.type, dtype);
    } catch (...) {
      caught[k] = std::current_exception();
    }
  }
  Failures failures;
  for (std::size_t k = 0; k < rows.size(); ++k) {
    if (!caught[k]) continue;
    try {
      std::rethrow_exception(caught[k]);
    } catch (const Error& error) {
      failures.emplace_back(rows[k], error);
    }
  }
  passes_.loaded(slot, rows, window.elements * wide);
  return failures;
}

RowTable WindowReader::table(const Window& window, int slot, Range pieces, DType dtype) {
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  const auto rows = static_cast<std::size_t>(inputs_) + 1;  // and the base, or the origin
  pointers_.assign(pieces.count * rows, nullptr);
  sizes_.clear();
  std::int64_t before = 0;
  for (std::size_t k = 0; k < pieces.first; ++k) before += window.pieces[k].size() * size;
  for (std::size_t k = 0; k < pieces.count; ++k) {
    for (std::size_t i = 0; i < readers_.size(); ++i) pointers_[k * rows + i] = row(slot, i) + before;
    sizes_.push_back(window.pieces[pieces.first + k].size());
    before += sizes_.back() * size;
  }
  return {.dtype = dtype,
          .reference_dtype = dtype,
          .inputs = inputs_,
          .rows = static_cast<int>(rows),
          .sizes = sizes_,
          .data = pointers_.data()};
}

}  // namespace bragg::detail
