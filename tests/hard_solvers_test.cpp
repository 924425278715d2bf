// SPDX-License-Identifier: Apache-2.0
// The exact and the spectral solvers in Gram space against enumeration and against the definition on vectors.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "rules/autogm.hpp"
#include "rules/bulyan.hpp"
#include "rules/caf.hpp"
#include "rules/geometric_median.hpp"
#include "rules/huber.hpp"
#include "rules/mda.hpp"
#include "rules/smea.hpp"
#include "rules/solve/eigen.hpp"
#include "rules/solve/vertex_cover.hpp"
#include "tests/support/seed.hpp"

namespace bragg::detail {
namespace {

using Real = long double;
using Rows = std::vector<std::vector<double>>;
using Mask = std::uint32_t;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

test::Generator generator() {
  return test::generator(testing::UnitTest::GetInstance()->current_test_info()->name());
}

Rows normal_rows(std::mt19937_64& random, int n, int d, double offset = 0) {
  std::normal_distribution<double> normal;
  Rows rows(at(n), std::vector<double>(at(d)));
  for (auto& row : rows) {
    for (double& x : row) x = offset + normal(random);
  }
  return rows;
}

/// Small integers: distances are exact and often equal.
Rows integer_rows(std::mt19937_64& random, int n, int d, int range) {
  Rows rows(at(n), std::vector<double>(at(d)));
  for (auto& row : rows) {
    for (double& x : row) x = static_cast<double>(random() % static_cast<unsigned>(range));
  }
  return rows;
}

Rows clustered_rows(std::mt19937_64& random, int n, int d) {
  Rows rows = normal_rows(random, n, d);
  for (auto& row : rows) {
    const double center = 100.0 * static_cast<double>(random() % 3);
    for (double& x : row) x += center;
  }
  return rows;
}

std::vector<std::uint8_t> no_infinite(std::size_t n) { return std::vector<std::uint8_t>(n, 0); }

/// Up to `most` infinite points, in random places.
std::vector<std::uint8_t> some_infinite(std::mt19937_64& random, int n, int most) {
  std::vector<std::uint8_t> infinite(at(n), 0);
  for (int k = static_cast<int>(random() % static_cast<unsigned>(most + 1)); k > 0; --k) {
    infinite[random() % at(n)] = 1;
  }
  return infinite;
}

/// (n + 1)² inner products; the last row is the origin's.
std::vector<double> gram_of(const Rows& rows, const std::vector<std::uint8_t>& infinite) {
  const std::size_t n = rows.size();
  std::vector<double> gram((n + 1) * (n + 1), 0);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      if (infinite[i] || infinite[j]) continue;
      double sum = 0;
      for (std::size_t k = 0; k < rows[i].size(); ++k) sum += rows[i][k] * rows[j][k];
      gram[i * (n + 1) + j] = sum;
    }
  }
  return gram;
}

std::vector<double> distances_of(const Rows& rows, const std::vector<std::uint8_t>& infinite) {
  const std::size_t n = rows.size();
  std::vector<double> distances(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < rows[i].size(); ++k)
        sum += (rows[i][k] - rows[j][k]) * (rows[i][k] - rows[j][k]);
      distances[i * n + j] = infinite[i] || infinite[j] ? infinity : sum;
    }
  }
  return distances;
}

/// f(mask) for each subset of `size` of n points, in lexicographic order of the sorted index lists; bit i is
/// point i.
template <class F>
void for_each_subset(int n, int size, F f) {
  std::vector<int> chosen(at(size));
  std::iota(chosen.begin(), chosen.end(), 0);
  for (;;) {
    Mask mask = 0;
    for (const int i : chosen) mask |= Mask{1} << i;
    f(mask);
    int k = size - 1;
    while (k >= 0 && chosen[at(k)] == n - size + k) --k;
    if (k < 0) return;
    ++chosen[at(k)];
    for (int j = k + 1; j < size; ++j) chosen[at(j)] = chosen[at(j - 1)] + 1;
  }
}

Mask mask_of(const std::vector<std::uint8_t>& flags) {
  Mask mask = 0;
  for (std::size_t i = 0; i < flags.size(); ++i) mask |= static_cast<Mask>(flags[i]) << i;
  return mask;
}

double diameter(const std::vector<double>& distances, int n, const std::vector<std::uint8_t>& keep) {
  double most = 0;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < i; ++j) {
      if (keep[at(i)] && keep[at(j)]) most = std::max(most, distances[at(i) * at(n) + at(j)]);
    }
  }
  return most;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Eigenvalues, descending, and eigenvectors (columns of `vectors`) by cyclic Jacobi rotations.
std::vector<Real> jacobi(std::vector<std::vector<Real>> a, std::vector<std::vector<Real>>& vectors) {
  const std::size_t n = a.size();
  vectors.assign(n, std::vector<Real>(n, 0));
  for (std::size_t i = 0; i < n; ++i) vectors[i][i] = 1;
  for (int sweep = 0; sweep < 40; ++sweep) {
    for (std::size_t p = 0; p < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        if (a[p][q] == 0) continue;
        const Real theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const Real t = (theta >= 0 ? 1 : -1) / (std::fabs(theta) + std::hypot(theta, Real{1}));
        const Real c = 1 / std::hypot(t, Real{1});
        const Real s = t * c;
        for (std::size_t k = 0; k < n; ++k) {
          const Real kp = a[k][p];
          const Real kq = a[k][q];
          a[k][p] = c * kp - s * kq;
          a[k][q] = s * kp + c * kq;
        }
        for (std::size_t k = 0; k < n; ++k) {
          const Real pk = a[p][k];
          const Real qk = a[q][k];
          a[p][k] = c * pk - s * qk;
          a[q][k] = s * pk + c * qk;
          const Real vp = vectors[k][p];
          const Real vq = vectors[k][q];
          vectors[k][p] = c * vp - s * vq;
          vectors[k][q] = s * vp + c * vq;
        }
        a[p][q] = a[q][p] = 0;
      }
    }
  }
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return a[i][i] > a[j][j]; });
  std::vector<Real> values;
  std::vector<std::vector<Real>> sorted(n, std::vector<Real>(n));
  for (std::size_t k = 0; k < n; ++k) {
    values.push_back(a[order[k]][order[k]]);
    for (std::size_t i = 0; i < n; ++i) sorted[i][k] = vectors[i][order[k]];
  }
  vectors = sorted;
  return values;
}

// Eigenvalues
// ------------------------------------------------------------------------------------------------

using Matrix = std::vector<double>;

struct Eigen {
  std::vector<double> values, vectors;
};

/// All eigenpairs by the solver under test.
Eigen eigen_of(Matrix a, int n) {
  std::vector<double> diagonal(at(n)), off(at(n)), factor(at(n)), work(at(3 * n));
  const Tridiagonal t{.n = n, .diagonal = diagonal.data(), .off = off.data(), .factor = factor.data()};
  tridiagonalize(SerialTeam{}, a.data(), n, t, work.data());
  Eigen eigen{.values = std::vector<double>(at(n)), .vectors = std::vector<double>(at(n) * at(n))};
  top_eigenvectors(SerialTeam{}, a.data(), n, t, n, eigen.values.data(), eigen.vectors.data(), work.data());
  for (int k = 0; k < n; ++k) {
    const double slack = 1e-13 * spectral_bound(t) + 1e-280;
    EXPECT_LE(count_above(t, eigen.values[at(k)] + slack), k);
    EXPECT_GE(count_above(t, eigen.values[at(k)] - slack), k + 1);
  }
  return eigen;
}

void expect_eigenpairs(const Matrix& a, int n, const Eigen& eigen) {
  Real norm = 0;
  for (const double x : a) norm += static_cast<Real>(x) * x;
  const Real bound = 1e-13L * std::sqrt(norm) + 1e-280L;
  for (int k = 0; k < n; ++k) {
    const double* const v = &eigen.vectors[at(k) * at(n)];
    for (int i = 0; i < n; ++i) {
      Real residual = -static_cast<Real>(eigen.values[at(k)]) * v[i];
      for (int j = 0; j < n; ++j) residual += static_cast<Real>(a[at(i) * at(n) + at(j)]) * v[j];
      ASSERT_LE(std::fabs(residual), bound) << "n = " << n << ", pair " << k << ", row " << i;
    }
    for (int l = 0; l <= k; ++l) {
      const double* const w = &eigen.vectors[at(l) * at(n)];
      Real product = k == l ? -1 : 0;
      for (int i = 0; i < n; ++i) product += static_cast<Real>(v[i]) * w[i];
      ASSERT_LE(std::fabs(product), 1e-13L) << "n = " << n << ", pairs " << k << " and " << l;
    }
  }
}

Matrix random_symmetric(std::mt19937_64& random, int n) {
  std::normal_distribution<double> normal;
  Matrix a(at(n) * at(n));
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) a[at(i) * at(n) + at(j)] = a[at(j) * at(n) + at(i)] = normal(random) / n;
  }
  return a;
}

