// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/examples.hpp"

#include "kernels/runtime/runtime.hpp"
#include "kernels/solve/team.cuh"
#include "rules/solve/ranking.hpp"

namespace bragg::test {
namespace {

using detail::cuda::DeviceMemory;

BRAGG_KERNEL(70, 1) places(int* out) {
  const int block = simt::block_y() * simt::blocks() + simt::block();
  const int i = block * simt::threads() + simt::thread();
  out[i] = i * 10000 + simt::warp() * 100 + simt::lane();
}

BRAGG_KERNEL(64, 1) exchanges_of_warps(float* out) {
  const int t = simt::thread();
  float* const mine = out + t * exchanges;
  mine[0] = simt::shuffle_xor(static_cast<float>(t), 5);
  mine[1] = static_cast<float>(simt::popcount(simt::ballot(t % 2 != 0)));
  mine[2] = simt::any(t == 33) ? 1.0f : 0.0f;
  const bool first = simt::sync_threads_or(t == 3);
  const bool second = simt::sync_threads_or(false);
  mine[3] = (t < 32 ? first : second) ? 1.0f : 0.0f;
}

BRAGG_KERNEL(32, 1) product(const double* a, const double* b, double* c) {
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  double a_part[8];
  double b_part[4];
  double c_part[4];
  for (int i = 0; i < 4; ++i) {
    for (int h = 0; h < 2; ++h) a_part[2 * i + h] = a[(g + 8 * h) * 16 + t + 4 * i];
    b_part[i] = b[(t + 4 * i) * 8 + g];
  }
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 2; ++i) c_part[2 * h + i] = c[(g + 8 * h) * 8 + 2 * t + i];
  }
  simt::mma_16x8x16(c_part, a_part, b_part);
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 2; ++i) c[(g + 8 * h) * 8 + 2 * t + i] = c_part[2 * h + i];
  }
}

BRAGG_KERNEL(32, 1) product_of_bytes(const std::int8_t* a, const std::int8_t* b, int* c) {
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  std::uint32_t a_part[4] = {};
  std::uint32_t b_part[2] = {};
  int c_part[4];
  for (int half = 0; half < 2; ++half) {
    for (int e = 0; e < 4; ++e) {
      const int k = 16 * half + 4 * t + e;
      const auto put = [e](std::int8_t byte) {
        return static_cast<std::uint32_t>(static_cast<std::uint8_t>(byte)) << (8 * e);
      };
      for (int r = 0; r < 2; ++r) a_part[2 * half + r] |= put(a[(g + 8 * r) * 32 + k]);
      b_part[half] |= put(b[k * 8 + g]);
    }
  }
  for (int i = 0; i < 4; ++i) c_part[i] = c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
  simt::mma_16x8x32(c_part, a_part, b_part);
  for (int i = 0; i < 4; ++i) c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = c_part[i];
}

struct Counters {
  unsigned* narrow;          // added
  unsigned long long* wide;  // added, largest
};
BRAGG_KERNEL(1024, 1) count(BRAGG_GRID_CONSTANT Counters c) {
  const int t = simt::thread();
  const auto number = static_cast<unsigned long long>(t);
  simt::atomic_add(c.narrow, 1u);
  simt::atomic_add(&c.wide[0], 1ull << 40);
  simt::atomic_max(&c.wide[1], number << 40);
}

BRAGG_KERNEL(1024, 1) note_order(unsigned* next, int* out) {
  out[simt::atomic_add(next, 1u)] = simt::block() * simt::threads() + simt::thread();
}

template <class T>
DeviceMemory on_device(const std::vector<T>& host) {
  DeviceMemory memory(host.size() * sizeof(T));
  detail::cuda::copy_to_device(memory.data(), host.data(), memory.bytes(), nullptr);
  return memory;
}
template <class T>
std::vector<T> to_host(const DeviceMemory& memory) {
  std::vector<T> host(memory.bytes() / sizeof(T));
  detail::cuda::copy_to_host(host.data(), memory.data(), memory.bytes(), nullptr);
  return host;
}
template <class T>
T* data(const DeviceMemory& memory) {
  return static_cast<T*>(memory.data());
}

BRAGG_KERNEL(1024, 1) three_variables(int* out) {
  BRAGG_SHARED(int, first, [3]);
  BRAGG_SHARED(double, second, [2][5]);
  BRAGG_SHARED(unsigned char, third, [17]);
  first[0] = third[0] = 1;
  second[0][0] = 1;
  out[0] = first[0];
}

BRAGG_KERNEL(256, 1) least_of_block(const double* values, int n, int* out) {
  out[simt::thread()] = detail::cuda::BlockTeam{}.argmin(n, [&](int i) { return values[i]; });
}

