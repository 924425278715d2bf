// SPDX-License-Identifier: Apache-2.0
// Divide and conquer, Shejwalkar & Houmansadr 2021, in Gram space. With y_i = z_i − mean of the finite
// points, at a sample's coordinates, and K_ij = ⟨y_i, y_j⟩, a unit eigenvector v of K of eigenvalue λ gives
// the direction Σ v_i y_i / √λ, along which y_i has length √λ v_i.
#pragma once

#include <cmath>

#include "rules/rule.hpp"
#include "rules/solve/eigen.hpp"

namespace bragg::detail {

struct DncStep {
  Dnc rule;
  Stage stage;

  BRAGG_HD static double dropped(const Dnc& rule) { return std::ceil(rule.c * rule.f - 1e-9); }

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const int m = stage.count;
    const int rows = stage.rows();
    int* const votes = b.ints;
    team.parallel_for(m, [&](int i) {
      votes[i] = 0;
      b.scores[i] = 0;
      b.clip_factors[i] = 1;
    });
    team.parallel_for(stage.size(), [&](int i) { b.coefficients[i] = 0; });
    BRAGG_HD_UNROLL(1)
    for (int t = 0; t < rule.iters; ++t) {
      const SolveBlock sample = sample_block(b, rows, t);
      const int infinite = mark_infinite(team, b, sample);
      if (infinite > rule.f || infinite == m) return fail(team, b, Status::too_many_nonfinite);
      const double tie = find_lengths(team, b, sample, m - infinite);
      vote(team, sample, infinite, tie, votes);
      team.single([&] {
        const double error = sample.words->distance_error;
        if (error > b.words->distance_error) b.words->distance_error = error;
      });
    }
    const int first = team.argmin(m, [&](int i) { return static_cast<double>(-votes[i]); });
    const double kept = team.sum(m, [&](int i) { return votes[i] == votes[first] ? 1.0 : 0.0; });
    team.parallel_for(m, [&](int i) {
      if (votes[i] == votes[first]) b.coefficients[i] = 1 / kept;
      b.scores[i] /= rule.iters;
    });
    team.single([&] { b.words->iterations = rule.iters; });
  }

 private:
  // What a sample's block has no use for any more.
  BRAGG_HD static std::uint8_t* infinite_of(const SolveBlock& sample) { return sample.infinite.second; }
  BRAGG_HD static double* lengths_of(const SolveBlock& sample) { return sample.scores; }

  BRAGG_HD const double* mix(const SolveBlock& b, int i) const {
    return b.mix[stage.mix] + static_cast<std::size_t>(i) * stage.rows();
  }

  /// Points that are infinite, or made of rows whose products at the sample's coordinates leave the range of
  /// f64; how many they are.
  template <class TeamT>
  BRAGG_HD int mark_infinite(TeamT team, const SolveBlock& b, const SolveBlock& sample) const {
    const std::uint8_t* const row_is = sample.infinite.first;
    std::uint8_t* const is = infinite_of(sample);
    team.parallel_for(stage.count, [&](int i) {
      bool found = b.infinite[stage.marks][i] != 0 || (!stage.mixed && row_is[i] != 0);
      BRAGG_HD_UNROLL(1)
      for (int k = 0; k < stage.rows() && stage.mixed && !found; ++k) {
        found = row_is[k] != 0 && mix(b, i)[k] != 0;
      }
      is[i] = found ? 1 : 0;
    });
    return static_cast<int>(team.sum(stage.count, [&](int i) { return static_cast<double>(is[i]); }));
  }

  /// Σ_k |a_k|·(‖row k‖ + `beside`) over the rows but the origin, for some coefficients a, at the sample's
  /// coordinates.
  BRAGG_HD double extent(const SolveBlock& sample, const double* a, double beside) const {
    double total = 0;
    BRAGG_HD_UNROLL(1)
    for (int k = 0; k < stage.rows(); ++k) {
      if (k != stage.inputs) total += std::fabs(a[k]) * (sample.extent.first[k] + beside);
    }
    return total;
  }

