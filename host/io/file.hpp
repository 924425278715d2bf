// SPDX-License-Identifier: Apache-2.0
// Files read by position, and output files that appear whole or not at all.
#pragma once

#include <bragg/error.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace bragg::detail {

/// A name from a file, fit for a message: in double quotes, control characters escaped, long ones cut.
std::string show(std::string_view text);

/// Bytes of the character at a place of UTF-8 text if a terminal would obey rather than show it, or show what
/// follows elsewhere: C0, DEL, C1, the marks of bidirectional text, separators of lines. Else 0.
std::size_t control_at(std::string_view text, std::size_t at);

/// @throws Error bad_file: "<path>: <what>".
[[noreturn]] void throw_bad_file(const std::filesystem::path& path, const std::string& what);

/// @throws Error "<path>: cannot <action>: <text of errno>": io_error, or out_of_memory where the system has
/// no more memory or descriptors.
[[noreturn]] void throw_io_error(const std::filesystem::path& path, const char* action, int error_number);

/// Tells whether a path still leads to the file that was opened, unchanged. `changed_ns` (ctime) is what the
/// file's owner cannot set back.
struct FileId {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t size = 0;
  std::int64_t modified_ns = 0;
  std::int64_t changed_ns = 0;
  bool operator==(const FileId&) const = default;
};

/// Files that one run may hold open between reads: an eighth of what the process may have open. The system
/// reads ahead of a file that stays open, and hardly of one that is opened again for each window.
std::size_t files_to_hold();

/// A regular file open for reading by position. Reads rather than maps: a file that shrinks meanwhile is an
/// error here and would be a signal there.
class ReadFile {
 public:
  /// @throws Error io_error; bad_file where path is not a regular file.
  explicit ReadFile(std::filesystem::path path);
  ~ReadFile();
  ReadFile(ReadFile&& other) noexcept;
  ReadFile& operator=(ReadFile&& other) noexcept;

  const std::filesystem::path& path() const noexcept { return path_; }
  const FileId& id() const noexcept { return id_; }
  std::int64_t size() const noexcept { return id_.size; }
  int descriptor() const noexcept { return descriptor_; }

  /// Reads exactly `bytes` bytes at `offset`. @throws Error io_error; bad_file where the file ends before.
  void read(std::int64_t offset, void* to, std::int64_t bytes) const;

  /// @throws Error bad_file where the file is no longer what it was when it was opened.
  void check_unchanged() const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  FileId id_;
};

/// The target of a path through symbolic links; it need not exist.
std::filesystem::path follow_links(std::filesystem::path path);

/// Whether both paths lead to one place, whether or not a file is there yet.
bool same_place(const std::filesystem::path& a, const std::filesystem::path& b);

/// A file that appears at `path` whole or not at all: it has no name until commit(), where the file system
/// can do that, else a temporary one beside `path`. A symbolic link is followed; a file that was there keeps
/// its mode.
class OutputFile {
 public:
  /// Reserves `bytes` bytes. `temporary`: its name from the start, by which others join; empty: if any, one
  /// that is made here. @throws Error io_error; invalid_argument where path is there and not a regular file.
  OutputFile(const std::filesystem::path& path, std::int64_t bytes,
             const std::filesystem::path& temporary = {});
  /// A file that another process makes and commits: this one writes to it, and leaves. While this lives, the
  /// temporary name is this one's to remove, too, whether or not it is there yet.
  static std::unique_ptr<OutputFile> join(const std::filesystem::path& path,
                                          const std::filesystem::path& temporary);
  /// A new name beside `path`.
  static std::filesystem::path make_temporary(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::int64_t offset, const void* from, std::int64_t bytes);
  /// Flushes to disk and renames.
  void commit();
  /// Of a file that was joined and is there now. @throws Error io_error.
  void open();
  /// Of a file that was joined: flushes to disk, and writes no more.
  void leave();

 private:
  OutputFile() = default;
  friend void commit_together(std::span<OutputFile* const> files);

  std::filesystem::path folder() const;
  void flush();
  /// Gives the file its name. The lock of all outputs is held. `undoable`: keeps what was there before, for
  /// undo_rename, until forget_former.
  void rename_to_path(bool undoable);
  /// What was there before is there again, or nothing; the new file is gone.
  void undo_rename() noexcept;
  void keep_former();
  void forget_former() noexcept;
  std::filesystem::path make_name() const { return make_temporary(path_); }
  /// A name beside `path`, known to abandon_outputs() while it is there.
  void set_temporary(std::filesystem::path name);
  void remove_temporary() noexcept;
  /// Its name is final, or gone, or somebody else's. The lock of all outputs is held.
  void forget_temporary() noexcept;

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty: nothing to remove
  std::filesystem::path former_;     // another name of the file that was there
  bool stays_ = false;               // nobody could keep the file that was there
  int descriptor_ = -1;
};

/// Commits files that belong together: flushes all to disk, then renames them in this order. If one fails,
/// all former files are there again (where the file system has hard links, which keep them until then). A
/// signal finds all new or all former ones; a process that is killed may have renamed the first of them, and
/// leaves the former file of each, while it is kept, under a temporary name beside it.
void commit_together(std::span<OutputFile* const> files);

/// A folder for outputs, which may be there. One that is made here is removed again unless it is kept.
class OutputFolder {
 public:
  /// @throws Error io_error; invalid_argument where path is there and no folder.
  explicit OutputFolder(const std::filesystem::path& path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  void keep();

 private:
  std::filesystem::path made_;  // empty: nothing to remove
};

/// For a process that is about to end: removes every temporary file and every folder made for outputs that
/// are not there, and keeps outputs from appearing, for ever. Returns how many had appeared before.
int abandon_outputs();

}  // namespace bragg::detail
