// SPDX-License-Identifier: Apache-2.0
// The server's step from the base, by the aggregate, and the moments that it keeps in a file.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host/files/inputs.hpp"
#include "host/files/windows.hpp"
#include "host/io/output_model.hpp"

namespace bragg::detail {

/// Names and values, in their order.
std::vector<std::pair<const char*, double>> numbers_of(const ServerOptimizer& optimizer);
/// "adam(lr=0.1, beta1=0.9, beta2=0.99, tau=0.001)".
std::string to_string(const ServerOptimizer& optimizer);
/// "adam".
const char* name_of(const ServerOptimizer& optimizer);

class ServerStep {
 public:
  /// Opens the state, where there is one. @throws Error invalid_argument: a number out of its range, no base,
  /// no state where one is needed or the other way round; bad_file: no state, or that of another optimizer or
  /// model; io_error.
  ServerStep(const FileOptions& options, const Inputs& inputs, const std::filesystem::path& output);

  /// Of the state after the step, if one is kept.
  const std::optional<ModelLayout>& state() const noexcept { return layout_; }
  /// Whether values that are not finite go through it. Moments would keep them for ever.
  bool takes_nonfinite() const noexcept { return options_.allow_nonfinite && !layout_; }
  /// Which step of the state it is, from 1; 0: none is kept.
  std::int64_t number() const noexcept { return number_; }
  /// Of the state before the step.
  std::uint64_t digest() const;

  /// Makes the values of the aggregate that lie from `values` on, as window.made, those of the next model, as
  /// window.out; `base`: as window.combined; `state`: where moments go. How many are not finite, where that
  /// is allowed. @throws Error nonfinite_base; too_many_nonfinite: values that their dtypes cannot hold;
  /// bad_file: moments that are none.
  std::int64_t step(const Window& window, const Piece& piece, std::byte* values, const std::byte* base,
                    OutputModel* state);
  /// @throws Error bad_file where the state changed since it was opened.
  void finish() const;

  /// What it holds beside windows.
  std::int64_t bytes() const;

 private:
  static constexpr std::int64_t block_size = 2048;
  using Values = std::array<double, block_size>;
  struct Block {
    Values base, next, change;
    std::array<Values, 2> moments;
  };

  struct Moment {
    const char* name;
    double start;  ///< before the first step
  };

  static std::vector<Moment> moments_of(const ServerOptimizer& optimizer);
  void open_state();
  /// Makes block_.next of block_.change, and moments of the last ones.
  void move(std::int64_t count);
  void read_moments(const Piece& piece, std::int64_t begin, std::int64_t count);
  void write_moments(const Piece& piece, std::int64_t begin, std::int64_t count, OutputModel& state);

  const FileOptions& options_;
  const Inputs& inputs_;
  ServerOptimizer optimizer_;
  std::vector<Moment> moments_;
  std::vector<TensorInfo> kept_;         // of the state: of each moment all floating tensors
  std::vector<std::size_t> first_kept_;  // [tensor] its first moment in kept_
  std::optional<ModelLayout> layout_;
  std::optional<ReadFile> file_;  // the last state; none: moments begin
  struct Place {
    std::int64_t offset;
    const ElementType* type;
  };
  std::vector<Place> places_;  // [kept] in file_
  std::int64_t number_ = 0;
  Block block_;
};

}  // namespace bragg::detail
