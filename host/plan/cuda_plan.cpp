// SPDX-License-Identifier: Apache-2.0
#include "host/plan/cuda_plan.hpp"

#include <fmt/format.h>
#include <bragg/plan.hpp>

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "host/cuda/device.hpp"
#include "host/cuda/layout.hpp"
#include "host/cuda/table.hpp"
#include "host/plan/plan_backend.hpp"
#include "host/plan/report.hpp"
#include "kernels/combine/combine.hpp"
#include "kernels/common/upload.hpp"
#include "kernels/gram/gram.hpp"
#include "kernels/runtime/launch.hpp"
#include "kernels/runtime/runtime.hpp"
#include "kernels/sample/sample.hpp"
#include "kernels/select/select.hpp"
#include "kernels/solve/step.hpp"
#include "rules/search.hpp"

namespace bragg::detail::cuda {

namespace {

/// Of a workspace and of the arrays in it.
constexpr std::size_t workspace_alignment = 256;

std::int64_t judged_coordinates(const PlanRequest& request) {
  std::int64_t d = 0;
  for (std::size_t t = 0; t < request.shape.sizes.size(); ++t)
    d += request.judged.empty() || request.judged[t] ? request.shape.sizes[t] : 0;
  return d;
}

}  // namespace

CudaPlan::CudaPlan(const PlanRequest& request, const PlanRequest* shard_of, std::span<const Slice> slices)
    : request_(request),
      device_(checked_device(request.options)),
      unit_(wanted_gram_unit()),
      needs_(needs_of(request.pipeline)),
      keeps_records_(shard_of != nullptr) {
  const OnDevice on(device_);
  if (unit_ == GramUnit::cublas && (needs_.pairs || needs_.sampling.count > 0))
    blas_ = std::make_unique<Blas>();
  reports_.resize(request_.parts);
  const PlanRequest& whole = shard_of != nullptr ? *shard_of : request_;
  make_constants(whole);
  if (needs_.sampling.count > 0) make_sample_constants(whole, slices);
  plan_workspace();
  rehearse();
  if (!request_.options.lent_workspace) own_workspace_ = DeviceMemory(workspace_bytes_);
}

void CudaPlan::make_constants(const PlanRequest& whole) {
  const std::vector<std::int64_t>& sizes = request_.shape.sizes;
  const std::size_t tensors = sizes.size();
  const std::vector<bool>& judged = request_.judged;
  const bool all_judged = judged.empty();
  tiles_ = {.tensors = static_cast<int>(tensors), .length = tile_length};
  chunks_ = {.tensors = static_cast<int>(tensors), .length = gram_chunk_length(judged_coordinates(whole))};
  unjudged_chunks_ = chunks_;

  const std::vector<PreAggregator>& stages = request_.pipeline.pre;
  const auto permutation_of = [](const PreAggregator& stage) {
    const auto* const bucketing = std::get_if<Bucketing>(&stage);
    return bucketing != nullptr ? std::span<const int>(bucketing->permutation) : std::span<const int>();
  };

  Layout layout;
  const auto sizes_at = layout.add<std::int64_t>(tensors);
  const auto tiles_at = layout.add<std::int64_t>(tensors + 1);
  const auto chunks_at = layout.add<std::int64_t>(tensors + 1);
  const auto unjudged_at = layout.add<std::int64_t>(all_judged ? 0 : tensors + 1);
  std::vector<Place<int>> permutations_at;
  for (const PreAggregator& stage : stages)
    permutations_at.push_back(layout.add<int>(permutation_of(stage).size()));
  const auto state_at = layout.add<PlanState>(1);
  std::vector<std::byte> bytes(layout.bytes());
  // A tensor that is left out has no piece.
  const auto number_pieces = [&](Cut& cut, std::int64_t* first, const auto& is_in) {
    for (std::size_t t = 0; t < tensors; ++t) {
      *first++ = cut.pieces;
      if (is_in(t)) cut.pieces += (sizes[t] + cut.length - 1) / cut.length;
    }
    *first = cut.pieces;
  };
  std::copy(sizes.begin(), sizes.end(), sizes_at.in(bytes.data()));
  number_pieces(tiles_, tiles_at.in(bytes.data()), [](std::size_t) { return true; });
  number_pieces(chunks_, chunks_at.in(bytes.data()), [&](std::size_t t) { return all_judged || judged[t]; });
  if (!all_judged) {
    number_pieces(unjudged_chunks_, unjudged_at.in(bytes.data()), [&](std::size_t t) { return !judged[t]; });
  }
  for (std::size_t k = 0; k < stages.size(); ++k) {
    const std::span<const int> permutation = permutation_of(stages[k]);
    std::copy(permutation.begin(), permutation.end(), permutations_at[k].in(bytes.data()));
  }
  *state_at.in(bytes.data()) = PlanState{};

  constants_ = DeviceMemory(bytes.size());
  const OwnStream stream;
  copy_to_device(constants_.data(), bytes.data(), bytes.size(), stream.get());
  synchronize(stream.get());
  sizes_ = sizes_at.in(constants_.data());
  tiles_.first = tiles_at.in(constants_.data());
  chunks_.first = chunks_at.in(constants_.data());
  unjudged_chunks_.first = unjudged_at.in(constants_.data());
  state_ = state_at.in(constants_.data());
  for (std::size_t k = 0; k < stages.size(); ++k) {
    const bool given = !permutation_of(stages[k]).empty();
    permutations_.push_back(given ? permutations_at[k].in(constants_.data()) : nullptr);
  }
  if (request_.stateful) {
    Layout previous;
    std::vector<Place<std::byte>> places;
    for (const std::int64_t size : sizes) {
      places.push_back(previous.add<std::byte>(static_cast<std::size_t>(size) * size_of(request_.out_dtype)));
    }
    previous_memory_ = DeviceMemory(previous.bytes());
    for (const Place<std::byte>& place : places) previous_.push_back(place.in(previous_memory_.data()));
  }
}

/// How coordinates are numbered that samples are drawn from, and how those that are drawn are cut.
void CudaPlan::make_sample_constants(const PlanRequest& whole, std::span<const Slice> slices) {
  const std::vector<std::int64_t>& sizes = whole.shape.sizes;
  const std::size_t tensors = sizes.size();
  coordinates_ = {.tensors = static_cast<int>(tensors), .length = 1};
  if (request_.options.scope == Scope::whole) sampled_from_ = {judged_coordinates(whole)};
  // [tensors + 1] first coordinates, [parts + 1] first chunks, [parts] sizes, [tensors] begins
  std::vector<std::int64_t> numbers;
  for (std::size_t t = 0; t < tensors; ++t) {
    numbers.push_back(coordinates_.pieces);
    if (whole.judged.empty() || whole.judged[t]) coordinates_.pieces += sizes[t];
    if (request_.options.scope == Scope::per_tensor) sampled_from_.push_back(sizes[t]);
  }
  numbers.push_back(coordinates_.pieces);

  for (const std::int64_t size : sampled_from_) sample_sizes_.push_back(needs_.sampling.of(size));
  const std::int64_t length =
      gram_chunk_length(std::accumulate(sample_sizes_.begin(), sample_sizes_.end(), std::int64_t{0}));
  sample_chunks_ = {.tensors = static_cast<int>(sample_sizes_.size()), .length = length};
  for (const std::int64_t size : sample_sizes_) {
    numbers.push_back(sample_chunks_.pieces);
    sample_chunks_.pieces += (size + length - 1) / length;
  }
  numbers.push_back(sample_chunks_.pieces);
  numbers.insert(numbers.end(), sample_sizes_.begin(), sample_sizes_.end());
  for (const Slice& slice : slices) numbers.push_back(slice.begin);

  const std::size_t bytes = numbers.size() * sizeof(std::int64_t);
  sample_constants_ = DeviceMemory(bytes);
  const OwnStream stream;
  copy_to_device(sample_constants_.data(), numbers.data(), bytes, stream.get());
  synchronize(stream.get());
  coordinates_.first = static_cast<const std::int64_t*>(sample_constants_.data());
  sample_chunks_.first = coordinates_.first + tensors + 1;
  sample_sizes_at_ = sample_chunks_.first + sample_sizes_.size() + 1;
  if (!slices.empty()) slice_begins_ = sample_sizes_at_ + sample_sizes_.size();
}

Stage CudaPlan::first_stage() const {
  const int inputs = static_cast<int>(active_.rows.size());
  return {.inputs = inputs,
          .references = references(),
          .count = inputs,
          .weighted = active_.weighted,
          .has_origin = has_reference_};
}

void CudaPlan::plan_workspace() {
  const int rows = request_.shape.n + references();
  const int outputs = std::max(request_.point_outputs, 1);
  table_ = RunTable(request_.shape.sizes.size(), rows, 0, static_cast<std::size_t>(outputs));
  batch_ = gram_batch(rows, chunks_.pieces, needs_.pairs);
  rows_.dtype = request_.shape.dtype;
  rows_.reference_dtype[0] = request_.shape.dtype;
  rows_.reference_dtype[1] = request_.out_dtype;
  rows_.count = rows;
  rows_.inputs = request_.shape.n;
  std::size_t partial = !needs_.products ? 0
                        : keeps_records_ ? record_doubles()
                                         : gram_partial_doubles(rows, chunks_.pieces, needs_.pairs);
  set_active_rows({}, request_.shape.n, 0, active_);
  const bool takes_medians = needs_.products && recentring_of(request_.pipeline, first_stage()).plan.kind ==
                                                    CenterPlan::Kind::median;
  std::size_t centers = takes_medians ? gram_center_bytes(rows_, chunks_, needs_.pairs, unit_) : 0;
  const auto samples = static_cast<std::size_t>(needs_.sampling.count);
  if (samples > 0) {
    sample_table_ = RunTable(samples * sample_sizes_.size(), rows);
    Rows wide = rows_;
    wide.dtype = wide.reference_dtype[0] = wide.reference_dtype[1] = DType::f64;
    partial = std::max(partial, gram_partial_doubles(rows, sample_chunks_.pieces));
    centers = std::max(centers, gram_center_bytes(wide, sample_chunks_, true, unit_));
  }
  Layout workspace;
  workspace.add<std::byte>(table_.bytes());
  blocks_at_ = workspace.add<std::byte>(solve_block_bytes(layout(request_.shape.n)) * request_.parts,
                                        workspace_alignment);
  partial_at_ = workspace.add<double>(partial, workspace_alignment);
  centers_at_ = workspace.add<std::byte>(centers, workspace_alignment);
  library_at_ = workspace.add<std::byte>(blas_ ? gram_library_bytes(rows, *blas_) : 0, workspace_alignment);
  sample_table_at_ = workspace.add<std::byte>(samples > 0 ? sample_table_.bytes() : 0, workspace_alignment);
  samples_at_ = workspace.add<double>(sampled_doubles(), workspace_alignment);
  select_at_ = workspace.add<std::byte>(0, workspace_alignment);

  finish_ = run_sequence(request_.pipeline, {.stage = first_stage(), .permutations = permutations_},
                         [](const auto&) {});
  workspace_bytes_ = select_at_.offset;  // and what select needs, which the rehearsal finds out
}

std::size_t CudaPlan::record_doubles() const {
  Rows most;
  most.inputs = request_.shape.n;
  most.count = most.inputs + references();
  return static_cast<std::size_t>(chunks_.pieces * gram_record_doubles(most, needs_.pairs, true));
}

/// Every run that there can be, of whatever rows have weight, with a reference and without: the kernels that
/// it launches are made ready, and the workspace is as large as any of them needs it. Nothing is enqueued.
void CudaPlan::rehearse() {
  const Rehearsal rehearsal;
  // Addresses are made of it, which nothing follows.
  workspace_ = constants_.data();
  const auto shorten = [](Cut& cut) {
    return std::exchange(cut.pieces, std::min<std::int64_t>(cut.pieces, 1));
  };
  const std::int64_t chunks = shorten(chunks_);
  const std::int64_t unjudged_chunks = shorten(unjudged_chunks_);
  const std::int64_t sample_chunks = shorten(sample_chunks_);
  lay_out(false);
  upload_table(nullptr);
  const auto with_rows = [&](int rows, bool weighted, bool equal) {
    active_.rows.resize(static_cast<std::size_t>(rows));
    active_.weighted = weighted;
    equal_weights_ = equal;
    for (const bool has_reference : {false, true}) {
      lay_out(has_reference);
      enqueue(nullptr);
    }
  };
  with_rows(request_.shape.n, false, true);
  // Where bounds refuse so many rows, they refuse fewer.
  const bool has_weights = request_.point_outputs == 0;
  for (int rows = request_.shape.n; has_weights && can_be_weighted(request_.pipeline, request_.shape.n, rows);
       --rows) {
    with_rows(rows, true, true);
    with_rows(rows, true, false);
  }
  chunks_.pieces = chunks;
  unjudged_chunks_.pieces = unjudged_chunks;
  sample_chunks_.pieces = sample_chunks;
  workspace_ = nullptr;
}

/// Where everything lies, and of what shape it is, when the active rows are known.
void CudaPlan::lay_out(bool has_reference) {
  const int inputs = static_cast<int>(active_.rows.size());
  has_reference_ = has_reference;
  rows_ = {.data = table_.at().rows.in(workspace_),
           .sizes = sizes_,
           .alignment = table_.at().alignment.in(workspace_),
           .tensors = static_cast<int>(request_.shape.sizes.size()),
           .count = inputs + references(),
           .inputs = inputs,
           .zeros = {!has_reference, false},
           .dtype = request_.shape.dtype,
           .reference_dtype = {request_.shape.dtype, request_.out_dtype}};
  target_ = {.data = table_.at().target.in(workspace_),
             .copy = request_.stateful ? table_.at().copy.in(workspace_) : nullptr,
             .dtype = request_.out_dtype};
  layout_ = layout(inputs);
  blocks_ = {.first = solve_block(blocks_at_.in(workspace_), layout_),
             .stride = solve_block_bytes(layout_),
             .parts = static_cast<int>(request_.parts),
             .rows = layout_.rows};
}

void CudaPlan::fill_table(const Updates& updates, const Output& out, const RunArguments& arguments) {
  const std::vector<std::int64_t>& sizes = request_.shape.sizes;
  const int inputs = rows_.inputs;
  const bool has_reference = !arguments.base.empty();
  table_.start(rows_.count);
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    if (sizes[t] == 0) continue;
    for (int i = 0; i < inputs; ++i) {
      table_.set_row(t, i, updates.data(active_.rows[static_cast<std::size_t>(i)], t), request_.shape.dtype);
    }
    if (has_reference) table_.set_row(t, inputs, arguments.base.tensors[t], request_.shape.dtype);
    for (std::size_t k = 0; k * sizes.size() < out.tensors.size(); ++k) {
      table_.set_target(t, out.tensors[k * sizes.size() + t], request_.out_dtype, k);
    }
    if (request_.stateful) {
      table_.set_row(t, inputs + 1, previous_[t], request_.out_dtype);
      table_.set_copy(t, previous_[t]);
    }
  }
  bool any_invalid = false;
  equal_weights_ = true;
  for (int i = 0; i < inputs; ++i) {
    const auto k = static_cast<std::size_t>(i);
    table_.invalid()[i] = active_.invalid[k];
    any_invalid = any_invalid || active_.invalid[k] != 0;
    if (!active_.weighted) continue;
    table_.weights()[i] = active_.weights[k];
    equal_weights_ = equal_weights_ && active_.weights[k] == active_.weights.front();
  }
  table_.set_has_invalid(any_invalid);
  // The origin's coefficient is 1: how the previous output begins.
  std::fill_n(table_.coefficients(), rows_.count, 0.0);
  table_.coefficients()[inputs] = 1;
}

