// SPDX-License-Identifier: Apache-2.0
#include "host/sharded/sharded_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bragg/version.hpp>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "host/base/team.hpp"
#include "host/io/sha256.hpp"
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

std::unique_ptr<RowMemory> memory_for(const Options& options) {
  return options.device == Device::cuda ? make_cuda_memory(options) : make_cpu_memory();
}

}  // namespace

ShardedRun::Share::Share(std::size_t shard_in, const PlanRequest& whole, const Sharding& sharding,
                         const Options& options)
    : shard(shard_in),
      request(whole.pipeline, with_sizes(whole.shape, sharding.sizes_of(static_cast<int>(shard_in))),
              options),
      backend((options.device == Device::cuda ? make_cuda_shard : make_cpu_shard)(
          request, whole, sharding.slices(static_cast<int>(shard_in)))),
      sums(backend->part_count()) {}

ShardedRun::ShardedRun(Pipeline pipeline, Shape shape, Sharding sharding, int rank, const Options& options,
                       bool all_reduce, bool gathered, int replicas)
    : sharding_(std::move(sharding)),
      rank_(static_cast<std::size_t>(rank)),
      all_reduce_(all_reduce),
      gathered_(gathered),
      replicas_(static_cast<std::size_t>(replicas)),
      whole_(std::move(pipeline), shape, options),
      memory_(memory_for(options)) {
  for (std::size_t j = 0; j < replicas_; ++j)
    shares_.push_back(std::make_unique<Share>(shard_of(rank_, j), whole_, sharding_, options));
  parts_.resize(first().backend->part_count());
  added_.resize(parts() * replicas_);
  reports_.resize(parts());
  const ShardBackend& backend = *first().backend;
  for (std::size_t p = 0; p < parts(); ++p)
    leaves_.emplace_back(sharding_, backend.judged_tensors(p), backend.leaf_length(p));

  const auto note = [&](Topic topic, auto add) {
    Digest digest;
    add(digest);
    digests_[static_cast<std::size_t>(topic)] = digest.value();
  };
  note(Topic::software, [&](Digest& digest) {
    digest.add(std::string_view(BRAGG_VERSION_STRING));
    digest.add(std::string_view(first().backend->device()));
  });
  note(Topic::pipeline, [&](Digest& digest) { digest.add(std::string_view(to_string(whole_.pipeline))); });
  note(Topic::shape, [&](Digest& digest) {
    digest.add(shape.n);
    digest.add(shape.sizes);
    for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
      digest.add(shape.dtype_of(t));
      digest.add(shape.judged.empty() || shape.judged[t]);
    }
  });
  note(Topic::options, [&](Digest& digest) {
    for (std::size_t t = 0; t < shape.sizes.size(); ++t) digest.add(whole_.out_dtype_of(t));
    digest.add(options.scope);
    digest.add(options.on_failure);
    digest.add(options.max_weight_share);
    digest.add(all_reduce);
    digest.add(gathered);
    digest.add(replicas);
  });
  note(Topic::sharding, [&](Digest& digest) {
    for (std::size_t shard = 0; shard < ranks(); ++shard) {
      for (const Slice& slice : sharding_.slices(static_cast<int>(shard))) digest.add(slice.end);
    }
  });
}

void ShardedRun::reset() {
  for (const std::unique_ptr<Share>& share : shares_) share->backend->forget();
}

template <class F>
void ShardedRun::for_slices(std::size_t shard, bool output, F f) const {
  const std::span<const Slice> slices = sharding_.slices(static_cast<int>(shard));
  for (std::size_t t = 0; t < slices.size(); ++t) {
    const std::size_t size = size_of(output ? whole_.out_dtype_of(t) : whole_.shape.dtype_of(t));
    f(t, as_size(slices[t].begin) * size, as_size(slices[t].size()) * size);
  }
}

