// SPDX-License-Identifier: Apache-2.0
#include "host/sharded/sharded_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bragg/version.hpp>
#include <cstring>
#include <utility>

#include "host/sharded/agreement.hpp"

namespace bragg::detail {

namespace {

Shape with_sizes(Shape shape, std::vector<std::int64_t> sizes) {
  shape.sizes = std::move(sizes);
  return shape;
}

std::size_t as_size(std::int64_t value) { return static_cast<std::size_t>(value); }

/// Takes values of one type after another from bytes, or puts them there.
struct Cursor {
  std::byte* at;

  template <class T>
  void put(const T* values, std::size_t count) {
    if (count > 0) std::memcpy(at, values, count * sizeof(T));
    at += count * sizeof(T);
  }
  template <class T>
  void take(T* values, std::size_t count) {
    if (count > 0) std::memcpy(values, at, count * sizeof(T));
    at += count * sizeof(T);
  }
  template <class T>
  T take() {
    T value;
    take(&value, 1);
    return value;
  }
};

std::uint64_t digest_of(const Solution& solution) {
  Digest digest;
  digest.add(solution.status);
  digest.add(solution.infinite_everywhere);
  if (solution.status != Status::ok) return digest.value();
  if (!solution.coordinate_wise) {
    digest.add(solution.coefficients);
    return digest.value();
  }
  digest.add(solution.points);
  digest.add(solution.rows);
  digest.add(solution.mix);
  digest.add(solution.infinite);
  digest.add(solution.weights);
  return digest.value();
}

}  // namespace

ShardedRun::ShardedRun(Pipeline pipeline, Shape shape, Sharding sharding, int rank, const Options& options,
                       bool all_reduce, bool gathered)
    : sharding_(std::move(sharding)),
      rank_(rank),
      all_reduce_(all_reduce),
      gathered_(gathered),
      whole_(pipeline, shape, options),
      local_(std::move(pipeline), with_sizes(shape, sharding_.sizes_of(rank)), options),
      rows_(local_, leaf_blocks_of_parts(whole_, sharding_.sizes())),
      parts_(rows_.parts()),
      added_(rows_.parts()),
      solutions_(rows_.parts()),
      reports_(rows_.parts()) {
  for (std::size_t p = 0; p < parts(); ++p) cut(p);
  Digest digest;
  digest.add(std::string_view(BRAGG_VERSION_STRING));
  digest.add(std::string_view(CpuPasses::target()));
  digest.add(std::string_view(to_string(whole_.pipeline)));
  digest.add(shape.n);
  digest.add(shape.sizes);
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    digest.add(shape.dtype_of(t));
    digest.add(whole_.out_dtype_of(t));
    digest.add(shape.judged.empty() || shape.judged[t]);
  }
  digest.add(options.scope);
  digest.add(options.on_failure);
  digest.add(options.max_weight_share);
  for (int r = 0; r < ranks(); ++r) {
    for (const Slice& slice : sharding_.slices(r)) digest.add(slice.end);
  }
  digest.add(all_reduce);
  digest.add(gathered);
  digest_ = digest.value();
}

std::int64_t ShardedRun::row_bytes(int rank) const {
  std::int64_t bytes = 0;
  const std::span<const Slice> slices = sharding_.slices(rank);
  for (std::size_t t = 0; t < slices.size(); ++t)
    bytes += slices[t].size() * static_cast<std::int64_t>(size_of(whole_.shape.dtype_of(t)));
  return bytes;
}

std::int64_t ShardedRun::output_bytes(int rank) const {
  std::int64_t bytes = 0;
  const std::span<const Slice> slices = sharding_.slices(rank);
  for (std::size_t t = 0; t < slices.size(); ++t)
    bytes += slices[t].size() * static_cast<std::int64_t>(size_of(whole_.out_dtype_of(t)));
  return bytes;
}

/// Runs what may fail on this rank alone: the others are told with what is sent next.
template <class F>
void ShardedRun::guarded(F step) noexcept {
  if (failure_) return;
  try {
    step();
  } catch (...) {
    failure_ = std::current_exception();
  }
}

void ShardedRun::start(const Updates& mine, const Output& out, const RunArguments& arguments) {
  local_.check(mine, {&out, 1}, arguments.base);
  Digest digest;
  digest.add(digest_);
  digest.add(arguments.weights);
  digest.add(arguments.base.empty());
  digest.add(rows_.round());
  digest.add(rows_.has_previous());
  run_digest_ = digest.value();
  rows_.begin(mine, out, arguments);
}

