// SPDX-License-Identifier: Apache-2.0
#include "kernels/runtime/runtime.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <bragg/error.hpp>
#include <map>
#include <mutex>

#include "kernels/runtime/check.hpp"

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

namespace {

/// The driver's functions for what the runtime has none: by way of the runtime, so that no program needs the
/// driver to start.
struct Driver {
  decltype(&cuDeviceGet) device_get;
  decltype(&cuDevicePrimaryCtxRetain) retain_primary_context;
  decltype(&cuCtxPushCurrent) push_context;
  decltype(&cuCtxPopCurrent) pop_context;
};
template <class F>
void find(F*& function, const char* name) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  BRAGG_CUDA_CHECK(cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found));
#else
  BRAGG_CUDA_CHECK(cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &found));
#endif
  BRAGG_CUDA_CHECK(found == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorSymbolNotFound);
  function = reinterpret_cast<F*>(address);
}
const Driver& driver() {
  static const Driver driver = [] {
    Driver d{};
    find(d.device_get, "cuDeviceGet");
    find(d.retain_primary_context, "cuDevicePrimaryCtxRetain");
    find(d.push_context, "cuCtxPushCurrent");
    find(d.pop_context, "cuCtxPopCurrent");
    return d;
  }();
  return driver;
}

void check_driver(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  throw Error(result == CUDA_ERROR_OUT_OF_MEMORY ? Status::out_of_memory : Status::internal,
              fmt::format("CUDA: error {} from {}", static_cast<int>(result), call));
}

/// The context of a device that CUDA's runtime uses. It is held from its first use to the program's end: were
/// it let go, everything in it would go with it, where only the driver's side had asked for it.
CUcontext primary_context(int device) {
  static std::mutex mutex;
  static std::map<int, CUcontext> held;
  const std::lock_guard lock(mutex);
  const auto found = held.find(device);
  if (found != held.end()) return found->second;
  CUdevice handle = 0;
  CUcontext context = nullptr;
  check_driver(driver().device_get(&handle, device), "cuDeviceGet");
  check_driver(driver().retain_primary_context(&context, handle), "cuDevicePrimaryCtxRetain");
  return held[device] = context;
}

}  // namespace

void push_device(int device) {
  check_driver(driver().push_context(primary_context(device)), "cuCtxPushCurrent");
}
void pop_device() noexcept {
  CUcontext context = nullptr;
  driver().pop_context(&context);
}

namespace {

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  BRAGG_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

}  // namespace

std::size_t most_shared_of_block(int device) {
  return static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
}
int multiprocessors(int device) { return attribute(cudaDevAttrMultiProcessorCount, device); }
int compute_capability(int device) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
         attribute(cudaDevAttrComputeCapabilityMinor, device);
}

std::size_t static_shared_of(const void* kernel) {
  cudaFuncAttributes attributes{};
  BRAGG_CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel));
  return attributes.sharedSizeBytes;
}
void set_most_dynamic_shared(const void* kernel, std::size_t bytes) {
  BRAGG_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}
int blocks_of_multiprocessor(const void* kernel, int threads, std::size_t shared) {
  int blocks = 0;
  BRAGG_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared));
  return blocks;
}

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
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  if (bytes > 0) BRAGG_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
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
