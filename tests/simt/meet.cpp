// SPDX-License-Identifier: Apache-2.0
// Where threads wait for each other: the block's barrier, and the warp's exchanges of values.
#include <algorithm>
#include <cstring>

#include "tests/simt/block.hpp"
#include "tests/simt/shadow.hpp"

namespace bragg::detail::simt {
namespace {

bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

bool barrier(bool predicate, const Site& site) {
  Block& b = the_block;
  running->site = site;
  if (b.at_barrier != 0 && !same(b.barrier_site, site)) {
    fail("the block's barrier is divergent: others wait at " + to_string(b.barrier_site) + ", this is", site);
  }
  b.barrier_site = site;
  b.barrier_predicate |= predicate;
  running->state = State::at_barrier;
  if (++b.at_barrier == b.launch.threads) {
    b.barrier_result = b.barrier_predicate;
    b.barrier_predicate = false;
    b.at_barrier = 0;
    shadow::block_barrier();
    const int last = b.launch.threads - 1;
    for (int i = 0; i <= last; ++i) b.make_ready(b.schedule.order == Order::reverse ? last - i : i);
  }
  b.wait();
  return b.barrier_result;
}

void meet(const void* in, void* out, Exchange complete, const Site& site) {
  Block& b = the_block;
  const Coordinates& place = running->place;
  Warp& warp = b.warps[place.warp];
  Meeting& m = warp.meeting;
  running->site = site;
  if (warp.live != ~0u) fail("lanes of the warp have exited or never were", site);
  if (m.arrived != 0 && !same(m.site, site)) {
    fail("the warp is divergent: lanes wait at " + to_string(m.site) + ", this is", site);
  }
  m.site = site;
  m.arrived |= 1u << place.lane;
  m.in[place.lane] = in;
  m.out[place.lane] = out;
  running->state = State::at_warp;
  if (m.arrived == ~0u) {
    m.arrived = 0;
    if (complete != nullptr) {
      complete(m.in, m.out);
    } else {
      shadow::warp_barrier(place.warp);
    }
    for (int i = 0; i < warp_size; ++i) {
      const int lane = b.schedule.order == Order::reverse ? warp_size - 1 - i : i;
      b.make_ready(place.warp * warp_size + lane);
    }
  }
  b.wait();
}

struct ToShuffle {
  int source = 0;
  const void* value = nullptr;
  std::size_t bytes = 0;
};

void complete_shuffle(const void* const* in, void* const* out) {
  for (int lane = 0; lane < warp_size; ++lane) {
    const auto* const from =
        static_cast<const ToShuffle*>(in[static_cast<const ToShuffle*>(in[lane])->source]);
    std::memcpy(out[lane], from->value, from->bytes);
  }
}

void complete_ballot(const void* const* in, void* const* out) {
  unsigned ballot = 0;
  for (int lane = 0; lane < warp_size; ++lane) {
    if (*static_cast<const bool*>(in[lane])) ballot |= 1u << lane;
  }
  for (int lane = 0; lane < warp_size; ++lane) *static_cast<unsigned*>(out[lane]) = ballot;
}

}  // namespace

void sync_threads(Site site) { barrier(false, site); }
bool sync_threads_or(bool p, Site site) { return barrier(p, site); }
void sync_warp(Site site) { meet(nullptr, nullptr, nullptr, site); }

void exchange(const void* in, void* out, Exchange complete, Site site) { meet(in, out, complete, site); }

void shuffle_bytes(int source, const void* in, void* out, std::size_t bytes, Site site) {
  const ToShuffle mine{source, in, bytes};
  meet(&mine, out, &complete_shuffle, site);
}

unsigned ballot(bool p, Site site) {
  unsigned result = 0;
  meet(&p, &result, &complete_ballot, site);
  return result;
}

}  // namespace bragg::detail::simt