void ShardedRun::begin(const Updates& mine, const Output& out, const RunArguments& arguments) {
  phase_ = Phase::begun;
  failure_ = nullptr;
  guarded([&] { start(mine, out, arguments); });
}

void ShardedRun::begin(const Row& mine, const Output& out, const RunArguments& arguments) {
  phase_ = Phase::begun;
  failure_ = nullptr;
  guarded([&] {
    const Shape& shape = whole_.shape;
    const std::span<const Slice> slices = sharding_.slices(rank_);
    whole_.check_row("mine", mine, shape.dtype);
    if (!arguments.base.empty()) whole_.check_row("base", arguments.base, shape.dtype);
    (gathered_ ? whole_ : local_).check_row("out", out, whole_.out_dtype);
    mine_ = mine;
    out_ = out;

    received_rows_.resize(as_size(row_bytes(rank_)) * static_cast<std::size_t>(shape.n));
    std::vector<std::vector<const void*>> rows(static_cast<std::size_t>(shape.n));
    const std::byte* at = received_rows_.data();
    for (auto& row : rows) {
      for (std::size_t t = 0; t < slices.size(); ++t) {
        row.push_back(at);
        at += as_size(slices[t].size()) * size_of(shape.dtype_of(t));
      }
    }
    const std::vector<std::int64_t>& sizes = local_.shape.sizes;
    Updates updates = shape.dtypes.empty() ? Updates::tensors(rows, sizes, shape.dtype)
                                           : Updates::tensors(rows, sizes, shape.dtypes);
    if (!shape.judged.empty()) updates.judge_by(shape.judged);

    Output local = out;
    local.extent.reset();
    RunArguments sliced = arguments;
    sliced.base.extent.reset();
    for (std::size_t t = 0; t < slices.size(); ++t) {
      const std::size_t first = as_size(slices[t].begin);
      if (gathered_ && out.tensors[t] != nullptr)
        local.tensors[t] = static_cast<std::byte*>(out.tensors[t]) + first * size_of(whole_.out_dtype_of(t));
      if (!sliced.base.empty() && sliced.base.tensors[t] != nullptr) {
        sliced.base.tensors[t] =
            static_cast<const std::byte*>(sliced.base.tensors[t]) + first * size_of(shape.dtype_of(t));
      }
    }
    start(updates, local, sliced);
  });
}

const Transfer* ShardedRun::next() {
  try {
    switch (phase_) {
      case Phase::over:
        break;
      case Phase::begun:
        return send_hello();
      case Phase::hello:
        check_hellos(receive_, receive_bytes_, rank_, failure_);
        return all_reduce_ ? send_rows() : sum_or_solve();
      case Phase::rows:
        return sum_or_solve();
      case Phase::leaves:
        return send_totals();
      case Phase::totals:
        take_totals();
        return sum_or_solve();
      case Phase::verdict:
        take_verdicts();
        if (all_reduce_ && gathered_ &&
            (status_ == Status::ok || whole_.options.on_failure != OnFailure::keep))
          return send_output();
        break;
      case Phase::output:
        take_output();
        break;
    }
    phase_ = Phase::over;
    return nullptr;
  } catch (...) {
    phase_ = Phase::over;
    throw;
  }
}

/// As send_bytes_ and receive_bytes_ say.
const Transfer* ShardedRun::moved(Phase phase, const std::byte* send, std::byte* receive) {
  phase_ = phase;
  transfer_ = {.send = send, .send_bytes = send_bytes_, .receive = receive, .receive_bytes = receive_bytes_};
  return &transfer_;
}

const Transfer* ShardedRun::send_hello() {
  const Hello hello = hello_of(run_digest_, failure_);
  send_.resize(sizeof(Hello));
  std::memcpy(send_.data(), &hello, sizeof(Hello));
  receive_.resize(sizeof(Hello) * static_cast<std::size_t>(ranks()));
  send_bytes_.clear();
  receive_bytes_.assign(static_cast<std::size_t>(ranks()), sizeof(Hello));
  return moved(Phase::hello, send_.data(), receive_.data());
}