/// Where the rows of the samples are gathered.
void CudaPlan::fill_sample_table() {
  sample_table_.start(rows_.count);
  for_sampled_rows([&](int t, std::size_t part, int row, std::size_t first) {
    const std::size_t tensor = static_cast<std::size_t>(t) * sample_sizes_.size() + part;
    sample_table_.set_row(tensor, row, samples_at_.in(workspace_) + first, DType::f64);
  });
}

/// A first run's previous output is the reference, or the origin.
void CudaPlan::prepare_previous(Stream stream) {
  combine({.rows = rows_,
           .tiles = tiles_,
           .parts = {},
           .out = {.data = target_.copy, .copy = nullptr, .dtype = request_.out_dtype},
           .gate = {.status = &state_->has_previous, .on_failure = OnFailure::keep},
           .coefficients = table_.at().coefficients.in(workspace_)},
          stream);
}

int CudaPlan::passes_after_the_first() const {
  if (!needs_.products) return 0;
  const bool centers = recentring_of(request_.pipeline, first_stage()).plan.kind != CenterPlan::Kind::none;
  return (centers ? 1 : 0) + (request_.shape.dtype == DType::f64 ? 1 : 0);
}

GramArguments CudaPlan::gram_arguments(int pass) const {
  GramArguments arguments = arguments_of(rows_, chunks_, blocks_.first, needs_,
                                         recentring_of(request_.pipeline, first_stage()), pass);
  arguments.batch = batch_;
  return arguments;
}

