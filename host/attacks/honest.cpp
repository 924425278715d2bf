// SPDX-License-Identifier: Apache-2.0
#include "host/attacks/honest.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <cmath>

#include "host/attacks/triangle.hpp"
#include "host/base/dtype.hpp"

namespace bragg::detail {

void load(const Updates& honest, int row, std::size_t tensor, std::int64_t begin, std::int64_t count,
          double* to) {
  const DType dtype = honest.dtype(tensor);
  const std::size_t size = size_of(dtype);
  const auto* const from =
      static_cast<const std::byte*>(honest.data(row, tensor)) + static_cast<std::size_t>(begin) * size;
  widen_to_f64(dtype, from, count, to);
}

void check_host(const Updates& honest) {
  if (honest.space() == MemorySpace::host) return;
  throw Error(Status::invalid_argument, "honest: rows in a device's memory; attacks are made on the host");
}

void check_values(int row, std::span<const double> values) {
  for (const double x : values) {
    if (!(std::abs(x) <= 0x1p480)) {
      throw Error(Status::invalid_argument,
                  fmt::format("honest: row {} holds {}; needs finite values of at most 2^480", row, x));
    }
  }
}

void add_moments(int rows, std::size_t begin, std::size_t count, const double* values,
                 attacks::Moments& moments) {
  const auto n = static_cast<std::size_t>(rows);
  double* const mean = &moments.mean[begin];
  double* const deviation = &moments.deviation[begin];
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t i = 0; i < count; ++i) mean[i] += values[row * count + i];
  }
  for (std::size_t i = 0; i < count; ++i) mean[i] /= static_cast<double>(n);
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t i = 0; i < count; ++i) {
      const double difference = values[row * count + i] - mean[i];
      deviation[i] += difference * difference;
    }
  }
  for (std::size_t i = 0; i < count; ++i) deviation[i] = std::sqrt(deviation[i] / static_cast<double>(n));
}

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}

double squared_distance(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
  return sum;
}

Vector plus(const Vector& a, double factor, const Vector& b) {
  Vector sum(a.size());
  for (std::size_t k = 0; k < a.size(); ++k) sum[k] = a[k] + factor * b[k];
  return sum;
}

std::vector<Vector> Frame::rows() const {
  std::vector<Vector> made;
  for (const Vector& row : deviations) made.push_back(plus(mean, 1, row));
  return made;
}

Frame frame_of(const Updates& honest) {
  const auto n = static_cast<std::size_t>(honest.n());
  const auto d = static_cast<std::size_t>(honest.d());
  const std::size_t columns = n + 3;
  Frame frame{.moments = {Vector(d), Vector(d)}, .deviations = {}, .mean = {}, .deviation = {}, .sign = {}};
  Triangle triangle(columns);
  std::vector<double> block;
  for_blocks(honest, [&](std::size_t begin, std::size_t count, const double* values) {
    block.assign(count * columns, 0.0);
    for (std::size_t row = 0; row < n; ++row)
      check_values(static_cast<int>(row), {values + row * count, count});
    add_moments(honest.n(), begin, count, values, frame.moments);
    for (std::size_t i = 0; i < count; ++i) {
      double* const line = &block[i * columns];
      const double mean = frame.moments.mean[begin + i];
      for (std::size_t row = 0; row < n; ++row) line[row] = values[row * count + i] - mean;
      line[n] = mean;
      line[n + 1] = frame.moments.deviation[begin + i];
      line[n + 2] = mean > 0 ? 1 : mean < 0 ? -1 : 0;
    }
    triangle.add(count, block.data());
  });
  for (std::size_t row = 0; row < n; ++row) frame.deviations.push_back(triangle.column(row));
  frame.mean = triangle.column(n);
  frame.deviation = triangle.column(n + 1);
  frame.sign = triangle.column(n + 2);
  return frame;
}

}  // namespace bragg::detail