/// Of a shard's slices of a row, or of the output.
std::int64_t ShardedRun::bytes_of(std::size_t shard, bool output) const {
  std::size_t all = 0;
  for_slices(shard, output, [&](std::size_t, std::size_t, std::size_t bytes) { all += bytes; });
  return static_cast<std::int64_t>(all);
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

void ShardedRun::accuse(std::size_t one, std::size_t other, const char* what, std::size_t shard) const {
  throw Error(
      Status::disagreement,
      fmt::format(
          "ranks {} and {} {} (shard {}): one of them computes wrongly, or a rank sent them different rows",
          one, other, what, shard));
}

// begin -------------------------------------------------------------------------------------------

StreamHandle ShardedRun::checked(std::optional<Stream> stream) const {
  if (on_device() == stream.has_value()) return stream ? stream->get() : nullptr;
  throw Error(Status::invalid_argument,
              on_device() ? "run: the plan is for a CUDA device, whose work goes to a stream; pass one"
                          : "run: the plan is for the CPU and knows no stream; leave it out, or make the "
                            "plan with Options::device = Device::cuda");
}

void ShardedRun::add_tensor(Digest& digest, const void* data, std::size_t bytes) const {
  if (!on_device()) return digest.add_words(data, bytes);
  constexpr std::size_t most = std::size_t{1} << 24;
  std::vector<std::byte> piece(std::min(bytes, most));
  for (std::size_t done = 0; done < bytes; done += most) {
    const std::size_t length = std::min(most, bytes - done);
    memory_->to_host(piece.data(), static_cast<const std::byte*>(data) + done, length);
    digest.add_words(piece.data(), length);
  }
}

void ShardedRun::take_run(const RunArguments& arguments, bool whole_base) {
  run_digests_ = digests_;
  const auto note = [&](Topic topic, const Digest& digest) {
    run_digests_[static_cast<std::size_t>(topic)] = digest.value();
  };
  Digest weights, base, state;
  weights.add(arguments.weights);
  base.add(arguments.base.empty());
  for (std::size_t t = 0; t < arguments.base.tensors.size() && whole_base; ++t) {
    add_tensor(base, arguments.base.tensors[t],
               as_size(whole_.shape.sizes[t]) * size_of(whole_.shape.dtype_of(t)));
  }
  state.add(first().backend->round());
  state.add(first().backend->has_previous());
  note(Topic::weights, weights);
  note(Topic::base, base);
  note(Topic::state, state);
}

void ShardedRun::begin(const Updates& mine, const Output& out, std::optional<Stream> stream,
                       const RunArguments& arguments) {
  phase_ = Phase::begun;
  failure_ = nullptr;
  run_digests_ = digests_;
  guarded([&] {
    const StreamHandle handle = checked(stream);
    memory_->set_stream(handle);
    first().request.check(mine, {&out, 1}, arguments.base);
    take_run(arguments, false);
    first().backend->begin(mine, out, handle, arguments);
  });
}

Updates ShardedRun::received_rows(Share& share) const {
  const Shape& shape = share.request.shape;
  const auto n = static_cast<std::size_t>(shape.n);
  const std::byte* at = share.received.at_least(*memory_, as_size(bytes_of(share.shard, false)) * n);
  std::vector<std::vector<const void*>> rows(n);
  for (auto& row : rows) {
    for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
      row.push_back(at);
      at += as_size(shape.sizes[t]) * size_of(shape.dtype_of(t));
    }
  }
  const MemorySpace space = memory_->space();
  Updates updates = shape.dtypes.empty() ? Updates::tensors(rows, shape.sizes, shape.dtype, space)
                                         : Updates::tensors(rows, shape.sizes, shape.dtypes, space);
  if (!shape.judged.empty()) updates.judge_by(shape.judged);
  return updates;
}

RunArguments ShardedRun::sliced(const RunArguments& arguments, std::size_t shard) const {
  RunArguments own = arguments;
  own.base.extent.reset();
  if (own.base.empty()) return own;
  for_slices(shard, false, [&](std::size_t t, std::size_t first, std::size_t) {
    const void*& tensor = own.base.tensors[t];
    if (tensor != nullptr) tensor = static_cast<const std::byte*>(tensor) + first;
  });
  return own;
}

/// This rank's own shard goes where the caller has it; a replica of another's where nobody looks.
void ShardedRun::place_output(Share& share) {
  share.out = out_;
  share.out.extent.reset();
  const bool own = share.shard == rank_;
  std::byte* at = own ? nullptr : share.scratch.at_least(*memory_, as_size(bytes_of(share.shard, true)));
  for_slices(share.shard, true, [&](std::size_t t, std::size_t first, std::size_t bytes) {
    void*& tensor = share.out.tensors[t];
    if (!own) {
      tensor = at;
      at += bytes;
    } else if (gathered_ && tensor != nullptr) {
      tensor = static_cast<std::byte*>(tensor) + first;
    }
  });
}

