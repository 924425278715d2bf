// SPDX-License-Identifier: Apache-2.0
// Sorting a vector of columns: up to 64 values of each, straight from the rows they lie in, by a network that
// is unrolled and scheduled for the registers there are.
#pragma once

#include <bragg/updates.hpp>
#include <cstdint>
#include <type_traits>

namespace bragg::detail::cpu {

/// What values are held as while they are sorted: f32 and f64 as they are, NaN as +inf; 16-bit types as
/// integers of the same order, as many to a vector as there are.
template <DType kTypeT>
using Key = std::conditional_t<kTypeT == DType::f64, double,
                               std::conditional_t<kTypeT == DType::f32, float, std::int16_t>>;

inline constexpr int most_column_points = 64;

/// Vectors of columns that are sorted side by side, where all their ranks are kept.
inline constexpr int sorted_vectors = 2;

/// Input and output of a ColumnSort: vectors of columns side by side. Pointers need no alignment unless it
/// says so.
struct Columns {
  /// Per wire, the first value; wires that no row is left for read constants.
  const unsigned char* const* at = nullptr;
  std::int64_t offset = 0;  ///< bytes added to each
  int vectors = 0;
  std::int64_t ahead = 0;  ///< bytes from a vector that is read to what is asked of memory meanwhile
  /// Per wire, all ones, or 0 where its values are constants: what is not finite among them is not reported.
  const std::int64_t* real = nullptr;
  std::uint16_t infinity = 0;  ///< 16-bit types: the bits of +inf
  /// Aligned. Keys of ranks in ascending order. The middle one or two: `stride` bytes apart. All: with room
  /// for sorted_vectors vectors in each.
  unsigned char* keys = nullptr;
  std::int64_t stride = 0;
  /// Aligned vector of what was seen so far, as find_nonfinite reads it; only of networks for the middle.
  unsigned char* seen = nullptr;
};

using ColumnSort = void (*)(const Columns&);

/// Sorts for at least `points` ≤ most_column_points values, or brings their middle one (an odd number of
/// wires) or two to ranks 0 and 1; `wires`: how many values it takes.
struct ColumnNetwork {
  ColumnSort sort = nullptr;
  int wires = 0;
};
ColumnNetwork column_network(DType dtype, int points, bool middle);
ColumnNetwork column_network_f32(int points, bool middle);
ColumnNetwork column_network_sixteen(int points, bool middle);
ColumnNetwork column_network_f64(int points, bool middle);

}  // namespace bragg::detail::cpu
