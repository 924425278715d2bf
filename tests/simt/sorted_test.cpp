// SPDX-License-Identifier: Apache-2.0
// What bench/gpu/variants.cu holds outputs of select against, but for the sort, which is std::sort here.
#include "bench/gpu/sorted.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/select/select.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::SelectRule;
using detail::cuda::SortedRows;
using Kind = SelectRule::Kind;
using Bytes = std::vector<std::uint8_t>;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr long double wide_infinity = infinity;

/// Rows whose means the kernels add up in order: those that a network takes.
constexpr int most_in_order(DType dtype) {
#if defined(BRAGG_FEWER_NETWORKS)
  constexpr int most = 32;
#else
  constexpr int most = 128;
#endif
  return dtype == DType::f64 ? std::min(most, 64) : most;
}

/// Rows that lie one behind the other: of each coordinate normal numbers, the same one, few different ones
/// with zeros of both signs, the ends of the format, or any bits.
Bytes draw_rows(Generator& random, int n, std::int64_t d, DType dtype) {
  Bytes bytes(static_cast<std::size_t>(n * d) * size_of(dtype));
  const long double most = largest(dtype);
  const std::array ends{-wide_infinity, -most, most / 4 * 3, most, wide_infinity, std::nanl("")};
  const std::array few{-1.0L, -0.0L, 0.0L, 3.0L};
  std::normal_distribution<double> normal(0, 1);
  for (std::int64_t c = 0; c < d; ++c) {
    const auto kind = random() % 5;
    const double same = normal(random);
    for (int i = 0; i < n; ++i) {
      const auto k = static_cast<std::size_t>(i * d + c);
      const std::uint64_t bits = random();
      if (kind == 4) {
        std::memcpy(bytes.data() + k * size_of(dtype), &bits, size_of(dtype));
      } else {
        store(dtype, bytes.data(), k,
              kind == 0   ? normal(random)
              : kind == 1 ? same
              : kind == 2 ? few[bits % few.size()]
                          : ends[bits % ends.size()]);
      }
    }
  }
  return bytes;
}

template <class KeyT>
void sort_segments(std::vector<KeyT>& keys, int n) {
  for (auto at = keys.begin(); at != keys.end(); at += n) std::sort(at, at + n);
}

/// Sorts on the host: in place, or to the other buffer, and leaves nothing of use in the one that it names
/// not.
class HostSort {
 public:
  HostSort(int n, DType dtype, bool in_place) : n_(n), dtype_(dtype), in_place_(in_place) {}

  void* operator()(void* keys, void* other, std::int64_t segments) {
    if (dtype_ == DType::f64) return sort<std::uint64_t>(keys, other, segments);
    if (dtype_ == DType::f32) return sort<std::uint32_t>(keys, other, segments);
    return sort<std::uint16_t>(keys, other, segments);
  }
  std::vector<std::int64_t> calls;  ///< segments of each

 private:
  template <class KeyT>
  void* sort(void* keys, void* other, std::int64_t segments) {
    calls.push_back(segments);
    std::vector<KeyT> values(static_cast<std::size_t>(segments * n_));
    const std::size_t bytes = values.size() * sizeof(KeyT);
    detail::cuda::copy_to_host(values.data(), keys, bytes, nullptr);
    sort_segments(values, n_);
    detail::cuda::set_bytes(in_place_ ? other : keys, 0xA5, bytes, nullptr);
    detail::cuda::copy_to_device(in_place_ ? keys : other, values.data(), bytes, nullptr);
    return in_place_ ? keys : other;
  }

  int n_;
  DType dtype_;
  bool in_place_;
};

/// By the definition: values in order, NaN as +inf, sums in f64, ascending.
long double answer_of(const SelectRule& rule, std::vector<double> values) {
  for (double& v : values) v = std::isnan(v) ? infinity : v;
  std::sort(values.begin(), values.end());
  const auto n = static_cast<int>(values.size());
  const auto at = [&](int rank) { return values[static_cast<std::size_t>(rank)]; };
  if (rule.kind == Kind::median) {
    const double low = at((n - 1) / 2);
    const double high = at(n / 2);
    return std::isinf(low) ? low : std::isinf(high) ? high : std::midpoint(low, high);
  }
  const double low = at(rule.f);
  const double high = at(n - rule.f - 1);
  if (std::isinf(low) || std::isinf(high)) return std::isinf(low) ? low : high;
  const double scale = std::max(std::fabs(low), std::fabs(high)) >= 0x1p1000 ? 0x1p-64 : 1;
  double sum = 0;
  for (int rank = rule.f; rank < n - rule.f; ++rank) sum += at(rank) * scale;
  return std::clamp(sum / (n - 2 * rule.f) / scale, low, high);
}

