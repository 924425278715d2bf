// SPDX-License-Identifier: Apache-2.0
// bragg-mpi: the command as the processes of an MPI job.
#include <fcntl.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <unistd.h>
#include <bragg/mpi.hpp>

#include <array>
#include <csignal>
#include <cstdio>

#include "host/cli/command.hpp"

namespace {

/// All ranks print the same, and one is heard: of the others nothing, but what one says that has lost them.
class Voice {
 public:
  explicit Voice(bool heard) {
    if (heard) return;
    kept_ = std::tmpfile();
    stderr_ = ::dup(STDERR_FILENO);
    const int nothing = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(nothing, STDOUT_FILENO);
    ::dup2(kept_ != nullptr ? ::fileno(kept_) : nothing, STDERR_FILENO);
    ::close(nothing);
  }
  void speak() {
    std::fflush(stderr);
    if (stderr_ < 0) return;
    ::dup2(stderr_, STDERR_FILENO);
    if (kept_ == nullptr) return;
    std::rewind(kept_);
    std::array<char, 4096> text{};
    for (std::size_t bytes = 0; (bytes = std::fread(text.data(), 1, text.size(), kept_)) > 0;)
      std::fwrite(text.data(), 1, bytes, stderr);
  }

 private:
  std::FILE* kept_ = nullptr;  // what was said to stderr
  int stderr_ = -1;
};

/// Whoever started a rank ends it, though it be killed: no rank goes on alone, or leaves what it has begun.
/// `parent`: its process when this one began.
void end_with([[maybe_unused]] pid_t parent) {
#ifdef __linux__
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) std::raise(SIGTERM);  // it was too late for that
#endif
}

}  // namespace

int main(int argc, char** argv) {
  const pid_t parent = ::getppid();
  // Threads that MPI starts must not take the signals that end a run without a trace.
  sigset_t ending, before;
  sigemptyset(&ending);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&ending, signal);
  pthread_sigmask(SIG_BLOCK, &ending, &before);
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  int code = 0;
  try {
    bragg::mpi::Communicator ranks(MPI_COMM_WORLD);
    if (ranks.size() > 1) end_with(parent);  // one alone may outlive its shell
    Voice voice(ranks.rank() == 0);
    code = bragg::cli::command(argc, argv, &ranks);
    if (code == bragg::cli::lost_each_other) {
      voice.speak();
      MPI_Abort(MPI_COMM_WORLD, code);
    }
  } catch (const bragg::Error& error) {
    std::fprintf(stderr, "bragg: error: %s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, bragg::cli::lost_each_other);
  }
  MPI_Finalize();
  return code;
}
