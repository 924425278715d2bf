// SPDX-License-Identifier: Apache-2.0
#include "host/cpu/row_samples.hpp"

#include <algorithm>

#include "host/base/dtype.hpp"
#include "host/base/team.hpp"
#include "host/cpu/passes.hpp"
#include "rules/floating_environment.hpp"

namespace bragg::detail {

namespace {

/// to[k] = element wanted[k] − first of a tensor.
void gather(DType dtype, const void* from, std::int64_t first, std::span<const std::int64_t> wanted,
            double* to) {
  with_dtype(dtype, [&]<DType kTypeT>() {
    const auto* const bytes = static_cast<const std::byte*>(from);
    constexpr std::size_t size = size_of(kTypeT);
    for (std::size_t k = 0; k < wanted.size(); ++k) {
      widen_to_f64(kTypeT, bytes + static_cast<std::size_t>(wanted[k] - first) * size, 1, to + k);
    }
  });
}

}  // namespace

void RowSamples::draw(const Sampling& sampling, std::uint64_t run, std::int64_t d, int rows) {
  rows_ = static_cast<std::size_t>(rows);
  samples_.resize(static_cast<std::size_t>(sampling.count));
  for (int t = 0; t < sampling.count; ++t) {
    Sample& sample = samples_[static_cast<std::size_t>(t)];
    sample.coordinates.resize(static_cast<std::size_t>(sampling.of(d)));
    for (std::size_t k = 0; k < sample.coordinates.size(); ++k)
      sample.coordinates[k] = sampled_coordinate(sampling, run, t, d, static_cast<std::int64_t>(k));
    std::sort(sample.coordinates.begin(), sample.coordinates.end());
    sample.values.assign(rows_ * sample.coordinates.size(), 0);
  }
}

RowSamples::Stretch RowSamples::stretch(const Sample& sample, std::int64_t first, std::int64_t end) {
  const auto begin = std::lower_bound(sample.coordinates.begin(), sample.coordinates.end(), first);
  const auto stop = std::lower_bound(begin, sample.coordinates.end(), end);
  return {static_cast<std::size_t>(begin - sample.coordinates.begin()),
          static_cast<std::size_t>(stop - begin)};
}

void RowSamples::take(const RowTable& window, std::span<const std::int64_t> first, int threads) {
  for (std::size_t t = 0; t < window.sizes.size(); ++t) {
    for (Sample& sample : samples_) {
      const Stretch here = stretch(sample, first[t], first[t] + window.sizes[t]);
      if (here.count == 0) continue;
      const std::span<const std::int64_t> wanted =
          std::span(sample.coordinates).subspan(here.begin, here.count);
      // Few values wake no threads.
#pragma omp parallel num_threads(team(here.count < 4096 ? 1 : threads))
      {
        const FloatingEnvironment environment;
#pragma omp for schedule(static)
        for (std::size_t row = 0; row < rows_; ++row) {
          const void* const from = window.data[t * rows_ + row];
          if (from == nullptr) continue;
          gather(window.dtype_of(static_cast<int>(row)), from, first[t], wanted,
                 sample.values.data() + row * sample.coordinates.size() + here.begin);
        }
      }
    }
  }
}

RowTable RowSamples::table(int t, int inputs) {
  const Sample& sample = samples_[static_cast<std::size_t>(t)];
  size_ = static_cast<std::int64_t>(sample.coordinates.size());
  address_.clear();
  for (std::size_t row = 0; row < rows_; ++row)
    address_.push_back(sample.values.data() + row * sample.coordinates.size());
  return {.dtype = DType::f64,
          .reference_dtype = DType::f64,
          .inputs = inputs,
          .rows = static_cast<int>(rows_),
          .sizes = {&size_, 1},
          .data = address_.data()};
}

}  // namespace bragg::detail
