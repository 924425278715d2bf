// SPDX-License-Identifier: Apache-2.0
#include "examples/digits/federation.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "examples/digits/command.hpp"
#include "examples/digits/random.hpp"

namespace digits {
namespace {

/// The model that a client sends, given the one it has trained honestly.
void misbehave(Behaviour behaviour, const Network& global, Network& trained) {
  switch (behaviour) {
    case Behaviour::honest:
      break;
    case Behaviour::not_a_number:
      std::fill(trained.parameters.begin(), trained.parameters.end(),
                std::numeric_limits<float>::quiet_NaN());
      break;
    case Behaviour::sign_flip:
      for (std::size_t p = 0; p < Network::parameter_count; ++p) {
        trained.parameters[p] = global.parameters[p] - 10 * (trained.parameters[p] - global.parameters[p]);
      }
      break;
  }
}

std::filesystem::path client_file(const std::filesystem::path& folder, std::size_t client) {
  return folder /
         ("client-" + std::string(client < 9 ? "0" : "") + std::to_string(client + 1) + ".safetensors");
}

}  // namespace

void federate(const Settings& settings, const std::vector<Client>& clients, bool attack,
              const std::string& rule, const std::vector<Image>& test,
              const std::function<void(int, double)>& on_round) {
  std::filesystem::create_directories(settings.folder);
  const std::filesystem::path global_file = settings.folder / "global.safetensors";
  const std::filesystem::path next_file = settings.folder / "next.safetensors";
  std::vector<std::string> command{settings.bragg, "aggregate"};
  for (std::size_t c = 0; c < clients.size(); ++c) {
    command.push_back(client_file(settings.folder, c));
  }
  command.insert(command.end(), {"--rule", rule, "--base", global_file, "-o", next_file});
  command.emplace_back("--allow-nonfinite");  // what the mean makes of an attack is to be seen

  Random initial(settings.seed, 1);
  Network global(initial);
  global.save(global_file);
  on_round(0, global.accuracy(test));
  for (int round = 1; round <= settings.rounds; ++round) {
    for (std::size_t c = 0; c < clients.size(); ++c) {
      // The order of a client's images is the same under every rule, so that only the rule differs.
      Random order(settings.seed, 1000 * static_cast<std::uint64_t>(round) + c);
      Network model = global;
      model.train(clients[c].images, settings.training, order);
      misbehave(attack ? clients[c].under_attack : Behaviour::honest, global, model);
      model.save(client_file(settings.folder, c));
    }
    run_command(command, settings.folder / "bragg.log");
    std::filesystem::rename(next_file, global_file);
    global = Network::load(global_file);
    on_round(round, global.accuracy(test));
  }
}

}  // namespace digits
