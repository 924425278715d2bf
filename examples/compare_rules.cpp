// SPDX-License-Identifier: Apache-2.0
// What robustness costs when nobody attacks, and what it is worth when somebody does: the distance of each
// rule's output from the mean of the honest rows, in units of their own spread (the square root of the κ that
// was realised).
#include <bragg/bragg.hpp>
#include <cmath>
#include <cstdio>
#include <random>
#include <span>
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

/// An attack, or several of which the worst counts: a row each, which all bad workers send.
struct Column {
  const char* name;
  std::vector<Row> rows;
};

/// The row that comes of `make` for each direction.
template <class MakeF>
std::vector<Row> each_direction(MakeF make) {
  using bragg::attacks::Direction;
  return {make(Direction::unit).row, make(Direction::std).row, make(Direction::sign).row};
}

/// The attacks that are the same on every rule.
std::vector<Column> columns(const std::vector<Row>& honest) {
  using namespace bragg::attacks;
  const bragg::Updates updates = view(honest);
  const Moments mean = moments(updates);
  const std::span<const float> first = honest[0];
  return {
      {"NaN", {hostile<float>(dimension, Hostile::nan)}},
      {"sign flip × 10", {sign_flip<float>(first, 10)}},
      {"inner product", {inner_product_manipulation<float>(mean, 0.5)}},
      {"ALIE", {a_little_is_enough<float>(mean, 1.5)}},
      {"mimic", {mimic<float>(first)}},
      {"min-max", each_direction([&](Direction p) { return min_max<float>(updates, p); })},
      {"min-sum", each_direction([&](Direction p) { return min_sum<float>(updates, p); })},
      {"Fang", {fang_trimmed<float>(updates, 7), fang_krum<float>(updates, tolerated).row}},
  };
}

/// The attacks that are made for one.
Column optimal(const std::vector<Row>& honest, const bragg::Pipeline& pipeline) {
  using namespace bragg::attacks;
  return {"optimal",
          {optimal_alie<float>(view(honest), pipeline, tolerated).row,
           optimal_ipm<float>(view(honest), pipeline, tolerated).row}};
}

/// NaN is worse than any number.
double worse(double a, double b) { return std::isnan(a) || a > b ? a : b; }

}  // namespace

int main() {
  const char* const pipelines[] = {"mean",
                                   "median",
                                   "trimmed_mean(f=3)",
                                   "meamed(f=3)",
                                   "phocas(f=3)",
                                   "krum(f=3)",
                                   "multi_krum(f=3)",
                                   "geometric_median",
                                   "mda(f=3)",
                                   "smea(f=3)",
                                   "caf(f=3)",
                                   "monna(f=3)",
                                   "cge(f=3)",
                                   "faba(f=3)",
                                   "bulyan(f=3)",
                                   "nnm(f=3) | trimmed_mean(f=3)",
                                   "nnm(f=3) | median",
                                   "nnm(f=3) | krum(f=3)",
                                   "nnm(f=3) | geometric_median"};
  for (const int groups : {1, 4}) {
    std::mt19937_64 random(7);
    const std::vector<Row> all = honest_rows(workers, groups, random);
    const std::vector<Row> honest = honest_rows(workers - tolerated, groups, random);
    std::vector<Column> attacks = columns(honest);
    attacks.push_back({"optimal", {}});
    std::printf("\n%s\n\n| rule | nobody attacks |",
                groups == 1 ? "Workers with alike data" : "Workers with four kinds of data");
    for (const Column& column : attacks) std::printf(" %s |", column.name);
    std::printf(" worst |\n|---|---|---|");
    for (std::size_t i = 0; i < attacks.size(); ++i) std::printf("---|");
    std::printf("\n");
    for (const char* text : pipelines) {
      const bragg::Pipeline pipeline = bragg::parse(text);
      attacks.back() = optimal(honest, pipeline);
      Row out(dimension);
      bragg::aggregate(pipeline, view(all), bragg::Output(out.data()));
      std::printf("| `%s` | %.2f", text, realised(out, all));
      double worst = 0;
      for (const Column& column : attacks) {
        double figure = 0;
        for (const Row& bad : column.rows) {
          std::vector<Row> rows = honest;
          rows.resize(workers, bad);
          bragg::aggregate(pipeline, view(rows), bragg::Output(out.data()));
          figure = worse(realised(out, honest), figure);
        }
        worst = worse(figure, worst);
        std::printf(" | %.2f", figure);
      }
      std::printf(" | %.2f |\n", worst);
      std::fflush(stdout);
    }
  }
}
