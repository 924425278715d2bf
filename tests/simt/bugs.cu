// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/bugs.hpp"

#include <numeric>
#include <utility>
#include <vector>

#include "kernels/common/simt.cuh"
#include "kernels/runtime/runtime.hpp"

namespace bragg::test {
namespace {

namespace simt = detail::simt;
using detail::cuda::DeviceMemory;

/// n floats 0, 1, 2, … on the device, and as many for results.
struct Buffers {
  explicit Buffers(int n) : input(bytes(n)), output(bytes(n)), host(static_cast<std::size_t>(n)) {
    std::iota(host.begin(), host.end(), 0.0f);
    detail::cuda::copy_to_device(input.data(), host.data(), bytes(n), nullptr);
  }
  static std::size_t bytes(int n) { return static_cast<std::size_t>(n) * sizeof(float); }

  float* in() const { return static_cast<float*>(input.data()); }
  float* out() const { return static_cast<float*>(output.data()); }
  /// Whether output[i] is expected(i).
  template <class F>
  bool holds(F expected) {
    detail::cuda::copy_to_host(host.data(), output.data(), host.size() * sizeof(float), nullptr);
    for (int i = 0; i < static_cast<int>(host.size()); ++i) {
      if (host[static_cast<std::size_t>(i)] != static_cast<float>(expected(i))) return false;
    }
    return true;
  }

