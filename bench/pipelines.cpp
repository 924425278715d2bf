// SPDX-License-Identifier: Apache-2.0
// Time of Plan::run for whole pipelines on random f32 data, beside the read bandwidth of the same run. JSON
// on stdout.
//   pipelines [n d]…
#include <omp.h>
#include <bragg/bragg.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace {

struct Spread {
  double least, median, most;
};

/// Milliseconds of repeated calls, after two to warm up: at least ten, and for half a second.
template <class CallF>
Spread time_of(CallF call) {
  std::vector<double> ms;
  double total = 0;
  for (int k = -2; ms.size() < 10 || total < 500; ++k) {
    const auto start = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
    if (k < 0) continue;
    ms.push_back(taken.count());
    total += taken.count();
  }
  std::sort(ms.begin(), ms.end());
  return {ms.front(), ms[ms.size() / 2], ms.back()};
}

/// GB/s at which all threads read and add up `data`, as integers: additions of floats would be the limit.
double read_bandwidth(const std::vector<float>& data) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(data.data());
  const auto count = static_cast<std::int64_t>(data.size()) / 64 * 64;
  std::uint32_t sink = 0;
  const Spread ms = time_of([&] {
#pragma omp parallel for reduction(+ : sink) schedule(static)
    for (std::int64_t i = 0; i < count; i += 64) {
      std::uint32_t sum = 0;
      for (std::int64_t k = 0; k < 64; ++k) sum += words[i + k];
      sink += sum;
    }
  });
  if (sink == 1) std::cerr << ' ';  // the sums must not be optimised away
  return static_cast<double>(data.size()) * sizeof(float) / ms.median / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<int, std::int64_t>> shapes;
  for (int i = 1; i + 1 < argc; i += 2) shapes.emplace_back(std::atoi(argv[i]), std::atoll(argv[i + 1]));
  if (shapes.empty()) shapes = {{16, 1000000}, {64, 1000000}, {16, 10000000}};
  nlohmann::json results = nlohmann::json::array();
  for (const auto& [n, d] : shapes) {
    std::vector<float> data(static_cast<std::size_t>(n) * static_cast<std::size_t>(d));
    std::vector<float> out(static_cast<std::size_t>(d));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& x : data) x = normal(random);
    const double bandwidth = read_bandwidth(data);
    const std::string f = std::to_string(n / 5);
    for (const std::string& text :
         {std::string("mean"), std::string("median"), "trimmed_mean(f=" + f + ")", "krum(f=" + f + ")",
          std::string("geometric_median"), "nnm(f=" + f + ") | trimmed_mean(f=" + f + ")"}) {
      const bragg::Updates updates = bragg::Updates::matrix(data.data(), n, d, bragg::DType::f32);
      bragg::Plan plan(bragg::parse(text), bragg::Shape::of(updates));
      const Spread ms = time_of([&] { plan.run(updates, bragg::Output(out.data())); });
      const double bytes = 4.0 * n * static_cast<double>(d);
      results.push_back({{"pipeline", text},
                         {"n", n},
                         {"d", d},
                         {"dtype", "f32"},
                         {"threads", omp_get_max_threads()},
                         {"ms_median", ms.median},
                         {"ms_min", ms.least},
                         {"ms_max", ms.most},
                         {"input_bytes", bytes},
                         {"gb_per_s", bytes / ms.median / 1e6},
                         {"read_bandwidth_gb_per_s", bandwidth}});
      std::cerr << "n = " << n << ", d = " << d << ": " << text << ": " << ms.median << " ms\n";
    }
  }
  std::cout << results.dump(1) << '\n';
}
