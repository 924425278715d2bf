// SPDX-License-Identifier: Apache-2.0
#include "host/verify/verify.hpp"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>

#include "host/base/team.hpp"
#include "host/verify/aimed.hpp"
#include "rules/nearest.hpp"

#if defined(BRAGG_HAS_CUDA)
#include "kernels/common/sum_unit.hpp"
#include "kernels/gram/gram.hpp"
#include "kernels/runtime/runtime.hpp"
#endif

namespace bragg::verify {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array dtypes = {DType::f32, DType::f16, DType::bf16, DType::f64};
constexpr std::size_t most_findings = 20;
/// Cases whose oracle is asked at the same time.
constexpr std::size_t batch_size = 16;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_wanted(const char* text, const std::vector<std::string>& wanted) {
  if (wanted.empty()) return true;
  const std::vector<std::string> names = rules_in(text);
  return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& one) {
    return one == text || std::find(names.begin(), names.end(), one) != names.end();
  });
}

/// Why there is no case of what --rule names.
std::string no_case_of(const std::string& wanted, bool aimed) {
  const char* const kind = aimed ? "aimed cases" : "cases";
  const auto name_of = [](const RuleInfo& rule) { return rule.name; };
  if (std::any_of(rules().begin(), rules().end(),
                  [&](const RuleInfo& rule) { return rule.name == wanted; })) {
    return fmt::format("{} has no {}{}", wanted, kind, aimed ? "; leave out --aimed to check it" : "");
  }
  if (wanted.find_first_of("(|") != std::string::npos) {
    return fmt::format("there are no {} of the pipeline '{}'; name a rule in it", kind, wanted);
  }
  const std::string_view meant = detail::nearest(wanted, rules(), name_of);
  if (!meant.empty()) return fmt::format("unknown rule '{}'; did you mean {}?", wanted, meant);
  return fmt::format("unknown rule '{}'; `bragg rules` lists them", wanted);
}

std::vector<const char*> wanted_pipelines(const Settings& settings) {
  const std::vector<std::string>& wanted = settings.rules;
  std::vector<const char*> texts;
  for (const char* const text : settings.aimed ? aimed_pipelines() : pipelines()) {
    if (is_wanted(text, wanted)) texts.push_back(text);
  }
  for (const std::string& one : wanted) {
    if (std::any_of(texts.begin(), texts.end(), [&](const char* text) { return is_wanted(text, {one}); }))
      continue;
    throw Error(Status::invalid_argument, "--rule: " + no_case_of(one, settings.aimed));
  }
  return texts;
}

/// A case, and the oracle's word on it unless it is aimed.
struct Question {
  Case drawn;
  Expectation expected;
};

class Verification {
 public:
  explicit Verification(const Settings& settings) : settings_(settings), texts_(wanted_pipelines(settings)) {
    findings_.seed = settings.seed;
  }
  Findings run();

 private:
  void run_round(std::uint64_t seed);
  std::vector<Question> ask(std::uint64_t seed, std::size_t first, std::size_t count) const;
  void run_case(const Question& question);
  Verdict verdict_of(const Question& question, const Backend& backend, Outcome& got) const;
  void record(const Question& question, std::size_t backend, const Verdict& verdict);
  Cell& cell(const std::string& rule, DType dtype, std::size_t backend);
  void sort_cells();
  void show(std::size_t done_of_round);

  const Settings& settings_;
  std::vector<const char*> texts_;
  Clock::time_point start_ = Clock::now();
  Findings findings_;
};

Findings Verification::run() {
  double longest = 0;
  do {
    const Clock::time_point begin = Clock::now();
    run_round(settings_.seed + static_cast<std::uint64_t>(findings_.rounds));
    ++findings_.rounds;
    longest = std::max(longest, seconds_since(begin));
  } while (seconds_since(start_) + longest <= settings_.seconds);
  findings_.seconds = seconds_since(start_);
  sort_cells();
  return std::move(findings_);
}

void Verification::run_round(std::uint64_t seed) {
  const std::size_t count = texts_.size() * dtypes.size();
  std::size_t done = 0;
  while (done < count) {
    for (const Question& question : ask(seed, done, std::min(batch_size, count - done))) {
      run_case(question);
      show(++done);
    }
  }
}

