// SPDX-License-Identifier: Apache-2.0
// After pass 1: whether its products tell the distances that the pipeline takes, and what to take them about
// where they do not.
#pragma once

#include "rules/solve/settle.hpp"
#include "rules/solve/spread.hpp"
#include "rules/steps.hpp"

namespace bragg::detail {

/// The centre of a pipeline's products when pass 1 runs again. It is known before anything runs.
struct CenterPlan {
  enum class Kind { none, row, median };
  Kind kind = Kind::none;
  int row = 0;            ///< of Kind::row, a reference
  bool weighted = false;  ///< of Kind::median: the majority is one of weight
};

/// Which errors a certificate looks at.
struct Certificate {
  bool pairs = false;     ///< distances between rows; else those to references alone
  unsigned measured = 0;  ///< bit r: rows are measured from reference r
  unsigned needed = 0;    ///< likewise, and it is no mere start, which may be out of the range of f64
  bool weighted = false;  ///< the majority is one of weight
  /// Rows that may be bad: f of the first stage that has one, else less than half; 0 where no majority is
  /// trusted.
  int tolerated = 0;
};

/// The largest error of a distance, as a share of it and `spread` (0: of it alone). `majority`: per point
/// only of the half of all whose errors are least: pairs of bad rows may stay unclear. `worst`: m, `order`:
/// m² ints where `majority`.
template <class TeamT>
BRAGG_HD double largest_error(TeamT team, const Points& points, const Certificate& certificate, double spread,
                              bool majority, double* worst, int* order) {
  const int m = points.count;
  const auto share = [&](int i, int j) {
    if (!points.finite(i) || !points.finite(j)) return infinity;
    const double error = points.error(i, j);
    const double beside = points.squared_distance(i, j) + spread;
    return !(error > 0) ? 0.0 : beside > 0 ? error / beside : infinity;
  };
  team.parallel_for(m, [&](int i) {
    worst[i] = 0;
    if (!points.finite(i)) return;
    const auto take = [&](double value) { worst[i] = value > worst[i] ? value : worst[i]; };
    for (int r = 0; r < points.size - m; ++r) {
      // A reference that is not finite has its own status.
      const bool looked_at = (certificate.measured >> r & 1U) != 0 && !(majority && certificate.pairs);
      if (looked_at && points.infinite[m + r] == 0) take(share(i, m + r));
    }
    if (!certificate.pairs) return;
    if (!majority) {
      for (int j = 0; j < i; ++j) {
        if (points.finite(j)) take(share(i, j));
      }
      return;
    }
    const int half = m / 2 + 1;
    int* const heap = order + static_cast<std::size_t>(i) * m;
    const auto key = [&](int j) { return j == i ? 0.0 : share(i, j); };
    smallest(m, half, heap, key);
    take(key(heap[half - 1]));
  });
  const int at = team.argmin(m, [&](int i) { return -worst[i]; });
  return worst[at];
}

/// Where words.settled stays 0 rows must be multiplied once more: about the plan's centre where
/// words.recentred, scaled by words.scale, rows of left_out as they are but in no median.
struct CertifyStep {
  Stage stage;  ///< of the rows
  Certificate certificate;
  CenterPlan plan;
  bool wide = false;  ///< f64 rows
  int round = 0;      ///< passes that were made before the one that is looked at

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    const bool done = round > 0 && b.words->settled != 0;
    team.single([] {});  // all have read what is written next
    if (done) return;
    if (round > 0) {
      const bool settled = plan.kind == CenterPlan::Kind::none || rescale(team, b);
      team.single([&] { b.words->settled = settled; });
      return;
    }

    team.single([&] { b.words->recentred = 0; });
    const bool fits = !wide || rescale(team, b);
    // Besides the median row, the distance of rows from the centre counts, where there is to be one.
    double limit = 0;
    team.single([&] {
      limit = b.words->limit;
      if (plan.kind != CenterPlan::Kind::none) b.words->limit = GramScale{}.limit;
    });
    StartStep{.stage = stage, .statistics = true, .products = true}(team, b);
    const Points points = points_of(b, stage);
    const std::size_t squares = static_cast<std::size_t>(points.count) * points.count;
    double* const worst = b.doubles + squares;
    double error = fits ? largest_error(team, points, certificate, 0, false, worst, b.ints) : infinity;
    if (fits && certificate.pairs && error > clear_share) {
      const Spread spread =
          majority_spread(team, points, certificate.weighted, b.doubles, b.ints, worst + points.count);
      error = largest_error(team, points, certificate, spread.square, false, worst, b.ints);
    }
    const std::uint8_t* const infinite = b.infinite[stage.marks];
    const int first_finite = team.argmin(stage.inputs, [&](int i) { return infinite[i] != 0 ? 1.0 : 0.0; });
    const bool can_recentre = plan.kind == CenterPlan::Kind::median ? infinite[first_finite] == 0
                              : plan.kind == CenterPlan::Kind::row  ? b.nonfinite[plan.row] == 0
                                                                    : false;
    const bool settled = fits && (error <= clear_share || !can_recentre);
    team.single([&] {
      b.words->distance_error = error < 1 ? error : 1;
      b.words->settled = settled;
      b.words->recentred = !settled && can_recentre;
      b.words->limit = b.words->recentred != 0 ? infinity : limit;
    });
    if (settled) return;
    team.parallel_for(stage.rows(), [&](int i) {
      // A reference whose square leaves the range of f64 is there all the same.
      b.left_out[i] = i < stage.inputs ? infinite[i] : b.nonfinite[i] > 0;
      if (can_recentre) b.max_abs[i] = 0;  // to be raised to what is left of the row
    });
  }

 private:
  /// Whether the products are good as they are; else what to multiply rows by.
  template <class TeamT>
  BRAGG_HD bool rescale(TeamT team, const SolveBlock& b) const {
    const GramScale found = settle(team,
                                   {.rows = stage.rows(),
                                    .nonfinite = b.nonfinite,
                                    .left_out = round > 0 ? b.left_out : b.invalid,
                                    .inputs = stage.inputs,
                                    .measured = certificate.needed,
                                    .max_abs = b.max_abs,
                                    .scale = b.words->scale,
                                    .limit = b.words->recentred != 0 ? infinity : GramScale{}.limit,
                                    .tolerated = certificate.tolerated},
                                   b.scratch());
    // Nothing is gained by the same once more.
    const bool same = found.scale == b.words->scale && found.limit == b.words->limit;
    team.single([&] {
      b.words->scale = found.scale;
      b.words->limit = found.limit;
    });
    return found.fits || same;
  }
};

/// The error of the distances that no certificate has looked at: of recentred products, for the report.
struct ErrorStep {
  Stage stage;
  Certificate certificate;
  bool certified = false;  ///< products that are not recentred have been looked at

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b) || (certified && b.words->recentred == 0)) return;
    const Points points = points_of(b, stage);
    const std::size_t squares = static_cast<std::size_t>(points.count) * points.count;
    double* const worst = b.doubles + squares;
    double spread = 0;
    if (certificate.pairs) {
      spread = majority_spread(team, points, certificate.weighted, b.doubles, b.ints, worst).square;
    }
    const double error = largest_error(team, points, certificate, spread, true, worst, b.ints);
    team.single([&] { b.words->distance_error = error < 1 ? error : 1; });
  }
};

}  // namespace bragg::detail
