// SPDX-License-Identifier: Apache-2.0
// Launches within a device's limits: every kernel that takes dynamic shared memory at every shape where what
// it takes is large, on the smallest device and the largest; and that a plan makes ready what it launches.
#include <gtest/gtest.h>
#include <bragg/bragg.hpp>

#include <array>
#include <set>

#include "host/sharded/sharded_run.hpp"
#include "kernels/common/sum_unit.hpp"
#include "kernels/gram/gram.hpp"
#include "kernels/select/select.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/device/test_library.hpp"
#include "tests/simt/simt_executor.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

namespace simt = detail::simt;
using detail::SelectRule;
using detail::cuda::Alignment;
using detail::cuda::Center;
using detail::cuda::SumUnit;
using Kind = SelectRule::Kind;

/// Puts the device back that was there before.
struct ProfileGuard {
  const simt::DeviceProfile& before = simt::device_profile();
  ~ProfileGuard() { simt::set_device_profile(before); }
};

/// Limits are the same where every access is checked, and it takes long.
#if defined(__SANITIZE_ADDRESS__)
const unsigned slowness = 8;
#else
const unsigned slowness = simt::hooks ? 8 : 1;
#endif

struct SelectCase {
  DType dtype = DType::f32;
  SelectRule rule;
  int points = 0;
  int rows = 0;  ///< that are mixed; 0: points are rows
  bool weighted = false;

  std::string text() const {
    return std::string(to_string(dtype)) + ", kind " + std::to_string(static_cast<int>(rule.kind)) + ", " +
           std::to_string(points) + " points" +
           (rows > 0 ? " of " + std::to_string(rows) + " mixed rows" : "") + (weighted ? ", weighted" : "");
  }
};

/// Median and trimmed mean write rows' own dtype; of the others the kernel is that of the wider.
std::vector<SelectCase> select_cases() {
  std::vector<SelectCase> cases;
  const auto rules_of = [](int points) {
    return std::array<SelectRule, 3>{{{Kind::median, EvenMedian::midpoint, 0, 0},
                                      {Kind::trimmed_mean, EvenMedian::midpoint, (points - 1) / 4, 0},
                                      {Kind::closest_to_median, EvenMedian::midpoint, 0, (points + 1) / 2}}};
  };
  const std::set<int> borders{1,  8,  9,  16, 17, 23, 24, 25, 32, 33, 44, 45,  46,
                              47, 48, 49, 64, 65, 92, 93, 94, 95, 96, 97, 128, 129};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    const bool narrow = dtype == DType::f16 || dtype == DType::bf16;
    for (const int points : borders) {
      for (const SelectRule& rule : rules_of(points)) {
        if (narrow && (rule.kind == Kind::closest_to_median || points > 128)) continue;
        cases.push_back({.dtype = dtype, .rule = rule, .points = points});
      }
    }
  }
  const std::pair<int, int> mixed_narrow[] = {{1, 1},    {8, 9},     {16, 17},  {93, 96},  {94, 96}, {95, 96},
                                              {96, 96},  {43, 49},   {43, 64},  {44, 49},  {44, 64}, {44, 60},
                                              {27, 113}, {27, 128},  {19, 129}, {19, 144}, {64, 64}, {64, 65},
                                              {128, 20}, {129, 129}, {16, 288}};
  const std::pair<int, int> mixed_wide[] = {{1, 1},    {8, 9},    {22, 81}, {22, 96}, {18, 97}, {18, 112},
                                            {16, 225}, {16, 240}, {48, 48}, {64, 64}, {64, 48}, {65, 65}};
  const SelectRule votes{.kind = Kind::sign_vote, .step = 1};
  for (const auto& [points, rows] : mixed_narrow) {
    cases.push_back({.dtype = DType::f32, .rule = rules_of(points)[1], .points = points, .rows = rows});
    cases.push_back({.dtype = DType::f32, .rule = {.kind = Kind::none}, .points = points, .rows = rows});
    cases.push_back({.dtype = DType::f32, .rule = votes, .points = points, .rows = rows});
  }
  for (const auto& [points, rows] : mixed_wide) {
    cases.push_back({.dtype = DType::f64, .rule = rules_of(points)[1], .points = points, .rows = rows});
    cases.push_back({.dtype = DType::f64, .rule = {.kind = Kind::none}, .points = points, .rows = rows});
    cases.push_back({.dtype = DType::f64, .rule = votes, .points = points, .rows = rows});
  }
  for (const int points : {23, 24, 45, 46, 47, 48, 95, 96, 97, 191, 192, 193, 381, 384, 385, 761, 768, 769}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const int k : {0, 1}) {
        cases.push_back(
            {.dtype = dtype, .rule = rules_of(points)[k], .points = points, .weighted = points < 400});
      }
    }
  }
  return cases;
}

