// SPDX-License-Identifier: Apache-2.0
// Where every random test gets its seed from, and the digest of what was drawn with it.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>

namespace bragg::test {

/// The run of one program: its seed is BRAGG_TEST_SEED, or fresh where that is not set. The seed is printed
/// at once, and at the end with the digest of all that generators drew: the same for the same cases.
class Session {
 public:
  static Session& get() {
    static Session session;
    return session;
  }
  std::uint64_t seed() const { return seed_; }
  /// Generators may end in any order, in any thread.
  void add(std::uint64_t drawn) { digest_ += drawn; }

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  Session() {
    const char* const given = std::getenv("BRAGG_TEST_SEED");
    seed_ = given != nullptr && *given != '\0' ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("BRAGG_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed_));
    std::fflush(stdout);
  }
  ~Session() {
    std::printf("BRAGG_TEST_SEED=%llu drew %016llx\n", static_cast<unsigned long long>(seed_),
                static_cast<unsigned long long>(digest_.load()));
  }

  std::uint64_t seed_ = 0;
  std::atomic<std::uint64_t> digest_ = 0;
};

inline std::uint64_t session_seed() { return Session::get().seed(); }

/// Of a program's tests one in BRAGG_TEST_PARTS is run, and the seed decides which: shards of GoogleTest,
/// which asks for them when main begins.
inline const bool parts_are_drawn = [] {
  const char* const given = std::getenv("BRAGG_TEST_PARTS");
  const std::uint64_t parts = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  if (parts < 2) return false;
  // The last bit has decided the order of threads.
  setenv("GTEST_TOTAL_SHARDS", std::to_string(parts).c_str(), 1);
  setenv("GTEST_SHARD_INDEX", std::to_string(session_seed() / 2 % parts).c_str(), 1);
  return true;
}();

/// The generator of one test: the session's seed and the test's own name decide it.
class Generator : public std::mt19937_64 {
 public:
  explicit Generator(const std::string& name) {
    std::seed_seq sequence{session_seed(), static_cast<std::uint64_t>(std::hash<std::string>{}(name))};
    seed(sequence);
  }
  ~Generator() { Session::get().add((*this)()); }
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;
};

inline Generator generator(const std::string& name) { return Generator(name); }

}  // namespace bragg::test
