// SPDX-License-Identifier: Apache-2.0
// The checked request that a plan is made from; the same for every backend.
#pragma once

#include <bragg/plan.hpp>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace bragg::detail {

/// Where updates are aggregated whose plan is made for them: where they are.
/// @throws Error invalid_argument: options.device says otherwise.
Device device_of(const Updates& updates, const Options& options);

class PlanRequest {
 public:
  /// @throws Error invalid_argument, too_large: as Plan's constructor.
  PlanRequest(Pipeline pipeline_in, Shape shape_in, const Options& options_in);

  Pipeline pipeline;
  Shape shape;
  Options options;
  DType out_dtype;        ///< where tensors differ in dtype: of the first
  bool stateful = false;  ///< the rule starts at the previous output
  std::size_t parts = 1;  ///< parts that are solved separately
  /// Per tensor, whether distances are about it. Empty: all of them, or the pipeline takes no distances.
  std::vector<bool> judged = {};
  /// The outputs are the points before the rule, so many of them; 0: it is the rule's one. The backends are
  /// given the tensors of all, one output after another.
  int point_outputs = 0;

  DType out_dtype_of(std::size_t tensor) const noexcept {
    return out_dtypes_.empty() ? out_dtype : out_dtypes_[tensor];
  }

  /// @throws Error invalid_argument: as Plan::run, of shapes, dtypes, memory and overlaps.
  void check(const Updates& updates, std::span<const Output> out, const Row& base);
  /// Tensors, and what is known of a span. RowT: Row, Output. @throws Error invalid_argument.
  template <class RowT>
  void check_row(const std::string& name, const RowT& row, DType dtype) const;
  /// That outputs are apart from each other. @throws Error invalid_argument.
  void check_outputs(std::span<const Output> out);
  /// Which of those outputs overlaps tensor t of what is read, `bytes` from `read` on: the beginning of a
  /// sentence; empty: none does. The tensor's own may begin exactly at `in_place`, in the dtype that is read.
  std::string overlap(std::size_t t, const void* read, std::size_t bytes, const void* in_place) const;

 private:
  /// Bytes [begin, end) of one tensor.
  struct Extent {
    const std::byte* begin;
    const std::byte* end;
    std::size_t output;
    std::size_t tensor;
  };

  void check_dtypes();
  void check_judged();
  std::string name_of(std::size_t output) const;
  void check_shape(const Updates& updates, std::span<const Output> out, const Row& base) const;
  void check_overlap(const Updates& updates, std::span<const Output> out, const Row& base);

  std::vector<DType> out_dtypes_;  // of each tensor, where they differ in dtype
  std::vector<Extent> outputs_;
};

}  // namespace bragg::detail