TEST(Eigenvalues, OfTheDiscreteLaplacianAreItsCosines) {
  for (const int n : {1, 2, 3, 10, 57}) {
    Matrix a(at(n) * at(n), 0);
    for (int i = 0; i < n; ++i) {
      a[at(i) * at(n) + at(i)] = 0.5;
      if (i + 1 < n) a[at(i) * at(n) + at(i + 1)] = a[at(i + 1) * at(n) + at(i)] = -0.25;
    }
    const Eigen eigen = eigen_of(a, n);
    expect_eigenpairs(a, n, eigen);
    for (int k = 0; k < n; ++k) {
      const Real expected = 0.5L - 0.5L * std::cos(std::acos(-1.0L) * (n - k) / (n + 1));
      EXPECT_NEAR(eigen.values[at(k)], static_cast<double>(expected), 1e-14);
    }
  }
}

TEST(Eigenvalues, OfMatricesWithRepeatedOnesHaveAnOrthonormalBasis) {
  test::Generator random = generator();
  for (const int n : {2, 3, 7, 24}) {
    Matrix identity(at(n) * at(n), 0);
    for (int i = 0; i < n; ++i) identity[at(i) * at(n) + at(i)] = 1;
    const Matrix ones(at(n) * at(n), 1.0 / n);
    // A reflection of a diagonal matrix of two distinct values.
    Matrix reflected(at(n) * at(n), 0);
    const std::vector<double> v = normal_rows(random, 1, n)[0];
    const double vv = std::inner_product(v.begin(), v.end(), v.begin(), 0.0);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        for (int k = 0; k < n; ++k) {
          const double left = (i == k ? 1 : 0) - 2 * v[at(i)] * v[at(k)] / vv;
          const double right = (j == k ? 1 : 0) - 2 * v[at(j)] * v[at(k)] / vv;
          reflected[at(i) * at(n) + at(j)] += left * right * (k % 2 == 0 ? 1 : 0.25);
        }
      }
    }
    for (const Matrix& a : {identity, ones, reflected}) {
      const Eigen eigen = eigen_of(a, n);
      expect_eigenpairs(a, n, eigen);
      EXPECT_NEAR(eigen.values[0], 1, 1e-14);
    }
    EXPECT_NEAR(eigen_of(ones, n).values[at(n - 1)], 0, 1e-14);
    EXPECT_NEAR(eigen_of(reflected, n).values[at((n + 1) / 2)], 0.25, 1e-14);
  }
}

TEST(Eigenvalues, OfWilkinsonsMatrixComeInPairsThatAgreeToTheLastDigits) {
  constexpr int n = 21;
  Matrix a(n * n, 0);
  for (int i = 0; i < n; ++i) {
    a[at(i) * n + at(i)] = std::abs(i - 10) / 10.0;
    if (i + 1 < n) a[at(i) * n + at(i + 1)] = a[at(i + 1) * n + at(i)] = 0.1;
  }
  const Eigen eigen = eigen_of(a, n);
  expect_eigenpairs(a, n, eigen);
  EXPECT_NEAR(eigen.values[0], 1.0746194182903393, 1e-14);
  EXPECT_NEAR(eigen.values[1], 1.0746194182903322, 1e-14);
}

TEST(Eigenvalues, OneLargeEntryBesideSmallOnesCancelsNothing) {
  test::Generator random = generator();
  constexpr int n = 6;
  for (const double small : {1e-3, 1e-7, 1e-9, 1e-12}) {
    for (const double large : {1.0, -1.0}) {
      Matrix a = random_symmetric(random, n);
      for (int j = 1; j < n; ++j) a[at(j)] = a[at(j) * n] = j == 1 ? large : small;
      expect_eigenpairs(a, n, eigen_of(a, n));
    }
  }
}

TEST(Eigenvalues, RowsTooSmallToBeSquaredDoNoHarm) {
  test::Generator random = generator();
  constexpr int n = 12;
  for (const double small : {1e-80, 1e-150, 1e-158, 1e-161, 1e-200, 1e-308}) {
    Matrix a = random_symmetric(random, n);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        if (i != j && (i < 4 || j < 4)) a[at(i) * n + at(j)] *= small;
      }
    }
    expect_eigenpairs(a, n, eigen_of(a, n));
  }
}

TEST(Eigenvalues, OfRandomMatricesAgreeWithJacobi) {
  test::Generator random = generator();
  for (const int n : {1, 2, 3, 4, 5, 8, 13, 24, 40}) {
    const Matrix a = random_symmetric(random, n);
    const Eigen eigen = eigen_of(a, n);
    expect_eigenpairs(a, n, eigen);
    std::vector<std::vector<Real>> copy(at(n), std::vector<Real>(at(n))), vectors;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) copy[at(i)][at(j)] = a[at(i) * at(n) + at(j)];
    }
    const std::vector<Real> expected = jacobi(copy, vectors);
    const double norm = static_cast<double>(std::max(std::fabs(expected[0]), std::fabs(expected[at(n - 1)])));
    for (int k = 0; k < n; ++k) {
      EXPECT_NEAR(eigen.values[at(k)], static_cast<double>(expected[at(k)]), 1e-13 * norm);
    }
  }
}

// mda
// ----------------------------------------------------------------------------------------------------------

/// The first set of least diameter by listing all of them.
Mask mda_by_enumeration(const std::vector<double>& distances, int n, int size) {
  double least = infinity;
  Mask best = 0;
  for_each_subset(n, size, [&](Mask mask) {
    double most = 0;
    for (Mask i = mask; i != 0; i &= i - 1) {
      const double* const row = &distances[at(std::countr_zero(i)) * at(n)];
      for (Mask j = i & (i - 1); j != 0; j &= j - 1) most = std::max(most, row[std::countr_zero(j)]);
      if (most >= least) return;
    }
    least = most;
    best = mask;
  });
  return best;
}

void expect_mda(const std::vector<double>& distances, int n, const std::vector<std::uint8_t>& infinite,
                int f) {
  std::vector<std::uint8_t> keep(at(n), 7);
  ASSERT_EQ(solve_mda(distances.data(), n, n, infinite.data(), f, keep.data()), Status::ok);
  ASSERT_EQ(mask_of(keep), mda_by_enumeration(distances, n, n - f)) << "n = " << n << ", f = " << f;
}

TEST(Mda, AgreesWithEnumeration) {
  test::Generator random = generator();
  for (int n = 1; n <= 12; ++n) {
    for (int f = 0; 2 * f < n; ++f) {
      for (int trial = 0; trial < 6; ++trial) {
        const int d = 1 + static_cast<int>(random() % 5);
        const std::vector<std::uint8_t> infinite = some_infinite(random, n, f);
        for (const Rows& rows :
             {normal_rows(random, n, d), integer_rows(random, n, d, 3), clustered_rows(random, n, d)}) {
          expect_mda(distances_of(rows, infinite), n, infinite, f);
        }
      }
    }
  }
}

struct Edges {
  int n = 0;
  std::vector<std::pair<int, int>> pairs;
};

/// About regular: `degree` random perfect matchings.
Edges random_edges(std::mt19937_64& random, int n, int degree) {
  Edges edges{.n = n, .pairs = {}};
  std::vector<int> order(at(n));
  std::iota(order.begin(), order.end(), 0);
  for (int round = 0; round < degree; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (int k = 0; k + 1 < n; k += 2) edges.pairs.emplace_back(order[at(k)], order[at(k + 1)]);
  }
  return edges;
}

int least_cover(const Edges& edges) {
  int least = edges.n;
  for (Mask mask = 0; mask < Mask{1} << edges.n; ++mask) {
    if (std::popcount(mask) >= least) continue;
    const bool covers = std::all_of(edges.pairs.begin(), edges.pairs.end(), [&](const auto& e) {
      return (mask >> e.first & 1) != 0 || (mask >> e.second & 1) != 0;
    });
    if (covers) least = std::popcount(mask);
  }
  return least;
}

/// The search finds a cover of `least` of the edges, and none smaller.
void expect_least_cover(const Edges& edges, int least) {
  Graph graph(edges.n);
  for (const auto& [i, j] : edges.pairs) graph.connect(i, j);
  BitSet alive(edges.n);
  for (int i = 0; i < edges.n; ++i) alive.add(i);
  CoverSearch search(mda_work_limit);
  BitSet cover;
  ASSERT_FALSE(search.find(graph, alive, least - 1, cover)) << edges.n << " vertices";
  for (const int size : {least, least + 1}) {
    ASSERT_TRUE(search.find(graph, alive, size, cover)) << edges.n << " vertices";
    EXPECT_LE(cover.count(), size);
    for (const auto& [i, j] : edges.pairs) ASSERT_TRUE(cover.has(i) || cover.has(j));
  }
}

