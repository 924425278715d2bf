// SPDX-License-Identifier: Apache-2.0
#include "host/files/ranks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <numeric>
#include <optional>
#include <set>

#include "host/files/packed.hpp"

namespace bragg::detail {

namespace {

/// What a rank failed of.
struct Failure {
  Status status = Status::ok;
  std::string what = {};
  std::vector<LostInput> lost = {};
};

Failure failure_of(const std::exception_ptr& thrown) {
  if (!thrown) return {};
  try {
    std::rethrow_exception(thrown);
  } catch (const InputLost& lost) {
    return {.lost = lost.inputs};
  } catch (const Error& error) {
    return {error.status(), error.what()};
  } catch (const std::bad_alloc&) {
    return {Status::out_of_memory, "out of memory"};
  } catch (const std::exception& error) {
    return {Status::internal, error.what()};
  }
}

std::string packed(const Failure& failure) {
  Packer packer;
  packer.put(failure.status);
  packer.put(std::string_view(failure.what));
  packer.put(failure.lost.size());
  for (const LostInput& input : failure.lost) {
    packer.put(input.model);
    packer.put(std::string_view(input.reason));
  }
  return packer.bytes();
}

Failure unpacked(const std::string& bytes) {
  Unpacker from(bytes);
  Failure failure{from.take<Status>(), from.take_text()};
  for (auto left = from.take<std::size_t>(); left > 0; --left) {
    const auto model = from.take<std::size_t>();
    failure.lost.push_back({model, from.take_text()});
  }
  return failure;
}

}  // namespace

Ranks::Ranks(Communicator* communicator) : communicator_(communicator) {
  if (communicator == nullptr) return;
  size_ = communicator->size();
  rank_ = communicator->rank();
}

std::vector<std::string> Ranks::gather(std::string_view mine) {
  if (!many()) return {std::string(mine)};
  const auto own = static_cast<std::int64_t>(mine.size());
  std::vector<std::int64_t> bytes(static_cast<std::size_t>(size_));
  const std::vector<std::int64_t> counts(bytes.size(), sizeof own);
  communicator_->all_gather(reinterpret_cast<const std::byte*>(&own),
                            reinterpret_cast<std::byte*>(bytes.data()), counts);
  const std::int64_t total = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
  std::string all(static_cast<std::size_t>(total), '\0');
  communicator_->all_gather(reinterpret_cast<const std::byte*>(mine.data()),
                            reinterpret_cast<std::byte*>(all.data()), bytes);
  std::vector<std::string> texts;
  std::size_t at = 0;
  for (const std::int64_t each : bytes) {
    texts.push_back(all.substr(at, static_cast<std::size_t>(each)));
    at += static_cast<std::size_t>(each);
  }
  return texts;
}

void Ranks::add_up(std::vector<std::int64_t>& counts) {
  if (!many()) return;
  Packer mine;
  for (const std::int64_t count : counts) mine.put(count);
  std::fill(counts.begin(), counts.end(), 0);
  for (const std::string& theirs : gather(mine.bytes())) {
    Unpacker from(theirs);
    for (std::int64_t& count : counts) count += from.take<std::int64_t>();
  }
}

bool Ranks::all(bool mine) {
  std::vector<std::int64_t> without{mine ? 0 : 1};
  add_up(without);
  return without.front() == 0;
}

void Ranks::agree(std::span<const Topic> topics) {
  if (!many()) return;
  Packer packer;
  for (const Topic& topic : topics) packer.put(topic.digest);
  const std::vector<std::string> given = gather(packer.bytes());
  together([&] {
    std::vector<Unpacker> from(given.begin(), given.end());
    for (const Topic& topic : topics) {
      const auto first = from.front().take<std::uint64_t>();
      for (std::size_t r = 1; r < from.size(); ++r) {
        if (from[r].take<std::uint64_t>() == first) continue;
        throw Error(Status::disagreement, fmt::format("ranks 0 and {} were given {}", r, topic.name));
      }
    }
  });
}

std::vector<Ranks::State> Ranks::exchange(State mine) {
  std::vector<State> states(static_cast<std::size_t>(size_));
  const std::vector<std::int64_t> bytes(states.size(), sizeof mine);
  communicator_->all_gather(reinterpret_cast<const std::byte*>(&mine),
                            reinterpret_cast<std::byte*>(states.data()), bytes);
  looked_up_ = std::chrono::steady_clock::now();
  return states;
}

void Ranks::look_up() {
  constexpr std::chrono::milliseconds seldom(200);
  if (!many() || std::chrono::steady_clock::now() - looked_up_ < seldom) return;
  const std::vector<State> states = exchange(State::working);
  if (std::count(states.begin(), states.end(), State::failed) == 0) return;
  peer_failed_ = true;
  throw PeerFailed{};
}

/// Until all are done, or one has failed.
void Ranks::settle(const std::exception_ptr& failure) {
  while (!peer_failed_) {
    const std::vector<State> states = exchange(failure ? State::failed : State::done);
    const auto of = [&](State state) { return std::count(states.begin(), states.end(), state); };
    peer_failed_ = of(State::failed) > 0;
    if (of(State::done) == std::ssize(states)) return;
  }
  fail_together(failure);
}

void Ranks::fail_together(const std::exception_ptr& failure) {
  peer_failed_ = false;
  std::vector<Failure> failures;
  for (const std::string& each : gather(packed(failure_of(failure)))) failures.push_back(unpacked(each));
  ended_together_ = true;
  for (std::size_t r = 0; r < failures.size(); ++r) {
    if (failures[r].status == Status::ok) continue;
    // What the first meets all may have met.
    throw Error(failures[r].status,
                r == 0 ? failures[r].what : fmt::format("rank {}: {}", r, failures[r].what));
  }
  InputLost lost;
  std::set<std::size_t> seen;
  for (Failure& each : failures) {
    for (LostInput& input : each.lost) {
      if (seen.insert(input.model).second) lost.inputs.push_back(std::move(input));
    }
  }
  ended_together_ = false;  // they go on
  throw lost;
}

}  // namespace bragg::detail
