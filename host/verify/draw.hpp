// SPDX-License-Identifier: Apache-2.0
// Random values for cases.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string_view>

#include "host/verify/run.hpp"

namespace bragg::verify {

using Random = std::mt19937_64;
using Values = std::vector<long double>;

inline int below(Random& random, std::size_t count) { return static_cast<int>(random() % count); }

inline bool one_in(Random& random, int count) { return random() % static_cast<unsigned>(count) == 0; }

template <class T, std::size_t count>
T any_of(Random& random, const std::array<T, count>& choices) {
  return choices[random() % count];
}

/// The same everywhere: text, dtype and seed decide it.
Random generator(std::string_view text, DType dtype, std::uint64_t seed);

/// f from 0 to the most that 2f < n allows, often 0, 1 or the most.
int draw_f(Random& random, int n);

Rows normal_rows(Random& random, int n, std::int64_t d, double mean, double deviation);

}  // namespace bragg::verify