TEST(VertexCover, OfSmallGraphsIsTheLeast) {
  test::Generator random = generator();
  for (int trial = 0; trial < 400; ++trial) {
    const int n = 4 + static_cast<int>(random() % 11);
    const Edges edges = random_edges(random, n, 2 + static_cast<int>(random() % 5));
    expect_least_cover(edges, least_cover(edges));
  }
}

TEST(VertexCover, OfScatteredComponentsIsTheSumOfTheirs) {
  test::Generator random = generator();
  for (int trial = 0; trial < 40; ++trial) {
    std::vector<int> place(180);
    std::iota(place.begin(), place.end(), 0);
    std::shuffle(place.begin(), place.end(), random);
    Edges all{.n = 180, .pairs = {}};
    int least = 0;
    for (int used = 0; used + 14 <= all.n;) {
      const Edges part =
          random_edges(random, 6 + static_cast<int>(random() % 9), 3 + static_cast<int>(random() % 3));
      for (const auto& [i, j] : part.pairs) all.pairs.emplace_back(place[at(used + i)], place[at(used + j)]);
      used += part.n;
      least += least_cover(part);
    }
    expect_least_cover(all, least);
  }
}

/// Distances 1 and 2 (or 3): any graph is that of the far pairs of some rows.
std::vector<double> graph_distances(std::mt19937_64& random, int n, double density, int levels) {
  std::uniform_real_distribution<double> uniform;
  std::vector<double> distances(at(n) * at(n), 0);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < i; ++j) {
      double d = 1;
      for (int level = 1; level < levels; ++level) d += uniform(random) < density ? 1 : 0;
      distances[at(i) * at(n) + at(j)] = distances[at(j) * at(n) + at(i)] = d;
    }
  }
  return distances;
}

TEST(Mda, AgreesWithEnumerationOnRandomGraphs) {
  test::Generator random = generator();
  for (const int n : {8, 12, 16, 20}) {
    const std::vector<std::uint8_t> infinite = no_infinite(at(n));
    for (const double density : {0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8}) {
      for (int f = n / 4; 2 * f < n; ++f) {
        expect_mda(graph_distances(random, n, density, 2), n, infinite, f);
        expect_mda(graph_distances(random, n, density, 4), n, infinite, f);
      }
    }
  }
  for (const int f : {4, 7, 9}) {
    for (const double density : {0.08, 0.15, 0.25}) {
      expect_mda(graph_distances(random, 24, density, 2), 24, no_infinite(24), f);
    }
  }
}

TEST(Mda, DistancesThatAreAllEqualKeepTheFirstRows) {
  for (const int n : {1, 2, 3, 70}) {
    const int f = (n - 1) / 2;
    std::vector<double> distances(at(n) * at(n), 5);
    std::vector<std::uint8_t> keep(at(n)), expected(at(n), 0);
    std::fill_n(expected.begin(), n - f, std::uint8_t{1});
    ASSERT_EQ(solve_mda(distances.data(), n, n, no_infinite(at(n)).data(), f, keep.data()), Status::ok);
    EXPECT_EQ(keep, expected);
  }
}

TEST(Mda, RowStrideMayExceedTheNumberOfPoints) {
  const std::vector<double> distances = {0, 9, 1, -1, 9, 0, 9, -1, 1, 9, 0, -1};
  std::vector<std::uint8_t> keep(3);
  ASSERT_EQ(solve_mda(distances.data(), 3, 4, no_infinite(3).data(), 1, keep.data()), Status::ok);
  EXPECT_EQ(keep, (std::vector<std::uint8_t>{1, 0, 1}));
}

TEST(Mda, LeavesOutPlantedRowsAtAnySize) {
  test::Generator random = generator();
  for (const auto& [n, f] : {std::pair{64, 12}, {64, 31}, {128, 60}, {256, 100}, {700, 300}}) {
    Rows rows = normal_rows(random, n, 40);
    std::vector<std::uint8_t> infinite = no_infinite(at(n));
    std::vector<std::uint8_t> expected(at(n), 1);
    std::vector<int> order(at(n));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (int k = 0; k < f; ++k) {
      const std::size_t i = at(order[at(k)]);
      expected[i] = 0;
      if (k < 3) infinite[i] = 1;
      rows[i][static_cast<std::size_t>(k) % 40] += 100 + 40 * k;
    }
    std::vector<std::uint8_t> keep(at(n));
    const std::vector<double> distances = distances_of(rows, infinite);
    ASSERT_EQ(solve_mda(distances.data(), n, n, infinite.data(), f, keep.data()), Status::ok);
    EXPECT_EQ(keep, expected) << "n = " << n << ", f = " << f;
  }
}

/// A graph of `degree` random perfect matchings on the first `active` points: about regular.
std::vector<double> regular_distances(std::mt19937_64& random, int n, int active, int degree) {
  std::vector<double> distances(at(n) * at(n), 1);
  std::vector<int> order(at(active));
  std::iota(order.begin(), order.end(), 0);
  for (int round = 0; round < degree; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (int k = 0; k + 1 < active; k += 2) {
      const std::size_t i = at(order[at(k)]);
      const std::size_t j = at(order[at(k + 1)]);
      distances[i * at(n) + j] = distances[j * at(n) + i] = 2;
    }
  }
  return distances;
}

TEST(Mda, RandomRegularGraphsAtTheThresholdAreSolvedOrRefusedPromptly) {
  test::Generator random = generator();
  double slowest = 0;
  for (const int degree : {3, 4, 5, 6, 8, 10}) {
    for (int active = 68; active <= 128; active += 6) {
      const std::vector<double> distances = regular_distances(random, 128, active, degree);
      std::vector<std::uint8_t> keep(128);
      const auto start = std::chrono::steady_clock::now();
      const Status status = solve_mda(distances.data(), 128, 128, no_infinite(128).data(), 60, keep.data());
      const double seconds = seconds_since(start);
      slowest = std::max(slowest, seconds);
      ASSERT_TRUE(status == Status::ok || status == Status::too_large);
      EXPECT_EQ(std::count(keep.begin(), keep.end(), 1), status == Status::ok ? 68 : 0);
    }
  }
  std::printf("slowest: %.3f s\n", slowest);
  EXPECT_LT(slowest, 60);  // the work limit is seconds; a sanitizer's build takes some times longer
}

TEST(Mda, RandomDataOfTheTypicalSizeIsSolved) {
  test::Generator random = generator();
  for (const int d : {2, 10, 1000}) {
    const Rows rows = normal_rows(random, 64, d);
    const std::vector<double> distances = distances_of(rows, no_infinite(64));
    std::vector<std::uint8_t> keep(64);
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(solve_mda(distances.data(), 64, 64, no_infinite(64).data(), 12, keep.data()), Status::ok);
    std::printf("d = %d: %.4f s\n", d, seconds_since(start));
    EXPECT_EQ(std::count(keep.begin(), keep.end(), 1), 52);
    // No ball is better.
    for (int center = 0; center < 64; ++center) {
      std::vector<int> order(64);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int a, int b) {
        return distances[at(center) * 64 + at(a)] < distances[at(center) * 64 + at(b)];
      });
      std::vector<std::uint8_t> ball(64, 0);
      for (int k = 0; k < 52; ++k) ball[at(order[at(k)])] = 1;
      EXPECT_LE(diameter(distances, 64, keep), diameter(distances, 64, ball));
    }
  }
}

// smea
// ---------------------------------------------------------------------------------------------------------

Real top_eigenvalue(const Rows& rows, Mask mask) {
  std::vector<const std::vector<double>*> set;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (mask >> i & 1) set.push_back(&rows[i]);
  }
  const std::size_t k = set.size();
  const std::size_t d = rows[0].size();
  std::vector<Real> mean(d, 0);
  for (const auto* row : set) {
    for (std::size_t j = 0; j < d; ++j) mean[j] += static_cast<Real>((*row)[j]) / static_cast<Real>(k);
  }
  std::vector<std::vector<Real>> covariance(d, std::vector<Real>(d, 0)), vectors;
  for (const auto* row : set) {
    for (std::size_t i = 0; i < d; ++i) {
      for (std::size_t j = 0; j < d; ++j) covariance[i][j] += ((*row)[i] - mean[i]) * ((*row)[j] - mean[j]);
    }
  }
  return jacobi(covariance, vectors)[0] / static_cast<Real>(k);
}

