// SPDX-License-Identifier: Apache-2.0
#include <bragg/bragg.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  const int n = 12, d = 4;  // twelve workers, updates of four coordinates
  std::vector<float> updates(n * d, 1.0F);
  for (int j = 0; j < d; ++j) {
    updates[3 * d + j] = NAN;      // one worker is broken
    updates[8 * d + j] = -1000.F;  // one lies
  }
  std::vector<float> mean(d), robust(d);
  const auto view = bragg::Updates::matrix(updates, n, d);
  bragg::aggregate(bragg::Mean{}, view, bragg::Output(mean));
  bragg::aggregate(bragg::parse("nnm(f=2) | trimmed_mean(f=2)"), view, bragg::Output(robust));
  std::printf("mean:   %g\nrobust: %g\n", mean[0], robust[0]);
}
