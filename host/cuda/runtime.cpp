// SPDX-License-Identifier: Apache-2.0
#include "host/cuda/runtime.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "host/cuda/check.hpp"

namespace bragg::detail::cuda {

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver is no device
    return 0;
  }
  return count;
}

int current_device() {
  int device = 0;
  BRAGG_CUDA_CHECK(cudaGetDevice(&device));
  return device;
}

OnDevice::OnDevice(int device) : before_(current_device()) {
  if (device != before_) BRAGG_CUDA_CHECK(cudaSetDevice(device));
}
OnDevice::~OnDevice() { cudaSetDevice(before_); }

void* allocate(std::size_t bytes) {
  void* memory = nullptr;
  if (bytes > 0) BRAGG_CUDA_CHECK(cudaMalloc(&memory, bytes));
  return memory;
}
void release(void* memory) noexcept { cudaFree(memory); }

void* allocate_pinned(std::size_t bytes) {
  void* memory = nullptr;
  if (bytes > 0) BRAGG_CUDA_CHECK(cudaMallocHost(&memory, bytes));
  return memory;
}
void release_pinned(void* memory) noexcept { cudaFreeHost(memory); }

void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  if (bytes > 0) BRAGG_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
}
void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream) {
  if (bytes > 0) BRAGG_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
}
void set_bytes(void* to, int value, std::size_t bytes, Stream stream) {
  if (bytes > 0) BRAGG_CUDA_CHECK(cudaMemsetAsync(to, value, bytes, stream));
}

void synchronize(Stream stream) { BRAGG_CUDA_CHECK(cudaStreamSynchronize(stream)); }

bool is_capturing(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  BRAGG_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

Stream create_stream() {
  Stream stream = nullptr;
  BRAGG_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}
void destroy_stream(Stream stream) noexcept { cudaStreamDestroy(stream); }

Event::Event() {
  cudaEvent_t event = nullptr;
  BRAGG_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  event_ = event;
}
Event::~Event() { cudaEventDestroy(static_cast<cudaEvent_t>(event_)); }
void Event::record(Stream stream) {
  BRAGG_CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(event_), stream));
}
void Event::wait(Stream stream) {
  BRAGG_CUDA_CHECK(cudaStreamWaitEvent(stream, static_cast<cudaEvent_t>(event_), 0));
}

std::string device_name(int device) {
  cudaDeviceProp properties{};
  BRAGG_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return fmt::format("{}, compute capability {}.{}, {} multiprocessors", properties.name, properties.major,
                     properties.minor, properties.multiProcessorCount);
}

}  // namespace bragg::detail::cuda
