// SPDX-License-Identifier: Apache-2.0
// Kernels that show what the executor computes.
#pragma once

#include <utility>
#include <vector>

#include "kernels/common/simt.cuh"

namespace bragg::test {

namespace simt = detail::simt;

/// out[linear number of the thread] = that number · 10000 + warp · 100 + lane.
void show_places(int blocks_x, int blocks_y, int threads, int* out);

/// 64 threads; out[thread * exchanges + i].
inline constexpr int exchanges = 4;
void exchange_values(float* out);

/// c + a·b by one warp: a 16 × 16, b 16 × 8, c 16 × 8, rows one after the other.
std::vector<double> multiply(const std::vector<double>& a, const std::vector<double>& b,
                             const std::vector<double>& c);

/// The same of bytes: a 16 × 32, b 32 × 8.
std::vector<int> multiply(const std::vector<std::int8_t>& a, const std::vector<std::int8_t>& b,
                          const std::vector<int>& c);

struct Counts {
  unsigned added;
  unsigned long long added_long;
  unsigned long long largest;
};
Counts count_with_atomics(int blocks, int threads);

/// The threads of the grid in the order in which they pass a point.
std::vector<int> order_of_threads(int blocks, int threads);

/// A kernel, and how much shared memory it declares.
std::pair<const void*, std::size_t> kernel_of_three_variables();

/// What each thread of a block finds as the least value's index.
std::vector<int> argmin_of_block(const std::vector<double>& values, int threads);

/// The indices of values, ascending by (value, index), as a block sorts them; NaN counts as +inf.
std::vector<int> sort_by_block(const std::vector<double>& values, int threads);

/// Those whose value is not 0, as a block collects them; then how many each thread found.
std::vector<int> collect_by_block(const std::vector<double>& values, int threads);

/// fmin, fmax and their like as kernels call them.
float least_of(float a, float b);
double least_of(double a, double b);
float most_of(float a, float b);
double most_of(double a, double b);

}  // namespace bragg::test
