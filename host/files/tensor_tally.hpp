// SPDX-License-Identifier: Apache-2.0
// Which tensors more than half of some models hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "host/io/form.hpp"

namespace bragg::detail {

/// Counts the holders of each tensor. Models come in the order of how many tensors they have: the first half
/// of them have no more than the honest ones, and what is new in the others is held by no more than half and
/// not kept. So what strangers hold costs no memory.
class TensorTally {
 public:
  /// More than half of `models`; of `readable` ones tensors are told.
  TensorTally(std::size_t models, std::size_t readable) : models_(models), left_(readable) {}

  /// The next model.
  void begin();
  void take(const TensorMark& tensor);
  /// All of its tensors were taken. The mark of a name that some two have: then the model counts for nothing,
  /// as one does that is not ended.
  std::optional<std::uint64_t> end();

  /// Held by more than half in one dtype and shape. Sorted.
  std::vector<TensorMark> agreed() const;

 private:
  struct Count {
    TensorMark mark;
    std::size_t holders = 0;
    bool here = false;  ///< the model holds it
    bool operator<(const Count& other) const { return mark < other.mark; }
  };
  bool is_majority(std::size_t holders) const { return 2 * holders > models_; }
  /// Those of one name.
  std::vector<Count>::iterator first_of(std::uint64_t name);

  std::size_t models_, left_;
  bool begun_ = false;
  std::optional<std::uint64_t> twice_;  // a name
  std::vector<Count> counts_;           // sorted
  std::vector<TensorMark> fresh_;       // of the model, those that were not counted yet
};

}  // namespace bragg::detail