/// Draws cases and asks the oracle, several at a time: it takes longer than the library.
std::vector<Question> Verification::ask(std::uint64_t seed, std::size_t first, std::size_t count) const {
  std::vector<Question> questions(count);
  std::vector<std::exception_ptr> failures(count);
#pragma omp parallel for schedule(dynamic) num_threads(detail::team(omp_get_max_threads()))
  for (std::size_t k = 0; k < count; ++k) {
    try {
      const std::size_t i = first + k;
      const char* const text = texts_[i / dtypes.size()];
      const DType dtype = dtypes[i % dtypes.size()];
      if (settings_.aimed) {
        questions[k].drawn = draw_aimed_case(text, dtype, seed);
        continue;
      }
      questions[k].drawn = draw_case(text, dtype, seed, settings_.work);
      questions[k].expected = expect(questions[k].drawn.pipeline, questions[k].drawn.request);
    } catch (...) {
      failures[k] = std::current_exception();
    }
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return questions;
}

Verdict Verification::verdict_of(const Question& question, const Backend& backend, Outcome& got) const {
  const Pipeline& pipeline = question.drawn.pipeline;
  Request request = question.drawn.request;
  Verdict verdict;
  try {
    got = backend.run(pipeline, request);
    verdict =
        settings_.aimed ? judge_aimed(question.drawn, got) : judge(pipeline, request, question.expected, got);
    request.options.threads = request.options.threads % 3 + 1;
    const Outcome again = backend.run(pipeline, request);
    if (!verdict.breach && (again.status != got.status || again.bytes != got.bytes)) {
      verdict.breach = Breach{.what = "a second run gave other bits"};
    }
  } catch (const Error& error) {
    verdict.breach = Breach{.what = error.what()};
  }
  return verdict;
}

void Verification::run_case(const Question& question) {
  ++findings_.cases;
  const bool one_answer = !settings_.aimed && has_one_right_answer(question.drawn.pipeline,
                                                                   question.drawn.request, question.expected);
  std::vector<unsigned char> cpu;
  if (one_answer) cpu = verify::run(question.drawn.pipeline, question.drawn.request).bytes;
  for (std::size_t b = 0; b < settings_.backends.size(); ++b) {
    Outcome got;
    Verdict verdict = verdict_of(question, settings_.backends[b], got);
    if (one_answer && !verdict.breach && got.bytes != cpu) {
      verdict.breach = Breach{.what = "other bits than the CPU's"};
    }
    record(question, b, verdict);
  }
}

void Verification::record(const Question& question, std::size_t backend, const Verdict& verdict) {
  const Case& drawn = question.drawn;
  ++findings_.runs;
  findings_.judged += verdict.judged ? 1 : 0;
  std::vector<std::string> names = rules_in(drawn.text);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) {
    Cell& in = cell(name, drawn.request.dtype, backend);
    ++in.runs;
    in.judged += verdict.judged ? 1 : 0;
    in.breaches += verdict.breach ? 1 : 0;
    in.worst = std::max(in.worst, static_cast<double>(verdict.worst));
  }
  if (!verdict.breach) return;
  ++findings_.breaches;
  if (findings_.findings.size() == most_findings) return;
  const bool cuda = settings_.backends[backend].device == Device::cuda;
  findings_.findings.push_back(
      {drawn, backend, *verdict.breach, verdict.complaint(),
       fmt::format("bragg verify{} --device {} --seed {} --rule '{}' --quick",
                   settings_.aimed ? " --aimed" : "", cuda ? "cuda" : "cpu", drawn.seed, drawn.text)});
}

Cell& Verification::cell(const std::string& rule, DType dtype, std::size_t backend) {
  std::vector<Cell>& cells = findings_.cells;
  const auto at = std::find_if(cells.begin(), cells.end(), [&](const Cell& one) {
    return one.rule == rule && one.dtype == dtype && one.backend == backend;
  });
  return at != cells.end() ? *at : cells.emplace_back(Cell{.rule = rule, .dtype = dtype, .backend = backend});
}

void Verification::sort_cells() {
  std::vector<Cell> sorted;
  for (std::size_t backend = 0; backend < settings_.backends.size(); ++backend) {
    for (const RuleInfo& rule : rules()) {
      for (const DType dtype : dtypes) {
        Cell& one = cell(std::string(rule.name), dtype, backend);
        if (one.runs > 0) sorted.push_back(one);
      }
    }
  }
  findings_.cells = std::move(sorted);
}

void Verification::show(std::size_t done_of_round) {
  if (!settings_.progress) return;
  const double of_round =
      static_cast<double>(done_of_round) / static_cast<double>(texts_.size() * dtypes.size());
  const double of_time = settings_.seconds > 0 ? seconds_since(start_) / settings_.seconds : of_round;
  settings_.progress({.rounds = findings_.rounds,
                      .cases = findings_.cases,
                      .breaches = findings_.breaches,
                      .share = std::min(1.0, of_time)});
}

}  // namespace

std::vector<Backend> backends() {
  std::vector<Backend> found{{.device = Device::cpu, .name = "cpu", .description = "", .run = run}};
#if defined(BRAGG_HAS_CUDA)
  for (int i = 0; i < cuda_device_count(); ++i) {
    const auto run_there = [i](const Pipeline& pipeline, Request request) {
      request.options.device = Device::cuda;
      request.options.cuda_device = i;
      return run(pipeline, request);
    };
    found.push_back(
        {.device = Device::cuda,
         .name = fmt::format("cuda:{}", i),
         .description = fmt::format("{}, products by {}, sums in {}", detail::cuda::device_name(i),
                                    detail::cuda::gram_units(i), to_string(detail::cuda::sum_unit(i))),
         .run = run_there});
  }
#endif
  return found;
}

Findings verify(const Settings& settings) { return Verification(settings).run(); }

}  // namespace bragg::verify
