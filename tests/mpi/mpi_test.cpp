// SPDX-License-Identifier: Apache-2.0
// Started by mpirun: every rank compares what the job aggregates with what it computes alone.
//   mpi_test            all cases; exit code 1 where one is wrong
//   mpi_test --die      a rank dies in the middle of a run; the job may not go on, nor hang
#include <bragg/bragg.hpp>
#include <bragg/mpi.hpp>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace bragg;  // NOLINT: the library under test

int failures = 0;

void expect(bool right, int rank, const std::string& what) {
  if (right) return;
  ++failures;
  std::printf("rank %d: %s\n", rank, what.c_str());
}

/// The same rows on every rank.
std::vector<std::vector<float>> make_rows(unsigned seed, int n, std::int64_t d) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.5f, 1);
  std::vector<std::vector<float>> rows(static_cast<std::size_t>(n),
                                       std::vector<float>(static_cast<std::size_t>(d)));
  for (auto& row : rows) {
    for (float& x : row) x = normal(random);
  }
  rows[0][static_cast<std::size_t>(d / 2)] = NAN;
  return rows;
}

void check_bits(Communicator& communicator, unsigned seed) {
  const int rank = communicator.rank();
  const int n = communicator.size();
  const int f = (n - 1) / 3;
  const Pipeline pipelines[] = {Median{}, TrimmedMean{.f = f}, GeometricMedian{},
                                Nnm{.f = f} | TrimmedMean{.f = f}};
  for (const std::int64_t d : {std::int64_t{1}, std::int64_t{8191}, std::int64_t{300'001}}) {
    const auto rows = make_rows(seed, n, d);
    std::vector<const void*> pointers;
    for (const auto& row : rows) pointers.push_back(row.data());
    for (const Pipeline& pipeline : pipelines) {
      const std::string what = to_string(pipeline) + ", d = " + std::to_string(d);
      std::vector<float> expected(static_cast<std::size_t>(d));
      Plan alone(pipeline, {.n = n, .sizes = {d}});
      alone.run(Updates::rows(pointers, d, DType::f32), Output(expected));
      std::vector<float> got(static_cast<std::size_t>(d));
      AllReduce reduce(pipeline, {.n = n, .sizes = {d}}, communicator);
      for (int run = 0; run < 2; ++run) {
        reduce.run(Row(rows[static_cast<std::size_t>(rank)]), Output(got));
        expect(reduce.status() == alone.status(), rank, what + ": another status");
        expect(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0, rank,
               what + ": other bits");
        expect(reduce.report().rows[0].nonfinite == 1, rank, what + ": the NaN is not reported");
      }
    }
  }
}

void check_disagreement(Communicator& communicator) {
  const bool odd = communicator.rank() == communicator.size() - 1;
  try {
    const AllReduce reduce(parse(odd ? "mean" : "median"), {.n = communicator.size(), .sizes = {5}},
                           communicator);
    expect(communicator.size() == 1, communicator.rank(), "unlike pipelines are not found");
  } catch (const Error& error) {
    expect(error.status() == Status::disagreement, communicator.rank(), error.what());
  }
}

/// Messages beyond what MPI counts are cut, which needs more memory than a test has; the rest of all_to_all
/// is of lists of all lengths.
void check_lists(Communicator& communicator) {
  const int rank = communicator.rank();
  const int n = communicator.size();
  std::vector<std::int64_t> send_bytes, receive_bytes;
  std::vector<std::byte> send;
  for (int peer = 0; peer < n; ++peer) {
    send_bytes.push_back(rank * peer);
    receive_bytes.push_back(rank * peer);
    send.insert(send.end(), static_cast<std::size_t>(rank * peer), static_cast<std::byte>(16 * rank + peer));
  }
  std::vector<std::byte> receive(send.size());
  communicator.all_to_all(send.data(), send_bytes, receive.data(), receive_bytes);
  std::size_t at = 0;
  for (int peer = 0; peer < n; ++peer) {
    for (int k = 0; k < rank * peer; ++k)
      expect(receive[at++] == static_cast<std::byte>(16 * peer + rank), rank,
             "all_to_all: another rank's byte");
  }
}

/// Dies when its own row is on its way.
class Dying final : public Communicator {
 public:
  explicit Dying(Communicator& other) : other_(other) {}
  int rank() const noexcept override { return other_.rank(); }
  int size() const noexcept override { return other_.size(); }
  void all_to_all(const std::byte* send, std::span<const std::int64_t> send_bytes, std::byte* receive,
                  std::span<const std::int64_t> receive_bytes) override {
    if (rank() == size() - 1) std::raise(SIGKILL);
    other_.all_to_all(send, send_bytes, receive, receive_bytes);
  }
  void all_gather(const std::byte* send, std::byte* receive, std::span<const std::int64_t> bytes) override {
    other_.all_gather(send, receive, bytes);
  }

 private:
  Communicator& other_;
};

void die(Communicator& communicator) {
  Dying dying(communicator);
  const std::vector<float> row(100'000, 1);
  std::vector<float> out(row.size());
  AllReduce reduce(parse("median"), {.n = communicator.size(), .sizes = {100'000}}, dying);
  reduce.run(Row(row), Output(out));
  std::printf("rank %d: goes on without a rank\n", communicator.rank());
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  {
    mpi::Communicator communicator(MPI_COMM_WORLD);
    const char* const given = std::getenv("BRAGG_TEST_SEED");
    const auto seed = static_cast<unsigned>(given != nullptr ? std::strtoull(given, nullptr, 10) : 1);
    if (argc > 1 && std::string(argv[1]) == "--die") {
      die(communicator);
    } else {
      check_lists(communicator);
      check_bits(communicator, seed);
      check_disagreement(communicator);
      if (communicator.rank() == 0 && failures == 0)
        std::printf("mpi_test: %d ranks agree\n", communicator.size());
    }
  }
  MPI_Finalize();
  return failures == 0 ? 0 : 1;
}
