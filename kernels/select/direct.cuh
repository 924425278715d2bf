// SPDX-License-Identifier: Apache-2.0
// Median and trimmed mean of rows, per coordinate, by a comparator network in registers.
//
// Shapes: 1 to 128 points (f64: 64), padded to a bucket with infinities such that the wanted ranks fall on
//   the network's outputs: for the median as many −inf as +inf (odd n: one +inf more), else +inf.
// Order: NaN is made +inf by one minimum, in warps that hold what is not finite. Result bits are the CPU's.
// Threads: each takes `vectors` registers of a row, 16 (8, 4) bytes one after another where addresses allow
//   it, else coordinates that lie a block apart, several points under way together; of the pieces of
//   tile_length a block takes one range.
// Bound by memory to n ≈ 100: n·d elements are read once, d written; then by minima and maxima (n = 64: 614
//   per coordinate for the median, 1042 for the sort; 16-bit types: two coordinates per operation). Values
//   that a trimmed mean drops cost nothing (trim.cuh; where f64 is slow trim_floats.cuh, with the same bits).
// Registers: `vectors` · bucket and about 40 (bounds: common/tuning.hpp). Shared: 24 bytes per point, and a
//   tile of `vectors` · 512 bytes per point (f64: 1024), through which elements at odd addresses go.
// Not finite: one multiply-add per register detects it, on another pipe than minima; only a warp that found
//   some counts them, row by row, and takes the minima that replace NaN.
// Deterministic: a coordinate is one thread's. Not yet run on hardware.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/common/tuning.hpp"
#include "kernels/select/launch.hpp"
#include "kernels/select/means.cuh"
#include "kernels/select/points.cuh"
#include "kernels/select/trim.cuh"
#include "kernels/select/trim_floats.cuh"

namespace bragg::detail::cuda {

/// Registers in the tile through which elements at odd addresses go.
template <class TuningT>
BRAGG_HD constexpr std::size_t direct_tile(int points) {
  return static_cast<std::size_t>(points) * TuningT::vectors * TuningT::threads;
}

/// The registers of a thread: `vectors` of each point. Coordinate of register v, half h: see `coordinate`.
template <DType dtype, int kPoints, class TuningT>
struct Direct {
  using R = Register<dtype>;
  using Element = Bits<dtype>;
  static constexpr int threads = TuningT::threads;
  static constexpr int vectors = TuningT::vectors;
  static constexpr int width = R::width;
  static constexpr int results = vectors * width;  ///< coordinates of a thread
  static constexpr int span = threads * results;   ///< and of a block
  static constexpr int words = results * static_cast<int>(sizeof(Element)) / 4;

  typename R::Type v[vectors][kPoints];

  /// Whose coordinate, from the block's first.
  BRAGG_DEVICE static int coordinate(int vector, int half, bool consecutive) {
    const int k = vector * width + half;
    return consecutive ? simt::thread() * results + k : k * threads + simt::thread();
  }

  BRAGG_DEVICE static bool is_point(int i, int points) { return i < least_points<kPoints> || i < points; }

  BRAGG_DEVICE void load_consecutive(const PointTable<kPoints>& table, std::int64_t offset) {
    each<kPoints>([&](auto i) {
      std::uint32_t w[words];
      load_words(table.data[i] + offset + simt::thread() * (4 * words), w);
      each<vectors>([&](auto k) {
        if constexpr (dtype == DType::f64) {
          v[k][i] = R::of(static_cast<std::uint64_t>(w[2 * k + 1]) << 32 | w[2 * k]);
        } else {
          v[k][i] = R::of(w[k]);
        }
      });
    });
  }

  /// Element by element, into registers, all under way. Pairs of 16 bits would take registers that trimmed
  /// means do not have.
  BRAGG_DEVICE void load_strided(const PointTable<kPoints>& table, std::int64_t offset) {
    static_assert(width == 1);
    each<vectors>([&](auto k) {
      each<kPoints>([&](auto i) {
        v[k][i] =
            R::of(load_element<dtype>(table.data[i] + offset, coordinate(k, 0, false), Alignment::element));
      });
    });
  }