/// What select writes, and what it counts.
std::vector<std::vector<unsigned char>> run_select(const SelectCase& c, SumUnit unit, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  RowsShape shape;
  shape.dtype = c.dtype;
  shape.inputs = c.rows > 0 ? c.rows : c.points;
  shape.sizes = {37};
  if (c.rule.kind == Kind::sign_vote) shape.references = {c.dtype};  // o
  const auto rows = static_cast<std::size_t>(c.rows > 0 ? shape.count() : 0);
  DeviceRows data(std::move(shape), [&](int, std::int64_t) -> long double { return uniform(random); });
  const auto points = static_cast<std::size_t>(c.points);
  std::vector<double> mix(points * rows);
  for (double& x : mix) x = random() % 3 == 0 ? uniform(random) : 0;
  std::vector<double> weights(points);
  for (double& w : weights) w = std::abs(uniform(random));
  const DeviceArray<double> device_mix(mix), device_weights(weights);

  const std::size_t outputs = c.rule.kind == Kind::none ? points : 1;
  std::vector<DeviceTensor> outs;
  std::vector<void*> targets;
  for (std::size_t i = 0; i < outputs; ++i) {
    outs.emplace_back(std::vector<long double>(37, 42.0L), c.dtype, 0);
    targets.push_back(outs.back().data());
  }
  const DeviceArray<void*> target(targets);
  detail::cuda::SelectArguments a;
  a.rows = data.rows();
  a.tiles = data.cut(detail::cuda::tile_length);
  a.out = {target.data(), nullptr, c.dtype};
  a.rule = c.rule;
  a.points = c.points;
  a.unit = unit;
  if (c.rows > 0) a.mix = device_mix.data();
  if (c.weighted) a.weights = device_weights.data();
  const detail::cuda::DeviceMemory workspace(detail::cuda::select_workspace_bytes(a));
  a.workspace = workspace.data();
  detail::cuda::select(a, nullptr);
  std::vector<std::vector<unsigned char>> written;
  for (const DeviceTensor& out : outs) written.push_back(out.bytes());
  return written;
}

TEST(Limits, SelectRunsAtEveryShapeAndItsBitsDoNotDependOnThem) {
  const ProfileGuard guard;
  const std::uint64_t seed = session_seed();
  Generator chance = generator("share of limits");
  for (const SelectCase& c : select_cases()) {
    if (chance() % (test_share() * slowness) != 0) continue;
    // Devices prefer one or the other, which is not what is compared.
    const SumUnit unit = chance() % 2 == 0 ? SumUnit::f64 : SumUnit::double_float;
    SCOPED_TRACE(c.text() + ", sums in " + to_string(unit));
    simt::set_device_profile(simt::device_profiles().front());
    std::vector<std::vector<unsigned char>> smallest;
    ASSERT_NO_THROW(smallest = run_select(c, unit, seed));
    if (simt::hooks) continue;  // slow, and the bits are those of the plain build
    simt::set_device_profile(simt::device_profiles().back());
    std::vector<std::vector<unsigned char>> largest;
    ASSERT_NO_THROW(largest = run_select(c, unit, seed));
    ASSERT_EQ(smallest, largest);
  }
}

struct GramCase {
  DType dtype = DType::f32;
  int rows = 0;
  Center center = Center::none;
  std::vector<DType> references = {};

  std::string text() const {
    return std::string(to_string(dtype)) + ", " + std::to_string(rows) + " rows, " +
           std::to_string(references.size()) + " references, centre " +
           std::to_string(static_cast<int>(center));
  }
};

/// From registers to tiles, and where tiles begin; where fewer of a block's warps have room for the rows that
/// they find medians of, and where none has.
std::vector<GramCase> gram_cases() {
  std::vector<GramCase> cases;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    for (const Center center : {Center::none, Center::row, Center::median}) {
      for (const int rows : {8, 48, 49, 64, 65, 128, 129}) {
        cases.push_back({.dtype = dtype, .rows = rows, .center = center});
      }
      const DType other = dtype == DType::f32 ? DType::f64 : DType::f32;
      cases.push_back({.dtype = dtype, .rows = 5, .center = center, .references = {dtype, other}});
    }
    for (const int warps : {4, 2, 1}) {
      const int border = 96 * 1024 / (32 * static_cast<int>(size_of(dtype)) * warps);
      for (const int rows : {border, border + 1}) {
        if (rows <= 800) cases.push_back({.dtype = dtype, .rows = rows, .center = Center::median});
      }
    }
  }
  return cases;
}