GramArguments CudaPlan::sample_arguments(int sample, int pass) const {
  GramArguments arguments = arguments_of(sample_rows(sample), sample_chunks_, sample_blocks(sample).first,
                                         {.statistics = true, .products = true, .pairs = true},
                                         sample_recentring_of(request_.pipeline, first_stage()), pass);
  arguments.batch = gram_batch(rows_.count, sample_chunks_.pieces);
  return arguments;
}

GramArguments CudaPlan::arguments_of(const Rows& rows, const Cut& chunks, const SolveBlock& b,
                                     const PassNeeds& needs, const Recentring& recentring, int pass) const {
  const bool wide = rows.dtype == DType::f64;
  GramArguments arguments{.rows = rows,
                          .chunks = chunks,
                          .parts = parts(),
                          .partial = partial_at_.in(workspace_),
                          .products = needs.products ? b.gram[0] : nullptr,
                          .pairs = needs.pairs,
                          .low = needs.products ? b.low : nullptr,
                          .nonfinite = reinterpret_cast<unsigned long long*>(b.nonfinite),
                          .max_abs = wide ? reinterpret_cast<unsigned long long*>(b.max_abs) : nullptr,
                          .unit = unit_};
  if (pass == 0) return arguments;
  const CenterPlan& plan = recentring.plan;
  arguments.nonfinite = nullptr;
  if (plan.kind == CenterPlan::Kind::none) arguments.max_abs = nullptr;
  arguments.scale = wide ? &b.words->scale : nullptr;
  arguments.skip = &b.words->settled;
  arguments.center = plan.kind == CenterPlan::Kind::median ? Center::median
                     : plan.kind == CenterPlan::Kind::row  ? Center::row
                                                           : Center::none;
  arguments.center_row = plan.row;
  arguments.left_out = b.left_out;
  arguments.weights = plan.weighted ? table_.at().weights.in(workspace_) : nullptr;
  arguments.centers = centers_at_.in(workspace_);
  return arguments;
}

