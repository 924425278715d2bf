// SPDX-License-Identifier: Apache-2.0
#include "host/bench/files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>
#include <bragg/error.hpp>
#include <bragg/io.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string>
#include <system_error>

#include "host/base/team.hpp"
#include "host/bench/data.hpp"

namespace bragg::bench {

namespace fs = std::filesystem;

namespace {

class OpenFile {
 public:
  explicit OpenFile(const fs::path& path, int how = O_RDONLY)
      : number_(open(path.c_str(), how | O_CLOEXEC, 0666)) {}
  ~OpenFile() {
    if (number_ >= 0) close(number_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int number() const noexcept { return number_; }

 private:
  int number_;
};

/// Reads a file to its end. The error of the system, or 0.
int read_all(const fs::path& path, std::span<std::byte> piece) {
  const OpenFile file(path);
  if (file.number() < 0) return errno;
  posix_fadvise(file.number(), 0, 0, POSIX_FADV_SEQUENTIAL);
  while (true) {
    const ssize_t got = ::read(file.number(), piece.data(), piece.size());
    if (got == 0) return 0;
    if (got < 0 && errno != EINTR) return errno;
  }
}

/// The share of a file's pages that are in memory. 1 where that cannot be told.
double share_in_memory(int file, std::size_t bytes) {
  void* const at = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) return 1;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((bytes + page - 1) / page);
  const bool told = mincore(at, bytes, pages.data()) == 0;
  munmap(at, bytes);
  const auto there = std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1U) != 0; });
  return told ? static_cast<double>(there) / static_cast<double>(pages.size()) : 1;
}

}  // namespace

WrittenUpdates::WrittenUpdates(const fs::path& folder, int n, const Size& size, DType dtype)
    : folder_(folder) {
  const std::vector<std::int64_t> sizes = file_tensor_sizes(size);
  std::string name = to_string(dtype);
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return 'a' <= c ? c - 'a' + 'A' : c; });
  for (int i = 0; i < n; ++i) {
    const Buffer row = random_row(i, n, size.d, dtype);
    std::vector<TensorToWrite> tensors;
    const unsigned char* at = row.data();
    for (const std::int64_t elements : sizes) {
      tensors.push_back({.name = fmt::format("tensor.{:03}", tensors.size()),
                         .dtype = name,
                         .shape = {elements},
                         .data = at});
      at += static_cast<std::size_t>(elements) * size_of(dtype);
    }
    files_.push_back(folder_.path() / fmt::format("worker-{:05}.safetensors", i));
    write_safetensors(files_.back(), tensors);
    bytes_ += fs::file_size(files_.back());
  }
}

void WrittenUpdates::read(int threads) const {
  constexpr std::size_t piece = std::size_t{1} << 18;
  std::atomic<int> error = 0;
  std::vector<std::byte> pieces(piece * static_cast<std::size_t>(detail::threads_of(threads)));
#pragma omp parallel for schedule(dynamic) num_threads(detail::team(detail::threads_of(threads)))
  for (const fs::path& path : files_) {
    const auto own = static_cast<std::size_t>(omp_get_thread_num()) * piece;
    if (const int failed = read_all(path, std::span(pieces).subspan(own, piece)); failed != 0) error = failed;
  }
  if (error != 0) {
    throw Error(Status::io_error, fmt::format("{}: cannot be read: {}", folder_.path().string(),
                                              std::generic_category().message(error)));
  }
}

double WrittenUpdates::write() const {
  constexpr std::size_t piece = std::size_t{1} << 18;
  const std::vector<std::byte> values(piece, std::byte{1});
  const std::uint64_t bytes = bytes_ / files_.size();
  const auto start = std::chrono::steady_clock::now();
  double seconds = 0;
  {
    const OpenFile file(output(), O_WRONLY | O_CREAT);
    bool failed = file.number() < 0;
    for (std::uint64_t done = 0; done < bytes && !failed;) {
      const ssize_t put = ::write(file.number(), values.data(), std::min<std::uint64_t>(piece, bytes - done));
      failed = put < 0 && errno != EINTR;
      done += put > 0 ? static_cast<std::uint64_t>(put) : 0;
    }
    if (failed || fsync(file.number()) != 0) {
      throw Error(Status::io_error, fmt::format("{}: cannot be written: {}", output().string(),
                                                std::generic_category().message(errno)));
    }
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  remove_output();
  return seconds;
}

void WrittenUpdates::remove_output() const {
  std::error_code ignored;
  fs::remove(output(), ignored);
}

bool WrittenUpdates::forget() const {
  for (const fs::path& path : files_) {
    const OpenFile file(path);
    fdatasync(file.number());  // what is still to be written stays
    posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED);
    if (share_in_memory(file.number(), static_cast<std::size_t>(fs::file_size(path))) > 0.01) return false;
  }
  return true;
}

std::uint64_t free_bytes(const fs::path& folder) {
  std::error_code code;
  const fs::space_info space = fs::space(folder, code);
  if (code) throw Error(Status::io_error, fmt::format("--files: {}: {}", folder.string(), code.message()));
  return space.available;
}

}  // namespace bragg::bench
