// SPDX-License-Identifier: Apache-2.0
// Drives a fuzz target where there is no libFuzzer: NAME_fuzz_test CORPUS SECONDS runs every file of the
// corpus, and then mutations of them, drawn from BRAGG_TEST_SEED, until the time is up. What fails is left in
// a file.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "tests/fuzz/target.hpp"
#include "tests/support/seed.hpp"

namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t most = 4096;

std::mt19937_64 generator;
std::vector<Bytes> corpus;
Bytes running;

std::size_t below(std::size_t bound) { return static_cast<std::size_t>(generator() % bound); }

/// Only what a signal handler may do. Sanitizers abort as well.
void keep(int signal) {
  constexpr const char* name = "fuzz-failure.bin";
  constexpr const char message[] = "fuzz: the input is in fuzz-failure.bin\n";
  if (FILE* const file = std::fopen(name, "wb")) {
    std::fwrite(running.data(), 1, running.size(), file);
    std::fclose(file);
  }
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message, sizeof(message) - 1);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(Bytes bytes) {
  running = std::move(bytes);
  LLVMFuzzerTestOneInput(running.data(), running.size());
}

}  // namespace

extern "C" {

__attribute__((weak)) std::size_t LLVMFuzzerCustomMutator(std::uint8_t*, std::size_t, std::size_t, unsigned);

/// One change: a byte, a number, a piece removed, doubled, or taken from another file of the corpus.
std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t room) {
  Bytes bytes(data, data + size);
  const std::size_t at = below(size + 1);
  const std::size_t length = std::min(size - at, 1 + below(below(4) == 0 ? 64 : 8));
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (below(6)) {
    case 0:
      if (at < size) bytes[at] = static_cast<std::uint8_t>(generator());
      break;
    case 1:
      if (at < size) bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1U << below(8)));
      break;
    case 2:
      bytes.erase(begin, begin + static_cast<std::ptrdiff_t>(length));
      break;
    case 3: {
      const Bytes piece(begin, begin + static_cast<std::ptrdiff_t>(length));
      bytes.insert(begin, piece.begin(), piece.end());
      break;
    }
    case 4: {
      const Bytes& other = corpus[below(corpus.size())];
      if (other.empty()) break;
      const std::size_t from = below(other.size());
      const std::size_t count = std::min(other.size() - from, 1 + below(32));
      const auto first = other.begin() + static_cast<std::ptrdiff_t>(from);
      bytes.insert(begin, first, first + static_cast<std::ptrdiff_t>(count));
      break;
    }
    default: {
      constexpr const char* numbers[] = {"0",          "-1",   "18446744073709551616", "9223372036854775807",
                                         "4294967296", "1e400"};
      const char* const number = numbers[below(std::size(numbers))];
      bytes.insert(begin, number, number + std::strlen(number));
    }
  }
  bytes.resize(std::min(bytes.size(), room));
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}

}  // extern "C"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s CORPUS SECONDS\n", argv[0]);
    return 2;
  }
  generator.seed(bragg::test::session_seed());
  for (const int signal : {SIGABRT, SIGSEGV, SIGFPE, SIGILL, SIGBUS}) std::signal(signal, keep);

  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(argv[1])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    std::ifstream in(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    run(corpus.back());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "%s holds no file\n", argv[1]);
    return 1;
  }
  long mutations = 0;
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(std::atof(argv[2]));
  for (; Clock::now() < end; ++mutations) {
    Bytes bytes = corpus[below(corpus.size())];
    std::size_t size = std::min(bytes.size(), most);
    bytes.resize(most);
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
      size = LLVMFuzzerCustomMutator != nullptr
                 ? LLVMFuzzerCustomMutator(bytes.data(), size, most, static_cast<unsigned>(generator()))
                 : LLVMFuzzerMutate(bytes.data(), size, most);
    }
    bytes.resize(size);
    run(std::move(bytes));
  }
  std::printf("%zu files, %ld mutations\n", corpus.size(), mutations);
  return 0;
}