void expect_smea(const Rows& rows, const std::vector<std::uint8_t>& infinite, int f) {
  const int n = static_cast<int>(rows.size());
  std::vector<std::uint8_t> keep(at(n), 7);
  const std::vector<double> gram = gram_of(rows, infinite);
  ASSERT_EQ(solve_smea(gram.data(), n, n + 1, infinite.data(), f, keep.data()), Status::ok);
  const Mask left_out = mask_of(infinite);
  std::vector<std::pair<Real, Mask>> sets;
  Real least = std::numeric_limits<Real>::infinity();
  for_each_subset(n, n - f, [&](Mask mask) {
    if ((mask & left_out) != 0) return;
    sets.emplace_back(top_eigenvalue(rows, mask), mask);
    least = std::min(least, sets.back().first);
  });
  const auto first = std::find_if(
      sets.begin(), sets.end(), [&](const auto& set) { return set.first <= least * (1 + 1e-12L) + 1e-25L; });
  ASSERT_EQ(mask_of(keep), first->second) << "n = " << n << ", f = " << f << ", d = " << rows[0].size();
}

TEST(Smea, AgreesWithEnumeration) {
  test::Generator random = generator();
  for (int n = 1; n <= 10; ++n) {
    for (int f = 0; 2 * f < n; ++f) {
      for (int trial = 0; trial < 3; ++trial) {
        const int d = 1 + static_cast<int>(random() % 4);
        const std::vector<std::uint8_t> infinite = some_infinite(random, n, f);
        expect_smea(normal_rows(random, n, d, 3), infinite, f);
        expect_smea(integer_rows(random, n, d, 3), infinite, f);
        expect_smea(clustered_rows(random, n, d), infinite, f);
      }
    }
  }
  expect_smea(normal_rows(random, 12, 3), no_infinite(12), 5);
  // Enough of them that good guesses are not enough.
  for (int trial = 0; trial < 120; ++trial) {
    expect_smea(normal_rows(random, 12, 2 + trial % 5), no_infinite(12), 1 + trial % 4);
  }
  for (const int n : {13, 15, 16}) {
    Rows attacked = normal_rows(random, n, 2);
    for (int k = 0; k < 3; ++k) attacked[random() % at(n)][0] += 4;
    expect_smea(normal_rows(random, n, 3), no_infinite(at(n)), 3);
    expect_smea(attacked, no_infinite(at(n)), 3);
    expect_smea(attacked, no_infinite(at(n)), 2);
  }
}

TEST(Smea, SetsThatTieGiveTheFirst) {
  // Corners of a simplex: all sets of one size are alike.
  Rows simplex(11, std::vector<double>(11, 0));
  for (std::size_t i = 0; i < 11; ++i) simplex[i][i] = 1;
  expect_smea(simplex, no_infinite(11), 4);
  expect_smea(Rows(9, std::vector<double>{1.5, -2}), no_infinite(9), 3);
  // Two copies of everything.
  test::Generator random = generator();
  const Rows once = normal_rows(random, 5, 2);
  Rows twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  expect_smea(twice, no_infinite(10), 3);
}

TEST(Smea, HugeRowsAndCommonOffsetsDoNotBlurTheRest) {
  test::Generator random = generator();
  for (const std::size_t place : {0u, 4u, 9u}) {
    Rows rows = normal_rows(random, 11, 3);
    std::vector<std::uint8_t> keep(11), expected(11);
    // With the huge row gone for certain, the answer is that of the others.
    std::vector<std::uint8_t> gone = no_infinite(11);
    gone[place] = 1;
    ASSERT_EQ(solve_smea(gram_of(rows, gone).data(), 11, 12, gone.data(), 3, expected.data()), Status::ok);
    for (double& x : rows[place]) x = 1e38 * (x > 0 ? 1 : -1);
    ASSERT_EQ(
        solve_smea(gram_of(rows, no_infinite(11)).data(), 11, 12, no_infinite(11).data(), 3, keep.data()),
        Status::ok);
    EXPECT_EQ(keep, expected) << "row " << place;
  }
  expect_smea(normal_rows(random, 9, 2, 1e5), no_infinite(9), 3);
}

TEST(Smea, WorkLimitsAreKnownBeforehand) {
  EXPECT_FALSE(smea_is_too_large(20, 5));
  EXPECT_FALSE(smea_is_too_large(23, 11));
  EXPECT_TRUE(smea_is_too_large(25, 12));
  EXPECT_FALSE(smea_is_too_large(1000, 0));
  EXPECT_TRUE(smea_is_too_large(2000, 2));
  EXPECT_TRUE(smea_is_too_large(4096, 2000));
  std::vector<double> gram(40 * 40, 0);
  std::vector<std::uint8_t> keep(40);
  EXPECT_EQ(solve_smea(gram.data(), 40, 40, no_infinite(40).data(), 19, keep.data()), Status::too_large);
}

TEST(Smea, TypicalSizesAreFast) {
  test::Generator random = generator();
  for (const auto& [n, f] : {std::pair{20, 5}, {64, 2}}) {
    const Rows rows = normal_rows(random, n, 100);
    std::vector<std::uint8_t> keep(at(n));
    const std::vector<double> gram = gram_of(rows, no_infinite(at(n)));
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(solve_smea(gram.data(), n, n + 1, no_infinite(at(n)).data(), f, keep.data()), Status::ok);
    std::printf("n = %d, f = %d: %.4f s\n", n, f, seconds_since(start));
    EXPECT_EQ(std::count(keep.begin(), keep.end(), 1), n - f);
  }
}

// caf
// ----------------------------------------------------------------------------------------------------------

struct Filtered {
  std::vector<Real> mean;
  std::vector<Real> c;
  int iterations = 0;
};

/// The definition, on vectors.
Filtered caf_on_vectors(const Rows& rows, const std::vector<std::uint8_t>& infinite, int f) {
  const std::size_t n = rows.size();
  const std::size_t d = rows[0].size();
  Filtered result{.mean = std::vector<Real>(d, 0), .c = std::vector<Real>(n, 0), .iterations = 0};
  std::vector<Real>& c = result.c;
  for (std::size_t i = 0; i < n; ++i) c[i] = infinite[i] ? 0 : 1;
  Real least = std::numeric_limits<Real>::infinity();
  const auto mean_now = [&](Real total) {
    std::vector<Real> mean(d, 0);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < d && c[i] > 0; ++j) mean[j] += c[i] / total * rows[i][j];
    }
    return mean;
  };
  Real total = std::accumulate(c.begin(), c.end(), Real{0});
  result.mean = mean_now(total);
  while (total > static_cast<Real>(n) - 2 * f + 1e-9L * static_cast<Real>(n)) {
    ++result.iterations;
    const std::vector<Real> mean = mean_now(total);
    std::vector<std::vector<Real>> covariance(d, std::vector<Real>(d, 0)), vectors;
    for (std::size_t k = 0; k < n; ++k) {
      for (std::size_t i = 0; i < d && c[k] > 0; ++i) {
        for (std::size_t j = 0; j < d; ++j) {
          covariance[i][j] += c[k] / total * ((rows[k][i] - mean[i]) * (rows[k][j] - mean[j]));
        }
      }
    }
    const std::vector<Real> values = jacobi(covariance, vectors);
    if (values[0] < least) {
      least = values[0];
      result.mean = mean;
    }
    std::size_t rank = 1;
    while (rank < d && values[rank] >= values[0] * (1 - 1e-9L)) ++rank;
    const auto projection = [&](std::size_t i) {
      std::vector<Real> p(rank, 0);
      for (std::size_t k = 0; k < rank; ++k) {
        for (std::size_t j = 0; j < d; ++j) p[k] += vectors[j][k] * (rows[i][j] - mean[j]);
      }
      return p;
    };
    std::vector<Real> longest;
    Real length = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (!(c[i] > 0)) continue;
      const std::vector<Real> p = projection(i);
      const Real squared = std::inner_product(p.begin(), p.end(), p.begin(), Real{0});
      if (longest.empty() || squared > length * (1 + 1e-12L)) {
        length = squared;
        longest = p;
      }
    }
    std::vector<Real> tau(n, 0);
    Real most = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (!(c[i] > 0) || length == 0) continue;
      const std::vector<Real> p = projection(i);
      const Real along = std::inner_product(p.begin(), p.end(), longest.begin(), Real{0});
      tau[i] = along * along / length;
      most = std::max(most, tau[i]);
    }
    if (most == 0) {
      result.mean = mean;
      break;
    }
    for (std::size_t i = 0; i < n; ++i) c[i] *= 1 - tau[i] / most > 1e-12L ? 1 - tau[i] / most : 0;
    total = std::accumulate(c.begin(), c.end(), Real{0});
  }
  return result;
}

struct Solved {
  Status status = Status::ok;
  std::vector<double> coefficients, c;
  int iterations = 0;
};