const Transfer* ShardedRun::send_rows() {
  const auto n = static_cast<std::size_t>(ranks());
  send_bytes_.clear();
  for (int r = 0; r < ranks(); ++r) send_bytes_.push_back(row_bytes(r));
  receive_bytes_.assign(n, row_bytes(rank_));
  const auto* whole = static_cast<const std::byte*>(mine_.tensors.empty() ? nullptr : mine_.tensors[0]);
  if (mine_.tensors.size() > 1) {
    std::int64_t bytes = 0;
    for (const std::int64_t each : send_bytes_) bytes += each;
    send_.resize(as_size(bytes));
    Cursor cursor{send_.data()};
    for (int r = 0; r < ranks(); ++r) {
      const std::span<const Slice> slices = sharding_.slices(r);
      for (std::size_t t = 0; t < slices.size(); ++t) {
        const std::size_t size = size_of(whole_.shape.dtype_of(t));
        if (slices[t].size() == 0) continue;
        cursor.put(static_cast<const std::byte*>(mine_.tensors[t]) + as_size(slices[t].begin) * size,
                   as_size(slices[t].size()) * size);
      }
    }
    whole = send_.data();
  }
  return moved(Phase::rows, whole, received_rows_.data());
}

// pass 1 ------------------------------------------------------------------------------------------

/// Leaves in the order in which one process adds them.
void ShardedRun::cut(std::size_t p) {
  Part& part = parts_[p];
  part.leaves.assign(static_cast<std::size_t>(ranks()), 0);
  const std::int64_t leaf = rows_.leaf_blocks(p) * gram_block;
  for (const std::size_t t : rows_.judged_tensors(p)) {
    for (int r = 0; r < ranks(); ++r) {
      const std::int64_t leaves = (sharding_.slices(r)[t].size() + leaf - 1) / leaf;
      if (leaves > 0) part.stretches.push_back({r, leaves});
      part.leaves[static_cast<std::size_t>(r)] += leaves;
    }
  }
}

Slice ShardedRun::entries_of(const Part& part, int rank) const {
  const auto count = static_cast<std::int64_t>(part.records.entries.size());
  return {count * rank / ranks(), count * (rank + 1) / ranks()};
}

/// Pass 1 of what has not settled; of nothing: the rest.
const Transfer* ShardedRun::sum_or_solve() {
  Engine& engine = rows_.engine();
  const bool begins = phase_ != Phase::totals;
  bool any = false;
  bool products = false;
  for (std::size_t p = 0; p < parts() && engine.needs_statistics(); ++p) {
    Part& part = parts_[p];
    if (begins) {
      part.settled = false;
      engine.reset(part.totals);
      part.records.entries.clear();
      if (part.totals.wanted) {
        part.records.entries =
            gram_entries(part.totals.rows, static_cast<int>(rows_.active().rows.size()), part.totals.pairs);
      }
      guarded([&] { rows_.scan_unjudged(p); });
    }
    if (part.settled) continue;
    any = true;
    products = products || part.totals.wanted;
    guarded([&] { sum(p); });
  }
  if (!any) {
    guarded([&] { solve(); });
    return send_verdict();
  }
  return products ? send_leaves() : send_totals();
}

void ShardedRun::sum(std::size_t p) {
  Part& part = parts_[p];
  sums_.leaf_blocks = rows_.leaf_blocks(p);
  sums_.records = &part.records;
  sums_.reset(part.totals.rows, part.totals.wanted, part.totals.scale, part.totals.pairs);
  sums_.center = part.totals.center;
  sums_.limit = part.totals.limit;
  sums_.round = part.totals.round;
  rows_.accumulate(p, sums_);
  part.totals.nonfinite = sums_.nonfinite;
  part.totals.max_abs = sums_.max_abs;
  part.totals.rounding = sums_.rounding;
  part.totals.wide = sums_.wide;
}

const Transfer* ShardedRun::send_leaves() {
  send_bytes_.assign(static_cast<std::size_t>(ranks()), 0);
  receive_bytes_.assign(static_cast<std::size_t>(ranks()), 0);
  std::int64_t sent = 0;
  std::int64_t received = 0;
  for (std::size_t p = 0; p < parts(); ++p) {
    Part& part = parts_[p];
    if (part.settled) continue;
    const auto doubles = static_cast<std::int64_t>(sizeof(double)) * doubles_per_entry(p);
    const std::int64_t mine = part.leaves[static_cast<std::size_t>(rank_)];
    part.records.values.resize(as_size(mine * doubles_per_entry(p)) * part.records.entries.size());
    for (int r = 0; r < ranks(); ++r) {
      const std::int64_t to = mine * doubles * entries_of(part, r).size();
      const std::int64_t from =
          part.leaves[static_cast<std::size_t>(r)] * doubles * entries_of(part, rank_).size();
      send_bytes_[static_cast<std::size_t>(r)] += to;
      receive_bytes_[static_cast<std::size_t>(r)] += from;
      sent += to;
      received += from;
    }
  }
  send_.resize(as_size(sent));
  receive_.resize(as_size(received));
  Cursor cursor{send_.data()};
  for (int r = 0; r < ranks(); ++r) {
    for (const Part& part : parts_) {
      if (part.settled) continue;
      const Slice entries = entries_of(part, r);
      const std::size_t count = part.records.entries.size();
      for (std::size_t at = 0; at < part.records.values.size(); at += count)
        cursor.put(part.records.values.data() + at + as_size(entries.begin), as_size(entries.size()));
    }
  }
  return moved(Phase::leaves, send_.data(), receive_.data());
}

