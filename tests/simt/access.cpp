// SPDX-License-Identifier: Apache-2.0
// What kernels do to memory by name: atomics, prefetches, shared variables.
#include <cstring>

#include "tests/simt/block.hpp"
#include "tests/simt/kernels.hpp"
#include "tests/simt/memory.hpp"
#include "tests/simt/shadow.hpp"

namespace bragg::detail::simt {
namespace {

bool misaligned(const void* p, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(p) % alignment != 0;
}

template <class T, class F>
T atomic(T* p, F next, const Site& site) {
  check_access(p, sizeof(T), sizeof(T), Access::atomic, site);
  const T before = *p;
  *p = next(before);
  return before;
}

/// Where functions that the kernel calls declare shared memory too, this is the first time it is seen.
void check_shared_total(const char* what, const Site& site) {
  const std::size_t has = the_block.static_shared + the_block.launch.shared;
  const std::size_t allowed = allowed_shared(the_block.launch.kernel);
  if (has > allowed) {
    fail("static and dynamic shared memory are " + std::to_string(has) + " bytes with " + what +
             ", more than the " + std::to_string(allowed) + " that the kernel was allowed",
         site);
  }
}

}  // namespace

void check_access(const void* p, std::size_t bytes, std::size_t alignment, Access access, Site site) {
  if (misaligned(p, alignment)) {
    fail("the address of " + std::to_string(bytes) + " bytes is no multiple of " + std::to_string(alignment) +
             " (" + describe_address(p) + ")",
         site);
  }
  if (is_too_early_for(p)) fail("touches global memory before grid_dependency_sync", site);
  shadow::check(p, bytes, access, site);
}

unsigned atomic_add(unsigned* p, unsigned v, Site site) {
  return atomic(
      p, [v](unsigned x) { return x + v; }, site);
}
unsigned long long atomic_add(unsigned long long* p, unsigned long long v, Site site) {
  return atomic(
      p, [v](unsigned long long x) { return x + v; }, site);
}
unsigned long long atomic_max(unsigned long long* p, unsigned long long v, Site site) {
  return atomic(
      p, [v](unsigned long long x) { return x < v ? v : x; }, site);
}
void prefetch_l2(const void* p, Site site) {
  if (!global_arena().contains(p)) fail("prefetch_l2 of what is not global memory", site);
  if (allocation_of(p, 1).base == nullptr) {
    fail("prefetch_l2 past the end of an allocation of global memory", site);
  }
}

void* static_shared(StaticShared& variable, const char* name, Site site) {
  Block& b = the_block;
  if (variable.block != b.serial) {
    b.static_shared += (variable.bytes + 15) / 16 * 16;
    if (b.static_shared > plain_shared) {
      fail(std::string("static shared memory is more than 48 KB with ") + name, site);
    }
    check_shared_total(name, site);
    variable.block = b.serial;
    variable.data = carve_shared(variable.bytes, name);
  }
  return variable.data;
}

std::size_t dynamic_shared_of_launch() { return the_block.launch.shared; }

void* dynamic_shared(unsigned offset, std::size_t bytes, std::size_t alignment, Site site) {
  Block& b = the_block;
  if (alignment > 16) fail("dynamic shared memory is aligned to 16 bytes only", site);
  for (const Taken& t : b.taken) {
    if (t.offset != offset) continue;
    if (t.bytes != bytes) {
      fail("takes " + std::to_string(bytes) + " bytes of shared memory where another take was of " +
               std::to_string(t.bytes),
           site);
    }
    return t.data;
  }
  if (offset + bytes > b.launch.shared) {
    fail("takes shared memory to byte " + std::to_string(offset + bytes) + " of the launch's " +
             std::to_string(b.launch.shared),
         site);
  }
  check_shared_total("dynamic shared memory", site);
  b.taken.push_back({offset, bytes, carve_shared(bytes, "dynamic memory")});
  return b.taken.back().data;
}

}  // namespace bragg::detail::simt
