// SPDX-License-Identifier: Apache-2.0
#include "kernels/runtime/launch.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <cstdlib>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "kernels/runtime/runtime.hpp"

namespace bragg::detail::cuda {

namespace {

/// Known attributes of a kernel on a device.
struct Kernel {
  std::size_t most_dynamic_shared = 0;
  std::map<std::pair<int, std::size_t>, int> resident;  ///< by threads and dynamic shared memory
};

struct Kernels {
  std::mutex mutex;                                     // of the table
  std::map<std::pair<const void*, int>, Kernel> table;  // by kernel and device
  std::mutex making;  // of what the driver is asked for: it may wait, but whoever launches must not
};
Kernels& kernels() {
  static Kernels* const all = new Kernels;  // outlives static objects that launch
  return *all;
}

thread_local int rehearsals = 0;

/// Gives f(kernel's entry) what f makes of it, under the lock. Makes ready.
template <class F>
auto with_kernel(const void* kernel, const F& f) {
  Kernels& all = kernels();
  const int device = current_device();
  const std::pair key(kernel, device);
  {
    const std::lock_guard lock(all.mutex);
    const auto found = all.table.find(key);
    if (found != all.table.end()) return f(found->second);
  }
  const std::lock_guard making(all.making);
  {
    const std::lock_guard lock(all.mutex);
    const auto found = all.table.find(key);
    if (found != all.table.end()) return f(found->second);
  }
  Kernel made;
  made.most_dynamic_shared = most_shared_of_block(device) - static_shared_of(kernel);
  set_most_dynamic_shared(kernel, made.most_dynamic_shared);
  const std::lock_guard lock(all.mutex);
  return f(all.table.emplace(key, std::move(made)).first->second);
}

}  // namespace

void make_ready(const void* kernel) {
  with_kernel(kernel, [](const Kernel&) { return true; });
}

std::size_t most_dynamic_shared(const void* kernel) {
  return with_kernel(kernel, [](const Kernel& k) { return k.most_dynamic_shared; });
}

int resident_blocks(const void* kernel, int threads, std::size_t shared) {
  const std::pair block(threads, shared);
  const int known = with_kernel(kernel, [&](const Kernel& k) {
    const auto found = k.resident.find(block);
    return found != k.resident.end() ? found->second : 0;
  });
  if (known != 0) return known;
  const int per_multiprocessor = blocks_of_multiprocessor(kernel, threads, shared);
  if (per_multiprocessor < 1) {
    throw Error(
        Status::internal,
        fmt::format("CUDA: {}: a block of {} threads with {} bytes of dynamic shared memory has no room "
                    "on a multiprocessor; a block of this kernel may have {} bytes",
                    device_name(current_device()), threads, shared, most_dynamic_shared(kernel)));
  }
  const int blocks = multiprocessors(current_device()) * per_multiprocessor;
  with_kernel(kernel, [&](Kernel& k) { return k.resident[block] = blocks; });
  return blocks;
}

void forget_kernels() noexcept {
  const std::lock_guard lock(kernels().mutex);
  kernels().table.clear();
}

Rehearsal::Rehearsal() noexcept { ++rehearsals; }
Rehearsal::~Rehearsal() { --rehearsals; }
bool is_rehearsal() noexcept { return rehearsals > 0; }

bool makes_dependent_launches() {
  static const bool wanted = [] {
    const char* const text = std::getenv("BRAGG_DEPENDENT_LAUNCHES");
    return text != nullptr && std::string_view(text) == "1";
  }();
  return wanted && compute_capability(current_device()) >= 90;
}

}  // namespace bragg::detail::cuda