SolveBlocks CudaPlan::sample_blocks(int sample) const {
  SolveBlocks there = blocks_;
  there.first = sample_block(blocks_.first, rows_.count, sample);
  return there;
}

Rows CudaPlan::sample_rows(int sample) const {
  const std::size_t parts = sample_sizes_.size();
  const std::size_t before = static_cast<std::size_t>(sample) * parts;
  void* const table = sample_table_at_.in(workspace_);
  return {.data = sample_table_.at().rows.in(table) + before * static_cast<std::size_t>(rows_.count),
          .sizes = sample_sizes_at_,
          .alignment = sample_table_.at().alignment.in(table) + before,
          .tensors = static_cast<int>(parts),
          .count = rows_.count,
          .inputs = rows_.inputs,
          .dtype = DType::f64,
          .reference_dtype = {DType::f64, DType::f64}};
}

void CudaPlan::gather_samples(Stream stream) {
  for (int t = 0; t < needs_.sampling.count; ++t) {
    const Rows rows = sample_rows(t);
    sample({.rows = rows_,
            .coordinates = coordinates_,
            .begins = slice_begins_,
            .sampling = needs_.sampling,
            .sample = t,
            .round = &state_->round,
            .per_tensor = request_.options.scope == Scope::per_tensor,
            .parts = rows.tensors,
            .longest = *std::max_element(sampled_from_.begin(), sampled_from_.end()),
            .to = rows.data},
           stream);
  }
}

