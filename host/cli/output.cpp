// SPDX-License-Identifier: Apache-2.0
#include "host/cli/output.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <bragg/error.hpp>

#include <cerrno>
#include <fstream>
#include <system_error>

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const char* option, const fs::path& path, const std::string& why) {
  throw Error(Status::io_error, fmt::format("{}: {}: {}", option, path.string(), why));
}

}  // namespace

void check_writable(const char* option, const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) fail(option, path, "its folder does not exist");
  if (access(folder.c_str(), W_OK) != 0) fail(option, path, "its folder cannot be written to");
  if (fs::is_directory(path, ignored)) fail(option, path, "is a folder");
}

void write_whole(const char* option, const fs::path& path, const std::string& text) {
  fs::path temporary = path;
  temporary += fmt::format(".{}.tmp", getpid());
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  std::error_code code;
  if (out) fs::rename(temporary, path, code);
  if (!out || code) {
    const std::string why = code ? code.message() : std::generic_category().message(errno);
    fs::remove(temporary, code);
    fail(option, path, why);
  }
}

}  // namespace bragg::cli