/// What this rank writes may be exactly what it reads there, and overlaps nothing else.
void ShardedRun::check_overlap(const Row& mine, const Output& out, const Row& base) {
  PlanRequest& written = gathered_ ? whole_ : first().request;
  written.check_outputs({&out, 1});
  const std::span<const Slice> slices = sharding_.slices(static_cast<int>(rank_));
  const auto check = [&](std::size_t t, const Row& read, const char* name) {
    const std::size_t size = size_of(whole_.shape.dtype_of(t));
    const std::size_t bytes = as_size(whole_.shape.sizes[t]) * size;
    if (bytes == 0) return;
    const auto* const data = static_cast<const std::byte*>(read.tensors[t]);
    const std::byte* const in_place = gathered_ ? data : data + as_size(slices[t].begin) * size;
    const std::string found = written.overlap(t, data, bytes, in_place);
    if (found.empty()) return;
    throw Error(Status::invalid_argument,
                fmt::format("{} {}; it may be exactly {} or apart", found, name,
                            gathered_ ? "that tensor" : "this rank's slice of that tensor"));
  };
  for (std::size_t t = 0; t < whole_.shape.sizes.size(); ++t) {
    check(t, mine, "this rank's row");
    if (!base.empty()) check(t, base, "the base");
  }
}

void ShardedRun::begin(const Row& mine, const Output& out, std::optional<Stream> stream,
                       const RunArguments& arguments) {
  phase_ = Phase::begun;
  failure_ = nullptr;
  run_digests_ = digests_;
  guarded([&] {
    const StreamHandle handle = checked(stream);
    memory_->set_stream(handle);
    const DType dtype = whole_.shape.dtype;
    whole_.check_row("mine", mine, dtype);
    if (!arguments.base.empty()) whole_.check_row("base", arguments.base, dtype);
    (gathered_ ? whole_ : first().request).check_row("out", out, whole_.out_dtype);
    check_overlap(mine, out, arguments.base);
    mine_ = mine;
    out_ = out;
    take_run(arguments, true);
    for (const std::unique_ptr<Share>& share : shares_) {
      place_output(*share);
      const Updates updates = received_rows(*share);
      const RunArguments own = sliced(arguments, share->shard);
      share->request.check(updates, {&share->out, 1}, own.base);
      share->backend->begin(updates, share->out, handle, own);
    }
    // What others send is taken even where this rank fails later.
    std::size_t sent = 0;
    std::size_t gathered = 0;
    std::size_t mine_of_each = 0;
    for (std::size_t shard = 0; shard < ranks(); ++shard) {
      sent += replicas_ * as_size(bytes_of(shard, false));
      gathered += as_size(bytes_of(shard, true));
    }
    for (const std::unique_ptr<Share>& share : shares_)
      mine_of_each += as_size(bytes_of(share->shard, false));
    if (row_in_order() == nullptr) row_send_.at_least(*memory_, sent);
    if (replicas_ > 1) row_receive_.at_least(*memory_, mine_of_each * ranks());
    if (gathered_ && out_.tensors.size() > 1) row_receive_.at_least(*memory_, gathered);
  });
}

// phases ------------------------------------------------------------------------------------------

const Transfer* ShardedRun::next() {
  const auto rank = static_cast<int>(rank_);
  try {
    switch (phase_) {
      case Phase::over:
        break;
      case Phase::begun:
        return send_hello(Phase::hello);
      case Phase::hello:
        check_hellos(receive_, receive_bytes_, rank, failure_);
        return all_reduce_ ? send_rows() : sum_or_solve();
      case Phase::rows:
        return sum_or_solve();
      case Phase::leaves:
        return send_totals();
      case Phase::totals:
        take_totals();
        return replicas_ > 1 ? send_hello(Phase::totals_vote) : sum_or_solve();
      case Phase::totals_vote:
        check_steps(receive_, receive_bytes_, rank, failure_, true);
        return sum_or_solve();
      case Phase::output:
        take_output();
        return send_verdict();
      case Phase::verdict:
        take_verdicts();
        if (replicas_ > 1) return send_hello(Phase::verdict_vote);
        end();
        break;
      case Phase::verdict_vote:
        check_steps(receive_, receive_bytes_, rank, failure_, true);
        end();
        break;
    }
    phase_ = Phase::over;
    return nullptr;
  } catch (const Error& error) {
    phase_ = Phase::over;
    status_ = error.status();
    throw;
  } catch (const std::bad_alloc&) {
    phase_ = Phase::over;
    status_ = Status::out_of_memory;
    throw Error(status_, "out of memory");
  } catch (...) {
    phase_ = Phase::over;
    status_ = Status::internal;
    throw;
  }
}

/// As send_bytes_ and receive_bytes_ say.
const Transfer* ShardedRun::moved(Phase phase, const std::byte* send, std::byte* receive, MemorySpace space) {
  phase_ = phase;
  transfer_ = {.send = send,
               .send_bytes = send_bytes_,
               .receive = receive,
               .receive_bytes = receive_bytes_,
               .space = space};
  return &transfer_;
}

