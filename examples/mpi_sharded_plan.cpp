// SPDX-License-Identifier: Apache-2.0
// Ranks of an MPI job share a model, and the updates of eight clients: each rank has its slices of the
// model's tensors, of every update the same. Clients are judged by the whole of their updates, which no rank
// has.
#include <bragg/bragg.hpp>
#include <bragg/mpi.hpp>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

constexpr int clients = 8;

/// What a client changes in elements of a tensor; client 3 sends one NaN, client 5 the opposite and more.
std::vector<float> update_of(int client, std::size_t tensor, const bragg::Slice& slice) {
  std::vector<float> values;
  for (std::int64_t j = slice.begin; j < slice.end; ++j) {
    std::minstd_rand random(static_cast<unsigned>(1 + client + clients * j));
    const float change = 1 + std::normal_distribution<float>(0, 0.1F)(random);
    values.push_back(client == 5 ? -10 * change : change);
    if (client == 3 && tensor == 1 && j == 7) values.back() = NAN;
  }
  return values;
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  try {
    bragg::mpi::Communicator ranks(MPI_COMM_WORLD);
    const std::vector<std::int64_t> sizes{100000, 300};
    const bragg::Sharding sharding = bragg::Sharding::even(sizes, ranks.size());
    bragg::ShardedPlan plan(bragg::parse("multi_krum(f=2)"), {.n = clients, .sizes = sizes}, sharding, ranks);

    const auto slices = sharding.slices(ranks.rank());
    std::vector<std::vector<float>> updates;  // of all clients, tensor by tensor
    std::vector<std::vector<const void*>> rows(clients);
    std::vector<std::vector<float>> change;  // of the model: this rank's slices
    bragg::Output out;
    for (int client = 0; client < clients; ++client) {
      for (std::size_t t = 0; t < sizes.size(); ++t) {
        updates.push_back(update_of(client, t, slices[t]));
        rows[client].push_back(updates.back().data());
      }
    }
    for (const bragg::Slice& slice : slices) {
      change.emplace_back(slice.size());
      out.tensors.push_back(change.back().data());
    }
    plan.run(bragg::Updates::tensors(rows, sharding.sizes_of(ranks.rank()), bragg::DType::f32), out);

    if (ranks.rank() == 0) {  // the report is the same on all ranks
      std::printf("weights:");
      for (const bragg::RowReport& row : plan.report().rows) std::printf(" %.2f", row.weight);
      std::printf("\n");
    }
  } catch (const bragg::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);  // the others wait for this rank
  }
  MPI_Finalize();
}
