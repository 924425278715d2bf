// SPDX-License-Identifier: Apache-2.0
// Files for tests: a folder that goes away, whole contents, safetensors made by hand.
#pragma once

#include <stdlib.h>  // NOLINT: mkdtemp

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace bragg::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (base() / "bragg-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create " + name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  std::ptrdiff_t entries() const {
    return std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator());
  }

 private:
  /// In memory where there is room: the library flushes each output, which costs 50 ms on some disks.
  static std::filesystem::path base() {
    std::error_code error;
    const std::filesystem::path memory = "/dev/shm";
    constexpr std::uintmax_t room = std::uintmax_t{1} << 30;
    const auto space = std::filesystem::space(memory, error);
    return !error && space.available > room ? memory : std::filesystem::temp_directory_path();
  }

  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::remove(
      path);  // some file systems flush a file that is truncated and rewritten: 5 ms a time
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The file that a header and data make; `length` instead of the header's true one.
inline std::string safetensors_bytes(const std::string& header, const std::string& data,
                                     std::uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xFF);
  return bytes + header + data;
}
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return safetensors_bytes(header, data, header.size());
}

/// An npy file of version 1.0 with this dict, as it stands.
inline std::string npy_bytes(const std::string& dict, const std::string& data, char version = 1) {
  std::string bytes("\x93NUMPY", 6);
  bytes += version;
  bytes += '\0';
  bytes += static_cast<char>(dict.size() & 0xFF);
  bytes += static_cast<char>(dict.size() >> 8);
  if (version > 1) bytes += std::string(2, '\0');
  return bytes + dict + data;
}

}  // namespace bragg::test