/// Of this rank's products, leaves in the order of all.
void ShardedRun::add_leaves() {
  std::vector<Cursor> cursors;
  std::byte* at = receive_.data();
  for (const std::int64_t bytes : receive_bytes_) {
    cursors.push_back({at});
    at += bytes;
  }
  std::vector<double> leaf;
  for (std::size_t p = 0; p < parts(); ++p) {
    if (parts_[p].settled) continue;
    const std::size_t count = as_size(entries_of(parts_[p], rank_).size());
    std::vector<double>& sums = added_[p];
    sums.assign(2 * count, 0.0);
    leaf.assign(2 * count, 0.0);
    for (const Stretch& stretch : parts_[p].stretches) {
      Cursor& cursor = cursors[static_cast<std::size_t>(stretch.rank)];
      for (std::int64_t k = 0; k < stretch.leaves; ++k) {
        cursor.take(leaf.data(), count * as_size(doubles_per_entry(p)));
        for (std::size_t e = 0; e < count; ++e) {
          GramSums::two_sum(sums[e], sums[count + e], leaf[e]);
          sums[count + e] += leaf[count + e];
        }
      }
    }
  }
}

const Transfer* ShardedRun::send_totals() {
  for (std::vector<double>& sums : added_) sums.clear();
  if (phase_ == Phase::leaves) guarded([&] { add_leaves(); });
  send_bytes_.clear();
  receive_bytes_.assign(static_cast<std::size_t>(ranks()), sizeof(Hello));
  std::int64_t received = 0;
  for (int r = 0; r < ranks(); ++r) {
    std::int64_t& bytes = receive_bytes_[static_cast<std::size_t>(r)];
    for (const Part& part : parts_) {
      if (part.settled) continue;
      bytes += static_cast<std::int64_t>(sizeof(double)) *
               (2 * entries_of(part, r).size() + 2 * part.totals.rows + 2);
    }
    received += bytes;
  }
  send_.resize(as_size(receive_bytes_[static_cast<std::size_t>(rank_)]));
  receive_.resize(as_size(received));
  const Hello hello = hello_of(run_digest_, failure_);
  Cursor cursor{send_.data()};
  cursor.put(&hello, 1);
  for (std::size_t p = 0; p < parts(); ++p) {
    const Part& part = parts_[p];
    if (part.settled) continue;
    added_[p].resize(2 * as_size(entries_of(part, rank_).size()));
    cursor.put(added_[p].data(), added_[p].size());
    cursor.put(part.totals.nonfinite.data(), part.totals.nonfinite.size());
    cursor.put(part.totals.max_abs.data(), part.totals.max_abs.size());
    const double words[] = {part.totals.rounding, part.totals.wide ? 1.0 : 0.0};
    cursor.put(words, 2);
  }
  return moved(Phase::totals, send_.data(), receive_.data());
}

void ShardedRun::take_totals() {
  check_hellos(receive_, receive_bytes_, rank_, failure_);
  for (Part& part : parts_) {
    if (part.settled) continue;
    std::fill(part.totals.nonfinite.begin(), part.totals.nonfinite.end(), 0);
    std::fill(part.totals.max_abs.begin(), part.totals.max_abs.end(), 0.0);
  }
  std::vector<double> sums;
  std::byte* message = receive_.data();
  for (int r = 0; r < ranks(); ++r) {
    Cursor cursor{message + sizeof(Hello)};
    message += receive_bytes_[static_cast<std::size_t>(r)];
    for (Part& part : parts_) {
      if (part.settled) continue;
      GramSums& totals = part.totals;
      const auto n = static_cast<std::size_t>(totals.rows);
      const Slice entries = entries_of(part, r);
      const std::size_t count = as_size(entries.size());
      sums.resize(2 * count);
      cursor.take(sums.data(), sums.size());
      for (std::size_t e = 0; e < count; ++e) {
        const std::size_t place = part.records.entries[as_size(entries.begin) + e];
        const std::size_t mirrored = place % n * n + place / n;
        totals.products[place] = totals.products[mirrored] = sums[e];
        totals.low[place] = totals.low[mirrored] = sums[count + e];
      }
      for (std::size_t i = 0; i < n; ++i) totals.nonfinite[i] += cursor.take<std::int64_t>();
      for (std::size_t i = 0; i < n; ++i)
        totals.max_abs[i] = std::max(totals.max_abs[i], cursor.take<double>());
      totals.rounding = std::max(totals.rounding, cursor.take<double>());
      totals.wide = cursor.take<double>() != 0 || totals.wide;
    }
  }
  for (Part& part : parts_) {
    if (!part.settled) part.settled = rows_.engine().settled(part.totals);
  }
}

