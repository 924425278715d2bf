// SPDX-License-Identifier: Apache-2.0
// A robust all-reduce beside MPI's own of the same bytes, and beside the transport alone. In each repetition
// all are run one after another; medians over repetitions, of the slowest rank.
//
//   mpirun -n 4 build/cpu/bench/mpi [--d 8000000] [--repetitions 9] [--json FILE] [RULE…]
#include <fmt/format.h>

#include <algorithm>
#include <bragg/bragg.hpp>
#include <bragg/mpi.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace bragg;  // NOLINT: the library that is measured

/// Counts the bytes that leave a rank.
class Counting final : public Communicator {
 public:
  explicit Counting(Communicator& other) : other_(other) {}
  int rank() const noexcept override { return other_.rank(); }
  int size() const noexcept override { return other_.size(); }
  void all_to_all(const std::byte* send, std::span<const std::int64_t> send_bytes, std::byte* receive,
                  std::span<const std::int64_t> receive_bytes) override {
    for (int peer = 0; peer < size(); ++peer)
      sent += peer == rank() ? 0 : send_bytes[static_cast<std::size_t>(peer)];
    other_.all_to_all(send, send_bytes, receive, receive_bytes);
  }
  void all_gather(const std::byte* send, std::byte* receive, std::span<const std::int64_t> bytes) override {
    sent += bytes[static_cast<std::size_t>(rank())] * (size() - 1);
    other_.all_gather(send, receive, bytes);
  }
  std::int64_t sent = 0;

 private:
  Communicator& other_;
};

