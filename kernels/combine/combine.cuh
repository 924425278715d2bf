// SPDX-License-Identifier: Apache-2.0
// out[j] = Σ_i c_i x_i[j]: pass 2 of the geometric rules.
//
// Shapes       any rows, any tensors; rows of coefficient 0 are never read.
// Order        f64 fused multiply-adds in row order, rounded once: the CPU backend's values, whatever the
//              alignment, the grid or the run. IEEE propagation of what is read. (In pairs of floats:
//              pairs.cuh.)
// Map          a block takes tiles of 1024 coordinates, a thread 8 of them: runs of 16 bytes where all
//              addresses are multiples of 16 and the tile is whole, else every 128th coordinate.
// Bound        Memory: rows with a coefficient once, out once; 8 multiply-adds per row for 16 to 64 bytes.
// Resources    128 threads, 128 registers at most (4 blocks resident); 5 KB shared: pointers and coefficients
//              of 256 rows. A thread has eight 16-byte loads in flight.
// Measured     not yet run on hardware.
#pragma once

#include <bragg/error.hpp>

#include "kernels/combine/pairs.cuh"
#include "kernels/common/tuning.hpp"
#include "kernels/common/vectors.cuh"

namespace bragg::detail::cuda {

/// One warp writes the terms among rows [first, first + combine_group) of a tensor.
BRAGG_DEVICE void collect_terms(const CombineArguments& a, int tensor, int first, const CombineTerms& terms) {
  const double* const coefficients = a.parts.of(a.coefficients, tensor);
  const void* const* const data = a.rows.data + static_cast<std::int64_t>(tensor) * a.rows.count;
  const int lane = simt::lane();
  int count = 0;
  int alike = 0;
  for (int base = first; base < first + combine_group && base < a.rows.count; base += 32) {
    const int row = base + lane;
    const bool inside = row < a.rows.count;
    const double c = inside ? coefficients[row] : 0;
    const auto* const p = inside ? static_cast<const unsigned char*>(data[row]) : nullptr;
    const bool wanted = c != 0 && p != nullptr;
    const unsigned kept = simt::ballot(wanted);
    const unsigned unlike = simt::ballot(wanted && a.rows.dtype_of(row) != a.rows.dtype);
    if (wanted) {
      const int place = count + simt::popcount(kept & ((1u << lane) - 1));
      terms.data[place] = p;
      terms.coefficient[place] = c;
      terms.row[place] = row;
    }
    // Rows of another dtype are references: nothing but references comes after them.
    const unsigned before = unlike == 0 ? kept : kept & ((unlike & (0u - unlike)) - 1);
    if (alike == count) alike += simt::popcount(before);
    count += simt::popcount(kept);
  }
  if (lane == 0) {
    terms.count[0] = count;
    terms.count[1] = alike;
  }
}

/// A thread's coordinates of a tile: runs of 16 bytes (`vector`: a whole tile of aligned addresses), or one
/// in `threads`.
template <DType kDType, bool kVector, class TuningT>
struct CombineTile {
  static constexpr DType dtype = kDType;
  static constexpr bool vector = kVector;
  static constexpr int threads = TuningT::threads;
  static constexpr int own = static_cast<int>(tile_length) / threads;  ///< coordinates
  static constexpr int run = vector_elements<dtype>;
  static constexpr int rows = TuningT::loads * run / own;  ///< under way together
  static_assert(own % run == 0 && rows > 0);

  int tensor = 0;
  int size = 0;
  std::int64_t begin = 0;
  Alignment alignment = Alignment::byte;

