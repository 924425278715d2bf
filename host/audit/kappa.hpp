// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/pipeline.hpp>
#include <optional>

namespace bragg::detail {

/// The proven κ of a pipeline on n rows of which at most f are bad: ‖out − μ‖² ≤ κ · the mean of ‖x_i − μ‖²
/// over the honest rows, μ their mean. None: none is proven, or the pipeline is for fewer bad rows.
std::optional<double> kappa_of(const Pipeline& pipeline, int n, int f);

}  // namespace bragg::detail
