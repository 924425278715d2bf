// SPDX-License-Identifier: Apache-2.0
// Ranks as threads of one process.
#pragma once

#include <bragg/communicator.hpp>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

namespace bragg::test {

/// What threads share that are ranks of one job.
class LocalJob {
 public:
  explicit LocalJob(int ranks, std::chrono::milliseconds timeout = std::chrono::seconds(60))
      : posts(static_cast<std::size_t>(ranks)), timeout_(timeout) {}

  struct Post {
    std::vector<std::byte> send;      // a copy: a rank that gives up may be gone while others read
    std::vector<std::int64_t> bytes;  // of all_to_all, for each rank; of all_gather, one
  };
  std::vector<Post> posts;

  /// Alters what a rank gets of another, in that rank's call number `call`; nothing where it is empty.
  std::function<void(int from, int to, int call, std::span<std::byte> bytes)> tamper;

  /// Until all ranks are here. @throws Error communication: one has given up, or did not come in time.
  void meet() {
    std::unique_lock lock(mutex_);
    const std::int64_t round = round_;
    if (++here_ == posts.size()) {
      here_ = 0;
      ++round_;
      all_here_.notify_all();
      return;
    }
    all_here_.wait_for(lock, timeout_, [&] { return round_ != round || given_up_; });
    if (round_ != round) return;
    given_up_ = true;
    all_here_.notify_all();
    throw Error(Status::communication, "a rank failed, or did not come in time");
  }
  void give_up() {
    const std::lock_guard lock(mutex_);
    given_up_ = true;
    all_here_.notify_all();
  }

 private:
  std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable all_here_;
  std::size_t here_ = 0;
  std::int64_t round_ = 0;
  bool given_up_ = false;
};

class LocalCommunicator : public Communicator {
 public:
  LocalCommunicator(LocalJob& job, int rank) : job_(job), rank_(rank) {}

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return static_cast<int>(job_.posts.size()); }

  void all_to_all(const std::byte* send, std::span<const std::int64_t> send_bytes, std::byte* receive,
                  std::span<const std::int64_t> receive_bytes) override {
    post(send, {send_bytes.begin(), send_bytes.end()});
    for (std::size_t r = 0; r < receive_bytes.size(); ++r) {
      const LocalJob::Post& from = job_.posts[r];
      const auto me = static_cast<std::ptrdiff_t>(rank_);
      const std::int64_t before =
          std::accumulate(from.bytes.begin(), from.bytes.begin() + me, std::int64_t{0});
      take(static_cast<int>(r), from.send.data() + before, from.bytes[static_cast<std::size_t>(me)], receive,
           receive_bytes[r]);
    }
    job_.meet();
  }

  void all_gather(const std::byte* send, std::byte* receive, std::span<const std::int64_t> bytes) override {
    post(send, {bytes[static_cast<std::size_t>(rank_)]});
    for (std::size_t r = 0; r < bytes.size(); ++r)
      take(static_cast<int>(r), job_.posts[r].send.data(), job_.posts[r].bytes[0], receive, bytes[r]);
    job_.meet();
  }

 private:
  void post(const std::byte* send, std::vector<std::int64_t> bytes) {
    const std::int64_t total = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
    LocalJob::Post& mine = job_.posts[static_cast<std::size_t>(rank_)];
    mine.send.assign(send, send + total);
    mine.bytes = std::move(bytes);
    ++calls_;
    job_.meet();
  }
  void take(int peer, const std::byte* from, std::int64_t sent, std::byte*& to, std::int64_t expected) {
    if (sent != expected) {
      job_.give_up();
      throw Error(Status::internal, "a rank sends another number of bytes than is received");
    }
    if (sent > 0) std::memcpy(to, from, static_cast<std::size_t>(sent));
    if (job_.tamper && peer != rank_) job_.tamper(peer, rank_, calls_, {to, static_cast<std::size_t>(sent)});
    to += sent;
  }

  LocalJob& job_;
  int rank_;
  int calls_ = 0;
};

/// body(communicator) on every rank of a job; what ranks threw, null where nothing was.
inline std::vector<std::exception_ptr> run_ranks(LocalJob& job,
                                                 const std::function<void(LocalCommunicator&)>& body) {
  std::vector<std::exception_ptr> thrown(job.posts.size());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < thrown.size(); ++rank) {
    threads.emplace_back([&, rank] {
      LocalCommunicator communicator(job, static_cast<int>(rank));
      try {
        body(communicator);
      } catch (...) {
        thrown[rank] = std::current_exception();
        job.give_up();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

inline std::vector<std::exception_ptr> run_ranks(
    int ranks, const std::function<void(LocalCommunicator&)>& body,
    std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  LocalJob job(ranks, timeout);
  return run_ranks(job, body);
}

}  // namespace bragg::test
