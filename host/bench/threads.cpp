// SPDX-License-Identifier: Apache-2.0
#include "host/bench/threads.hpp"

#include <omp.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

namespace bragg::bench {

void bind_threads(char** argv) {
  // OMP_PROC_BIND, once set, says that this has been done.
  if (std::getenv("OMP_PROC_BIND") != nullptr || std::getenv("GOMP_CPU_AFFINITY") != nullptr) return;
  setenv("OMP_PROC_BIND", "true", 1);
  setenv("OMP_PLACES", "cores", 0);
  execv("/proc/self/exe", argv);
}

bool threads_are_bound() { return omp_get_proc_bind() != omp_proc_bind_false; }

AllCores::AllCores() {
  CPU_ZERO(&cores_);
  for (int place = 0; place < omp_get_num_places(); ++place) {
    std::vector<int> cores(static_cast<std::size_t>(omp_get_place_num_procs(place)));
    omp_get_place_proc_ids(place, cores.data());
    for (const int core : cores) CPU_SET(static_cast<std::size_t>(core), &cores_);
    known_ = known_ || !cores.empty();
  }
}

void AllCores::apply() const noexcept {
  if (known_) sched_setaffinity(0, sizeof(cores_), &cores_);
}

}  // namespace bragg::bench
