// SPDX-License-Identifier: Apache-2.0
// Twelve clients learn to read handwritten digits together; two of them are hostile. scripts/demo.sh runs it.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "examples/digits/data.hpp"
#include "examples/digits/federation.hpp"
#include "examples/digits/partition.hpp"
#include "examples/digits/plot.hpp"

namespace {

const std::array<std::string, 2> scenarios{"All twelve clients honest", "Two of the twelve hostile"};

struct Arguments {
  std::filesystem::path data;
  std::filesystem::path plot;
  double require = 0;
  // Beside the mean, at most three.
  std::vector<std::string> rules{"nnm(f=2) | trimmed_mean(f=2)", "geometric_median",
                                 "centered_clipping(tau=1, iters=3)"};
  digits::Settings settings;
};

/// A line that is drawn over and over; silent unless standard error is a terminal.
class ProgressLine {
 public:
  void show(int done, int total, const std::string& words) const {
    if (terminal_) {
      const int filled = 24 * done / total;
      fmt::print(stderr, "\r[{:=<{}}{:{}}] {:3} %  {:50.50}", "", filled, "", 24 - filled, 100 * done / total,
                 words);
      std::fflush(stderr);
    }
  }
  void clear() const {
    if (terminal_) {
      fmt::print(stderr, "\r{:90}\r", "");
    }
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) == 1;
};

std::vector<digits::Client> make_clients(const std::vector<digits::Image>& images, std::uint64_t seed) {
  std::vector<digits::Client> clients;
  for (auto& part : digits::dirichlet_partition(images, 12, 0.3, 20, seed)) {
    clients.push_back({std::move(part)});
  }
  clients[3].under_attack = digits::Behaviour::not_a_number;
  clients[8].under_attack = digits::Behaviour::sign_flip;
  return clients;
}

void print_clients(const std::vector<digits::Client>& clients) {
  fmt::print("Images of each digit that a client has (Dirichlet 0.3)\n\n{:10}", "client");
  for (std::size_t label = 0; label < digits::classes; ++label) {
    fmt::print("{:5}", label);
  }
  fmt::print("{:>7}   under attack\n", "all");
  for (std::size_t c = 0; c < clients.size(); ++c) {
    fmt::print("{:>6}    ", c + 1);
    for (std::size_t label = 0; label < digits::classes; ++label) {
      const auto& images = clients[c].images;
      fmt::print("{:5}", std::count_if(images.begin(), images.end(),
                                       [&](const auto& i) { return i.label == label; }));
    }
    constexpr std::array<const char*, 3> behaviour{"", "   sends NaN", "   sends -10 times its update"};
    fmt::print("{:7}{}\n", clients[c].images.size(),
               behaviour.at(static_cast<std::size_t>(clients[c].under_attack)));
  }
}

/// The rounds that the table has a column for: at most nine.
std::vector<int> columns(int rounds) {
  std::vector<int> out;
  for (const int round : {0, 1, 2, 5, 10, 20, 30, 50}) {
    if (round < rounds) {
      out.push_back(round);
    }
  }
  out.push_back(rounds);
  return out;
}

void print_row(const digits::Curve& curve) {
  fmt::print("  {:34}", curve.label);
  for (const int round : columns(static_cast<int>(curve.accuracy.size()) - 1)) {
    fmt::print("{:7.1f}", 100 * curve.accuracy[static_cast<std::size_t>(round)]);
  }
  fmt::print("\n");
  std::fflush(stdout);
}

/// Trains under every rule, with and without the attack, printing a row of the table as each is done.
std::vector<digits::Panel> train_all(const Arguments& arguments, const std::vector<digits::Client>& clients,
                                     const std::vector<digits::Image>& test) {
  const ProgressLine progress;
  std::vector<std::string> rules = arguments.rules;
  rules.insert(rules.begin(), "mean");
  const int rounds = arguments.settings.rounds;
  const int total = static_cast<int>(scenarios.size() * rules.size()) * rounds;
  int done = 0;
  fmt::print("\n{:36}", "Test accuracy (%) after round");
  for (const int round : columns(rounds)) {
    fmt::print("{:7}", round);
  }
  fmt::print("\n");
  std::vector<digits::Panel> panels;
  for (std::size_t attack = 0; attack < scenarios.size(); ++attack) {
    fmt::print("{}\n", scenarios[attack]);
    panels.push_back({scenarios[attack], {}});
    for (const std::string& rule : rules) {
      digits::Curve curve{rule, {}};
      digits::federate(arguments.settings, clients, attack == 1, rule, test, [&](int round, double accuracy) {
        curve.accuracy.push_back(accuracy);
        progress.show(done + round, total, fmt::format("{}, round {}", rule, round));
      });
      done += rounds;
      progress.clear();
      print_row(curve);
      panels.back().curves.push_back(std::move(curve));
    }
  }
  return panels;
}

/// Says in a sentence what the table shows. False if a robust rule under attack ends below `require`.
bool conclude(const std::vector<digits::Panel>& panels, double require) {
  const auto last = [&](std::size_t attack, std::size_t rule) {
    return panels[attack].curves[rule].accuracy.back();
  };
  double least = 1;
  for (std::size_t rule = 1; rule < panels[1].curves.size(); ++rule) {
    least = std::min(least, last(1, rule));
  }
  fmt::print(
      "\nTwo hostile clients of twelve take the mean from {:.1f} % to {:.1f} %; "
      "the robust rules keep at least {:.1f} %.\n",
      100 * last(0, 0), 100 * last(1, 0), 100 * least);
  if (least < require) {
    fmt::print(stderr, "error: {:.1f} % is less than the {:.1f} % required\n", 100 * least, 100 * require);
  }
  return least >= require;
}

bool run(const Arguments& arguments) {
  const digits::Dataset dataset = digits::load(arguments.data);
  fmt::print(
      "{} images to train on, {} to test. In each round the clients' models go through\n"
      "  bragg aggregate client-01.safetensors … --rule RULE --base global.safetensors -o "
      "next.safetensors\n\n",
      dataset.train.size(), dataset.test.size());
  const auto clients = make_clients(dataset.train, arguments.settings.seed);
  print_clients(clients);
  const auto panels = train_all(arguments, clients, dataset.test);
  digits::write_plot(
      arguments.plot,
      "Federated learning of handwritten digits: what is left of it when two of twelve clients are hostile",
      panels);
  return conclude(panels, arguments.require);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Federated learning of handwritten digits, with and without hostile clients");
  app.add_option("--data", arguments.data, "digits.csv")->required()->check(CLI::ExistingFile);
  app.add_option("--bragg", arguments.settings.bragg, "the bragg command")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--folder", arguments.settings.folder, "where the models are written")->required();
  app.add_option("--plot", arguments.plot, "SVG file to write")->required();
  app.add_option("--rule", arguments.rules, "rules to train by, beside the mean")->expected(1, 3);
  app.add_option("--rounds", arguments.settings.rounds, "rounds of training")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--require", arguments.require,
                 "fail if a robust rule under attack ends below this accuracy (0…1)")
      ->check(CLI::Range(0.0, 1.0));
  CLI11_PARSE(app, argc, argv);
  try {
    return run(arguments) ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
