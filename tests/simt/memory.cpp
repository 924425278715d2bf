// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "tests/simt/shadow.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace bragg::detail::simt {
namespace {

constexpr std::uint32_t poison = 0xFFF8DEADu;
constexpr unsigned char red_byte = 0xA5;

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

char* map_pages(std::size_t bytes) {
  void* const p =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<char*>(p);
}

void make_red(char* p, std::size_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  std::memset(p, red_byte, bytes);
  ASAN_POISON_MEMORY_REGION(p, bytes);
}

/// The first byte of a red zone that something wrote; AddressSanitizer has reported it already.
const char* first_damage([[maybe_unused]] const char* p, [[maybe_unused]] std::size_t bytes) {
#if !defined(__SANITIZE_ADDRESS__)
  for (std::size_t i = 0; i < bytes; ++i) {
    if (static_cast<unsigned char>(p[i]) != red_byte) return p + i;
  }
#endif
  return nullptr;
}

struct Piece {
  std::size_t offset = 0;
  std::size_t bytes = 0;
  const char* name = nullptr;
};

/// Fills the piece with poison, and all from its red zone to `end` with red.
void surround(char* base, const Piece& piece, std::size_t end) {
  char* const p = base + piece.offset;
  make_red(p - red_zone, red_zone);
  make_red(p + piece.bytes, end - (piece.offset + piece.bytes));
  ASAN_UNPOISON_MEMORY_REGION(p, piece.bytes);
  fill_with_poison(p, piece.bytes);
}

/// Searches for room begin behind the piece found last, so that what was released stays unused for a while;
/// not for long, so that not all of the arena comes into use.
constexpr std::size_t reuse_after = std::size_t{8} << 20;

/// Changing what pages allow is slow, and a host that touches device memory does so again and again.
constexpr unsigned protect_every = 32;

struct GlobalArena {
  GlobalArena();

  std::mutex mutex;
  char* base = map_pages(global_capacity);
  std::map<std::size_t, Piece> live;                              // by offset
  std::map<std::size_t, std::size_t> free{{0, global_capacity}};  // offset: bytes, with room for red zones
  std::size_t cursor = 0;
  int accesses = 0;  // GlobalAccess that live
  unsigned closed = 0;
  bool open = false;
};
GlobalArena& global() {
  static GlobalArena* const arena = new GlobalArena;  // outlives static objects that hold device memory
  return *arena;
}

[[maybe_unused]] void explain_fault(int, siginfo_t* info, void*) {
  if (Region{global().base, global_capacity}.contains(info->si_addr)) {
    static constexpr char text[] = "the host touches device memory\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text, sizeof(text) - 1);
  }
  std::signal(SIGSEGV, SIG_DFL);  // and again, for good
}

GlobalArena::GlobalArena() {
  ASAN_POISON_MEMORY_REGION(base, global_capacity);
  if (hooks) {
    struct sigaction action = {};
    action.sa_sigaction = &explain_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    mprotect(base, global_capacity, PROT_NONE);
  }
}

/// What a piece takes with its red zones, of which its neighbours have their own.
std::size_t room_for(std::size_t bytes) { return round_up(red_zone + bytes + red_zone, 256); }

struct SharedArena {
  char* base = map_pages(shared_capacity);
  std::size_t top = 0;
  std::vector<Piece> pieces;
};
SharedArena& shared() {
  static SharedArena* const arena = new SharedArena;
  return *arena;
}

const char* damage_around(const char* base, const Piece& piece) {
  const char* const before = first_damage(base + piece.offset - red_zone, red_zone);
  return before != nullptr ? before : first_damage(base + piece.offset + piece.bytes, red_zone);
}

std::string describe_damage(const char* damage) {
  return damage == nullptr ? std::string() : "wrote " + describe_address(damage);
}

std::string describe_in(const char* base, const Piece& piece, const char* p, const std::string& what) {
  const auto distance = p - (base + piece.offset);
  const std::string name = what + " of " + std::to_string(piece.bytes) + " bytes";
  if (distance < 0) return std::to_string(-distance) + " bytes before " + name;
  const auto size = static_cast<std::ptrdiff_t>(piece.bytes);
  if (distance < size) return "byte " + std::to_string(distance) + " of " + name;
  return std::to_string(distance - size) + " bytes behind the end of " + name;
}

}  // namespace

Region global_arena() { return {global().base, global_capacity}; }
Region shared_arena() { return {shared().base, shared_capacity}; }

GlobalAccess::GlobalAccess() {
  if (hooks) {
    GlobalArena& arena = global();
    const std::lock_guard lock(arena.mutex);
    ++arena.accesses;
    if (!std::exchange(arena.open, true)) mprotect(arena.base, global_capacity, PROT_READ | PROT_WRITE);
  }
}
GlobalAccess::~GlobalAccess() {
  if (hooks) {
    GlobalArena& arena = global();
    const std::lock_guard lock(arena.mutex);
    if (--arena.accesses != 0 || ++arena.closed % protect_every != 0) return;
    arena.open = false;
    mprotect(arena.base, global_capacity, PROT_NONE);
  }
}

void fill_with_poison(void* p, std::size_t bytes) {
  auto* const to = static_cast<char*>(p);
  std::size_t i = 0;
  for (; i + 4 <= bytes; i += 4) std::memcpy(to + i, &poison, 4);
  std::memcpy(to + i, &poison, bytes - i);
}

