// SPDX-License-Identifier: Apache-2.0
// A shard on a CUDA device: the launches of a plan there, cut where sums over all shards are known. A leaf is
// a chunk of the Gram pass. Records and sums pass through host memory; rows, the n-sized mathematics and
// outputs stay on the device.
#include <cstring>
#include <string>
#include <vector>

#include "host/cuda/device.hpp"
#include "host/plan/cuda_plan.hpp"
#include "host/sharded/agreement.hpp"
#include "host/sharded/shard_backend.hpp"
#include "kernels/common/sum_unit.hpp"

namespace bragg::detail::cuda {

namespace {

class CudaMemory final : public RowMemory {
 public:
  explicit CudaMemory(const Options& options) : device_(checked_device(options)) {}

  MemorySpace space() const noexcept override { return MemorySpace::cuda; }
  void set_stream(StreamHandle stream) override { stream_ = stream; }
  std::shared_ptr<std::byte> allocate(std::size_t bytes) override {
    const OnDevice on(device_);
    return {static_cast<std::byte*>(cuda::allocate(bytes)), [](std::byte* memory) { release(memory); }};
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    const OnDevice on(device_);
    copy_on_device(to, from, bytes, stream_);
  }
  void to_host(void* to, const void* from, std::size_t bytes) override {
    const OnDevice on(device_);
    copy_to_host(to, from, bytes, stream_);
    synchronize(stream_);
  }
  void from_host(void* to, const void* from, std::size_t bytes) override {
    const OnDevice on(device_);
    copy_to_device(to, from, bytes, stream_);
    synchronize(stream_);
  }
  void finish() override {
    const OnDevice on(device_);
    synchronize(stream_);
  }

 private:
  int device_;
  StreamHandle stream_ = nullptr;
};

std::string described(const std::string& units, SumUnit sums) {
  std::string text = units == to_string(GramUnit::tensor) ? "CUDA" : "CUDA, products by " + units;
  if (sums != SumUnit::f64) text += std::string(", sums in ") + to_string(sums);
  return text;
}

class CudaShard final : public ShardBackend, private CudaPlan {
 public:
  CudaShard(const PlanRequest& request, const PlanRequest& whole, std::span<const Slice> slices)
      : CudaPlan(request, &whole, slices),
        description_(described(
            blas_ ? "cuBLAS " + Blas::version() + " on " + device_name(device_) : gram_units(device_),
            sum_unit(device_))),
        records_(needs_.products ? record_doubles() * sizeof(double) : 0) {}

  /// Results depend on who computes products, and on nothing else of the device; those of cuBLAS on both.
  const char* device() const noexcept override { return description_.c_str(); }
  std::size_t part_count() const noexcept override { return request_.parts; }
  std::vector<std::size_t> judged_tensors(std::size_t part) const override;
  std::int64_t leaf_length(std::size_t) const override { return chunks_.length; }
  int doubles_per_entry(std::size_t) const override { return 1; }

  void begin(const Updates& updates, const Output& out, StreamHandle stream,
             const RunArguments& arguments) override;
  bool needs_statistics() const noexcept override { return needs_.statistics; }
  void reset_sums(std::span<PartSums> parts) override;
  void sum(std::span<const PartSums> parts, std::span<ShardSums> sums) override;
  void settle(std::span<PartSums> parts, bool follower) override;
  void solve(std::span<PartSums> parts, const ShardBackend* first) override;
  Status apply() override;

  std::uint64_t solution_digest() override;
  const Report& report(std::size_t part) const override { return reports()[part]; }
  bool counts_are_whole(std::size_t) const override { return needs_.statistics; }
  void keep() override;
  void forget() override { kept_ = {}; }
  std::uint64_t round() const noexcept override { return kept_.round; }
  bool has_previous() const noexcept override { return kept_.has_previous != 0; }

