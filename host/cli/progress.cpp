// SPDX-License-Identifier: Apache-2.0
#include "host/cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "host/cli/text.hpp"

namespace bragg::cli {

ProgressBar::ProgressBar(bool wanted) : enabled_(wanted && isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
}

void ProgressBar::show(const Progress& progress) {
  using Seconds = std::chrono::duration<double>;
  constexpr Seconds interval(0.1);
  constexpr std::size_t width = 24;
  if (!enabled_) return;
  const Clock::time_point now = Clock::now();
  if (shown_ && now - last_ < interval) return;
  last_ = now;
  shown_ = true;

  const auto done = static_cast<double>(progress.bytes_done);
  const auto total = static_cast<double>(progress.bytes_total);
  const double share = total > 0 ? std::min(done / total, 1.0) : 0;
  const double seconds = Seconds(now - start_).count();
  const auto filled = static_cast<std::size_t>(share * width);
  std::string line = fmt::format("[{}{}] {:3.0f} %  pass {} of {}  {} of {}", std::string(filled, '#'),
                                 std::string(width - filled, '.'), 100 * share, progress.pass,
                                 progress.passes, bytes_text(done), bytes_text(total));
  if (done > 0 && seconds > 0) {
    line += fmt::format("  {}/s  {} left", bytes_text(done / seconds),
                        duration_text(seconds * (total - done) / done));
  }
  fmt::print(stderr, "\r{}\x1b[K", line);
  std::fflush(stderr);
}

}  // namespace bragg::cli
