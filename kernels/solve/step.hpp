// SPDX-License-Identifier: Apache-2.0
// The steps between the passes, on the device.
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/runtime/stream.hpp"
#include "kernels/solve/one_of.hpp"
#include "rules/all.hpp"
#include "rules/certify.hpp"

namespace bragg::detail::cuda {

/// The blocks of all parts, `stride` bytes apart, in device memory. A kernel finds the pointers among its
/// constants, where they cost no registers.
struct SolveBlocks {
  SolveBlock first = {};
  std::size_t stride = 0;
  int parts = 0;
  int rows = 0;  ///< as SolveLayout

  BRAGG_HD SolveBlock part(int k) const { return moved(first, static_cast<std::size_t>(k) * stride); }
};

/// Makes blocks ready for pass 1: words, counters, what is known of the rows, and zeros in all else that a
/// report is made of, which is fetched in one piece (report_bytes), whatever of it the rule writes.
struct PrepareStep {
  int inputs = 0;
  int rows = 0;
  const std::uint8_t* invalid = nullptr;  ///< [inputs], or null: none is
  const double* weights = nullptr;        ///< [inputs], or null: none has one
  double rounding = 0;                    ///< as SolveWords

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    team.single([&] {
      *b.words = SolveWords{};
      b.words->rounding = rounding;
    });
    // To the ends of what each array takes.
    const int bytes = (rows + 15) / 16 * 16;
    const int doubles = (rows + 1) / 2 * 2;
    team.parallel_for(bytes, [&](int i) {
      b.invalid[i] = i < inputs && invalid != nullptr ? invalid[i] : 0;
      if (i < inputs && weights != nullptr) b.weights[0][i] = weights[i];
      if (i >= doubles) return;
      b.nonfinite[i] = 0;
      b.max_abs[i] = b.coefficients[i] = b.scores[i] = b.clip_factors[i] = 0;
      b.row_weight[i] = b.row_clip[i] = 0;
    });
  }
};

/// A plan's state on the device, from run to run.
struct PlanState {
  std::uint64_t round = 0;
  int has_previous = 0;
  int status = 0;  ///< Status of the last run: that of the first part that failed

  /// The run ends so; where that is ok, the state goes one round on.
  BRAGG_HD void end_run(int how) {
    status = how;
    if (how != static_cast<int>(Status::ok)) return;
    ++round;
    has_previous = 1;
  }
};

/// The last step, where there is one part.
struct EndStep {
  PlanState* state = nullptr;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    team.single([&] { state->end_run(b.words->status); });
  }
};

template <class StepT>
constexpr bool runs_on_device = !std::is_void_v<StepT> && !is_search<StepT>;

/// OneOf all the steps that run on a device, each once.
template <class OneOfT, class... StepT>
struct DeviceSteps {
  using Type = OneOfT;
};
template <class... DoneT, class StepT, class... RestT>
struct DeviceSteps<OneOf<DoneT...>, StepT, RestT...>
    : DeviceSteps<std::conditional_t<runs_on_device<StepT> && !(std::is_same_v<StepT, DoneT> || ...),
                                     OneOf<DoneT..., StepT>, OneOf<DoneT...>>,
                  RestT...> {};

template <class PreAggregatorsT, class AggregatorsT>
struct StepsOfRules;
template <class... PreT, class... RuleT>
struct StepsOfRules<RuleList<PreT...>, RuleList<RuleT...>>
    : DeviceSteps<OneOf<>, PrepareStep, CertifyStep, StartStep, MarkSamplesStep, ErrorStep, RankStep,
                  typename RuleOf<PreT>::Step..., MixStep, GramStep, KrumScoresStep,
                  typename RuleOf<RuleT>::Step..., CombinationStep, ShareStep, EndStep> {};

using AnyStep = StepsOfRules<PreAggregators, Aggregators>::Type;

/// Steps that one launch runs, one after another.
struct StepList {
  static constexpr int most = 11;  ///< a pre-aggregator, a rule, and what is before and after them
  int count = 0;
  AnyStep steps[most];
};

template <class StepT>
constexpr bool is_independent = requires {
  StepT::independent;
};

/// Rows, references among them, above which an independent step is a launch of its own.
template <class StepT>
constexpr int most_listed_rows = most_rows_of_a_list;
template <>
constexpr int most_listed_rows<RankStep> = most_rows_ranked_in_a_list;
template <>
constexpr int most_listed_rows<KrumScoresStep> = most_rows_scored_in_a_list;

/// Enqueues `upload` (common/upload.hpp), and the step for every part's block. @throws Error as simt::launch.
void upload_and_prepare(void* device, const void* host, std::size_t bytes, const PrepareStep& step,
                        const SolveBlocks& blocks, Stream stream);

/// Enqueues list's steps for every part's block, a thread block each. @throws Error as simt::launch.
void run_steps(const StepList& list, const SolveBlocks& blocks, Stream stream);

/// Enqueues an independent step for every part's block, over a grid. @throws Error as simt::launch.
template <class StepT>
void run_over_grid(const StepT& step, const SolveBlocks& blocks, Stream stream);

/// Enqueues state.end_run(the parts' status): the last step, where there are several. @throws Error as
/// simt::launch.
void end_run(const SolveBlocks& blocks, PlanState* state, Stream stream);

/// Steps on their way to a stream: as few launches as may be.
class StepQueue {
 public:
  StepQueue(const SolveBlocks& blocks, Stream stream) : blocks_(blocks), stream_(stream) {}

  template <class StepT>
  void add(const StepT& step) {
    if constexpr (is_independent<StepT>) {
      if (blocks_.rows > most_listed_rows<StepT>) {
        flush();
        return run_over_grid(step, blocks_, stream_);
      }
    }
    if (list_.count == StepList::most) flush();
    list_.steps[list_.count++] = step;
  }
  /// Enqueues the steps that were added.
  void flush() {
    if (list_.count > 0) run_steps(list_, blocks_, stream_);
    list_.count = 0;
  }

 private:
  const SolveBlocks& blocks_;
  Stream stream_;
  StepList list_;
};

}  // namespace bragg::detail::cuda
