// SPDX-License-Identifier: Apache-2.0
// The few runtime calls that the CUDA backend makes outside of kernels. Test builds put the executor's in
// their place. Everything throws Error as cuda::check does, unless it says noexcept.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "kernels/runtime/stream.hpp"

namespace bragg::detail::cuda {

/// Devices that can be used; 0 without a driver.
int device_count() noexcept;
int current_device();

/// Makes a device the current one of this thread, until pop_device brings back what was, or was not, current
/// before. What was is not touched: CUDA's own way, to set the former device again, would make a context of
/// hundreds of megabytes there if nobody had used it.
void push_device(int device);
void pop_device() noexcept;

/// Makes a device the current one of this thread, as long as it lives.
class OnDevice {
 public:
  explicit OnDevice(int device) : pushed_(device != current_device()) {
    if (pushed_) push_device(device);
  }
  ~OnDevice() {
    if (pushed_) pop_device();
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  bool pushed_;
};

// Parts of launch.hpp. They are about the current device, where none is named.

/// Shared memory that a block may have, where its kernel was allowed so much.
std::size_t most_shared_of_block(int device);
int multiprocessors(int device);
int compute_capability(int device);  ///< 90: 9.0
/// Shared memory that a kernel declares. Loads the kernel.
std::size_t static_shared_of(const void* kernel);
/// Allows blocks of the kernel so much dynamic shared memory, where without it is 48 KB less what the kernel
/// declares. May wait for copies under way.
void set_most_dynamic_shared(const void* kernel, std::size_t bytes);
/// 0: not one has room.
int blocks_of_multiprocessor(const void* kernel, int threads, std::size_t shared);

/// Memory of the current device, aligned to 256 bytes. Bytes of 0: null.
void* allocate(std::size_t bytes);
void release(void* memory) noexcept;
/// Page-locked host memory.
void* allocate_pinned(std::size_t bytes);
void release_pinned(void* memory) noexcept;

/// Enqueued. Pageable host memory makes them wait.
void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream);
void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream);
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream);
void set_bytes(void* to, int value, std::size_t bytes, Stream stream);

void synchronize(Stream stream);
bool is_capturing(Stream stream);

Stream create_stream();
void destroy_stream(Stream stream) noexcept;

/// Page-locked host memory that its owner frees.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  explicit PinnedMemory(std::size_t bytes) : data_(allocate_pinned(bytes)) {}
  PinnedMemory(PinnedMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~PinnedMemory() { release_pinned(data_); }

  void* data() const noexcept { return data_; }

 private:
  void* data_ = nullptr;
};

/// A point in a stream's work that other streams can wait for.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Stream stream);
  /// The stream's later work waits for what was recorded last; nothing, where nothing was.
  void wait(Stream stream);

 private:
  void* event_ = nullptr;
};

/// A stream of its owner's, apart from all others.
class OwnStream {
 public:
  OwnStream() : stream_(create_stream()) {}
  ~OwnStream() { destroy_stream(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  Stream get() const noexcept { return stream_; }

 private:
  Stream stream_;
};

/// "NVIDIA H200, compute capability 9.0, 132 multiprocessors".
std::string device_name(int device);

/// Device memory that its owner frees.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(std::size_t bytes) : data_(allocate(bytes)), bytes_(bytes) {}
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceMemory() { release(data_); }

  void* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace bragg::detail::cuda
