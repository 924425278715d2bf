// SPDX-License-Identifier: Apache-2.0
// How each pass is launched, and where one kernel gives way to another: every choice that a measurement on
// hardware may change, in one place. bench/gpu/variants.cu times alternatives beside what is chosen here;
// kernels/budgets.txt holds the registers that follow, and docs/predictions.md the reckoning.
#pragma once

#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>

namespace bragg::detail::cuda {

/// select of rows (direct.cuh). `vectors`: registers of a row that a thread takes, loads of 4 · vectors bytes
/// (f64: 8 · vectors); 8 bytes and more where registers allow it. `blocks`: least number of blocks per
/// multiprocessor, which limits the registers of a thread; so many that 48 KB or more are in flight.
template <DType dtype, int kPoints>
struct DirectTuning {
  static constexpr int threads = 128;
  static constexpr int vectors = kPoints > 24 ? 1 : kPoints > 8 || dtype == DType::f64 ? 2 : 4;
  static constexpr int blocks = [] {
    const int registers = vectors * kPoints * (dtype == DType::f64 ? 2 : 1);
    const int most_of_three = dtype == DType::f32 ? 96 : 64;  // sorts of 96 pairs of 16 bits would spill
    return registers <= 32 ? 5 : registers <= 48 ? 4 : registers <= most_of_three ? 3 : 2;
  }();
};

/// The same of trimmed means that are added up in floats (trim_floats.cuh): five blocks of f32 would spill.
template <DType dtype, int kPoints>
struct FloatDirectTuning : DirectTuning<dtype, kPoints> {
  using Base = DirectTuning<dtype, kPoints>;
  static constexpr int blocks = dtype == DType::f32 && Base::blocks > 4 ? 4 : Base::blocks;
};

/// select of mixed points, and of rows about a centre (tile.cuh). `value`: f32, or f64 of f64 rows. `ahead`:
/// the next rows of a mix are loaded in registers that the sort has in any case; of few points there is one
/// step. Four blocks hide the waits between its phases; of 24 points, and of f64, they would spill.
template <DType value, int kPoints>
struct TileTuning {
  static constexpr bool ahead = value == DType::f32 && kPoints > 32;
  static constexpr int blocks = [] {
    if (value == DType::f64) return kPoints <= 32 ? 3 : 2;
    return kPoints <= 16 ? 4 : kPoints <= 96 ? 3 : 2;
  }();
};

/// select of nothing: mixed points as they are (mixed.cuh). Four blocks, 128 registers per thread, would
/// spill.
struct MixedTuning {
  static constexpr int threads = 128;
  static constexpr int blocks = 3;
};

/// select of votes (votes.cuh).
struct VoteTuning {
  static constexpr int threads = 128;
  static constexpr int blocks = 3;
};

/// Coefficients that a block keeps in shared memory: of 64 points and as many rows, so that three blocks find
/// room beside the values themselves. More are read from L1 and L2.
inline constexpr std::size_t most_mix_shared = 40 * 1024;

/// The same of pairs of floats (mix_pairs.cuh) and the values beside them: what blocks of all devices have.
/// On those of 100 KB that is one block a multiprocessor from some 50 points and rows on. More are mixed in
/// f64.
inline constexpr std::size_t most_pair_shared = 96 * 1024;

/// gram of 9 to 48 rows (fragments.cuh), of so many octets. Sums of a block's warps are added in order, so
/// bits depend on how many there are.
template <DType dtype, int octets>
struct FragmentTuning {
  static constexpr int warps = 4;
  static constexpr int blocks = octets > 4 ? 2 : octets > 2 ? 3 : 5;
  static constexpr int centered_blocks = octets > 4 || (octets > 2 && dtype == DType::f64) ? 2 : 3;
};

/// gram of up to 8 rows (few.cuh): blocks of 128 threads on a multiprocessor.
template <int rows>
inline constexpr int few_blocks = rows > 6 ? 3 : 4;
template <int rows>
inline constexpr int few_centered_blocks = rows > 6 ? 2 : 3;

/// gram of rows and the reference alone (lengths.cuh). `rows`: that a block takes, each with
/// a load under way. Bits depend on `warps`.
struct LengthTuning {
  static constexpr int warps = 4;
  static constexpr int rows = 4;
  static constexpr int blocks = 6;
  static constexpr int centered_blocks = 4;
};

/// Who computes products of the Gram pass.
enum class GramUnit : std::uint8_t {
  automatic,     ///< whom the environment or the device asks for: gram_unit
  tensor,        ///< f64: tensor cores, or plain multiply-adds for few rows
  double_float,  ///< pairs of f32 where double_float*.cuh has a kernel; about a centre as int8; else f64
  int8,          ///< bytes on tensor cores where int8.cuh has a kernel, of lengths as double_float; else f64
  cublas,        ///< f64 by cuBLAS, but about a centre; never chosen unasked (docs/kernels.md)
};

/// All of them, by name: what BRAGG_GRAM and `bragg bench --gram` may say.
struct NamedGramUnit {
  GramUnit unit;
  const char* name;
};
inline constexpr NamedGramUnit named_gram_units[] = {
    {GramUnit::tensor, "tensor"},
    {GramUnit::double_float, "double_float"},
    {GramUnit::int8, "int8"},
    {GramUnit::cublas, "cublas"},
};
constexpr const char* to_string(GramUnit unit) {
  for (const NamedGramUnit& one : named_gram_units) {
    if (one.unit == unit) return one.name;
  }
  return "automatic";
}

/// By compute capability, 90 for 9.0: whether f64 has half of the rate of f32, and not a 64th of it.
constexpr bool has_fast_f64(int compute_capability) {
  return compute_capability == 80 || compute_capability == 90 || compute_capability == 100;
}

/// Rows from which bytes on tensor cores take less time than pairs of floats, as reckoned in
/// docs/predictions.md: up to 8 rows memory hides either, 16 are 15 cycles a coordinate in pairs of floats
/// and 6.5 in bytes. That is where a multiprocessor makes 1024 multiply-adds of bytes a cycle
/// (8.6, 8.9, 12.0). 10.3 may make a quarter of that: 48 rows are 136 and 143 cycles there, 64 rows 306 and
/// 238.
constexpr int least_int8_rows(int compute_capability) {
  const bool has_fast_int8 = compute_capability / 10 == 8 || compute_capability / 10 == 12;
  return has_fast_int8 ? 9 : 49;
}

constexpr GramUnit preferred_gram_unit(int compute_capability, int rows) {
  if (has_fast_f64(compute_capability)) return GramUnit::tensor;
  return rows < least_int8_rows(compute_capability) ? GramUnit::double_float : GramUnit::int8;
}

/// How sums over rows of 16 and 32 bits are taken in pass 2: combinations, mixed points, and trimmed means of
/// either rows or these.
enum class SumUnit : std::uint8_t {
  automatic,     ///< as the environment or the device asks: sum_unit
  f64,           ///< as on the CPU
  double_float,  ///< in two or three f32, where there is a kernel; else f64
};

/// Where f64 is slow, so are conversions to it, 2 a cycle.
constexpr SumUnit preferred_sum_unit(int compute_capability) {
  return has_fast_f64(compute_capability) ? SumUnit::f64 : SumUnit::double_float;
}

/// gram in pairs of floats (double_float.cuh) or bytes (int8.cuh) of so many rows. Of fewer, f64 does not
/// take longer: reckoned for 8.9, where two rows are 1 to 3 cycles a coordinate either way.
inline constexpr int least_double_float_rows = 3;
/// Whether a choice multiplies in f64, whatever the rows.
constexpr bool is_f64(GramUnit unit) { return unit == GramUnit::tensor || unit == GramUnit::cublas; }
/// Whether a choice computes products of the pairs of so many rows, all of one dtype, itself; else tensor
/// does.
constexpr bool has_kernel(GramUnit unit, int rows, DType dtype) {
  return is_f64(unit) || (rows >= least_double_float_rows && dtype != DType::f64);
}
/// Who computes lengths alone by a choice: wherever f64 is not what is asked for, pairs of floats, of any
/// number of rows.
constexpr GramUnit unit_of_lengths(GramUnit unit, DType dtype) {
  return is_f64(unit) || dtype == DType::f64 ? GramUnit::tensor : GramUnit::double_float;
}
/// Who computes products of pairs about a centre by a choice: bytes wherever f64 is not what is asked for.
/// Pairs of floats have no kernel: a difference is two, and a product of four floats.
constexpr GramUnit unit_about_center(GramUnit unit) {
  return is_f64(unit) ? GramUnit::tensor : GramUnit::int8;
}
/// Rows that a block stages at most, of 2 KB: what blocks of all devices have.
inline constexpr int most_staged_rows = 48;
/// Of rows by units of `unit`: warps of a block at most; at 12 a thread has 168 registers.
template <int unit>
struct DoubleFloatTuning {
  static constexpr int warps = unit > 4 ? 12 : 4;
  static constexpr int blocks = unit > 4 ? 1 : 5;
};

/// gram of lengths alone in pairs of floats (double_float_lengths.cuh), as LengthTuning. Beside a reference
/// or a centre there are registers for fewer rows. Bits depend on `warps`.
template <int references, bool centered>
struct DoubleFloatLengthTuning {
  static constexpr int warps = 4;
  static constexpr int rows = centered ? 2 : 4 - references;
  static constexpr int blocks = centered && references > 0 ? 2 : 3;
};

/// gram of bytes (int8.cuh) by blocks of so many warps at most; at 20 a thread has 96 registers.
template <int warps>
struct Int8Tuning {
  static constexpr int blocks = warps > 12 ? 1 : 2;
};

/// gram by cuBLAS (library.cuh). `depth`: coordinates that it adds up, of a power of two. Matrices of a call
/// stay in L2: 32 MB, and at least one. Of few rows there are fewer: bits depend on how many.
struct LibraryTuning {
  static constexpr int depth = 1024;
  static constexpr int most_places = 32;
  static constexpr std::int64_t doubles = std::int64_t{1} << 22;
};

/// Rows that registers hold the products of: what fragments.cuh is for. Above, tiles.cuh.
inline constexpr int most_register_rows = 48;

/// Coordinates of a chunk of the Gram pass, whose products are summed by themselves before chunks are added
/// in order: a function of the shape only, so the bits depend on neither the device nor the run. A power of
/// two; the longest chunk is a multiple of every other. Fewer chunks: shorter sums, one block after another
/// in gram_sums; more: the last wave of blocks leaves less of the device idle.
inline constexpr std::int64_t longest_gram_chunk = 65536;
inline constexpr std::int64_t least_gram_chunk = 1024;
inline constexpr std::int64_t wanted_gram_chunks = 1024;  ///< at least, and less than twice as many

/// Rows, references among them, whose mixing matrices the thread block makes that runs the steps (step.cu):
/// at 34 that is a microsecond or two of its 128 threads, less than a launch costs. More are a launch of
/// their own.
inline constexpr int most_rows_of_a_list = 40;
/// The same of all their neighbours, a comparison for each three rows, which at 64 take 128 threads about as
/// long as the two launches that a step between lists adds; and of Krum's scores, an addition for each two.
inline constexpr int most_rows_ranked_in_a_list = 64;
inline constexpr int most_rows_scored_in_a_list = 256;

/// combine (combine.cuh). `loads`: of 16 bytes that a thread has under way.
struct CombineTuning {
  static constexpr int threads = 128;
  static constexpr int loads = 8;
  static constexpr int blocks = 4;
};

}  // namespace bragg::detail::cuda
