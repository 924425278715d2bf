// SPDX-License-Identifier: Apache-2.0
// The device's limits, and what kernels declare: a BRAGG_SHARED is a static variable of its function, so its
// symbol's name begins with the function's, and the program's own symbol table tells of both.
#include "tests/simt/kernels.hpp"

#include <cxxabi.h>
#include <elf.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "kernels/runtime/runtime.hpp"
#include "tests/simt/simt_executor.hpp"
#include "tests/support/seed.hpp"

extern "C" const char __ehdr_start;  // where the program lies in memory

namespace bragg::detail::simt {
namespace {

constexpr std::size_t kilobyte = 1024;
constexpr std::size_t megabyte = 1024 * kilobyte;
constexpr std::size_t reserved_shared = kilobyte;  // of every block, by the system
constexpr int multiprocessor_threads = 2048;
constexpr int most_blocks = 3;  // few, so that grid-stride loops go round

constexpr DeviceProfile profiles[] = {
    {"8.6", 99 * kilobyte, 100 * kilobyte, 6 * megabyte},
    {"8.9", 99 * kilobyte, 100 * kilobyte, 72 * megabyte},
    {"12.0", 99 * kilobyte, 100 * kilobyte, 96 * megabyte},
    {"8.0", 163 * kilobyte, 164 * kilobyte, 40 * megabyte},
    {"10.0", 227 * kilobyte, 228 * kilobyte, 126 * megabyte},
    {"9.0", 227 * kilobyte, 228 * kilobyte, 50 * megabyte},
};

const DeviceProfile* profile_of_environment() {
  const char* const text = std::getenv("BRAGG_SIMT_DEVICE");
  if (text == nullptr || *text == '\0') return std::end(profiles) - 1;
  if (std::string_view(text) == "drawn") return greedy_is_drawn() ? profiles : std::end(profiles) - 1;
  for (const DeviceProfile& profile : profiles) {
    if (std::string_view(profile.compute_capability) == text) return &profile;
  }
  std::fprintf(stderr, "BRAGG_SIMT_DEVICE=%s is no choice\n", text);
  std::exit(2);
}

struct Device {
  std::mutex mutex;
  std::atomic<const DeviceProfile*> profile = profile_of_environment();
  std::map<const void*, std::size_t> allowed;  // dynamic shared memory by kernel
  std::uint64_t opt_ins = 0;
};
Device& device() {
  static Device* const d = new Device;
  return *d;
}

/// The program's own symbols.
class Symbols {
 public:
  Symbols() {
    std::ifstream file("/proc/self/exe", std::ios::binary);
    image_.assign(std::istreambuf_iterator<char>(file), {});
    const auto header = at<Elf64_Ehdr>(0);
    for (std::size_t i = 0; i < header.e_shnum; ++i) {
      const auto section = at<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr));
      if (section.sh_type == SHT_SYMTAB) read(section, header);
    }
    if (functions_.empty())
      throw std::runtime_error("the program has no symbol table: it may not be stripped");
  }

  const std::string* name_of(const void* function) const {
    const auto found = functions_.find(function);
    return found != functions_.end() ? &found->second : nullptr;
  }
  std::size_t declared_shared(const void* kernel) const {
    const std::string* const name = name_of(kernel);
    if (name == nullptr) return 0;
    // _Z… is the function; its variable is _ZZ…E, the length of its name, its name.
    const std::string prefix = "_Z" + name->substr(1) + "E";
    std::size_t bytes = 0;
    for (auto v = variables_.lower_bound(prefix); v != variables_.end(); ++v) {
      if (v->first.compare(0, prefix.size(), prefix) != 0) break;
      if (std::isdigit(static_cast<unsigned char>(v->first[prefix.size()])) == 0) continue;
      bytes += (static_cast<const StaticShared*>(v->second)->bytes + 15) / 16 * 16;
    }
    return bytes;
  }

 private:
  template <class T>
  T at(std::size_t offset) const {
    T value;
    if (offset + sizeof(T) > image_.size()) throw std::runtime_error("the program's file is cut off");
    std::memcpy(&value, image_.data() + offset, sizeof(T));
    return value;
  }

