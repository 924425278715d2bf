// SPDX-License-Identifier: Apache-2.0
// Runs kernels on the CPU: the same vocabulary as kernels/common/simt.cuh, for tests only. See README.md.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <span>
#include <stdexcept>
#include <tuple>
#include <type_traits>

#include "kernels/runtime/launch.hpp"
#include "kernels/runtime/stream.hpp"

// CUDA's vector types, as far as kernels name them.
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
/// The bound is compiled in as bytes before the kernel's first instruction, where `launch` finds it: an
/// attribute takes constants that depend on template parameters, and keeps the function's type.
#define BRAGG_KERNEL(max_threads, min_blocks) \
  __attribute__((noinline, patchable_function_entry((max_threads), (max_threads)))) void
#define BRAGG_DEVICE inline
#define BRAGG_DEVICE_REGISTERS __attribute__((no_sanitize("address", "thread", "undefined"))) inline
#define BRAGG_GRID_CONSTANT const
#define BRAGG_SHARED(type, name, dims)                                                            \
  using name##_shared_type = type dims;                                                           \
  static constinit ::bragg::detail::simt::StaticShared name##_shared{sizeof(name##_shared_type)}; \
  name##_shared_type& name =                                                                      \
      *static_cast<name##_shared_type*>(::bragg::detail::simt::static_shared(name##_shared, #name))
#define BRAGG_UNROLL
#define BRAGG_ROLLED

/// The executor's own accesses are not a kernel's: what a kernel does through them is checked by name.
#define BRAGG_SIMT_UNCHECKED __attribute__((no_sanitize("thread")))

namespace bragg::detail::simt {

using Stream = cuda::Stream;
using Site = std::source_location;

/// In which order threads run between the points where they meet.
enum class Order {
  forward,  ///< lowest first
  reverse,  ///< highest first
  random,   ///< any
  greedy,   ///< one warp as far as it can go, then the next; warps in random order
};

struct Schedule {
  Order order = Order::random;
  std::uint64_t seed = 1;
};
/// From BRAGG_SIMT_ORDER and BRAGG_SIMT_SEED until a test sets another.
Schedule schedule();
void set_schedule(const Schedule& schedule);

/// A kernel broke a rule. The message says which, where, and who.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Whether this executor sees every memory access of a kernel: that with hooks.
extern const bool hooks;

/// The thread that runs and its place in the grid.
struct Coordinates {
  int thread = 0;
  int lane = 0;
  int warp = 0;
  int block = 0;
  int block_y = 0;
  int threads = 0;
  int blocks = 0;
};
/// Null outside of kernels.
extern constinit thread_local const Coordinates* self;

BRAGG_SIMT_UNCHECKED inline int thread() { return self->thread; }
BRAGG_SIMT_UNCHECKED inline int block() { return self->block; }
BRAGG_SIMT_UNCHECKED inline int block_y() { return self->block_y; }
BRAGG_SIMT_UNCHECKED inline int threads() { return self->threads; }
BRAGG_SIMT_UNCHECKED inline int blocks() { return self->blocks; }
BRAGG_SIMT_UNCHECKED inline int opaque(int x) { return x; }
BRAGG_SIMT_UNCHECKED inline int lane() { return self->lane; }
BRAGG_SIMT_UNCHECKED inline int warp() { return self->warp; }

// Meeting points.

void sync_threads(Site site = Site::current());
/// Launches wait for each other here, but a kernel that `launch_dependent` started is held to it.
void grid_dependency_sync();
bool sync_threads_or(bool p, Site site = Site::current());
void sync_warp(Site site = Site::current());

/// What the last lane of a warp to arrive does for all: in[lane] and out[lane].
using Exchange = void (*)(const void* const* in, void* const* out);
/// Every lane of the warp takes part, at the same place.
void exchange(const void* in, void* out, Exchange complete, Site site);
/// Lane k gets the bytes of its lane `source`.
void shuffle_bytes(int source, const void* in, void* out, std::size_t bytes, Site site);

template <class T>
BRAGG_SIMT_UNCHECKED T shuffle_xor(T v, int lanes, Site site = Site::current()) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "what __shfl_xor_sync takes");
  T out;
  shuffle_bytes((self->lane ^ lanes) & 31, &v, &out, sizeof(T), site);
  return out;
}
unsigned ballot(bool p, Site site = Site::current());
inline bool any(bool p, Site site = Site::current()) { return ballot(p, site) != 0; }
inline int popcount(unsigned bits) { return __builtin_popcount(bits); }

// Memory.

enum class Access : std::uint8_t { read, write, atomic };
/// The address is a multiple of `alignment`; in a build with hooks, also what the shadow has to say.
void check_access(const void* p, std::size_t bytes, std::size_t alignment, Access access, Site site);

