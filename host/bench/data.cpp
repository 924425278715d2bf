// SPDX-License-Identifier: Apache-2.0
#include "host/bench/data.hpp"

#include <fmt/format.h>
#include <omp.h>
#include <sys/mman.h>
#include <bragg/error.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include "host/base/dtype.hpp"
#include "host/base/team.hpp"
#include "host/bench/noise.hpp"

namespace bragg::bench {

namespace {

constexpr std::size_t huge_page = std::size_t{1} << 21;

/// Rows [first, end) of n, in chunks by all threads.
Buffer random_rows(int first, int end, int n, std::int64_t d, DType dtype) {
  Buffer buffer(static_cast<std::size_t>(end - first) * static_cast<std::size_t>(d) * size_of(dtype));
  detail::with_dtype(dtype, [&]<DType known>() {
    auto* const values = reinterpret_cast<Bits<known>*>(buffer.data());
    constexpr std::int64_t chunk = 65536;
    const std::int64_t chunks = (d + chunk - 1) / chunk;
#pragma omp parallel for collapse(2) schedule(static) num_threads(detail::team(omp_get_max_threads()))
    for (int i = first; i < end; ++i) {
      for (std::int64_t c = 0; c < chunks; ++c) {
        const float deviation = deviation_of(i, n);
        for (std::int64_t j = c * chunk; j < std::min((c + 1) * chunk, d); ++j) {
          values[(i - first) * d + j] =
              bits_of<known>(deviation * bell(static_cast<std::uint64_t>(i * d + j)));
        }
      }
    }
  });
  return buffer;
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
#pragma omp parallel for schedule(static) num_threads(detail::team(omp_get_max_threads()))
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

Buffer random_updates(int n, std::int64_t d, DType dtype) { return random_rows(0, n, n, d, dtype); }
Buffer random_row(int i, int n, std::int64_t d, DType dtype) { return random_rows(i, i + 1, n, d, dtype); }

Updates updates_at(const void* data, int n, std::span<const std::int64_t> sizes, DType dtype,
                   MemorySpace space) {
  if (sizes.size() == 1) return Updates::matrix(data, n, sizes[0], dtype, -1, space);
  const auto* at = static_cast<const unsigned char*>(data);
  std::vector<std::vector<const void*>> rows(static_cast<std::size_t>(n));
  for (std::vector<const void*>& row : rows) {
    for (const std::int64_t size : sizes) {
      row.push_back(at);
      at += static_cast<std::size_t>(size) * size_of(dtype);
    }
  }
  return Updates::tensors(rows, sizes, dtype, space);
}

Output output_at(void* data, std::span<const std::int64_t> sizes, DType dtype) {
  auto* at = static_cast<unsigned char*>(data);
  std::vector<void*> tensors;
  for (const std::int64_t size : sizes) {
    tensors.push_back(at);
    at += static_cast<std::size_t>(size) * size_of(dtype);
  }
  return Output(std::move(tensors));
}

}  // namespace bragg::bench
