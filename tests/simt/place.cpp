// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/place.hpp"

#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "tests/simt/block.hpp"

extern "C" {
extern char __executable_start[];
extern char etext[];
extern char _end[];
}

namespace bragg::detail::simt {
namespace {

Place offset_of(const void* p) {
  return in_image(p) ? static_cast<Place>(static_cast<const char*>(p) - __executable_start) : 0;
}

/// What addresses in the file must have added to be those in memory.
std::uintptr_t load_address() {
  std::uintptr_t address = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* result) {
        *static_cast<std::uintptr_t*>(result) = info->dlpi_addr;
        return 1;  // the program itself comes first
      },
      &address);
  return address;
}

std::string instruction_to_string(const char* instruction) {
  char text[512];
  // A call returns behind the access.
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(instruction) - load_address() - 1;
  std::snprintf(text, sizeof(text), "addr2line -ie /proc/%d/exe 0x%zx 2>/dev/null",
                static_cast<int>(getpid()), static_cast<std::size_t>(address));
  std::FILE* const pipe = popen(text, "r");
  std::string place = "?";
  while (pipe != nullptr && std::fgets(text, sizeof(text), pipe) != nullptr) {
    const char* const slash = std::strrchr(text, '/');
    place = slash != nullptr ? slash + 1 : text;
    place = place.substr(0, place.find_first_of(" \n"));
    break;
  }
  if (pipe != nullptr) pclose(pipe);
  return place;
}

}  // namespace

bool in_image(const void* p) { return p >= __executable_start && p < _end; }

// A Site is a pointer to what the compiler keeps about it among the program's constants.
static_assert(sizeof(Site) == sizeof(void*));

Place place_of(const Site& site) {
  const void* data;
  std::memcpy(&data, &site, sizeof(data));
  return offset_of(data);
}
Place place_of(const void* instruction) { return offset_of(instruction); }

std::string to_string(Place place) {
  if (place == 0) return "?";
  const char* const p = __executable_start + place;
  if (p < etext) {
    static std::map<Place, std::string> known;
    std::string& text = known[place];
    if (text.empty()) text = instruction_to_string(p);
    return text;
  }
  Site site;
  std::memcpy(static_cast<void*>(&site), &p, sizeof(p));
  return to_string(site);
}

}  // namespace bragg::detail::simt
