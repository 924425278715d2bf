// SPDX-License-Identifier: Apache-2.0
#include "host/cli/audit_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

namespace bragg::cli {

namespace {

// Okabe and Ito's palette, told apart by colour-blind readers; each colour once more with dashes.
constexpr std::array<std::string_view, 7> colours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                     "#e69f00", "#56b4e9", "#000000"};

// Pixels.
constexpr double width = 400, height = 260, left = 64, top = 64, gap = 72, below = 52, line_height = 20;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text)
    out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

std::string text(double x, double y, std::string_view anchor, std::string_view words, int size = 12) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\">{}</text>\n", x, y,
                     anchor, size, escaped(words));
}

std::string line(double x1, double y1, double x2, double y2, std::string_view attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2,
                     attributes);
}

std::string stroke(std::size_t rule) {
  return fmt::format("stroke=\"{}\" stroke-width=\"2\"{}", colours[rule % colours.size()],
                     rule / colours.size() % 2 == 1 ? " stroke-dasharray=\"7 3\"" : "");
}

using Curve = std::vector<std::pair<double, double>>;  // of f and a distance in spreads

/// A step of 1, 2 or 5 times a power of ten, of which at most `most` are in the range.
double step_of(double range, int most) {
  double step = std::pow(10.0, std::floor(std::log10(range / most)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (range / (step * factor) <= most) return step * factor;
  }
  return step * 10;
}

/// One panel; values above its top leave it.
std::string panel(double x0, std::string_view title, const std::vector<Curve>& curves, const Curve& bound,
                  int most_f) {
  double highest = 0;
  std::vector<double> values;
  for (const Curve& curve : curves) {
    for (const auto& [f, y] : curve) {
      if (std::isfinite(y)) values.push_back(y);
    }
  }
  std::sort(values.begin(), values.end());
  // A rule that is not robust must not flatten the others.
  if (!values.empty()) highest = std::min(values.back(), 4 * values[values.size() / 2] + 1);
  if (!(highest > 0)) highest = 1;
  const double y0 = top + height;
  const auto x = [&](double f) { return x0 + width * f / most_f; };
  const auto y = [&](double value) { return y0 - height * value / (1.05 * highest); };
  std::string out = text(x0, top - 14, "start", title, 14);
  const double step = step_of(1.05 * highest, 6);
  for (int k = 0; k * step <= 1.05 * highest; ++k) {
    out += line(x0, y(k * step), x0 + width, y(k * step), "stroke=\"#dddddd\"");
    out += text(x0 - 8, y(k * step) + 4, "end", fmt::format("{:.3g}", k * step));
  }
  const int f_step = std::max(1, static_cast<int>(step_of(most_f, 10)));
  for (int f = 0; f <= most_f; f += f_step) out += text(x(f), y0 + 18, "middle", fmt::format("{}", f));
  out += text(x0 + width / 2, y0 + 38, "middle", "f");
  const auto polyline = [&](const Curve& curve, const std::string& attributes) {
    std::string points;
    for (const auto& [f, value] : curve) {
      // What is infinite leaves the panel straight up.
      const double shown = std::isfinite(value) ? std::min(value, 100 * highest) : 100 * highest;
      points += fmt::format("{:.1f},{:.1f} ", x(f), y(shown));
    }
    return fmt::format("<polyline clip-path=\"url(#panel{:.0f})\" fill=\"none\" {} points=\"{}\"/>\n", x0,
                       attributes, points);
  };
  out += fmt::format(
      "<clipPath id=\"panel{:.0f}\"><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>"
      "</clipPath>\n",
      x0, x0 - 2, top, width + 4, height + 2);
  if (!bound.empty())
    out += polyline(bound, "stroke=\"#777777\" stroke-dasharray=\"2 4\" stroke-width=\"2\"");
  for (std::size_t rule = 0; rule < curves.size(); ++rule) out += polyline(curves[rule], stroke(rule));
  return out + line(x0, y0, x0 + width, y0, "stroke=\"#000000\"");
}

}  // namespace

std::string audit_plot(const Audit& audit) {
  std::vector<Curve> prices, worst;
  Curve bound;
  const int most_f = std::max(1, (audit.n - 1) / 2);
  for (const AuditRule& rule : audit.rules) {
    Curve price, attacked;
    for (const AuditPoint& point : rule.points) {
      if (!std::isnan(point.price)) price.emplace_back(point.f, std::sqrt(point.price));
      if (!std::isnan(point.worst)) attacked.emplace_back(point.f, std::sqrt(point.worst));
    }
    prices.push_back(std::move(price));
    worst.push_back(std::move(attacked));
  }
  for (int f = 0; f <= most_f && 2 * f < audit.honest; ++f)
    bound.emplace_back(f, std::sqrt(static_cast<double>(f) / (audit.honest - f)));
  const double all_width = left + 2 * width + gap + 24;
  const double legend = top + height + below + 14;
  const std::size_t entries = audit.rules.size() + 1, rows = (entries + 1) / 2;
  const double all_height = legend + static_cast<double>(rows) * line_height + 8;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"#ffffff\"/>\n",
      all_width, all_height);
  out += text(left, 26, "start",
              fmt::format("Distance from the mean of the {} honest workers, in their spreads", audit.honest),
              15);
  out += panel(left, "without an attacker", prices, bound, most_f);
  out += panel(left + width + gap, "under the worst of the attacks", worst, {}, most_f);
  for (std::size_t k = 0; k < entries; ++k) {
    const double x = left + (k < rows ? 0 : width + gap);
    const double y = legend + static_cast<double>(k < rows ? k : k - rows) * line_height;
    const bool is_rule = k < audit.rules.size();
    out += line(x, y - 4, x + 34, y - 4,
                is_rule ? stroke(k) : "stroke=\"#777777\" stroke-dasharray=\"2 4\" stroke-width=\"2\"");
    out += text(x + 42, y, "start",
                is_rule ? audit.rules[k].rule : "what no rule can be promised to undercut, √(f/(m−f))");
  }
  return out + "</svg>\n";
}

}  // namespace bragg::cli