  void read(const Elf64_Shdr& table, const Elf64_Ehdr& header) {
    const auto names = at<Elf64_Shdr>(header.e_shoff + table.sh_link * sizeof(Elf64_Shdr));
    const char* const program = &__ehdr_start;
    const bool is_relocated = header.e_type == ET_DYN;
    for (std::size_t i = 0; i < table.sh_size / sizeof(Elf64_Sym); ++i) {
      const auto symbol = at<Elf64_Sym>(table.sh_offset + i * sizeof(Elf64_Sym));
      if (symbol.st_shndx == SHN_UNDEF) continue;
      const std::string_view name(image_.data() + names.sh_offset + symbol.st_name);
      const void* const address =
          is_relocated ? program + symbol.st_value : reinterpret_cast<const void*>(symbol.st_value);
      if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC) {
        functions_.emplace(address, name);
      } else if (ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT && name.substr(0, 3) == "_ZZ" &&
                 name.find("_shared") != std::string_view::npos && symbol.st_size == sizeof(StaticShared)) {
        variables_.emplace(name, address);
      }
    }
  }

  std::vector<char> image_;
  std::map<const void*, std::string> functions_;
  std::multimap<std::string, const void*> variables_;
};
const Symbols& symbols() {
  static const Symbols* const all = new Symbols;
  return *all;
}

}  // namespace

std::span<const DeviceProfile> device_profiles() { return profiles; }
const DeviceProfile& device_profile() { return *device().profile; }
void set_device_profile(const DeviceProfile& profile) {
  Device& d = device();
  {
    const std::lock_guard lock(d.mutex);
    d.profile = &profile;
    d.allowed.clear();
  }
  cuda::forget_kernels();
}
std::uint64_t opt_ins() {
  const std::lock_guard lock(device().mutex);
  return device().opt_ins;
}

bool greedy_is_drawn() { return test::session_seed() % 2 == 1; }

std::string name_of(const void* kernel) {
  const std::string* const name = symbols().name_of(kernel);
  if (name == nullptr) return "a kernel without a name";
  int status = 0;
  char* const demangled = abi::__cxa_demangle(name->c_str(), nullptr, nullptr, &status);
  std::string text = demangled != nullptr ? demangled : *name;
  std::free(demangled);
  return text;
}

std::size_t declared_shared(const void* kernel) {
  static std::mutex mutex;
  static std::map<const void*, std::size_t> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(kernel);
  if (found != known.end()) return found->second;
  return known[kernel] = symbols().declared_shared(kernel);
}

std::size_t allowed_shared(const void* kernel) {
  Device& d = device();
  const std::lock_guard lock(d.mutex);
  const auto found = d.allowed.find(kernel);
  return found != d.allowed.end() ? found->second + declared_shared(kernel) : plain_shared;
}

void allow_dynamic_shared(const void* kernel, std::size_t bytes) {
  const std::size_t has = device_profile().shared_of_block;
  if (bytes + declared_shared(kernel) > has) {
    throw Failure("launch: " + name_of(kernel) + " is to be allowed " + std::to_string(bytes) +
                  " bytes of dynamic shared memory beside the " + std::to_string(declared_shared(kernel)) +
                  " that it declares, of " + std::to_string(has));
  }
  Device& d = device();
  const std::lock_guard lock(d.mutex);
  d.allowed[kernel] = bytes;
  ++d.opt_ins;
}

}  // namespace bragg::detail::simt

namespace bragg::detail::cuda {

std::size_t most_shared_of_block(int) { return simt::device_profile().shared_of_block; }
int multiprocessors(int) { return 1; }
int compute_capability(int) {
  const std::string_view text = simt::device_profile().compute_capability;
  const std::size_t point = text.find('.');
  return 10 * std::atoi(text.substr(0, point).data()) + std::atoi(text.substr(point + 1).data());
}
std::size_t static_shared_of(const void* kernel) { return simt::declared_shared(kernel); }
void set_most_dynamic_shared(const void* kernel, std::size_t bytes) {
  simt::allow_dynamic_shared(kernel, bytes);
}
int blocks_of_multiprocessor(const void* kernel, int threads, std::size_t shared) {
  const std::size_t needs = simt::declared_shared(kernel) + shared;
  if (needs > simt::allowed_shared(kernel)) return 0;
  const std::size_t by_shared =
      simt::device_profile().shared_of_multiprocessor / (needs + simt::reserved_shared);
  const auto by_threads = static_cast<std::size_t>(simt::multiprocessor_threads / threads);
  return static_cast<int>(std::min({by_shared, by_threads, std::size_t{simt::most_blocks}}));
}

}  // namespace bragg::detail::cuda
