// SPDX-License-Identifier: Apache-2.0
// One aggregation by the library on guarded data, in host memory or on a device.
#pragma once

#include <bragg/plan.hpp>
#include <string>
#include <vector>

#include "host/verify/guarded_rows.hpp"

namespace bragg::verify {

using Rows = std::vector<std::vector<long double>>;

/// The data of one aggregation, and its layout in memory.
struct Request {
  Rows rows = {};
  DType dtype = DType::f32;
  Layout layout = Layout::matrix;
  std::size_t misalignment = 0;  ///< bytes
  std::vector<long double> reference = {};
  std::vector<double> weights = {};
  std::vector<bool> judged = {};  ///< per tensor, as Updates::judge_by; empty: all
  Options options = {};           ///< options.device says where it runs
};

inline DType out_dtype(const Request& request) { return request.options.out_dtype.value_or(request.dtype); }

/// Values as the dtype holds them.
Rows as_stored(const Rows& rows, DType dtype);

inline constexpr long double f64_sum_error = 0x1p-53L;
inline constexpr long double pair_sum_error = 18 * 0x1p-48L;   ///< kernels/combine/pairs.cuh
inline constexpr long double mixed_sum_error = 55 * 0x1p-48L;  ///< kernels/select/mix_pairs.cuh

struct Outcome {
  Status status;
  std::vector<long double> out;
  std::vector<Report> reports;
  std::vector<unsigned char> bytes;       ///< of the output
  std::string trespass;                   ///< what was written to that should not be; else empty
  long double sum_error = f64_sum_error;  ///< as sum_error_of
};

/// Accuracy::sum where the request runs: on the CPU, or its CUDA device. `mixed`: with pre-aggregators.
long double sum_error_of(const Request& request, bool mixed);

/// @throws Error as Plan does.
Outcome run(const Pipeline& pipeline, const Request& request);

}  // namespace bragg::verify