void* allocate_global(std::size_t bytes) {
  const GlobalAccess access;
  GlobalArena& arena = global();
  const std::lock_guard lock(arena.mutex);
  const std::size_t room = room_for(bytes);
  const auto fits = [room](const auto& hole) { return hole.second >= room; };
  auto hole = std::find_if(arena.free.lower_bound(arena.cursor), arena.free.end(), fits);
  if (hole == arena.free.end()) hole = std::find_if(arena.free.begin(), arena.free.end(), fits);
  if (hole == arena.free.end()) return nullptr;
  const auto [begin, bytes_there] = *hole;
  arena.free.erase(hole);
  if (bytes_there > room) arena.free[begin + room] = bytes_there - room;
  arena.cursor = begin + room > reuse_after ? 0 : begin + room;

  const Piece piece{begin + red_zone, bytes, nullptr};
  arena.live[piece.offset] = piece;
  surround(arena.base, piece, begin + room);
  return arena.base + piece.offset;
}

void release_global(void* memory) {
  if (memory == nullptr) return;
  GlobalArena& arena = global();
  const std::lock_guard lock(arena.mutex);
  const auto found = arena.live.find(static_cast<std::size_t>(static_cast<char*>(memory) - arena.base));
  if (found == arena.live.end()) std::abort();
  const Piece piece = found->second;
  arena.live.erase(found);
  shadow::forget(memory, piece.bytes);
  ASAN_POISON_MEMORY_REGION(memory, piece.bytes);

  std::size_t begin = piece.offset - red_zone;
  std::size_t room = room_for(piece.bytes);
  auto next = arena.free.lower_bound(begin);
  if (next != arena.free.end() && next->first == begin + room) {
    room += next->second;
    next = arena.free.erase(next);
  }
  if (next != arena.free.begin() && std::prev(next)->first + std::prev(next)->second == begin) {
    begin = std::prev(next)->first;
    room += std::prev(next)->second;
  }
  arena.free[begin] = room;
}

Region allocation_of(const void* p, std::size_t bytes) {
  GlobalArena& arena = global();
  const std::lock_guard lock(arena.mutex);
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - arena.base);
  const auto next = arena.live.upper_bound(offset);
  if (next == arena.live.begin()) return {};
  const Piece& piece = std::prev(next)->second;
  if (offset + bytes > piece.offset + piece.bytes) return {};
  return {arena.base + piece.offset, piece.bytes};
}

Region shared_variable_of(const void* p) {
  const SharedArena& arena = shared();
  for (const Piece& piece : arena.pieces) {
    const Region region{arena.base + piece.offset, piece.bytes};
    if (region.contains(p)) return region;
  }
  return {};
}

std::string damaged_red_zone() {
  const char* damage = nullptr;
  {
    GlobalArena& arena = global();
    const std::lock_guard lock(arena.mutex);  // a released piece's red zone becomes another's memory
    for (auto piece = arena.live.begin(); piece != arena.live.end() && damage == nullptr; ++piece) {
      damage = damage_around(arena.base, piece->second);
    }
  }
  return describe_damage(damage);
}

void* carve_shared(std::size_t bytes, const char* name) {
  SharedArena& arena = shared();
  const Piece piece{arena.top + red_zone, bytes, name};
  const std::size_t end = round_up(piece.offset + bytes, 16) + red_zone;
  if (end > shared_capacity) std::abort();  // more than any launch may have
  arena.top = end;
  surround(arena.base, piece, end);
  arena.pieces.push_back(piece);
  return arena.base + piece.offset;
}

void reset_shared() {
  SharedArena& arena = shared();
  for (const Piece& piece : arena.pieces) {
    shadow::forget(arena.base + piece.offset, piece.bytes);
    ASAN_POISON_MEMORY_REGION(arena.base + piece.offset, piece.bytes);
  }
  arena.pieces.clear();
  arena.top = 0;
}

std::string damaged_shared_red_zone() {
  const SharedArena& arena = shared();
  for (const Piece& piece : arena.pieces) {
    if (const char* const damage = damage_around(arena.base, piece)) return describe_damage(damage);
  }
  return {};
}

std::string describe_address(const void* address) {
  const auto* const p = static_cast<const char*>(address);
  if (shared_arena().contains(p)) {
    const SharedArena& arena = shared();
    const auto offset = static_cast<std::size_t>(p - arena.base);
    const Piece* nearest = nullptr;
    for (const Piece& piece : arena.pieces) {
      if (nearest == nullptr || piece.offset <= offset + red_zone / 2) nearest = &piece;
    }
    if (nearest == nullptr) return "shared memory that this block has not";
    return describe_in(arena.base, *nearest, p, std::string("shared ") + nearest->name);
  }
  if (global_arena().contains(p)) {
    GlobalArena& arena = global();
    const std::lock_guard lock(arena.mutex);
    const auto offset = static_cast<std::size_t>(p - arena.base);
    auto next = arena.live.upper_bound(offset + red_zone / 2);
    if (next == arena.live.begin()) {
      if (next == arena.live.end()) return "global memory that is not allocated";
      return describe_in(arena.base, next->second, p, "an allocation");
    }
    return describe_in(arena.base, std::prev(next)->second, p, "an allocation");
  }
  return "memory of the host";
}

}  // namespace bragg::detail::simt
