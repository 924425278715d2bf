// SPDX-License-Identifier: Apache-2.0
// Which tensors of files count: patterns of names, distances about some tensors, and the tensor that makes
// nearly all of them.
#include <gtest/gtest.h>
#include <bragg/io.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "host/cpu/passes.hpp"
#include "host/files/distance_shares.hpp"
#include "host/files/tensor_choice.hpp"
#include "host/files/tensor_tally.hpp"
#include "tests/support/files.hpp"
#include "tests/support/seed.hpp"

namespace bragg::test {
namespace {

namespace fs = std::filesystem;

bool match(const std::string& pattern, const std::string& name) {
  return detail::matches(std::vector<std::string>{pattern}, name);
}

TEST(Patterns, AreThoseOfWholeNames) {
  EXPECT_TRUE(match("*running_var", "layers.3.bn1.running_var"));
  EXPECT_FALSE(match("*running_var", "layers.3.bn1.running_var.x"));
  EXPECT_FALSE(match("running_var", "bn.running_var"));
  EXPECT_TRUE(match("*.bn?.running_*", "a.bn1.running_mean"));
  EXPECT_FALSE(match("*.bn?.running_*", "a.bn12.running_mean"));
  EXPECT_TRUE(match("*", ""));
  EXPECT_TRUE(match("", ""));
  EXPECT_FALSE(match("", "a"));
  EXPECT_TRUE(match("a*b*c", "axxbxxbyc"));
  EXPECT_FALSE(match("a*b*c", "axxcxxb"));
  EXPECT_TRUE(match("layer[0-2].w", "layer1.w"));
  EXPECT_FALSE(match("layer[0-2].w", "layer3.w"));
  EXPECT_TRUE(match("layer[!0-2].w", "layer3.w"));
  EXPECT_FALSE(match("layer[!0-2].w", "layer1.w"));
  EXPECT_TRUE(match("x[]]y", "x]y"));
  EXPECT_TRUE(match("x[a-]y", "x-y"));
  EXPECT_TRUE(match("x[y", "x[y"));  // a bracket that does not close
  EXPECT_TRUE(match("a\\*", "a\\b"));
}

TEST(Patterns, TakeNoLongerForANameThatIsMadeForIt) {
  const std::string name(200000, 'a');
  EXPECT_FALSE(match("*a*a*a*a*a*a*a*a*ab", name));
}

std::string refusal(std::vector<std::string> patterns, const std::vector<std::string>& names) {
  try {
    detail::check_patterns("judge_by", patterns, names);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::invalid_argument);
    return error.what();
  }
  return "";
}

TEST(Patterns, ThatMatchNothingAreErrorsThatSayWhatIsNear) {
  const std::vector<std::string> names = {"bn.running_mean", "bn.running_var", "fc.bias", "fc.weight"};
  EXPECT_EQ(refusal({"*running*", "fc.*"}, names), "");
  EXPECT_EQ(refusal({"*runing_var"}, names),
            "judge_by: \"*runing_var\" matches no tensor; near to it are \"bn.running_var\", "
            "\"bn.running_mean\", \"fc.bias\"");
  EXPECT_EQ(refusal({"running_var"}, names),
            "judge_by: \"running_var\" matches no tensor; near to it are \"bn.running_var\", "
            "\"bn.running_mean\", \"fc.bias\"");
  EXPECT_EQ(refusal({"x"}, {}), "judge_by: \"x\" matches no tensor; there is none");
}

// Shares ----------------------------------------------------------------------------------------------------

struct Rows {
  int n;
  std::vector<std::int64_t> sizes;
  std::vector<std::vector<float>> data;  // [tensor][row * size + k]

  Rows(std::mt19937_64& random, int n_in, std::vector<std::int64_t> sizes_in, std::vector<double> scales)
      : n(n_in), sizes(std::move(sizes_in)) {
    std::normal_distribution<double> normal;
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      data.emplace_back();
      for (std::int64_t k = 0; k < n * sizes[t]; ++k)
        data.back().push_back(static_cast<float>(scales[t] * (3 + normal(random))));
    }
  }
  float* row(std::size_t t, int i) { return data[t].data() + i * sizes[t]; }

