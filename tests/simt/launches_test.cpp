// SPDX-License-Identifier: Apache-2.0
// Number of launches per run: for a small model they take most of its time.
#include <gtest/gtest.h>
#include <bragg/bragg.hpp>

#include "kernels/gram/gram.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/simt/simt_executor.hpp"

namespace bragg::test {
namespace {

std::uint64_t launches_of(const char* text, int n, DType dtype, std::vector<std::int64_t> sizes) {
  std::size_t d = 0;
  for (const std::int64_t size : sizes) d += static_cast<std::size_t>(size);
  const DeviceArray<std::uint8_t> rows(
      std::vector<std::uint8_t>(static_cast<std::size_t>(n) * d * size_of(dtype)));
  const DeviceArray<std::uint8_t> out(std::vector<std::uint8_t>(d * size_of(dtype)));
  std::vector<std::vector<const void*>> tensors(static_cast<std::size_t>(n));
  std::vector<void*> outputs;
  std::size_t at = 0;
  std::size_t out_at = 0;
  for (const std::int64_t size : sizes) {
    for (auto& row : tensors) {
      row.push_back(rows.data() + at);
      at += static_cast<std::size_t>(size) * size_of(dtype);
    }
    outputs.push_back(out.data() + out_at);
    out_at += static_cast<std::size_t>(size) * size_of(dtype);
  }
  Options options;
  options.device = Device::cuda;
  if (sizes.size() > 1) options.scope = Scope::per_tensor;
  const detail::cuda::OwnStream stream;
  Plan plan(parse(text), {.n = n, .sizes = sizes, .dtype = dtype}, options);
  const std::uint64_t before = detail::simt::launches();
  plan.run(Updates::tensors(tensors, sizes, dtype, MemorySpace::cuda), Output(outputs), stream.get());
  const std::uint64_t made = detail::simt::launches() - before;
  EXPECT_EQ(plan.wait(stream.get()), Status::ok) << text;
  return made;
}

/// cuBLAS takes two kernels of ours, and calls of its own, where another choice takes one.
std::uint64_t launches_for_cublas() {
  return detail::cuda::wanted_gram_unit() == detail::cuda::GramUnit::cublas ? 1 : 0;
}

/// Bytes take one that finds medians, for what may be products about them.
std::uint64_t launches_for_medians() {
  using namespace detail::cuda;
  return unit_about_center(gram_unit(current_device(), 16)) == GramUnit::int8 ? 1 : 0;
}

TEST(Launches, AreAsFewAsTheDocumentationSays) {
  const std::uint64_t more = launches_for_cublas() + launches_for_medians();
  const auto of = [](const char* text) { return launches_of(text, 16, DType::f32, {100}); };
  EXPECT_EQ(of("median"), 2);  // upload, select
  EXPECT_EQ(of("trimmed_mean(f=3)"), 2);
  EXPECT_EQ(of("mean"), 3);              // upload, steps, combine
  EXPECT_EQ(of("cge(f=3)"), 5);          // upload, gram, its sums, steps, combine
  EXPECT_EQ(of("krum(f=3)"), 8 + more);  // and certify, gram, its sums
  EXPECT_EQ(of("geometric_median"), 8 + more);
  EXPECT_EQ(of("bulyan(f=3)"), 8 + more);
  EXPECT_EQ(of("centered_clipping(tau=2)"), 9 + launches_for_cublas());  // and the first previous output
  EXPECT_EQ(of("nnm(f=3) | trimmed_mean(f=3)"), 8 + more);
  EXPECT_EQ(of("nnm(f=3) | krum(f=3)"), 8 + more);
  EXPECT_EQ(of("clip(c=1) | bucketing(s=2) | nnm(f=1) | krum(f=1)"), 9 + more);  // two lists of steps
}

TEST(Launches, OfManyRowsOrPartsOrFloat64) {
  const std::uint64_t cublas = launches_for_cublas();
  const std::uint64_t more = cublas + launches_for_medians();
  const auto of = [](int n, DType dtype, std::vector<std::int64_t> sizes) {
    return launches_of("nnm(f=3) | krum(f=3)", n, dtype, std::move(sizes));
  };
  EXPECT_EQ(of(39, DType::f32, {100}), 8 + more);
  EXPECT_EQ(of(40, DType::f32, {100}), 11 + more);    // matrices over grids: steps, mix, gram, steps
  EXPECT_EQ(of(63, DType::f32, {100}), 12 + cublas);  // and medians, apart from products
  EXPECT_EQ(of(64, DType::f32, {100}),
            15 + cublas);  // and neighbours: steps, rank, steps, mix, gram, rank, steps
  EXPECT_EQ(of(16, DType::f32, {100, 30}), 10 + more);  // preparing and ending are launches of their own
  EXPECT_EQ(of(16, DType::f64, {100}), 11 + cublas);    // certify, gram, its sums twice
}

}  // namespace
}  // namespace bragg::test
