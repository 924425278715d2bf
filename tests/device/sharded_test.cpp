// SPDX-License-Identifier: Apache-2.0
// Ranks with a CUDA device each have the bits, status and reports of a plan on one device, and fail together:
// over a transport that knows host memory alone and, on the executor, over the double of NCCL.
#include <gtest/gtest.h>
#include <bragg/sharded.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>

#include "host/cpu/passes.hpp"
#include "kernels/gram/gram.hpp"
#include "tests/device/device_model.hpp"
#include "tests/support/local_communicator.hpp"
#if defined(BRAGG_TEST_NCCL)
#include "tests/support/fake_nccl/run_nccl.hpp"
#endif

namespace bragg::test {
namespace {

using detail::cuda::OwnStream;

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
                                 "bulyan(f=1)",
                                 "dnc(f=2, sample=300, iters=2)",
                                 "nnm(f=2) | dnc(f=2)",
                                 "nnm(f=2) | trimmed_mean(f=2)",
                                 "bucketing(s=2, seed=4) | median",
                                 "bucketing(s=2, seed=4) | geometric_median",
                                 "clip(c=20) | mean",
                                 "arc(f=2) | nnm(f=2) | meamed(f=2)",
                                 "balance(gamma=2)",
                                 "clip(c=20) | fltrust(pivot=0)",
                                 "centered_clipping(tau=3, iters=2, start=pivot, pivot=3)"};

enum class Transport {
  host,  ///< that knows host memory alone
#if defined(BRAGG_TEST_NCCL)
  nccl,
  nonblocking_nccl,
#endif
  number
};

Transport any_transport(std::mt19937_64& random) {
  return static_cast<Transport>(random() % static_cast<unsigned>(Transport::number));
}

Thrown run_job([[maybe_unused]] Transport transport, int ranks, const Body& body) {
#if defined(BRAGG_TEST_NCCL)
  if (transport != Transport::host) {
    FakeNccl job(ranks);
    if (transport == Transport::nonblocking_nccl) job.be_nonblocking();
    Thrown thrown = run_nccl(job, ranks, body);
    EXPECT_EQ(job.defects(), std::vector<std::string>());
    return thrown;
  }
#endif
  return run_ranks(
      ranks, [&](LocalCommunicator& communicator) { body(communicator); }, std::chrono::minutes(5));
}

struct Case {
  int ranks = 1;
  int sharding = 0;
  int replicas = 1;
  Transport transport = Transport::host;
};

Case any_case(std::mt19937_64& random, int ranks) {
  return {.ranks = ranks,
          .sharding = static_cast<int>(random() % 3),
          .replicas = ranks > 1 ? 1 + static_cast<int>(random() % 2) : 1,
          .transport = any_transport(random)};
}

/// Some runs by a Plan, a ShardedPlan and, where there are as many rows as ranks, an AllReduce; `arguments`
/// are of whole rows.
void compare(const Model& model, const std::string& text, Options options, const Case& drawn,
             const RunArguments& arguments = {}, const std::vector<bool>& judged = {}) {
  options = on_cuda(options);
  const std::string what = text + ", " + to_string(model.dtype) + ", " + std::to_string(drawn.ranks) +
                           " ranks, sharding " + std::to_string(drawn.sharding) + ", transport " +
                           std::to_string(static_cast<int>(drawn.transport));
  constexpr int runs = 2;
  Shape shape = model.shape();
  shape.judged = judged;
  Updates whole = model.updates();
  if (!judged.empty()) whole.judge_by(judged);
  std::vector<std::unique_ptr<Result>> expected;
  std::vector<std::vector<Report>> reports;
  std::vector<Status> statuses;
  {
    Plan plan(parse(text), shape, options);
    const OwnStream stream;
    for (int k = 0; k < runs; ++k) {
      expected.push_back(std::make_unique<Result>(model));
      plan.run(whole, expected.back()->output(model), stream.get(), arguments);
      statuses.push_back(plan.wait(stream.get()));
      reports.emplace_back(plan.reports().begin(), plan.reports().end());
    }
  }

  const Sharding sharding = sharding_of(drawn.sharding, model.sizes, drawn.ranks);
  std::vector<std::unique_ptr<Result>> got;
  for (int k = 0; k < runs; ++k) got.push_back(std::make_unique<Result>(model));
  const auto sharded = [&](Communicator& communicator) {
    const int rank = communicator.rank();
    ShardedPlan plan(parse(text), shape, sharding, communicator, options);
    Updates mine = model.updates(sharding.slices(rank), sharding.sizes_of(rank));
    if (!judged.empty()) mine.judge_by(judged);
    RunArguments sliced = arguments;
    if (!arguments.base.empty()) sliced.base = model.row(0, sharding.slices(rank));
    const OwnStream stream;
    for (std::size_t k = 0; k < runs; ++k) {
      plan.run(mine, got[k]->output(model, sharding.slices(rank)), stream.get(), sliced);
      EXPECT_EQ(plan.status(), statuses[k]) << what;
      expect_same(plan.reports(), reports[k], what);
    }
  };
  expect_all_fine(run_job(drawn.transport, drawn.ranks, sharded), what);
  for (std::size_t k = 0; k < runs; ++k) EXPECT_TRUE(*got[k] == *expected[k]) << what << ", run " << k;

  if (drawn.ranks != model.n()) return;
  std::vector<std::vector<std::unique_ptr<Result>>> everywhere(static_cast<std::size_t>(drawn.ranks));
  for (auto& results : everywhere) {
    for (int k = 0; k < runs; ++k) results.push_back(std::make_unique<Result>(model));
  }
  const auto reduced = [&](Communicator& communicator) {
    const int rank = communicator.rank();
    AllReduce reduce(parse(text), shape, communicator,
                     {.options = options, .replicas = drawn.replicas, .sharding = sharding});
    const OwnStream stream;
    for (std::size_t k = 0; k < runs; ++k) {
      reduce.run(model.row(rank), everywhere[static_cast<std::size_t>(rank)][k]->output(model), stream.get(),
                 arguments);
      EXPECT_EQ(reduce.status(), statuses[k]) << what;
      expect_same(reduce.reports(), reports[k], what);
    }
  };
  expect_all_fine(run_job(drawn.transport, drawn.ranks, reduced), what);
  for (const auto& results : everywhere) {
    for (std::size_t k = 0; k < runs; ++k)
      EXPECT_TRUE(*results[k] == *expected[k]) << what << ", replicas " << drawn.replicas << ", run " << k;
  }
}

const std::vector<std::int64_t> some_sizes{17003, 7, 8192, 0, 1};

TEST(DeviceSharded, CutsRowsWhereChunksEnd) {
  Generator random = generator("device shardings");
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::int64_t> sizes;
    const std::size_t tensors = 1 + random() % 6;
    for (std::size_t t = 0; t < tensors; ++t)
      sizes.push_back(static_cast<std::int64_t>(random() >> (63 - random() % 40)));
    if (round % 3 == 0) sizes.assign(1 + random() % 3000, std::int64_t{1} << random() % 25);
    const std::int64_t leaf = detail::leaf_blocks_of(sizes) * detail::gram_block;
    // Rows are judged by some of their tensors, perhaps, and chunks are of those.
    std::int64_t d = 0;
    for (const std::int64_t size : sizes) {
      d += size;
      ASSERT_EQ(leaf % detail::cuda::gram_chunk_length(d), 0) << d << " of " << sizes.size() << " tensors";
    }
  }
}

