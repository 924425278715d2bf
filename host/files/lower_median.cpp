// SPDX-License-Identifier: Apache-2.0
#include "host/files/lower_median.hpp"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "host/base/team.hpp"
#include "rules/networks/order.hpp"

namespace bragg::detail {

namespace {

constexpr std::int64_t tile = 256;  // columns sorted side by side, in vector registers

template <class T>
void compare(const Comparator& c, T* values) {
  T* __restrict const low = values + c.low * tile;
  T* __restrict const high = values + c.high * tile;
  for (std::int64_t k = 0; k < tile; ++k) {
    const T least = std::min(low[k], high[k]);
    high[k] = std::max(low[k], high[k]);
    low[k] = least;
  }
}

template <class T, bool is_bool = false>
void run(std::span<const void* const> rows, std::int64_t count, std::byte* out, int threads) {
  const auto n = static_cast<std::int64_t>(rows.size());
  const auto middle = static_cast<int>((n - 1) / 2);
  const std::vector<Comparator> network = cpu::selection_network(static_cast<int>(n), middle, middle);
  // Made here: what is thrown in a parallel region ends the process.
  std::vector<T> all_values(static_cast<std::size_t>(threads) * static_cast<std::size_t>(n * tile));
#pragma omp parallel num_threads(team(threads))
  {
    T* const values = all_values.data() + omp_get_thread_num() * n * tile;
#pragma omp for
    for (std::int64_t begin = 0; begin < count; begin += tile) {
      const std::int64_t size = std::min(tile, count - begin);
      const auto bytes = static_cast<std::size_t>(size) * sizeof(T);
      for (std::int64_t i = 0; i < n; ++i) {
        T* const row = values + i * tile;
        std::memcpy(row, static_cast<const std::byte*>(rows[static_cast<std::size_t>(i)]) + begin * sizeof(T),
                    bytes);
        if constexpr (is_bool) {
          for (std::int64_t k = 0; k < size; ++k) row[k] = row[k] != 0;
        }
      }
      for (const Comparator& c : network) compare(c, values);
      std::memcpy(out + begin * sizeof(T), values + middle * tile, bytes);
    }
  }
}

}  // namespace

void lower_median(const ElementType& type, std::span<const void* const> rows, std::int64_t count, void* out,
                  int threads) {
  auto* const to = static_cast<std::byte*>(out);
  if (type.kind == ElementKind::boolean) return run<std::uint8_t, true>(rows, count, to, threads);
  const bool is_signed = type.kind == ElementKind::signed_integer;
  switch (type.bytes) {
    case 1:
      return is_signed ? run<std::int8_t>(rows, count, to, threads)
                       : run<std::uint8_t>(rows, count, to, threads);
    case 2:
      return is_signed ? run<std::int16_t>(rows, count, to, threads)
                       : run<std::uint16_t>(rows, count, to, threads);
    case 4:
      return is_signed ? run<std::int32_t>(rows, count, to, threads)
                       : run<std::uint32_t>(rows, count, to, threads);
    default:
      return is_signed ? run<std::int64_t>(rows, count, to, threads)
                       : run<std::uint64_t>(rows, count, to, threads);
  }
}

}  // namespace bragg::detail
