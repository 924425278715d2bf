// SPDX-License-Identifier: Apache-2.0
#include "host/io/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <random>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "host/io/stream.hpp"

namespace bragg::detail {

namespace fs = std::filesystem;

std::size_t control_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t k) {
    return at + k < text.size() ? static_cast<unsigned char>(text[at + k]) : 0U;
  };
  if (byte(0) < 0x20 || byte(0) == 0x7F) return 1;
  if (byte(0) == 0xC2 && byte(1) >= 0x80 && byte(1) <= 0x9F) return 2;  // C1
  if (byte(0) == 0xD8 && byte(1) == 0x9C) return 2;                     // U+061C
  if (byte(0) != 0xE2) return 0;
  const unsigned last = byte(1) << 8 | byte(2);
  const bool obeyed = last == 0x808E || last == 0x808F ||    // U+200E, U+200F
                      (last >= 0x80A8 && last <= 0x80AE) ||  // U+2028 to U+202E
                      (last >= 0x81A6 && last <= 0x81A9);    // U+2066 to U+2069
  return obeyed ? 3 : 0;
}

std::string show(std::string_view text) {
  constexpr std::size_t longest = 120;
  std::string out = "\"";
  std::size_t end = text.size();
  if (end > longest) {
    end = longest;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
      --end;  // not within a UTF-8 character
  }
  std::size_t escaped = 0;  // up to here
  for (std::size_t i = 0; i < end; ++i) {
    const char c = text[i];
    escaped = std::max(escaped, i + control_at(text, i));
    if (i < escaped || c == '"' || c == '\\') {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
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
  // What this process or machine has no more of is no fault of the file's.
  const bool is_shortage = error_number == EMFILE || error_number == ENFILE || error_number == ENOMEM;
  throw Error(
      is_shortage ? Status::out_of_memory : Status::io_error,
      fmt::format("{}: cannot {}: {}", path.string(), action, std::system_category().message(error_number)));
}

namespace {

std::int64_t nanoseconds(const struct timespec& time) {
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

FileId id_of(const struct stat& status) {
  return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino),
          static_cast<std::int64_t>(status.st_size), nanoseconds(status.st_mtim),
          nanoseconds(status.st_ctim)};
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

std::size_t files_to_hold() {
  rlimit most{};
  return ::getrlimit(RLIMIT_NOFILE, &most) == 0 ? static_cast<std::size_t>(most.rlim_cur / 8) : 0;
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
    if (got == 0) {
      check_unchanged();
      throw_bad_file(path_, fmt::format("ends at byte {}, expected {} bytes more", offset, bytes));
    }
    target += got;
    offset += got;
    bytes -= got;
  }
}

void ReadFile::check_unchanged() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) throw_io_error(path_, "examine it", errno);
  if (id_of(status) != id_) throw_bad_file(path_, "changed while it was being read");
}

fs::path follow_links(fs::path path) {
  constexpr int most_links = 40;  // as the kernel
  std::error_code error;
  for (int link = 0; link < most_links && fs::is_symlink(fs::symlink_status(path, error)); ++link) {
    fs::path target = fs::read_symlink(path, error);
    if (error) break;
    if (target.is_relative()) target = path.parent_path() / target;
    // /dev/stdout ends at a link whose text is no path.
    if (fs::exists(path, error) && !fs::exists(target, error)) break;
    path = std::move(target);
  }
  return path;
}

bool same_place(const fs::path& a, const fs::path& b) {
  std::error_code error;
  if (fs::equivalent(a, b, error)) return true;
  // A relative name that leads nowhere stays relative in weakly_canonical.
  const auto place = [&](const fs::path& path) {
    return fs::weakly_canonical(fs::absolute(follow_links(path), error), error);
  };
  return place(a) == place(b);
}

