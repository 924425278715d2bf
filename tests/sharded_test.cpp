// SPDX-License-Identifier: Apache-2.0
// Ranks of a job have the bits, status and reports of one process, and fail together.
#include <gtest/gtest.h>
#include <bragg/sharded.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>

#include "host/base/dtype.hpp"
#include "host/cpu/passes.hpp"
#include "tests/support/alike.hpp"
#include "tests/support/fixture.hpp"
#include "tests/support/forced_target.hpp"
#include "tests/support/local_communicator.hpp"

namespace bragg::test {
namespace {

const char* const pipelines[] = {"mean",
                                 "median",
                                 "trimmed_mean(f=2)",
                                 "phocas(f=2)",
                                 "krum(f=2)",
                                 "multi_krum(f=2)",
                                 "geometric_median",
                                 "centered_clipping(tau=3, iters=2)",
                                 "centered_clipping(tau=3, iters=2, start=origin)",
                                 "mda(f=2)",
                                 "caf(f=2)",
                                 "monna(f=2)",
                                 "cge(f=2)",
                                 "dnc(f=2, sample=300, iters=2)",
                                 "nnm(f=2) | dnc(f=2)",
                                 "bulyan(f=2)",
                                 "nnm(f=2) | trimmed_mean(f=2)",
                                 "bucketing(s=2, seed=4) | median",
                                 "bucketing(s=2, seed=4) | geometric_median",
                                 "clip(c=20) | mean",
                                 "arc(f=2) | nnm(f=2) | meamed(f=2)",
                                 "quantile_clip | majority_cluster",
                                 "balance(gamma=2)",
                                 "clip(c=20) | fltrust(pivot=0)",
                                 "centered_clipping(tau=3, iters=2, start=pivot, pivot=3)"};

/// Rows of a model in memory, each tensor in its own, unaligned, place.
class Model {
 public:
  Model(std::mt19937_64& random, int n, std::vector<std::int64_t> sizes, std::vector<DType> dtypes, Kind kind)
      : sizes_(std::move(sizes)), dtypes_(std::move(dtypes)), rows_(static_cast<std::size_t>(n)) {
    std::normal_distribution<double> normal(0.5, 1);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      for (std::size_t t = 0; t < sizes_.size(); ++t) {
        std::vector<std::byte> tensor(static_cast<std::size_t>(sizes_[t]) * size_of(dtypes_[t]) + 1);
        for (std::int64_t j = 0; j < sizes_[t]; ++j) {
          double x = normal(random);
          if (kind == Kind::constant) x = 1e9 + 100 * x;
          if (kind == Kind::extreme) x *= 1e200;
          if (kind == Kind::hostile && i == 1) x = x > 1.5 ? std::numeric_limits<double>::quiet_NaN() : x;
          if (kind == Kind::hostile && i == 5) x *= -1e30;
          store(dtypes_[t], x, tensor.data() + 1 + static_cast<std::size_t>(j) * size_of(dtypes_[t]));
        }
        rows_[i].push_back(std::move(tensor));
      }
    }
  }

  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  const std::vector<DType>& dtypes() const { return dtypes_; }
  int n() const { return static_cast<int>(rows_.size()); }
  Shape shape() const {
    const bool same = std::all_of(dtypes_.begin(), dtypes_.end(), [&](DType d) { return d == dtypes_[0]; });
    return {.n = n(), .sizes = sizes_, .dtype = dtypes_[0], .dtypes = same ? std::vector<DType>{} : dtypes_};
  }
  /// Slices of the tensors of a row.
  Row row(int i, std::span<const Slice> slices) const {
    Row row;
    for (std::size_t t = 0; t < sizes_.size(); ++t) {
      row.tensors.push_back(rows_[static_cast<std::size_t>(i)][t].data() + 1 +
                            static_cast<std::size_t>(slices[t].begin) * size_of(dtypes_[t]));
    }
    return row;
  }
  Row row(int i) const { return row(i, std::vector<Slice>(sizes_.size())); }
  Updates updates(std::span<const Slice> slices, std::vector<std::int64_t> sizes) const {
    std::vector<std::vector<const void*>> rows;
    for (int i = 0; i < n(); ++i) rows.push_back(row(i, slices).tensors);
    const Shape s = shape();
    return s.dtypes.empty() ? Updates::tensors(rows, sizes, s.dtype)
                            : Updates::tensors(rows, sizes, s.dtypes);
  }
  Updates updates() const { return updates(std::vector<Slice>(sizes_.size()), sizes_); }

 private:
  static void store(DType dtype, double x, std::byte* to) {
    const auto narrow = static_cast<float>(x);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &narrow, sizeof bits);
    const auto half = static_cast<std::uint16_t>(bits >> 16);
    if (dtype == DType::f64) std::memcpy(to, &x, sizeof x);
    if (dtype == DType::f32) std::memcpy(to, &narrow, sizeof narrow);
    if (size_of(dtype) == 2) std::memcpy(to, &half, sizeof half);  // any bits are a value of f16, too
  }

