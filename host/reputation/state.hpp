// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/reputation.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace bragg::detail {

inline constexpr std::size_t longest_name = 256;  ///< bytes

/// Why a name cannot be kept, in words; of one that can, nothing.
std::optional<std::string> fault_of_name(std::string_view name);

/// What Reputation::save writes.
std::string text_of(const Reputation& reputation);

/// @throws Error invalid_argument: an option out of range.
void check_options(const ReputationOptions& options);

}  // namespace bragg::detail
