// SPDX-License-Identifier: Apache-2.0
// Ranks of an MPI job learn a line by gradient descent. The last rank's gradients are garbage. An all-reduce
// that adds them up loses everything; a robust one in its place does not.
#include <bragg/bragg.hpp>
#include <bragg/mpi.hpp>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

constexpr int dimension = 1000;

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  try {
    bragg::mpi::Communicator ranks(MPI_COMM_WORLD);
    const bool hostile = ranks.size() > 2 && ranks.rank() == ranks.size() - 1;
    bragg::AllReduce all_reduce(bragg::parse("nnm(f=1) | trimmed_mean(f=1)"),
                                {.n = ranks.size(), .sizes = {dimension}}, ranks);
    std::mt19937 random(static_cast<unsigned>(ranks.rank()));
    std::normal_distribution<float> normal;
    std::vector<float> plain(dimension), robust(dimension), gradient(dimension);

    // Everybody's samples say that each weight is 1; `weights` are what this method has learnt so far.
    const auto gradient_at = [&](const std::vector<float>& weights) {
      for (int j = 0; j < dimension; ++j) gradient[j] = weights[j] - 1 + 0.1F * normal(random);
      if (hostile) gradient.assign(dimension, NAN);
    };
    for (int step = 0; step < 50; ++step) {
      gradient_at(plain);
      MPI_Allreduce(MPI_IN_PLACE, gradient.data(), dimension, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      for (int j = 0; j < dimension; ++j) plain[j] -= 0.2F * gradient[j] / static_cast<float>(ranks.size());

      gradient_at(robust);
      all_reduce.run(bragg::Row(gradient), bragg::Output(gradient));
      if (all_reduce.status() != bragg::Status::ok) break;
      for (int j = 0; j < dimension; ++j) robust[j] -= 0.2F * gradient[j];
    }
    if (ranks.rank() == 0) std::printf("plain:  %.1f\nrobust: %.1f\n", plain[0], robust[0]);
  } catch (const bragg::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);  // the others wait for this rank
  }
  MPI_Finalize();
}