  std::vector<std::int64_t> sizes_;
  std::vector<DType> dtypes_;
  std::vector<std::vector<std::vector<std::byte>>> rows_;  // [row][tensor]
};

/// An output of whole tensors.
struct Result {
  std::vector<std::vector<std::byte>> tensors;

  explicit Result(const Model& model) {
    for (std::size_t t = 0; t < model.sizes().size(); ++t)
      tensors.emplace_back(static_cast<std::size_t>(model.sizes()[t]) * size_of(model.dtypes()[t]),
                           std::byte{0xAA});
  }
  Output output(const Model& model, std::span<const Slice> slices) {
    Output out;
    for (std::size_t t = 0; t < tensors.size(); ++t)
      out.tensors.push_back(tensors[t].data() +
                            static_cast<std::size_t>(slices[t].begin) * size_of(model.dtypes()[t]));
    return out;
  }
  Output output(const Model& model) { return output(model, std::vector<Slice>(tensors.size())); }
};

/// Some runs by a Plan, a ShardedPlan and an AllReduce; `arguments` are of whole rows.
void compare(const Model& model, const std::string& text, Options options, int ranks, int kind,
             const RunArguments& arguments, const std::vector<bool>& judged = {}) {
  options.threads = 1;
  const std::string what = text + ", " + std::to_string(ranks) + " ranks, sharding " + std::to_string(kind);
  constexpr int runs = 2;
  Shape shape = model.shape();
  shape.judged = judged;
  Updates whole = model.updates();
  if (!judged.empty()) whole.judge_by(judged);
  Plan plan(parse(text), shape, options);
  std::vector<Result> expected(runs, Result(model));
  std::vector<std::vector<Report>> reports;
  for (Result& result : expected) {
    plan.run(whole, result.output(model), arguments);
    reports.emplace_back(plan.reports().begin(), plan.reports().end());
  }

  const Sharding sharding = sharding_of(kind, model.sizes(), ranks);
  std::vector<Result> got(runs, Result(model));
  expect_all_fine(run_ranks(ranks,
                            [&](LocalCommunicator& communicator) {
                              const int rank = communicator.rank();
                              ShardedPlan sharded(parse(text), shape, sharding, communicator, options);
                              Updates mine = model.updates(sharding.slices(rank), sharding.sizes_of(rank));
                              if (!judged.empty()) mine.judge_by(judged);
                              RunArguments sliced = arguments;
                              if (!arguments.base.empty()) sliced.base = model.row(0, sharding.slices(rank));
                              for (std::size_t k = 0; k < runs; ++k) {
                                sharded.run(mine, got[k].output(model, sharding.slices(rank)), sliced);
                                EXPECT_EQ(sharded.status(), reports[k][0].status) << what;
                                expect_same(sharded.reports(), reports[k], what);
                              }
                            }),
                  what);
  for (std::size_t k = 0; k < runs; ++k)
    EXPECT_EQ(got[k].tensors, expected[k].tensors) << what << ", run " << k;

  if (ranks != model.n()) return;
  for (const int replicas : {1, 3}) {
    std::vector<std::vector<Result>> everywhere(static_cast<std::size_t>(ranks),
                                                std::vector<Result>(runs, Result(model)));
    expect_all_fine(run_ranks(ranks,
                              [&](LocalCommunicator& communicator) {
                                const int rank = communicator.rank();
                                AllReduce reduce(
                                    parse(text), shape, communicator,
                                    {.options = options, .replicas = replicas, .sharding = sharding});
                                for (std::size_t k = 0; k < runs; ++k) {
                                  Result& mine = everywhere[static_cast<std::size_t>(rank)][k];
                                  reduce.run(model.row(rank), mine.output(model), arguments);
                                  expect_same(reduce.reports(), reports[k], what);
                                }
                              }),
                    what);
    for (const std::vector<Result>& results : everywhere) {
      for (std::size_t k = 0; k < runs; ++k)
        EXPECT_EQ(results[k].tensors, expected[k].tensors) << what << ", all-reduce, replicas = " << replicas;
    }
  }
}

const std::vector<std::int64_t> some_sizes{20003, 7, 8192, 0, 30000, 1, 16385};

TEST(Sharding, CutsEveryTensorOnceWhereSumsAreCut) {
  Generator random = generator("shardings");
  for (int round = 0; round < 200; ++round) {
    std::vector<std::int64_t> sizes;
    const std::size_t tensors = random() % 6;
    for (std::size_t t = 0; t < tensors; ++t) {
      const int bits = static_cast<int>(random() % 41);
      sizes.push_back(bits == 40 ? std::int64_t{1'000'000'000'000}
                                 : static_cast<std::int64_t>(random() >> (63 - bits)));
    }
    const int ranks = 1 + static_cast<int>(random() % (round % 10 == 0 ? 1500 : 9));
    const std::int64_t leaf = detail::leaf_blocks_of(sizes) * detail::gram_block;
    std::int64_t leaves = 0;
    for (const std::int64_t size : sizes) leaves += (size + leaf - 1) / leaf;
    EXPECT_LE(leaves, 1024 + static_cast<std::int64_t>(tensors));
    for (int kind = 0; kind < 3; ++kind) {
      const Sharding sharding = sharding_of(kind, sizes, ranks);
      for (std::size_t t = 0; t < sizes.size(); ++t) {
        std::int64_t at = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const Slice slice = sharding.slices(rank)[t];
          ASSERT_LE(slice.begin, slice.end);
          if (slice.size() == 0) continue;
          ASSERT_EQ(slice.begin, at);
          ASSERT_EQ(slice.begin % leaf, 0);
          at = slice.end;
        }
        ASSERT_EQ(at, sizes[t]);
      }
      const std::int64_t d = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
      for (int rank = 0; kind == 0 && rank < ranks; ++rank)
        ASSERT_LE(std::abs(sharding.coordinates(rank) - d / ranks), leaf + 1) << rank << " of " << ranks;
    }
  }
}