// solve, pass 2 -----------------------------------------------------------------------------------

void ShardedRun::solve() {
  for (std::size_t p = 0; p < parts(); ++p) rows_.engine().solve(parts_[p].totals, solutions_[p]);
  status_ = rows_.finish(solutions_);
}

const Transfer* ShardedRun::send_verdict() {
  const auto n = static_cast<std::size_t>(whole_.shape.n);
  Digest digest;
  if (!failure_) {
    for (const Solution& solution : solutions_) digest.add(digest_of(solution));
  }
  const Hello hello = hello_of(digest.value(), failure_);
  const std::size_t bytes = sizeof(Hello) + parts() * n * sizeof(std::int64_t);
  send_.resize(bytes);
  receive_.resize(bytes * static_cast<std::size_t>(ranks()));
  send_bytes_.clear();
  receive_bytes_.assign(static_cast<std::size_t>(ranks()), static_cast<std::int64_t>(bytes));
  Cursor cursor{send_.data()};
  cursor.put(&hello, 1);
  for (const Solution& solution : solutions_) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::int64_t counted = failure_ || solution.counted ? 0 : solution.report.rows[i].nonfinite;
      cursor.put(&counted, 1);
    }
  }
  return moved(Phase::verdict, send_.data(), receive_.data());
}

void ShardedRun::take_verdicts() {
  const auto n = static_cast<std::size_t>(whole_.shape.n);
  check_verdicts(receive_, receive_bytes_, rank_, failure_);
  for (std::size_t p = 0; p < parts(); ++p) {
    reports_[p] = solutions_[p].report;
    if (solutions_[p].counted) continue;
    for (std::size_t i = 0; i < n; ++i) {
      std::int64_t& total = reports_[p].rows[i].nonfinite;
      total = 0;
      for (std::size_t r = 0; r < static_cast<std::size_t>(ranks()); ++r) {
        std::byte* const message = receive_.data() + r * as_size(receive_bytes_[0]) + sizeof(Hello);
        total += Cursor{message + (p * n + i) * sizeof(std::int64_t)}.take<std::int64_t>();
      }
    }
  }
}

const Transfer* ShardedRun::send_output() {
  send_bytes_.clear();
  receive_bytes_.clear();
  std::int64_t before = 0;
  std::int64_t total = 0;
  for (int r = 0; r < ranks(); ++r) {
    if (r == rank_) before = total;
    receive_bytes_.push_back(output_bytes(r));
    total += receive_bytes_.back();
  }
  if (out_.tensors.size() <= 1) {
    auto* const whole = static_cast<std::byte*>(out_.tensors.empty() ? nullptr : out_.tensors[0]);
    return moved(Phase::output, whole == nullptr ? nullptr : whole + before, whole);
  }
  receive_.resize(as_size(total));
  Cursor cursor{receive_.data() + before};
  const std::span<const Slice> slices = sharding_.slices(rank_);
  for (std::size_t t = 0; t < slices.size(); ++t) {
    const std::size_t size = size_of(whole_.out_dtype_of(t));
    if (slices[t].size() == 0) continue;
    cursor.put(static_cast<const std::byte*>(out_.tensors[t]) + as_size(slices[t].begin) * size,
               as_size(slices[t].size()) * size);
  }
  return moved(Phase::output, receive_.data() + before, receive_.data());
}

void ShardedRun::take_output() {
  if (out_.tensors.size() <= 1) return;
  Cursor cursor{receive_.data()};
  for (int r = 0; r < ranks(); ++r) {
    const std::span<const Slice> slices = sharding_.slices(r);
    for (std::size_t t = 0; t < slices.size(); ++t) {
      const std::size_t size = size_of(whole_.out_dtype_of(t));
      if (slices[t].size() == 0) continue;
      cursor.take(static_cast<std::byte*>(out_.tensors[t]) + as_size(slices[t].begin) * size,
                  as_size(slices[t].size()) * size);
    }
  }
}

}  // namespace bragg::detail
