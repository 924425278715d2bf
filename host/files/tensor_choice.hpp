// SPDX-License-Identifier: Apache-2.0
// Tensors that are chosen by patterns of their names.
#pragma once

#include <bragg/io.hpp>
#include <span>
#include <string>
#include <vector>

namespace bragg::detail {

/// Whether one of the patterns is that of the whole name, as FileOptions says. It takes no longer than
/// pattern and name are long, multiplied: names come from strangers.
bool matches(std::span<const std::string> patterns, const std::string& name);

/// @throws Error invalid_argument: a pattern that none of the names matches, with the names near to it.
/// `option` is what the message calls the patterns.
void check_patterns(const char* option, std::span<const std::string> patterns,
                    std::span<const std::string> names);

/// Of the floating-point tensors `floating` of `tensors`, which rows are judged by: those that judge_by
/// names, or all, without those that ignore_in_distances names. Empty: all of them.
/// @throws Error invalid_argument: a pattern without a tensor, no tensor is left, or scope = per_tensor.
std::vector<bool> judged_tensors(const FileOptions& options, std::span<const TensorInfo> tensors,
                                 std::span<const std::size_t> floating);

}  // namespace bragg::detail