 private:
  bool is_centered(int pass) const { return gram_arguments(pass).center != Center::none; }
  void begin_pass(PartSums& part);
  std::int64_t leaves(std::size_t tensor) const;
  void take_records(std::size_t part, const PartSums& totals, LeafRecords& records) const;

  /// What others have to know of this shard's samples, and what is known of all of them in the end.
  void take_samples(std::span<ShardSums> sums);
  void put_samples(std::span<PartSums> parts);
  template <class SamplesF, class F>
  void for_sampled_values(SamplesF samples_of, F f);

  const std::string description_;
  PinnedMemory records_;  // [chunk]
  std::vector<double> sampled_;
  PlanState kept_;  // as of the last run that was good on all ranks
  StreamHandle stream_ = nullptr;
  Output out_;
  int pass_ = 0;
};

std::vector<std::size_t> CudaShard::judged_tensors(std::size_t part) const {
  if (request_.options.scope == Scope::per_tensor) return {part};
  std::vector<std::size_t> tensors;
  for (std::size_t t = 0; t < request_.shape.sizes.size(); ++t) {
    if (request_.judged.empty() || request_.judged[t]) tensors.push_back(t);
  }
  return tensors;
}

void CudaShard::begin(const Updates& updates, const Output& out, StreamHandle stream,
                      const RunArguments& arguments) {
  const OnDevice on(device_);
  stream_ = stream;
  out_ = out;
  pass_ = 0;
  copy_to_device(state_, &kept_, sizeof(kept_), stream_);
  RunArguments own = arguments;
  own.workspace = nullptr;
  start(updates, out, stream_, own);
  if (!request_.stateful) return;
  prepare_previous(stream_);
  target_.copy = nullptr;  // the output becomes the previous one when all ranks have theirs
}

void CudaShard::begin_pass(PartSums& part) {
  part.entries.clear();
  if (!part.totals.wanted) return;
  for (const RecordEntry& entry : gram_record(rows_, needs_.pairs, is_centered(pass_))) {
    part.entries.push_back(static_cast<std::size_t>(entry.row) * static_cast<std::size_t>(rows_.count) +
                           static_cast<std::size_t>(entry.column));
  }
}

void CudaShard::reset_sums(std::span<PartSums> parts) {
  for (PartSums& part : parts) {
    part.settled = false;
    part.totals.reset(rows_.count, needs_.products, 1, needs_.pairs);
    const auto p = static_cast<std::size_t>(&part - parts.data());
    if (needs_.sampling.count > 0)
      part.totals.samples.draw(needs_.sampling, kept_.round, sampled_from_[p], rows_.count);
    begin_pass(part);
  }
}

std::int64_t CudaShard::leaves(std::size_t tensor) const {
  return (request_.shape.sizes[tensor] + chunks_.length - 1) / chunks_.length;
}

void CudaShard::sum(std::span<const PartSums> parts, std::span<ShardSums> sums) {
  const OnDevice on(device_);
  const GramArguments arguments = gram_arguments(pass_);
  const std::size_t bytes =
      needs_.products ? static_cast<std::size_t>(
                            chunks_.pieces * gram_record_doubles(rows_, needs_.pairs, is_centered(pass_))) *
                            sizeof(double)
                      : 0;
  // Of parts that have settled, and of products that nobody asks for, nothing is written.
  set_bytes(arguments.partial, 0, bytes, stream_);
  gram_records(arguments, stream_, library());
  if (pass_ == 0) enqueue_unjudged(stream_);
  if (pass_ == 0 && needs_.sampling.count > 0) {
    for (std::size_t p = 0; p < parts.size(); ++p) sums[p].counted.samples = parts[p].totals.samples;
    take_samples(sums);
  }
  copy_to_host(records_.data(), arguments.partial, bytes, stream_);
  const auto rows = static_cast<std::size_t>(rows_.count);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    if (parts[p].settled) continue;
    GramSums& counted = sums[p].counted;
    const SolveBlock there = blocks_.part(static_cast<int>(p));
    counted.nonfinite.assign(rows, 0);
    counted.max_abs.assign(rows, 0);
    // Later passes count nothing: the device has what all shards counted.
    if (pass_ == 0)
      copy_to_host(counted.nonfinite.data(), there.nonfinite, rows * sizeof(std::int64_t), stream_);
    copy_to_host(counted.max_abs.data(), there.max_abs, rows * sizeof(double), stream_);
  }
  synchronize(stream_);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    if (!parts[p].settled) take_records(p, parts[p], sums[p].records);
  }
}