unsigned atomic_add(unsigned* p, unsigned v, Site site = Site::current());
unsigned long long atomic_add(unsigned long long* p, unsigned long long v, Site site = Site::current());
unsigned long long atomic_max(unsigned long long* p, unsigned long long v, Site site = Site::current());

template <class T>
BRAGG_SIMT_UNCHECKED T load_as(const void* p, Site site) {
  check_access(p, sizeof(T), sizeof(T), Access::read, site);
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}
template <class T>
BRAGG_SIMT_UNCHECKED void store_as(void* p, T v, Site site) {
  check_access(p, sizeof(T), sizeof(T), Access::write, site);
  std::memcpy(p, &v, sizeof(T));
}
inline uint4 load16(const void* p, Site site = Site::current()) { return load_as<uint4>(p, site); }
inline uint2 load8(const void* p, Site site = Site::current()) { return load_as<uint2>(p, site); }
inline uint4 load16_kept(const void* p, Site site = Site::current()) { return load_as<uint4>(p, site); }
inline uint2 load8_kept(const void* p, Site site = Site::current()) { return load_as<uint2>(p, site); }
inline std::uint32_t load4(const void* p, Site site = Site::current()) {
  return load_as<std::uint32_t>(p, site);
}
inline std::uint16_t load2(const void* p, Site site = Site::current()) {
  return load_as<std::uint16_t>(p, site);
}
inline std::uint32_t load4_kept(const void* p, Site site = Site::current()) { return load4(p, site); }
inline std::uint16_t load2_kept(const void* p, Site site = Site::current()) { return load2(p, site); }
inline void store16(void* p, uint4 v, Site site = Site::current()) { store_as(p, v, site); }
inline void store8(void* p, uint2 v, Site site = Site::current()) { store_as(p, v, site); }

void prefetch_l2(const void* p, Site site = Site::current());

// Arithmetic.

void mma_16x8x16(double (&c)[4], const double (&a)[8], const double (&b)[4], Site site = Site::current());
void mma_16x8x32(int (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                 Site site = Site::current());

BRAGG_SIMT_UNCHECKED inline std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t digits) {
  const std::uint64_t both = static_cast<std::uint64_t>(b) << 32 | a;
  std::uint32_t picked = 0;
  for (int k = 0; k < 4; ++k) {
    picked |= static_cast<std::uint32_t>(both >> (8 * (digits >> (4 * k) & 7)) & 255) << (8 * k);
  }
  return picked;
}

