// SPDX-License-Identifier: Apache-2.0
#include "examples/digits/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <stdexcept>
#include <string_view>

namespace digits {
namespace {

struct Style {
  std::string_view colour;  // Okabe and Ito's palette, told apart by colour-blind readers
  std::string_view dashes;
};
constexpr std::array<Style, 4> styles{
    {{"#d55e00", "none"}, {"#0072b2", "none"}, {"#009e73", "8 3"}, {"#cc79a7", "2 3"}}};

// Pixels.
constexpr double panel_width = 420;
constexpr double panel_height = 260;
constexpr double left = 64;
constexpr double gap = 44;
constexpr double top = 74;
constexpr double right = 24;
constexpr double bottom = 96;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return out;
}

std::string text(double x, double y, std::string_view anchor, std::string_view attributes,
                 std::string_view words) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>\n", x, y, anchor,
                     attributes, escaped(words));
}

std::string line(double x1, double y1, double x2, double y2, std::string_view attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2,
                     attributes);
}

std::string stroke(const Style& style) {
  return fmt::format("stroke=\"{}\" stroke-dasharray=\"{}\" stroke-width=\"2.2\" fill=\"none\"", style.colour,
                     style.dashes);
}

/// Maps rounds and accuracies to a panel's pixels.
struct Axes {
  double x0;
  int rounds;

  double x(double round) const { return x0 + panel_width * round / rounds; }
  static double y(double accuracy) { return top + panel_height * (1 - accuracy); }
};

std::string draw_axes(const Axes& axes, bool label_accuracy) {
  std::string out;
  for (int percent = 0; percent <= 100; percent += 20) {
    const double y = Axes::y(percent / 100.0);
    out += line(axes.x0, y, axes.x0 + panel_width, y, percent == 0 ? "stroke=\"#333\"" : "stroke=\"#ddd\"");
    out += text(axes.x0 - 8, y + 4, "end", "fill=\"#333\"", fmt::format("{}", percent));
  }
  const int step = std::max(1, (axes.rounds + 3) / 4);
  for (int round = 0; round <= axes.rounds; round += step) {
    const double x = axes.x(round);
    out += line(x, Axes::y(0), x, Axes::y(0) + 5, "stroke=\"#333\"");
    out += text(x, Axes::y(0) + 20, "middle", "fill=\"#333\"", fmt::format("{}", round));
  }
  out += text(axes.x0 + panel_width / 2, Axes::y(0) + 40, "middle", "fill=\"#333\"", "round");
  if (label_accuracy) {
    const double middle = Axes::y(0.5);
    out +=
        text(20, middle, "middle", fmt::format("fill=\"#333\" transform=\"rotate(-90 20 {:.1f})\"", middle),
             "test accuracy (%)");
  }
  return out;
}

std::string draw_curve(const Axes& axes, const Curve& curve, const Style& style) {
  std::string points;
  for (std::size_t round = 0; round < curve.accuracy.size(); ++round) {
    points +=
        fmt::format("{:.1f},{:.1f} ", axes.x(static_cast<double>(round)), Axes::y(curve.accuracy[round]));
  }
  return fmt::format("<polyline {} stroke-linejoin=\"round\" points=\"{}\"/>\n", stroke(style), points);
}

std::string draw_legend(const std::vector<Curve>& curves) {
  constexpr double character = 7.4;  // about the mean width in a 13 pixel font
  std::string out;
  double x = left;
  const double y = top + panel_height + 72;
  for (std::size_t c = 0; c < curves.size(); ++c) {
    out += line(x, y, x + 28, y, stroke(styles.at(c)));
    out += text(x + 36, y + 4, "start", "fill=\"#333\"", curves[c].label);
    x += 36 + character * static_cast<double>(curves[c].label.size()) + 24;
  }
  return out;
}

}  // namespace

void write_plot(const std::filesystem::path& path, const std::string& title,
                const std::vector<Panel>& panels) {
  const auto count = static_cast<double>(panels.size());
  const double width = left + count * panel_width + (count - 1) * gap + right;
  const double height = top + panel_height + bottom;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
      "{1:.0f}\" "
      "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  svg += text(left, 28, "start", "font-size=\"16\" font-weight=\"bold\"", title);
  for (std::size_t p = 0; p < panels.size(); ++p) {
    const Axes axes{left + static_cast<double>(p) * (panel_width + gap),
                    static_cast<int>(panels[p].curves.front().accuracy.size()) - 1};
    svg += text(axes.x0, top - 16, "start", "fill=\"#333\" font-size=\"14\"", panels[p].title);
    svg += draw_axes(axes, p == 0);
    for (std::size_t c = 0; c < panels[p].curves.size(); ++c) {
      svg += draw_curve(axes, panels[p].curves[c], styles.at(c));
    }
  }
  svg += draw_legend(panels.front().curves);
  svg += "</svg>\n";

  if (path.has_parent_path()) {
    std::filesystem::create_directories(path.parent_path());
  }
  std::ofstream file(path);
  if (!(file << svg && file.flush())) {
    throw std::runtime_error("cannot write " + path.string());
  }
}

}  // namespace digits