const Transfer* ShardedRun::send_hello(Phase phase) {
  const Hello hello = hello_of(run_digests_, failure_);
  send_.resize(sizeof(Hello));
  std::memcpy(send_.data(), &hello, sizeof(Hello));
  receive_.resize(sizeof(Hello) * ranks());
  send_bytes_.clear();
  receive_bytes_.assign(ranks(), sizeof(Hello));
  return moved(phase, send_.data(), receive_.data());
}

/// This rank's row, where it can be sent as it is: shards lie in it one behind the other. Else null. On a
/// device tensors that do may be of two allocations, which no one copy may span.
const std::byte* ShardedRun::row_in_order() const noexcept {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
  bool in_order = replicas_ == 1 && (mine_.tensors.size() == 1 || !on_device());
  for (std::size_t shard = 0; shard < ranks(); ++shard) {
    for_slices(shard, false, [&](std::size_t t, std::size_t first, std::size_t bytes) {
      if (bytes == 0) return;
      const std::byte* const at = static_cast<const std::byte*>(mine_.tensors[t]) + first;
      if (begin == nullptr) begin = end = at;
      in_order = in_order && at == end;
      end = at + bytes;
    });
  }
  return in_order ? begin : nullptr;
}

/// Each rank's messages have its shares' slices of the sender's row, one share behind the other.
const Transfer* ShardedRun::send_rows() {
  send_bytes_.assign(ranks(), 0);
  for (std::size_t r = 0; r < ranks(); ++r) {
    for (std::size_t j = 0; j < replicas_; ++j) send_bytes_[r] += bytes_of(shard_of(r, j), false);
  }
  receive_bytes_.assign(ranks(), send_bytes_[rank_]);
  const std::byte* const in_order = row_in_order();
  guarded([&] {
    std::byte* at = row_send_.data();
    for (std::size_t r = 0; r < ranks() && in_order == nullptr; ++r) {
      for (std::size_t j = 0; j < replicas_; ++j) {
        for_slices(shard_of(r, j), false, [&](std::size_t t, std::size_t first, std::size_t bytes) {
          memory_->copy(at, static_cast<const std::byte*>(mine_.tensors[t]) + first, bytes);
          at += bytes;
        });
      }
    }
    memory_->finish();
  });
  std::byte* const receive = replicas_ == 1 ? first().received.data() : row_receive_.data();
  return moved(Phase::rows, in_order != nullptr ? in_order : row_send_.data(), receive, memory_->space());
}

// pass 1 ------------------------------------------------------------------------------------------

std::size_t ShardedRun::doubles_per_entry(std::size_t part) const {
  return static_cast<std::size_t>(shares_.front()->backend->doubles_per_entry(part));
}

Slice ShardedRun::entries_of(std::size_t part, std::size_t slice) const {
  return slice_of(parts_[part].entries.size(), slice, ranks());
}

/// Of a slice of all leaves of a shard.
std::int64_t ShardedRun::leaf_bytes(std::size_t p, std::size_t shard, std::size_t slice) const {
  return static_cast<std::int64_t>(sizeof(double) * doubles_per_entry(p)) * leaves_[p].count[shard] *
         entries_of(p, slice).size();
}

/// Pass 1 of what has not settled; of nothing: the rest.
const Transfer* ShardedRun::sum_or_solve() {
  if (phase_ == Phase::rows && replicas_ > 1) {
    guarded([&] {
      const std::byte* at = row_receive_.data();
      for (std::size_t row = 0; row < ranks(); ++row) {
        for (const std::unique_ptr<Share>& share : shares_) {
          const std::size_t bytes = as_size(bytes_of(share->shard, false));
          memory_->copy(share->received.data() + row * bytes, at, bytes);
          at += bytes;
        }
      }
    });
  }
  if (first().backend->needs_statistics()) {
    if (phase_ == Phase::hello || phase_ == Phase::rows) first().backend->reset_sums(parts_);
    bool any = false;
    bool products = false;
    for (const PartSums& part : parts_) {
      any = any || !part.settled;
      products = products || (!part.settled && part.totals.wanted);
    }
    for (const std::unique_ptr<Share>& share : shares_) {
      guarded([&] {
        if (any) share->backend->sum(parts_, share->sums);
      });
    }
    if (any) return products ? send_leaves() : send_totals();
  }
  status_ = Status::ok;
  guarded([&] { solve(); });
  const bool written = status_ == Status::ok || whole_.options.on_failure != OnFailure::keep;
  return all_reduce_ && gathered_ && written ? send_output() : send_verdict();
}

