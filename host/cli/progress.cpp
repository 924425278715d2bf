// SPDX-License-Identifier: Apache-2.0
#include "host/cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "host/base/bytes_text.hpp"
#include "host/cli/text.hpp"

namespace bragg::cli {

ProgressBar::ProgressBar(bool wanted) : enabled_(wanted && isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
}

bool ProgressBar::is_due() {
  constexpr std::chrono::duration<double> interval(0.1);
  const Clock::time_point now = Clock::now();
  if (!enabled_ || (shown_ && now - last_ < interval)) return false;
  last_ = now;
  shown_ = true;
  return true;
}

void ProgressBar::draw(double share, const std::string& text) {
  constexpr std::size_t width = 24;
  const auto filled = static_cast<std::size_t>(share * width);
  fmt::print(stderr, "\r[{}{}] {:3.0f} %  {}\x1b[K", std::string(filled, '#'),
             std::string(width - filled, '.'), 100 * share, text);
  std::fflush(stderr);
}

void ProgressBar::show(const Progress& progress) {
  if (!is_due()) return;
  const auto done = static_cast<double>(progress.bytes_done);
  const auto total = static_cast<double>(progress.bytes_total);
  const double seconds = std::chrono::duration<double>(last_ - start_).count();
  std::string text = fmt::format("pass {} of {}  {} of {}", progress.pass, progress.passes,
                                 detail::bytes_text(done), detail::bytes_text(total));
  if (done > 0 && seconds > 0) {
    text += fmt::format("  {}/s  {} left", detail::bytes_text(done / seconds),
                        duration_text(seconds * (total - done) / done));
  }
  draw(total > 0 ? std::min(done / total, 1.0) : 0, text);
}

void ProgressBar::show(const verify::Stage& stage) {
  if (!is_due()) return;
  std::string text = fmt::format("round {}  {} cases", stage.rounds + 1, stage.cases);
  if (stage.breaches > 0) text += fmt::format("  {} WRONG", stage.breaches);
  draw(stage.share, text);
}

void ProgressBar::show(double share, const std::string& text) {
  if (is_due()) draw(std::min(share, 1.0), text);
}

}  // namespace bragg::cli
