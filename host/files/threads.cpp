// SPDX-License-Identifier: Apache-2.0
#include "host/files/threads.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <cstddef>
#include <exception>
#include <latch>
#include <string>
#include <thread>
#include <vector>

namespace bragg::detail {

void start_threads(int count) {
  std::vector<std::thread> tried;
  std::latch all_tried(1);
  try {
    tried.reserve(static_cast<std::size_t>(count));
    for (int i = 1; i < count; ++i) tried.emplace_back([&] { all_tried.wait(); });
  } catch (const std::exception& error) {
    const std::string why = error.what();
    all_tried.count_down();
    for (std::thread& thread : tried) thread.join();
    throw Error(Status::out_of_memory,
                fmt::format("threads = {}: the system starts only {}: {}", count, tried.size() + 1, why));
  }
  all_tried.count_down();
  for (std::thread& thread : tried) thread.join();
#pragma omp parallel num_threads(count)
  {}
}

}  // namespace bragg::detail