TEST(DeviceSharded, HasTheBitsOfOneDevice) {
  Generator random = generator("device sharded");
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::f16}) {
    for (const Kind kind : {Kind::normal, Kind::hostile, Kind::constant, Kind::extreme}) {
      std::unique_ptr<Model> model;
      for (const char* text : pipelines) {
        if (random() % (4 * test_share()) != 0) continue;
        const int ranks = std::vector<int>{1, 2, 3, 5, 8}[random() % 5];
        if (!model) model = std::make_unique<Model>(random, 8, some_sizes, dtype, kind);
        compare(*model, text, {}, any_case(random, ranks));
      }
    }
  }
}

TEST(DeviceSharded, HasTheBitsOfOneDeviceWithAnyNumberOfRows) {
  Generator random = generator("device sharded rows");
  for (const int n : {1, 3, 5, 12, 20, 30, 38, 46, 50, 66}) {
    if (random() % larger_share() != 0) continue;
    const DType dtype = std::vector<DType>{DType::f32, DType::bf16, DType::f64}[random() % 3];
    const Kind kind = random() % 2 == 0 ? Kind::normal : Kind::constant;
    const Model model(random, n, {9000, 300}, dtype, kind);
    const char* const any[] = {"geometric_median", "clip(c=20) | mean", "krum(f=0)"};
    const char* const text = any[random() % (n < 3 ? 2 : 3)];
    compare(model, text, {}, any_case(random, n < 8 ? n : 2));
  }
}

