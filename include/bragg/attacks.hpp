// SPDX-License-Identifier: Apache-2.0
// Rows that Byzantine workers send: for tests, benchmarks and simulation.
#pragma once

#include <bragg/error.hpp>
#include <bragg/pipeline.hpp>
#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace bragg {
inline namespace v0 {
namespace attacks {

/// Mean and standard deviation of each coordinate over the honest rows (over their number, not one less).
struct Moments {
  std::vector<double> mean;
  std::vector<double> deviation;
};

/// The moments of n honest rows of d coordinates, tensors one behind the other. Computed in double.
/// @throws Error invalid_argument: the rows are in a device's memory.
BRAGG_API Moments moments(const Updates& honest);

// Every function below makes one row, of T = float or double and of d coordinates. All that sends more than
// one bad row sends it more than once. All throw Error invalid_argument where a strength (scale, epsilon, z,
// angle, deviation) is not finite, and `gaussian` where it is negative.

/// −scale · x, of one honest row x.
template <class T>
std::vector<T> sign_flip(std::span<const T> x, double scale = 1);

/// −scale · μ, of the honest mean μ.
template <class T>
std::vector<T> sign_flip(const Moments& honest, double scale = 1);

/// Inner-product manipulation, or fall of empires: −epsilon · μ, small enough to look honest. Xie et al.
/// 2020. ByzFL's FallOfEmpires(tau) has epsilon = tau − 1.
template <class T>
std::vector<T> inner_product_manipulation(const Moments& honest, double epsilon);

/// A little is enough: μ − z·σ. Baruch et al. 2019. Pass z, e.g. 1.5 (ByzFL's default): the paper's choice,
/// `alie_z`, is 0 or less for few workers and then does nothing, or helps. ByzFL adds where the paper
/// subtracts, and divides by one less: its tau on n rows is z = −tau·√(n/(n−1)).
template <class T>
std::vector<T> a_little_is_enough(const Moments& honest, double z);

/// The paper's z for n workers of which f are Byzantine: Φ⁻¹((n−f−s)/(n−f)), s = ⌊n/2⌋+1−f. E.g. 0.14 for
/// (11, 2), −0.43 for (4, 1).
/// @throws Error invalid_argument: f < 0, 2f ≥ n, or n < 3 (z is −∞).
BRAGG_API double alie_z(int n, int f);

/// A copy of one honest row x, to over-represent it. Karimireddy et al. 2022.
template <class T>
std::vector<T> mimic(std::span<const T> x);

/// Tailored to centered clipping (relocated orthogonal perturbation): μ + ‖μ‖·w, where w = cos(angle)·r/‖r‖ +
/// sin(angle)·q for the reference r that the rule clips about (its previous output) and q, the unit vector of
/// −μ's part orthogonal to r. `angle` is in degrees: 90 is w = q, 180 straight against the reference. No q
/// where μ is parallel to r, no r/‖r‖ where r = 0: that term is 0. Özfatura et al. 2023, whose perturbation
/// is of a scale of its own and is relocated towards the reference.
/// @throws Error invalid_argument: r is not of d values, or not finite; μ is not finite.
template <class T>
std::vector<T> rop(const Moments& honest, std::span<const T> reference, double angle = 90);

/// Which way an attack leaves the mean.
enum class Direction : std::uint8_t {
  unit,  ///< −μ/‖μ‖
  std,   ///< −σ
  sign,  ///< −sgn μ
};

/// A row, and how far the attack went to make it.
template <class T>
struct Found {
  std::vector<T> row;
  double strength = 0;
};

// What follows reads the honest rows once, unless it says otherwise, whatever it searches. All throw Error
// invalid_argument where the rows are in a device's memory or hold NaN, infinity or values beyond 2^480.

/// Min-Max: μ + γp for the direction p, with the largest γ (`strength`) that leaves the row no farther from
/// any honest row than the two honest rows farthest apart are from each other. p = 0: γ = 0. Shejwalkar &
/// Houmansadr 2021.
/// @throws Error as said above.
template <class T>
Found<T> min_max(const Updates& honest, Direction direction = Direction::std);

/// Min-Sum: the same with the largest γ for which the sum of squared distances to the honest rows is no
/// greater than the greatest such sum of an honest row. Shejwalkar & Houmansadr 2021.
/// @throws Error as said above.
template <class T>
Found<T> min_sum(const Updates& honest, Direction direction = Direction::std);

/// Fang et al. 2020 on trimmed mean and median: each coordinate is drawn uniformly beyond all honest values,
/// on the side that μ_j is not. Where μ_j > 0, below the least honest value m: from [m/b, m] for m > 0, [bm,
/// m] for m < 0; else above the greatest M: from [M, bM] for M > 0, [M, M/b] for M < 0. An extreme of 0 gives
/// 0. A bad row for each seed; the same for the same seed (Philox4x32-10).
/// @throws Error as said above; invalid_argument: b is not finite, or not above 1.
template <class T>
std::vector<T> fang_trimmed(const Updates& honest, std::uint64_t seed, double b = 2);

/// Fang et al. 2020 on Krum: −λ sgn μ, to be sent by all f bad workers. λ (`strength`) starts from the
/// paper's bound, √(min_i S_i / ((n−2f−1)·‖sgn μ‖²)) + max_i ‖x_i‖/‖sgn μ‖ for n rows with the bad ones, S_i
/// the sum of x_i's squared distances to the n−f−2 nearest other honest rows, and is halved until krum(f)
/// chooses a bad row among the n, the honest ones first, or λ < 1e-5. μ = 0: λ = 0.
/// @throws Error as said above; invalid_argument: f < 1, or n < 2f+3.
template <class T>
Found<T> fang_krum(const Updates& honest, int f);

/// A row, how far the attack went, and what it achieved.
template <class T>
struct Optimal {
  std::vector<T> row;
  double strength = 0;
  double damage = 0;  ///< ‖A(honest rows, then f copies of the row) − μ‖
};

// The pipeline A is run against 32 strengths: 16 from `most` down, each half of the one before, then 16 of a
// golden-section search between the neighbours of the best of them; what did most damage is returned.
// (ByzFL's search goes up as long as damage grows, and narrows in on that first maximum.) A runs as a new
// plan does, about the origin. Where its output is a combination of the rows that distances and lengths
// decide (krum, geometric_median or mean, say, after any pre-aggregators), it is run on n + 3 numbers for
// each row, and the rows are not read again. Else (rules that take each coordinate by itself, bulyan, or rows
// judged by some of their tensors) it is run on a copy of the rows in double, which costs 32 runs.

/// A little is enough with the z from (0, most] that does most damage to the pipeline: μ − z·σ, σ as in
/// Moments. Baruch et al. 2019, tailored to the rule as by Shejwalkar & Houmansadr 2021.
/// @throws Error as said above; invalid_argument: f < 1, most is not finite and positive, a bound of the
///   pipeline is broken for n + f rows; the pipeline's status where it has a result for none of the rows, and
///   as Plan.
template <class T>
Optimal<T> optimal_alie(const Updates& honest, const Pipeline& pipeline, int f, double most = 10);

/// Inner-product manipulation with the ε from (0, most] that does most damage: −ε·μ.
/// @throws Error as optimal_alie.
template <class T>
Optimal<T> optimal_ipm(const Updates& honest, const Pipeline& pipeline, int f, double most = 10);

/// The unsigned integer that holds the bits of T.
template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// The 22nd, 30th, 31st and 32nd bit of a float, which Xie et al. 2018 flip.
inline constexpr std::uint32_t xie_bits = 0xE0200000u;

/// x with the bits of `mask` flipped in every coordinate. Xie et al. 2018.
template <class T>
std::vector<T> bit_flip(std::span<const T> x, BitsOf<T> mask);

/// d independent normal values of mean 0. Blanchard et al. 2017 (deviation 200). The same for the same seed:
/// Box and Muller's transform of Philox4x32-10.
template <class T>
std::vector<T> gaussian(std::size_t d, double deviation, std::uint64_t seed);

/// Rows that break arithmetic rather than statistics.
enum class Hostile : std::uint8_t {
  nan,
  negative_nan,  ///< the sign bit is set
  infinity,
  negative_infinity,
  huge,              ///< 3e38, near the largest float
  alternating_huge,  ///< 3e38, −3e38, 3e38, …
};

/// d coordinates of one kind.
template <class T>
std::vector<T> hostile(std::size_t d, Hostile kind);

#define BRAGG_DECLARE_ATTACKS(T)                                                                      \
  extern template BRAGG_API std::vector<T> sign_flip<T>(std::span<const T>, double);                  \
  extern template BRAGG_API std::vector<T> sign_flip<T>(const Moments&, double);                      \
  extern template BRAGG_API std::vector<T> inner_product_manipulation<T>(const Moments&, double);     \
  extern template BRAGG_API std::vector<T> a_little_is_enough<T>(const Moments&, double);             \
  extern template BRAGG_API std::vector<T> mimic<T>(std::span<const T>);                              \
  extern template BRAGG_API std::vector<T> rop<T>(const Moments&, std::span<const T>, double);        \
  extern template BRAGG_API Found<T> min_max<T>(const Updates&, Direction);                           \
  extern template BRAGG_API Found<T> min_sum<T>(const Updates&, Direction);                           \
  extern template BRAGG_API std::vector<T> fang_trimmed<T>(const Updates&, std::uint64_t, double);    \
  extern template BRAGG_API Found<T> fang_krum<T>(const Updates&, int);                               \
  extern template BRAGG_API Optimal<T> optimal_alie<T>(const Updates&, const Pipeline&, int, double); \
  extern template BRAGG_API Optimal<T> optimal_ipm<T>(const Updates&, const Pipeline&, int, double);  \
  extern template BRAGG_API std::vector<T> bit_flip<T>(std::span<const T>, BitsOf<T>);                \
  extern template BRAGG_API std::vector<T> gaussian<T>(std::size_t, double, std::uint64_t);           \
  extern template BRAGG_API std::vector<T> hostile<T>(std::size_t, Hostile)
BRAGG_DECLARE_ATTACKS(float);
BRAGG_DECLARE_ATTACKS(double);
#undef BRAGG_DECLARE_ATTACKS

}  // namespace attacks
}  // namespace v0
}  // namespace bragg