TEST(Sharding, RefusesWhatItCannotCut) {
  const std::vector<std::int64_t> sizes{3, -1};
  EXPECT_THROW(Sharding::even(sizes, 2), Error);
  const auto most = std::numeric_limits<std::int64_t>::max();
  EXPECT_THROW(Sharding::even(std::vector<std::int64_t>{most, most}, 2), Error);
  EXPECT_THROW(Sharding::each_tensor(std::vector<std::int64_t>{3}, 0), Error);
  EXPECT_THROW(Sharding::owners(std::vector<std::int64_t>{3}, std::vector<int>{2}, 2), Error);
  EXPECT_THROW(Sharding::owners(std::vector<std::int64_t>{3}, std::vector<int>{}, 2), Error);
}

TEST(Sharded, HasTheBitsOfOneProcess) {
  Generator random = generator("sharded");
  unsigned number = 0;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::f16}) {
    for (const Kind kind : {Kind::normal, Kind::hostile, Kind::constant, Kind::extreme}) {
      const Model model(random, 11, some_sizes, std::vector<DType>(some_sizes.size(), dtype), kind);
      for (const char* text : pipelines) {
        if (++number % test_share() != 0) continue;
        const int ranks = std::vector<int>{1, 2, 3, 5, 8}[random() % 5];
        compare(model, text, {}, kind == Kind::normal ? 11 : ranks, static_cast<int>(random() % 3), {});
      }
    }
  }
}

TEST(Sharded, HasTheBitsOfOneProcessWithAllThatARunCanBeGiven) {
  Generator random = generator("sharded arguments");
  std::vector<DType> mixed;
  for (std::size_t t = 0; t < some_sizes.size(); ++t)
    mixed.push_back(std::vector<DType>{DType::f32, DType::bf16, DType::f64}[random() % 3]);
  const std::vector<bool> judged{true, true, false, true, true, false, true};
  const std::vector<double> weights{1, 2, 0, 0.5, 1, -1, 3, 1};
  const Model plain(random, 8, some_sizes, std::vector<DType>(some_sizes.size(), DType::f32), Kind::hostile);
  const Model several(random, 8, some_sizes, mixed, Kind::normal);
  for (const char* text :
       {"geometric_median", "nnm(f=2) | trimmed_mean(f=2)", "clip(c=20) | mean", "krum(f=2)",
        "centered_clipping(tau=3, iters=2)", "median", "clip(c=20) | dnc(f=2, sample=200)"}) {
    const int ranks = 1 + static_cast<int>(random() % 8);
    const int kind = static_cast<int>(random() % 3);
    compare(plain, text, {.scope = Scope::per_tensor}, ranks, kind, {});
    compare(plain, text, {.on_failure = OnFailure::nan}, 8, kind, {.base = plain.row(0)});
    compare(several, text, {}, ranks, kind, {.base = several.row(0)});
    compare(several, text, {}, 8, kind, {}, judged);
  }
  for (const char* text : {"geometric_median", "median", "mean", "clip(c=20) | mean"})
    compare(plain, text, {.max_weight_share = 0.4}, 5, 0, {.weights = weights});
}

TEST(Sharded, HasTheBitsOfOneProcessOfRowsWithLongLeaves) {
  Generator random = generator("sharded leaves");
  const std::vector<std::int64_t> sizes{5'000'001, 17, 4'000'000};
  ASSERT_EQ(detail::leaf_blocks_of(sizes), 2);
  const Model model(random, 3, sizes, std::vector<DType>(sizes.size(), DType::bf16), Kind::normal);
  compare(model, "krum(f=0)", {}, 3, 0, {});
  compare(model, "geometric_median", {}, 2, 1, {});
}

TEST(Sharded, FailsOnAllRanksWhereDataDefeatsTheRule) {
  Generator random = generator("sharded failure");
  const std::vector<std::int64_t> sizes{9000, 20000};
  const Model model(random, 8, sizes, std::vector<DType>(2, DType::f32), Kind::hostile);
  for (const OnFailure on_failure : {OnFailure::keep, OnFailure::nan, OnFailure::zero})
    compare(model, "krum(f=0)", {.on_failure = on_failure}, 8, 0, {});
}

