// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace bragg::detail {

/// "1.23 GB", decimal.
std::string bytes_text(double bytes);

}  // namespace bragg::detail