std::vector<double> run_gram(const GramCase& c, detail::cuda::GramUnit unit, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  RowsShape shape{.dtype = c.dtype, .inputs = c.rows, .references = c.references, .sizes = {37}};
  DeviceRows data(std::move(shape), [&](int, std::int64_t) -> long double { return uniform(random); });
  const auto rows = static_cast<std::size_t>(data.shape.count());
  const DeviceArray<double> products(std::vector<double>(rows * rows, 42.0));
  detail::cuda::GramArguments a;
  a.rows = data.rows();
  a.chunks = data.cut(detail::cuda::gram_chunk_length(37));
  a.batch = detail::cuda::gram_batch(data.shape.count(), a.chunks.pieces);
  a.products = products.data();
  a.center = c.center;
  a.unit = unit;
  const detail::cuda::DeviceMemory partial(
      sizeof(double) * detail::cuda::gram_partial_doubles(data.shape.count(), a.chunks.pieces));
  a.partial = static_cast<double*>(partial.data());
  const detail::cuda::DeviceMemory centers(detail::cuda::gram_center_bytes(a.rows, a.chunks, true, unit));
  a.centers = centers.data();
  const TestLibrary library(a);
  detail::cuda::gram(a, nullptr, library.get());
  return products.values();
}

TEST(Limits, GramRunsAtEveryShapeAndItsBitsDoNotDependOnThem) {
  const ProfileGuard guard;
  const std::uint64_t seed = session_seed();
  Generator chance = generator("share of gram's limits");
  for (const GramCase& c : gram_cases()) {
    if (chance() % (test_share() * slowness) != 0) continue;
    using detail::cuda::GramUnit;
    for (const detail::cuda::NamedGramUnit& one : detail::cuda::named_gram_units) {
      const GramUnit unit = one.unit;
      if (c.center != Center::none && detail::cuda::unit_about_center(unit) != unit) continue;
      if (!has_kernel(unit, c.rows, c.dtype)) continue;
      SCOPED_TRACE(c.text() + ", " + to_string(unit));
      simt::set_device_profile(simt::device_profiles().front());
      std::vector<double> smallest;
      ASSERT_NO_THROW(smallest = run_gram(c, unit, seed));
      if (simt::hooks) continue;  // as above
      simt::set_device_profile(simt::device_profiles().back());
      std::vector<double> largest;
      ASSERT_NO_THROW(largest = run_gram(c, unit, seed));
      ASSERT_EQ(smallest, largest);
    }
  }
}

/// A plan's rows, reference and outputs in device memory.
class Model {
 public:
  Model(int n, DType dtype, std::int64_t d, std::mt19937_64& random)
      : d_(d), dtype_(dtype), out_(bytes_of_zeros()), reference_(bytes_of_zeros()) {
    std::normal_distribution<double> normal(1, 1);
    for (int i = 0; i < n; ++i) {
      std::vector<long double> row(static_cast<std::size_t>(d));
      for (long double& x : row) x = normal(random);
      tensors_.emplace_back(row, dtype, 0);
      rows_.push_back({tensors_.back().data()});
    }
  }
  void run(Plan& plan, const std::vector<double>& weights, bool has_reference) {
    RunArguments arguments;
    arguments.weights = weights;
    if (has_reference) arguments.base.tensors = {reference_.data()};
    const std::vector<std::int64_t> sizes{d_};
    plan.run(Updates::tensors(rows_, sizes, dtype_, MemorySpace::cuda),
             Output(std::vector<void*>{out_.data()}), stream_.get(), arguments);
    EXPECT_EQ(plan.wait(stream_.get()), Status::ok);
  }

 private:
  std::vector<std::uint8_t> bytes_of_zeros() const {
    return std::vector<std::uint8_t>(static_cast<std::size_t>(d_) * size_of(dtype_));
  }

  std::int64_t d_;
  DType dtype_;
  std::vector<DeviceTensor> tensors_;
  std::vector<std::vector<const void*>> rows_;
  DeviceArray<std::uint8_t> out_, reference_;
  const detail::cuda::OwnStream stream_;
};