Solved run_caf(const Rows& rows, const std::vector<std::uint8_t>& infinite, int f) {
  const std::size_t n = rows.size();
  const std::vector<double> gram = gram_of(rows, infinite);
  const Points points{.count = static_cast<int>(n),
                      .size = static_cast<int>(n) + 1,
                      .gram = gram.data(),
                      .infinite = infinite.data()};
  std::vector<double> doubles(scratch_doubles(n + 1)), clip_factors(n);
  std::vector<int> ints(scratch_ints(n + 1));
  Solved solved{.coefficients = std::vector<double>(n + 1), .c = std::vector<double>(n)};
  Combination out{.coefficients = solved.coefficients.data(),
                  .scores = solved.c.data(),
                  .clip_factors = clip_factors.data()};
  solved.status =
      solve(SerialTeam{}, Caf{.f = f}, points, {.doubles = doubles.data(), .ints = ints.data()}, out);
  solved.iterations = out.iterations;
  return solved;
}

Real difference(const Filtered& a, const Filtered& b) {
  Real most = a.iterations == b.iterations ? 0 : 1;
  for (std::size_t i = 0; i < a.c.size(); ++i) most = std::max(most, std::fabs(a.c[i] - b.c[i]));
  for (std::size_t j = 0; j < a.mean.size(); ++j) most = std::max(most, std::fabs(a.mean[j] - b.mean[j]));
  return most;
}

/// Each iteration divides errors by the gap between the two largest eigenvalues, so over many of them the
/// definition itself can lose all digits. Judged is what moves by less than 1e-11 when every coordinate moves
/// in its 15th digit.
bool is_well_conditioned(std::mt19937_64& random, const Rows& rows, const std::vector<std::uint8_t>& infinite,
                         int f) {
  const Filtered exact = caf_on_vectors(rows, infinite, f);
  for (int trial = 0; trial < 3; ++trial) {
    Rows moved = rows;
    for (auto& row : moved) {
      for (double& x : row) x *= 1 + 1e-15 * static_cast<double>(static_cast<int>(random() % 3) - 1);
    }
    if (difference(exact, caf_on_vectors(moved, infinite, f)) > 1e-11L) return false;
  }
  return true;
}

/// `size`: of the rows that a right answer is made of; errors are relative to it.
void expect_caf(const Rows& rows, const std::vector<std::uint8_t>& infinite, int f, double size = 1) {
  const Solved got = run_caf(rows, infinite, f);
  ASSERT_EQ(got.status, Status::ok);
  const Filtered expected = caf_on_vectors(rows, infinite, f);
  Real sum = 0;
  for (const double a : got.coefficients) {
    ASSERT_GE(a, 0);
    sum += a;
  }
  EXPECT_NEAR(static_cast<double>(sum), 1, 1e-14);
  EXPECT_EQ(got.coefficients.back(), 0);
  for (std::size_t j = 0; j < rows[0].size(); ++j) {
    Real value = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (got.coefficients[i] != 0) value += static_cast<Real>(got.coefficients[i]) * rows[i][j];
    }
    ASSERT_NEAR(static_cast<double>(value), static_cast<double>(expected.mean[j]), 1e-9 * size)
        << "n = " << rows.size() << ", f = " << f << ", coordinate " << j;
  }
  EXPECT_EQ(got.iterations, expected.iterations);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ASSERT_NEAR(got.c[i], static_cast<double>(expected.c[i]), 1e-9) << "n = " << rows.size() << ", row " << i;
  }
}

TEST(Caf, AgreesWithTheDefinitionOnVectors) {
  test::Generator random = generator();
  int judged = 0;
  int cases = 0;
  for (const int n : {3, 4, 7, 12, 25, 40}) {
    for (const int f : {1, n / 4, (n - 1) / 2}) {
      for (const int d : {2, 6}) {
        Rows attacked = normal_rows(random, n, d);
        for (int k = 0; k < f; ++k) {
          for (double& x : attacked[random() % at(n)]) x = 5 + 0.1 * x;
        }
        for (const Rows& rows : {normal_rows(random, n, d, 1), attacked}) {
          const std::vector<std::uint8_t> infinite = some_infinite(random, n, f);
          ++cases;
          if (!is_well_conditioned(random, rows, infinite, f)) continue;
          ++judged;
          expect_caf(rows, infinite, f);
        }
      }
    }
  }
  EXPECT_GE(4 * judged, 3 * cases);
}

TEST(Caf, HugeRowsAreForgottenWithoutATrace) {
  test::Generator random = generator();
  for (const double huge : {1e10, 1e20, 1e38, -3e38}) {
    Rows rows = normal_rows(random, 13, 4, 2);
    for (std::size_t j = 0; j < 4; ++j) {
      rows[0][j] = huge * (0.3 + 0.1 * static_cast<double>(j));
      rows[7][j] = -huge * 1e-4 * (j % 2 == 0 ? 1 : 0.5);
      rows[12][j] = 1e5 * rows[12][j];
    }
    expect_caf(rows, no_infinite(13), 4, 10);
    const Solved got = run_caf(rows, no_infinite(13), 4);
    for (const std::size_t bad : {0u, 7u, 12u}) EXPECT_EQ(got.coefficients[bad], 0) << huge;
  }
}

TEST(Caf, RowsThatDifferByRoundingLeaveTogether) {
  test::Generator random = generator();
  Rows rows = normal_rows(random, 12, 3);
  rows[1] = {20, 0.1, 0.3};
  rows[4] = {std::nextafter(20.0, 0.0), 0.1, std::nextafter(0.3, 1.0)};
  rows[9] = {std::nextafter(20.0, 30.0), 0.1, 0.3};
  const Solved got = run_caf(rows, no_infinite(12), 3);
  for (const std::size_t bad : {1u, 4u, 9u}) EXPECT_EQ(got.c[bad], 0);
  expect_caf(rows, no_infinite(12), 3);
}

TEST(Caf, EverythingScaledTogetherGivesTheSameCoefficients) {
  test::Generator random = generator();
  const Rows rows = normal_rows(random, 10, 3);
  const Solved expected = run_caf(rows, no_infinite(10), 3);
  for (const int exponent : {-140, -60, 66, 126, 400}) {
    Rows scaled = rows;
    for (auto& row : scaled) {
      for (double& x : row) x = std::ldexp(x, exponent);
    }
    const Solved got = run_caf(scaled, no_infinite(10), 3);
    EXPECT_EQ(got.coefficients, expected.coefficients) << "2^" << exponent;
    EXPECT_EQ(got.c, expected.c) << "2^" << exponent;
  }
}

TEST(Caf, OfNoBadRowsIsTheMean) {
  test::Generator random = generator();
  for (const int n : {1, 2, 3, 9}) {
    const Solved got = run_caf(normal_rows(random, n, 5), no_infinite(at(n)), 0);
    ASSERT_EQ(got.status, Status::ok);
    EXPECT_EQ(got.iterations, 0);
    for (int i = 0; i < n; ++i) {
      EXPECT_EQ(got.coefficients[at(i)], 1.0 / n);
      EXPECT_EQ(got.c[at(i)], 1);
    }
  }
}

TEST(Caf, OfIdenticalRowsIsTheirMean) {
  for (const double x : {0.0, 1.0, 1e30}) {
    const Solved got = run_caf(Rows(7, std::vector<double>{x, 0.1 * x}), no_infinite(7), 2);
    ASSERT_EQ(got.status, Status::ok);
    for (std::size_t i = 0; i < 7; ++i) EXPECT_EQ(got.coefficients[i], 1.0 / 7);
  }
}

TEST(Caf, TopEigenspacesOfSeveralDimensionsTakeTheFirstOfTheLongestRows) {
  // Unit vectors and their opposites: the covariance is a multiple of the identity.
  Rows cross(8, std::vector<double>(4, 0));
  for (std::size_t i = 0; i < 8; ++i) cross[i][i % 4] = i < 4 ? 1 : -1;
  expect_caf(cross, no_infinite(8), 2);
  const Solved got = run_caf(cross, no_infinite(8), 1);
  EXPECT_NEAR(got.c[0], 0, 1e-14);
  EXPECT_NEAR(got.c[4], 0, 1e-14);
  EXPECT_NEAR(got.c[1], 1, 1e-14);
  // A longer row further down goes first.
  Rows corners(9, std::vector<double>(8, 0));
  for (std::size_t i = 0; i < 8; ++i) corners[i + 1][i] = 1;
  expect_caf(corners, no_infinite(9), 3);
}

TEST(Caf, MoreInfiniteRowsThanToleratedAreRefused) {
  test::Generator random = generator();
  const Rows rows = normal_rows(random, 7, 3);
  std::vector<std::uint8_t> infinite = no_infinite(7);
  infinite[2] = infinite[5] = 1;
  EXPECT_EQ(run_caf(rows, infinite, 1).status, Status::too_many_nonfinite);
  const Solved got = run_caf(rows, infinite, 2);
  ASSERT_EQ(got.status, Status::ok);
  EXPECT_EQ(got.coefficients[2], 0);
  EXPECT_EQ(got.coefficients[5], 0);
}

// Bulyan's first stage -------------------------------------------------------------------------------------

