// SPDX-License-Identifier: Apache-2.0
#include "host/files/audit_files.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "host/audit/rows.hpp"
#include "host/files/convert.hpp"
#include "host/io/element_type.hpp"

namespace bragg::detail {

namespace {

constexpr std::int64_t memory = std::int64_t{1} << 26;
constexpr std::int64_t block = 256;  // values of a row that are visited at a time

/// The floating-point tensors of the inputs, less the base's.
class FileRows : public AuditRows {
 public:
  explicit FileRows(Inputs& inputs) : inputs_(inputs) {
    for (const std::size_t t : inputs.floating) sizes_.push_back(inputs.tensors[t].elements);
    const auto rows = static_cast<std::int64_t>(inputs.rows.size()) + 1;
    window_ = std::clamp(memory / 8 / rows / block, std::int64_t{1}, std::int64_t{1} << 12) * block;
  }

  int n() const override { return static_cast<int>(inputs_.rows.size()); }
  std::span<const std::int64_t> sizes() const override { return sizes_; }
  std::string bad(int row) const override { return inputs_.rows[static_cast<std::size_t>(row)].bad; }

  void read(const Visit& visit) override {
    const std::size_t n = inputs_.rows.size();
    std::vector<RowReader> readers;
    for (const InputRow& row : inputs_.rows)
      readers.emplace_back(inputs_.models[row.model], inputs_.tensors, row.offset);
    if (inputs_.base) readers.emplace_back(*inputs_.base, inputs_.tensors, 0);
    holds_files_ = readers.size() <= files_to_hold();
    const auto longest = std::max_element(sizes_.begin(), sizes_.end());
    const std::int64_t window = longest == sizes_.end() ? 0 : std::min(window_, *longest);
    std::vector<double> values(static_cast<std::size_t>(window) * (n + 1), 0.0);
    std::vector<double> some(static_cast<std::size_t>(block) * n);
    const auto of_row = [&](std::size_t row) {
      return values.data() + static_cast<std::ptrdiff_t>(row) * window;
    };
    for (std::size_t k = 0; k < sizes_.size(); ++k) {
      for (std::int64_t begin = 0; begin < sizes_[k]; begin += window) {
        const std::int64_t count = std::min(window, sizes_[k] - begin);
        for (std::size_t row = 0; row < n; ++row) read_row(readers[row], row, k, begin, count, of_row(row));
        if (inputs_.base) {
          read_values(readers[n], k, begin, count, of_row(n));
          check_base({of_row(n), static_cast<std::size_t>(count)});
        }
        for (std::int64_t from = 0; from < count; from += block) {
          const std::int64_t size = std::min(block, count - from);
          for (std::size_t row = 0; row < n; ++row) {
            for (std::int64_t i = 0; i < size; ++i) {
              some[row * static_cast<std::size_t>(size) + static_cast<std::size_t>(i)] =
                  of_row(row)[from + i] - of_row(n)[from + i];
            }
          }
          visit(k, begin + from, static_cast<std::size_t>(size), some.data());
        }
      }
    }
  }

 private:
  void read_values(RowReader& reader, std::size_t k, std::int64_t begin, std::int64_t count, double* to) {
    const std::size_t t = inputs_.floating[k];
    const ElementType& type = element_type_of(inputs_.tensors[t]);
    auto* const bytes = reinterpret_cast<std::byte*>(to);
    reader.read(t, begin * type.bytes, count * type.bytes, bytes + count * (8 - type.bytes));
    reader.pause(holds_files_);
    widen(bytes, count, type, DType::f64);
  }

  void read_row(RowReader& reader, std::size_t row, std::size_t k, std::int64_t begin, std::int64_t count,
                double* to) {
    InputRow& input = inputs_.rows[row];
    try {
      if (input.bad.empty()) return read_values(reader, k, begin, count, to);
    } catch (const Error& error) {
      if (!is_bad_input(error)) throw;
      input.bad = reason_of(error, inputs_.models[input.model].path);
    }
    std::fill_n(to, count, std::numeric_limits<double>::quiet_NaN());
  }

  Inputs& inputs_;
  std::vector<std::int64_t> sizes_;
  std::int64_t window_;
  bool holds_files_ = false;  ///< between windows
};

}  // namespace

Audit audit_files(Inputs& inputs, const AuditOptions& options) {
  FileRows rows(inputs);
  return audit_rows(rows, options);
}

}  // namespace bragg::detail