/// As enqueue_gram, of the samples of rows that are not infinite as a whole, which pass 1 has told.
void CudaPlan::enqueue_samples(Stream stream) {
  const int samples = needs_.sampling.count;
  const StartStep start{.stage = first_stage(), .statistics = true, .products = needs_.products};
  const MarkSamplesStep mark{.stage = first_stage(), .samples = samples};
  for (int t = 0; t < samples; ++t)
    run_steps({.count = 1, .steps = {prepare_step()}}, sample_blocks(t), stream);
  run_steps({.count = 2, .steps = {start, mark}}, blocks_, stream);
  const Recentring recentring = sample_recentring_of(request_.pipeline, first_stage());
  constexpr int passes_after_the_first = 2;  // about a centre, and at another scale
  for (int t = 0; t < samples; ++t) {
    const SolveBlocks there = sample_blocks(t);
    gram(sample_arguments(t, 0), stream, library());
    for (int pass = 0; pass < passes_after_the_first; ++pass) {
      const CertifyStep certify{.stage = first_stage(),
                                .certificate = recentring.certificate,
                                .plan = recentring.plan,
                                .wide = true,
                                .round = pass};
      run_steps({.count = 1, .steps = {certify}}, there, stream);
      gram(sample_arguments(t, pass + 1), stream, library());
    }
    const StartStep end{.stage = first_stage(), .statistics = true, .products = true};
    run_steps({.count = 1, .steps = {end}}, there, stream);
  }
}