/// f(value, place in sampled_) of every value in samples_of(part), which has coordinates in another order.
template <class SamplesF, class F>
void CudaShard::for_sampled_values(SamplesF samples_of, F f) {
  for_sampled_rows([&](int t, std::size_t part, int row, std::size_t first) {
    const std::int64_t drawn = sample_sizes_[part];
    const std::size_t stride = padded(static_cast<std::size_t>(drawn), 2);
    for (std::int64_t k = 0; k < drawn && row == 0; ++k) {
      const std::int64_t at = sampled_coordinate(needs_.sampling, kept_.round, t, sampled_from_[part], k);
      // Another sample may have it, too: of the same rows, the same values.
      std::size_t each = 0;
      samples_of(part).for_stretches(at, at + 1, [&](double* value, std::size_t) {
        const std::size_t of_row = each++ % static_cast<std::size_t>(rows_.count);
        f(*value, first + of_row * stride + static_cast<std::size_t>(k));
      });
    }
  });
}

void CudaShard::take_samples(std::span<ShardSums> sums) {
  gather_samples(stream_);
  sampled_.resize(sampled_doubles());
  copy_to_host(sampled_.data(), samples_at_.in(workspace_), sampled_.size() * sizeof(double), stream_);
  synchronize(stream_);
  for_sampled_values([&](std::size_t part) -> RowSamples& { return sums[part].counted.samples; },
                     [&](double& value, std::size_t at) { value = sampled_[at]; });
}

void CudaShard::put_samples(std::span<PartSums> parts) {
  for_sampled_values([&](std::size_t part) -> RowSamples& { return parts[part].totals.samples; },
                     [&](double& value, std::size_t at) { sampled_[at] = value; });
  copy_to_device(samples_at_.in(workspace_), sampled_.data(), sampled_.size() * sizeof(double), stream_);
}

void CudaShard::take_records(std::size_t part, const PartSums& totals, LeafRecords& records) const {
  const std::vector<std::size_t> judged = judged_tensors(part);
  std::int64_t before = 0;
  if (request_.options.scope == Scope::per_tensor) {
    for (std::size_t t = 0; t < part; ++t) before += leaves(t);
  }
  std::int64_t count = 0;
  for (const std::size_t t : judged) count += leaves(t);
  records.entries = totals.entries;
  records.values.clear();
  if (totals.entries.empty()) return;
  const std::int64_t stride = gram_record_doubles(rows_, needs_.pairs, is_centered(pass_));
  const std::vector<RecordEntry> entries = gram_record(rows_, needs_.pairs, is_centered(pass_));
  records.values.reserve(static_cast<std::size_t>(count) * entries.size());
  const auto* record = static_cast<const double*>(records_.data()) + before * stride;
  for (std::int64_t leaf = 0; leaf < count; ++leaf, record += stride) {
    for (const RecordEntry& entry : entries) records.values.push_back(record[entry.place]);
  }
}

