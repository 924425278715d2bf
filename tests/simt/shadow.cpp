// SPDX-License-Identifier: Apache-2.0
// The shadow: a cell for every byte of device memory. Two accesses, one of them a write, are a race unless
// something orders them: a barrier of the block, a sync_warp of both, or a launch.
#include "tests/simt/shadow.hpp"

#if defined(BRAGG_SIMT_HOOKS)

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "tests/simt/block.hpp"
#include "tests/simt/memory.hpp"
#include "tests/simt/place.hpp"

namespace bragg::detail::simt::shadow {
namespace {

enum Flag : std::uint8_t { allocated = 1, initialised = 2, atomic_write = 4 };
constexpr std::uint8_t several_warps = 255;

/// An epoch lasts from one barrier of a block to the next; epoch 0: never. Within it, a stamp counts what
/// sync_warp the warp had done before the access.
struct Cell {
  std::uint32_t write_epoch;
  std::uint32_t write_stamp;
  Place write_place;
  std::uint32_t read_epoch;
  std::uint32_t read_stamp;
  std::uint32_t read_lanes;  // of read_warp; none of them is known to have read before another
  Place read_place;
  std::uint16_t writer;
  std::uint8_t read_warp;
  std::uint8_t flags;
};
static_assert(sizeof(Cell) == 32);

Cell* map_cells(std::size_t count) {
  void* const p = mmap(nullptr, count * sizeof(Cell), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<Cell*>(p);
}

/// Null: not device memory.
Cell* cell_of(const void* p) {
  static const Region global = global_arena();
  static const Region shared = shared_arena();
  static Cell* const global_cells = map_cells(global_capacity);
  static Cell* const shared_cells = map_cells(shared_capacity);
  const auto* const address = static_cast<const char*>(p);
  if (shared.contains(p)) return shared_cells + (address - shared.base);
  if (global.contains(p)) return global_cells + (address - global.base);
  return nullptr;
}

struct Clock {
  std::uint32_t epoch = 1;
  std::uint32_t launch_epoch = 1;
  std::uint32_t block_epoch = 1;
  std::array<std::uint32_t, max_block_threads / warp_size> warps{};  ///< sync_warps since the block's barrier
};
Clock the_clock;

/// An access as others see it: lanes of a warp, in an epoch, at a stamp of their warp.
struct Event {
  std::uint32_t epoch;
  std::uint32_t stamp;
  int warp;
  std::uint32_t lanes;
};

bool ordered_in_block(const Event& event, const Coordinates& me) {
  if (event.epoch < the_clock.epoch) return true;
  if (event.warp != me.warp) return false;
  return event.stamp < the_clock.warps[me.warp] || (event.lanes & ~(1u << me.lane)) == 0;
}

bool ordered(const Event& event, const Coordinates& me) {
  const Clock& c = the_clock;
  if (event.epoch < c.launch_epoch) return true;
  return event.epoch >= c.block_epoch && ordered_in_block(event, me);  // blocks are in no order
}

Event write_of(const Cell& cell) {
  return {cell.write_epoch, cell.write_stamp, cell.writer / warp_size, 1u << (cell.writer % warp_size)};
}
Event read_of(const Cell& cell) {
  return {cell.read_epoch, cell.read_stamp, cell.read_warp, cell.read_lanes};
}

const char* name_of(Access access) {
  return access == Access::read ? "reads" : access == Access::write ? "writes" : "atomically updates";
}

[[noreturn]] void report(const std::string& what, const void* p, Access access, Place place) {
  abandon(what + ": " + name_of(access) + " " + describe_address(p) + " at " + to_string(place));
}

[[noreturn]] void report_write(const Cell& cell, const void* p, Access access, Place place) {
  report("race with thread " + std::to_string(cell.writer) +
             (cell.write_epoch < the_clock.block_epoch ? " of another block" : "") + ", which wrote at " +
             to_string(cell.write_place),
         p, access, place);
}

[[noreturn]] void report_read(const Cell& cell, const void* p, Access access, Place place) {
  std::string who = "several warps, which";
  if (cell.read_warp != several_warps) {
    who = "thread " + std::to_string(cell.read_warp * warp_size + __builtin_ctz(cell.read_lanes)) + ", which";
  }
  report("race with " + who + " read at " + to_string(cell.read_place), p, access, place);
}

/// Cells are zeros until their byte is touched; then all of the piece near it are marked.
void find_piece(Cell& cell, const void* p, Access access, Place place) {
  const Region piece = global_arena().contains(p) ? allocation_of(p, 1) : shared_variable_of(p);
  if (piece.base == nullptr) report("out of bounds", p, access, place);
  const std::size_t offset = static_cast<std::size_t>(static_cast<const char*>(p) - piece.base);
  const std::size_t count = std::min(piece.bytes - offset, std::size_t{512});
  for (std::size_t i = 0; i < count; ++i) (&cell)[i].flags |= allocated;
}

void check_state(Cell& cell, const void* p, Access access, Place place) {
  if ((cell.flags & allocated) == 0) find_piece(cell, p, access, place);
  if (access != Access::write && (cell.flags & initialised) == 0) report("uninitialised", p, access, place);
}

void check_order(const Cell& cell, const Coordinates& me, const void* p, Access access, Place place) {
  const bool both_atomic = access == Access::atomic && (cell.flags & atomic_write) != 0;
  if (!both_atomic && !ordered(write_of(cell), me)) report_write(cell, p, access, place);
  if (access != Access::read && !ordered(read_of(cell), me)) report_read(cell, p, access, place);
}

/// Readers that this one is ordered behind need not be remembered.
void note_read(Cell& cell, const Coordinates& me, Place place) {
  const std::uint32_t now = the_clock.warps[me.warp];
  std::uint32_t lanes = 1u << me.lane;
  if (cell.read_epoch == the_clock.epoch) {
    if (cell.read_warp != me.warp) {
      cell.read_warp = several_warps;
      return;
    }
    if (cell.read_stamp == now) lanes |= cell.read_lanes;
  }
  cell.read_epoch = the_clock.epoch;
  cell.read_stamp = now;
  cell.read_warp = static_cast<std::uint8_t>(me.warp);
  cell.read_lanes = lanes;
  cell.read_place = place;
}

void note_write(Cell& cell, const Coordinates& me, Access access, Place place) {
  cell.write_epoch = the_clock.epoch;
  cell.write_stamp = the_clock.warps[me.warp];
  cell.write_place = place;
  cell.writer = static_cast<std::uint16_t>(me.thread);
  cell.flags = static_cast<std::uint8_t>((cell.flags & ~atomic_write) | initialised |
                                         (access == Access::atomic ? atomic_write : 0));
}

bool on_this_stack(const void* p) {
  struct Stack {
    Region region;
    Stack() {
      pthread_attr_t attributes;
      void* base = nullptr;
      pthread_getattr_np(pthread_self(), &attributes);
      pthread_attr_getstack(&attributes, &base, &region.bytes);
      pthread_attr_destroy(&attributes);
      region.base = static_cast<char*>(base);
    }
  };
  static thread_local const Stack stack;
  return stack.region.contains(p);
}

/// Outside of device memory a kernel has its stack, its parameters, which the launch holds, and constants.
void check_host_memory(const void* p, Access access, Place place) {
  if (running->fiber.on_stack(p)) return;
  if (access == Access::read && (in_image(p) || on_this_stack(p))) return;
  report("not device memory", p, access, place);
}

void check_at(const void* p, std::size_t bytes, Access access, Place place) {
  Cell* const first = cell_of(p);
  if (first == nullptr) return check_host_memory(p, access, place);
  if (is_too_early_for(p)) report("before grid_dependency_sync", p, access, place);
  const Coordinates& me = running->place;
  const std::uint32_t launch_epoch = the_clock.launch_epoch;
  for (std::size_t i = 0; i < bytes; ++i) {
    Cell& cell = first[i];
    const auto* const address = static_cast<const char*>(p) + i;
    if ((cell.flags & (allocated | initialised)) != (allocated | initialised)) {
      check_state(cell, address, access, place);
    }
    if (cell.write_epoch >= launch_epoch || cell.read_epoch >= launch_epoch) {
      check_order(cell, me, address, access, place);
    }
    if (access == Access::read) {
      note_read(cell, me, place);
    } else {
      note_write(cell, me, access, place);
    }
  }
}

template <class F>
void for_cells(const void* p, std::size_t bytes, F f) {
  Cell* const first = cell_of(p);
  std::for_each(first, first + bytes, f);
}

}  // namespace

void forget(const void* p, std::size_t bytes) {
  constexpr std::size_t page = 4096;
  constexpr std::size_t many = std::size_t{1} << 20;
  auto begin = reinterpret_cast<std::uintptr_t>(cell_of(p));
  const std::uintptr_t end = begin + bytes * sizeof(Cell);
  if (bytes * sizeof(Cell) > many) {
    // Most of a large piece was hardly touched: its pages go back, and are zeros when they come again.
    const std::uintptr_t first = (begin + page - 1) / page * page;
    const std::uintptr_t last = end / page * page;
    madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
    std::memset(reinterpret_cast<void*>(begin), 0, first - begin);
    begin = last;
  }
  std::memset(reinterpret_cast<void*>(begin), 0, end - begin);
}
void initialise(const void* p, std::size_t bytes) {
  for_cells(p, bytes, [](Cell& cell) { cell.flags |= initialised; });
}
std::size_t initialised_bytes(const void* p, std::size_t bytes) {
  const Cell* const first = cell_of(p);
  return static_cast<std::size_t>(
      std::find_if(first, first + bytes, [](const Cell& cell) { return (cell.flags & initialised) == 0; }) -
      first);
}
void begin_launch() {
  Clock& c = the_clock;
  c.launch_epoch = ++c.epoch;
}

void begin_block() {
  Clock& c = the_clock;
  block_barrier();
  c.block_epoch = c.epoch;
}

void block_barrier() {
  ++the_clock.epoch;
  the_clock.warps.fill(0);
}

void warp_barrier(int warp) { ++the_clock.warps[warp]; }

void check(const void* p, std::size_t bytes, Access access, const Site& site) {
  if (running != nullptr) check_at(p, bytes, access, place_of(site));
}

void check_instruction(const void* p, std::size_t bytes, std::size_t alignment, Access access,
                       const void* instruction) {
  if (running == nullptr) return;
  const Place place = place_of(instruction);
  if (reinterpret_cast<std::uintptr_t>(p) % alignment != 0) {
    report("the address is no multiple of " + std::to_string(alignment), p, access, place);
  }
  check_at(p, bytes, access, place);
}

}  // namespace bragg::detail::simt::shadow

const bool bragg::detail::simt::hooks = true;
namespace {
using bragg::detail::simt::Access;
using bragg::detail::simt::shadow::check_instruction;
}  // namespace

#else

const bool bragg::detail::simt::hooks = false;
#if !defined(BRAGG_SIMT_SANITIZED)
namespace {
using bragg::detail::simt::Access;
void check_instruction(const void*, std::size_t, std::size_t, Access, const void*) {}
}  // namespace
#endif

#endif

// A sanitizer of the compiler's own knows these functions, and nothing there is built to call them.
#if !defined(BRAGG_SIMT_SANITIZED)

// What the compiler calls before every access of code built with -fsanitize=thread. It takes them for
// functions that do not throw. Without hooks they do nothing, so that kernels are compiled once for both
// executors.
#define BRAGG_SIMT_HOOK(name, bytes, alignment, access)                                  \
  extern "C" void __tsan_##name(void* p) {                                               \
    check_instruction(p, bytes, alignment, Access::access, __builtin_return_address(0)); \
  }
#define BRAGG_SIMT_HOOKS_FOR(bytes, alignment)           \
  BRAGG_SIMT_HOOK(read##bytes, bytes, alignment, read)   \
  BRAGG_SIMT_HOOK(write##bytes, bytes, alignment, write) \
  BRAGG_SIMT_HOOK(unaligned_read##bytes, bytes, 1, read) \
  BRAGG_SIMT_HOOK(unaligned_write##bytes, bytes, 1, write)
BRAGG_SIMT_HOOKS_FOR(1, 1)
BRAGG_SIMT_HOOKS_FOR(2, 2)
BRAGG_SIMT_HOOKS_FOR(4, 4)
BRAGG_SIMT_HOOKS_FOR(8, 8)
BRAGG_SIMT_HOOKS_FOR(16, 8)  // also two registers of 8 bytes

extern "C" {
void __tsan_read_range(void* p, unsigned long bytes) {
  check_instruction(p, bytes, 1, Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, unsigned long bytes) {
  check_instruction(p, bytes, 1, Access::write, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// The host's functions beside the kernels guard their static variables with this.
char __tsan_atomic8_load(const volatile char* p, int) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
}

#endif
