// SPDX-License-Identifier: Apache-2.0
#include "host/io/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <random>
#include <system_error>
#include <utility>

namespace bragg::detail {

namespace fs = std::filesystem;

std::string show(std::string_view text) {
  constexpr std::size_t longest = 120;
  std::string out = "\"";
  std::size_t end = text.size();
  if (end > longest) {
    end = longest;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
      --end;  // not within a UTF-8 character
  }
  for (const char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || c == '"' || c == '\\') {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + (end < text.size() ? "…\"" : "\"");
}

void throw_bad_file(const fs::path& path, const std::string& what) {
  throw Error(Status::bad_file, path.string() + ": " + what);
}

void throw_io_error(const fs::path& path, const char* action, int error_number) {
  throw Error(Status::io_error, fmt::format("{}: cannot {}: {}", path.string(), action,
                                            std::system_category().message(error_number)));
}

namespace {

FileId id_of(const struct stat& status) {
  return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino),
          static_cast<std::int64_t>(status.st_size),
          static_cast<std::int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec};
}

int open_retrying(const fs::path& path, int flags, mode_t mode = 0) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

}  // namespace

ReadFile::ReadFile(fs::path path) : path_(std::move(path)) {
  // O_NONBLOCK: opening a pipe must fail below, not hang here.
  descriptor_ = open_retrying(path_, O_RDONLY | O_NONBLOCK);
  if (descriptor_ < 0) throw_io_error(path_, "open it", errno);
  struct stat status {};
  const int failure = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (failure != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    if (failure != 0) throw_io_error(path_, "examine it", failure);
    throw_bad_file(path_, "is not a regular file");
  }
  id_ = id_of(status);
}

ReadFile::~ReadFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

ReadFile::ReadFile(ReadFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), id_(other.id_) {}

ReadFile& ReadFile::operator=(ReadFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(id_, other.id_);
  return *this;
}

void ReadFile::read(std::int64_t offset, void* to, std::int64_t bytes) const {
  auto* target = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, target, static_cast<std::size_t>(bytes), offset);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw_io_error(path_, "read it", errno);
    }
    if (got == 0)
      throw_bad_file(path_, fmt::format("ends at byte {}, expected {} bytes more", offset, bytes));
    target += got;
    offset += got;
    bytes -= got;
  }
}

OutputFile::OutputFile(fs::path path, std::int64_t bytes) : path_(std::move(path)) {
  std::error_code ignored;
  const auto kind = fs::status(path_, ignored).type();
  if (kind != fs::file_type::not_found && kind != fs::file_type::none && kind != fs::file_type::regular) {
    throw Error(Status::invalid_argument,
                fmt::format("output \"{}\" is there and is not a regular file; give the name of a file",
                            path_.string()));
  }
  const fs::path folder = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  std::random_device random;
  for (int attempt = 0; descriptor_ < 0 && attempt < 100; ++attempt) {
    temporary_ = folder / fmt::format(".bragg-{:08x}{:08x}.tmp", random(), random());
    descriptor_ = open_retrying(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) throw_io_error(path_, "create a temporary file beside it", errno);
  int failure = ::ftruncate(descriptor_, bytes) == 0 ? 0 : errno;
#ifdef __linux__
  // A disk that is too full fails now rather than after all the reading. Not every file system can tell.
  if (failure == 0 && bytes > 0 && ::fallocate(descriptor_, 0, 0, bytes) != 0) {
    failure = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR ? 0 : errno;
  }
#endif
  if (failure != 0) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
    throw_io_error(path_, fmt::format("reserve {} bytes for it", bytes).c_str(), failure);
  }
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::write(std::int64_t offset, const void* from, std::int64_t bytes) {
  const auto* source = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = ::pwrite(descriptor_, source, static_cast<std::size_t>(bytes), offset);
    if (put < 0) {
      if (errno == EINTR) continue;
      throw_io_error(path_, "write it", errno);
    }
    source += put;
    offset += put;
    bytes -= put;
  }
}

void OutputFile::commit() {
  if (::fsync(descriptor_) != 0) throw_io_error(path_, "flush it to disk", errno);
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (closed != 0) throw_io_error(path_, "close it", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0)
    throw_io_error(path_, "rename the finished file to it", errno);
  temporary_.clear();
  // The rename itself outlives a power cut only when the folder is flushed too; where that is refused, so be
  // it.
  const int folder = open_retrying(path_.has_parent_path() ? path_.parent_path() : fs::path("."), O_RDONLY);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
}

}  // namespace bragg::detail