/// A transport of the caller's: what all ranks are to move.
void move_all(const std::vector<const Transfer*>& transfers) {
  for (std::size_t to = 0; to < transfers.size(); ++to) {
    std::byte* at = transfers[to]->receive;
    for (std::size_t from = 0; from < transfers.size(); ++from) {
      const auto bytes = static_cast<std::size_t>(transfers[to]->receive_bytes[from]);
      const std::byte* source = transfers[from]->send;
      for (std::size_t k = 0; k < to && !transfers[from]->send_bytes.empty(); ++k)
        source += transfers[from]->send_bytes[k];
      if (bytes > 0 && at != source) {
        if (transfers[to]->space == MemorySpace::cuda) {
          detail::cuda::copy_on_device(at, source, bytes, nullptr);
        } else {
          std::memcpy(at, source, bytes);
        }
      }
      at += bytes;
    }
  }
}

TEST(DeviceSharded, HasTheBitsOfOneDeviceOfRowsWithLongChunks) {
  if (larger_share() > 1) return;  // for time
  Generator random = generator("device sharded long");
  const std::vector<std::int64_t> sizes{1'100'001, 5, 1'050'000};
  ASSERT_GT(detail::cuda::gram_chunk_length(2'150'006), detail::cuda::gram_chunk_length(1'100'001));
  const Model model(random, 3, sizes, DType::f32, Kind::normal);
  compare(model, "geometric_median", {}, any_case(random, 2));

  // Leaves are the chunks of whole rows, three of which have six products.
  const std::int64_t length = detail::cuda::gram_chunk_length(2'150'006);
  std::int64_t expected = 0;
  for (const std::int64_t size : sizes) expected += (size + length - 1) / length * 6 * 8;
  std::vector<std::unique_ptr<AllReduce>> reduces;
  std::vector<std::unique_ptr<Result>> results;
  const OwnStream stream;
  for (int rank = 0; rank < 3; ++rank) {
    results.push_back(std::make_unique<Result>(model));
    reduces.push_back(std::make_unique<AllReduce>(parse("krum(f=0)"), model.shape(), rank,
                                                  AllReduceOptions{.options = on_cuda()}));
    reduces.back()->begin(model.row(rank), results.back()->output(model), stream.get());
  }
  std::int64_t moved = 0;
  for (int call = 0; call < 3; ++call) {  // hello, rows, leaves
    std::vector<const Transfer*> transfers;
    for (const auto& reduce : reduces) transfers.push_back(reduce->next());
    move_all(transfers);
    moved = 0;
    for (const Transfer* transfer : transfers) {
      for (const std::int64_t bytes : transfer->receive_bytes) moved += bytes;
    }
  }
  EXPECT_EQ(moved, expected);
}

