// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace bragg::cli {

/// Every rule, or all about the one that is named.
std::string rules_text(const std::string& name);

/// The same as JSON: an array of rules.
std::string rules_json(const std::string& name);

}  // namespace bragg::cli