  /// The same at any address, by way of the thread's own places in `tile`: plain loops, which take no
  /// registers. What lies behind `left` reads 0.
  BRAGG_DEVICE void load_elements(const PointTable<kPoints>& table, int points, std::int64_t offset, int left,
                                  Alignment alignment, typename R::Type* tile) {
    auto* const elements = reinterpret_cast<Element*>(tile);
    const auto row = [&](int p) { return table.data[p] + offset; };
    each<results>([&](auto k) {
      const int c = coordinate(k / width, k % width, false);
      read_rows<dtype>(0, points, c, c < left, alignment, row, [&](int p, Element bits) {
        elements[place(p, k / width) * width + k % width] = bits;
      });
    });
    each<kPoints>([&](auto i) {
      each<vectors>([&](auto k) { v[k][i] = tile[place(is_point(i, points) ? i : 0, k)]; });
    });
  }
  BRAGG_DEVICE static int place(int p, int vector) {
    return (p * vectors + vector) * threads + simt::thread();
  }

  /// Whether a lane of the warp holds what is not finite. What pads is point 0 again.
  BRAGG_DEVICE bool sees_nonfinite() const {
    NonfiniteTest<dtype> test;
    each<kPoints>([&](auto i) { each<vectors>([&](auto k) { test.add(v[k][i]); }); });
    return simt::any(test.any());
  }

  /// Point by point, in the block's table.
  BRAGG_DEVICE void count_nonfinite(PointTable<kPoints>& table, int points) const {
    each<kPoints>([&](auto i) {
      if (!is_point(i, points)) return;
      int seen = 0;
      each<vectors>([&](auto k) {
        each<width>(
            [&](auto half) { seen += simt::popcount(simt::ballot(!is_finite(R::value(v[k][i], half)))); });
      });
      if (seen != 0 && simt::lane() == 0) {
        simt::atomic_add(&table.nonfinite[i], static_cast<unsigned>(seen));
      }
    });
  }

  BRAGG_DEVICE void make_nan_infinite() {
    each<kPoints>([&](auto i) { each<vectors>([&](auto k) { v[k][i] = R::number(v[k][i]); }); });
  }

  /// Points that read +inf everywhere, and registers behind the points: `below` of them −inf, the others
  /// +inf.
  BRAGG_DEVICE void pad(const PointTable<kPoints>& table, int points, bool some_infinite, int below) {
    if (points < kPoints) {
      each<kPoints>([&](auto i) {
        if (i < least_points<kPoints>) return;
        const auto value = i < points + below ? negative_infinity() : R::infinity();
        each<vectors>([&](auto k) { v[k][i] = is_point(i, points) ? v[k][i] : value; });
      });
    }
    if (!some_infinite) return;
    each<kPoints>([&](auto i) {
      const bool infinite = table.infinite[i] != 0 && is_point(i, points);
      each<vectors>([&](auto k) { v[k][i] = infinite ? R::infinity() : v[k][i]; });
    });
  }

  BRAGG_DEVICE static typename R::Type negative_infinity() {
    if constexpr (width == 2) {
      return R::infinity() | 0x80008000u;
    } else {
      return -R::infinity();
    }
  }

  BRAGG_DEVICE double median(int k, int half, int points, EvenMedian even) const {
    const double low = static_cast<double>(R::value(v[k][kPoints / 2 - 1], half));
    const double high = static_cast<double>(R::value(v[k][kPoints / 2], half));
    if (points % 2 == 1 || even == EvenMedian::lower) return low;
    return even == EvenMedian::upper ? high : midpoint(low, high);
  }

  template <int kWords>
  BRAGG_DEVICE static void load_words(const unsigned char* p, std::uint32_t (&w)[kWords]) {
    if constexpr (kWords == 4) {
      const uint4 q = simt::load16(p);
      w[0] = q.x, w[1] = q.y, w[2] = q.z, w[3] = q.w;
    } else if constexpr (kWords == 2) {
      const uint2 q = simt::load8(p);
      w[0] = q.x, w[1] = q.y;
    } else {
      w[0] = simt::load4(p);
    }
  }

  template <int kWords>
  BRAGG_DEVICE static void store_words(unsigned char* p, const std::uint32_t (&w)[kWords]) {
    if constexpr (kWords >= 4) {
      BRAGG_UNROLL
      for (int k = 0; k < kWords; k += 4) {
        simt::store16(p + 4 * k, uint4{w[k], w[k + 1], w[k + 2], w[k + 3]});
      }
    } else if constexpr (kWords == 2) {
      simt::store8(p, uint2{w[0], w[1]});
    } else {
      *reinterpret_cast<std::uint32_t*>(p) = w[0];
    }
  }