  /// The thread's coordinate i, from `begin`, is first() + step(i).
  BRAGG_DEVICE int first() const { return vector ? simt::thread() * run : simt::thread(); }
  static BRAGG_DEVICE int step(int i) { return vector ? i / run * (threads * run) + i % run : i * threads; }
  BRAGG_DEVICE bool has(int i) const { return vector || first() + step(i) < size; }
};

/// Adds terms [from, to), which are of the tile's dtype.
template <class TileT>
BRAGG_DEVICE void add_vectors(const TileT& tile, const CombineTerms& terms, int from, int to,
                              double (&sums)[TileT::own]) {
  constexpr int run = TileT::run;
  constexpr int loads = TileT::own / run;
  constexpr int rows = TileT::rows;
  const std::int64_t at = (tile.begin + tile.first()) * static_cast<std::int64_t>(sizeof(Bits<TileT::dtype>));
  for (int k = from; k < to; k += rows) {
    uint4 raw[rows][loads];
    BRAGG_UNROLL
    for (int u = 0; u < rows; ++u) {
      BRAGG_UNROLL
      for (int l = 0; l < loads; ++l) {
        raw[u][l] =
            k + u < to ? simt::load16(terms.data[k + u] + at + l * (TileT::threads * 16)) : uint4{0, 0, 0, 0};
      }
    }
    BRAGG_UNROLL
    for (int u = 0; u < rows; ++u) {
      const double c = k + u < to ? terms.coefficient[k + u] : 0;
      BRAGG_UNROLL
      for (int i = 0; i < TileT::own; ++i) {
        const double x = value_at<TileT::dtype>(raw[u][i / run], i % run);
        sums[i] = simt::fma(c, x, sums[i]);
      }
    }
  }
}

/// Adds terms [from, to), which are of dtype `term`.
template <DType term, class TileT>
BRAGG_DEVICE void add_elements(const TileT& tile, const CombineTerms& terms, int from, int to,
                               double (&sums)[TileT::own]) {
  // Bytes of more elements than these do not fit in registers.
  constexpr int fitting = 32 / static_cast<int>(sizeof(Bits<term>));
  constexpr int together = fitting < TileT::own ? fitting : TileT::own;
  for (int k = from; k < to; ++k) {
    const unsigned char* const p = terms.data[k];
    const double c = terms.coefficient[k];
    BRAGG_UNROLL
    for (int first = 0; first < TileT::own; first += together) {
      Bits<term> bits[together];
      BRAGG_UNROLL
      for (int i = 0; i < together; ++i) {
        const std::int64_t at = tile.begin + tile.first() + tile.step(first + i);
        bits[i] = tile.has(first + i) ? load_element<term>(p, at, tile.alignment) : Bits<term>{0};
      }
      BRAGG_UNROLL
      for (int i = 0; i < together; ++i) {
        sums[first + i] = simt::fma(c, static_cast<double>(value_of<term>(bits[i])), sums[first + i]);
      }
    }
  }
}

/// Adds the terms that shared memory holds.
template <class TileT>
BRAGG_DEVICE void add_terms(const Rows& rows, const TileT& tile, const CombineTerms& terms,
                            double (&sums)[TileT::own]) {
  const int alike = terms.count[1];
  if constexpr (TileT::vector) {
    add_vectors(tile, terms, 0, alike, sums);
  } else {
    add_elements<TileT::dtype>(tile, terms, 0, alike, sums);
  }
  for (int k = alike; k < terms.count[0]; ++k) {
    with_dtype(rows.dtype_of(terms.row[k]),
               [&]<DType dtype>() { add_elements<dtype>(tile, terms, k, k + 1, sums); });
  }
}

/// Adds the terms' non-finite values of the tile to `nonfinite`. A thread looks at its own coordinates only:
/// others may have written theirs.
template <class TileT>
BRAGG_DEVICE void count_nonfinite(const Rows& rows, const TileT& tile, const CombineTerms& terms,
                                  unsigned long long* nonfinite) {
  const int own = (tile.size + TileT::threads - 1) / TileT::threads;
  for (int k = 0; k < terms.count[0]; ++k) {
    const int row = terms.row[k];
    int found = 0;
    for (int i = 0; i < own; ++i) {
      const int j = tile.first() + tile.step(i);
      const bool bad = j < tile.size && !is_finite(load_f64(terms.data[k], tile.begin + j, rows.dtype_of(row),
                                                            tile.alignment));
      found += simt::popcount(simt::ballot(bad));
    }
    if (found > 0 && simt::lane() == 0) {
      simt::atomic_add(nonfinite + row, static_cast<unsigned long long>(found));
    }
  }
}

template <DType type, class TileT>
BRAGG_DEVICE void write_as(const TileT& tile, void* to, Alignment alignment,
                           const double (&values)[TileT::own]) {
  if constexpr (TileT::vector) {
    auto* const at = static_cast<unsigned char*>(to) +
                     (tile.begin + tile.first()) * static_cast<std::int64_t>(sizeof(Bits<type>));
    BRAGG_UNROLL
    for (int i = 0; i < TileT::own; i += TileT::run) {
      store_run<type, TileT::run>(at + tile.step(i) * static_cast<int>(sizeof(Bits<type>)), values + i);
    }
  } else {
    BRAGG_UNROLL
    for (int i = 0; i < TileT::own; ++i) {
      if (tile.has(i)) {
        store_element<type>(to, tile.begin + tile.first() + tile.step(i), round_to<type>(values[i]),
                            alignment);
      }
    }
  }
}

template <class TileT>
BRAGG_DEVICE void write_tile(const TileT& tile, DType type, void* to, Alignment alignment,
                             const double (&values)[TileT::own]) {
  with_dtype(type, [&]<DType known>() { write_as<known>(tile, to, alignment, values); });
}

/// `hold(tensor, first)` brings the terms of a group of rows to shared memory.
template <SumUnit unit, class TileT, class HoldT>
BRAGG_DEVICE void combine_tile(const CombineArguments& a, const TileT& tile, bool failed,
                               const CombineTerms& terms, const HoldT& hold) {
  const int* const infinite = a.parts.of(a.infinite, tile.tensor);
  double sums[TileT::own] = {};
  if (failed || (infinite != nullptr && *infinite != 0)) {
    const double value = !failed                                ? infinity_of<double>()
                         : a.gate.on_failure == OnFailure::zero ? 0.0
                                                                : simt::double_of(0x7FF8000000000000ull);
    BRAGG_UNROLL
    for (int i = 0; i < TileT::own; ++i) sums[i] = value;
  } else {
    if constexpr (unit == SumUnit::double_float) {
      add_in_pairs(a.rows, tile, terms, sums, hold);
    } else {
      for (int first = 0; first < a.rows.count; first += combine_group) {
        hold(tile.tensor, first);
        add_terms(a.rows, tile, terms, sums);
      }
    }
    if (a.nonfinite != nullptr) {
      // Whatever is not finite leaves a sum that is not; a finite sum may overflow too, and is looked at in
      // vain. Counting rereads the rows, so it comes before an output that may lie on one of them.
      bool suspect = false;
      BRAGG_UNROLL
      for (int i = 0; i < TileT::own; ++i) suspect = suspect || !is_finite(sums[i]);
      if (simt::sync_threads_or(suspect)) {
        for (int first = 0; first < a.rows.count; first += combine_group) {
          hold(tile.tensor, first);
          count_nonfinite(a.rows, tile, terms, a.parts.of(a.nonfinite, tile.tensor));
        }
      }
    }
  }
  // A failed run keeps its state: no copy. Copies are aligned whatever the tensors are.
  const int targets = a.out.copy != nullptr && !failed ? 2 : 1;
  for (int target = 0; target < targets; ++target) {
    void* const to = target == 0 ? a.out.data[tile.tensor] : a.out.copy[tile.tensor];
    write_tile(tile, a.out.dtype, to, target == 0 ? tile.alignment : Alignment::element, sums);
  }
}

template <DType dtype, class TuningT, SumUnit unit>
BRAGG_KERNEL(TuningT::threads, TuningT::blocks)
combine_tiles(BRAGG_GRID_CONSTANT CombineArguments a) {
  simt::grid_dependency_sync();
  BRAGG_SHARED(const unsigned char*, data, [combine_group]);
  BRAGG_SHARED(double, coefficient, [combine_group]);
  BRAGG_SHARED(int, row, [combine_group]);
  BRAGG_SHARED(int, count, [2]);
  const CombineTerms terms{data, coefficient, row, count};
  const bool failed = a.gate.status != nullptr && *a.gate.status != static_cast<int>(Status::ok);
  if (failed && a.gate.on_failure == OnFailure::keep) return;

  // The terms serve all tiles of a tensor, unless there are more rows than fit.
  int held_tensor = -1;
  int held_first = -1;
  const auto hold = [&](int tensor, int first) {
    if (tensor == held_tensor && first == held_first) return;
    simt::sync_threads();
    if (simt::warp() == 0) {
      if constexpr (unit == SumUnit::double_float) {
        collect_pair_terms(a, tensor, first, terms);
      } else {
        collect_terms(a, tensor, first, terms);
      }
    }
    simt::sync_threads();
    held_tensor = tensor;
    held_first = first;
  };
  for (OwnPieces own(a.tiles, a.rows.sizes); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    const auto alignment = static_cast<Alignment>(a.rows.alignment[piece.tensor]);
    if (alignment == Alignment::vector && piece.size == tile_length) {
      const CombineTile<dtype, true, TuningT> tile{piece.tensor, piece.size, piece.begin, alignment};
      combine_tile<unit>(a, tile, failed, terms, hold);
    } else {
      const CombineTile<dtype, false, TuningT> tile{piece.tensor, piece.size, piece.begin, alignment};
      combine_tile<unit>(a, tile, failed, terms, hold);
    }
  }
}

template <DType dtype, class TuningT = CombineTuning, SumUnit unit = SumUnit::f64>
void launch_combine(const CombineArguments& arguments, Stream stream) {
  const auto kernel = combine_tiles<dtype, TuningT, unit>;
  const std::int64_t resident = simt::resident_blocks(kernel, TuningT::threads, 0);
  const std::int64_t pieces = arguments.tiles.pieces;
  const int blocks = static_cast<int>(pieces < resident ? pieces : resident);
  simt::launch_dependent(kernel, blocks, 1, TuningT::threads, 0, stream, arguments);
}

}  // namespace bragg::detail::cuda