/// To each rank: of each share, of each part, of each slice that the rank adds: those of the leaves.
const Transfer* ShardedRun::send_leaves() {
  send_bytes_.assign(ranks(), 0);
  receive_bytes_.assign(ranks(), 0);
  std::int64_t sent = 0;
  std::int64_t received = 0;
  for (std::size_t p = 0; p < parts(); ++p) {
    if (parts_[p].settled) continue;
    for (const std::unique_ptr<Share>& share : shares_) {
      share->sums[p].records.values.resize(as_size(leaves_[p].count[share->shard]) * doubles_per_entry(p) *
                                           parts_[p].entries.size());
    }
    for (std::size_t r = 0; r < ranks(); ++r) {
      for (std::size_t j = 0; j < replicas_; ++j) {
        for (std::size_t i = 0; i < replicas_; ++i) {
          const std::int64_t to = leaf_bytes(p, shard_of(rank_, j), shard_of(r, i));
          const std::int64_t from = leaf_bytes(p, shard_of(r, j), shard_of(rank_, i));
          send_bytes_[r] += to;
          receive_bytes_[r] += from;
          sent += to;
          received += from;
        }
      }
    }
  }
  send_.resize(as_size(sent));
  receive_.resize(as_size(received));
  Cursor cursor{send_.data()};
  for (std::size_t r = 0; r < ranks(); ++r) {
    for (const std::unique_ptr<Share>& share : shares_) {
      for (std::size_t p = 0; p < parts(); ++p) {
        if (parts_[p].settled) continue;
        const std::vector<double>& values = share->sums[p].records.values;
        for (std::size_t i = 0; i < replicas_; ++i) {
          const Slice entries = entries_of(p, shard_of(r, i));
          for (std::size_t at = 0; at < values.size(); at += parts_[p].entries.size())
            cursor.put(values.data() + at + as_size(entries.begin), as_size(entries.size()));
        }
      }
    }
  }
  return moved(Phase::leaves, send_.data(), receive_.data());
}

/// Of the slices that this rank adds, leaves in the order of all.
void ShardedRun::add_leaves() {
  // Where what an owner sent begins: [shard][j][part][i].
  std::vector<std::byte*> begins(ranks() * replicas_ * parts() * replicas_);
  const auto begin_of = [&](std::size_t shard, std::size_t j, std::size_t p, std::size_t i) -> std::byte*& {
    return begins[((shard * replicas_ + j) * parts() + p) * replicas_ + i];
  };
  std::byte* at = receive_.data();
  for (std::size_t r = 0; r < ranks(); ++r) {
    for (std::size_t j = 0; j < replicas_; ++j) {
      for (std::size_t p = 0; p < parts(); ++p) {
        if (parts_[p].settled) continue;
        for (std::size_t i = 0; i < replicas_; ++i) {
          begin_of(shard_of(r, j), j, p, i) = at;
          at += leaf_bytes(p, shard_of(r, j), shard_of(rank_, i));
        }
      }
    }
  }
  std::vector<const std::byte*> next(ranks());
  for (std::size_t p = 0; p < parts(); ++p) {
    if (parts_[p].settled) continue;
    for (std::size_t i = 0; i < replicas_; ++i) {
      const std::size_t slice = shard_of(rank_, i);
      for (std::size_t shard = 0; shard < ranks(); ++shard) {
        next[shard] = begin_of(shard, 0, p, i);
        for (std::size_t j = 1; j < replicas_; ++j) {
          const std::size_t bytes = as_size(leaf_bytes(p, shard, slice));
          if (bytes > 0 && std::memcmp(next[shard], begin_of(shard, j, p, i), bytes) != 0)
            accuse(owner_of(shard, 0), owner_of(shard, j), "have other sums of the same rows", shard);
        }
      }
      added_[p * replicas_ + i] =
          detail::add_leaves(leaves_[p], next, as_size(entries_of(p, slice).size()), doubles_per_entry(p));
    }
  }
}

/// What the first pass of a part took of a shard's slices of the rows.
template <class F>
void ShardedRun::for_sampled(std::size_t part, std::size_t shard, RowSamples& samples, F f) const {
  if (samples.count() == 0 || parts_[part].totals.round > 0) return;
  std::vector<std::size_t> tensors = shares_.front()->backend->judged_tensors(part);
  std::sort(tensors.begin(), tensors.end());
  std::int64_t first = 0;
  for (const std::size_t t : tensors) {
    const Slice slice = sharding_.slices(static_cast<int>(shard))[t];
    samples.for_stretches(first + slice.begin, first + slice.end, f);
    first += sharding_.sizes()[t];
  }
}

