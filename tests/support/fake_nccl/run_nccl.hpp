// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/nccl.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "tests/support/fake_nccl/fake_nccl.hpp"

namespace bragg::test {

/// body(communicator) on every rank of a job over NCCL.
inline std::vector<std::exception_ptr> run_nccl(FakeNccl& job, int ranks,
                                                const std::function<void(nccl::Communicator&)>& body,
                                                std::chrono::milliseconds timeout = std::chrono::minutes(5)) {
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        nccl::Communicator communicator(job.comm(rank), timeout);
        body(communicator);
      } catch (...) {
        thrown[static_cast<std::size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

}  // namespace bragg::test