BRAGG_KERNEL(256, 1) sort_of_block(const double* values, int n, double* keys, int* order, int* spare) {
  detail::sort(
      detail::cuda::BlockTeam{}, n, [&](int i) { return values[i]; }, keys, order, spare);
}

BRAGG_KERNEL(256, 1) collection_of_block(const double* values, int n, int* found) {
  const int count = detail::cuda::BlockTeam{}.collect(
      n, [&](int i) { return values[i] != 0; }, found);
  found[n + simt::thread()] = count;
}

}  // namespace

std::pair<const void*, std::size_t> kernel_of_three_variables() {
  return {reinterpret_cast<const void*>(&three_variables), 16 + 80 + 32};
}

std::vector<int> argmin_of_block(const std::vector<double>& values, int threads) {
  const DeviceMemory in = on_device(values);
  const DeviceMemory out(sizeof(int) * static_cast<std::size_t>(threads));
  simt::launch(least_of_block, 1, 1, threads, 0, nullptr, data<double>(in), static_cast<int>(values.size()),
               data<int>(out));
  return to_host<int>(out);
}

std::vector<int> sort_by_block(const std::vector<double>& values, int threads) {
  const DeviceMemory in = on_device(values);
  const DeviceMemory keys(sizeof(double) * values.size());
  const DeviceMemory order(sizeof(int) * values.size());
  const DeviceMemory spare(sizeof(int) * values.size());
  simt::launch(sort_of_block, 1, 1, threads, 0, nullptr, data<double>(in), static_cast<int>(values.size()),
               data<double>(keys), data<int>(order), data<int>(spare));
  return to_host<int>(order);
}

std::vector<int> collect_by_block(const std::vector<double>& values, int threads) {
  const DeviceMemory in = on_device(values);
  const DeviceMemory found = on_device(std::vector<int>(values.size() + static_cast<std::size_t>(threads)));
  simt::launch(collection_of_block, 1, 1, threads, 0, nullptr, data<double>(in),
               static_cast<int>(values.size()), data<int>(found));
  return to_host<int>(found);
}

void show_places(int blocks_x, int blocks_y, int threads, int* out) {
  simt::launch(places, blocks_x, blocks_y, threads, 0, nullptr, out);
}

void exchange_values(float* out) { simt::launch(exchanges_of_warps, 1, 1, 64, 0, nullptr, out); }

std::vector<double> multiply(const std::vector<double>& a, const std::vector<double>& b,
                             const std::vector<double>& c) {
  const DeviceMemory on[3] = {on_device(a), on_device(b), on_device(c)};
  simt::launch(product, 1, 1, 32, 0, nullptr, data<double>(on[0]), data<double>(on[1]), data<double>(on[2]));
  return to_host<double>(on[2]);
}

std::vector<int> multiply(const std::vector<std::int8_t>& a, const std::vector<std::int8_t>& b,
                          const std::vector<int>& c) {
  const DeviceMemory factors[2] = {on_device(a), on_device(b)};
  const DeviceMemory sums = on_device(c);
  simt::launch(product_of_bytes, 1, 1, 32, 0, nullptr, data<std::int8_t>(factors[0]),
               data<std::int8_t>(factors[1]), data<int>(sums));
  return to_host<int>(sums);
}

Counts count_with_atomics(int blocks, int threads) {
  const DeviceMemory narrow = on_device<unsigned>({0});
  const DeviceMemory wide = on_device<unsigned long long>({0, 0});
  simt::launch(count, blocks, 1, threads, 0, nullptr,
               Counters{data<unsigned>(narrow), data<unsigned long long>(wide)});
  const auto sums = to_host<unsigned long long>(wide);
  return {to_host<unsigned>(narrow)[0], sums[0], sums[1]};
}

std::vector<int> order_of_threads(int blocks, int threads) {
  const DeviceMemory next = on_device<unsigned>({0});
  const DeviceMemory out(sizeof(int) * static_cast<std::size_t>(blocks * threads));
  simt::launch(note_order, blocks, 1, threads, 0, nullptr, data<unsigned>(next), data<int>(out));
  return to_host<int>(out);
}

}  // namespace bragg::test

// Kernels are in this namespace.
namespace bragg::detail::cuda {
namespace {

float least(float a, float b) { return fminf(a, b); }
double least(double a, double b) { return fmin(a, b); }
float most(float a, float b) { return fmaxf(a, b); }
double most(double a, double b) { return fmax(a, b); }

}  // namespace
}  // namespace bragg::detail::cuda

namespace bragg::test {

float least_of(float a, float b) { return detail::cuda::least(a, b); }
double least_of(double a, double b) { return detail::cuda::least(a, b); }
float most_of(float a, float b) { return detail::cuda::most(a, b); }
double most_of(double a, double b) { return detail::cuda::most(a, b); }

}  // namespace bragg::test
