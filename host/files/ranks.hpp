// SPDX-License-Identifier: Apache-2.0
// The processes that aggregate files together, and what they have to agree on before they rely on it.
#pragma once

#include <bragg/communicator.hpp>
#include <bragg/error.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bragg::detail {

/// An input that cannot be read on.
struct LostInput {
  std::size_t model = 0;
  std::string reason;
};

/// Inputs of which some was used already cannot be read on: all has to be done once more without them.
struct InputLost {
  std::vector<LostInput> inputs = {};
};

/// The ranks of a job; one alone has nobody to ask. All make the same calls in the same order.
///
/// What one of them meets is met by all: `together` throws the same on every rank. Anything else that is
/// thrown is `communication`: the ranks have lost each other, and the job has to be ended from outside.
class Ranks {
 public:
  /// Null: one alone.
  explicit Ranks(Communicator* communicator);

  bool many() const noexcept { return size_ > 1; }
  int size() const noexcept { return size_; }
  int rank() const noexcept { return rank_; }
  bool is_first() const noexcept { return rank_ == 0; }
  Communicator& communicator() noexcept { return *communicator_; }

  /// Runs what may fail on some ranks. Where it did, all throw the error of the first of them, or InputLost
  /// with what all of them lost.
  template <class F>
  void together(F work) {
    if (!many()) {
      work();
      return;
    }
    std::exception_ptr failure;
    try {
      work();
    } catch (const PeerFailed&) {
    } catch (...) {
      failure = std::current_exception();
    }
    settle(failure);
  }

  /// From within `together`, often: ends the work soon after another rank has failed.
  void look_up();

  /// Everybody's bytes, to all.
  std::vector<std::string> gather(std::string_view mine);
  /// Those of rank 0, for all.
  std::string of_first(std::string_view mine) { return gather(is_first() ? mine : "").front(); }
  /// Makes each of them the sum of all ranks'.
  void add_up(std::vector<std::int64_t>& counts);
  /// Whether it is so on every rank.
  bool all(bool mine);

  /// What all have to be given alike. @throws Error disagreement: ranks differ in it.
  struct Topic {
    const char* name;  ///< "different pipelines"
    std::uint64_t digest;
  };
  void agree(std::span<const Topic> topics);

  /// Whether what was thrown is known to all.
  bool ended_together() const noexcept { return ended_together_; }

 private:
  struct PeerFailed {};
  enum class State : std::uint8_t { working, done, failed };

  /// Tells the others how far this rank is; the others' states.
  std::vector<State> exchange(State mine);
  void settle(const std::exception_ptr& failure);
  [[noreturn]] void fail_together(const std::exception_ptr& failure);

  Communicator* communicator_;
  int size_ = 1, rank_ = 0;
  bool peer_failed_ = false;
  bool ended_together_ = false;
  std::chrono::steady_clock::time_point looked_up_ = {};
};

}  // namespace bragg::detail
