// SPDX-License-Identifier: Apache-2.0
// Judges the guarantees for at most f bad rows where rounding would break them: honest rows with constants
// that drown their differences, bad rows that cancel, shrink to nothing or stand at the cut. `judge` asks
// whether a result is the oracle's; this asks whether it keeps the bounds. They hold however ties are
// decided, so every result is judged.
//
// All of it is long double, from differences to a honest row (or to o): nothing is lost to a common part.
// Allowances beyond the exact bound:
//
// * Per coordinate, the rounding of the output: half a unit of its dtype; (n + 16)·2⁻⁵³ of the
//   largest honest |x_j| for the float64 sums that make it; half a unit of what mixed points are
//   rounded to before they are ordered (f32; f64 of f64 rows); behind a clip, 2⁻¹⁹ of |z_j − o_j|,
//   which the factor may be off by. These are taken off each coordinate before lengths are
//   measured, so that the unit of a constant of 3e38 hides nothing elsewhere. Order statistics
//   without mixing get none of it.
// * Where distances decide, what they may be off by: each squared distance D at most 2⁻²⁰·(D + S),
//   S the least mean over rows of the squared distances to the ⌊n/2⌋ nearest. For honest rows of
//   mean squared spread s² that mean is at most their mean squared distance, so S ≤ 2|H|/(|H|−1)·s²
//   ≤ 4s². A bound on a squared distance, made of sums and quotients of D's, is thus off by less
//   than 2⁻¹⁵ of itself and 2⁻¹⁴·s².
// * 2⁻¹⁶ of the spread for coefficients.
// * Behind a clip to c that honest rows are concerned by, 2⁻¹⁹·c to each side of each honest point:
//   a length is known to 2⁻²⁰ of itself, so the points that later stages see are that far off.
//   Where the honest spread s before the clip is more than 4c, also what products of rows about the
//   centre leave in distances of clipped points: √(64ρ|H|)·s.
// * Behind bucketing, 2·√(ρ·2²⁰) of the largest distance between honest rows: a row among the
//   majority stands for a bucket in which rows cancel to that degree.
// * f64 rows that are measured from o: 2⁻⁹⁰⁰ of the farthest honest row's distance from o. Squares
//   of it and of differences so much smaller do not fit into float64 together.
//
// The bounds, with k bad rows of n, H the honest rows, x̄ their mean:
//
// * κ of Allouah et al. 2023 for trimmed_mean, median, krum, multi_krum and after nnm; smea 4r: the
//   chosen n−f rows and any n−f honest ones have their two means at distances of at most
//   √(λf/(n−2f)) from the mean of what they share, and the chosen λ is no larger than the honest
//   s². A bound for all subsets of n−f honest rows holds for all of them together, since their mean
//   is the mean of the subsets' means and their s² is no less.
// * geometric_median: ‖v − x̄‖ ≤ 2/(W_H − W_B)·Σ_H w‖x − x̄‖, from Σw‖v − x‖ ≤ Σw‖x̄ − x‖; and no
//   better point is found: the sum of distances is within 1e-9 (or the gap that a report with
//   converged = false proves) weights times the median distance of any other point's, less what
//   rounding the output may have added: by convexity no more than Σ |slope_j| times what coordinate
//   j is allowed. On which side of v a row is that is as near to it as the error of their distance
//   is not known: it may add twice its distance, and the row that v is adds nothing.
// * autogm: v_0, the geometric median with equal weights, is within B of honest rows in the mean, and no turn
//   makes Σ α r + (lam/2) Σ α² larger, which was no more than B + lam/(2|H|). So bad rows have no more than
//   β = (k/|H| + 2kB/lam)^½ of the weight, and while that is less than a half ‖v − x̄‖ ≤ 2(1−β)/(1−2β) times
//   the farthest honest row's. And as of geometric_median no better point is found, with the weights that
//   follow from v: they are off by twice the error of a distance over lam.
// * monna, cge: kept bad rows take the place of honest ones that are no nearer to the pivot (to o):
//   with the n−f nearest honest rows, at most 2/(n−f) times the sum of their k largest distances
//   from those rows' mean.
// * centered_clipping from a pivot, balance: no farther from it than τ an iteration, or (1−α)γ times
//   its length. fltrust: no farther from o than the trusted row, and finite where so long a row is.
// * foolsgold, majority_cluster, dnc: heuristics, behind a clip, whose bound alone is judged.
// * mda: every kept row is within the honest diameter of a honest one that is kept, of which there
//   are n−f−k.
// * caf, n > 3f: a step that takes more from honest rows than from bad ones comes at λ ≤
//   2|H|/(|H|−k)·λ_H at the latest (before it honest rows lost no more than bad ones, C_H − C_B ≥
//   |H| − k; the honest share of Σ c τ is more than a half only then), and μ is that of the least
//   λ; while Σc > n−2f, honest rows hold at least n−2f−k of it.
// * sign_vote: in each coordinate o, or a step from it; the step that honest rows vote for where their lead
//   is more than what bad rows weigh.
// * meamed, phocas, bulyan: one honest range beyond the honest range of each coordinate.
// * centered_clipping: off by at most τ·k/n per iteration from what honest rows alone make of v (a
//   step of honest rows brings no two points further apart), and no farther than τ an iteration
//   from where it started.
// * clip, arc: no farther from o than the length that they clip to; `| mean`: k/n of it from the
//   honest part.
#pragma once

#include "host/verify/cases.hpp"
#include "host/verify/judge.hpp"

namespace bragg::verify {

/// Pipelines as text, as pipelines() has them; in addition C stands for a length that is drawn beside the
/// data, and P for a permutation.
std::span<const char* const> aimed_pipelines();

/// Decided by pipeline, dtype and seed alone.
Case draw_aimed_case(const char* text, DType dtype, std::uint64_t seed);

/// Holds the result for a case of draw_aimed_case against the bounds.
Verdict judge_aimed(const Case& drawn, const Outcome& got);

}  // namespace bragg::verify