void CudaShard::settle(std::span<PartSums> parts, bool) {
  const OnDevice on(device_);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    if (parts[p].settled) continue;
    const GramSums& totals = parts[p].totals;
    const SolveBlock there = blocks_.part(static_cast<int>(p));
    const std::size_t rows = totals.nonfinite.size();
    if (pass_ == 0)
      copy_to_device(there.nonfinite, totals.nonfinite.data(), rows * sizeof(std::int64_t), stream_);
    copy_to_device(there.max_abs, totals.max_abs.data(), rows * sizeof(double), stream_);
    if (!totals.wanted) continue;
    copy_to_device(there.gram[0], totals.products.data(), rows * rows * sizeof(double), stream_);
    copy_to_device(there.low, totals.low.data(), rows * rows * sizeof(double), stream_);
  }
  const bool is_last = pass_ == passes_after_the_first();
  if (!is_last) enqueue_certify(pass_, stream_);
  ++pass_;
  std::vector<SolveWords> words(parts.size());
  for (std::size_t p = 0; p < parts.size() && !is_last; ++p)
    copy_to_host(&words[p], blocks_.part(static_cast<int>(p)).words, sizeof(SolveWords), stream_);
  synchronize(stream_);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    PartSums& part = parts[p];
    if (part.settled) continue;
    part.settled = is_last || words[p].settled != 0;
    if (part.settled) continue;
    part.totals.nonfinite.assign(part.totals.nonfinite.size(), 0);
    part.totals.max_abs.assign(part.totals.max_abs.size(), 0);
    begin_pass(part);
  }
}

void CudaShard::solve(std::span<PartSums> parts, const ShardBackend*) {
  const OnDevice on(device_);
  if (needs_no_steps()) return share_on_host();
  if (needs_.sampling.count > 0) {
    put_samples(parts);
    enqueue_samples(stream_);
  }
  enqueue_steps(stream_);
}

Status CudaShard::apply() {
  const OnDevice on(device_);
  enqueue_pass_2(stream_);
  wait(stream_);
  return status();
}

std::uint64_t CudaShard::solution_digest() {
  Digest digest;
  digest.add(status());
  if (needs_no_steps()) return digest.value();  // what the host says follows from the arguments
  const OnDevice on(device_);
  std::vector<std::byte> bytes;
  const auto add = [&](const void* there, std::size_t count) {
    bytes.resize(count);
    copy_to_host(bytes.data(), there, count, stream_);
    synchronize(stream_);
    digest.add_words(bytes.data(), count);
  };
  const auto rows = static_cast<std::size_t>(rows_.count);
  const Stage& stage = finish_.stage;
  for (std::size_t p = 0; p < request_.parts; ++p) {
    const SolveBlock there = blocks_.part(static_cast<int>(p));
    add(there.words, sizeof(SolveWords));
    for (const double* const each : {there.coefficients, there.scores, there.row_weight, there.row_clip})
      add(each, rows * sizeof(double));
    if (finish_.combine || status() != Status::ok) continue;
    const auto points = static_cast<std::size_t>(stage.count);
    if (stage.mixed) {
      add(there.mix[stage.mix], points * rows * sizeof(double));
      add(there.infinite[stage.marks], points);
    }
    if (finish_.chosen) add(there.chosen, static_cast<std::size_t>(finish_.points) * sizeof(int));
  }
  return digest.value();
}

void CudaShard::keep() {
  const OnDevice on(device_);
  if (request_.stateful) {
    for (std::size_t t = 0; t < previous_.size(); ++t) {
      const auto size = static_cast<std::size_t>(request_.shape.sizes[t]);
      copy_on_device(previous_[t], out_.tensors[t], size * size_of(request_.out_dtype), stream_);
    }
    synchronize(stream_);
  }
  kept_.end_run(static_cast<int>(Status::ok));
}

}  // namespace

}  // namespace bragg::detail::cuda

namespace bragg::detail {

std::unique_ptr<RowMemory> make_cuda_memory(const Options& options) {
  return std::make_unique<cuda::CudaMemory>(options);
}

std::unique_ptr<ShardBackend> make_cuda_shard(const PlanRequest& request, const PlanRequest& whole,
                                              std::span<const Slice> slices) {
  return std::make_unique<cuda::CudaShard>(request, whole, slices);
}

}  // namespace bragg::detail