TEST(Sharded, HasRowsOfNothing) {
  Generator random = generator("sharded nothing");
  for (const std::vector<std::int64_t>& sizes : {std::vector<std::int64_t>{}, {0}, {1}, {0, 0, 3}}) {
    const Model model(random, 5, sizes,
                      std::vector<DType>(std::max<std::size_t>(sizes.size(), 1), DType::f32), Kind::normal);
    for (const char* text : {"median", "krum(f=1)", "nnm(f=1) | trimmed_mean(f=1)"})
      compare(model, text, {}, 5, 0, {});
  }
}

TEST(Sharded, RefusesOnAllRanksWhatOneWasGiven) {
  const std::vector<float> row(20000, 1);
  std::vector<std::vector<float>> out(3, std::vector<float>(20000));
  const Shape shape{.n = 3, .sizes = {20000}};
  const auto reduce = [&](const char* other, const Shape& other_shape, const RunArguments& arguments) {
    return run_ranks(3, [&](LocalCommunicator& communicator) {
      const bool odd = communicator.rank() == 1;
      AllReduce all(parse(odd ? other : "median"), odd ? other_shape : shape, communicator);
      all.run(Row(row), Output(out[static_cast<std::size_t>(communicator.rank())]),
              odd ? arguments : RunArguments{});
    });
  };
  expect_all_fine(reduce("median", shape, {}), "the same on all");
  expect_thrown(reduce("trimmed_mean(f=1)", shape, {}), Status::disagreement, "ranks 0 and 1");
  expect_thrown(reduce("median", {.n = 3, .sizes = {20001}}, {}), Status::disagreement, "ranks 0 and 1");
  expect_thrown(reduce("median", {.n = 3, .sizes = {20000}, .dtype = DType::bf16}, {}), Status::disagreement,
                "ranks");
  expect_thrown(reduce("krum(f=5)", shape, {}), Status::invalid_argument, "f");
  expect_thrown(reduce("median", {.n = 4, .sizes = {20000}}, {}), Status::invalid_argument, "rows.n = 4");
  const std::vector<double> weights{1, 2, 3};
  expect_thrown(reduce("median", shape, {.weights = weights}), Status::disagreement, "ranks 0 and 1");
  const std::vector<float> base(20000, 1);
  expect_thrown(reduce("median", shape, {.base = Row(base)}), Status::disagreement, "bases");
  const auto with_bases = [&](float last) {
    return run_ranks(3, [&](LocalCommunicator& communicator) {
      std::vector<float> own(20000, 1);
      if (communicator.rank() == 1) own.back() = last;
      AllReduce all(parse("clip(c=1) | mean"), shape, communicator);
      all.run(Row(row), Output(out[static_cast<std::size_t>(communicator.rank())]), {.base = Row(own)});
    });
  };
  expect_all_fine(with_bases(1), "the same base on all");
  expect_thrown(with_bases(2), Status::disagreement, "ranks 0 and 1 were given different bases");
  const std::vector<float> short_base(3);
  expect_thrown(reduce("median", shape, {.base = Row(short_base)}), Status::invalid_argument, "base");
}

/// A rank on a machine of its own instruction set. Those of a program are all threads': between exchanges,
/// ranks take turns.
class UnlikeCpu : public Communicator {
 public:
  UnlikeCpu(Communicator& inner, std::mutex& turn, std::int64_t target)
      : inner_(inner), turn_(turn, std::defer_lock), target_(target) {
    begin();
  }

  int rank() const noexcept override { return inner_.rank(); }
  int size() const noexcept override { return inner_.size(); }
  void all_to_all(const std::byte* send, std::span<const std::int64_t> send_bytes, std::byte* receive,
                  std::span<const std::int64_t> receive_bytes) override {
    end();
    inner_.all_to_all(send, send_bytes, receive, receive_bytes);
    begin();
  }
  void all_gather(const std::byte* send, std::byte* receive, std::span<const std::int64_t> bytes) override {
    end();
    inner_.all_gather(send, receive, bytes);
    begin();
  }

 private:
  void begin() {
    turn_.lock();
    forced_.emplace(target_);
  }
  void end() {
    forced_.reset();
    turn_.unlock();
  }

  Communicator& inner_;
  std::unique_lock<std::mutex> turn_;
  std::int64_t target_;
  std::optional<ForcedTarget> forced_;  // until the turn ends
};