  std::vector<double> shares(int threads, bool pairs = true) {
    std::vector<const void*> table;
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      for (int i = 0; i < n; ++i) table.push_back(sizes[t] > 0 ? row(t, i) : nullptr);
      table.push_back(nullptr);
    }
    const detail::RowTable rows{.inputs = n, .rows = n + 1, .sizes = sizes, .data = table.data()};
    detail::CpuPasses passes(n + 1, threads);
    detail::GramSums sums;
    sums.reset(n + 1, true, 1, pairs);
    detail::DistanceShares shares(sizes.size());
    shares.start(sums, n);
    sums.ended = [&](std::size_t t) { shares.end(sums, t); };
    passes.gram(rows, sums);
    return shares.shares();
  }

  /// The same from differences of values.
  std::vector<double> expected(bool pairs = true) {
    std::vector<double> typical;
    double all = 0;
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      std::vector<double> of_rows;
      for (int i = 0; i < n; ++i) {
        std::vector<double> of_row;
        for (int j = 0; j < n; ++j) {
          double squared = 0;
          for (std::int64_t k = 0; k < sizes[t]; ++k)
            squared += std::pow(double{row(t, i)[k]} - (pairs ? row(t, j)[k] : 0.0F), 2);
          if (std::isfinite(squared) && (j != i || !pairs)) of_row.push_back(squared);
        }
        if (sizes[t] > 0 && !std::isfinite(row(t, i)[0])) continue;
        std::sort(of_row.begin(), of_row.end());
        of_rows.push_back(of_row.empty() ? 0 : of_row[(of_row.size() - 1) / 2]);
      }
      std::sort(of_rows.begin(), of_rows.end());
      typical.push_back(of_rows[(of_rows.size() - 1) / 2]);
      all += typical.back();
    }
    for (double& share : typical) share /= all;
    return typical;
  }
};

TEST(DistanceShares, AreThoseOfTypicalDistances) {
  Generator random = generator("shares");
  for (const int n : {2, 3, 9, 24, 270}) {
    const std::int64_t longest = n < 100 ? 20000 : 60;
    Rows rows(random, n, {70, 0, 900, 3, longest}, {1, 1, 0.1, 30, 0.01});
    for (const bool pairs : {true, false}) {
      const std::vector<double> expected = rows.expected(pairs);
      for (const int threads : {1, 3}) {
        const std::vector<double> got = rows.shares(threads, pairs);
        ASSERT_EQ(got.size(), expected.size());
        for (std::size_t t = 0; t < got.size(); ++t)
          EXPECT_NEAR(got[t], expected[t], 1e-6) << "n = " << n << ", tensor " << t << ", pairs " << pairs;
      }
    }
  }
}

TEST(DistanceShares, AreNotForLiarsToDecide) {
  Generator random = generator("liars' shares");
  Rows honest(random, 9, {400, 400, 400}, {1, 1, 1});
  const std::vector<double> before = honest.shares(2);
  for (const float lie : {1e15F, 0.0F, std::numeric_limits<float>::quiet_NaN()}) {
    Rows rows = honest;
    for (const int liar : {0, 3, 8}) std::fill_n(rows.row(1, liar), 400, lie);
    const std::vector<double> after = rows.shares(2);
    for (std::size_t t = 0; t < 3; ++t) EXPECT_NEAR(after[t], before[t], 0.1) << lie;
  }
  EXPECT_TRUE(Rows(random, 5, {0, 0}, {1, 1}).shares(1).empty()) << "rows that do not differ";
  EXPECT_TRUE(Rows(random, 1, {5, 5}, {1, 1}).shares(1).empty()) << "a row without another";
}