TEST(DeviceSharded, HasTheBitsOfOneDeviceWithAllThatARunCanBeGiven) {
  Generator random = generator("device sharded arguments");
  const std::vector<bool> judged{true, true, false, true, true};
  const std::vector<double> weights{1, 2, 0, 0.5, 1, -1, 3, 1};
  const Model model(random, 8, some_sizes, random() % 2 == 0 ? DType::f32 : DType::f64, Kind::hostile);
  const Model offset(random, 8, some_sizes, DType::f32, Kind::constant);
  for (const char* text : {"geometric_median", "nnm(f=2) | trimmed_mean(f=2)", "clip(c=20) | mean",
                           "krum(f=2)", "centered_clipping(tau=3, iters=2)", "median"}) {
    const auto in = [&] { return random() % larger_share() == 0; };
    const int ranks = 1 + static_cast<int>(random() % 8);
    if (in()) compare(model, text, {.scope = Scope::per_tensor}, any_case(random, ranks));
    if (in()) compare(offset, text, {.scope = Scope::per_tensor}, any_case(random, ranks));
    if (in())
      compare(model, text, {.on_failure = OnFailure::nan}, any_case(random, 8), {.base = model.row(0)});
    if (in()) compare(offset, text, {}, any_case(random, ranks), {.base = offset.row(0)});
    if (in()) compare(model, text, {}, any_case(random, ranks), {}, judged);
  }
  for (const char* text : {"geometric_median", "median", "mean", "clip(c=20) | mean"}) {
    if (random() % larger_share() == 0)
      compare(model, text, {.max_weight_share = 0.4}, any_case(random, 5), {.weights = weights});
  }
}

TEST(DeviceSharded, FailsOnAllRanksWhereDataDefeatsTheRule) {
  Generator random = generator("device sharded failure");
  const Model model(random, 8, {9000, 300}, DType::f32, Kind::hostile);
  for (const OnFailure on_failure : {OnFailure::keep, OnFailure::nan, OnFailure::zero})
    compare(model, "krum(f=0)", {.on_failure = on_failure}, any_case(random, 8));
}

TEST(DeviceSharded, HasRowsOfNothing) {
  Generator random = generator("device sharded nothing");
  for (const std::vector<std::int64_t>& sizes : {std::vector<std::int64_t>{}, {0}, {1}, {0, 0, 3}}) {
    const Model model(random, 5, sizes, DType::f32, Kind::normal);
    for (const char* text : {"median", "krum(f=1)", "nnm(f=1) | trimmed_mean(f=1)"})
      compare(model, text, {}, any_case(random, 5));
  }
}

TEST(DeviceSharded, RefusesOnAllRanksWhatOneWasGiven) {
  Generator random = generator("device sharded refusals");
  const Model model(random, 3, {9000}, DType::f32, Kind::normal);
  const OwnStream stream;
  const auto run = [&](const std::function<void(Communicator&, bool odd, const Output&)>& body) {
    return run_job(any_transport(random), 3, [&](Communicator& communicator) {
      const Result out(model);
      body(communicator, communicator.rank() == 1, out.output(model));
    });
  };
  expect_thrown(run([&](Communicator& communicator, bool odd, const Output&) {
                  AllReduce reduce(parse(odd ? "mean" : "median"), model.shape(), communicator,
                                   {.options = on_cuda()});
                }),
                Status::disagreement, "pipelines");
  expect_thrown(run([&](Communicator& communicator, bool odd, const Output&) {
                  AllReduce reduce(parse("median"), model.shape(), communicator,
                                   {.options = odd ? Options{} : on_cuda()});
                }),
                Status::disagreement, "devices");
  expect_thrown(run([&](Communicator& communicator, bool odd, const Output& out) {
                  AllReduce reduce(parse("median"), model.shape(), communicator, {.options = on_cuda()});
                  if (odd) return reduce.run(model.row(1), out);
                  reduce.run(model.row(communicator.rank()), out, stream.get());
                }),
                Status::invalid_argument, "stream");
  expect_thrown(run([&](Communicator& communicator, bool odd, const Output& out) {
                  AllReduce reduce(parse("clip(c=1) | mean"), model.shape(), communicator,
                                   {.options = on_cuda()});
                  reduce.run(model.row(0), out, stream.get(), {.base = model.row(odd ? 1 : 0)});
                }),
                Status::disagreement, "bases");
  expect_thrown(run([&](Communicator& communicator, bool, const Output&) {
                  Options lent = on_cuda();
                  lent.lent_workspace = true;
                  AllReduce reduce(parse("median"), model.shape(), communicator, {.options = lent});
                }),
                Status::invalid_argument, "lent_workspace");
}