TEST(Sharded, RanksOfUnlikeCpusHaveTheBitsOfOneProcess) {
  Generator random = generator("sharded unlike");
  const std::vector<std::int64_t> targets = hwy::SupportedAndGeneratedTargets();
  if (targets.size() < 2) GTEST_SKIP() << "one instruction set";
  constexpr int ranks = 6;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Model model(random, ranks, {20003, 7, 8192, 30000}, {dtype, dtype, dtype, dtype}, Kind::normal);
    for (const char* text :
         {"mean", "krum(f=1)", "geometric_median", "foolsgold", "caf(f=1)", "nnm(f=1) | trimmed_mean(f=1)"}) {
      Plan plan(parse(text), model.shape(), {.threads = 1});
      Result expected(model);
      plan.run(model.updates(), expected.output(model));
      std::vector<Result> got(ranks, Result(model));
      std::mutex turn;
      expect_all_fine(run_ranks(ranks,
                                [&](LocalCommunicator& communicator) {
                                  const auto rank = static_cast<std::size_t>(communicator.rank());
                                  UnlikeCpu unlike(communicator, turn, targets[rank % targets.size()]);
                                  AllReduce reduce(parse(text), model.shape(), unlike,
                                                   {.options = {.threads = 1}, .replicas = 2});
                                  reduce.run(model.row(communicator.rank()), got[rank].output(model));
                                  expect_same(reduce.reports(), plan.reports(), text);
                                }),
                      text);
      for (const Result& result : got) EXPECT_EQ(result.tensors, expected.tensors) << text;
    }
  }
}

TEST(Sharded, FindsThatOneRankComputedSomethingElse) {
  Generator random = generator("sharded liar");
  const Model model(random, 5, {40000}, {DType::f32}, Kind::normal);
  LocalJob job(5);
  // Rank 2 reads another product than the others: the hellos of the plan and of the run, the rows and the
  // leaves come before the totals.
  job.tamper = [](int from, int to, int call, std::span<std::byte> bytes) {
    if (from == 0 && to == 2 && call == 5) bytes[256 + 8 + 6] ^= std::byte{8};
  };
  const auto thrown = run_ranks(job, [&](LocalCommunicator& communicator) {
    Result out(model);
    AllReduce reduce(parse("geometric_median"), model.shape(), communicator);
    reduce.run(model.row(communicator.rank()), out.output(model));
  });
  expect_thrown(thrown, Status::disagreement, "ranks 0 and 2");
}

/// What ranks hold after a run in which rank `liar` sends `to` one altered byte in call `call`; nothing of
/// ranks that end with an error.
std::vector<std::optional<Result>> run_with_liar(const Model& model, const char* text, int replicas, int liar,
                                                 int to, int call, std::uint64_t place) {
  LocalJob job(model.n(), std::chrono::seconds(20));
  job.tamper = [&](int from, int receiver, int at, std::span<std::byte> bytes) {
    if (from == liar && (receiver == to || to < 0) && at == call && !bytes.empty())
      bytes[place % bytes.size()] ^= std::byte{0x41};
  };
  std::vector<std::optional<Result>> results(static_cast<std::size_t>(model.n()));
  run_ranks(job, [&](LocalCommunicator& communicator) {
    const int rank = communicator.rank();
    Options one_thread;
    one_thread.threads = 1;
    AllReduce reduce(parse(text), model.shape(), communicator, {.options = one_thread, .replicas = replicas});
    Result out(model);
    reduce.run(model.row(rank), out.output(model));
    if (reduce.status() == Status::ok) results[static_cast<std::size_t>(rank)] = std::move(out);
  });
  return results;
}

TEST(Replicas, LetNobodyTakeAWrongResult) {
  Generator random = generator("replicas");
  const int n = 5;
  const Model model(random, n, {30000, 5, 9000}, std::vector<DType>(3, DType::f32), Kind::normal);
  for (const char* text : {"median", "geometric_median", "clip(c=20) | mean", "dnc(f=1, sample=2000)"}) {
    std::vector<std::optional<Result>> honest = run_with_liar(model, text, 1, -1, -1, -1, 0);
    ASSERT_TRUE(honest[0]);
    const Result& right = *honest[0];
    for (const int replicas : {1, 2, 3}) {
      int wrong = 0;
      int stopped = 0;
      // Hellos, rows, leaves, totals, votes, outputs, verdicts: whatever it is, to one rank or to all.
      for (int call = 1; call <= 11; ++call) {
        for (const int to : {0, 3, -1}) {
          for (int k = 0; k < 4; ++k) {
            if (k > 0 && random() % test_share() != 0) continue;
            const auto results = run_with_liar(model, text, replicas, 2, to, call, k == 0 ? 700 : random());
            // A row may be whatever its rank says, if it says it to all.
            const bool row = call == 3;
            const Result* first = nullptr;
            for (std::size_t rank = 0; rank < results.size(); ++rank) {
              if (rank == 2) continue;
              if (!results[rank]) {
                ++stopped;
                continue;
              }
              if (first == nullptr) first = &*results[rank];
              const bool same = results[rank]->tensors == (row ? *first : right).tensors;
              wrong += same ? 0 : 1;
              if (replicas > 1) {
                EXPECT_TRUE(same) << text << ", call " << call << " to " << to << ", " << replicas
                                  << " replicas";
              }
            }
          }
        }
      }
      if (replicas == 1) {
        EXPECT_GT(wrong, 0) << text;  // else nothing was tried
      } else {
        EXPECT_GT(stopped, 0) << text;
      }
    }
  }
}

