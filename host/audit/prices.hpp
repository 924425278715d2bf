// SPDX-License-Identifier: Apache-2.0
// What rules make of the honest rows, and of honest rows and attackers.
#pragma once

#include <bragg/pipeline.hpp>
#include <cstdint>
#include <span>
#include <vector>

#include "host/attacks/honest.hpp"
#include "host/audit/looks.hpp"

namespace bragg::detail {

/// A row, twice: in an orthonormal basis of all rows and deviations, in which lengths and distances are the
/// rows' own, and as its values at the sampled coordinates.
struct AuditVector {
  Vector frame;
  Vector sample;
};

/// Rows that can be played with. A pipeline whose output is a combination of rows is run on the frame alone;
/// any other on the sample, where the frame is what rows are judged by.
class Prices {
 public:
  /// Reads the rows once, and fills in what `audit` says of the honest ones; it has its `n` and `honest`.
  /// @throws Error bad_file: a row that was finite is not any more.
  Prices(AuditRows& rows, const Looks& looks, const AuditOptions& options, Audit& audit);

  /// The pipeline, whose f is that of the point.
  AuditPoint point(const Pipeline& pipeline, int f) const;

  /// Whether rows differ at all.
  bool differ() const { return spread_ > 0; }

 private:
  struct Figure;
  class Trial;
  enum class View : std::uint8_t;

  /// A coordinate of the sample stands for so many of its tensor.
  void draw(std::span<const std::int64_t> sizes, std::int64_t count, std::uint64_t seed);
  void read(AuditRows& rows, Audit& audit);
  /// `held`: of each sampled coordinate what it stands for of the spread.
  void choose_searched(const Vector& held);
  Vector seen(const AuditVector& row, View view) const;
  void describe(Audit& audit);
  void attack(const Pipeline& pipeline, int f, AuditPoint& point) const;

  std::vector<int> honest_, bad_;        // in the caller's order
  std::vector<int> order_;               // honest rows: those that attackers replace first
  int most_replaced_ = 0;                // of them
  std::vector<AuditVector> rows_;        // of the caller's
  std::vector<AuditVector> deviations_;  // [j] σ of the honest rows without the first j of the order
  AuditVector mean_;                     // of the honest rows
  double spread_ = 0;                    // squared
  std::vector<std::int64_t> sampled_;    // coordinates, tensors one behind the other
  Vector weights_;                       // [sampled] 1: its tensor is in the sample whole
  std::vector<std::size_t> search_;      // which of the sample attacks are searched on
  Vector search_weights_;                // [search]
};

}  // namespace bragg::detail
