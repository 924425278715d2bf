// SPDX-License-Identifier: Apache-2.0
// Descriptions of a pass's data: plain structs, made on the host and passed to kernels by value. Every
// pointer is to device memory.
#pragma once

#include <bragg/types.hpp>
#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>

#include "rules/solve/team.hpp"

namespace bragg::detail::cuda {

/// Common alignment of a tensor's addresses, in all rows that are read and the output that is written.
enum class Alignment : std::uint8_t {
  byte = 0,     ///< nothing
  element = 1,  ///< multiples of the element's own size
  vector = 2,   ///< multiples of 16 bytes
};

/// `inputs` worker rows, then references (the origin or what stands for it; the previous output), each cut
/// into the same tensors.
struct Rows {
  const void* const* data = nullptr;    ///< [tensor * count + row]; null: a tensor of zeros (references only)
  const std::int64_t* sizes = nullptr;  ///< [tensors] elements
  const std::uint8_t* alignment = nullptr;  ///< [tensors] Alignment
  int tensors = 0;
  int count = 0;
  int inputs = 0;
  bool zeros[2] = {false, false};  ///< per reference: it is zeros in every tensor
  DType dtype = DType::f32;
  DType reference_dtype[2] = {DType::f32, DType::f32};

  BRAGG_HD DType dtype_of(int row) const { return row < inputs ? dtype : reference_dtype[row - inputs]; }
};

/// Whether all rows that are not zeros in every tensor have one dtype.
BRAGG_HD inline bool have_one_dtype(const Rows& rows) {
  for (int r = rows.inputs; r < rows.count; ++r) {
    if (!rows.zeros[r - rows.inputs] && rows.dtype_of(r) != rows.dtype) return false;
  }
  return true;
}

/// How all tensors' coordinates are numbered in pieces of `length`; the last piece of a tensor is shorter,
/// and a piece never crosses into the next tensor. Empty tensors have no piece.
struct Cut {
  const std::int64_t* first = nullptr;  ///< [tensors + 1] number of each tensor's first piece
  int tensors = 0;
  std::int64_t pieces = 0;  ///< first[tensors]
  std::int64_t length = 0;
};

/// A piece: coordinates [begin, begin + size) of a tensor.
struct Piece {
  int tensor = 0;
  int size = 0;
  std::int64_t begin = 0;
};

/// The length of the pieces that pass 2 goes by.
inline constexpr std::int64_t tile_length = 1024;

/// Where one row is written. `data` may be exactly a row that is read: a thread reads its coordinates of all
/// rows before it writes them.
struct Target {
  void* const* data = nullptr;  ///< [tensors]
  void* const* copy = nullptr;  ///< [tensors], aligned to 16 bytes: the same once more (the next run's
                                ///< previous output); or null
  DType dtype = DType::f32;
};

/// Arrays that each part (the whole row; or each tensor apart) has its own of lie this far from each other.
struct Parts {
  bool per_tensor = false;
  std::size_t stride = 0;  ///< bytes

  template <class T>
  BRAGG_HD T* of(T* first_part, int tensor) const {
    if (!per_tensor || first_part == nullptr) return first_part;
    const auto address =
        reinterpret_cast<std::uintptr_t>(first_part) + stride * static_cast<std::size_t>(tensor);
    return reinterpret_cast<T*>(address);
  }
};

/// Whether a pass 2 writes its result: where *status is not Status::ok the output is kept, or filled.
struct Gate {
  const int* status = nullptr;  ///< of the whole run
  OnFailure on_failure = OnFailure::keep;
};

}  // namespace bragg::detail::cuda
