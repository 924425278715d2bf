// SPDX-License-Identifier: Apache-2.0
#include "host/files/tensor_tally.hpp"

#include <algorithm>

namespace bragg::detail {

std::vector<TensorTally::Count>::iterator TensorTally::first_of(std::uint64_t name) {
  return std::lower_bound(counts_.begin(), counts_.end(), Count{.mark = {name, 0}});
}

void TensorTally::begin() {
  if (begun_) --left_;
  begun_ = true;
  twice_.reset();
  fresh_.clear();
  for (Count& count : counts_) count.here = false;
}

void TensorTally::take(const TensorMark& tensor) {
  bool known = false;
  for (auto at = first_of(tensor.name); at != counts_.end() && at->mark.name == tensor.name; ++at) {
    if (at->here) twice_ = tensor.name;
    if (at->mark == tensor) known = at->here = true;
  }
  if (!known && is_majority(left_)) fresh_.push_back(tensor);
}

std::optional<std::uint64_t> TensorTally::end() {
  std::sort(fresh_.begin(), fresh_.end());
  for (std::size_t k = 0; k < fresh_.size(); ++k) {
    if (k > 0 && fresh_[k].name == fresh_[k - 1].name) twice_ = fresh_[k].name;
    for (auto at = first_of(fresh_[k].name); at != counts_.end() && at->mark.name == fresh_[k].name; ++at)
      if (at->here) twice_ = fresh_[k].name;
  }
  if (twice_) return twice_;
  for (Count& count : counts_) count.holders += count.here ? 1 : 0;
  const auto known = static_cast<std::ptrdiff_t>(counts_.size());
  for (const TensorMark& mark : fresh_) counts_.push_back({.mark = mark, .holders = 1});
  std::inplace_merge(counts_.begin(), counts_.begin() + known, counts_.end());
  std::erase_if(counts_, [&](const Count& count) { return !is_majority(count.holders + left_ - 1); });
  return std::nullopt;
}

std::vector<TensorMark> TensorTally::agreed() const {
  std::vector<TensorMark> marks;
  for (const Count& count : counts_) {
    if (is_majority(count.holders)) marks.push_back(count.mark);
  }
  return marks;
}

}  // namespace bragg::detail