TEST(DistanceShares, OneDominatesThatItsSizeDoesNotExplain) {
  const auto dominant = [](std::vector<double> shares, std::vector<std::int64_t> elements) {
    const auto found = detail::dominant_tensor(shares, elements);
    return found ? static_cast<int>(*found) : -1;
  };
  EXPECT_EQ(dominant({0.02, 0.95, 0.03}, {1000, 10, 1000}), 1);
  EXPECT_EQ(dominant({0.10, 0.90}, {1000, 10}), -1);
  EXPECT_EQ(dominant({0.95, 0.05}, {950, 50}), -1) << "most coordinates";
  EXPECT_EQ(dominant({0.9999, 0.0001}, {950, 50}), 0) << "most coordinates, and far beyond them";
  EXPECT_EQ(dominant({1}, {77}), -1) << "the only one";
  EXPECT_EQ(dominant({1, 0}, {77, 0}), -1) << "the only one that counts";
  EXPECT_EQ(dominant({}, {}), -1);
}

// Files -----------------------------------------------------------------------------------------------------

using Values = std::map<std::string, std::vector<float>>;

/// Models of tensors of f32, in a folder of their own.
struct Models {
  TemporaryFolder folder;
  std::vector<Values> values;
  std::vector<fs::path> paths;

  void write() {
    paths.clear();
    for (std::size_t i = 0; i < values.size(); ++i) {
      paths.push_back(folder / ("w" + std::to_string(i) + ".safetensors"));
      write(paths.back(), values[i]);
    }
  }
  static void write(const fs::path& path, const Values& model) {
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, data] : model) tensors.push_back({name, "F32", {std::ssize(data)}, data.data()});
    write_safetensors(path, tensors);
  }
  fs::path output() const { return folder / "out.safetensors"; }
  Values read() const {
    const Checkpoint file = Checkpoint::open(output());
    Values model;
    for (std::size_t t = 0; t < file.tensors().size(); ++t) {
      const TensorInfo& info = file.tensors()[t];
      std::vector<float>& data = model[info.name];
      data.resize(static_cast<std::size_t>(info.elements));
      if (!data.empty()) std::memcpy(data.data(), file.data(t), static_cast<std::size_t>(info.bytes));
    }
    return model;
  }
  FileResult run(const char* rule, const FileOptions& options = {}) {
    write();
    return aggregate_files(parse(rule), paths, output(), options);
  }
};

void fill(std::mt19937_64& random, Models& models, int n, const std::map<std::string, int>& sizes) {
  std::normal_distribution<float> normal(0.5F);
  models.values.assign(static_cast<std::size_t>(n), {});
  for (Values& model : models.values) {
    for (const auto& [name, size] : sizes) {
      std::vector<float>& data = model[name];
      for (int k = 0; k < size; ++k) data.push_back(normal(random));
    }
  }
}

const std::map<std::string, int> many_sizes = {{"a.bias", 7},      {"a.weight", 100003}, {"b.none", 0},
                                               {"bn.mean", 30011}, {"bn.var", 8192},     {"c.weight", 70001},
                                               {"d.bias", 1}};

bool is_judged(const std::string& name) { return !name.starts_with("bn."); }

/// What the plan in memory makes of the same.
std::vector<Report> run_plan(const char* rule, const Models& models, const Values* base, Values& out) {
  std::vector<std::int64_t> sizes;
  std::vector<bool> judged;
  const auto pointers = [&](const Values& model) {
    std::vector<const void*> row;
    for (const auto& [name, data] : model) row.push_back(data.data());
    return row;
  };
  out = models.values.front();
  Output output;
  for (auto& [name, data] : out) {
    sizes.push_back(std::ssize(data));
    judged.push_back(is_judged(name));
    output.tensors.push_back(data.data());
  }
  std::vector<std::vector<const void*>> rows;
  for (const Values& model : models.values) rows.push_back(pointers(model));
  RunArguments arguments;
  if (base != nullptr) arguments.base = Row(pointers(*base));
  return aggregate(parse(rule), Updates::tensors(rows, sizes, DType::f32).judge_by(judged), output,
                   arguments);
}

class JudgedFiles : public testing::TestWithParam<const char*> {};

