// SPDX-License-Identifier: Apache-2.0
// Every rule of the list of <bragg/pipeline.hpp>. One that has no file here does not compile.
#pragma once

#include "rules/arc.hpp"
#include "rules/autogm.hpp"
#include "rules/balance.hpp"
#include "rules/bucketing.hpp"
#include "rules/bulyan.hpp"
#include "rules/caf.hpp"
#include "rules/centered_clipping.hpp"
#include "rules/cge.hpp"
#include "rules/clip.hpp"
#include "rules/dnc.hpp"
#include "rules/faba.hpp"
#include "rules/fltrust.hpp"
#include "rules/foolsgold.hpp"
#include "rules/geometric_median.hpp"
#include "rules/huber.hpp"
#include "rules/krum.hpp"
#include "rules/majority_cluster.hpp"
#include "rules/mda.hpp"
#include "rules/meamed.hpp"
#include "rules/mean.hpp"
#include "rules/median.hpp"
#include "rules/monna.hpp"
#include "rules/multi_krum.hpp"
#include "rules/nnm.hpp"
#include "rules/phocas.hpp"
#include "rules/quantile_clip.hpp"
#include "rules/sign_vote.hpp"
#include "rules/smea.hpp"
#include "rules/trimmed_mean.hpp"

namespace bragg::detail {

/// f(RuleOf<R>{}, rule) of the rule that `stage`, an Aggregator or PreAggregator, holds.
template <class StageT, class F>
auto visit_rule(const StageT& stage, F f) {
  return std::visit([&](const auto& rule) { return f(RuleOf<std::decay_t<decltype(rule)>>{}, rule); }, stage);
}

}  // namespace bragg::detail
