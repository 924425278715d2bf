// SPDX-License-Identifier: Apache-2.0
// Coordinate-wise rules. A strip of columns at a time: each vector of columns is sorted by a network as far
// as the rule needs (columns.hpp: straight from the rows to 64 points; above, sorted chunks in a tile and
// merges of them), and reduced in f64. Medians and trimmed means of many points are bisected (bisection.cpp).
// Mixed points are made in a tile first. A strip is read whole before any of it is written, so the output may
// lie on a row.
#include "host/cpu/select.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/select.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/highway.h>

#include <algorithm>
#include <limits>
#include <type_traits>
#include <variant>

#include "host/cpu/mix-inl.hpp"
#include "host/cpu/scratch.hpp"
#include "host/cpu/sort-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

constexpr int strip_columns = 256;  // of plain points
constexpr int mixed_bytes = 8192;   // of a strip of mixed points: leaves L1 room for subsets and keys
// Where points are written, or each is made of few rows: in L2, for long runs of a row cost fewer misses of
// the TLB (64 points written: 29 % off).
constexpr int written_columns = 512;
constexpr int long_bytes = 1 << 17;

int strip_of(const SelectJob& job) {
  if (!job.mixed()) return strip_columns;
  const bool are_written = std::holds_alternative<Written>(job.method);
  const bool are_few = std::holds_alternative<FewRows>(job.source);
  const int bytes = are_written || are_few ? long_bytes : mixed_bytes;
  const int fitting = bytes / (job.points * static_cast<int>(size_of(job.dtype))) / mixed_step * mixed_step;
  const int most = are_written ? written_columns : strip_columns;
  return std::clamp(fitting, std::max(mixed_step, step_columns(job)), most);
}

/// Of a strip's columns, where points vote.
struct VoteScratch {
  double* origin = nullptr;  // o
  double* up = nullptr;      // weight above it
  double* down = nullptr;
  unsigned char* tail = nullptr;  // one row's last elements

  VoteScratch(const SelectJob& job, int strip, ScratchCutter& cut) {
    if (!std::holds_alternative<Votes>(job.method)) return;
    const auto columns = static_cast<std::size_t>(strip);
    origin = cut.take<double>(columns);
    up = cut.take<double>(columns);
    down = cut.take<double>(columns);
    tail = cut.take<unsigned char>(columns * sizeof(double));
  }
};

/// A thread's scratch, cut from one aligned block.
template <class ValueT>
struct Scratch {
  ScratchCutter cut;
  int strip;              // columns
  Points<ValueT> points;  // mixed or weighted: their values
  double* results;        // [strip]
  MixScratch mix;
  SortScratch<ValueT> sort;
  int* order;  // weighted: [point]
  VoteScratch votes;

  Scratch(const SelectJob& job, unsigned char* memory)
      : cut(memory),
        strip(strip_of(job)),
        points{.values = cut.take<ValueT>(static_cast<std::size_t>(job.by_value() ? job.points * strip : 0)),
               .stride = strip,
               .count = job.points},
        results(cut.take<double>(static_cast<std::size_t>(strip))),
        mix(job, strip, results, cut),
        sort(job, strip, cut),
        order(cut.take<int>(std::holds_alternative<Weighted>(job.method) ? job.points : 0)),
        votes(job, strip, cut) {}
};

/// Where results go.
struct Target {
  DType dtype;
  unsigned char* const* rows;

  void write(const double* values, const Strip& strip, int row = 0) const {
    write_tile(values, strip.count, dtype,
               rows[row] + strip.begin * static_cast<std::int64_t>(size_of(dtype)));
  }
};

/// The values of the points, where they are mixed or weighted.
template <class ValueT>
void make_points(const SelectJob& job, const Strip& strip, const Scratch<ValueT>& scratch) {
  std::visit([&](const auto& source) HWY_ATTR { make_points(source, strip, scratch.mix, scratch.points); },
             job.source);
  for (int p = 0; p < job.points && job.infinite != nullptr; ++p) {
    if (job.infinite[p] == 0) continue;
    std::fill_n(scratch.points[p], scratch.strip, std::numeric_limits<ValueT>::infinity());
  }
}

template <class ValueT>
void reduce(const SelectJob& job, const Written&, const Strip& strip, const Scratch<ValueT>& scratch,
            const Target& target, std::int64_t*) {
  make_points(job, strip, scratch);
  for (int p = 0; p < job.points; ++p) {
    const ValueT* const values = scratch.points[p];
    if constexpr (std::is_same_v<ValueT, double>) {
      target.write(values, strip, p);
    } else {
      const int width = (strip.count + wide_lanes - 1) / wide_lanes * wide_lanes;
      read_wide<DType::f32>(reinterpret_cast<const unsigned char*>(values), width, scratch.results);
      target.write(scratch.results, strip, p);
    }
  }
}

template <class ValueT>
void reduce(const SelectJob& job, const Weighted& weighted, const Strip& strip,
            const Scratch<ValueT>& scratch, const Target& target, std::int64_t* nonfinite) {
  make_points(job, strip, scratch);
  // Counting rereads the rows, so it comes before an output that may lie on one of them.
  if (job.count_nonfinite()) count_nonfinite(std::get<Rows>(job.source), strip, nonfinite);
  select_weighted(job.rule, weighted, scratch.points.values, static_cast<std::size_t>(scratch.strip),
                  strip.count, scratch.results, scratch.order);
  target.write(scratch.results, strip);
}

int whole_vectors(int columns) { return (columns + wide_lanes - 1) / wide_lanes * wide_lanes; }