std::int64_t ShardedRun::sampled_values(std::size_t part, std::size_t shard) {
  std::int64_t values = 0;
  for_sampled(part, shard, parts_[part].totals.samples,
              [&](const double*, std::size_t count) { values += static_cast<std::int64_t>(count); });
  return values;
}

/// To all: of each part, the sums of each slice, and of each share what was counted.
const Transfer* ShardedRun::send_totals() {
  for (std::vector<double>& sums : added_) sums.clear();
  if (phase_ == Phase::leaves) guarded([&] { add_leaves(); });
  send_bytes_.clear();
  receive_bytes_.assign(ranks(), sizeof(Hello));
  std::int64_t received = 0;
  for (std::size_t r = 0; r < ranks(); ++r) {
    for (std::size_t p = 0; p < parts(); ++p) {
      if (parts_[p].settled) continue;
      std::int64_t words = static_cast<std::int64_t>(replicas_) * (2 * parts_[p].totals.rows + 2);
      for (std::size_t i = 0; i < replicas_; ++i) words += 2 * entries_of(p, shard_of(r, i)).size();
      for (std::size_t j = 0; j < replicas_; ++j) words += sampled_values(p, shard_of(r, j));
      receive_bytes_[r] += static_cast<std::int64_t>(sizeof(double)) * words;
    }
    received += receive_bytes_[r];
  }
  send_.resize(as_size(receive_bytes_[rank_]));
  receive_.resize(as_size(received));
  const Hello hello = hello_of(run_digests_, failure_);
  Cursor cursor{send_.data()};
  cursor.put(&hello, 1);
  for (std::size_t p = 0; p < parts(); ++p) {
    const PartSums& part = parts_[p];
    if (part.settled) continue;
    for (std::size_t i = 0; i < replicas_; ++i) {
      std::vector<double>& sums = added_[p * replicas_ + i];
      sums.resize(2 * as_size(entries_of(p, shard_of(rank_, i)).size()));
      cursor.put(sums.data(), sums.size());
    }
    for (const std::unique_ptr<Share>& share : shares_) {
      GramSums& counted = share->sums[p].counted;
      counted.nonfinite.resize(static_cast<std::size_t>(part.totals.rows));
      counted.max_abs.resize(static_cast<std::size_t>(part.totals.rows));
      cursor.put(counted.nonfinite.data(), counted.nonfinite.size());
      cursor.put(counted.max_abs.data(), counted.max_abs.size());
      const double words[] = {counted.rounding, counted.wide ? 1.0 : 0.0};
      cursor.put(words, 2);
      if (counted.samples.count() != part.totals.samples.count()) counted.samples = part.totals.samples;
      for_sampled(p, share->shard, counted.samples,
                  [&](const double* values, std::size_t count) { cursor.put(values, count); });
    }
  }
  return moved(Phase::totals, send_.data(), receive_.data());
}