/// What makes rows infinite that they are not judged by.
void CudaPlan::enqueue_unjudged(Stream stream) {
  if (!needs_.judge_rows() || unjudged_chunks_.pieces == 0) return;
  gram({.rows = rows_,
        .chunks = unjudged_chunks_,
        .parts = parts(),
        .nonfinite = reinterpret_cast<unsigned long long*>(blocks_.first.nonfinite)},
       stream);
}

void CudaPlan::enqueue_certify(int pass, Stream stream) {
  const Recentring recentring = recentring_of(request_.pipeline, first_stage());
  const CertifyStep certify{.stage = first_stage(),
                            .certificate = recentring.certificate,
                            .plan = recentring.plan,
                            .wide = request_.shape.dtype == DType::f64,
                            .round = pass};
  run_steps({.count = 1, .steps = {certify}}, blocks_, stream);
}

/// Once more where the products do not tell distances, or squares left the range of f64; f64 rows about a
/// centre perhaps twice, for what is left of them says which scale. The launches are made in any case, and
/// find nothing to do.
void CudaPlan::enqueue_gram(Stream stream) {
  gram(gram_arguments(0), stream, library());
  enqueue_unjudged(stream);
  for (int pass = 0; pass < passes_after_the_first(); ++pass) {
    enqueue_certify(pass, stream);
    gram(gram_arguments(pass + 1), stream, library());
  }
}

template <class RuleT>
void CudaPlan::search_on_host(const SearchStep<RuleT>& step, Stream stream) {
  if (is_rehearsal()) return;
  host_block_.resize(blocks_.stride / sizeof(std::max_align_t) + 1);
  auto* const host = reinterpret_cast<std::byte*>(host_block_.data());
  for (int part = 0; part < blocks_.parts; ++part) {
    SolveWords* const device = blocks_.part(part).words;  // where the block begins
    copy_to_host(host, device, blocks_.stride, stream);
    synchronize(stream);
    run_search(step, solve_block(host, layout_));
    copy_to_device(device, host, blocks_.stride, stream);
    synchronize(stream);  // `host` is used again
  }
}