TEST(Replicas, HoldAgainstAsManyColludersButOne) {
  Generator random = generator("colluders");
  const int n = 6;
  const Model model(random, n, {50000}, {DType::f32}, Kind::normal);
  const std::vector<std::optional<Result>> honest =
      run_with_liar(model, "geometric_median", 1, -1, -1, -1, 0);
  // Ranks 2 and 3 own shard 2 together, where there are two replicas; they alter the same bytes alike.
  for (const int replicas : {2, 3}) {
    int wrong = 0;
    for (int call = 4; call <= 9; ++call) {
      for (const std::size_t place : {std::size_t{262}, std::size_t{300}, std::size_t{1000}}) {
        LocalJob job(n, std::chrono::seconds(20));
        job.tamper = [&](int from, int, int at, std::span<std::byte> bytes) {
          if ((from == 2 || from == 3) && at == call && place < bytes.size()) bytes[place] ^= std::byte{0x10};
        };
        std::vector<Result> results(n, Result(model));
        std::vector<char> fine(n, 0);
        run_ranks(job, [&](LocalCommunicator& communicator) {
          const auto rank = static_cast<std::size_t>(communicator.rank());
          AllReduce reduce(parse("geometric_median"), model.shape(), communicator, {.replicas = replicas});
          reduce.run(model.row(communicator.rank()), results[rank].output(model));
          fine[rank] = 1;
        });
        for (std::size_t rank = 0; rank < n; ++rank) {
          if (rank == 2 || rank == 3 || fine[rank] == 0) continue;
          wrong += results[rank].tensors == honest[0]->tensors ? 0 : 1;
        }
      }
    }
    if (replicas == 3) {
      EXPECT_EQ(wrong, 0);
    }
  }
}

TEST(Replicas, AreRanks) {
  const Shape shape{.n = 3, .sizes = {10}};
  EXPECT_THROW(AllReduce(parse("median"), shape, 0, {.replicas = 0}), Error);
  EXPECT_THROW(AllReduce(parse("median"), shape, 0, {.replicas = 4}), Error);
  EXPECT_NO_THROW(AllReduce(parse("median"), shape, 0, {.replicas = 3}));
}

/// A transport: what all ranks are to move.
void move_all(const std::vector<const Transfer*>& transfers) {
  for (std::size_t to = 0; to < transfers.size(); ++to) {
    std::byte* at = transfers[to]->receive;
    for (std::size_t from = 0; from < transfers.size(); ++from) {
      const auto bytes = static_cast<std::size_t>(transfers[to]->receive_bytes[from]);
      const std::byte* source = transfers[from]->send;
      for (std::size_t k = 0; k < to && !transfers[from]->send_bytes.empty(); ++k)
        source += transfers[from]->send_bytes[k];
      if (bytes > 0 && at != source) std::memcpy(at, source, bytes);
      at += bytes;
    }
  }
}

TEST(Sharded, KeepsItsStateWhereARunThrows) {
  Generator random = generator("sharded state");
  const int n = 4;
  const Model model(random, n, {30000}, {DType::f32}, Kind::normal);
  for (const char* text : {"centered_clipping(tau=1)", "bucketing(s=2, seed=3) | median"}) {
    std::vector<Result> expected(2, Result(model));
    Plan plan(parse(text), model.shape());
    for (Result& result : expected) plan.run(model.updates(), result.output(model));
    // Runs of the second have no sums: hello, rows, output, verdict.
    for (int fails = 2; fails <= (std::string(text).starts_with("bucket") ? 3 : 5); ++fails) {
      LocalJob job(n);
      std::vector<Result> got(static_cast<std::size_t>(n), Result(model));
      std::vector<std::unique_ptr<AllReduce>> reduces;
      for (int rank = 0; rank < n; ++rank)
        reduces.push_back(std::make_unique<AllReduce>(parse(text), model.shape(), rank));
      const auto run = [&](int until) {
        for (std::size_t rank = 0; rank < reduces.size(); ++rank)
          reduces[rank]->begin(model.row(static_cast<int>(rank)), got[rank].output(model));
        for (int call = 0;; ++call) {
          std::vector<const Transfer*> transfers;
          for (const auto& reduce : reduces) transfers.push_back(reduce->next());
          if (transfers[0] == nullptr || call == until) return;
          move_all(transfers);
        }
      };
      run(-1);
      run(fails);  // it stops there, as where a transport throws
      run(-1);
      for (const Result& result : got)
        EXPECT_EQ(result.tensors, expected[1].tensors) << text << ", " << fails;
    }
  }
}

TEST(Sharded, MayWriteOverItsRow) {
  Generator random = generator("sharded in place");
  const int n = 4;
  std::vector<std::vector<float>> rows(n, std::vector<float>(30000));
  std::normal_distribution<float> normal;
  for (auto& row : rows) std::generate(row.begin(), row.end(), [&] { return normal(random); });
  std::vector<const void*> pointers;
  for (const auto& row : rows) pointers.push_back(row.data());
  std::vector<float> expected(30000);
  aggregate(parse("geometric_median"), Updates::rows(pointers, 30000, DType::f32), Output(expected));
  expect_all_fine(run_ranks(n,
                            [&](LocalCommunicator& communicator) {
                              std::vector<float>& mine = rows[static_cast<std::size_t>(communicator.rank())];
                              AllReduce reduce(parse("geometric_median"), {.n = n, .sizes = {30000}},
                                               communicator);
                              reduce.run(Row(mine), Output(mine));
                            }),
                  "in place");
  for (const auto& row : rows) EXPECT_EQ(row, expected);
}

