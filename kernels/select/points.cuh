// SPDX-License-Identifier: Apache-2.0
// Common parts of the selection kernels: which row each point is, the gate, writing results.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/common/values.cuh"
#include "kernels/select/select.hpp"

namespace bragg::detail::cuda {

/// Which row, or mixed point, point p is.
BRAGG_DEVICE int index_of(const SelectArguments& a, int tensor, int p) {
  return a.chosen == nullptr ? p : a.parts.of(a.chosen, tensor)[p];
}

BRAGG_DEVICE bool is_infinite(const SelectArguments& a, int tensor, int index) {
  return a.infinite != nullptr && a.parts.of(a.infinite, tensor)[index] != 0;
}

BRAGG_DEVICE const unsigned char* row_of(const SelectArguments& a, int tensor, int row) {
  if (row >= a.rows.inputs && a.rows.zeros[row - a.rows.inputs]) return nullptr;
  return static_cast<const unsigned char*>(
      a.rows.data[static_cast<std::int64_t>(tensor) * a.rows.count + row]);
}

/// The points of a tensor, in shared memory, point 0 again behind the last one. Points are rows.
template <int kPoints>
struct PointTable {
  const unsigned char* data[kPoints];
  int row[kPoints];
  int infinite[kPoints];
  unsigned nonfinite[kPoints];  ///< counted by this block, not yet added to the rows' counts

  BRAGG_DEVICE void clear_counts() {
    for (int p = simt::thread(); p < kPoints; p += simt::threads()) nonfinite[p] = 0;
  }

  /// Adds what was counted to the tensor's part. Every thread keeps to its own points, from clear_counts on.
  BRAGG_DEVICE void flush_counts(const SelectArguments& a, int tensor) {
    if (a.nonfinite == nullptr || tensor < 0) return;
    unsigned long long* const to = a.parts.of(a.nonfinite, tensor);
    for (int p = simt::thread(); p < kPoints; p += simt::threads()) {
      if (nonfinite[p] != 0) simt::atomic_add(to + row[p], static_cast<unsigned long long>(nonfinite[p]));
      nonfinite[p] = 0;
    }
  }

  /// Returns whether one of them reads +inf everywhere. All threads call it.
  BRAGG_DEVICE bool gather(const SelectArguments& a, int tensor) {
    bool some = false;
    for (int p = simt::thread(); p < kPoints; p += simt::threads()) {
      row[p] = index_of(a, tensor, p < a.points ? p : 0);
      data[p] = row_of(a, tensor, row[p]);
      infinite[p] = is_infinite(a, tensor, row[p]) ? 1 : 0;
      some = some || infinite[p] != 0;
    }
    return simt::sync_threads_or(some);
  }
};

/// use(p, bits) of one coordinate of points begin … end − 1, 0 where it is not inside; eight loads are under
/// way at a time. `row`: a point's address in the tensor.
template <DType dtype, class RowT, class UseT>
BRAGG_DEVICE void read_rows(int begin, int end, std::int64_t index, bool inside, Alignment alignment,
                            const RowT& row, const UseT& use) {
  for (int p = begin; p < end; p += 8) {
    Bits<dtype> bits[8];
    const auto load = [&](Alignment known) {
      each<8>([&](auto i) {
        bits[i] = inside && p + i < end ? load_element<dtype>(row(p + i), index, known) : Bits<dtype>{0};
      });
    };
    // The question is asked here: within, a branch would part the loads.
    if (alignment == Alignment::byte) {
      load(Alignment::byte);
    } else {
      load(Alignment::element);
    }
    each<8>([&](auto i) {
      if (p + i < end) use(p + i, bits[i]);
    });
  }
}

/// Writes one coordinate's result.
BRAGG_DEVICE void store_result(const SelectArguments& a, int tensor, std::int64_t index, double x,
                               Alignment alignment) {
  store_rounded(a.out.data[tensor], index, x, a.out.dtype, alignment);
  if (a.out.copy != nullptr) {
    store_rounded(a.out.copy[tensor], index, x, a.out.dtype, Alignment::element);
  }
}

/// Whether the run failed before; then the output is filled as asked. A copy, which is state, is kept.
BRAGG_DEVICE bool failed(const SelectArguments& a) {
  if (a.gate.status == nullptr || *a.gate.status == 0) return false;
  if (a.gate.on_failure == OnFailure::keep) return true;
  const double value = a.gate.on_failure == OnFailure::nan ? simt::double_of(0x7FF8000000000000ull) : 0.0;
  for (OwnPieces own(a.tiles, a.rows.sizes); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    const auto alignment = static_cast<Alignment>(a.rows.alignment[piece.tensor]);
    const int outputs = a.rule.kind == SelectRule::Kind::none ? a.points : 1;
    for (int output = 0; output < outputs; ++output) {
      void* const to = a.out.data[static_cast<std::int64_t>(output) * a.rows.tensors + piece.tensor];
      for (int i = simt::thread(); i < piece.size; i += simt::threads()) {
        store_rounded(to, piece.begin + i, value, a.out.dtype, alignment);
      }
    }
  }
  return true;
}

}  // namespace bragg::detail::cuda
