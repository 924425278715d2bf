// SPDX-License-Identifier: Apache-2.0
// kernels/runtime/runtime.hpp on the executor: one device, whose memory is the executor's arena. Everything
// is done when a call returns.
#include "kernels/runtime/runtime.hpp"

#include <bragg/error.hpp>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>

#include "tests/simt/memory.hpp"
#include "tests/simt/shadow.hpp"

namespace bragg::detail::cuda {
namespace {

[[noreturn]] void defect(const std::string& what) { throw Error(Status::internal, what); }

void check_device_range(const void* p, std::size_t bytes) {
  if (simt::allocation_of(p, bytes).base == nullptr) {
    defect("a copy of " + std::to_string(bytes) +
           " bytes leaves device memory: " + simt::describe_address(p));
  }
}
void check_host_pointer(const void* p) {
  if (simt::global_arena().contains(p)) defect("a copy takes device memory for the host's");
}

struct Streams {
  std::mutex mutex;
  std::set<Stream> live;
};
Streams& streams() {
  static Streams* const s = new Streams;
  return *s;
}
void check_stream(Stream stream) {
  const std::lock_guard lock(streams().mutex);
  if (stream != nullptr && streams().live.count(stream) == 0) defect("a stream that does not exist");
}

}  // namespace

int device_count() noexcept { return 1; }
int current_device() { return 0; }

// The one device is always current, so whoever pushes one asks for another.
void push_device(int device) {
  throw Error(Status::unsupported, "there is no CUDA device " + std::to_string(device));
}
void pop_device() noexcept {}

void* allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* const p = simt::allocate_global(bytes);
  if (p == nullptr) {
    throw Error(Status::out_of_memory, "the device has no " + std::to_string(bytes) + " bytes left");
  }
  return p;
}
void release(void* memory) noexcept { simt::release_global(memory); }

void* allocate_pinned(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* const p = std::malloc(bytes);
  if (p == nullptr) throw Error(Status::out_of_memory, "no page-locked memory");
  return p;
}
void release_pinned(void* memory) noexcept { std::free(memory); }

void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  check_stream(stream);
  if (bytes == 0) return;
  check_device_range(to, bytes);
  check_host_pointer(from);
  const simt::GlobalAccess access;
  std::memcpy(to, from, bytes);
  simt::shadow::initialise(to, bytes);
}

void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream) {
  check_stream(stream);
  if (bytes == 0) return;
  check_device_range(from, bytes);
  check_host_pointer(to);
  const std::size_t written = simt::shadow::initialised_bytes(from, bytes);
  if (written < bytes) {
    throw simt::Failure("copy to the host of what nothing has written: " +
                        simt::describe_address(static_cast<const char*>(from) + written));
  }
  const simt::GlobalAccess access;
  std::memcpy(to, from, bytes);
}

void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  check_stream(stream);
  if (bytes == 0) return;
  check_device_range(to, bytes);
  check_device_range(from, bytes);
  const std::size_t written = simt::shadow::initialised_bytes(from, bytes);
  if (written < bytes) {
    throw simt::Failure("copy on the device of what nothing has written: " +
                        simt::describe_address(static_cast<const char*>(from) + written));
  }
  const simt::GlobalAccess access;
  std::memmove(to, from, bytes);
  simt::shadow::initialise(to, bytes);
}

void set_bytes(void* to, int value, std::size_t bytes, Stream stream) {
  check_stream(stream);
  if (bytes == 0) return;
  check_device_range(to, bytes);
  const simt::GlobalAccess access;
  std::memset(to, value, bytes);
  simt::shadow::initialise(to, bytes);
}

void synchronize(Stream stream) { check_stream(stream); }
bool is_capturing(Stream stream) {
  check_stream(stream);
  return false;
}

Stream create_stream() {
  const std::lock_guard lock(streams().mutex);
  const auto stream = reinterpret_cast<Stream>(new char);
  streams().live.insert(stream);
  return stream;
}
void destroy_stream(Stream stream) noexcept {
  const std::lock_guard lock(streams().mutex);
  if (streams().live.erase(stream) != 0) delete reinterpret_cast<char*>(stream);
}

// What is enqueued is done at once, so there is never anything to wait for.
Event::Event() = default;
Event::~Event() = default;
void Event::record(Stream stream) { check_stream(stream); }
void Event::wait(Stream stream) { check_stream(stream); }

std::string device_name(int) { return "SIMT executor"; }

}  // namespace bragg::detail::cuda
