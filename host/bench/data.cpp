// SPDX-License-Identifier: Apache-2.0
#include "host/bench/data.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <bragg/error.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace bragg::bench {

namespace {

constexpr std::size_t huge_page = std::size_t{1} << 21;

std::uint64_t mixed(std::uint64_t x) {  // SplitMix64's output function
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31U);
}

/// Four uniform numbers of 16 bits added up, of mean 0 and deviation 1: bell-shaped enough.
float bell(std::uint64_t index) {
  const std::uint64_t bits = mixed(index * 0x9E3779B97F4A7C15U);
  const auto sum = static_cast<double>((bits & 0xFFFFU) + ((bits >> 16U) & 0xFFFFU) +
                                       ((bits >> 32U) & 0xFFFFU) + (bits >> 48U));
  constexpr double mean = 2 * 65535.0;
  constexpr double deviation = 65536 * 0.5773502691896258;  // √(4/12) of a uniform number's range
  return static_cast<float>((sum - mean) / deviation);
}

/// Cut rather than rounded, and small ones to zero: any value is as random as another.
std::uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16U) & 0x8000U;
  const int exponent = static_cast<int>((bits >> 23U) & 0xFFU) - 127;
  if (exponent < -14) return static_cast<std::uint16_t>(sign);
  return static_cast<std::uint16_t>(sign | (static_cast<std::uint32_t>(exponent + 15) << 10U) |
                                    ((bits >> 13U) & 0x3FFU));
}

template <class ValueT>
void store_as(ValueT value, unsigned char* to) {
  std::memcpy(to, &value, sizeof(value));
}

void store(float value, DType dtype, unsigned char* to) {
  switch (dtype) {
    case DType::f32:
      return store_as(value, to);
    case DType::f64:
      return store_as(static_cast<double>(value), to);
    case DType::f16:
      return store_as(to_f16(value), to);
    case DType::bf16:
      return store_as(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16U), to);
  }
}

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* const memory =
      mmap(nullptr, bytes + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(Status::out_of_memory, fmt::format("no memory for {} bytes of data", bytes));
  }
  data_ = static_cast<unsigned char*>(memory);
#if defined(MADV_HUGEPAGE)
  madvise(data_, bytes + huge_page, MADV_HUGEPAGE);
#endif
  constexpr std::int64_t page = 4096;
  const auto end = static_cast<std::int64_t>(bytes);
#pragma omp parallel for schedule(static)
  for (std::int64_t at = 0; at < end; at += page) data_[at] = 0;
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, bytes_ + huge_page);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Buffer random_updates(int n, std::int64_t d, DType dtype) {
  const std::size_t size = size_of(dtype);
  Buffer buffer(static_cast<std::size_t>(n) * static_cast<std::size_t>(d) * size);
  constexpr std::int64_t chunk = 65536;
  const std::int64_t chunks = (d + chunk - 1) / chunk;
#pragma omp parallel for collapse(2) schedule(static)
  for (int i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < chunks; ++c) {
      // Row 0 is neither the quietest nor the loudest.
      const int place = static_cast<int>((std::int64_t{i} * 7 + 3) % n);
      const auto deviation = static_cast<float>(1 + 0.5 * place / n);
      for (std::int64_t j = c * chunk; j < std::min((c + 1) * chunk, d); ++j) {
        const auto index =
            static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(d) + static_cast<std::uint64_t>(j);
        store(deviation * bell(index), dtype, buffer.data() + index * size);
      }
    }
  }
  return buffer;
}

}  // namespace bragg::bench