std::vector<int> choose(const Points& points, int f) {
  const auto n = static_cast<std::size_t>(points.count);
  std::vector<double> doubles(scratch_doubles(n + 1));
  std::vector<int> ints(scratch_ints(n + 1)), chosen(n - 2 * at(f));
  const Scratch scratch{doubles.data(), ints.data()};
  Scratch ranked = scratch;
  rank_neighbors(SerialTeam{}, points, take_neighbors(ranked, points.count), nullptr);
  EXPECT_EQ(select_points(SerialTeam{}, Bulyan{.f = f}, points, scratch, chosen.data()), Status::ok);
  return chosen;
}

/// Every score is summed anew in every round, nearest neighbours first.
std::vector<int> choose_by_definition(const Points& points, int f) {
  const int n = points.count;
  std::vector<int> left, chosen;
  for (int i = 0; i < n; ++i) {
    if (points.finite(i)) left.push_back(i);
  }
  for (int round = 0; round < n - 2 * f; ++round) {
    const int remaining = n - round;
    const int neighbors = std::min(std::max(remaining - f - 2, 1), remaining - 1);
    double least = infinity;
    int winner = left.front();
    for (const int i : left) {
      std::vector<double> distances;
      for (const int j : left) {
        if (j != i) distances.push_back(points.squared_distance(i, j));
      }
      std::sort(distances.begin(), distances.end());
      const double score = std::accumulate(distances.begin(), distances.begin() + neighbors, 0.0);
      if (score < least) {
        least = score;
        winner = i;
      }
    }
    chosen.push_back(winner);
    std::erase(left, winner);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

TEST(Bulyan, ChoosesWhatSumsMadeAnewWouldChoose) {
  test::Generator random = generator();
  for (int trial = 0; trial < 400; ++trial) {
    const int f = static_cast<int>(random() % 7);
    const int n = 4 * f + 3 + static_cast<int>(random() % 20);
    const int d = 1 + static_cast<int>(random() % 6);
    Rows rows;
    switch (trial % 5) {
      case 0:
        rows = normal_rows(random, n, d);
        break;
      case 1:
        rows = integer_rows(random, n, d, 3);
        break;
      case 2:
        rows = clustered_rows(random, n, d);
        break;
      case 3:  // all equally far from each other, but for rounding
        rows.assign(at(n), std::vector<double>(at(n)));
        for (int i = 0; i < n; ++i) rows[at(i)][at(i)] = i % 3 == 0 ? 0.1 : i % 3 == 1 ? -0.1 : 1.1 - 1.0;
        break;
      default:  // every row of another size
        rows = normal_rows(random, n, d);
        for (int i = 0; i < n; ++i) {
          for (double& x : rows[at(i)]) x = std::ldexp(x, -3 * i);
        }
        break;
    }
    std::shuffle(rows.begin(), rows.end(), random);
    std::vector<std::uint8_t> infinite = no_infinite(at(n + 1));
    for (int k = 0; k < f && trial % 2 == 0; ++k) infinite[random() % at(n)] = 1;
    const std::vector<double> gram = gram_of(rows, infinite);
    const Points points{.count = n, .size = n + 1, .gram = gram.data(), .infinite = infinite.data()};
    EXPECT_EQ(choose(points, f), choose_by_definition(points, f)) << "trial " << trial << ", n = " << n;
  }
}

TEST(Bulyan, ChoosesAmongManyRowsInTheTimeThatRankingThemTakes) {
  test::Generator random = generator();
  constexpr int n = 1200;
  const Rows rows = normal_rows(random, n, 3);
  const std::vector<std::uint8_t> infinite = no_infinite(n + 1);
  const std::vector<double> gram = gram_of(rows, infinite);
  const Points points{.count = n, .size = n + 1, .gram = gram.data(), .infinite = infinite.data()};
  std::vector<double> distances(at(n) * at(n));
  std::vector<int> order(at(n) * at(n));
  const std::clock_t start = std::clock();
  rank_neighbors(SerialTeam{}, points, {n, distances.data(), order.data()}, nullptr);
  const std::clock_t ranked = std::clock();
  choose(points, 200);
  const std::clock_t chosen = std::clock();
  EXPECT_LT(static_cast<double>(chosen - ranked), 5.0 * static_cast<double>(ranked - start));
}

// The geometric median -------------------------------------------------------------------------------------

struct Median {
  Status status = Status::internal;
  std::vector<Real> point;
  double gap = 0;
  bool converged = false;
};

Median run_sum(const Rows& rows, const std::vector<double>& weights, const SumOfDistances& sum) {
  const std::size_t n = rows.size();
  const std::vector<std::uint8_t> infinite = no_infinite(n + 1);
  const std::vector<double> gram = gram_of(rows, infinite);
  std::vector<double> doubles(scratch_doubles(n + 1));
  std::vector<int> ints(scratch_ints(n + 1));
  std::vector<double> coefficients(n + 1), scores(n), factors(n);
  const Points points{.count = static_cast<int>(n),
                      .size = static_cast<int>(n) + 1,
                      .gram = gram.data(),
                      .infinite = infinite.data(),
                      .weights = weights.empty() ? nullptr : weights.data()};
  Combination out{
      .coefficients = coefficients.data(), .scores = scores.data(), .clip_factors = factors.data()};
  Median result;
  result.status = solve(SerialTeam{}, sum, points, Scratch{doubles.data(), ints.data()}, out);
  result.gap = out.optimality_gap;
  result.converged = out.converged;
  result.point.assign(rows[0].size(), 0);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < result.point.size() && coefficients[i] != 0; ++k) {
      result.point[k] += static_cast<Real>(coefficients[i]) * rows[i][k];
    }
  }
  return result;
}

Median run_median(const Rows& rows, const std::vector<double>& weights, const GeometricMedian& rule) {
  return run_sum(rows, weights, RuleOf<GeometricMedian>::sum(rule));
}

Real distance(const std::vector<double>& row, const std::vector<Real>& v) {
  Real sum = 0;
  for (std::size_t k = 0; k < v.size(); ++k) sum += (row[k] - v[k]) * (row[k] - v[k]);
  return std::sqrt(sum);
}

/// Σ p_i ‖x_i − a‖ − Σ p_i ‖x_i − b‖ of √(‖·‖² + mu²), row by row: a huge row swallows nothing.
Real change(const Rows& rows, const std::vector<double>& weights, Real mu, const std::vector<Real>& a,
            const std::vector<Real>& b) {
  Real total = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Real lengths = std::hypot(distance(rows[i], a), mu) + std::hypot(distance(rows[i], b), mu);
    Real product = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
      product += (a[k] - b[k]) * ((a[k] - rows[i][k]) + (b[k] - rows[i][k]));
    }
    if (lengths > 0) total += (weights.empty() ? 1 : weights[i]) * (product / lengths);
  }
  return total;
}

/// A Newton step of Σ p_i √(‖x_i − v‖² + mu²) on vectors, by a d × d system; Weiszfeld's where it is
/// singular.
std::vector<Real> newton_step_on_vectors(const Rows& rows, const std::vector<double>& weights, Real mu,
                                         const std::vector<Real>& v) {
  const std::size_t d = v.size();
  std::vector<Real> step(d, 0);
  std::vector<std::vector<Real>> hessian(d, std::vector<Real>(d, 0));
  Real total = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Real s = std::hypot(distance(rows[i], v), mu);
    const Real pull = (weights.empty() ? 1 : weights[i]) / s;
    total += pull;
    for (std::size_t k = 0; k < d; ++k) {
      step[k] += pull * (rows[i][k] - v[k]);
      for (std::size_t l = 0; l < d; ++l) {
        hessian[k][l] -= pull * ((rows[i][k] - v[k]) / s) * ((rows[i][l] - v[l]) / s);
      }
    }
  }
  for (std::size_t k = 0; k < d; ++k) hessian[k][k] += total;
  std::vector<Real> plain = step;
  for (Real& x : plain) x /= total;
  for (std::size_t k = 0; k < d; ++k) {
    if (!(hessian[k][k] > 1e-18L * total)) return plain;
    for (std::size_t i = k + 1; i < d; ++i) {
      const Real factor = hessian[i][k] / hessian[k][k];
      for (std::size_t j = k; j < d; ++j) hessian[i][j] -= factor * hessian[k][j];
      step[i] -= factor * step[k];
    }
  }
  for (std::size_t k = d; k-- > 0;) {
    for (std::size_t j = k + 1; j < d; ++j) step[k] -= hessian[k][j] * step[j];
    step[k] /= hessian[k][k];
  }
  return step;
}