void ShardedRun::take_totals() {
  check_steps(receive_, receive_bytes_, static_cast<int>(rank_), failure_, replicas_ > 1);
  std::vector<std::byte*> messages;
  std::byte* message = receive_.data();
  for (const std::int64_t bytes : receive_bytes_) {
    messages.push_back(message + sizeof(Hello));
    message += bytes;
  }
  // Of each slice, and of each shard, a rank's first is taken, and compared with what its other owners sent.
  std::vector<std::byte*> copies(ranks() * replicas_);
  const auto take_all = [&](const char* what, auto bytes_of_one, auto use) {
    for (std::size_t r = 0; r < ranks(); ++r) {
      for (std::size_t j = 0; j < replicas_; ++j) {
        const std::size_t one = shard_of(r, j);
        copies[one * replicas_ + j] = messages[r];
        messages[r] += bytes_of_one(one);
      }
    }
    for (std::size_t one = 0; one < ranks(); ++one) {
      std::byte* const taken = copies[one * replicas_];
      for (std::size_t j = 1; j < replicas_; ++j) {
        guarded([&] {
          const std::size_t bytes = bytes_of_one(one);
          if (bytes > 0 && std::memcmp(taken, copies[one * replicas_ + j], bytes) != 0)
            accuse(owner_of(one, 0), owner_of(one, j), what, one);
        });
      }
      use(one, Cursor{taken});
    }
  };
  std::vector<double> sums;
  for (std::size_t p = 0; p < parts(); ++p) {
    PartSums& part = parts_[p];
    if (part.settled) continue;
    GramSums& totals = part.totals;
    const auto n = static_cast<std::size_t>(totals.rows);
    take_all(
        "added up the same sums to others",
        [&](std::size_t slice) { return 2 * sizeof(double) * as_size(entries_of(p, slice).size()); },
        [&](std::size_t slice, Cursor cursor) {
          const Slice own = entries_of(p, slice);
          sums.resize(2 * as_size(own.size()));
          cursor.take(sums.data(), sums.size());
          place_sums(std::span(part.entries).subspan(as_size(own.begin), as_size(own.size())), sums, totals);
        });
    take_all(
        "counted other values in the same rows",
        [&](std::size_t shard) {
          return sizeof(double) * (2 * n + 2 + static_cast<std::size_t>(sampled_values(p, shard)));
        },
        [&](std::size_t shard, Cursor cursor) {
          for (std::size_t i = 0; i < n; ++i) totals.nonfinite[i] += cursor.take<std::int64_t>();
          for (std::size_t i = 0; i < n; ++i)
            totals.max_abs[i] = std::max(totals.max_abs[i], cursor.take<double>());
          totals.rounding = std::max(totals.rounding, cursor.take<double>());
          totals.wide = cursor.take<double>() != 0 || totals.wide;
          for_sampled(p, shard, totals.samples,
                      [&](double* values, std::size_t count) { cursor.take(values, count); });
        });
  }
  for (std::size_t j = 1; j < replicas_; ++j) {
    std::vector<PartSums> same = parts_;
    shares_[j]->backend->settle(same, true);
  }
  first().backend->settle(parts_, false);
}

// solve, pass 2 -----------------------------------------------------------------------------------

void ShardedRun::solve() {
  first().backend->solve(parts_, nullptr);
  for (std::size_t j = 1; j < replicas_; ++j) shares_[j]->backend->solve(parts_, first().backend.get());
  for (std::size_t j = replicas_; j-- > 0;) status_ = shares_[j]->backend->apply();
}

const Transfer* ShardedRun::send_output() {
  send_bytes_.clear();
  receive_bytes_.clear();
  std::int64_t before = 0;
  std::int64_t total = 0;
  for (std::size_t shard = 0; shard < ranks(); ++shard) {
    if (shard == rank_) before = total;
    receive_bytes_.push_back(bytes_of(shard, true));
    total += receive_bytes_.back();
  }
  if (out_.tensors.size() <= 1) {
    auto* const whole = static_cast<std::byte*>(out_.tensors.empty() ? nullptr : out_.tensors[0]);
    return moved(Phase::output, whole == nullptr ? nullptr : whole + before, whole, memory_->space());
  }
  std::byte* const receive = row_receive_.data();
  guarded([&] {
    std::byte* at = receive + before;
    for_slices(rank_, true, [&](std::size_t t, std::size_t, std::size_t bytes) {
      memory_->copy(at, first().out.tensors[t], bytes);
      at += bytes;
    });
    memory_->finish();
  });
  return moved(Phase::output, receive + before, receive, memory_->space());
}

void ShardedRun::take_output() {
  if (out_.tensors.size() <= 1) return;
  guarded([&] {
    const std::byte* at = row_receive_.data();
    for (std::size_t shard = 0; shard < ranks(); ++shard) {
      for_slices(shard, true, [&](std::size_t t, std::size_t first, std::size_t bytes) {
        memory_->copy(static_cast<std::byte*>(out_.tensors[t]) + first, at, bytes);
        at += bytes;
      });
    }
    memory_->finish();
  });
}

/// Of a shard's output, in `out` of all tensors whole, or of its slices.
std::string ShardedRun::hash_of(const Output& out, std::size_t shard, bool whole) const {
  Sha256 hash;
  std::vector<std::byte> fetched;
  for_slices(shard, true, [&](std::size_t t, std::size_t first, std::size_t bytes) {
    if (bytes == 0) return;
    const auto* data = static_cast<const std::byte*>(out.tensors[t]) + (whole ? first : 0);
    if (on_device()) {
      fetched.resize(bytes);
      memory_->to_host(fetched.data(), data, bytes);
      data = fetched.data();
    }
    hash.add({data, bytes});
  });
  return hash.hex();
}