TEST_P(JudgedFiles, AreThePlansAtEveryMemoryBound) {
  Generator random = generator(std::string("judged files ") + GetParam());
  Models models;
  fill(random, models, 11, many_sizes);
  for (Values& model : models.values) {
    for (float& x : model["bn.var"]) x *= 1e5F;
  }
  Models other;
  fill(random, other, 1, many_sizes);
  const Values& base = other.values.front();
  const fs::path base_path = other.folder / "base.safetensors";
  Models::write(base_path, base);
  // All finite, then not where rows are judged, then not where they are not, then both.
  for (const int spoiled : {0, 1, 2, 3}) {
    if ((spoiled & 1) != 0) models.values[2]["a.weight"][60000] = std::nanf("");
    if ((spoiled & 2) != 0) models.values[5]["bn.mean"][30010] = -std::numeric_limits<float>::infinity();
    if (spoiled == 2) models.values[2]["a.weight"][60000] = 0;
    Values expected;
    const std::vector<Report> reports = run_plan(GetParam(), models, &base, expected);
    for (const std::uint64_t memory : {std::uint64_t{1} << 30, std::uint64_t{2} << 20}) {
      FileOptions options;
      options.memory = memory;
      options.base = base_path;
      options.ignore_in_distances = {"bn.*"};
      const FileResult result = models.run(GetParam(), options);
      EXPECT_TRUE(models.read() == expected) << spoiled << ", memory " << memory;
      for (std::size_t i = 0; i < models.values.size(); ++i) {
        EXPECT_EQ(result.reports[0].rows[i].weight, reports[0].rows[i].weight) << spoiled << ", row " << i;
        EXPECT_EQ(result.reports[0].rows[i].nonfinite, reports[0].rows[i].nonfinite) << spoiled << ", " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, JudgedFiles,
                         testing::Values("multi_krum(f=2)", "nnm(f=2) | trimmed_mean(f=2)",
                                         "clip(c=9) | mean", "bulyan(f=2)", "geometric_median", "median",
                                         "bucketing(s=2) | median", "cge(f=2)", "dnc(f=2, sample=50)"));

TEST(JudgedFiles, ReadWhatIsNotJudgedOnce) {
  Generator random = generator("read once");
  Models models;
  fill(random, models, 5, many_sizes);
  FileOptions options;
  options.memory = std::uint64_t{2} << 20;
  std::uint64_t done = 0, total = 0;
  options.progress = [&](const Progress& progress) {
    EXPECT_GE(progress.bytes_done, done);
    EXPECT_LE(progress.bytes_done, progress.bytes_total);
    done = progress.bytes_done;
    total = progress.bytes_total;
  };
  std::uint64_t judged = 0, others = 0;
  for (const auto& [name, size] : many_sizes)
    (is_judged(name) ? judged : others) += static_cast<std::uint64_t>(size) * 4;
  for (const bool spoiled : {false, true}) {
    if (spoiled) models.values[1]["bn.var"][0] = std::nanf("");
    options.judge_by = {"*weight", "*bias", "b.none"};
    const FileResult result = models.run("geometric_median", options);  // which reads all that is finite
    const std::uint64_t first = 5 * (2 * judged + others);
    // Another pass 1 of all, and pass 2 of four. (A window at the border may hold a little of both.)
    const std::uint64_t least = spoiled ? 5 * (2 * judged + others) + 4 * (judged + others) : first;
    EXPECT_GE(result.bytes_read, least) << spoiled;
    EXPECT_LE(result.bytes_read, least + least / 4) << spoiled;
    EXPECT_EQ(done, total);
    EXPECT_EQ(done, result.bytes_read);
    done = 0;
  }
}

// Weights of 1e-2 beside running variances of 1e4; one honest site has another variance, one worker lies.
TEST(JudgedFiles, KeepTheHonestSiteThatDiffersInAStatistic) {
  Generator random = generator("case 9");
  std::normal_distribution<float> normal;
  Models models;
  fill(random, models, 9, {{"fc.weight", 5000}, {"bn.running_var", 64}});
  const Values honest = models.values.front();
  constexpr std::size_t site = 3, liar = 6;
  for (std::size_t i = 0; i < 9; ++i) {
    for (std::size_t k = 0; k < 5000; ++k)
      models.values[i]["fc.weight"][k] = 1e-2F * (honest.at("fc.weight")[k] + 0.1F * normal(random));
    for (float& x : models.values[i]["bn.running_var"]) x = 1e4F * (1 + 0.01F * normal(random));
  }
  for (float& x : models.values[site]["bn.running_var"]) x *= 3;
  for (float& x : models.values[liar]["fc.weight"]) x *= -10;

  const FileResult by_all = models.run("multi_krum(f=1)");
  EXPECT_FALSE(by_all.reports[0].rows[site].selected);
  EXPECT_TRUE(by_all.reports[0].rows[liar].selected);
  ASSERT_TRUE(by_all.dominant_tensor.has_value());
  EXPECT_EQ(by_all.tensors[*by_all.dominant_tensor], "bn.running_var");
  EXPECT_GT(by_all.distance_shares[0], 0.999);

  FileOptions options;
  options.ignore_in_distances = {"*running_var"};
  const FileResult by_weights = models.run("multi_krum(f=1)", options);
  EXPECT_TRUE(by_weights.reports[0].rows[site].selected);
  EXPECT_FALSE(by_weights.reports[0].rows[liar].selected);
  EXPECT_FALSE(by_weights.dominant_tensor.has_value());
  EXPECT_EQ(by_weights.distance_shares, (std::vector<double>{0, 1}));
  // The statistic is the mean of those that were kept.
  double mean = 0;
  for (std::size_t i = 0; i < 9; ++i) mean += i == liar ? 0 : models.values[i]["bn.running_var"][7] / 8;
  EXPECT_NEAR(models.read()["bn.running_var"][7], mean, 1e-2);
}

TEST(JudgedFiles, SayWhatIsWrong) {
  Generator random = generator("wrongly judged files");
  Models models;
  fill(random, models, 5, {{"bn.var", 3}, {"fc.weight", 5}});
  const auto refused = [&](const FileOptions& options, const std::string& why) {
    try {
      models.run("krum(f=1)", options);
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::invalid_argument);
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
      EXPECT_FALSE(fs::exists(models.output()));
      return;
    }
    ADD_FAILURE() << "nothing was thrown: " << why;
  };
  FileOptions options;
  options.judge_by = {"fc.wait"};
  refused(options, "judge_by: \"fc.wait\" matches no tensor; near to it are \"fc.weight\"");
  options = {};
  options.ignore_in_distances = {"*"};
  refused(options, "ignore_in_distances: no floating-point tensor is left");
  options.ignore_in_distances = {"bn.*"};
  options.options.scope = Scope::per_tensor;
  refused(options, "ignore_in_distances: where scope is per tensor");
}

// Left out, or of the base
// ------------------------------------------------------------------------------------

class SkippedTensors : public testing::TestWithParam<const char*> {};

TEST_P(SkippedTensors, AreAsIfTheyWereNotThere) {
  Generator random = generator(std::string("skipped tensors ") + GetParam());
  Models models;
  fill(random, models, 9, many_sizes);
  Models kept, other;
  kept.values = models.values;
  fill(random, other, 1, many_sizes);
  const Values& base = other.values.front();
  const fs::path base_path = other.folder / "base.safetensors";
  Models::write(base_path, base);
  std::uint64_t copied_bytes = 0;
  for (const auto& [name, data] : base) {
    const bool copied = name.starts_with("bn.");
    if (copied) copied_bytes += data.size() * sizeof(float);
    if (copied || name == "c.weight") {
      for (Values& model : kept.values) model.erase(name);
    }
  }
  models.values[1].erase("bn.mean");
  models.values[2]["bn.mean"].assign(5, std::nanf(""));
  models.values[3].erase("c.weight");
  models.values[4]["c.weight"].assign(90001, 1e30F);
  for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
    for (const std::uint64_t memory : {std::uint64_t{1} << 30, std::uint64_t{2} << 20}) {
      FileOptions options;
      options.memory = memory;
      options.options.scope = scope;
      options.base = kept.folder / "base.safetensors";
      Values kept_base = base;
      for (const char* name : {"bn.mean", "bn.var", "c.weight"}) kept_base.erase(name);
      Models::write(*options.base, kept_base);
      const FileResult expected = kept.run(GetParam(), options);

      options.base = base_path;
      options.exclude = {"c.*"};
      options.copy = {"bn.*"};
      std::uint64_t done = 0, total = 0;
      options.progress = [&](const Progress& progress) {
        EXPECT_LE(progress.bytes_done, progress.bytes_total);
        done = progress.bytes_done;
        total = progress.bytes_total;
      };
      const FileResult result = models.run(GetParam(), options);
      Values values = kept.read();
      for (const char* name : {"bn.mean", "bn.var"}) values[name] = base.at(name);
      EXPECT_TRUE(models.read() == values) << "memory " << memory;
      EXPECT_EQ(result.tensors, expected.tensors);
      EXPECT_EQ(result.copied, (std::vector<std::string>{"bn.mean", "bn.var"}));
      EXPECT_EQ(result.distance_shares, expected.distance_shares);
      EXPECT_EQ(result.bad, std::vector<std::string>(9));
      EXPECT_EQ(result.nonfinite, 0);
      EXPECT_EQ(result.bytes_read, expected.bytes_read + copied_bytes);
      EXPECT_EQ(done, total);
      ASSERT_EQ(result.reports.size(), expected.reports.size());
      for (std::size_t t = 0; t < result.reports.size(); ++t) {
        for (std::size_t i = 0; i < 9; ++i)
          EXPECT_EQ(result.reports[t].rows[i].weight, expected.reports[t].rows[i].weight) << t << ", " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, SkippedTensors,
                         testing::Values("multi_krum(f=2)", "nnm(f=2) | trimmed_mean(f=2)",
                                         "clip(c=9) | mean", "geometric_median", "median"));

// Tensors of partial models
// -----------------------------------------------------------------------------------------

TEST(Tally, FindsWhatMoreThanHalfHold) {
  Generator random = generator("Tally.FindsWhatMoreThanHalfHold");
  for (int round = 0; round < 2000; ++round) {
    const std::size_t models = 1 + random() % 9, readable = random() % (models + 1);
    std::vector<std::vector<detail::TensorMark>> of_models(readable);
    std::map<detail::TensorMark, std::size_t> holders;
    for (auto& marks : of_models) {
      const std::uint64_t names = 1 + random() % 12, chance = 1 + random() % 4;
      for (std::uint64_t name = 0; name < names; ++name) {
        if (random() % 4 >= chance) continue;
        marks.push_back({name, random() % 4 == 0 ? random() % 3 : 0});
      }
      std::shuffle(marks.begin(), marks.end(), random);
    }
    std::stable_sort(of_models.begin(), of_models.end(),
                     [](const auto& a, const auto& b) { return a.size() < b.size(); });
    detail::TensorTally tally(models, readable);
    for (const auto& marks : of_models) {
      const bool fails = random() % 8 == 0;  // before its end
      tally.begin();
      for (const detail::TensorMark& mark : marks) tally.take(mark);
      if (fails) continue;
      EXPECT_FALSE(tally.end());
      for (const detail::TensorMark& mark : marks) ++holders[mark];
    }
    std::vector<detail::TensorMark> expected;
    for (const auto& [mark, count] : holders) {
      if (2 * count > models) expected.push_back(mark);
    }
    ASSERT_TRUE(tally.agreed() == expected) << "round " << round;
  }
}

TEST(Tally, CountsNoModelWithANameTwice) {
  using Mark = detail::TensorMark;
  for (const std::vector<Mark>& twice : std::vector<std::vector<Mark>>{
           {{1, 1}, {1, 2}}, {{1, 1}, {1, 1}}, {{1, 2}, {1, 1}}, {{7, 1}, {7, 2}}}) {
    detail::TensorTally tally(4, 4);
    tally.begin();
    tally.take({1, 1});
    EXPECT_FALSE(tally.end());
    tally.begin();
    for (const Mark& mark : twice) tally.take(mark);
    EXPECT_EQ(tally.end(), twice.back().name);
    tally.begin();
    tally.take({1, 1});
    EXPECT_FALSE(tally.end());
    tally.begin();
    tally.take({2, 1});
    EXPECT_FALSE(tally.end());
    EXPECT_TRUE(tally.agreed().empty());
  }
}

}  // namespace
}  // namespace bragg::test