/// The least that Σ p_i ‖x_i − v‖ is found to be below its value at `start`, whose scale of distances is
/// `typical`: mu from there to nothing, and every row.
Real excess(const Rows& rows, const std::vector<double>& weights, const std::vector<Real>& start,
            Real typical) {
  Real least = 0;
  std::vector<Real> v = start;
  const auto note = [&](const std::vector<Real>& found) {
    least = std::min(least, change(rows, weights, 0, found, start));
  };
  for (Real mu = typical; mu > 1e-16L * typical; mu /= 8) {
    for (int k = 0; k < 40; ++k) {
      const std::vector<Real> step = newton_step_on_vectors(rows, weights, mu, v);
      Real squared = 0;
      for (const Real x : step) squared += x * x;
      std::vector<Real> next = v;
      Real t = 1;
      for (; t > 1e-4L; t /= 2) {
        for (std::size_t j = 0; j < v.size(); ++j) next[j] = v[j] + t * step[j];
        if (change(rows, weights, mu, next, v) < 0) break;
      }
      if (t <= 1e-4L) break;
      v = next;
      if (std::sqrt(squared) < 1e-3L * mu) break;
    }
    note(v);
  }
  for (const auto& row : rows) note({row.begin(), row.end()});
  return -least;
}

/// What a run has to prove.
enum class Proof {
  whole,  ///< a gap of 1e-9
  near,   ///< one of 1e-6, of an objective within 1e-9: rounding may hide what was reached
  any,    ///< some gap, to which the objective is held where it is more than 1e-9
};

/// Runs the rule and holds its objective to 1e-9 of half of the weight times the distance within which more
/// than half of it is, and to what products of rounding 2⁻⁵⁰ do not tell.
void expect_median(const Rows& rows, const std::vector<double>& weights, const GeometricMedian& rule,
                   const char* what, Proof proof = Proof::whole) {
  const std::size_t n = rows.size();
  const Median got = run_median(rows, weights, rule);
  const auto weight = [&](std::size_t i) { return weights.empty() ? Real{1} : Real{weights[i]}; };
  ASSERT_EQ(got.status, Status::ok) << what;
  if (proof == Proof::whole) {
    EXPECT_TRUE(got.converged) << what;
  }
  if (proof != Proof::any) {
    EXPECT_LE(got.gap, proof == Proof::whole ? 1e-9 : 1e-6) << what;
  }
  std::vector<std::pair<Real, Real>> sorted;
  Real total = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sorted.emplace_back(distance(rows[i], got.point), weight(i));
    total += weight(i);
  }
  const std::vector<Real> origin(got.point.size(), 0);
  Real to_origin = 0;
  for (const Real x : got.point) to_origin = std::hypot(to_origin, x);
  Real hidden = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const Real length = sorted[i].first;
    const Real e = 0x1p-50L * std::pow(distance(rows[i], origin) + to_origin, 2);
    hidden +=
        2 * weight(i) * std::min(8 * std::sqrt(e), e / std::max(length, std::numeric_limits<Real>::min()));
  }
  std::sort(sorted.begin(), sorted.end());
  Real within = 0, typical = 0;
  for (const auto& [length, p] : sorted) {
    within += p;
    typical = length;
    if (2 * within > total * (1 + 1e-12L)) break;
  }
  const Real scale = total / 2 * typical;
  EXPECT_LE(excess(rows, weights, got.point, typical > 0 ? typical : 1),
            (proof == Proof::any ? std::max<Real>(1e-9L, got.gap) : Real{1e-9L}) * scale + hidden)
      << what << ", n = " << n << ", d = " << rows[0].size() << ", scale " << scale;
}

TEST(GeometricMedian, RowsThatAreNearlyZeroDoNotHoldIt) {
  test::Generator random = generator();
  std::normal_distribution<double> normal;
  for (int round = 0; round < 3000 && !testing::Test::HasFailure(); ++round) {
    const int n = 5 + static_cast<int>(random() % 25);
    const int f = 2 + static_cast<int>(random() % at((n - 1) / 2 - 1));
    Rows rows = normal_rows(random, n, 1 + static_cast<int>(random() % 6), 0.5);
    const double size = std::pow(10.0, -static_cast<double>(random() % 30));
    const double ratio = round % 2 == 0 ? std::pow(10.0, -static_cast<double>(random() % 4)) : 1e-3;
    for (int i = 0; i < f; ++i) {
      for (double& x : rows[at(i)]) x = normal(random) * size * std::pow(ratio, i);
    }
    expect_median(rows, {}, {}, "near zero");
  }
}

// About a row of the others, which is the medoid, the first three are one.
TEST(GeometricMedian, RowsThatAreOneAboutTheMedoidAreTold) {
  const Rows rows = {{1.3235595854557182e-09}, {-2.1985370261524774e-13}, {-4.4944180884013794e-16},
                     {-0.62061768441805265},   {-1.5690173238553795},     {-0.56619476594497242},
                     {-0.05850929226638002},   {2.0669932294661777}};
  expect_median(rows, {}, {}, "nearly at zero");
}

// Along the line of the heavy rows the objective hardly bends, and Newton's steps are longer than the line.
TEST(GeometricMedian, LightRowsDecideWhereHeavyOnesHoldALine) {
  test::Generator random = generator();
  std::normal_distribution<double> normal;
  for (int round = 0; round < 6000 && !testing::Test::HasFailure(); ++round) {
    Rows rows = {{1, 0}, {-1, 0}};
    std::vector<double> weights = {1, 1};
    const double light = std::pow(10.0, -2 - static_cast<double>(random() % 2));
    for (int i = 0; i < 1 + round % 2; ++i) {
      rows.push_back({normal(random) / 2, light * normal(random)});
      weights.push_back(i == 0 ? light : light / 100);
    }
    // The lightest row's pull is hardly more than the rounding of the others'.
    expect_median(rows, weights, {}, "two heavy rows", Proof::near);
  }
}

TEST(GeometricMedian, OfHardRowsIsTheMinimiser) {
  test::Generator random = generator();
  std::normal_distribution<double> normal;
  for (int round = 0; round < 2000 && !testing::Test::HasFailure(); ++round) {
    const int n = 1 + static_cast<int>(random() % 24);
    const int d = 1 + static_cast<int>(random() % 5);
    const int f = n < 3 ? 0 : 1 + static_cast<int>(random() % at((n - 1) / 2));
    Rows rows = normal_rows(random, n, d, round % 2 == 0 ? 0.5 : 0);
    std::vector<double> weights;
    using Start = GeometricMedian::Start;
    const Start starts[] = {Start::medoid, Start::mean, Start::origin};
    const GeometricMedian rule{.start = starts[random() % 3]};
    const char* what = "";
    Proof proof = Proof::whole;  // distances tell all rows apart
    switch (round % 8) {
      case 0:
        what = "exact copies";
        for (int i = 1; i < f; ++i) rows[at(i)] = rows[0];
        break;
      case 1: {
        what = "a cluster about a row";
        proof = Proof::any;
        const double size = std::pow(10.0, -static_cast<double>(random() % 14));
        for (int i = 1; i <= f; ++i) {
          for (int k = 0; k < d; ++k) rows[at(i)][at(k)] = rows[0][at(k)] + size * normal(random);
        }
        break;
      }
      case 2:
        what = "far rows";
        for (int i = 0; i < f; ++i) {
          for (double& x : rows[at(i)]) x *= std::pow(10.0, static_cast<double>(random() % 120));
        }
        break;
      case 3: {
        what = "a line";
        const std::vector<double> along = normal_rows(random, 1, d)[0];
        for (auto& row : rows) {
          const double t = round % 16 == 3 ? static_cast<double>(random() % 9) : normal(random);
          for (int k = 0; k < d; ++k) row[at(k)] = t * along[at(k)];
        }
        break;
      }
      case 4: {
        what = "two clusters of equal weight";
        const double size = std::pow(10.0, -static_cast<double>(random() % 4));
        for (int i = 0; i < n; ++i) {
          for (double& x : rows[at(i)]) x *= size;
          rows[at(i)][0] += i < n / 2 ? 100 : 0;
        }
        break;
      }
      case 5:
        what = "weights far apart";
        proof = Proof::any;  // the heaviest rows alone may be near each other
        for (int i = 0; i < n; ++i) weights.push_back(std::pow(10.0, -static_cast<double>(random() % 300)));
        weights[random() % at(n)] = 1;
        break;
      case 6:
        what = "small integers";
        rows = integer_rows(random, n, d, 3);
        break;
      default:
        what = "all the same";
        for (auto& row : rows) row = rows[0];
        break;
    }
    expect_median(rows, weights, rule, what, proof);
  }
}

// Where n³ is a second: steps by conjugate gradients.
TEST(GeometricMedian, ManyRowsAreSolvedWithoutElimination) {
  test::Generator random = generator();
  Rows rows = normal_rows(random, 700, 5);
  for (std::size_t i = 0; i < 300; ++i) {
    for (double& x : rows[i]) x = 1e-9 * x + (i % 2 == 0 ? 0.1 : 0);
  }
  expect_median(rows, {}, {}, "many rows");
}

