// SPDX-License-Identifier: Apache-2.0
#include "host/io/stream.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "host/io/file.hpp"

namespace bragg::detail {

namespace fs = std::filesystem;

namespace {

constexpr int of_another = -1;

/// The descriptor of this process, open or not, that a path leads to; `of_another`: that of another process.
std::optional<int> descriptor_at(fs::path path) {
  constexpr int most_links = 40;  // as the kernel
  std::error_code error;
  for (int link = 0; link <= most_links; ++link) {
    const fs::path folder = fs::canonical(path.has_parent_path() ? path.parent_path() : fs::path("."), error);
    if (error) return std::nullopt;
    const std::string place = folder.string(), name = path.filename().string();
    int number = -1;
    const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), number);
    const bool is_number = code == std::errc{} && end == name.data() + name.size() && number >= 0;
    const bool is_folder = place == "/dev/fd" || (place.starts_with("/proc/") && place.ends_with("/fd"));
    if (is_folder && is_number) {
      const fs::path self = fs::canonical("/proc/self", error);
      const bool own = place == "/dev/fd" || (!error && place.starts_with(self.string() + '/'));
      return own ? number : of_another;
    }
    if (!fs::is_symlink(fs::symlink_status(path, error))) return std::nullopt;
    fs::path target = fs::read_symlink(path, error);
    if (error) return std::nullopt;
    path = target.is_relative() ? path.parent_path() / target : std::move(target);
  }
  return std::nullopt;
}

int open_to_append(const fs::path& path) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

}  // namespace

bool is_descriptor(const fs::path& path) { return descriptor_at(path).has_value(); }

bool is_stream(const fs::path& path) {
  std::error_code ignored;
  const fs::file_status there = fs::status(path, ignored);
  return fs::is_character_file(there) || fs::is_fifo(there) || is_descriptor(path);
}

void check_stream(const fs::path& path) {
  const int descriptor = descriptor_at(path).value_or(of_another);
  if (descriptor == of_another) return;
  const int flags = ::fcntl(descriptor, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) throw_io_error(path, "write to it", EBADF);
}

OutputStream::OutputStream(fs::path path) : path_(std::move(path)) {
  const int descriptor = descriptor_at(path_).value_or(of_another);
  descriptor_ = descriptor == of_another ? open_to_append(path_) : ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (descriptor_ < 0) throw_io_error(path_, "open it", errno);
}

OutputStream::~OutputStream() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputStream::write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(descriptor_, text.data(), text.size());
    if (put >= 0) {
      text.remove_prefix(static_cast<std::size_t>(put));
    } else if (errno != EINTR) {
      throw_io_error(path_, "write to it", errno);
    }
  }
}

void OutputStream::close() {
  if (::close(std::exchange(descriptor_, -1)) != 0) throw_io_error(path_, "close it", errno);
}

}  // namespace bragg::detail