TEST(Sharded, RefusesOutputsThatOverlapWhatItReads) {
  const int n = 3;
  const std::int64_t d = 40000;
  const auto reduce = [&](bool gather, std::ptrdiff_t mine_at, std::ptrdiff_t out_at, std::ptrdiff_t base_at,
                          const std::vector<std::int64_t>& sizes, std::ptrdiff_t second) {
    return run_ranks(n, [&](LocalCommunicator& communicator) {
      std::vector<float> memory(4 * d, 1);
      AllReduce all(parse("clip(c=1) | mean"), {.n = n, .sizes = sizes}, communicator, {.gather = gather});
      // Where out is to be this rank's slice of its row, out_at is past the slice's begin.
      const std::ptrdiff_t own = gather ? 0 : all.sharding().slices(communicator.rank())[0].begin;
      Row mine(std::vector<const void*>{memory.data() + mine_at});
      Output out(std::vector<void*>{memory.data() + own + out_at});
      RunArguments arguments;
      if (base_at >= 0) arguments.base = Row(std::vector<const void*>{memory.data() + base_at});
      if (sizes.size() > 1) {
        mine.tensors.push_back(memory.data() + 3 * d);
        out.tensors.push_back(memory.data() + second);
      }
      all.run(mine, out, arguments);
    });
  };
  expect_all_fine(reduce(true, 0, 0, -1, {d}, 0), "in place");
  expect_all_fine(reduce(true, 0, d, -1, {d}, 0), "apart");
  expect_all_fine(reduce(true, 0, d, d, {d}, 0), "over the base");
  expect_all_fine(reduce(false, 0, 0, -1, {d}, 0), "its slice in place");
  expect_all_fine(reduce(true, 0, 0, -1, {d, 7}, d), "one tensor in place");
  const auto expect_refused = [&](const std::vector<std::exception_ptr>& thrown, const std::string& part) {
    expect_thrown(thrown, Status::invalid_argument, part);
  };
  expect_refused(reduce(true, 0, 1, -1, {d}, 0), "out: tensor 0 overlaps tensor 0 of this rank's row");
  expect_refused(reduce(true, 1, 0, -1, {d}, 0), "out: tensor 0 overlaps tensor 0 of this rank's row");
  expect_refused(reduce(true, 0, d, d + 1, {d}, 0), "out: tensor 0 overlaps tensor 0 of the base");
  expect_refused(reduce(false, 0, 1, -1, {d}, 0), "exactly this rank's slice");
  expect_refused(reduce(true, 0, d, -1, {d, 7}, d + 3), "out: tensors 0 and 1 overlap");
  expect_refused(reduce(true, 0, d, -1, {d, 7}, d - 7), "out: tensor 1 overlaps tensor 0 of this rank's row");
  // In place, and another in the part of the row that other ranks aggregate.
  expect_refused(reduce(false, 0, 0, -1, {d, 7}, 20000), "overlap");
}

TEST(Sharded, TellsTheOthersWhereARankCannotTakePart) {
  Generator random = generator("sharded failed rank");
  const int n = 3;
  const Model model(random, n, {20000}, {DType::f32}, Kind::normal);
  const char* const text = "centered_clipping(tau=1)";
  const Error wrong(Status::too_large, "no such luck");
  expect_thrown(run_ranks(n,
                          [&](LocalCommunicator& communicator) {
                            if (communicator.rank() == 1) FailedRun::tell(communicator, wrong);
                            AllReduce(parse(text), model.shape(), communicator);
                          }),
                Status::too_large, "no such luck");
  // In the place of a run; the plans go on as though it had not been.
  std::vector<Result> expected(2, Result(model));
  Plan plan(parse(text), model.shape());
  for (Result& result : expected) plan.run(model.updates(), result.output(model));
  std::vector<Result> got(static_cast<std::size_t>(n), Result(model));
  expect_all_fine(run_ranks(n,
                            [&](LocalCommunicator& communicator) {
                              AllReduce all(parse(text), model.shape(), communicator);
                              const int rank = communicator.rank();
                              Result& mine = got[static_cast<std::size_t>(rank)];
                              all.run(model.row(rank), mine.output(model));
                              try {
                                if (rank == 1) FailedRun::tell(communicator, wrong);
                                all.run(model.row(rank), mine.output(model));
                                ADD_FAILURE() << "nobody told rank " << rank;
                              } catch (const Error& error) {
                                EXPECT_EQ(error.status(), Status::too_large) << error.what();
                                const std::string said = rank == 1 ? "no such luck" : "rank 1: no such luck";
                                EXPECT_EQ(error.what(), said);
                              }
                              all.run(model.row(rank), mine.output(model));
                            }),
                  "a rank told the others");
  for (const Result& result : got) EXPECT_EQ(result.tensors, expected[1].tensors);

  // Over a transport of one's own; two ranks fail, and all throw what the first met.
  EXPECT_THROW(FailedRun(wrong, 3, 3), Error);
  AllReduce all(parse(text), model.shape(), 0);
  all.begin(model.row(0), got[0].output(model));
  FailedRun first(wrong, n, 1);
  FailedRun second(Error(Status::ok, "a mistake"), n, 2);
  move_all({all.next(), first.next(), second.next()});
  const auto thrown_by = [](auto& run) {
    try {
      run.next();
    } catch (const Error&) {
      return std::current_exception();
    }
    return std::exception_ptr();
  };
  expect_thrown({thrown_by(all), thrown_by(first), thrown_by(second)}, Status::too_large, "no such luck");
}

