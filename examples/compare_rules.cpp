// SPDX-License-Identifier: Apache-2.0
// What robustness costs when nobody attacks, and what it is worth when somebody does: the distance of each
// rule's output from the mean of the honest rows, in units of their own spread (the square root of the κ that
// was realised).
#include <bragg/bragg.hpp>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace {

using Row = std::vector<float>;

constexpr int workers = 16;
constexpr int tolerated = 3;
constexpr std::size_t dimension = 100000;

/// Rows about a common signal; with `groups` > 1 workers of different groups hold different data.
std::vector<Row> honest_rows(int count, int groups, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<Row> centers(static_cast<std::size_t>(groups), Row(dimension, 0.0F));
  for (Row& center : centers) {
    for (float& x : center) x = groups > 1 ? normal(random) : 0.0F;
  }
  Row signal(dimension);
  for (float& x : signal) x = normal(random);
  std::vector<Row> rows;
  for (int i = 0; i < count; ++i) {
    Row row(dimension);
    const Row& center = centers[static_cast<std::size_t>(i % groups)];
    for (std::size_t j = 0; j < dimension; ++j) row[j] = signal[j] + center[j] + normal(random);
    rows.push_back(std::move(row));
  }
  return rows;
}

bragg::Updates view(const std::vector<Row>& rows) {
  std::vector<const void*> pointers;
  for (const Row& row : rows) pointers.push_back(row.data());
  return bragg::Updates::rows(pointers, static_cast<std::int64_t>(dimension), bragg::DType::f32);
}

double realised(const Row& out, const std::vector<Row>& honest) {
  double error = 0;
  double spread = 0;
  const auto count = static_cast<double>(honest.size());
  for (std::size_t j = 0; j < dimension; ++j) {
    double mean = 0;
    for (const Row& row : honest) mean += row[j] / count;
    for (const Row& row : honest) spread += (row[j] - mean) * (row[j] - mean) / count;
    error += (out[j] - mean) * (out[j] - mean);
  }
  return std::sqrt(error / spread);
}

using Attack = std::function<Row(const std::vector<Row>& honest, const bragg::attacks::Moments& moments)>;

}  // namespace

int main() {
  using namespace bragg::attacks;
  const char* const pipelines[] = {"mean",
                                   "median",
                                   "trimmed_mean(f=3)",
                                   "meamed(f=3)",
                                   "krum(f=3)",
                                   "multi_krum(f=3)",
                                   "geometric_median",
                                   "mda(f=3)",
                                   "caf(f=3)",
                                   "bulyan(f=3)",
                                   "nnm(f=3) | trimmed_mean(f=3)",
                                   "nnm(f=3) | median",
                                   "nnm(f=3) | geometric_median"};
  const Attack attacks[] = {
      [](const auto&, const auto&) { return hostile<float>(dimension, Hostile::nan); },
      [](const auto& honest, const auto&) { return sign_flip<float>(std::span<const float>(honest[0]), 10); },
      [](const auto&, const auto& moments) { return inner_product_manipulation<float>(moments, 0.5); },
      [](const auto&, const auto& moments) { return a_little_is_enough<float>(moments, 1.5); },
      [](const auto& honest, const auto&) { return mimic<float>(std::span<const float>(honest[0])); },
  };
  for (const int groups : {1, 4}) {
    std::printf(
        "\n%s\n\n| rule | nobody attacks | NaN | sign flip × 10 | inner product | ALIE | mimic |\n"
        "|---|---|---|---|---|---|---|\n",
        groups == 1 ? "Workers with alike data" : "Workers with four kinds of data");
    for (const char* text : pipelines) {
      std::mt19937_64 random(7);
      const bragg::Pipeline pipeline = bragg::parse(text);
      Row out(dimension);
      const std::vector<Row> all = honest_rows(workers, groups, random);
      bragg::aggregate(pipeline, view(all), bragg::Output(out.data()));
      std::printf("| `%s` | %.2f", text, realised(out, all));
      const std::vector<Row> honest = honest_rows(workers - tolerated, groups, random);
      const Moments moments = bragg::attacks::moments(view(honest));
      for (const Attack& attack : attacks) {
        std::vector<Row> rows = honest;
        for (int i = 0; i < tolerated; ++i) rows.push_back(attack(honest, moments));
        bragg::aggregate(pipeline, view(rows), bragg::Output(out.data()));
        std::printf(" | %.2f", realised(out, honest));
      }
      std::printf(" |\n");
    }
  }
}