/// To all: of each share, what pass 2 counted of each part's rows, and with replicas the output's hash.
const Transfer* ShardedRun::send_verdict() {
  const auto n = static_cast<std::size_t>(whole_.shape.n);
  const std::size_t hash_bytes = replicas_ > 1 ? Sha256::hex_digits : 0;
  std::string hashes(replicas_ * hash_bytes, '0');
  Digest digest;
  guarded([&] {
    digest.add(first().backend->solution_digest());
    for (std::size_t j = 0; j < replicas_ && replicas_ > 1 && status_ == Status::ok; ++j)
      hashes.replace(j * hash_bytes, hash_bytes, hash_of(shares_[j]->out, shares_[j]->shard, false));
  });
  const Hello hello = hello_of({digest.value()}, failure_);
  const std::size_t bytes = sizeof(Hello) + replicas_ * (parts() * n * sizeof(std::int64_t) + hash_bytes);
  send_.resize(bytes);
  receive_.resize(bytes * ranks());
  send_bytes_.clear();
  receive_bytes_.assign(ranks(), static_cast<std::int64_t>(bytes));
  Cursor cursor{send_.data()};
  cursor.put(&hello, 1);
  for (std::size_t j = 0; j < replicas_; ++j) {
    const ShardBackend& backend = *shares_[j]->backend;
    for (std::size_t p = 0; p < parts(); ++p) {
      for (std::size_t i = 0; i < n; ++i) {
        const bool known = failure_ == nullptr && !backend.counts_are_whole(p);
        const std::int64_t counted = known ? backend.report(p).rows[i].nonfinite : 0;
        cursor.put(&counted, 1);
      }
    }
    cursor.put(hashes.data() + j * hash_bytes, hash_bytes);
  }
  return moved(Phase::verdict, send_.data(), receive_.data());
}

void ShardedRun::take_verdicts() {
  const auto check = [&] {
    check_verdicts(receive_, receive_bytes_, static_cast<int>(rank_), failure_, replicas_ > 1);
  };
  if (replicas_ > 1) {
    guarded(check);
  } else {
    check();
  }
  const auto n = static_cast<std::size_t>(whole_.shape.n);
  const std::size_t hash_bytes = replicas_ > 1 ? Sha256::hex_digits : 0;
  const std::size_t counts = parts() * n * sizeof(std::int64_t);
  const auto found = [&](std::size_t shard, std::size_t j) {
    const std::size_t r = owner_of(shard, j);
    return receive_.data() + r * as_size(receive_bytes_[0]) + sizeof(Hello) + j * (counts + hash_bytes);
  };
  for (std::size_t shard = 0; shard < ranks(); ++shard) {
    for (std::size_t j = 1; j < replicas_; ++j) {
      guarded([&] {
        if (std::memcmp(found(shard, 0), found(shard, j), counts) != 0)
          accuse(owner_of(shard, 0), owner_of(shard, j), "counted other values in the same rows", shard);
        if (std::memcmp(found(shard, 0) + counts, found(shard, j) + counts, hash_bytes) != 0)
          accuse(owner_of(shard, 0), owner_of(shard, j), "computed other outputs", shard);
      });
    }
  }
  if (replicas_ > 1 && status_ == Status::ok && gathered_) {
    // Owners agree; so it was the first who sent this rank another output than it told of.
    std::vector<std::string> hashes(ranks());
    const int threads = threads_of(whole_.options.threads);
    guarded([&] {
#pragma omp parallel for schedule(dynamic) num_threads(team(threads))
      for (std::size_t shard = 0; shard < hashes.size(); ++shard) {
        try {
          hashes[shard] = hash_of(out_, shard, true);
        } catch (...) {
          hashes[shard].clear();  // no hash is another hash
        }
      }
      for (std::size_t shard = 0; shard < ranks(); ++shard) {
        if (hashes[shard].size() == hash_bytes &&
            std::memcmp(hashes[shard].data(), found(shard, 0) + counts, hash_bytes) == 0) {
          continue;
        }
        accuse(shard, rank_, "have other outputs, of which the first sent the second its own", shard);
      }
    });
  }
  for (std::size_t p = 0; p < parts(); ++p) {
    reports_[p] = first().backend->report(p);
    if (first().backend->counts_are_whole(p)) continue;
    for (std::size_t i = 0; i < reports_[p].rows.size(); ++i) {
      std::int64_t& total = reports_[p].rows[i].nonfinite;
      total = 0;
      for (std::size_t shard = 0; shard < ranks(); ++shard)
        total += Cursor{found(shard, 0) + (p * n + i) * sizeof(std::int64_t)}.take<std::int64_t>();
    }
  }
}

/// State goes on where all is well on all ranks.
void ShardedRun::end() {
  if (status_ != Status::ok) return;
  for (const std::unique_ptr<Share>& share : shares_) share->backend->keep();
}

}  // namespace bragg::detail