Bytes by_sorting(const DeviceArray<std::uint8_t>& rows, int n, std::int64_t d, DType dtype,
                 const SelectRule& rule, std::size_t most_bytes, HostSort& sort) {
  const DeviceArray<std::uint8_t> out(Bytes(static_cast<std::size_t>(d) * size_of(dtype), 0xFF));
  const SortedRows sorted(rows.data(), n, d, dtype, most_bytes);
  EXPECT_EQ(sorted.key_bytes(), size_of(dtype));
  sorted.select(rule, out.data(), nullptr, [&](void* keys, void* other, std::int64_t segments) {
    EXPECT_LE(segments, sorted.batch());
    return sort(keys, other, segments);
  });
  return out.values();
}

/// By the kernels that a plan runs.
Bytes by_selection(const DeviceArray<std::uint8_t>& rows, int n, std::int64_t d, DType dtype,
                   const SelectRule& rule) {
  std::vector<const void*> addresses;
  for (int i = 0; i < n; ++i) {
    addresses.push_back(rows.data() + static_cast<std::size_t>(i * d) * size_of(dtype));
  }
  const DeviceArray<std::uint8_t> out(Bytes(static_cast<std::size_t>(d) * size_of(dtype), 0xFF));
  const DeviceArray<const void*> table(addresses);
  const DeviceArray<std::int64_t> sizes(std::vector<std::int64_t>{d});
  const DeviceArray<std::uint8_t> alignment(
      std::vector<std::uint8_t>{static_cast<std::uint8_t>(detail::cuda::Alignment::element)});
  const DeviceArray<void*> target(std::vector<void*>{out.data()});
  constexpr std::int64_t length = detail::cuda::tile_length;
  detail::cuda::SelectArguments arguments{
      .rows = {.data = table.data(),
               .sizes = sizes.data(),
               .alignment = alignment.data(),
               .tensors = 1,
               .count = n,
               .inputs = n,
               .dtype = dtype},
      .tiles = {.tensors = 1, .pieces = (d + length - 1) / length, .length = length},
      .parts = {},
      .out = {.data = target.data(), .dtype = dtype},
      .gate = {},
      .rule = rule,
      .points = n};
  const detail::cuda::DeviceMemory workspace(detail::cuda::select_workspace_bytes(arguments));
  arguments.workspace = workspace.data();
  detail::cuda::select(arguments, nullptr);
  return out.values();
}

TEST(Sorted, RanksAreThoseOfTheDefinitionAndOfTheKernels) {
  Generator random = generator("ranks by sorting");
  for (const int n : {1, 2, 3, 8, 16, 31, 64, 128, 129, 300}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
      const std::int64_t d = 1 + static_cast<std::int64_t>(random() % (n > 100 ? 200 : 1200));
      const Bytes bytes = draw_rows(random, n, d, dtype);
      const DeviceArray<std::uint8_t> rows(bytes);
      const int most = (n - 1) / 2;
      for (const SelectRule& rule : {SelectRule{.kind = Kind::median}, SelectRule{.kind = Kind::trimmed_mean},
                                     SelectRule{.kind = Kind::trimmed_mean, .f = n / 5},
                                     SelectRule{.kind = Kind::trimmed_mean, .f = most}}) {
        SCOPED_TRACE(testing::Message() << "n = " << n << ", d = " << d << ", " << to_string(dtype)
                                        << ", rule " << static_cast<int>(rule.kind) << ", f = " << rule.f);
        // A batch, or several, of which the last may be shorter.
        const std::int64_t batch =
            1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(2 * d));
        const auto most_bytes =
            static_cast<std::size_t>(batch * n) * size_of(dtype) + random() % size_of(dtype);
        HostSort sort(n, dtype, random() % 2 == 0);
        const Bytes found = by_sorting(rows, n, d, dtype, rule, most_bytes, sort);
        EXPECT_EQ(sort.calls.size(), static_cast<std::size_t>((d + batch - 1) / batch));
        EXPECT_EQ(std::accumulate(sort.calls.begin(), sort.calls.end(), std::int64_t{0}), d);

        Bytes expected(found.size());
        for (std::int64_t c = 0; c < d; ++c) {
          std::vector<double> values;
          for (int i = 0; i < n; ++i) {
            values.push_back(
                static_cast<double>(load(dtype, bytes.data(), static_cast<std::size_t>(i * d + c))));
          }
          store(dtype, expected.data(), static_cast<std::size_t>(c),
                round_to(dtype, answer_of(rule, values)) + 0.0L);
        }
        ASSERT_EQ(found, expected);
        if (rule.kind == Kind::median || n <= most_in_order(dtype)) {
          ASSERT_EQ(found, by_selection(rows, n, d, dtype, rule));
        }
      }
    }
  }
}

TEST(Sorted, ABatchHasAtLeastOneCoordinateAndNoMoreThanThereAre) {
  const DeviceArray<std::uint8_t> rows(Bytes(4 * 3 * 10));
  EXPECT_EQ(SortedRows(rows.data(), 3, 10, DType::f32, 0).batch(), 1);
  EXPECT_EQ(SortedRows(rows.data(), 3, 10, DType::f32, 4 * 3 * 4 + 11).batch(), 4);
  EXPECT_EQ(SortedRows(rows.data(), 3, 10, DType::f32, std::size_t{1} << 40).batch(), 10);
}

}  // namespace
}  // namespace bragg::test