TEST(DeviceSharded, RunsInPhasesAndKeepsItsStateWhereARunThrows) {
  Generator random = generator("device sharded state");
  const int n = 4;
  const Model model(random, n, {9000, 20}, DType::f32, Kind::normal);
  const OwnStream stream;
  for (const char* text : {"centered_clipping(tau=1)", "bucketing(s=2, seed=3) | geometric_median"}) {
    std::vector<std::unique_ptr<Result>> expected;
    Plan plan(parse(text), model.shape(), on_cuda());
    for (int k = 0; k < 2; ++k) {
      expected.push_back(std::make_unique<Result>(model));
      plan.run(model.updates(), expected.back()->output(model), stream.get());
      EXPECT_EQ(plan.wait(stream.get()), Status::ok);
    }
    for (int fails = 2; fails <= 5; ++fails) {
      std::vector<std::unique_ptr<Result>> got;
      std::vector<std::unique_ptr<AllReduce>> reduces;
      for (int rank = 0; rank < n; ++rank) {
        got.push_back(std::make_unique<Result>(model));
        reduces.push_back(std::make_unique<AllReduce>(parse(text), model.shape(), rank,
                                                      AllReduceOptions{.options = on_cuda()}));
      }
      const auto run = [&](int until) {
        for (std::size_t rank = 0; rank < reduces.size(); ++rank)
          reduces[rank]->begin(model.row(static_cast<int>(rank)), got[rank]->output(model), stream.get());
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
      for (const auto& result : got) EXPECT_TRUE(*result == *expected[1]) << text << ", " << fails;
    }
  }
}

TEST(DeviceSharded, MayWriteOverItsRowAndGivesSlicesAlone) {
  Generator random = generator("device sharded in place");
  const int n = 3;
  const Model model(random, n, {17000}, DType::f32, Kind::normal);
  Result expected(model);
  aggregate(parse("geometric_median"), model.updates(), expected.output(model));
  const Result sliced(model);
  expect_all_fine(run_job(any_transport(random), n,
                          [&](Communicator& communicator) {
                            AllReduce reduce(parse("geometric_median"), model.shape(), communicator,
                                             {.options = on_cuda(), .gather = false});
                            const OwnStream stream;
                            reduce.run(model.row(communicator.rank()),
                                       sliced.output(model, reduce.sharding().slices(communicator.rank())),
                                       stream.get());
                          }),
                  "slices");
  EXPECT_TRUE(sliced == expected);
  expect_all_fine(run_job(any_transport(random), n,
                          [&](Communicator& communicator) {
                            AllReduce reduce(parse("geometric_median"), model.shape(), communicator,
                                             {.options = on_cuda()});
                            const OwnStream stream;
                            const Row mine = model.row(communicator.rank());
                            reduce.run(mine, Output(const_cast<void*>(mine.tensors[0])), stream.get());
                          }),
                  "in place");
  for (int rank = 0; rank < n; ++rank) EXPECT_TRUE(model.has_in(rank, expected.output(model))) << rank;
}

}  // namespace
}  // namespace bragg::test
