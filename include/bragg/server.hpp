// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <variant>

namespace bragg {
inline namespace v0 {

// How a server goes on from its model x, by what a rule makes of the workers' models: Δ is their aggregate
// less x. Each coordinate goes by itself. The same as the classes of these names in Python's bragg.training.

/// v ← momentum·v + Δ, from 0; x + lr·v (Hsu et al. 2019). Without momentum x + lr·Δ.
struct ServerSgd {
  double lr = 0;        ///< needs a value: finite, above 0
  double momentum = 0;  ///< in [0, 1)
};

/// m ← beta1·m + (1−beta1)·Δ, from 0; v ← beta2·v + (1−beta2)·Δ², from tau²; x + lr·m/(√v + tau), without a
/// correction of what m begins with (FedAdam, Reddi et al. 2021, Algorithm 2).
struct ServerAdam {
  double lr = 0;        ///< needs a value: finite, above 0
  double beta1 = 0.9;   ///< in [0, 1)
  double beta2 = 0.99;  ///< in [0, 1)
  double tau = 1e-3;    ///< above 0, at most 1e19
};

/// As ServerAdam, with v ← v − (1−beta2)·Δ²·sgn(v − Δ²), which forgets large changes slowly (FedYogi).
struct ServerYogi {
  double lr = 0;        ///< needs a value: finite, above 0
  double beta1 = 0.9;   ///< in [0, 1)
  double beta2 = 0.99;  ///< in [0, 1)
  double tau = 1e-3;    ///< above 0, at most 1e19
};

using ServerOptimizer = std::variant<ServerSgd, ServerAdam, ServerYogi>;

}  // namespace v0
}  // namespace bragg
