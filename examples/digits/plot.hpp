// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace digits {

/// Accuracy (0 … 1) after round 0, 1, 2 …
struct Curve {
  std::string label;
  std::vector<double> accuracy;
};

struct Panel {
  std::string title;
  std::vector<Curve> curves;  // the same labels in the same order in every panel
};

/// Writes the panels side by side as one SVG file, with one legend. At most four curves a panel.
void write_plot(const std::filesystem::path& path, const std::string& title,
                const std::vector<Panel>& panels);

}  // namespace digits
