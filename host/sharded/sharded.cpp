// SPDX-License-Identifier: Apache-2.0
#include <bragg/sharded.hpp>

#include <fmt/format.h>

#include <cstring>
#include <exception>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "host/base/api_call.hpp"
#include "host/sharded/agreement.hpp"
#include "host/sharded/sharded_run.hpp"
#include "rules/floating_environment.hpp"

namespace bragg {
inline namespace v0 {

namespace {

using detail::api_call;
using detail::Hello;
using detail::ShardedRun;

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

std::unique_ptr<ShardedRun> make_run(Pipeline pipeline, Shape shape, Sharding sharding, int rank,
                                     const Options& options, bool all_reduce = false, bool gathered = false,
                                     int replicas = 1) {
  if (options.lent_workspace) refuse("options.lent_workspace: ranks of a job have workspaces of their own");
  if (!std::ranges::equal(sharding.sizes(), shape.sizes))
    refuse("sharding: of other tensors than rows.sizes");
  if (rank < 0 || rank >= sharding.ranks())
    refuse(fmt::format("rank = {}; needs a rank in [0, {})", rank, sharding.ranks()));
  if (replicas < 1 || replicas > sharding.ranks()) {
    refuse(fmt::format("replicas = {}; needs 1 to the number of ranks, {}", replicas, sharding.ranks()));
  }
  return api_call("plan", [&] {
    return std::make_unique<ShardedRun>(std::move(pipeline), std::move(shape), std::move(sharding), rank,
                                        options, all_reduce, gathered, replicas);
  });
}

/// What ranks tell each other when plans are made and when a run begins.
struct Meeting {
  Hello mine;
  int rank;
  std::exception_ptr failure;
  std::vector<std::byte> messages;
  std::vector<std::int64_t> bytes;
  Transfer transfer;

  Meeting(const detail::Topics& digests, std::exception_ptr failure_in, int ranks, int rank_in)
      : mine(detail::hello_of(digests, failure_in)),
        rank(rank_in),
        failure(std::move(failure_in)),
        messages(static_cast<std::size_t>(ranks) * sizeof(Hello)),
        bytes(static_cast<std::size_t>(ranks), sizeof(Hello)),
        transfer{.send = reinterpret_cast<const std::byte*>(&mine),
                 .receive = messages.data(),
                 .receive_bytes = bytes} {}
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;

  void check() const { detail::check_hellos(messages, bytes, rank, failure); }
};

void meet(Communicator& communicator, const detail::Topics& digests, std::exception_ptr failure) {
  Meeting meeting(digests, std::move(failure), communicator.size(), communicator.rank());
  communicator.all_gather(meeting.transfer.send, meeting.transfer.receive, meeting.transfer.receive_bytes);
  meeting.check();
}

/// `make` on every rank, and what one of them met on all.
template <class MakeF>
std::unique_ptr<ShardedRun> make_together(Communicator& communicator, MakeF make) {
  std::unique_ptr<ShardedRun> run;
  std::exception_ptr failure;
  try {
    run = make();
  } catch (...) {
    failure = std::current_exception();
  }
  meet(communicator, run ? run->digests() : detail::Topics{}, failure);
  return run;
}

Sharding sharding_of_rows(const Shape& rows, std::optional<Sharding> wanted) {
  if (rows.n < 1) refuse(fmt::format("rows.n = {}; needs the number of ranks", rows.n));
  if (!wanted) return Sharding::even(rows.sizes, rows.n);
  if (wanted->ranks() != rows.n)
    refuse(fmt::format("sharding: for {} ranks; needs rows.n = {}", wanted->ranks(), rows.n));
  return std::move(*wanted);
}

/// What both classes hold.
struct Handle {
  std::unique_ptr<ShardedRun> run;
  Communicator* communicator = nullptr;

  /// All of a run that has begun.
  void move_all() const {
    if (communicator == nullptr)
      refuse("run: the plan has no communicator; call begin and next, or make it with one");
    api_call("run", [&] {
      while (const Transfer* transfer = run->next()) {
        if (transfer->space == MemorySpace::host || communicator->moves_device_memory()) {
          move(*transfer);
        } else {
          move_through_host(*transfer);
        }
      }
    });
  }

  const Transfer* next() const {
    const detail::FloatingEnvironment environment;
    return run->next();
  }

  void begin(const auto& mine, const Output& out, std::optional<Stream> stream,
             const RunArguments& arguments) const {
    api_call("run", [&] { run->begin(mine, out, stream, arguments); });
  }

 private:
  static std::int64_t sum(std::span<const std::int64_t> bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
  }

  void move(const Transfer& transfer) const {
    if (transfer.send_bytes.empty()) {
      communicator->all_gather(transfer.send, transfer.receive, transfer.receive_bytes);
    } else {
      communicator->all_to_all(transfer.send, transfer.send_bytes, transfer.receive, transfer.receive_bytes);
    }
  }

  void move_through_host(const Transfer& transfer) const {
    const std::int64_t sent = transfer.send_bytes.empty()
                                  ? transfer.receive_bytes[static_cast<std::size_t>(communicator->rank())]
                                  : sum(transfer.send_bytes);
    std::vector<std::byte> send(static_cast<std::size_t>(sent));
    std::vector<std::byte> receive(static_cast<std::size_t>(sum(transfer.receive_bytes)));
    run->memory().to_host(send.data(), transfer.send, send.size());
    move({.send = send.data(),
          .send_bytes = transfer.send_bytes,
          .receive = receive.data(),
          .receive_bytes = transfer.receive_bytes});
    run->memory().from_host(transfer.receive, receive.data(), receive.size());
  }
};

}  // namespace

struct ShardedPlan::Impl : Handle {};
struct AllReduce::Impl : Handle {};

ShardedPlan::ShardedPlan(Pipeline pipeline, Shape rows, Sharding sharding, Communicator& communicator,
                         Options options)
    : impl_(std::make_unique<Impl>()) {
  impl_->communicator = &communicator;
  impl_->run = make_together(communicator, [&] {
    if (sharding.ranks() != communicator.size()) {
      refuse(fmt::format("sharding: for {} ranks; the communicator has {}", sharding.ranks(),
                         communicator.size()));
    }
    return make_run(std::move(pipeline), std::move(rows), std::move(sharding), communicator.rank(), options);
  });
}

ShardedPlan::ShardedPlan(Pipeline pipeline, Shape rows, Sharding sharding, int rank, Options options)
    : impl_(std::make_unique<Impl>()) {
  impl_->run = make_run(std::move(pipeline), std::move(rows), std::move(sharding), rank, options);
}

ShardedPlan::~ShardedPlan() = default;
ShardedPlan::ShardedPlan(ShardedPlan&&) noexcept = default;
ShardedPlan& ShardedPlan::operator=(ShardedPlan&&) noexcept = default;

void ShardedPlan::run(const Updates& mine, const Output& out, const RunArguments& arguments) {
  begin(mine, out, arguments);
  impl_->move_all();
}
void ShardedPlan::run(const Updates& mine, const Output& out, Stream stream, const RunArguments& arguments) {
  begin(mine, out, stream, arguments);
  impl_->move_all();
}

void ShardedPlan::begin(const Updates& mine, const Output& out, const RunArguments& arguments) {
  impl_->begin(mine, out, std::nullopt, arguments);
}
void ShardedPlan::begin(const Updates& mine, const Output& out, Stream stream,
                        const RunArguments& arguments) {
  impl_->begin(mine, out, stream, arguments);
}
const Transfer* ShardedPlan::next() { return impl_->next(); }
Status ShardedPlan::status() const noexcept { return impl_->run->status(); }
std::span<const Report> ShardedPlan::reports() const noexcept { return impl_->run->reports(); }
void ShardedPlan::reset() { impl_->run->reset(); }
const Sharding& ShardedPlan::sharding() const noexcept { return impl_->run->sharding(); }

AllReduce::AllReduce(Pipeline pipeline, Shape rows, Communicator& communicator, AllReduceOptions options)
    : impl_(std::make_unique<Impl>()) {
  impl_->communicator = &communicator;
  impl_->run = make_together(communicator, [&] {
    if (rows.n != communicator.size()) {
      refuse(fmt::format("rows.n = {}; needs the number of ranks, {}", rows.n, communicator.size()));
    }
    Sharding sharding = sharding_of_rows(rows, std::move(options.sharding));
    return make_run(std::move(pipeline), std::move(rows), std::move(sharding), communicator.rank(),
                    options.options, true, options.gather, options.replicas);
  });
}

AllReduce::AllReduce(Pipeline pipeline, Shape rows, int rank, AllReduceOptions options)
    : impl_(std::make_unique<Impl>()) {
  Sharding sharding = sharding_of_rows(rows, std::move(options.sharding));
  impl_->run = make_run(std::move(pipeline), std::move(rows), std::move(sharding), rank, options.options,
                        true, options.gather, options.replicas);
}

AllReduce::~AllReduce() = default;
AllReduce::AllReduce(AllReduce&&) noexcept = default;
AllReduce& AllReduce::operator=(AllReduce&&) noexcept = default;

void AllReduce::run(const Row& mine, const Output& out, const RunArguments& arguments) {
  begin(mine, out, arguments);
  impl_->move_all();
}
void AllReduce::run(const Row& mine, const Output& out, Stream stream, const RunArguments& arguments) {
  begin(mine, out, stream, arguments);
  impl_->move_all();
}

void AllReduce::begin(const Row& mine, const Output& out, const RunArguments& arguments) {
  impl_->begin(mine, out, std::nullopt, arguments);
}
void AllReduce::begin(const Row& mine, const Output& out, Stream stream, const RunArguments& arguments) {
  impl_->begin(mine, out, stream, arguments);
}
const Transfer* AllReduce::next() { return impl_->next(); }
Status AllReduce::status() const noexcept { return impl_->run->status(); }
std::span<const Report> AllReduce::reports() const noexcept { return impl_->run->reports(); }
void AllReduce::reset() { impl_->run->reset(); }
const Sharding& AllReduce::sharding() const noexcept { return impl_->run->sharding(); }

struct FailedRun::Impl {
  Meeting meeting;
  bool told = false;
};

FailedRun::FailedRun(const Error& error, int ranks, int rank) {
  if (rank < 0 || rank >= ranks) refuse(fmt::format("rank = {}; needs a rank in [0, {})", rank, ranks));
  impl_.reset(new Impl{.meeting = {{}, std::make_exception_ptr(error), ranks, rank}});
}
FailedRun::~FailedRun() = default;
FailedRun::FailedRun(FailedRun&&) noexcept = default;
FailedRun& FailedRun::operator=(FailedRun&&) noexcept = default;

const Transfer* FailedRun::next() {
  if (impl_->told) impl_->meeting.check();
  impl_->told = true;
  return &impl_->meeting.transfer;
}

void FailedRun::tell(Communicator& communicator, const Error& error) {
  meet(communicator, {}, std::make_exception_ptr(error));
  throw error;
}

}  // namespace v0
}  // namespace bragg
