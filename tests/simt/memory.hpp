// SPDX-License-Identifier: Apache-2.0
// The device's memory: two arenas, of global and of shared memory. Every piece lies between red zones and is
// filled with a NaN pattern when it is handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace bragg::detail::simt {

inline constexpr std::size_t red_zone = 256;
inline constexpr std::size_t global_capacity = std::size_t{256} << 20;
inline constexpr std::size_t shared_capacity = std::size_t{1} << 20;

/// Addresses [base, base + bytes).
struct Region {
  char* base = nullptr;
  std::size_t bytes = 0;

  bool contains(const void* p) const {
    return static_cast<std::size_t>(static_cast<const char*>(p) - base) < bytes;
  }
};
Region global_arena();
Region shared_arena();

/// While one lives, the host may touch global memory. After some of them, a build with hooks ends the program
/// where the host touches it without, as it would with a GPU's.
class GlobalAccess {
 public:
  GlobalAccess();
  ~GlobalAccess();
  GlobalAccess(const GlobalAccess&) = delete;
  GlobalAccess& operator=(const GlobalAccess&) = delete;
};

/// NaN as f64, f32, and in one half as f16 and bf16; a negative integer.
void fill_with_poison(void* p, std::size_t bytes);

/// Null where the arena is full. Multiples of 256.
void* allocate_global(std::size_t bytes);
void release_global(void* p);
/// The allocation that [p, p + bytes) lies in; none: {nullptr, 0}.
Region allocation_of(const void* p, std::size_t bytes);
/// The same for a piece of the block's shared memory.
Region shared_variable_of(const void* p);
/// Empty where every red zone is as it was, else what was written where.
std::string damaged_red_zone();

/// A piece of the block's shared memory, at a multiple of 16. Null where the arena is full.
void* carve_shared(std::size_t bytes, const char* name);
/// The next block's shared memory begins.
void reset_shared();
std::string damaged_shared_red_zone();

/// "byte 12 of an allocation of 100 bytes", "byte 3 behind shared tile, 64 bytes".
std::string describe_address(const void* p);

}  // namespace bragg::detail::simt
