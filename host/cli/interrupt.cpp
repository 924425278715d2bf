// SPDX-License-Identifier: Apache-2.0
#include "host/cli/interrupt.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "host/cli/text.hpp"
#include "host/io/file.hpp"

namespace bragg::cli {

namespace {

// Wakes the thread when all is over. From anybody else it means nothing, as by default.
constexpr int wake = SIGURG;

bool is_ignored(int signal) {
  struct sigaction action {};
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

[[noreturn]] void end(int signal, const sigset_t& awaited, const std::function<std::string(int)>& written) {
  const std::string what = written(detail::abandon_outputs());
  pthread_sigmask(SIG_UNBLOCK, &awaited, nullptr);  // the next one ends what is left: stderr may take nothing
  if (isatty(STDERR_FILENO) == 1) std::fputs("\r\x1b[K", stderr);  // the progress bar
  fmt::print(stderr, "bragg: error: interrupted; {}\n", printable(what));
  std::fflush(stderr);
  _exit(128 + signal);  // other threads are still at work: nothing may be destroyed under them
}

}  // namespace

EndOnSignal::EndOnSignal(std::function<std::string(int)> written) : written_(std::move(written)) {
  sigemptyset(&awaited_);
  sigaddset(&awaited_, wake);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    if (!is_ignored(signal)) sigaddset(&awaited_, signal);
  }
  pthread_sigmask(SIG_BLOCK, &awaited_, &before_);
  thread_ = std::thread([this] {
    while (!over_) {
      int signal = wake;
      sigwait(&awaited_, &signal);
      if (signal != wake) end(signal, awaited_, written_);
    }
  });
}

EndOnSignal::~EndOnSignal() {
  over_ = true;
  pthread_kill(thread_.native_handle(), wake);
  thread_.join();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace bragg::cli
