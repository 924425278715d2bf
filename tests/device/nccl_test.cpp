// SPDX-License-Identifier: Apache-2.0
// <bragg/nccl.hpp> over the double of NCCL, and the double itself.
#include <gtest/gtest.h>
#include <bragg/nccl.hpp>
#include <bragg/sharded.hpp>

#include <memory>
#include <string>
#include <thread>

#include "tests/device/device_model.hpp"
#include "tests/support/fake_nccl/run_nccl.hpp"

namespace bragg::test {
namespace {

using detail::cuda::OwnStream;

/// In the place of each rank's gradient: what the rule makes of all of them, step after step.
void train(ncclComm_t comm, float* gradient, std::int64_t size, cudaStream_t stream, int steps) {
  bragg::nccl::Communicator ranks(comm, std::chrono::minutes(2));
  bragg::Options options;
  options.device = bragg::Device::cuda;
  bragg::AllReduce all_reduce(bragg::parse("nnm(f=1) | trimmed_mean(f=1)"),
                              {.n = ranks.size(), .sizes = {size}}, ranks, {.options = options});
  for (int step = 0; step < steps; ++step) {
    // … `stream` computes the gradient
    all_reduce.run(bragg::Row(gradient), bragg::Output(gradient), stream);
    if (all_reduce.status() != bragg::Status::ok) break;
  }
}

TEST(DeviceSharded, RunsAsItsDocumentationShows) {
  Generator random = generator("device sharded documentation");
  const int n = 4;
  const std::int64_t d = 9000;
  const Model model(random, n, {d}, DType::f32, Kind::normal);
  const Result expected(model);
  aggregate(parse("nnm(f=1) | trimmed_mean(f=1)"), model.updates(), expected.output(model));
  FakeNccl job(n);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < n; ++rank) {
    threads.emplace_back([&, rank] {
      const OwnStream stream;
      train(job.comm(rank), static_cast<float*>(const_cast<void*>(model.row(rank).tensors[0])), d,
            stream.get(), 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(job.defects(), std::vector<std::string>());
  for (int rank = 0; rank < n; ++rank) EXPECT_TRUE(model.has_in(rank, expected.output(model))) << rank;
}

TEST(Nccl, EndsARunOnAllRanksWhereOneHangsOrFails) {
  Generator random = generator("nccl failures");
  const int n = 3;
  const Model model(random, n, {9000}, DType::f32, Kind::normal);
  for (int number = 0; number < 7; ++number) {
    for (const bool hangs : {true, false}) {
      FakeNccl job(n);
      if (hangs) {
        job.hang(1, number);
      } else {
        job.fail(1, number + 1, ncclSystemError);
      }
      const Thrown thrown = run_nccl(
          job, n,
          [&](Communicator& communicator) {
            const Result out(model);
            const OwnStream stream;
            AllReduce reduce(parse("krum(f=0)"), model.shape(), communicator, {.options = on_cuda()});
            reduce.run(model.row(communicator.rank()), out.output(model), stream.get());
          },
          std::chrono::milliseconds(200));
      std::size_t ended = 0;
      for (int rank = 0; rank < n; ++rank) {
        const std::exception_ptr& one = thrown[static_cast<std::size_t>(rank)];
        EXPECT_EQ(job.is_aborted(rank), one != nullptr);
        if (one == nullptr) continue;
        ++ended;
        try {
          std::rethrow_exception(one);
        } catch (const Error& error) {
          EXPECT_EQ(error.status(), Status::communication) << error.what();
          const bool timed_out = std::string(error.what()).find("no answer") != std::string::npos;
          EXPECT_TRUE(timed_out || (!hangs && rank == 1)) << error.what();
        }
      }
      // Hellos of plan and run, rows, leaves, totals, output, verdict; who has all messages of the last is
      // done.
      if (number < 6) {
        EXPECT_EQ(ended, static_cast<std::size_t>(n)) << number;
      } else {
        EXPECT_GE(ended, 1U);
      }
      for (const std::string& defect : job.defects())
        EXPECT_NE(defect.find("did not take"), std::string::npos) << defect;
    }
  }
}

TEST(Nccl, MovesNothingAfterItWasAborted) {
  FakeNccl job(2);
  nccl::Communicator communicator(job.comm(0), std::chrono::milliseconds(20));
  EXPECT_FALSE(communicator.aborted());
  std::byte sent{};
  std::byte received[2] = {};
  const std::vector<std::int64_t> bytes{1, 1};
  for (int call = 0; call < 2; ++call) {
    try {
      communicator.all_gather(&sent, received, bytes);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::communication);
      EXPECT_NE(std::string(error.what()).find(call == 0 ? "20 ms" : "aborted"), std::string::npos)
          << error.what();
    }
    EXPECT_TRUE(communicator.aborted());
  }
  EXPECT_EQ(job.defects(), std::vector<std::string>());
}

TEST(Nccl, TakesManyRanksInGroupsThatItHasRoomFor) {
  FakeNccl job(1500);
  nccl::Communicator communicator(job.comm(7), std::chrono::milliseconds(20));
  std::byte sent{};
  std::vector<std::byte> received(1500);
  EXPECT_THROW(communicator.all_gather(&sent, received.data(), std::vector<std::int64_t>(1500, 1)), Error);
  EXPECT_EQ(job.groups(7), (std::vector<std::size_t>{2048, 2 * 1499 - 2048}));
  for (const std::string& defect : job.defects())
    EXPECT_NE(defect.find("did not take"), std::string::npos) << defect;
}

TEST(Nccl, MovesHostAndDeviceMemoryOfAnyLengths) {
  Generator random = generator("nccl bytes");
  for (int round = 0; round < 10; ++round) {
    const int ranks = 1 + static_cast<int>(random() % 6);
    const auto count = static_cast<std::size_t>(ranks);
    std::vector<std::vector<std::int64_t>> bytes(count, std::vector<std::int64_t>(count));  // [from][to]
    for (auto& each : bytes) {
      for (std::int64_t& one : each) one = static_cast<std::int64_t>(random() % 3 == 0 ? 0 : random() % 5000);
    }
    const bool on_device = round % 2 == 0;
    const auto value = [](std::size_t from, std::size_t to, std::size_t k) {
      return static_cast<std::byte>(from * 31 + to * 7 + k);
    };
    FakeNccl job(ranks);
    if (round % 4 < 2) job.be_nonblocking();
    const auto move = [&](Communicator& communicator) {
      const auto me = static_cast<std::size_t>(communicator.rank());
      Bytes send, expected;
      std::vector<std::int64_t> from;
      for (std::size_t r = 0; r < count; ++r) {
        for (std::size_t k = 0; k < static_cast<std::size_t>(bytes[me][r]); ++k)
          send.push_back(value(me, r, k));
        for (std::size_t k = 0; k < static_cast<std::size_t>(bytes[r][me]); ++k)
          expected.push_back(value(r, me, k));
        from.push_back(bytes[r][me]);
      }
      if (on_device) {
        const DeviceArray<std::byte> there(send);
        const DeviceArray<std::byte> received(Bytes(expected.size()));
        communicator.all_to_all(there.data(), bytes[me], received.data(), from);
        EXPECT_EQ(received.values(), expected);
      } else {
        Bytes received(expected.size());
        communicator.all_to_all(send.data(), bytes[me], received.data(), from);
        EXPECT_EQ(received, expected);
      }
      // In place, of what each sends to rank 0.
      std::vector<std::int64_t> all;
      Bytes gathered, whole;
      std::size_t mine = 0;
      for (std::size_t r = 0; r < count; ++r) {
        if (r == me) mine = whole.size();
        all.push_back(bytes[r][0]);
        for (std::size_t k = 0; k < static_cast<std::size_t>(bytes[r][0]); ++k) {
          whole.push_back(value(r, 0, k));
          gathered.push_back(r == me ? whole.back() : std::byte{});
        }
      }
      if (on_device) {
        const DeviceArray<std::byte> there(gathered);
        communicator.all_gather(there.data() + mine, there.data(), all);
        EXPECT_EQ(there.values(), whole);
      } else {
        communicator.all_gather(gathered.data() + mine, gathered.data(), all);
        EXPECT_EQ(gathered, whole);
      }
    };
    expect_all_fine(run_nccl(job, ranks, move), "bytes");
    EXPECT_EQ(job.defects(), std::vector<std::string>());
  }
}

/// What the double says of a rank 0 and a rank 1 that call NCCL so, one after the other.
std::string defect_of(const std::function<void(ncclComm_t, ncclComm_t, std::byte*, cudaStream_t)>& calls) {
  FakeNccl job(2);
  const DeviceArray<std::byte> memory(Bytes(64));
  const OwnStream stream;
  std::thread([&] { calls(job.comm(0), job.comm(1), memory.data(), stream.get()); }).join();
  const std::vector<std::string> found = job.defects();
  EXPECT_FALSE(found.empty());
  for (int rank = 0; rank < 2; ++rank) {
    if (!job.is_aborted(rank)) ncclCommAbort(job.comm(rank));
  }
  return found.empty() ? "" : found.front();
}

TEST(FakeNccl, FindsWhatNcclWouldHangAt) {
  const auto send = [](ncclComm_t comm, int peer, std::byte* memory, std::size_t bytes, cudaStream_t stream) {
    ncclGroupStart();
    ncclSend(memory, bytes, ncclUint8, peer, comm, stream);
    ncclGroupEnd();
  };
  const auto receive = [](ncclComm_t comm, int peer, std::byte* memory, std::size_t bytes,
                          cudaStream_t stream) {
    ncclGroupStart();
    ncclRecv(memory + 32, bytes, ncclUint8, peer, comm, stream);
    ncclGroupEnd();
    cudaStreamQuery(stream);
  };
  EXPECT_NE(defect_of([&](ncclComm_t a, ncclComm_t b, std::byte* memory, cudaStream_t stream) {
              send(a, 1, memory, 3, stream);
              receive(b, 0, memory, 4, stream);
            }).find("3 bytes are sent, 4 received"),
            std::string::npos);
  EXPECT_NE(defect_of([&](ncclComm_t a, ncclComm_t b, std::byte* memory, cudaStream_t stream) {
              send(b, 0, memory, 3, stream);  // b's group 0 is for nobody
              send(a, 1, memory, 3, stream);
              receive(b, 0, memory, 3, stream);
            }).find("group 0 of the sender meets group 1"),
            std::string::npos);
  EXPECT_NE(defect_of([&](ncclComm_t a, ncclComm_t, std::byte* memory, cudaStream_t stream) {
              send(a, 1, memory, 3, stream);
            }).find("did not take"),
            std::string::npos);
  EXPECT_NE(defect_of([&](ncclComm_t a, ncclComm_t, std::byte* memory, cudaStream_t stream) {
              send(a, 1, memory, 3, stream);
              Bytes host(3);
              cudaMemcpyAsync(host.data(), memory, 3, cudaMemcpyDeviceToHost, stream);
            }).find("knows no timeout"),
            std::string::npos);
  EXPECT_NE(
      defect_of([&](ncclComm_t, ncclComm_t, std::byte*, cudaStream_t) { ncclGroupStart(); }).find("open"),
      std::string::npos);
  EXPECT_NE(defect_of([&](ncclComm_t, ncclComm_t, std::byte*, cudaStream_t) {
              ncclGroupEnd();
            }).find("without ncclGroupStart"),
            std::string::npos);
  EXPECT_NE(defect_of([&](ncclComm_t a, ncclComm_t, std::byte* memory, cudaStream_t stream) {
              ncclGroupStart();
              for (int k = 0; k < 2049; ++k) ncclSend(memory, 1, ncclUint8, 1, a, stream);
              ncclGroupEnd();
            }).find("2049 operations"),
            std::string::npos);
  EXPECT_NE(defect_of([&](ncclComm_t a, ncclComm_t, std::byte* memory, cudaStream_t stream) {
              ncclCommAbort(a);
              send(a, 1, memory, 3, stream);
            }).find("after ncclCommAbort"),
            std::string::npos);
}

}  // namespace
}  // namespace bragg::test
