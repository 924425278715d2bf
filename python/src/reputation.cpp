// SPDX-License-Identifier: Apache-2.0
#include "python/src/reputation.hpp"

#include <fmt/format.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>
#include <bragg/reputation.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "python/src/errors.hpp"

namespace bragg::python {

namespace {

/// Of each report what counts: of each row its weight, and how many of its values are not finite.
using Evidence = std::vector<std::pair<std::vector<double>, std::vector<std::int64_t>>>;

std::vector<Report> reports_of(const Evidence& evidence) {
  std::vector<Report> reports;
  for (const auto& [weights, nonfinite] : evidence) {
    Report& report = reports.emplace_back();
    for (std::size_t i = 0; i < weights.size(); ++i)
      report.rows.push_back(
          {.weight = weights[i], .selected = weights[i] != 0, .nonfinite = nonfinite.at(i)});
  }
  return reports;
}

std::map<std::string, double> scores_of(const Reputation& reputation) {
  std::map<std::string, double> scores;
  for (const auto& [name, standing] : reputation.standings()) scores.emplace(name, standing.score);
  return scores;
}

std::string shown(const Trust& trust) {
  return fmt::format("Trust({} of {} rows, {})", trust.rows.size(), trust.names.size(),
                     trust.weights.empty() ? "alike" : "weighted");
}

std::string shown(const Judgement& judgement) {
  return fmt::format("Judgement({}: {:.3g} to {:.3g}, {})", judgement.name, judgement.before, judgement.after,
                     judgement.reason);
}

}  // namespace

void add_reputation(nb::module_& module) {
  nb::class_<Trust>(module, "Trust", "How a round is to be run: what bragg.Reputation.trust returns.")
      .def_ro("names", &Trust::names, "Of all workers of the round, in their order.")
      .def_ro("rows", &Trust::rows, "Which of them count, ascending; the others are in quarantine.")
      .def_prop_ro(
          "rule", [](const Trust& trust) { return to_string(trust.pipeline); },
          "The rule for these rows: a pivot is that of the same worker.")
      .def_prop_ro(
          "weights",
          [](const Trust& trust) {
            return trust.weights.empty() ? std::nullopt : std::optional(trust.weights);
          },
          "Client weights of these rows, already capped. None: all alike, or the rule has no weighted form.")
      .def_ro("max_weight_share", &Trust::max_weight_share, "What no weight exceeds of their sum.")
      .def_ro("warnings", &Trust::warnings, "Who is due for quarantine and counts nevertheless, and why.")
      .def_ro("only_watched", &Trust::only_watched,
              "Why the reputation has no say in the round, and learns alone; empty where it has one.")
      .def("__repr__", [](const Trust& trust) { return shown(trust); });
  nb::class_<Judgement>(module, "Judgement", "What a round has shown of a worker.")
      .def_ro("name", &Judgement::name)
      .def_prop_ro(
          "verdict", [](const Judgement& judgement) { return to_string(judgement.verdict); },
          "\"kept\", \"left out\", \"doubted\", \"failed\", \"quarantined\" or \"not judged\".")
      .def_ro("before", &Judgement::before, "Its score before the round.")
      .def_ro("after", &Judgement::after, "Its score after it.")
      .def_ro("left_out", &Judgement::left_out,
              "In [0, 1]: how much of it the rule left out, beside the usual row.")
      .def_ro("quarantine", &Judgement::quarantine, "Rounds of quarantine that are left from now.")
      .def_ro("reason", &Judgement::reason, "In words.")
      .def("__repr__", [](const Judgement& judgement) { return shown(judgement); });
  nb::class_<Reputation>(module, "Reputation")
      .def(
          "__init__",
          [](Reputation* self, double newcomer, double rise, double fall, double patience, double floor,
             int sentence, int f) {
            new (self) Reputation({newcomer, rise, fall, patience, floor, sentence, f});
          },
          nb::arg("newcomer"), nb::arg("rise"), nb::arg("fall"), nb::arg("patience"), nb::arg("floor"),
          nb::arg("sentence"), nb::arg("f"))
      .def(nb::init<const Reputation&>())
      .def_static(
          "load", [](const std::string& path) { return Reputation::load(path); }, nb::arg("path"))
      .def(
          "save", [](const Reputation& self, const std::string& path) { self.save(path); }, nb::arg("path"))
      .def(
          "trust",
          [](const Reputation& self, std::string_view rule, const std::vector<std::string>& names,
             const std::optional<std::vector<double>>& weights, double max_weight_share) {
            return self.trust(parse_shown(rule), names, weights ? *weights : std::vector<double>(),
                              max_weight_share);
          },
          nb::arg("rule"), nb::arg("names"), nb::arg("weights").none(), nb::arg("max_weight_share"))
      .def(
          "update",
          [](Reputation& self, const Trust& trust, const Evidence& reports,
             const std::vector<std::string>& bad) { return self.update(trust, reports_of(reports), bad); },
          nb::arg("trust"), nb::arg("reports"), nb::arg("bad"))
      .def("score", &Reputation::score, nb::arg("name"))
      .def_prop_ro("scores", &scores_of)
      .def_prop_ro("round", &Reputation::round);
}

}  // namespace bragg::python
