// SPDX-License-Identifier: Apache-2.0
#include "host/bench/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <bragg/error.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

#include "host/bench/threads.hpp"

namespace bragg::bench {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const std::string& what, int error) {
  throw Error(Status::io_error, fmt::format("{}: {}", what, std::generic_category().message(error)));
}

/// Both ends of a pipe, closed when this goes, and by a program that is started.
struct Pipe {
  std::array<int, 2> ends = {-1, -1};

  Pipe() {
    if (pipe2(ends.data(), O_CLOEXEC) != 0) fail("pipe", errno);
  }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_end(std::size_t end) {
    if (ends[end] >= 0) close(ends[end]);
    ends[end] = -1;
  }
};

/// What leave_nothing() has to clear away.
struct Leftovers {
  std::mutex mutex;  // held from before a thing is there to after it is in here, and the other way
  pid_t child = 0;
  std::vector<fs::path> folders;
};

Leftovers& leftovers() {
  static Leftovers* const all = new Leftovers;  // needed to the very end of the process
  return *all;
}

fs::path temporary_files() {
  std::error_code code;
  fs::path folder = fs::temp_directory_path(code);
  if (code) fail("the folder for temporary files", code.value());
  return folder;
}

/// Reads what both pipes give until they are closed at the other end.
void drain(Pipe& first, std::string& to_first, Pipe& second, std::string& to_second) {
  const std::array<Pipe*, 2> pipes = {&first, &second};
  const std::array<std::string*, 2> texts = {&to_first, &to_second};
  while (first.ends[0] >= 0 || second.ends[0] >= 0) {
    std::array<pollfd, 2> waits = {{{first.ends[0], POLLIN, 0}, {second.ends[0], POLLIN, 0}}};
    if (poll(waits.data(), waits.size(), -1) < 0) continue;  // interrupted
    for (std::size_t i = 0; i < waits.size(); ++i) {
      if (waits[i].fd < 0 || waits[i].revents == 0) continue;
      std::array<char, 4096> some = {};
      const ssize_t got = read(waits[i].fd, some.data(), some.size());
      if (got > 0) {
        texts[i]->append(some.data(), static_cast<std::size_t>(got));
      } else if (got == 0 || errno != EINTR) {
        pipes[i]->close_end(0);
      }
    }
  }
}

}  // namespace

TemporaryFolder::TemporaryFolder() : TemporaryFolder(temporary_files()) {}

TemporaryFolder::TemporaryFolder(const fs::path& in) {
  std::string name = (in / "bragg-bench-XXXXXX").string();
  const std::lock_guard lock(leftovers().mutex);
  if (mkdtemp(name.data()) == nullptr) fail(fmt::format("{}: cannot make a temporary folder", name), errno);
  path_ = name;
  leftovers().folders.push_back(path_);
}

TemporaryFolder::~TemporaryFolder() {
  const std::lock_guard lock(leftovers().mutex);
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  std::erase(leftovers().folders, path_);
}

void leave_nothing() {
  Leftovers& all = leftovers();
  all.mutex.lock();  // never unlocked
  if (all.child > 0) {
    kill(all.child, SIGKILL);
    waitpid(all.child, nullptr, 0);  // it might still write
  }
  // Other threads may still make a file in a folder, or remove one that was to be removed here.
  constexpr int most_tries = 2000;
  std::error_code ignored;
  for (const fs::path& folder : all.folders) {
    for (int tries = 0; tries < most_tries && fs::exists(fs::symlink_status(folder, ignored)); ++tries) {
      if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      fs::remove_all(folder, ignored);
    }
  }
}

Finished run_program(const std::vector<std::string>& arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const AllCores cores;
  Pipe out, err, failure;  // `failure` is closed by a program that has been started
  std::unique_lock lock(leftovers().mutex);
  const pid_t child = fork();
  if (child < 0) fail(arguments.front(), errno);
  if (child == 0) {
    // Between fork and exec only system calls: other threads may have held any lock.
    dup2(out.ends[1], STDOUT_FILENO);
    dup2(err.ends[1], STDERR_FILENO);
    cores.apply();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);  // a command that ends on signals has them blocked
    execvp(argv[0], argv.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t written = write(failure.ends[1], &error, sizeof(error));
    _exit(127);
  }
  leftovers().child = child;
  lock.unlock();
  out.close_end(1);
  err.close_end(1);
  failure.close_end(1);
  Finished finished;
  drain(out, finished.out, err, finished.err);
  siginfo_t ended = {};
  while (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) < 0 && errno == EINTR) continue;
  lock.lock();
  int status = 0;
  waitpid(child, &status, 0);
  leftovers().child = 0;
  lock.unlock();
  int error = 0;
  if (read(failure.ends[0], &error, sizeof(error)) == sizeof(error)) fail(arguments.front(), error);
  if (WIFSIGNALED(status)) finished.signal = WTERMSIG(status);
  if (WIFEXITED(status)) finished.code = WEXITSTATUS(status);
  return finished;
}

}  // namespace bragg::bench
