// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "examples/digits/data.hpp"

namespace digits {

/// Deals the images to `clients` clients unequally: of each class, client c gets a share drawn from a
/// Dirichlet distribution (all parameters `alpha`; small: each client knows few classes). Drawn again, from
/// the same stream, until every client has at least `least` images. Hsu, Qi & Brown 2019.
std::vector<std::vector<Image>> dirichlet_partition(const std::vector<Image>& images, std::size_t clients,
                                                    double alpha, std::size_t least, std::uint64_t seed);

}  // namespace digits