namespace {

/// The open outputs, for abandon_outputs().
struct Outputs {
  std::mutex mutex;  // held from before a name is made to after it is gone or final
  std::vector<fs::path> temporary, folders;
  int committed = 0;
};

Outputs& outputs() {
  static Outputs* const all = new Outputs;  // needed to the very end of the process
  return *all;
}

int open_unnamed([[maybe_unused]] const fs::path& folder, [[maybe_unused]] mode_t mode) {
#ifdef O_TMPFILE
  return open_retrying(folder, O_WRONLY | O_TMPFILE, mode);
#else
  return -1;
#endif
}

/// Fails where `name` is there.
bool give_name(int descriptor, const fs::path& name) {
  const std::string unnamed = fmt::format("/proc/self/fd/{}", descriptor);
  return ::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
}

/// A rename outlives a power cut only when its folder is flushed too; where that is refused, so be it.
void flush_folder(const fs::path& folder) {
  const int descriptor = open_retrying(folder, O_RDONLY);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

/// Whether the folder's file system has files that are made without a name and can be given one. Tried, as no
/// other answer holds for what lies above it (containers, networks, no /proc).
bool can_name_later(const fs::path& folder, const fs::path& name) {
  const int descriptor = open_unnamed(folder, 0600);
  if (descriptor < 0) return false;
  const std::lock_guard lock(outputs().mutex);
  const bool named = give_name(descriptor, name);
  if (named) ::unlink(name.c_str());
  ::close(descriptor);
  return named;
}

}  // namespace

int abandon_outputs() {
  Outputs& all = outputs();
  all.mutex.lock();  // never unlocked
  for (const fs::path& name : all.temporary) ::unlink(name.c_str());
  for (const fs::path& folder : all.folders) ::rmdir(folder.c_str());
  return all.committed;
}

OutputFile::OutputFile(const fs::path& path, std::int64_t bytes, const fs::path& temporary)
    : path_(follow_links(path)) {
  if (is_descriptor(path)) {
    throw Error(Status::invalid_argument,
                fmt::format("output {} is a descriptor of an open file, which nothing may take the place of; "
                            "give the name of a file",
                            show(path.string())));
  }
  struct stat there {};
  const bool exists = ::stat(path_.c_str(), &there) == 0;
  if (exists && !S_ISREG(there.st_mode)) {
    throw Error(Status::invalid_argument,
                fmt::format("output {} exists and is not a regular file; give the name of a file",
                            show(path.string())));
  }
  const mode_t mode = exists ? there.st_mode & 07777 : 0666;
  if (temporary.empty() && can_name_later(folder(), make_name())) descriptor_ = open_unnamed(folder(), mode);
  for (int attempt = 0; descriptor_ < 0 && attempt < 100; ++attempt) {
    const std::lock_guard lock(outputs().mutex);
    const fs::path name = temporary.empty() ? make_name() : temporary;
    descriptor_ = open_retrying(name, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (descriptor_ >= 0) set_temporary(name);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) throw_io_error(path, "create a temporary file beside it", errno);
  int failure = ::ftruncate(descriptor_, bytes) == 0 ? 0 : errno;
  if (failure == 0 && exists && ::fchmod(descriptor_, mode) != 0) failure = errno;  // whatever the umask is
#ifdef __linux__
  // A disk that is too full fails now rather than after all the reading. Not every file system can tell.
  if (failure == 0 && bytes > 0 && ::fallocate(descriptor_, 0, 0, bytes) != 0) {
    failure = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR ? 0 : errno;
  }
#endif
  if (failure != 0) {
    ::close(descriptor_);
    remove_temporary();
    throw_io_error(path, fmt::format("reserve {} bytes for it", bytes).c_str(), failure);
  }
}

std::unique_ptr<OutputFile> OutputFile::join(const fs::path& path, const fs::path& temporary) {
  std::unique_ptr<OutputFile> file(new OutputFile);
  file->path_ = follow_links(path);
  const std::lock_guard lock(outputs().mutex);
  file->set_temporary(temporary);
  return file;
}

void OutputFile::open() {
  descriptor_ = open_retrying(temporary_, O_WRONLY);
  if (descriptor_ >= 0) return;
  const std::string action =
      fmt::format("open {}, which another rank made for it: all need one file system", temporary_.string());
  throw_io_error(path_, action.c_str(), errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  remove_temporary();
}

fs::path OutputFile::folder() const { return path_.has_parent_path() ? path_.parent_path() : fs::path("."); }

fs::path OutputFile::make_temporary(const fs::path& path) {
  std::random_device random;
  const fs::path place = follow_links(path);
  return (place.has_parent_path() ? place.parent_path() : fs::path(".")) /
         fmt::format(".bragg-{:08x}{:08x}.tmp", random(), random());
}

void OutputFile::set_temporary(fs::path name) {
  outputs().temporary.push_back(name);
  temporary_ = std::move(name);
}

void OutputFile::remove_temporary() noexcept {
  if (temporary_.empty()) return;
  const std::lock_guard lock(outputs().mutex);
  ::unlink(temporary_.c_str());
  forget_temporary();
}

/// Of equal ones, which ranks that are threads have, one.
void OutputFile::forget_temporary() noexcept {
  auto& all = outputs().temporary;
  const auto at = std::find(all.begin(), all.end(), temporary_);
  if (at != all.end()) all.erase(at);
  temporary_.clear();
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

void OutputFile::flush() {
  if (::fsync(descriptor_) != 0) throw_io_error(path_, "flush it to disk", errno);
}

void OutputFile::leave() {
  flush();
  if (::close(std::exchange(descriptor_, -1)) != 0) throw_io_error(path_, "close it", errno);
}

void OutputFile::rename_to_path(bool undoable) {
  // link() replaces nothing, so that a file without a name gets a temporary one first.
  for (int attempt = 0; temporary_.empty() && attempt < 100; ++attempt) {
    const fs::path name = make_name();
    if (give_name(descriptor_, name)) {
      set_temporary(name);
    } else if (errno != EEXIST) {
      break;
    }
  }
  if (temporary_.empty()) throw_io_error(path_, "give the finished file a name beside it", errno);
  if (undoable) keep_former();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0)
    throw_io_error(path_, "rename the finished file to it", errno);
  forget_temporary();
}

void OutputFile::keep_former() {
  fs::path name = make_name();
  if (::link(path_.c_str(), name.c_str()) == 0) {
    outputs().temporary.push_back(name);
    former_ = std::move(name);
  } else {
    stays_ = errno != ENOENT;  // a file system without links
  }
}

void OutputFile::forget_former() noexcept {
  if (former_.empty()) return;
  ::unlink(former_.c_str());
  std::erase(outputs().temporary, former_);
  former_.clear();
}

void OutputFile::undo_rename() noexcept {
  if (!former_.empty()) {
    ::rename(former_.c_str(), path_.c_str());
    forget_former();
  } else if (!stays_) {
    ::unlink(path_.c_str());
  }
}

void OutputFile::commit() {
  OutputFile* const alone = this;
  commit_together({&alone, 1});
}

void commit_together(std::span<OutputFile* const> files) {
  for (OutputFile* const file : files) file->flush();
  {
    const std::lock_guard lock(outputs().mutex);
    std::size_t renamed = 0;
    try {
      for (; renamed < files.size(); ++renamed) files[renamed]->rename_to_path(renamed + 1 < files.size());
    } catch (...) {
      files[renamed]->forget_former();
      while (renamed > 0) files[--renamed]->undo_rename();
      throw;
    }
    for (OutputFile* const file : files) file->forget_former();
    ++outputs().committed;
  }
  std::set<fs::path> folders;
  for (OutputFile* const file : files) {
    ::close(std::exchange(file->descriptor_, -1));
    folders.insert(file->folder());
  }
  for (const fs::path& folder : folders) flush_folder(folder);
}

OutputFolder::OutputFolder(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return;
  const std::lock_guard lock(outputs().mutex);
  if (::mkdir(path.c_str(), 0777) != 0) {
    if (errno == EEXIST) {
      throw Error(
          Status::invalid_argument,
          fmt::format("output {} exists and is no folder; give the name of a folder", show(path.string())));
    }
    throw_io_error(path, "make this folder", errno);
  }
  outputs().folders.push_back(path);
  made_ = path;
}

OutputFolder::~OutputFolder() {
  if (made_.empty()) return;
  const std::lock_guard lock(outputs().mutex);
  ::rmdir(made_.c_str());
  std::erase(outputs().folders, made_);
}

void OutputFolder::keep() {
  const std::lock_guard lock(outputs().mutex);
  std::erase(outputs().folders, made_);
  made_.clear();
}

}  // namespace bragg::detail