/// What the report says of shares in the points, into host_block_.
void CudaPlan::share_on_host() {
  if (is_rehearsal()) {
    finish_ = run_sequence(request_.pipeline, {.stage = first_stage()}, [](const auto&) {});
    return;
  }
  host_block_.resize(solve_block_bytes(layout_) / sizeof(std::max_align_t) + 1);
  const SolveBlock b = solve_block(reinterpret_cast<std::byte*>(host_block_.data()), layout_);
  PrepareStep{.inputs = rows_.inputs,
              .rows = rows_.count,
              .invalid = table_.invalid(),
              .weights = active_.weighted ? table_.weights() : nullptr}(SerialTeam{}, b);
  finish_ = run_sequence(request_.pipeline, {.stage = first_stage()}, [&](const auto& step) {
    if constexpr (requires { step(SerialTeam{}, b); }) step(SerialTeam{}, b);
  });
}

void CudaPlan::enqueue_steps(Stream stream) {
  const SequenceInputs inputs{
      .stage = first_stage(), .pivot = pivot_, .rounds = &state_->round, .permutations = permutations_};
  StepQueue steps(blocks_, stream);
  finish_ = run_sequence(request_.pipeline, inputs, [&](const auto& step) {
    if constexpr (requires { step(SerialTeam{}, blocks_.first); }) {
      steps.add(step);
    } else {
      steps.flush();
      search_on_host(step, stream);
    }
  });
  if (blocks_.parts == 1) steps.add(EndStep{state_});
  steps.flush();
  if (blocks_.parts != 1) end_run(blocks_, state_, stream);
}

SelectArguments CudaPlan::select_arguments() const {
  const SolveBlock b = blocks_.first;
  const Stage& stage = finish_.stage;
  const bool weighted = stage.weighted && (stage.mixed || !equal_weights_);
  const std::uint8_t* const invalid = table_.has_invalid() ? b.invalid : nullptr;
  return {.rows = rows_,
          .tiles = tiles_,
          .parts = parts(),
          .out = target_,
          .gate = gate(),
          .rule = request_.point_outputs > 0 ? SelectRule{.kind = SelectRule::Kind::none} : finish_.rule,
          .points = finish_.points,
          .chosen = finish_.chosen ? b.chosen : nullptr,
          .mix = stage.mixed ? b.mix[stage.mix] : nullptr,
          .infinite = stage.mixed ? b.infinite[stage.marks] : invalid,
          .weights = weighted ? b.weights[stage.marks] : nullptr,
          .nonfinite = counters(),
          .workspace = select_at_.in(workspace_)};
}

void CudaPlan::enqueue_pass_2(Stream stream) {
  const SolveBlock b = blocks_.first;
  if (!finish_.combine) {
    const SelectArguments arguments = select_arguments();
    if (is_rehearsal()) {
      workspace_bytes_ =
          std::max(workspace_bytes_,
                   select_at_.offset + padded(select_workspace_bytes(arguments), workspace_alignment));
    }
    select(arguments, stream);
    return;
  }
  combine({.rows = rows_,
           .tiles = tiles_,
           .parts = parts(),
           .out = target_,
           .gate = gate(),
           .coefficients = b.row_weight,
           .infinite = &b.words->infinite,
           .nonfinite = counters()},
          stream);
}

void CudaPlan::run(const Updates& updates, const Output& out, Stream stream, const RunArguments& arguments) {
  const OnDevice on(device_);
  start(updates, out, stream, arguments);
  enqueue(stream);
}