  /// K (m × m) of points that are rows; 0 where one is infinite.
  template <class TeamT>
  BRAGG_HD void center_rows(TeamT team, const SolveBlock& sample, int finite, double* k,
                            double* means) const {
    const int m = stage.count;
    const std::uint8_t* const infinite = infinite_of(sample);
    const auto product = [&](int i, int j) {
      return sample.gram.first[static_cast<std::size_t>(i) * stage.rows() + j];
    };
    team.parallel_for(m, [&](int i) {
      double total = 0;
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < m; ++j) total += infinite[j] != 0 ? 0 : product(i, j);
      means[i] = total / finite;
    });
    const double square = team.sum(m, [&](int i) { return infinite[i] != 0 ? 0 : means[i]; }) / finite;
    parallel_for_2d(team, m, m, [&](int i, int j) {
      const bool known = infinite[i] == 0 && infinite[j] == 0;
      k[static_cast<std::size_t>(i) * m + j] = known ? (product(i, j) + square) - (means[i] + means[j]) : 0;
    });
  }

  /// The same of points that are combinations of rows. Their coefficients are centred, before rows are
  /// multiplied: what all points have in common is gone. `centered`, `product`: rows² each, `means`: rows.
  /// Returns whether the origin is in some of them.
  template <class TeamT>
  BRAGG_HD bool center_mixed(TeamT team, const SolveBlock& b, const SolveBlock& sample, int finite, double* k,
                             double* centered, double* product, double* means) const {
    const int m = stage.count;
    const int rows = stage.rows();
    const int origin = stage.inputs;
    const std::uint8_t* const infinite = infinite_of(sample);
    const auto row_of = [&](double* matrix, int i) { return matrix + static_cast<std::size_t>(i) * rows; };
    team.parallel_for(rows, [&](int j) {
      double total = 0;
      BRAGG_HD_UNROLL(1)
      for (int i = 0; i < m; ++i) total += infinite[i] != 0 ? 0 : mix(b, i)[j];
      means[j] = total / finite;
    });
    const bool from_origin =
        team.sum(m, [&](int i) { return infinite[i] == 0 && mix(b, i)[origin] != 0 ? 1.0 : 0.0; }) > 0;
    team.parallel_for(m, [&](int i) {
      double* const to = row_of(centered, i);
      double total = 0;
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < rows; ++j) {
        // Of a row that no point holds products may be anything.
        to[j] = infinite[i] == 0 && means[j] != 0 ? mix(b, i)[j] - means[j] : 0;
        if (j != origin) total += to[j];
      }
      // They sum to 0. Factors that are next to nothing beside 1 leave no trace in what is left for o.
      if (from_origin) to[origin] = -total;
    });
    multiply(
        team, m, rows, rows, [](int, int) { return 0.0; },
        [&](int i, int j) { return row_of(centered, i)[j]; },
        [&](int j) { return row_of(sample.gram.first, j); }, [&](int i) { return row_of(product, i); });
    parallel_for_2d(team, m, m, [&](int i, int j) {
      if (i > j) return;
      const double total = inner_product(row_of(product, i), row_of(centered, j), rows);
      k[static_cast<std::size_t>(i) * m + j] = total;
      k[static_cast<std::size_t>(j) * m + i] = total;
    });
    return from_origin;
  }

  /// Squared lengths of the y_i along the top eigenspace: as shares of λ into the sample's scores, and added
  /// to those of all. Returns by what share of λ they may be off where points are alike.
  template <class TeamT>
  BRAGG_HD double find_lengths(TeamT team, const SolveBlock& b, const SolveBlock& sample, int finite) const {
    const int m = stage.count;
    Scratch scratch = sample.scratch();
    TopEigenspace space = TopEigenspace::carve(scratch, static_cast<std::size_t>(stage.rows()));
    double* const k = space.matrix;
    double* const work = space.work;
    double* const centered = space.vectors;
    bool from_origin = false;
    if (stage.mixed) {
      from_origin = center_mixed(team, b, sample, finite, k, centered, sample.low, work);
    } else {
      center_rows(team, sample, finite, k, work);
    }
    const auto longest_of = [&](auto length_of) {
      team.parallel_for(m, [&](int i) { work[i] = infinite_of(sample)[i] != 0 ? 0 : length_of(i); });
      return work[team.argmin(m, [&](int i) { return -work[i]; })];
    };
    // Of products that cancel in K, by the coefficients that they are taken with; `work` is free again. These
    // are rounded beside those that they are made of, and that of the origin is the sum of the others.
    const double at_origin = from_origin ? sample.extent.first[stage.inputs] : 0;
    const double longest = longest_of([&](int i) {
      return stage.mixed ? extent(sample, centered + static_cast<std::size_t>(i) * stage.rows(), at_origin)
                         : sample.extent.first[i];
    });
    const double whole =
        stage.mixed ? longest_of([&](int i) { return extent(sample, mix(b, i), 0); }) : longest;
    const double trace = team.sum(m, [&](int i) { return k[static_cast<std::size_t>(i) * m + i]; });
    int rank = 0;
    double top = 0;
    if (trace > 0) {
      parallel_for_2d(team, m, m, [&](int i, int j) { k[static_cast<std::size_t>(i) * m + j] /= trace; });
      rank = space.find(team, m);
      top = space.values[0] * trace;
    }
    const double scale = sample.words->scale;
    team.parallel_for(m, [&](int i) {
      double total = 0;
      BRAGG_HD_UNROLL(1)
      for (int e = 0; e < rank; ++e) {
        const double part = space.vectors[static_cast<std::size_t>(e) * m + i];
        total += space.values[e] / space.values[0] * (part * part);
      }
      lengths_of(sample)[i] = infinite_of(sample)[i] != 0 ? infinity : total;
      b.scores[i] += infinite_of(sample)[i] != 0 ? infinity : total * (top / scale) / scale;
    });
    const double reach = longest * (longest > whole ? longest : whole);
    const double terms = reach > top ? reach : top;
    return top > 0 ? 4 * (m + 4) * 0x1p-53 * (terms / top) : 0;
  }

  /// A vote for each point but the infinite ones and the longest; of equal ones those of the highest index
  /// go.
  template <class TeamT>
  BRAGG_HD void vote(TeamT team, const SolveBlock& sample, int infinite, double tie, int* votes) const {
    const int m = stage.count;
    const double* const length = lengths_of(sample);
    const double wanted = dropped(rule);
    const int drop = wanted > infinite ? static_cast<int>(wanted) : infinite;
    const int kept = m - drop;
    Scratch scratch = sample.scratch();
    const int* const order = smallest(team, scratch, m, kept, [&](int i) { return length[i]; });
    const double last = length[order[kept - 1]];
    const double below = team.sum(m, [&](int i) { return length[i] < last - tie ? 1.0 : 0.0; });
    // Of those that are equal to the last one that stays, so many do.
    const int wanted_equal = kept - static_cast<int>(below);
    int* const equal = scratch.take_ints(static_cast<std::size_t>(m));
    const int found = team.collect(
        m, [&](int i) { return length[i] <= last + tie && !(length[i] < last - tie); }, equal);
    const int stay = found < wanted_equal ? found : wanted_equal;
    team.parallel_for(m, [&](int i) { votes[i] += length[i] < last - tie ? 1 : 0; });
    team.parallel_for(stay, [&](int k) { ++votes[equal[k]]; });
  }
};

