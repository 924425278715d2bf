// SPDX-License-Identifier: Apache-2.0
#include "host/bench/hardware.hpp"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "host/cpu/passes.hpp"

namespace bragg::bench {

namespace fs = std::filesystem;

namespace {

std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

/// "16384K", "1M", "64 kB".
std::int64_t amount(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{}) return 0;
  const std::string unit(end, text.data() + text.size());
  if (unit.find_first_of("Kk") != std::string::npos) return value << 10;
  if (unit.find('M') != std::string::npos) return value << 20;
  return value;
}

/// The value of "KEY: value" in a file such as /proc/meminfo.
std::string value_of(const fs::path& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    const std::size_t begin = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "";
}

void find_caches(Hardware& hardware) {
  std::set<std::string> seen;  // a cache is listed with each of its cores
  std::int64_t last = 0;
  int last_level = 0;
  std::error_code ignored;
  for (const fs::directory_entry& cpu : fs::directory_iterator("/sys/devices/system/cpu", ignored)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(cpu.path() / "cache", ignored)) {
      const fs::path& cache = entry.path();
      const int level = std::atoi(first_line(cache / "level").c_str());
      const std::string type = first_line(cache / "type");
      if (level == 0 || type == "Instruction") continue;
      const std::int64_t bytes = amount(first_line(cache / "size"));
      if (!seen.insert(std::to_string(level) + " " + first_line(cache / "shared_cpu_list")).second) continue;
      if (level == 1) hardware.l1d_bytes = bytes;
      if (level == 2) hardware.l2_bytes = bytes;
      if (level > last_level) last = 0;
      if (level >= last_level) last += bytes;
      last_level = std::max(level, last_level);
    }
  }
  constexpr std::int64_t guess = std::int64_t{32} << 20;  // where the system does not say
  hardware.cache_bytes = last > 0 ? last : guess;
}

}  // namespace

Hardware this_hardware() {
  Hardware hardware;
  if (const std::string name = value_of("/proc/cpuinfo", "model name"); !name.empty()) hardware.cpu = name;
  hardware.cores = omp_get_num_procs();
  find_caches(hardware);
  hardware.memory_bytes = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  hardware.instruction_set = detail::CpuPasses::target();
  hardware.huge_pages = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  return hardware;
}

std::int64_t available_memory() { return amount(value_of("/proc/meminfo", "MemAvailable")); }

std::int64_t resident_bytes() { return amount(value_of("/proc/self/status", "VmRSS")); }

std::optional<std::int64_t> peak_bytes() {
  const std::int64_t bytes = amount(value_of("/proc/self/status", "VmHWM"));
  return bytes > 0 ? std::optional(bytes) : std::nullopt;
}

bool reset_peak() {
  std::ofstream out("/proc/self/clear_refs");
  out << "5\n";
  out.flush();
  return out.good();
}

const char* build_commit() { return BRAGG_COMMIT; }

}  // namespace bragg::bench