TEST(GeometricMedian, OneStepFromAfarIsNoConvergence) {
  // One bad row less than half, 1e150 away: the mean is as far, and a step goes half of the way.
  Rows rows = {{0, 1}, {1, 0}, {2, 2}, {1, 3}, {1e150, 1e150}, {1e150, 1e150}, {1e150, 1e150}};
  const Median got = run_median(rows, {}, {.start = GeometricMedian::Start::mean});
  EXPECT_EQ(got.status, Status::ok);
  EXPECT_TRUE(got.converged);
  EXPECT_LT(std::abs(got.point[0]), 10);
  const Median plain = run_median(rows, {}, {.max_iters = 99, .start = GeometricMedian::Start::mean});
  EXPECT_EQ(plain.status, Status::ok);
  EXPECT_FALSE(plain.converged);
  EXPECT_TRUE(std::isnan(plain.gap));
}

// Products of no points: what is found cannot always be proven, and is never said to be.
TEST(GeometricMedian, WhatCannotBeProvenIsNotConverged) {
  constexpr int n = 6, size = n + 1;
  int refused = 0;
  for (unsigned seed = 0; seed < 400; ++seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0, 2.5);
    std::vector<double> gram(at(size * size), 0);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j <= i; ++j) {
        gram[at(i * size + j)] = gram[at(j * size + i)] = i == j ? 2 : normal(random);
      }
    }
    const std::vector<std::uint8_t> infinite = no_infinite(size);
    std::vector<double> doubles(scratch_doubles(size));
    std::vector<int> ints(scratch_ints(size));
    std::vector<double> coefficients(size), scores(n), factors(n);
    const Points points{.count = n, .size = size, .gram = gram.data(), .infinite = infinite.data()};
    Combination out{
        .coefficients = coefficients.data(), .scores = scores.data(), .clip_factors = factors.data()};
    const Status status = solve(SerialTeam{}, RuleOf<GeometricMedian>::sum({}), points,
                                Scratch{doubles.data(), ints.data()}, out);
    const bool proven = out.optimality_gap <= GeometricMedian::proven_gap;
    EXPECT_EQ(status, proven ? Status::ok : Status::not_converged) << seed;
    EXPECT_EQ(out.converged, out.optimality_gap <= 1e-9) << seed;
    refused += status == Status::not_converged ? 1 : 0;
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 100);
}

// Huber's minimiser -----------------------------------------------------------------------------------------

constexpr std::array every_start = {GeometricMedian::Start::medoid, GeometricMedian::Start::mean,
                                    GeometricMedian::Start::origin};

TEST(Huber, IsTheMeanOfRowsWithinTau) {
  test::Generator random = generator();
  for (const double size : {1e-150, 1e-45, 1.0, 1e60}) {
    Rows rows = normal_rows(random, 7, 3);
    for (std::vector<double>& row : rows) {
      for (double& x : row) x *= size;
    }
    std::vector<Real> mean(3, 0);
    for (const std::vector<double>& row : rows) {
      for (std::size_t k = 0; k < 3; ++k) mean[k] += Real{row[k]} / 7;
    }
    for (const double tau : {10 * size, 1e6 * size, 1e70, 1e300}) {
      for (const GeometricMedian::Start start : every_start) {
        const Median found = run_sum(rows, {}, RuleOf<Huber>::sum({.tau = tau, .start = start}));
        EXPECT_EQ(found.status, Status::ok);
        EXPECT_TRUE(found.converged) << "rows of " << size << ", tau " << tau << ": " << found.gap;
        for (std::size_t k = 0; k < 3; ++k) {
          EXPECT_NEAR(static_cast<double>((found.point[k] - mean[k]) / size), 0, 1e-6)
              << "rows of " << size << ", tau " << tau;
        }
        const Median few =
            run_sum(rows, {}, RuleOf<Huber>::sum({.tau = tau, .max_iters = 1, .tol = 0, .start = start}));
        for (std::size_t k = 0; k < 3 && start != GeometricMedian::Start::origin; ++k)
          EXPECT_NEAR(static_cast<double>((few.point[k] - mean[k]) / size), 0, 1e-6);
      }
    }
  }
}

TEST(Huber, HoldsItsBoundWhereHugePairsCancel) {
  test::Generator random = generator();
  for (const double size : {1e-60, 1e-12, 1e-3}) {
    for (const double far : {1e3, 1e9, 1e100}) {
      Rows rows = normal_rows(random, 9, 2);
      std::vector<Real> mean(2, 0);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t k = 0; k < 2; ++k) {
          rows[i][k] *= i < 5 ? size : far;
          if (i > 4 && i % 2 == 0) rows[i][k] = -rows[i - 1][k];
          if (i < 5) mean[k] += Real{rows[i][k]} / 5;
        }
      }
      for (const GeometricMedian::Start start : every_start) {
        const Median found = run_sum(rows, {}, RuleOf<Huber>::sum({.tau = 1, .start = start}));
        EXPECT_EQ(found.status, Status::ok) << "honest rows of " << size << ", bad ones of " << far;
        // Twice the pull of units that cancel but for their rounding, and of honest ones.
        for (std::size_t k = 0; k < 2; ++k)
          EXPECT_NEAR(static_cast<double>(found.point[k] - mean[k]), 0, 1e-4 + 0.1 * size);
      }
    }
  }
}

// AutoGM ----------------------------------------------------------------------------------------------------

/// max(0, (η − r_i)/lam) of sum 1, r_i = ‖x_i − v‖, by halving.
std::vector<double> weights_by_distance(const Rows& rows, const std::vector<Real>& v, double lam) {
  std::vector<Real> r;
  for (const std::vector<double>& row : rows) r.push_back(distance(row, v));
  Real low = *std::min_element(r.begin(), r.end());
  Real high = low + lam;
  std::vector<double> weights(r.size());
  for (int halving = 0; halving < 100; ++halving) {
    const Real middle = (low + high) / 2;
    for (std::size_t i = 0; i < r.size(); ++i)
      weights[i] = static_cast<double>(std::max<Real>(0, (middle - r[i]) / lam));
    (std::accumulate(weights.begin(), weights.end(), 0.0) < 1 ? low : high) = middle;
  }
  return weights;
}

TEST(AutoGm, IsTheMedianOfTheWeightsThatFollowFromIt) {
  test::Generator random = generator();
  for (int trial = 0; trial < 100; ++trial) {
    const int n = 1 + static_cast<int>(random() % 30);
    const double size = std::ldexp(1.0, static_cast<int>(random() % 400) - 200);
    Rows rows = normal_rows(random, n, 5);
    for (std::vector<double>& row : rows) {
      const double group = random() % 3 == 0 ? 2 : 0;
      for (double& x : row) x = size * (x + group);
    }
    const double lam = size * std::ldexp(1.0, static_cast<int>(random() % 8) - 2);
    const Median found = run_sum(rows, {}, RuleOf<AutoGm>::sum({.lam = lam}));
    ASSERT_EQ(found.status, Status::ok);
    EXPECT_TRUE(found.converged) << "n = " << n << ", lam/size = " << lam / size;
    std::vector<double> weights = weights_by_distance(rows, found.point, lam);
    Rows weighted;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] > 0) weighted.push_back(rows[i]);
    }
    std::erase_if(weights, [](double weight) { return weight <= 0; });
    const Median again = run_median(weighted, weights, {});
    for (std::size_t k = 0; k < 5; ++k)
      EXPECT_NEAR(static_cast<double>((found.point[k] - again.point[k]) / size), 0, 1e-6)
          << "n = " << n << ", lam/size = " << lam / size;
  }
}

TEST(AutoGm, TakesAnyLam) {
  test::Generator random = generator();
  for (const double size : {1e-150, 1.0, 1e60}) {
    Rows rows = normal_rows(random, 9, 3);
    for (std::vector<double>& row : rows) {
      for (double& x : row) x *= size;
    }
    const Median median = run_median(rows, {}, {});
    const Median alike = run_sum(rows, {}, RuleOf<AutoGm>::sum({.lam = 1e300}));
    const Median nearest = run_sum(rows, {}, RuleOf<AutoGm>::sum({.lam = 1e-300}));
    const Median first = run_sum(rows, {}, RuleOf<AutoGm>::sum({.lam = size, .max_iters = 1}));
    EXPECT_TRUE(alike.converged);
    EXPECT_TRUE(nearest.converged);
    EXPECT_FALSE(first.converged);
    EXPECT_EQ(first.point, median.point);
    for (std::size_t k = 0; k < 3; ++k)
      EXPECT_NEAR(static_cast<double>((alike.point[k] - median.point[k]) / size), 0, 1e-7);
    const auto row = std::min_element(rows.begin(), rows.end(), [&](const auto& a, const auto& b) {
      return distance(a, median.point) < distance(b, median.point);
    });
    EXPECT_EQ(std::vector<double>(nearest.point.begin(), nearest.point.end()), *row);
  }
}

}  // namespace
}  // namespace bragg::detail