  DeviceMemory input;
  DeviceMemory output;
  std::vector<float> host;
};

constexpr int n = 128;
constexpr int max_warps = n / 32;

template <class... ParametersT, class... ArgumentsT>
void launch(void (*kernel)(ParametersT...), int blocks, std::size_t shared, ArgumentsT... arguments) {
  simt::launch(kernel, blocks, 1, n, shared, nullptr, arguments...);
}

// Barriers of the block.

template <bool broken>
BRAGG_KERNEL(n, 1)
missing_barrier(const float* in, float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  tile[t] = in[t];
  if constexpr (!broken) simt::sync_threads();
  out[t] = tile[n - 1 - t];
}
bool run_missing_barrier(bool broken) {
  Buffers b(n);
  launch(broken ? missing_barrier<true> : missing_barrier<false>, 1, 0, b.in(), b.out());
  return b.holds([](int i) { return n - 1 - i; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
write_after_read(const float* in, float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  float sum = 0;
  for (int round = 0; round < 4; ++round) {
    tile[t] = in[t] + static_cast<float>(round);
    simt::sync_threads();
    // A meeting of the warp lets all threads read first, in most orders.
    sum += simt::shuffle_xor(tile[n - 1 - t], 0);
    if constexpr (!broken) simt::sync_threads();
  }
  out[t] = sum;
}
bool run_write_after_read(bool broken) {
  Buffers b(n);
  launch(broken ? write_after_read<true> : write_after_read<false>, 1, 0, b.in(), b.out());
  return b.holds([](int i) { return 4 * (n - 1 - i) + 6; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
divergent_barrier(float* out) {
  const int t = simt::thread();
  if (broken && t < 40) {
    simt::sync_threads();
  } else {
    simt::sync_threads();
  }
  out[t] = 1;
}
bool run_divergent_barrier(bool broken) {
  Buffers b(n);
  launch(broken ? divergent_barrier<true> : divergent_barrier<false>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
return_before_barrier(float* out) {
  const int t = simt::thread();
  out[t] = 1;
  if (broken && t >= 100) return;
  simt::sync_threads();
}
bool run_return_before_barrier(bool broken) {
  Buffers b(n);
  launch(broken ? return_before_barrier<true> : return_before_barrier<false>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

// Warps.

template <bool broken>
BRAGG_KERNEL(n, 1)
lock_step(const float* in, float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  tile[t] = in[t];
  if constexpr (!broken) simt::sync_warp();
  out[t] = tile[t ^ 1];
}
bool run_lock_step(bool broken) {
  Buffers b(n);
  launch(broken ? lock_step<true> : lock_step<false>, 1, 0, b.in(), b.out());
  return b.holds([](int i) { return i ^ 1; });
}

/// A shuffle makes lanes meet, but orders no memory.
template <bool broken>
BRAGG_KERNEL(n, 1)
shuffle_for_barrier(const float* in, float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  tile[t] = in[t];
  const float zero = simt::shuffle_xor(0.0f, 1);
  if constexpr (!broken) simt::sync_warp();
  out[t] = tile[t ^ 1] + zero;
}
bool run_shuffle_for_barrier(bool broken) {
  Buffers b(n);
  launch(broken ? shuffle_for_barrier<true> : shuffle_for_barrier<false>, 1, 0, b.in(), b.out());
  return b.holds([](int i) { return i ^ 1; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
sync_of_another_warp(const float* in, float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  tile[t] = in[t];
  simt::sync_warp();
  out[t] = tile[t ^ (broken ? 32 : 31)];
}
bool run_sync_of_another_warp(bool broken) {
  Buffers b(n);
  launch(broken ? sync_of_another_warp<true> : sync_of_another_warp<false>, 1, 0, b.in(), b.out());
  return b.holds([broken](int i) { return i ^ (broken ? 32 : 31); });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
exited_lanes(float* out) {
  const int t = simt::thread();
  out[t] = 0;
  if (broken && simt::lane() >= 16) return;
  out[t] = simt::shuffle_xor(static_cast<float>(simt::lane()), 1);
}
bool run_exited_lanes(bool broken) {
  Buffers b(n);
  launch(broken ? exited_lanes<true> : exited_lanes<false>, 1, 0, b.out());
  return b.holds([](int i) { return (i % 32) ^ 1; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
divergent_shuffle(float* out) {
  const int t = simt::thread();
  const auto value = static_cast<float>(simt::warp());
  if (broken && simt::lane() % 2 == 0) {
    out[t] = simt::shuffle_xor(value, 1);
  } else {
    out[t] = simt::shuffle_xor(value, 1);
  }
}
bool run_divergent_shuffle(bool broken) {
  Buffers b(n);
  launch(broken ? divergent_shuffle<true> : divergent_shuffle<false>, 1, 0, b.out());
  return b.holds([](int i) { return i / 32; });
}

BRAGG_KERNEL(n, 1) any_lane(float* out) { out[simt::thread()] = simt::any(true) ? 1.0f : 0.0f; }
bool run_absent_lanes(bool broken) {
  Buffers b(n);
  simt::launch(any_lane, 1, 1, broken ? 40 : n, 0, nullptr, b.out());
  return b.holds([](int) { return 1; });
}

/// Lanes of a warp know what the others read; those of other warps do not.
template <bool broken>
BRAGG_KERNEL(n, 1)
write_after_reads(float* out) {
  BRAGG_SHARED(float, tile, [max_warps]);
  const int t = simt::thread();
  if (t < max_warps) tile[t] = 1;
  simt::sync_threads();
  const int place = broken ? 0 : simt::warp();
  out[t] = tile[place];
  simt::sync_warp();
  if (t % (broken ? n : 32) == 7) tile[place] = 2;
}
bool run_write_after_reads(bool broken) {
  Buffers b(n);
  launch(broken ? write_after_reads<true> : write_after_reads<false>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

// Bounds, alignment, values nobody wrote.

template <bool broken>
BRAGG_KERNEL(n, 1)
write_past_global(float* out) {
  const int t = simt::thread();
  out[broken ? t + 1 : t] = 1;
  if (broken && t == 0) out[0] = 1;
}
bool run_write_past_global(bool broken) {
  Buffers b(n);
  launch(broken ? write_past_global<true> : write_past_global<false>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
read_past_global(const float* in, float* out) {
  const int t = simt::thread();
  const float next = in[broken || t < n - 1 ? t + 1 : t];
  out[t] = next < 0 ? 1.0f : 0.0f;
}
bool run_read_past_global(bool broken) {
  Buffers b(n);
  launch(broken ? read_past_global<true> : read_past_global<false>, 1, 0, b.in(), b.out());
  return b.holds([](int) { return 0; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
write_past_shared(float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  float* const p = tile;
  p[broken ? t + 1 : t] = 1;
  out[t] = 1;
}
bool run_write_past_shared(bool broken) {
  Buffers b(n);
  launch(broken ? write_past_shared<true> : write_past_shared<false>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
write_past_dynamic(float* out) {
  simt::DynamicShared shared;
  auto* const first = shared.take<float>(n);
  auto* const second = shared.take<float>(n);
  const int t = simt::thread();
  first[broken ? t + 1 : t] = 1;
  second[t] = 2;
  simt::sync_threads();
  out[t] = second[t];
}
bool run_write_past_dynamic(bool broken) {
  Buffers b(n);
  launch(broken ? write_past_dynamic<true> : write_past_dynamic<false>, 1, 2 * simt::shared_bytes<float>(n),
         b.out());
  return b.holds([](int) { return 2; });
}

/// fminf swallows the NaN that uninitialised memory is filled with.
template <bool broken>
BRAGG_KERNEL(n, 1)
uninitialised_shared(const float* in, float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  if (!broken || t != 77) tile[t] = 1e30f;
  simt::sync_threads();
  out[t] = fminf(tile[t], in[t]);
}
bool run_uninitialised_shared(bool broken) {
  Buffers b(n);
  launch(broken ? uninitialised_shared<true> : uninitialised_shared<false>, 1, 0, b.in(), b.out());
  return b.holds([](int i) { return i; });
}

BRAGG_KERNEL(n, 1) least(const float* in, const float* more, float* out) {
  const int t = simt::thread();
  out[t] = fminf(in[t], more[t]);
}
bool run_uninitialised_global(bool broken) {
  Buffers b(n);
  const DeviceMemory more(Buffers::bytes(n));
  detail::cuda::set_bytes(more.data(), 0x7E, Buffers::bytes(broken ? n - 1 : n), nullptr);
  launch(least, 1, 0, b.in(), static_cast<const float*>(more.data()), b.out());
  return b.holds([](int i) { return i; });
}

bool run_host_memory(bool broken) {
  Buffers b(n);
  const std::vector<float> on_host(n, 1e30f);
  DeviceMemory on_device(Buffers::bytes(n));
  detail::cuda::copy_to_device(on_device.data(), on_host.data(), Buffers::bytes(n), nullptr);
  launch(least, 1, 0, b.in(), broken ? on_host.data() : static_cast<const float*>(on_device.data()), b.out());
  return b.holds([](int i) { return i; });
}

bool run_released_memory(bool broken) {
  Buffers b(n);
  const std::vector<float> large(n, 1e30f);
  DeviceMemory more(Buffers::bytes(n));
  detail::cuda::copy_to_device(more.data(), large.data(), Buffers::bytes(n), nullptr);
  const auto* const p = static_cast<const float*>(more.data());
  if (broken) more = DeviceMemory();
  const DeviceMemory released = std::move(more);
  launch(least, 1, 0, b.in(), p, b.out());
  return b.holds([](int i) { return i; });
}

BRAGG_KERNEL(n, 1) load_vector(const float* in, float* out) {
  const int t = simt::thread();
  out[t] = simt::float_of(simt::load16(in + 4 * t).x);
}
bool run_misaligned_vector(bool broken) {
  Buffers b(4 * n + 4);
  launch(load_vector, 1, 0, b.in() + (broken ? 1 : 4), b.out());
  b.host.resize(n);
  return b.holds([](int i) { return 4 * i + 4; });
}

BRAGG_KERNEL(n, 1) load_plain(const unsigned char* in, float* out) {
  const int t = simt::thread();
  out[t] = *reinterpret_cast<const float*>(in + 4 * t) < 1e30f ? 1.0f : 0.0f;
}
bool run_misaligned_scalar(bool broken) {
  Buffers b(2 * n);
  launch(load_plain, 1, 0, static_cast<const unsigned char*>(b.input.data()) + (broken ? 2 : 0), b.out());
  b.host.resize(n);
  return b.holds([](int) { return 1; });
}

BRAGG_KERNEL(n, 1) prefetch(const float* in, int byte, float* out) {
  if (simt::thread() == 0) simt::prefetch_l2(reinterpret_cast<const unsigned char*>(in) + byte);
  out[simt::thread()] = in[simt::thread()];
}
bool run_prefetch_past_global(bool broken) {
  Buffers b(n);
  launch(prefetch, 1, 0, b.in(), static_cast<int>(Buffers::bytes(n)) - (broken ? 0 : 1), b.out());
  return b.holds([](int i) { return i; });
}
BRAGG_KERNEL(n, 1) prefetch_shared(const float* in, bool broken, float* out) {
  BRAGG_SHARED(float, tile, [n]);
  const int t = simt::thread();
  tile[t] = in[t];
  simt::prefetch_l2(broken ? tile + t : in + t);
  out[t] = tile[t];
}
bool run_prefetch_of_shared(bool broken) {
  Buffers b(n);
  launch(prefetch_shared, 1, 0, b.in(), broken, b.out());
  return b.holds([](int i) { return i; });
}

// Atomics, blocks.

template <bool broken>
BRAGG_KERNEL(n, 1)
plain_read_of_atomic(float* out) {
  BRAGG_SHARED(unsigned, count, );
  const int t = simt::thread();
  if (t == 0) count = 0;
  simt::sync_threads();
  simt::atomic_add(&count, 1u);
  if constexpr (!broken) simt::sync_threads();
  out[t] = count > 0 ? 1.0f : 0.0f;
}
bool run_plain_read_of_atomic(bool broken) {
  Buffers b(n);
  launch(broken ? plain_read_of_atomic<true> : plain_read_of_atomic<false>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
two_blocks_write(float* out) {
  const int t = simt::thread();
  out[broken ? t : simt::block() * n + t] = 1;
}
bool run_two_blocks_write(bool broken) {
  Buffers b(2 * n);
  launch(broken ? two_blocks_write<true> : two_blocks_write<false>, 2, 0, b.out());
  b.host.resize(n);
  return b.holds([](int) { return 1; });
}

// Launches.

template <int bound>
BRAGG_KERNEL(bound, 1)
bounded(float* out) {
  out[simt::thread()] = 1;
}
bool run_too_many_threads(bool broken) {
  Buffers b(n);
  launch(broken ? bounded<n - 1> : bounded<n>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

void no_kernel(float* out) { out[simt::thread()] = 1; }
bool run_no_kernel(bool broken) {
  Buffers b(n);
  launch(broken ? no_kernel : bounded<n>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}

template <int floats>
BRAGG_KERNEL(n, 1)
static_shared(float* out) {
  BRAGG_SHARED(float, tile, [floats]);
  tile[simt::thread()] = 1;
  out[simt::thread()] = tile[simt::thread()];
}
bool run_too_much_static(bool broken) {
  Buffers b(n);
  launch(broken ? static_shared<12 * 1024 + 1> : static_shared<12 * 1024>, 1, 0, b.out());
  return b.holds([](int) { return 1; });
}
bool run_too_much_dynamic(bool broken) {
  Buffers b(n);
  launch(bounded<n>, 1, simt::device_profile().shared_of_block + (broken ? 1 : 0), b.out());
  return b.holds([](int) { return 1; });
}
bool run_too_much_together(bool broken) {
  Buffers b(n);
  launch(static_shared<n>, 1, simt::device_profile().shared_of_block - 4 * n + (broken ? 1 : 0), b.out());
  return b.holds([](int) { return 1; });
}

/// As simt::launch, but what would make the kernel ready is left out.
void launch_unready(void (*kernel)(float*), std::size_t shared, float* out) {
  std::pair call(kernel, out);
  simt::run(
      {.kernel = reinterpret_cast<const void*>(kernel),
       .blocks_x = 1,
       .blocks_y = 1,
       .threads = n,
       .shared = shared},
      [](void* p) {
        const auto& c = *static_cast<decltype(call)*>(p);
        c.first(c.second);
      },
      &call);
}
/// 48 KB less what it declares is what a kernel has without asking.
bool run_dynamic_without_leave(bool broken) {
  Buffers b(n);
  launch_unready(static_shared<n + 4>, (std::size_t{48} << 10) - 4 * (n + 4) + (broken ? 1 : 0), b.out());
  return b.holds([](int) { return 1; });
}
/// What another thread's launch of the same kernel leaves behind, if each asks for what it needs itself.
bool run_lowered_leave(bool broken) {
  Buffers b(n);
  const auto kernel = static_shared<n + 8>;
  constexpr std::size_t wanted = std::size_t{60} << 10;
  launch(kernel, 1, wanted, b.out());
  detail::cuda::set_most_dynamic_shared(reinterpret_cast<const void*>(kernel), wanted - (broken ? 1 : 0));
  launch(kernel, 1, wanted, b.out());
  return b.holds([](int) { return 1; });
}
bool run_leave_beyond_device(bool broken) {
  Buffers b(n);
  const auto kernel = static_shared<n + 12>;
  const std::size_t most = simt::device_profile().shared_of_block - 4 * (n + 12);
  detail::cuda::set_most_dynamic_shared(reinterpret_cast<const void*>(kernel), most + (broken ? 1 : 0));
  launch(kernel, 1, most, b.out());
  return b.holds([](int) { return 1; });
}

/// A function that the kernel calls declares shared memory too: nobody knows before it runs.
void declare_more(float* out) {
  BRAGG_SHARED(float, more, [n]);
  more[simt::thread()] = 1;
  out[simt::thread()] = more[simt::thread()];
}
BRAGG_KERNEL(n, 1) declares_by_the_way(float* out) { declare_more(out); }
bool run_declared_by_the_way(bool broken) {
  Buffers b(n);
  launch(declares_by_the_way, 1, simt::device_profile().shared_of_block - (broken ? n : 4 * n), b.out());
  return b.holds([](int) { return 1; });
}

BRAGG_KERNEL(n, 1) takes(float* out) {
  simt::DynamicShared shared;
  shared.take<float>(3);
  if (simt::thread() == 0) shared.take<float>(4)[0] = 1;
  out[simt::thread()] = 1;
}
bool run_take_past_launch(bool broken) {
  Buffers b(n);
  launch(takes, 1, broken ? 31 : 32, b.out());
  return b.holds([](int) { return 1; });
}

template <bool broken>
BRAGG_KERNEL(n, 1)
different_takes(float* out) {
  simt::DynamicShared shared;
  const int t = simt::thread();
  out[t] = shared.take<float>(broken ? t + 1 : n) != nullptr ? 1.0f : 0.0f;
}
bool run_different_takes(bool broken) {
  Buffers b(n);
  launch(broken ? different_takes<true> : different_takes<false>, 1, simt::shared_bytes<float>(n), b.out());
  return b.holds([](int) { return 1; });
}

// Kernels that are set up while the one before still runs.

enum class Synced { first, late, never };

template <Synced when>
BRAGG_KERNEL(n, 1)
dependent(const float* in, float* out) {
  if constexpr (when == Synced::first) simt::grid_dependency_sync();
  const int t = simt::thread();
  if (when == Synced::never && t == 0) return;
  if constexpr (when == Synced::never) simt::grid_dependency_sync();
  if (t % 4 == 0) simt::store16(out + t, simt::load16(in + t));
  if constexpr (when == Synced::late) simt::grid_dependency_sync();
}
template <Synced when>
bool run_dependent(bool broken) {
  Buffers b(n);
  simt::launch_dependent(broken ? dependent<when> : dependent<Synced::first>, 1, 1, n, 0, nullptr, b.in(),
                         b.out());
  return b.holds([](int i) { return i; });
}

// What the host fetches.

bool run_copy_of_unwritten(bool broken) {
  Buffers b(n);
  detail::cuda::set_bytes(b.out(), 0, Buffers::bytes(n) - (broken ? 1 : 0), nullptr);
  return b.holds([](int) { return 0; });
}

constexpr Bug all_bugs[] = {
    {"missing_barrier", run_missing_barrier, shadow, "of shared tile", any_order},
    {"write_after_read", run_write_after_read, shadow, "race with thread", random | greedy},
    {"divergent_barrier", run_divergent_barrier, every_build, "barrier is divergent"},
    {"return_before_barrier", run_return_before_barrier, every_build, "28 threads exited"},
    {"lock_step", run_lock_step, shadow, "", any_order},
    {"shuffle_for_barrier", run_shuffle_for_barrier, shadow, "race with thread"},
    {"sync_of_another_warp", run_sync_of_another_warp, shadow, "", random | greedy},
    {"exited_lanes", run_exited_lanes, every_build, "exited"},
    {"absent_lanes", run_absent_lanes, every_build, "exited or never were"},
    {"write_after_reads", run_write_after_reads, shadow, "race with", random | greedy},
    {"divergent_shuffle", run_divergent_shuffle, every_build, "warp is divergent"},
    {"write_past_global", run_write_past_global, shadow | red_zones | address_build,
     "0 bytes behind the end of"},
    {"read_past_global", run_read_past_global, shadow | address_build, "0 bytes behind the end of"},
    {"write_past_shared", run_write_past_shared, shadow | red_zones | address_build,
     "behind the end of shared tile"},
    {"write_past_dynamic", run_write_past_dynamic, shadow | red_zones | address_build,
     "behind the end of shared dynamic memory"},
    {"uninitialised_shared", run_uninitialised_shared, shadow,
     "uninitialised: reads byte 308 of shared tile"},
    {"uninitialised_global", run_uninitialised_global, shadow, "uninitialised: reads byte 508 of"},
    {"host_memory", run_host_memory, shadow, "not device memory: reads memory of the host"},
    {"released_memory", run_released_memory, shadow | address_build, "out of bounds: reads"},
    {"misaligned_vector", run_misaligned_vector, every_build, "no multiple of 16"},
    {"misaligned_scalar", run_misaligned_scalar, shadow | undefined_build, "no multiple of 4"},
    {"prefetch_past_global", run_prefetch_past_global, every_build, "past the end of an allocation"},
    {"prefetch_of_shared", run_prefetch_of_shared, every_build, "what is not global memory"},
    {"plain_read_of_atomic", run_plain_read_of_atomic, shadow, "race with"},
    {"two_blocks_write", run_two_blocks_write, shadow, "of another block"},
    {"too_many_threads", run_too_many_threads, every_build, "the kernel's bound is 127"},
    {"no_kernel", run_no_kernel, every_build, "no BRAGG_KERNEL"},
    {"too_much_static", run_too_much_static, every_build, "more than 48 KB with tile"},
    {"too_much_dynamic", run_too_much_dynamic, every_build, "it was allowed"},
    {"too_much_together", run_too_much_together, every_build, "beside the 512 that it declares"},
    {"dynamic_without_leave", run_dynamic_without_leave, every_build, "it was allowed 49152 in all"},
    {"lowered_leave", run_lowered_leave, every_build, "it was allowed 61983 in all"},
    {"leave_beyond_device", run_leave_beyond_device, every_build, "is to be allowed"},
    {"declared_by_the_way", run_declared_by_the_way, every_build, "that the kernel was allowed"},
    {"take_past_launch", run_take_past_launch, every_build, "to byte 32 of the launch's 31"},
    {"different_takes", run_different_takes, every_build, "where another take was of"},
    {"late_dependency_sync", run_dependent<Synced::late>, every_build, "before grid_dependency_sync"},
    {"copy_of_unwritten", run_copy_of_unwritten, shadow,
     "copy to the host of what nothing has written: byte 511 of"},
    {"no_dependency_sync", run_dependent<Synced::never>, every_build, "exits without grid_dependency_sync"},
};

}  // namespace

std::span<const Bug> bugs() { return all_bugs; }

}  // namespace bragg::test
