// SPDX-License-Identifier: Apache-2.0
#include <bragg/bragg.h>
#include <fmt/format.h>
#include <bragg/plan.hpp>
#include <bragg/sharded.hpp>
#include <bragg/version.hpp>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "host/plan/report.hpp"

struct bragg_all_reduce {
  std::variant<bragg::AllReduce, bragg::FailedRun> run;
};

struct bragg_plan {
  bragg::Plan plan;
};

namespace {

using bragg::Error;
using bragg::Status;

template <class EnumT>
constexpr bool same(EnumT value, int code) {
  return static_cast<int>(value) == code;
}
static_assert(same(Status::ok, BRAGG_OK) && same(Status::invalid_argument, BRAGG_INVALID_ARGUMENT) &&
              same(Status::too_many_nonfinite, BRAGG_TOO_MANY_NONFINITE) &&
              same(Status::too_large, BRAGG_TOO_LARGE) &&
              same(Status::nonfinite_base, BRAGG_NONFINITE_BASE) &&
              same(Status::unsupported, BRAGG_UNSUPPORTED) && same(Status::bad_file, BRAGG_BAD_FILE) &&
              same(Status::io_error, BRAGG_IO_ERROR) && same(Status::out_of_memory, BRAGG_OUT_OF_MEMORY) &&
              same(Status::internal, BRAGG_INTERNAL) && same(Status::not_converged, BRAGG_NOT_CONVERGED) &&
              same(Status::nonfinite_pivot, BRAGG_NONFINITE_PIVOT) &&
              same(Status::no_majority, BRAGG_NO_MAJORITY) &&
              same(Status::communication, BRAGG_COMMUNICATION) &&
              same(Status::disagreement, BRAGG_DISAGREEMENT));
static_assert(same(bragg::DType::f32, BRAGG_F32) && same(bragg::DType::f16, BRAGG_F16) &&
              same(bragg::DType::bf16, BRAGG_BF16) && same(bragg::DType::f64, BRAGG_F64));
static_assert(same(bragg::Scope::whole, BRAGG_WHOLE) && same(bragg::Scope::per_tensor, BRAGG_PER_TENSOR));
static_assert(same(bragg::Device::cpu, BRAGG_CPU) && same(bragg::Device::cuda, BRAGG_CUDA));
static_assert(same(bragg::OnFailure::keep, BRAGG_KEEP) && same(bragg::OnFailure::nan, BRAGG_NAN) &&
              same(bragg::OnFailure::zero, BRAGG_ZERO));

thread_local std::string last_error;

bragg_status fail(Status status, const char* message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
  return static_cast<bragg_status>(status);
}

/// Runs f, which throws or returns a Status that it has described by `fail` where it is not ok.
template <class F>
bragg_status guarded(F f) noexcept {
  try {
    return f();
  } catch (const Error& error) {
    return fail(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(Status::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    return fail(Status::internal, error.what());
  } catch (...) {
    return fail(Status::internal, "unknown error");
  }
}

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

void need(const void* pointer, const char* name) {
  if (pointer == nullptr) refuse(fmt::format("{} is null", name));
}

/// Of an all-reduce, or a const one. @throws Error invalid_argument: null, or it has no plan.
template <class AllReduceT>
auto& plan_of(AllReduceT* all_reduce) {
  need(all_reduce, "all_reduce");
  auto* const run = std::get_if<bragg::AllReduce>(&all_reduce->run);
  if (run == nullptr) refuse("all_reduce: made by bragg_all_reduce_create_failed; it has no plan");
  return *run;
}

template <class EnumT>
EnumT checked_enum(int value, EnumT last, const char* name) {
  if (value < 0 || value > static_cast<int>(last)) {
    refuse(fmt::format("{} = {}: needs 0 to {}", name, value, static_cast<int>(last)));
  }
  return static_cast<EnumT>(value);
}

/// A struct as the caller's version has it: what that version lacks keeps its default.
template <class StructT>
void read_versioned(StructT& ours, const StructT& theirs, const char* name) {
  const std::size_t size = theirs.struct_size;
  if (size < sizeof(std::size_t)) {
    refuse(fmt::format("{}: struct_size = {}; set it to sizeof, as the _INIT macro does", name, size));
  }
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&theirs);
  for (std::size_t i = sizeof(StructT); i < size; ++i) {
    if (bytes[i] != 0) {
      throw Error(Status::unsupported,
                  fmt::format("{}: sets a field that bragg {} does not have", name, BRAGG_VERSION_STRING));
    }
  }
  std::memcpy(&ours, &theirs, std::min(size, sizeof(StructT)));
}

/// Gives the caller the fields that its version has.
template <class StructT>
void write_versioned(StructT& theirs, StructT ours, const char* name) {
  const std::size_t size = theirs.struct_size;
  if (size < sizeof(std::size_t)) {
    refuse(fmt::format("{}: struct_size = {}; set it to sizeof, as the _INIT macro does", name, size));
  }
  ours.struct_size = size;
  std::memcpy(&theirs, &ours, std::min(size, sizeof(StructT)));
}

bragg_options given_options(const bragg_options* options) {
  bragg_options given = BRAGG_OPTIONS_INIT;
  if (options != nullptr) read_versioned(given, *options, "options");
  return given;
}

bragg::Options options_of(const bragg_options* options) {
  const bragg_options given = given_options(options);
  bragg::Options made;
  made.scope = checked_enum(given.scope, bragg::Scope::per_tensor, "options.scope");
  made.on_failure = checked_enum(given.on_failure, bragg::OnFailure::zero, "options.on_failure");
  if (given.out_dtype != BRAGG_SAME_DTYPE) {
    made.out_dtype = checked_enum(given.out_dtype, bragg::DType::f64, "options.out_dtype");
  }
  made.threads = given.threads;
  made.max_weight_share = given.max_weight_share;
  made.device = checked_enum(given.device, bragg::Device::cuda, "options.device");
  made.cuda_device = given.cuda_device;
  made.lent_workspace = given.lent_workspace != 0;
  return made;
}

template <class PlanT>
bragg_status outcome(const PlanT& plan, Status status) {
  if (status == Status::ok) return BRAGG_OK;
  return fail(status, bragg::detail::describe_failure(status, plan.reports()).c_str());
}

bragg_status run(bragg::Plan& plan, const bragg::Updates& updates, const bragg::Output& out,
                 const bragg::RunArguments& arguments) {
  if (updates.space() == bragg::MemorySpace::cuda) {
    plan.run(updates, out, bragg::Stream::legacy_default(), arguments);
  } else {
    plan.run(updates, out, arguments);
  }
  return outcome(plan, plan.wait(bragg::Stream::legacy_default()));
}

bragg::Stream stream_of(void* stream) { return static_cast<CUstream_st*>(stream); }

/// The arguments of a run as the C interface has them.
struct CallArguments {
  bragg::Updates updates;
  bragg::Output out;
  bragg::RunArguments rest;
};

std::span<const double> weights_of(const double* weights, int n) {
  return weights == nullptr ? std::span<const double>{}
                            : std::span<const double>(weights, static_cast<std::size_t>(n));
}

/// Options of a call about a matrix, which is one tensor.
bragg::Options matrix_options(const bragg_options* options) {
  if (given_options(options).judged != nullptr)
    refuse("options.judged: a matrix is one tensor, by which it is judged; make a plan for several");
  return options_of(options);
}

/// A matrix in the memory of the device that is chosen.
bragg::Updates matrix_of(const void* data, int n, std::int64_t d, std::int64_t row_stride, int dtype,
                         const bragg::Options& options) {
  return bragg::Updates::matrix(
      data, n, d, checked_enum(dtype, bragg::DType::f64, "dtype"), row_stride,
      options.device == bragg::Device::cuda ? bragg::MemorySpace::cuda : bragg::MemorySpace::host);
}

CallArguments call_arguments(const bragg_plan* plan, const void* const* rows, void* const* out,
                             const void* const* base, const double* weights, bragg::MemorySpace space) {
  need(plan, "plan");
  const bragg::Shape& shape = plan->plan.shape();
  const std::size_t tensors = shape.sizes.size();
  if (tensors > 0) {
    need(rows, "rows");
    need(out, "out");
  }
  std::vector<std::vector<const void*>> pointers;
  for (std::size_t i = 0; i < static_cast<std::size_t>(shape.n); ++i) {
    pointers.emplace_back(rows + i * tensors, rows + (i + 1) * tensors);
  }
  bragg::RunArguments rest;
  if (base != nullptr) rest.base = bragg::Row(std::vector<const void*>(base, base + tensors));
  rest.weights = weights_of(weights, shape.n);
  bragg::Updates updates = bragg::Updates::tensors(pointers, shape.sizes, shape.dtype, space);
  if (!shape.judged.empty()) updates.judge_by(shape.judged);
  return {std::move(updates), bragg::Output(std::vector<void*>(out, out + tensors)), std::move(rest)};
}

const bragg::Report& report_of(std::span<const bragg::Report> reports, std::size_t index) {
  if (index >= reports.size()) refuse(fmt::format("index = {}: there are {} reports", index, reports.size()));
  return reports[index];
}

void write_report(const bragg::Report& found, bragg_report* report) {
  need(report, "report");
  write_versioned(
      *report,
      {0, static_cast<int32_t>(found.status), static_cast<int32_t>(found.rows.size()), found.iterations,
       found.converged ? 1 : 0, found.optimality_gap, found.distance_error, found.recentred ? 1 : 0},
      "report");
}

void write_row_report(const bragg::Report& found, int row, bragg_row_report* report) {
  need(report, "report");
  if (row < 0 || static_cast<std::size_t>(row) >= found.rows.size()) {
    refuse(fmt::format("row = {}: the report has {} rows{}", row, found.rows.size(),
                       found.rows.empty() ? "; run the plan first" : ""));
  }
  const bragg::RowReport& of_row = found.rows[static_cast<std::size_t>(row)];
  write_versioned(
      *report,
      {0, of_row.weight, of_row.score, of_row.clip_factor, of_row.nonfinite, of_row.selected ? 1 : 0},
      "report");
}

bragg::Shape shape_of(int n, const std::int64_t* sizes, std::size_t tensors, int dtype,
                      const bragg_options* options) {
  if (tensors > 0) need(sizes, "sizes");
  bragg::Shape shape{n, {}, checked_enum(dtype, bragg::DType::f64, "dtype")};
  shape.sizes.assign(sizes, sizes + tensors);
  const std::uint8_t* const judged = given_options(options).judged;
  for (std::size_t t = 0; judged != nullptr && t < tensors; ++t) shape.judged.push_back(judged[t] != 0);
  return shape;
}

}  // namespace

extern "C" {

const char* bragg_version(void) { return BRAGG_VERSION_STRING; }

const char* bragg_status_name(int32_t status) { return bragg::to_string(static_cast<Status>(status)); }

const char* bragg_last_error(void) { return last_error.c_str(); }

bragg_status bragg_plan_create(const char* pipeline, int32_t n, const int64_t* sizes, size_t tensors,
                               int32_t dtype, const bragg_options* options, bragg_plan** plan) {
  return guarded([&] {
    need(plan, "plan");
    *plan = nullptr;
    need(pipeline, "pipeline");
    bragg::Shape shape = shape_of(n, sizes, tensors, dtype, options);
    *plan = new bragg_plan{bragg::Plan(bragg::parse(pipeline), std::move(shape), options_of(options))};
    return BRAGG_OK;
  });
}

void bragg_plan_destroy(bragg_plan* plan) { delete plan; }

bragg_status bragg_plan_run(bragg_plan* plan, const void* const* rows, void* const* out,
                            const void* const* base, const double* weights) {
  return guarded([&] {
    const CallArguments call = call_arguments(plan, rows, out, base, weights, bragg::MemorySpace::host);
    return run(plan->plan, call.updates, call.out, call.rest);
  });
}

int32_t bragg_cuda_device_count(void) { return bragg::cuda_device_count(); }

bragg_status bragg_plan_enqueue(bragg_plan* plan, const void* const* rows, void* const* out,
                                const void* const* base, const double* weights, void* workspace,
                                void* stream) {
  return guarded([&] {
    CallArguments call = call_arguments(plan, rows, out, base, weights, bragg::MemorySpace::cuda);
    call.rest.workspace = workspace;
    plan->plan.run(call.updates, call.out, stream_of(stream), call.rest);
    return BRAGG_OK;
  });
}

bragg_status bragg_plan_wait(bragg_plan* plan, void* stream) {
  return guarded([&] {
    need(plan, "plan");
    return outcome(plan->plan, plan->plan.wait(stream_of(stream)));
  });
}

size_t bragg_plan_workspace_bytes(const bragg_plan* plan) {
  return plan == nullptr ? 0 : plan->plan.workspace_bytes();
}

bragg_status bragg_plan_status(const bragg_plan* plan) {
  return guarded([&] {
    need(plan, "plan");
    return static_cast<bragg_status>(plan->plan.status());
  });
}

bragg_status bragg_plan_reset(bragg_plan* plan) {
  return guarded([&] {
    need(plan, "plan");
    plan->plan.reset();
    return BRAGG_OK;
  });
}

size_t bragg_plan_report_count(const bragg_plan* plan) {
  return plan == nullptr ? 0 : plan->plan.reports().size();
}

bragg_status bragg_plan_report(const bragg_plan* plan, size_t index, bragg_report* report) {
  return guarded([&] {
    need(plan, "plan");
    write_report(report_of(plan->plan.reports(), index), report);
    return BRAGG_OK;
  });
}

bragg_status bragg_plan_row_report(const bragg_plan* plan, size_t index, int32_t row,
                                   bragg_row_report* report) {
  return guarded([&] {
    need(plan, "plan");
    write_row_report(report_of(plan->plan.reports(), index), row, report);
    return BRAGG_OK;
  });
}

bragg_status bragg_aggregate(const char* pipeline, const void* data, int32_t n, int64_t d, int64_t row_stride,
                             int32_t dtype, void* out, const void* base, const double* weights,
                             const bragg_options* options) {
  return guarded([&] {
    need(pipeline, "pipeline");
    const bragg::Pipeline parsed = bragg::parse(pipeline);
    const bragg::Options chosen = matrix_options(options);
    const bragg::Updates updates = matrix_of(data, n, d, row_stride, dtype, chosen);
    bragg::Plan plan(parsed, bragg::Shape::of(updates), chosen);
    bragg::RunArguments arguments;
    if (base != nullptr) arguments.base = bragg::Row(base);
    arguments.weights = weights_of(weights, n);
    return run(plan, updates, bragg::Output(out), arguments);
  });
}

bragg_status bragg_points_after(const char* sequence, int32_t n, int32_t* points) {
  return guarded([&] {
    need(sequence, "sequence");
    need(points, "points");
    *points = bragg::points_after(bragg::parse_pre_aggregators(sequence), n);
    return BRAGG_OK;
  });
}

bragg_status bragg_pre_aggregate(const char* sequence, const void* data, int32_t n, int64_t d,
                                 int64_t row_stride, int32_t dtype, void* out, const void* base,
                                 const bragg_options* options) {
  return guarded([&] {
    need(sequence, "sequence");
    if (d > 0) need(out, "out");
    const bragg::PreSequence parsed = bragg::parse_pre_aggregators(sequence);
    const bragg::Options chosen = matrix_options(options);
    const bragg::Updates updates = matrix_of(data, n, d, row_stride, dtype, chosen);
    const std::size_t bytes =
        static_cast<std::size_t>(d) * bragg::size_of(chosen.out_dtype.value_or(updates.dtype()));
    std::vector<bragg::Output> points;
    for (std::size_t p = 0; p < static_cast<std::size_t>(bragg::points_after(parsed, n)); ++p) {
      points.emplace_back(static_cast<std::byte*>(out) + p * bytes);
    }
    bragg::RunArguments arguments;
    if (base != nullptr) arguments.base = bragg::Row(base);
    bragg::pre_aggregate(parsed, updates, points, arguments, chosen);
    return BRAGG_OK;
  });
}

bragg_status bragg_all_reduce_create(const char* pipeline, int32_t ranks, int32_t rank, const int64_t* sizes,
                                     size_t tensors, int32_t dtype, int32_t gather, int32_t replicas,
                                     const bragg_options* options, bragg_all_reduce** all_reduce) {
  return guarded([&] {
    need(all_reduce, "all_reduce");
    *all_reduce = nullptr;
    need(pipeline, "pipeline");
    bragg::Shape rows = shape_of(ranks, sizes, tensors, dtype, options);
    const bragg::Options chosen = options_of(options);
    if (chosen.device == bragg::Device::cuda)
      refuse("options.device = cuda; an all-reduce in C is on the CPU: leave it out");
    *all_reduce = new bragg_all_reduce{
        bragg::AllReduce(bragg::parse(pipeline), std::move(rows), rank,
                         {.options = chosen, .gather = gather != 0, .replicas = replicas})};
    return BRAGG_OK;
  });
}

bragg_status bragg_all_reduce_create_failed(int32_t ranks, int32_t rank, bragg_status status,
                                            const char* message, bragg_all_reduce** all_reduce) {
  return guarded([&] {
    need(all_reduce, "all_reduce");
    *all_reduce = nullptr;
    need(message, "message");
    const auto last = Status::disagreement;
    if (status == BRAGG_OK) refuse("status = 0: the rank has not failed");
    *all_reduce = new bragg_all_reduce{
        bragg::FailedRun(Error(checked_enum(status, last, "status"), message), ranks, rank)};
    return BRAGG_OK;
  });
}

void bragg_all_reduce_destroy(bragg_all_reduce* all_reduce) { delete all_reduce; }

bragg_status bragg_all_reduce_slice(const bragg_all_reduce* all_reduce, int32_t rank, size_t tensor,
                                    int64_t* begin, int64_t* end) {
  return guarded([&] {
    need(begin, "begin");
    need(end, "end");
    const bragg::Sharding& sharding = plan_of(all_reduce).sharding();
    if (rank < 0 || rank >= sharding.ranks())
      refuse(fmt::format("rank = {}; needs a rank in [0, {})", rank, sharding.ranks()));
    if (tensor >= sharding.sizes().size())
      refuse(fmt::format("tensor = {}: there are {} tensors", tensor, sharding.sizes().size()));
    const bragg::Slice slice = sharding.slices(rank)[tensor];
    *begin = slice.begin;
    *end = slice.end;
    return BRAGG_OK;
  });
}

bragg_status bragg_all_reduce_begin(bragg_all_reduce* all_reduce, const void* const* row, void* const* out,
                                    const void* const* base, const double* weights) {
  return guarded([&] {
    bragg::AllReduce& run = plan_of(all_reduce);
    const std::size_t tensors = run.sharding().sizes().size();
    bragg::RunArguments rest;
    if (base != nullptr) rest.base = bragg::Row(std::vector<const void*>(base, base + tensors));
    rest.weights = weights_of(weights, run.sharding().ranks());
    // A list that is missing is one of null pointers, which every rank is told of.
    std::vector<const void*> tensors_of_row(tensors);
    std::vector<void*> tensors_of_out(tensors);
    if (row != nullptr) std::copy_n(row, tensors, tensors_of_row.begin());
    if (out != nullptr) std::copy_n(out, tensors, tensors_of_out.begin());
    run.begin(bragg::Row(std::move(tensors_of_row)), bragg::Output(std::move(tensors_of_out)), rest);
    return BRAGG_OK;
  });
}

bragg_status bragg_all_reduce_next(bragg_all_reduce* all_reduce, bragg_transfer* transfer) {
  return guarded([&] {
    need(all_reduce, "all_reduce");
    need(transfer, "transfer");
    write_versioned(*transfer, BRAGG_TRANSFER_INIT, "transfer");
    const bragg::Transfer* const next = std::visit([](auto& run) { return run.next(); }, all_reduce->run);
    if (next == nullptr) return outcome(plan_of(all_reduce), plan_of(all_reduce).status());
    write_versioned(*transfer,
                    {0, static_cast<int32_t>(next->receive_bytes.size()), next->send,
                     next->send_bytes.empty() ? nullptr : next->send_bytes.data(), next->receive,
                     next->receive_bytes.data()},
                    "transfer");
    return BRAGG_OK;
  });
}

bragg_status bragg_all_reduce_status(const bragg_all_reduce* all_reduce) {
  return guarded([&] { return static_cast<bragg_status>(plan_of(all_reduce).status()); });
}

bragg_status bragg_all_reduce_reset(bragg_all_reduce* all_reduce) {
  return guarded([&] {
    plan_of(all_reduce).reset();
    return BRAGG_OK;
  });
}

size_t bragg_all_reduce_report_count(const bragg_all_reduce* all_reduce) {
  const auto* const run = all_reduce == nullptr ? nullptr : std::get_if<bragg::AllReduce>(&all_reduce->run);
  return run == nullptr ? 0 : run->reports().size();
}

bragg_status bragg_all_reduce_report(const bragg_all_reduce* all_reduce, size_t index, bragg_report* report) {
  return guarded([&] {
    write_report(report_of(plan_of(all_reduce).reports(), index), report);
    return BRAGG_OK;
  });
}

bragg_status bragg_all_reduce_row_report(const bragg_all_reduce* all_reduce, size_t index, int32_t row,
                                         bragg_row_report* report) {
  return guarded([&] {
    write_row_report(report_of(plan_of(all_reduce).reports(), index), row, report);
    return BRAGG_OK;
  });
}

}  // extern "C"