void CudaPlan::start(const Updates& updates, const Output& out, Stream stream,
                     const RunArguments& arguments) {
  set_active_rows(arguments.weights, request_.shape.n, request_.options.max_weight_share, active_);
  pivot_ = check_active_rows(request_.pipeline, request_.shape.n, active_);
  workspace_ = arguments.workspace != nullptr ? arguments.workspace : own_workspace_.data();
  if (workspace_ == nullptr || reinterpret_cast<std::uintptr_t>(workspace_) % workspace_alignment != 0) {
    throw Error(
        Status::invalid_argument,
        fmt::format("workspace = {}; the plan needs {} bytes of device memory at a multiple of {}, lent "
                    "to every run since lent_workspace is true",
                    workspace_, workspace_bytes_, workspace_alignment));
  }
  const bool searches = searches_on_host(request_.pipeline);
  if (searches && is_capturing(stream)) {
    throw Error(
        Status::unsupported,
        fmt::format("{}: its rule searches on the host, which a CUDA graph cannot do; run it uncaptured, or "
                    "take nnm(f) | trimmed_mean(f)",
                    to_string(request_.pipeline)));
  }

  lay_out(!arguments.base.empty());
  fill_table(updates, out, arguments);
  has_run_ = true;
  if (searches) {
    // The search takes whole blocks to the host and back, and nothing unwritten is to be copied.
    set_bytes(blocks_.first.words, 0, blocks_.stride * request_.parts, stream);
  }
  upload_table(stream);
}

PrepareStep CudaPlan::prepare_step() const {
  return {.inputs = rows_.inputs,
          .rows = rows_.count,
          .invalid = table_.has_invalid() ? table_.at().invalid.in(workspace_) : nullptr,
          .weights = active_.weighted ? table_.at().weights.in(workspace_) : nullptr,
          // About a centre each factor is rounded once more.
          .rounding = gram_rounding(gram_additions + 2)};
}

void CudaPlan::upload_table(Stream stream) {
  if (needs_.sampling.count > 0) {
    fill_sample_table();
    upload(sample_table_at_.in(workspace_), sample_table_.data(), sample_table_.bytes(), stream);
  }
  upload_and_prepare(workspace_, table_.data(), table_.bytes(), prepare_step(), blocks_, stream);
}

/// All that comes after the table: what a run is.
void CudaPlan::enqueue(Stream stream) {
  if (request_.stateful) prepare_previous(stream);
  if (needs_no_steps()) {
    share_on_host();
  } else {
    if (needs_.statistics) enqueue_gram(stream);
    if (needs_.sampling.count > 0) {
      gather_samples(stream);
      enqueue_samples(stream);
    }
    enqueue_steps(stream);
  }
  enqueue_pass_2(stream);
}

void CudaPlan::wait(Stream stream) {
  const OnDevice on(device_);
  synchronize(stream);
  if (!has_run_) return;
  PlanState state_now;
  copy_to_host(&state_now, state_, sizeof(state_now), stream);
  synchronize(stream);
  status_ = static_cast<Status>(state_now.status);

  SolveLayout front = layout_;  // lies alike to where a report ends
  front.products = front.stages = false;
  const bool from_host = needs_no_steps();
  host_block_.resize(blocks_.stride / sizeof(std::max_align_t) + 1);
  auto* const host = reinterpret_cast<std::byte*>(host_block_.data());
  const SolveBlock b = solve_block(host, front);
  for (std::size_t part = 0; part < reports_.size(); ++part) {
    const SolveBlock there = blocks_.part(static_cast<int>(part));
    if (from_host) {
      copy_to_host(b.nonfinite, there.nonfinite, sizeof(std::int64_t) * static_cast<std::size_t>(rows_.count),
                   stream);
    } else {
      copy_to_host(host, there.words, report_bytes(rows_.count), stream);
    }
    synchronize(stream);
    write_report(b, finish_, request_.shape.n, active_, true, reports_[part]);
  }
}

void CudaPlan::reset() {
  const OnDevice on(device_);
  const OwnStream stream;
  const PlanState fresh;
  copy_to_device(state_, &fresh, sizeof(fresh), stream.get());
  synchronize(stream.get());
}

}  // namespace bragg::detail::cuda

namespace bragg::detail {

std::unique_ptr<PlanBackend> make_cuda_plan(const PlanRequest& request) {
  return std::make_unique<cuda::CudaPlan>(request);
}

}  // namespace bragg::detail
