// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "examples/digits/data.hpp"
#include "examples/digits/network.hpp"

namespace digits {

/// What a client sends instead of its model.
enum class Behaviour : std::uint8_t {
  honest,
  not_a_number,  // a model of NaN
  sign_flip,     // global − 10 · (its model − global)
};

struct Client {
  std::vector<Image> images;
  Behaviour under_attack = Behaviour::honest;
};

struct Settings {
  std::filesystem::path bragg;   // the command
  std::filesystem::path folder;  // for the models of a round; created
  int rounds = 40;
  std::uint64_t seed = 1;
  Network::Training training;
};

/// Trains one network with the clients for settings.rounds rounds. In each, every client starts from the
/// global model, trains on its own images and writes its model to a safetensors file; the `bragg` command
/// makes the next global model of these files by `rule`. `on_round(round, accuracy)` is told the share of
/// `test` that the global model gets right, before the first round (0) and after each.
/// @throws std::runtime_error with the command's words if it fails.
void federate(const Settings& settings, const std::vector<Client>& clients, bool attack,
              const std::string& rule, const std::vector<Image>& test,
              const std::function<void(int, double)>& on_round);

}  // namespace digits