template <>
struct RuleOf<Dnc> : GeometricRule<Dnc> {
  static constexpr RuleText text{
      .name = "dnc",
      .definition =
          "`iters` times, at `sample` coordinates drawn afresh, the max(⌈c·f⌉, infinite) rows of largest "
          "projection on the top eigenvector of the covariance go; the mean of the rows kept most often",
      .needs = "n > ⌈c·f⌉",
      .guarantee =
          "heuristic: in a sample, for c ≥ 1, no bad row that stays sticks out farther along the top "
          "eigenvector than an honest one that goes; across it, and elsewhere, nothing is said",
      .source = "Shejwalkar & Houmansadr 2021"};
  static constexpr std::tuple parameters{
      tolerated(&Dnc::f, "0 ≤ f, ⌈c·f⌉ < n"),
      parameter(&Dnc::iters, "iters", "iters ≥ 1", "samples that vote"),
      parameter(&Dnc::c, "c", "c > 0, ⌈c·f⌉ < n", "rows dropped, as a multiple of f"),
      parameter(&Dnc::sample, "sample", "sample ≥ 1", "coordinates to draw; as many or fewer: all are taken"),
      parameter(&Dnc::seed, "seed", "0 ≤ seed < 2^64", "of the coordinates, drawn afresh each run")};
  static constexpr Products products = Products::none;
  static constexpr std::array examples = {"dnc(f=F)", "dnc(f=F, iters=3, c=1.5, sample=16, seed=7)",
                                          "nnm(f=F) | dnc(f=F)", "clip(c=2) | dnc(f=F, sample=20)"};

  static void check(const Dnc& rule, const StagePoints& points) {
    need_at_least(text.name, "f", rule.f, 0);
    need_at_least(text.name, "iters", rule.iters, 1);
    need_finite(text.name, "c", rule.c, false);
    need_at_least(text.name, "sample", rule.sample, 1);
    need_more_than_dropped(text.name, rule.f, rule.c, DncStep::dropped(rule), points);
  }
  static bool needs_statistics(const Dnc&) { return true; }
  static Memory memory(const Dnc&) { return Memory::round; }
  static Sampling sampling(const Dnc& rule) {
    return {.count = rule.iters, .size = rule.sample, .seed = rule.seed};
  }
  using Step = DncStep;
  static Step step(const Dnc& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = rule, .stage = stage};
  }
  static double work(const Dnc& rule, int n) { return rule.iters * std::pow(n, 3); }
};

}  // namespace bragg::detail
