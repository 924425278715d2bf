// SPDX-License-Identifier: Apache-2.0
#include "host/files/health.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "host/files/convert.hpp"
#include "host/io/element_type.hpp"

namespace bragg::detail {

namespace {

constexpr std::int64_t some = 1 << 18;  // values in memory at a time

}  // namespace

Health examine(const Inputs& inputs, const InputRow& row) {
  Health health;
  RowReader reader(inputs.models[row.model], inputs.tensors, row.offset);
  std::vector<double> values(static_cast<std::size_t>(some));
  // Squares of f64 leave the range of f64.
  long double all_squares = 0, largest = 0;
  for (const std::size_t t : inputs.floating) {
    if (!holds(inputs, row, t)) continue;
    const TensorInfo& tensor = inputs.tensors[t];
    const ElementType& type = element_type_of(tensor);
    long double squares = 0;
    for (std::int64_t begin = 0; begin < tensor.elements; begin += some) {
      const std::int64_t count = std::min(some, tensor.elements - begin);
      auto* const memory = reinterpret_cast<std::byte*>(values.data());
      reader.read(t, begin * type.bytes, count * type.bytes, memory + count * (8 - type.bytes));
      widen(memory, count, type, DType::f64);
      for (std::int64_t k = 0; k < count; ++k) {
        const double value = values[static_cast<std::size_t>(k)];
        if (std::isfinite(value)) {
          squares += static_cast<long double>(value) * value;
        } else {
          ++health.nonfinite;
        }
      }
    }
    all_squares += squares;
    if (squares > largest) {
      largest = squares;
      health.dominant = t;
    }
  }
  reader.close();
  health.norm = static_cast<double>(std::sqrt(all_squares));
  if (largest > 0) health.share = static_cast<double>(largest / all_squares);
  return health;
}

}  // namespace bragg::detail