struct Contender {
  std::string name;
  std::function<void()> run;
  std::vector<double> ms = {};
  std::int64_t sent = 0;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

int measure(std::int64_t d, int repetitions, const std::string& json, std::vector<std::string> rules) {
  mpi::Communicator ranks(MPI_COMM_WORLD);
  Counting communicator(ranks);
  const int n = ranks.size();
  const int f = std::max(0, (n - 1) / 4);
  if (rules.empty()) {
    rules = {"mean", "median", "geometric_median", fmt::format("nnm(f={}) | trimmed_mean(f={})", f, f)};
  }
  std::mt19937 random(static_cast<unsigned>(ranks.rank()));
  std::normal_distribution<float> normal;
  const auto elements = static_cast<std::size_t>(d);
  std::vector<float> row(elements), out(elements), received(elements);
  for (float& x : row) x = normal(random);
  const auto bytes = d * static_cast<std::int64_t>(sizeof(float));
  std::vector<std::int64_t> even, mine;
  const Sharding sharding = Sharding::even(std::vector<std::int64_t>{d}, n);
  for (int rank = 0; rank < n; ++rank) {
    even.push_back(sharding.coordinates(rank) * 4);
    mine.push_back(sharding.coordinates(ranks.rank()) * 4);
  }
  std::vector<float> pieces(static_cast<std::size_t>(mine[0] / 4 * n));

  std::vector<Contender> contenders;
  contenders.push_back({"MPI_Allreduce", [&] {
                          MPI_Allreduce(row.data(), out.data(), static_cast<int>(d), MPI_FLOAT, MPI_SUM,
                                        MPI_COMM_WORLD);
                        }});
  contenders.push_back({"transport alone", [&] {
                          const auto at = static_cast<std::size_t>(sharding.slices(ranks.rank())[0].begin);
                          communicator.all_to_all(reinterpret_cast<const std::byte*>(row.data()), even,
                                                  reinterpret_cast<std::byte*>(pieces.data()), mine);
                          communicator.all_gather(reinterpret_cast<const std::byte*>(out.data() + at),
                                                  reinterpret_cast<std::byte*>(out.data()), even);
                        }});
  // The usual way: every rank gathers all rows, and aggregates them whole.
  std::vector<float> gathered(elements * static_cast<std::size_t>(n));
  const std::vector<std::int64_t> whole_rows(static_cast<std::size_t>(n), bytes);
  Options one_thread;
  one_thread.threads = 1;
  Plan alone(parse(rules.back()), {.n = n, .sizes = {d}}, one_thread);
  contenders.push_back({"gather, then " + rules.back(), [&] {
                          communicator.all_gather(reinterpret_cast<const std::byte*>(row.data()),
                                                  reinterpret_cast<std::byte*>(gathered.data()), whole_rows);
                          alone.run(Updates::matrix(gathered.data(), n, d, DType::f32), Output(out));
                        }});
  const auto contend = [&](const std::string& rule, int replicas) {
    const auto reduce =
        std::make_shared<AllReduce>(parse(rule), Shape{.n = n, .sizes = {d}}, communicator,
                                    AllReduceOptions{.options = one_thread, .replicas = replicas});
    contenders.push_back({replicas > 1 ? fmt::format("{}, replicas = {}", rule, replicas) : rule,
                          [&, reduce] { reduce->run(Row(row), Output(out)); }});
  };
  for (const std::string& rule : rules) contend(rule, 1);
  if (n > 1) contend(rules.back(), 2);

  for (int repetition = -1; repetition < repetitions; ++repetition) {
    for (Contender& contender : contenders) {
      communicator.sent = 0;
      MPI_Barrier(MPI_COMM_WORLD);
      const double start = MPI_Wtime();
      contender.run();
      double seconds = MPI_Wtime() - start;
      MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
      contender.sent = communicator.sent;
      if (repetition >= 0) contender.ms.push_back(1e3 * seconds);
    }
  }
  if (ranks.rank() != 0) return 0;
  fmt::print("{} ranks on a machine of {} cores, d = {}, f32, f = {}; medians of {}\n", n,
             std::thread::hardware_concurrency(), d, f, repetitions);
  fmt::print("{:50} {:>9} {:>12} {:>12} {:>14}\n", "", "ms", "/ Allreduce", "/ transport",
             "bytes sent / row");
  nlohmann::json rows = nlohmann::json::array();
  const double plain = median(contenders[0].ms);
  const double transport = median(contenders[1].ms);
  for (const Contender& contender : contenders) {
    const double ms = median(contender.ms);
    fmt::print("{:50} {:9.2f} {:12.2f} {:12.2f} {:>14}\n", contender.name, ms, ms / plain, ms / transport,
               contender.sent == 0
                   ? ""
                   : fmt::format("{:.3f}", static_cast<double>(contender.sent) / static_cast<double>(bytes)));
    rows.push_back({{"name", contender.name}, {"ms", contender.ms}, {"bytes_sent", contender.sent}});
  }
  if (!json.empty()) {
    const nlohmann::json result{{"ranks", n},
                                {"cores", std::thread::hardware_concurrency()},
                                {"d", d},
                                {"dtype", "f32"},
                                {"version", BRAGG_VERSION_STRING},
                                {"rows", rows}};
    std::ofstream(json) << result.dump(1) << '\n';
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t d = 8'000'000;
  int repetitions = 9;
  std::string json;
  std::vector<std::string> rules;
  for (int k = 1; k < argc; ++k) {
    const std::string argument = argv[k];
    if (argument == "--d" && k + 1 < argc) {
      d = std::stoll(argv[++k]);
    } else if (argument == "--repetitions" && k + 1 < argc) {
      repetitions = std::stoi(argv[++k]);
    } else if (argument == "--json" && k + 1 < argc) {
      json = argv[++k];
    } else if (argument.starts_with("--")) {
      std::cerr << "mpi: unknown option " << argument << "; see the head of bench/mpi.cpp\n";
      return 2;
    } else {
      rules.push_back(argument);
    }
  }
  MPI_Init(&argc, &argv);
  int code = 0;
  try {
    code = measure(d, repetitions, json, std::move(rules));
  } catch (const std::exception& error) {
    std::cerr << "mpi: " << error.what() << '\n';
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return code;
}
