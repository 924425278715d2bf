// SPDX-License-Identifier: Apache-2.0
// Where an audit reads its rows from.
#pragma once

#include <bragg/audit.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace bragg::detail {

/// Rows about o, which can be read from the beginning as often as wanted.
class AuditRows {
 public:
  AuditRows() = default;
  AuditRows(const AuditRows&) = delete;
  AuditRows& operator=(const AuditRows&) = delete;
  virtual ~AuditRows() = default;

  virtual int n() const = 0;
  /// Elements of each tensor.
  virtual std::span<const std::int64_t> sizes() const = 0;
  /// Why the row is a bad input; empty: it is none. More rows may be after a read.
  virtual std::string bad(int row) const = 0;

  /// `values[row * count + i]` is row's coordinate `begin + i` of the tensor; of bad inputs NaN.
  using Visit =
      std::function<void(std::size_t tensor, std::int64_t begin, std::size_t count, const double* values)>;
  /// Visits all coordinates in their order.
  virtual void read(const Visit& visit) = 0;
};

/// @throws Error nonfinite_base: a value of the base is NaN or infinite.
void check_base(std::span<const double> values);

/// @throws Error as `audit`.
Audit audit_rows(AuditRows& rows, const AuditOptions& options);

/// `audit`, of rows some of which are bad inputs. `bad`: of each row why it is one; empty where it is none.
Audit audit_updates(const Updates& updates, const AuditOptions& options, std::span<const std::string> bad);

}  // namespace bragg::detail