  /// `to`: the block's first coordinate.
  template <DType out, class T>
  BRAGG_DEVICE static void store(unsigned char* to, const T (&x)[results], int left, bool consecutive,
                                 Alignment alignment) {
    constexpr int size = static_cast<int>(sizeof(Bits<out>));
    if (consecutive) {
      std::uint32_t w[results * size / 4];
      each<results>([&](auto k) {
        const Bits<out> bits = round_to<out>(x[k]);
        if constexpr (size == 8) {
          w[2 * k] = static_cast<std::uint32_t>(bits);
          w[2 * k + 1] = static_cast<std::uint32_t>(bits >> 32);
        } else if constexpr (size == 4) {
          w[k] = bits;
        } else if (k % 2 == 0) {
          w[k / 2] = bits;
        } else {
          w[k / 2] |= static_cast<std::uint32_t>(bits) << 16;
        }
      });
      store_words(to + simt::thread() * (results * size), w);
      return;
    }
    each<results>([&](auto k) {
      const int c = coordinate(k / width, k % width, false);
      if (c < left) store_element<out>(to, c, round_to<out>(x[k]), alignment);
    });
  }

  template <DType out, class T>
  BRAGG_DEVICE static void store_both(const SelectArguments& a, const Piece& piece, int done,
                                      const T (&x)[results], bool consecutive, Alignment alignment) {
    const std::int64_t offset = (piece.begin + done) * static_cast<std::int64_t>(sizeof(Bits<out>));
    const int left = piece.size - done;
    store<out>(static_cast<unsigned char*>(a.out.data[piece.tensor]) + offset, x, left, consecutive,
               alignment);
    if (a.out.copy != nullptr) {
      store<out>(static_cast<unsigned char*>(a.out.copy[piece.tensor]) + offset, x, left, consecutive,
                 Alignment::element);
    }
  }
};

/// Writes trimmed means that are added up in floats; sorts the registers.
template <DType dtype, int kPoints, class TuningT>
BRAGG_DEVICE void write_means(Direct<dtype, kPoints, TuningT>& work, const SelectArguments& a,
                              const KeptFloats& kept, const Piece& piece, int done, bool consecutive,
                              Alignment alignment) {
  using Work = Direct<dtype, kPoints, TuningT>;
  each<Work::vectors>([&](auto k) { sort_registers<dtype, 0, kPoints - 1>(work.v[k]); });
  float x[Work::results];
  trimmed_means_of_floats<dtype>(work.v, a.points, a.rule, kept, a.out.dtype, x);
  if constexpr (Work::width == 2) {
    if (a.out.dtype == DType::f32) {
      return Work::template store_both<DType::f32>(a, piece, done, x, consecutive, alignment);
    }
  }
  Work::template store_both<dtype>(a, piece, done, x, consecutive, alignment);
}

/// `span` coordinates of a piece, from `done` on.
template <DType dtype, int kPoints, bool kMedian, class TuningT, class KeptT>
BRAGG_DEVICE void select_span(const SelectArguments& a, PointTable<kPoints>& table,
                              typename Register<dtype>::Type* tile, bool some_infinite,
                              [[maybe_unused]] const KeptT& kept, const Piece& piece, int done) {
  using Work = Direct<dtype, kPoints, TuningT>;
  const auto alignment = static_cast<Alignment>(a.rows.alignment[piece.tensor]);
  const int left = piece.size - done;
  // A load of one element needs no more than its alignment.
  constexpr bool is_one_load = 4 * Work::words == static_cast<int>(sizeof(Bits<dtype>));
  constexpr bool is_strided = !is_one_load && Work::width == 1;
  const bool whole = alignment != Alignment::byte && left >= Work::span;
  const bool consecutive = whole && (is_one_load || alignment == Alignment::vector);
  const std::int64_t offset = (piece.begin + done) * static_cast<std::int64_t>(sizeof(Bits<dtype>));
  Work work;
  if (consecutive) {
    work.load_consecutive(table, offset);
  } else if (is_strided && whole) {
    if constexpr (is_strided) work.load_strided(table, offset);
  } else {
    work.load_elements(table, a.points, offset, left, alignment, tile);
  }
  if (work.sees_nonfinite()) {
    if (a.nonfinite != nullptr) work.count_nonfinite(table, a.points);
    work.make_nan_infinite();
  }
  work.pad(table, a.points, some_infinite, kMedian ? (kPoints - a.points) / 2 : 0);
  if constexpr (std::is_same_v<KeptT, KeptFloats>) {
    write_means(work, a, kept, piece, done, consecutive, alignment);
  } else {
    double x[Work::results];
    each<Work::vectors>([&](auto k) {
      if constexpr (kMedian) {
        sort_registers<dtype, kPoints / 2 - 1, kPoints / 2>(work.v[k]);
      } else {
        sort_registers<dtype, 0, kPoints - 1>(work.v[k]);
      }
      if constexpr (kMedian) {
        each<Work::width>(
            [&](auto half) { x[k * Work::width + half] = work.median(k, half, a.points, a.rule.even); });
      }
    });
    if constexpr (!kMedian) trimmed_means<dtype>(work.v, a.points, a.rule.f, kept, x);
    if constexpr (Work::width == 2) {
      if (a.out.dtype == DType::f32) {
        return Work::template store_both<DType::f32>(a, piece, done, x, consecutive, alignment);
      }
    }
    Work::template store_both<dtype>(a, piece, done, x, consecutive, alignment);
  }
}

template <DType dtype, int kPoints, bool kMedian, class TuningT = DirectTuning<dtype, kPoints>,
          SumUnit unit = SumUnit::f64>
BRAGG_KERNEL(TuningT::threads, TuningT::blocks)
direct_kernel(BRAGG_GRID_CONSTANT SelectArguments a) {
  simt::grid_dependency_sync();
  BRAGG_SHARED(PointTable<kPoints>, tables, [1]);
  PointTable<kPoints>& table = tables[0];
  simt::DynamicShared shared;
  auto* const tile = shared.take<typename Register<dtype>::Type>(direct_tile<TuningT>(a.points));
  if (failed(a)) return;
  const auto kept = [&] {
    if constexpr (unit == SumUnit::double_float) {
      return kept_floats_by<dtype>(a.rule, a.points);
    } else {
      return kept_by(a.rule, a.points);
    }
  }();
  table.clear_counts();
  int tensor = -1;
  bool some_infinite = false;
  for (OwnPieces own(a.tiles, a.rows.sizes); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    if (piece.tensor != tensor) {
      simt::sync_threads();  // nobody reads the table any more
      table.flush_counts(a, tensor);
      tensor = piece.tensor;
      some_infinite = table.gather(a, tensor);
    }
    for (int done = 0; done < piece.size; done += Direct<dtype, kPoints, TuningT>::span) {
      select_span<dtype, kPoints, kMedian, TuningT>(a, table, tile, some_infinite, kept, piece, done);
    }
  }
  simt::sync_threads();
  table.flush_counts(a, tensor);
}

template <DType dtype, int kPoints, bool kMedian, class TuningT = DirectTuning<dtype, kPoints>,
          SumUnit unit = SumUnit::f64>
void launch_direct_bucket(const SelectArguments& a, Stream stream) {
  const auto kernel = direct_kernel<dtype, kPoints, kMedian, TuningT, unit>;
  const std::size_t shared =
      simt::shared_bytes<typename Register<dtype>::Type>(direct_tile<TuningT>(a.points));
  const std::int64_t resident = simt::resident_blocks(kernel, TuningT::threads, shared);
  const int blocks = static_cast<int>(a.tiles.pieces < resident ? a.tiles.pieces : resident);
  simt::launch_dependent(kernel, blocks, 1, TuningT::threads, shared, stream, a);
}

/// Enqueues the kernel of the bucket that holds the points: this or a larger one.
template <DType dtype, bool kMedian, SumUnit unit, int kPoints>
void launch_direct_from(const SelectArguments& a, Stream stream) {
  if (a.points <= kPoints) {
    using TuningT = std::conditional_t<unit == SumUnit::double_float, FloatDirectTuning<dtype, kPoints>,
                                       DirectTuning<dtype, kPoints>>;
    launch_direct_bucket<dtype, kPoints, kMedian, TuningT, unit>(a, stream);
  } else if constexpr (kPoints < largest_bucket<dtype>) {
    launch_direct_from<dtype, kMedian, unit, bucket_after<kPoints>>(a, stream);
  }
}

template <DType dtype, bool median, SumUnit unit>
void launch_direct(const SelectArguments& a, Stream stream) {
  launch_direct_from<dtype, median, unit, buckets[0]>(a, stream);
}

}  // namespace bragg::detail::cuda