TEST(Sharded, GivesEachRankItsSlicesAlone) {
  Generator random = generator("sharded scatter");
  const int n = 3;
  const Model model(random, n, {30000}, {DType::f32}, Kind::normal);
  Result expected(model);
  aggregate(parse("krum(f=0)"), model.updates(), expected.output(model));
  Result got(model);
  expect_all_fine(run_ranks(n,
                            [&](LocalCommunicator& communicator) {
                              AllReduce reduce(parse("krum(f=0)"), model.shape(), communicator,
                                               {.gather = false});
                              reduce.run(model.row(communicator.rank()),
                                         got.output(model, reduce.sharding().slices(communicator.rank())));
                            }),
                  "scattered");
  EXPECT_EQ(got.tensors, expected.tensors);
}

TEST(Sharded, GivesUpWhereARankIsGone) {
  const std::vector<float> row(20000, 1);
  const auto thrown = run_ranks(
      3,
      [&](LocalCommunicator& communicator) {
        if (communicator.rank() == 2) return;
        std::vector<float> out(20000);
        AllReduce reduce(parse("median"), {.n = 3, .sizes = {20000}}, communicator);
        reduce.run(Row(row), Output(out));
      },
      std::chrono::milliseconds(200));
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_TRUE(thrown[static_cast<std::size_t>(rank)]);
    try {
      std::rethrow_exception(thrown[static_cast<std::size_t>(rank)]);
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::communication);
    }
  }
}

TEST(Sharded, SendsARowAsItIsWhereItsShardsFollowEachOther) {
  const std::vector<std::int64_t> sizes{300, 0, 700};
  const std::vector<float> memory(1001, 1);
  std::vector<float> out(1000);
  const auto row_sent = [&](const std::vector<int>& owner, std::ptrdiff_t gap) {
    const Sharding sharding = Sharding::owners(sizes, owner, 2);
    std::vector<AllReduce> ranks;
    for (int rank = 0; rank < 2; ++rank) {
      ranks.emplace_back(parse("mean"), Shape{.n = 2, .sizes = sizes}, rank,
                         AllReduceOptions{.sharding = sharding});
      const Row row(std::vector<const void*>{memory.data(), nullptr, memory.data() + 300 + gap});
      ranks.back().begin(row, Output(std::vector<void*>{out.data(), nullptr, out.data() + 300}));
    }
    move_all({ranks[0].next(), ranks[1].next()});
    const Transfer* const transfer = ranks[0].next();
    std::vector<float> sent(1000);
    std::memcpy(sent.data(), transfer->send, sent.size() * sizeof(float));
    EXPECT_EQ(sent, std::vector<float>(1000, 1));
    return transfer->send == reinterpret_cast<const std::byte*>(memory.data());
  };
  EXPECT_TRUE(row_sent({0, 1, 1}, 0));
  EXPECT_TRUE(row_sent({0, 0, 0}, 0));
  EXPECT_FALSE(row_sent({1, 0, 0}, 0));
  EXPECT_FALSE(row_sent({0, 1, 1}, 1));
}

TEST(Sharded, RunsInPhasesOfACallersTransport) {
  Generator random = generator("sharded phases");
  const int n = 4;
  const Model model(random, n, some_sizes, std::vector<DType>(some_sizes.size(), DType::f32), Kind::constant);
  Result expected(model);
  aggregate(parse("krum(f=0)"), model.updates(), expected.output(model));
  std::vector<AllReduce> ranks;
  std::vector<Result> got(n, Result(model));
  for (int rank = 0; rank < n; ++rank) {
    ranks.emplace_back(parse("krum(f=0)"), model.shape(), rank);
    ranks.back().begin(model.row(rank), got[static_cast<std::size_t>(rank)].output(model));
  }
  for (bool over = false; !over;) {
    std::vector<const Transfer*> transfers;
    for (AllReduce& rank : ranks) transfers.push_back(rank.next());
    over = transfers[0] == nullptr;
    if (!over) move_all(transfers);
  }
  for (const Result& result : got) EXPECT_EQ(result.tensors, expected.tensors);
  EXPECT_THROW(ranks[0].run(model.row(0), got[0].output(model)), Error);  // it has no communicator
}

}  // namespace
}  // namespace bragg::test