/// The strip's columns of a row as f64, and zeros up to a whole vector.
void read_row(const RowSource& row, const Strip& strip, unsigned char* tail, double* to) {
  const int width = whole_vectors(strip.count);
  if (row.data == nullptr) {
    std::fill_n(to, width, 0.0);
  } else {
    read_wide_any(row.dtype, whole(row, strip.begin, strip.count, width, tail), width, to);
  }
}

/// Counts a point's values, of which NaN is above all.
void take_votes(const double* values, double weight, int width, const VoteScratch& votes) {
  const Wide d;
  const auto w = hn::Set(d, weight);
  for (int i = 0; i < width; i += wide_lanes) {
    const auto x = nan_to_infinity(d, hn::Load(d, values + i));
    const auto o = hn::Load(d, votes.origin + i);
    hn::Store(hn::Add(hn::Load(d, votes.up + i), hn::IfThenElseZero(hn::Gt(x, o), w)), d, votes.up + i);
    hn::Store(hn::Add(hn::Load(d, votes.down + i), hn::IfThenElseZero(hn::Lt(x, o), w)), d, votes.down + i);
  }
}

/// Sums that rounding alone may tell apart are a draw.
void count_votes(const VoteScratch& votes, double step, int width, double* results) {
  const Wide d;
  for (int i = 0; i < width; i += wide_lanes) {
    const auto o = hn::Load(d, votes.origin + i);
    const auto up = hn::Load(d, votes.up + i);
    const auto down = hn::Load(d, votes.down + i);
    const auto draw = hn::Le(hn::Abs(hn::Sub(up, down)), hn::Mul(hn::Set(d, 1e-12), hn::Add(up, down)));
    const auto moved =
        hn::IfThenElse(hn::Gt(up, down), hn::Add(o, hn::Set(d, step)), hn::Sub(o, hn::Set(d, step)));
    hn::Store(hn::IfThenElse(draw, o, moved), d, results + i);
  }
}

template <class ValueT>
void reduce(const SelectJob& job, const Votes& method, const Strip& strip, const Scratch<ValueT>& scratch,
            const Target& target, std::int64_t* nonfinite) {
  const VoteScratch& votes = scratch.votes;
  const int width = whole_vectors(strip.count);
  double* const line = scratch.results;
  const auto* const rows = std::get_if<Rows>(&job.source);
  if (rows == nullptr) make_points(job, strip, scratch);
  if (rows != nullptr && rows->count_nonfinite) count_nonfinite(*rows, strip, nonfinite);
  read_row(strip.rows[method.origin], strip, votes.tail, votes.origin);
  std::fill_n(votes.up, width, 0.0);
  std::fill_n(votes.down, width, 0.0);
  for (int p = 0; p < job.points; ++p) {
    if (job.infinite != nullptr && job.infinite[p] != 0) continue;
    const double weight = method.weights.empty() ? 1 : method.weights[static_cast<std::size_t>(p)];
    if (rows != nullptr) {
      read_row(strip.rows[rows->rows[static_cast<std::size_t>(p)]], strip, votes.tail, line);
    } else {
      std::copy_n(scratch.points[p], width, line);
    }
    take_votes(line, weight, width, votes);
  }
  count_votes(votes, method.step, width, scratch.results);
  target.write(scratch.results, strip);
}

/// By Networks or Bisection.
template <class MethodT, class ValueT>
void reduce(const SelectJob& job, const MethodT& method, const Strip& strip, const Scratch<ValueT>& scratch,
            const Target& target, std::int64_t* nonfinite) {
  if (const auto* const rows = std::get_if<Rows>(&job.source)) {
    sort_rows(job, *rows, method, strip, scratch.sort, scratch.results, nonfinite);
  } else {
    make_points(job, strip, scratch);
    const int step = step_columns(job);
    sort_columns(job, method, (strip.count + step - 1) / step * step, scratch.sort, scratch.results);
  }
  target.write(scratch.results, strip);
}

template <class ValueT>
void select_as(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
               const Target& target, std::int64_t* nonfinite, unsigned char* memory) {
  const Scratch<ValueT> scratch(job, memory);
  scratch.mix.prepare(scratch.strip);
  prepare(job, scratch.sort, scratch.points);
  for (std::int64_t done = 0; done < count; done += scratch.strip) {
    const Strip strip{rows, begin + done,
                      static_cast<int>(std::min<std::int64_t>(scratch.strip, count - done))};
    std::visit([&](const auto& method) HWY_ATTR { reduce(job, method, strip, scratch, target, nonfinite); },
               job.method);
  }
}

void select_any(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
                DType out_dtype, unsigned char* const* out, std::int64_t* nonfinite, unsigned char* memory) {
  const Target target{out_dtype, out};
  if (job.dtype == DType::f64) {
    select_as<double>(job, rows, begin, count, target, nonfinite, memory);
  } else {
    select_as<float>(job, rows, begin, count, target, nonfinite, memory);
  }
}

std::size_t scratch_bytes(const SelectJob& job) {
  return job.dtype == DType::f64 ? Scratch<double>(job, nullptr).cut.bytes()
                                 : Scratch<float>(job, nullptr).cut.bytes();
}

const char* name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(select_any);
HWY_EXPORT(scratch_bytes);
HWY_EXPORT(name);

void select_chunk(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
                  DType out_dtype, unsigned char* const* out, std::int64_t* nonfinite,
                  unsigned char* scratch) {
  HWY_DYNAMIC_DISPATCH(select_any)(job, rows, begin, count, out_dtype, out, nonfinite, scratch);
}

std::size_t select_scratch_bytes(const SelectJob& job) { return HWY_DYNAMIC_DISPATCH(scratch_bytes)(job); }

const char* target_name() noexcept { return HWY_DYNAMIC_DISPATCH(name)(); }

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