TEST(Limits, RanksSayWhoComputesTheirProducts) {
  const ProfileGuard guard;
  const auto software_on = [](const simt::DeviceProfile& profile) {
    simt::set_device_profile(profile);
    Options options;
    options.device = Device::cuda;
    const Shape shape{.n = 8, .sizes = {9000}};
    const detail::ShardedRun run(parse("krum(f=1)"), shape, Sharding::even(shape.sizes, 2), 0, options, false,
                                 true, 1);
    return run.digests()[static_cast<std::size_t>(detail::Topic::software)];
  };
  const auto units_of = [](const simt::DeviceProfile& profile) {
    simt::set_device_profile(profile);
    return detail::cuda::gram_units(0);
  };
  for (const simt::DeviceProfile& a : simt::device_profiles()) {
    for (const simt::DeviceProfile& b : simt::device_profiles()) {
      EXPECT_EQ(software_on(a) == software_on(b), units_of(a) == units_of(b))
          << a.compute_capability << ", " << b.compute_capability;
    }
  }
}

/// Runs a new plan with all rows, and with every number of rows that weights may leave, one in `step`.
void expect_all_ready(const char* text, int n, DType dtype, int step, std::mt19937_64& random) {
  SCOPED_TRACE(std::string(text) + ", n = " + std::to_string(n) + ", " + std::string(to_string(dtype)));
  Model model(n, dtype, 35, random);
  simt::set_device_profile(simt::device_profiles().front());
  Options options;
  options.device = Device::cuda;
  const std::uint64_t before = simt::opt_ins();
  Plan plan(parse(text), {.n = n, .sizes = {35}, .dtype = dtype}, options);
  const std::uint64_t ready = simt::opt_ins();
  EXPECT_GT(ready, before);
  for (const bool has_reference : {false, true}) {
    ASSERT_NO_THROW(model.run(plan, {}, has_reference));
    EXPECT_EQ(simt::opt_ins(), ready);
    for (int left = n; left >= 1; left -= left == n ? 1 : step * static_cast<int>(slowness)) {
      for (const bool equal : {true, false}) {
        std::vector<double> weights(static_cast<std::size_t>(n), 0.0);
        for (int i = 0; i < left; ++i) weights[static_cast<std::size_t>(i)] = equal ? 1 : 1.0 + i % 7;
        try {
          model.run(plan, weights, has_reference);
        } catch (const Error& error) {
          ASSERT_EQ(error.status(), Status::invalid_argument) << error.what();
          left = 0;  // the pipeline takes no weights, or not so few rows
          break;
        }
        EXPECT_EQ(simt::opt_ins(), ready)
            << left << " rows left, " << (equal ? "equal" : "other") << " weights";
      }
    }
  }
}

TEST(Limits, APlanMakesReadyWhateverItsRunsLaunch) {
  const ProfileGuard guard;
  Generator random = generator("made ready");
  for (const char* const text :
       {"mean", "median", "trimmed_mean(f=2)", "meamed(f=2)", "phocas(f=2)", "krum(f=2)", "geometric_median",
        "centered_clipping(tau=3, iters=2, start=origin)", "centered_clipping(tau=3)", "mda(f=2)", "caf(f=2)",
        "monna(f=2, pivot=10)", "cge(f=2)", "bulyan(f=2)", "nnm(f=2) | trimmed_mean(f=2)",
        "nnm(f=2) | krum(f=2)", "bucketing(s=2, seed=4) | median", "clip(c=20) | mean",
        "arc(f=2) | geometric_median"}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::f64})
      expect_all_ready(text, 11, dtype, 1, random);
  }
  // From the workspace in global memory to networks; from a grid's steps to a list's.
  expect_all_ready("median", 200, DType::f32, 7, random);
  expect_all_ready("median", 100, DType::f64, 4, random);
  expect_all_ready("trimmed_mean(f=2)", 100, DType::f32, 4, random);
  expect_all_ready("nnm(f=2) | trimmed_mean(f=2)", 60, DType::f32, 9, random);
  expect_all_ready("nnm(f=8) | bulyan(f=8)", 60, DType::f32, 9, random);
  expect_all_ready("krum(f=2)", 70, DType::f32, 9, random);
  expect_all_ready("nnm(f=2) | krum(f=2)", 45, DType::f32, 3, random);
}

}  // namespace
}  // namespace bragg::test
