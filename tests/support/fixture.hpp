// SPDX-License-Identifier: Apache-2.0
// Runs a pipeline through the library on guarded data and judges the result by the oracle.
#pragma once

#include <gtest/gtest.h>
#include <bragg/plan.hpp>

#include <cstdlib>
#include <iostream>
#include <optional>
#include <random>
#include <string>

#include "tests/support/comparison.hpp"
#include "tests/support/guarded_rows.hpp"

// The same tests run on a CUDA device where BRAGG_TEST_CUDA is defined.
#if defined(BRAGG_TEST_CUDA)
#include "tests/support/device.hpp"
#endif

namespace bragg::test {

/// A fresh seed a run, or BRAGG_TEST_SEED; printed so that a failure can be repeated.
inline std::uint64_t session_seed() {
  static const std::uint64_t seed = [] {
    const char* given = std::getenv("BRAGG_TEST_SEED");
    const std::uint64_t value = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::cout << "BRAGG_TEST_SEED=" << value << std::endl;
    return value;
  }();
  return seed;
}

/// A generator for one test: the session's seed and the test's own name decide it.
inline std::mt19937_64 generator(const std::string& name) {
  std::seed_seq sequence{session_seed(), static_cast<std::uint64_t>(std::hash<std::string>{}(name))};
  return std::mt19937_64(sequence);
}

inline Rows normal_rows(std::mt19937_64& random, int n, int d, double mean, double deviation) {
  std::normal_distribution<double> normal(mean, deviation);
  Rows rows(static_cast<std::size_t>(n), std::vector<long double>(static_cast<std::size_t>(d)));
  for (auto& row : rows) {
    for (auto& value : row) value = normal(random);
  }
  return rows;
}

/// One aggregation by the library, with everything around it checked: guards, inputs, output guards.
struct Outcome {
  Status status;
  std::vector<long double> out;
  std::vector<Report> reports;
  std::vector<unsigned char> bytes;
};

struct Request {
  Rows rows = {};
  DType dtype = DType::f32;
  Layout layout = Layout::matrix;
  std::size_t misalignment = 0;
  std::vector<long double> reference = {};
  std::vector<double> weights = {};
  Options options = {};
};

#if defined(BRAGG_TEST_CUDA)
/// The same rows at their mirrored addresses.
inline Updates on_device(const Updates& host, const DeviceImage& image) {
  std::vector<std::vector<const void*>> tensors(static_cast<std::size_t>(host.n()));
  for (int i = 0; i < host.n(); ++i) {
    for (std::size_t t = 0; t < host.sizes().size(); ++t) {
      tensors[static_cast<std::size_t>(i)].push_back(image.on_device(host.data(i, t)));
    }
  }
  return Updates::tensors(tensors, host.sizes(), host.dtype(), MemorySpace::cuda);
}
#endif

inline Outcome run_library(const Pipeline& pipeline, const Request& request) {
  GuardedRows rows(request.rows, request.dtype, request.layout, request.misalignment);
  const DType out_dtype = request.options.out_dtype.value_or(request.dtype);
  GuardedBuffer out(static_cast<std::size_t>(rows.d()) * size_of(out_dtype), 3);
  std::optional<GuardedRows> reference;
  RunArguments arguments{.reference = {}, .weights = request.weights};
  if (!request.reference.empty()) {
    reference.emplace(Rows{request.reference}, request.dtype, request.layout, 1);
    for (void* tensor : reference->tensors_of(reference->row(0)))
      arguments.reference.tensors.push_back(tensor);
  }
  std::vector<void*> targets;
  unsigned char* at = out.data();
  for (const std::int64_t size : rows.sizes()) {
    targets.push_back(size > 0 ? at : nullptr);
    at += static_cast<std::size_t>(size) * size_of(out_dtype);
  }
#if defined(BRAGG_TEST_CUDA)
  const detail::cuda::OwnStream stream;
  DeviceImage image(stream.get());
  for (GuardedBuffer& buffer : rows.buffers()) image.add(buffer.whole());
  image.add(out.whole());
  for (void*& target : targets) target = image.on_device(target);
  if (reference) {
    for (GuardedBuffer& buffer : reference->buffers()) image.add(buffer.whole());
    for (const void*& tensor : arguments.reference.tensors) tensor = image.on_device(tensor);
  }
  const Updates updates = on_device(rows.updates(), image);
  Options options = request.options;
  options.device = Device::cuda;
  Plan plan(pipeline, Shape::of(updates), options);
  plan.run(updates, Output(targets), stream.get(), arguments);
  plan.status(stream.get());
  image.fetch();
#else
  const Updates updates = rows.updates();
  Plan plan(pipeline, Shape::of(updates), request.options);
  plan.run(updates, Output(targets), arguments);
#endif

  Outcome outcome{plan.status(), {}, {plan.reports().begin(), plan.reports().end()}, out.copy()};
  for (std::int64_t j = 0; j < rows.d(); ++j)
    outcome.out.push_back(load(out_dtype, out.data(), static_cast<std::size_t>(j)));
  EXPECT_TRUE(rows.intact()) << "inputs or their surroundings were written to";
  EXPECT_TRUE(out.intact()) << "bytes around the output were written to";
  if (reference) {
    EXPECT_TRUE(reference->intact()) << "the reference was written to";
  }
  return outcome;
}

inline Rows as_stored(const Rows& rows, DType dtype) {
  Rows stored = rows;
  for (auto& row : stored) {
    for (auto& value : row) value = round_to(dtype, value);
  }
  return stored;
}

inline reference::Input oracle_input(const Request& request) {
  reference::Input input;
  input.rows = as_stored(request.rows, request.dtype);
  input.f64 = request.dtype == DType::f64;
  if (!request.reference.empty()) input.reference = as_stored({request.reference}, request.dtype)[0];
  input.weights = request.weights;
  input.max_weight_share = request.options.max_weight_share;
  return input;
}

inline long double distance(const std::vector<long double>& a, const std::vector<long double>& b) {
  long double squared = 0;
  for (std::size_t j = 0; j < a.size(); ++j) squared += (a[j] - b[j]) * (a[j] - b[j]);
  return std::sqrt(squared);
}

/// A geometric median run to convergence is right when it lies within the rounding of the output plus 1e-9
/// typical distances of the oracle's; or, where the objective Σ p_i ‖x_i − v‖ is so flat that the place is
/// hardly determined (two clusters of equal weight), when it is no worse than the oracle's by more than that
/// rounding and 1e-13 of its size. The difference is added up row by row, so that huge rows swallow nothing.
inline bool is_geometric_median(DType out, const reference::Result& expected,
                                const std::vector<long double>& got) {
  std::vector<long double> distances;
  long double rounding = 0;
  for (std::size_t j = 0; j < got.size(); ++j) rounding += std::pow(spacing(out, expected.out[j]), 2);
  rounding = std::sqrt(rounding);
  long double excess = 0;
  long double total = 0;
  for (std::size_t i = 0; i < expected.points.size(); ++i) {
    const std::vector<long double>& x = expected.points[i];
    const long double to_expected = distance(x, expected.out);
    const long double to_got = distance(x, got);
    long double product = 0;  // ‖x − got‖² − ‖x − expected‖²
    for (std::size_t j = 0; j < got.size(); ++j) {
      product += (expected.out[j] - got[j]) * ((x[j] - expected.out[j]) + (x[j] - got[j]));
    }
    distances.push_back(to_expected);
    total += expected.point_weights[i];
    if (to_expected + to_got > 0) excess += expected.point_weights[i] * (product / (to_expected + to_got));
  }
  const auto middle = distances.begin() + static_cast<std::ptrdiff_t>(distances.size() / 2);
  std::nth_element(distances.begin(), middle, distances.end());
  return distance(got, expected.out) <= 1e-9L * *middle + rounding ||
         excess <= total * (1e-13L * *middle + rounding);
}

/// Whether the oracle's decisions were clear enough for the library to have to agree with them.
inline bool judge(const Pipeline& pipeline, const Request& request, const Outcome& got,
                  std::string& complaint) {
  const reference::Input input = oracle_input(request);
  const reference::Result expected = reference::aggregate(pipeline, input);
  complaint.clear();
  if (got.status != expected.status) {
    complaint = std::string("status ") + to_string(got.status) + ", oracle " + to_string(expected.status);
    return true;
  }
  if (got.status != Status::ok) return true;
  // Mixed points are rounded to f32 (f64) before they are compared per coordinate: relatively most for
  // denormals.
  long double rounding = 0;
  for (const long double size : expected.magnitude) {
    if (size > 0)
      rounding =
          std::max(rounding, 4 * spacing(request.dtype == DType::f64 ? DType::f64 : DType::f32, size) / size);
  }
  const int n = static_cast<int>(input.rows.size());
  const bool mixed = !pipeline.pre.empty();
  if (expected.margin <= gram_error(n) + (mixed ? rounding : 0)) return false;
  const Accuracy accuracy = accuracy_of(pipeline, coefficient_error(input));
  const auto* median = std::get_if<GeometricMedian>(&pipeline.rule);
  const DType out = request.options.out_dtype.value_or(request.dtype);
  if (median != nullptr && median->max_iters >= GeometricMedian::plain_iters &&
      is_geometric_median(out, expected, got.out)) {
    return true;
  }
  for (std::size_t j = 0; j < expected.out.size() && complaint.empty(); ++j) {
    const long double allowed = tolerance(request.dtype, out, accuracy, static_cast<int>(input.rows.size()),
                                          expected.out[j], expected.magnitude[j]);
    complaint = compare(got.out[j], expected.out[j], out, accuracy, allowed);
    if (!complaint.empty()) complaint = "coordinate " + std::to_string(j) + ": " + complaint;
  }
  return true;
}

}  // namespace bragg::test
