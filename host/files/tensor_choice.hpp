// SPDX-License-Identifier: Apache-2.0
// Tensors that are chosen by patterns of their names.
#pragma once

#include <bragg/io.hpp>
#include <span>
#include <string>
#include <vector>

#include "host/io/form.hpp"

namespace bragg::detail {

/// Whether one of the patterns is that of the whole name, as FileOptions says. It takes no longer than
/// pattern and name are long, multiplied: names come from strangers.
bool matches(std::span<const std::string> patterns, const std::string& name);

/// @throws Error invalid_argument: a pattern that none of the names matches, with the names near to it.
/// `option` is what the message calls the patterns.
void check_patterns(const char* option, std::span<const std::string> patterns,
                    std::span<const std::string> names);

/// The tensors that the output does not have, and those that it takes from the base. Workers' tensors of
/// their names are not looked at.
class TensorChoice {
 public:
  /// @throws Error invalid_argument: tensors to copy, and no base.
  explicit TensorChoice(const FileOptions& options);

  bool is_copied(const std::string& name) const { return matches(copy_, name); }
  bool copies() const { return !copy_.empty(); }
  /// Of the model that says which tensors there are, the base if there is one. Valid as long as this.
  /// What it returns throws Error invalid_argument: a tensor that is both excluded and copied.
  Skips of_owner();
  /// Of one that is aggregated. Valid as long as this.
  Skips of_worker();

  /// Of the output's tensors. @throws Error invalid_argument: none is left, or none to aggregate; a pattern
  /// of copy without a tensor.
  void check_form(std::span<const TensorInfo> tensors) const;
  /// When all models were looked at: the patterns of exclude that none of them has a tensor for, and which of
  /// `tensors` are near. It is for the workers to have such a tensor or not, so this is no error.
  std::vector<std::string> unused(std::span<const TensorInfo> tensors) const;

 private:
  bool is_excluded(const std::string& name);

  std::vector<std::string> exclude_, copy_;
  std::vector<bool> used_;  // of exclude_: the patterns that some tensor has
};

/// Of the floating-point tensors `floating` of `tensors`, which rows are judged by: those that judge_by
/// names, or all, without those that ignore_in_distances names. Empty: all of them.
/// @throws Error invalid_argument: a pattern without a tensor, no tensor is left, or scope = per_tensor.
std::vector<bool> judged_tensors(const FileOptions& options, std::span<const TensorInfo> tensors,
                                 std::span<const std::size_t> floating);

}  // namespace bragg::detail