template <class ToT, class FromT>
BRAGG_SIMT_UNCHECKED ToT same_bits(FromT from) {
  static_assert(sizeof(ToT) == sizeof(FromT));
  ToT to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
inline std::uint32_t bits_of(float x) { return same_bits<std::uint32_t>(x); }
inline float float_of(std::uint32_t bits) { return same_bits<float>(bits); }
inline std::uint64_t bits_of(double x) { return same_bits<std::uint64_t>(x); }
inline double double_of(std::uint64_t bits) { return same_bits<double>(bits); }
BRAGG_SIMT_UNCHECKED inline int round_to_int(float x) {
  return std::fabs(x) < 0x1p31f ? static_cast<int>(std::nearbyint(x)) : 0;
}
inline double fma(double a, double b, double c) { return std::fma(a, b, c); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }

float f16_to_float(std::uint16_t bits);
std::uint16_t double_to_f16(double x);
std::uint16_t double_to_bf16(double x);
inline std::uint16_t float_to_f16(float x) { return double_to_f16(static_cast<double>(x)); }
inline std::uint16_t float_to_bf16(float x) { return double_to_bf16(static_cast<double>(x)); }
std::uint32_t min_f16x2(std::uint32_t a, std::uint32_t b);
std::uint32_t max_f16x2(std::uint32_t a, std::uint32_t b);
std::uint32_t min_bf16x2(std::uint32_t a, std::uint32_t b);
std::uint32_t max_bf16x2(std::uint32_t a, std::uint32_t b);
/// `seen` with NaN in each half where v is not finite.
std::uint32_t mark_nonfinite_f16x2(std::uint32_t v, std::uint32_t seen);
std::uint32_t mark_nonfinite_bf16x2(std::uint32_t v, std::uint32_t seen);

// Shared memory.

/// A BRAGG_SHARED: its size, where the executor finds it before the kernel runs (kernels.cpp), and where it
/// lies in the block that runs.
struct StaticShared {
  std::size_t bytes;
  std::uint64_t block = 0;
  void* data = nullptr;
};
void* static_shared(StaticShared& variable, const char* name, Site site = Site::current());

std::size_t dynamic_shared_of_launch();
void* dynamic_shared(unsigned offset, std::size_t bytes, std::size_t alignment, Site site);
template <class T>
constexpr std::size_t shared_bytes(std::size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}
struct DynamicShared {
  unsigned offset = 0;
  template <class T>
  T* take(std::size_t count, Site site = Site::current()) {
    void* const p = dynamic_shared(offset, count * sizeof(T), alignof(T), site);
    offset += static_cast<unsigned>(shared_bytes<T>(count));
    return static_cast<T*>(p);
  }
  /// Bytes of the launch that are not taken.
  std::size_t left() const { return dynamic_shared_of_launch() - offset; }
};

// Launches.

/// What limits launches on a device.
struct DeviceProfile {
  const char* compute_capability;
  std::size_t shared_of_block;           ///< for kernels that were allowed so much
  std::size_t shared_of_multiprocessor;  ///< each of its blocks takes 1 KB beside its own
  std::size_t l2_bytes;
};
/// The smallest first, the largest last.
std::span<const DeviceProfile> device_profiles();
/// From BRAGG_SIMT_DEVICE, a compute capability, until a test sets another; the default is the largest.
const DeviceProfile& device_profile();
/// Another device is there: nothing is known of kernels, and none was allowed more shared memory.
void set_device_profile(const DeviceProfile& profile);
/// How often a kernel was allowed more shared memory.
std::uint64_t opt_ins();

struct Launch {
  const void* kernel = nullptr;
  int blocks_x = 0;
  int blocks_y = 0;
  int threads = 0;
  std::size_t shared = 0;
  Stream stream = nullptr;
  bool dependent = false;  ///< no thread touches global memory, or exits, before grid_dependency_sync
};
/// Runs every block, one after the other; body(call) in every thread. One launch at a time: others wait.
/// @throws Failure
void run(const Launch& launch, void (*body)(void*), void* call);
/// That were made so far.
std::uint64_t launches();
/// @throws Failure where no launch of the kernel could have so many threads or so much shared memory.
void check_launch(const void* kernel, int threads, std::size_t shared);

template <class... ParametersT>
int resident_blocks(void (*kernel)(ParametersT...), int threads, std::size_t shared) {
  check_launch(reinterpret_cast<const void*>(kernel), threads, shared);
  return cuda::resident_blocks(reinterpret_cast<const void*>(kernel), threads, shared);
}

template <class... ParametersT>
std::size_t most_dynamic_shared(void (*kernel)(ParametersT...)) {
  return cuda::most_dynamic_shared(reinterpret_cast<const void*>(kernel));
}

template <class... ParametersT, class... ArgumentsT>
void launch_as(bool dependent, void (*kernel)(ParametersT...), int blocks_x, int blocks_y, int threads,
               std::size_t shared, Stream stream, ArgumentsT&&... arguments) {
  struct Call {
    void (*kernel)(ParametersT...);
    std::tuple<ParametersT...> parameters;
  };
  if (blocks_x <= 0 || blocks_y <= 0) return;
  cuda::make_ready(reinterpret_cast<const void*>(kernel));
  if (cuda::is_rehearsal()) return check_launch(reinterpret_cast<const void*>(kernel), threads, shared);
  // Copied here: a kernel's parameters are values, and none of the host's memory is read later.
  Call call{kernel, std::tuple<ParametersT...>(ParametersT(arguments)...)};
  run(
      {reinterpret_cast<const void*>(kernel), blocks_x, blocks_y, threads, shared, stream, dependent},
      [](void* p) {
        auto& c = *static_cast<Call*>(p);
        std::apply(c.kernel, c.parameters);
      },
      &call);
}
template <class... ParametersT, class... ArgumentsT>
void launch(void (*kernel)(ParametersT...), int blocks_x, int blocks_y, int threads, std::size_t shared,
            Stream stream, ArgumentsT&&... arguments) {
  launch_as(false, kernel, blocks_x, blocks_y, threads, shared, stream, arguments...);
}
template <class... ParametersT, class... ArgumentsT>
void launch_dependent(void (*kernel)(ParametersT...), int blocks_x, int blocks_y, int threads,
                      std::size_t shared, Stream stream, ArgumentsT&&... arguments) {
  launch_as(true, kernel, blocks_x, blocks_y, threads, shared, stream, arguments...);
}

}  // namespace bragg::detail::simt

// What kernels call by these names is CUDA's: of a number and any NaN the number (the C library's makes a
// signalling NaN of it), and -0 is less than +0.
namespace bragg::detail::cuda {

template <class T>
BRAGG_SIMT_UNCHECKED T smaller_number(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
inline float fminf(float a, float b) { return smaller_number(a, b); }
inline double fmin(double a, double b) { return smaller_number(a, b); }
inline float fmaxf(float a, float b) { return -smaller_number(-a, -b); }
inline double fmax(double a, double b) { return -smaller_number(-a, -b); }

}  // namespace bragg::detail::cuda
