// SPDX-License-Identifier: Apache-2.0
#include "rules/solve/vertex_cover.hpp"

#include <algorithm>

namespace bragg::detail {

namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

}  // namespace

CoverSearch::State& CoverSearch::state(std::size_t depth) {
  while (states_.size() <= depth) {
    State fresh;
    fresh.alive = BitSet(graph_->n);
    fresh.cover = BitSet(graph_->n);
    fresh.degree.resize(at(graph_->n));
    states_.push_back(std::move(fresh));
  }
  return states_[depth];
}

/// A child starts from what its parent has left; its cover is its own.
void CoverSearch::copy_remainder(const State& from, State& to) {
  spend(2 * words_ + graph_->n / 4);
  to.alive = from.alive;
  to.cover.clear();
  to.degree = from.degree;
  to.count = from.count;
  to.ends = from.ends;
  to.budget = from.budget;
}

/// Leaves v out of the cover; it has no edge left.
void CoverSearch::drop(State& s, int v) const {
  s.alive.remove(v);
  --s.count;
}

void CoverSearch::take(State& s, int v) const {
  s.alive.remove(v);
  s.cover.add(v);
  --s.count;
  --s.budget;
  s.ends -= 2 * s.degree[at(v)];
  const BitSet& edges = graph_->of(v);
  for (std::size_t w = 0; w < edges.words(); ++w) {
    for (std::uint64_t left = edges[w] & s.alive[w]; left != 0; left &= left - 1) {
      --s.degree[w * 64 + static_cast<std::size_t>(std::countr_zero(left))];
    }
  }
}

void CoverSearch::take_neighbours(State& s, int v) const {
  const BitSet& edges = graph_->of(v);
  for (std::size_t w = 0; w < edges.words(); ++w) {
    for (std::uint64_t left = edges[w] & s.alive[w]; left != 0; left &= left - 1) {
      take(s, static_cast<int>(w) * 64 + std::countr_zero(left));
    }
  }
  drop(s, v);
}

/// Degrees 0 and 1, triangles that hang on a vertex of degree 2, and vertices of more neighbours than may be
/// taken. False when the budget is overdrawn.
bool CoverSearch::reduce_low_degrees(State& s, bool& changed) const {
  for (std::size_t w = 0; w < s.alive.words(); ++w) {
    for (std::uint64_t left = s.alive[w]; left != 0; left &= left - 1) {
      const int v = static_cast<int>(w) * 64 + std::countr_zero(left);
      if (!s.alive.has(v)) continue;
      const int degree = s.degree[at(v)];
      if (degree == 0) {
        drop(s, v);
      } else if (degree > s.budget) {
        take(s, v);
        changed = true;
      } else if (degree == 1) {
        take_neighbours(s, v);
        changed = true;
      } else if (degree == 2) {
        int ends[2] = {-1, -1};
        const BitSet& edges = graph_->of(v);
        for (std::size_t k = 0; k < edges.words(); ++k) {
          for (std::uint64_t bits = edges[k] & s.alive[k]; bits != 0; bits &= bits - 1) {
            ends[ends[0] < 0 ? 0 : 1] = static_cast<int>(k) * 64 + std::countr_zero(bits);
          }
        }
        if (graph_->of(ends[0]).has(ends[1])) {
          take_neighbours(s, v);
          changed = true;
        }
      }
      if (s.budget < 0) return false;
    }
  }
  return true;
}

/// Takes v where a neighbour u has no neighbour that v has not: some best cover holds v.
bool CoverSearch::reduce_dominated(State& s) const {
  bool changed = false;
  for (std::size_t w = 0; w < s.alive.words(); ++w) {
    for (std::uint64_t left = s.alive[w]; left != 0; left &= left - 1) {
      const int u = static_cast<int>(w) * 64 + std::countr_zero(left);
      if (!s.alive.has(u)) continue;
      const BitSet& near = graph_->of(u);
      int dominating = -1;
      for (std::size_t k = 0; k < near.words() && dominating < 0; ++k) {
        for (std::uint64_t bits = near[k] & s.alive[k]; bits != 0 && dominating < 0; bits &= bits - 1) {
          const int v = static_cast<int>(k) * 64 + std::countr_zero(bits);
          if (s.degree[at(v)] < s.degree[at(u)]) continue;
          const BitSet& far = graph_->of(v);
          bool covered = true;
          for (std::size_t j = 0; j < near.words() && covered; ++j) {
            std::uint64_t outside = near[j] & s.alive[j] & ~far[j];
            if (j == k) outside &= ~(std::uint64_t{1} << (v & 63));
            covered = outside == 0;
          }
          if (covered) dominating = v;
        }
      }
      if (dominating < 0) continue;
      take(s, dominating);
      changed = true;
      if (s.budget < 0) return true;
    }
  }
  return changed;
}

/// Even the vertices of most neighbours cover too few edges.
bool CoverSearch::degrees_suffice(const State& s) {
  by_degree_.clear();
  s.alive.for_each([&](int v) { by_degree_.push_back(s.degree[at(v)]); });
  const auto taken = static_cast<std::ptrdiff_t>(std::min(s.budget, s.count));
  std::nth_element(by_degree_.begin(), by_degree_.begin() + taken, by_degree_.end(), std::greater<>());
  std::int64_t covered = 0;
  for (std::ptrdiff_t i = 0; i < taken; ++i) covered += by_degree_[static_cast<std::size_t>(i)];
  return 2 * covered >= s.ends;
}

/// False: no cover within the budget. Leaves a graph whose least degree is 2 and largest at least 3, or none.
bool CoverSearch::reduce(State& s) {
  for (;;) {
    spend(words_ + s.count);
    bool changed = false;
    if (!reduce_low_degrees(s, changed)) return false;
    if (changed) continue;
    if (s.count == 0) return true;
    int largest = 0;
    int widest = -1;
    s.alive.for_each([&](int v) {
      if (s.degree[at(v)] > largest) {
        largest = s.degree[at(v)];
        widest = v;
      }
    });
    if (largest == 2) {
      // Nothing but cycles: any vertex of one is in one of its best covers.
      take(s, widest);
      if (s.budget < 0) return false;
      continue;
    }
    spend(2 * s.ends);  // most comparisons end in their first words
    if (!reduce_dominated(s)) return degrees_suffice(s);
    if (s.budget < 0) return false;
  }
}

/// Vertices minus the cliques of a greedy partition: each clique needs all of its vertices but one.
int CoverSearch::clique_cover_bound(const State& s) {
  spend(s.count * words_ * 2);
  scratch_ = s.alive;
  int cliques = 0;
  by_degree_.clear();
  s.alive.for_each([&](int v) { by_degree_.push_back(v); });
  std::stable_sort(by_degree_.begin(), by_degree_.end(),
                   [&](int a, int b) { return s.degree[at(a)] < s.degree[at(b)]; });
  for (const int seed : by_degree_) {
    if (!scratch_.has(seed)) continue;
    ++cliques;
    scratch_.remove(seed);
    clique_ = graph_->of(seed);
    clique_ &= scratch_;
    for (int next = clique_.first(); next >= 0; next = clique_.first()) {
      int best = next;
      clique_.for_each([&](int v) {
        if (s.degree[at(v)] < s.degree[at(best)]) best = v;
      });
      scratch_.remove(best);
      clique_ &= graph_->of(best);
    }
  }
  return s.count - cliques;
}

/// Where the graph has come apart, solves the components one by one. False when it is connected.
bool CoverSearch::split(std::size_t depth, bool& found) {
  State& s = state(depth);
  std::vector<BitSet> components;
  BitSet left = s.alive;
  while (left.first() >= 0) {
    component_ = BitSet(graph_->n);
    component_.add(left.first());
    frontier_ = component_;
    while (frontier_.first() >= 0) {
      scratch_.clear();
      frontier_.for_each([&](int v) { scratch_ |= graph_->of(v); });
      scratch_ &= left;
      scratch_ -= component_;
      component_ |= scratch_;
      frontier_ = scratch_;
    }
    spend(component_.count() * words_);
    if (components.empty() && component_.count() == s.count) return false;
    left -= component_;
    components.push_back(component_);
  }

  std::vector<State> parts;
  int bounds = 0;
  for (const BitSet& component : components) {
    State part;
    part.alive = component;
    part.cover = BitSet(graph_->n);
    part.degree = s.degree;
    part.count = component.count();
    component.for_each([&](int v) { part.ends += s.degree[at(v)]; });
    part.budget = clique_cover_bound(part);
    bounds += part.budget;
    parts.push_back(std::move(part));
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const State& a, const State& b) { return a.count < b.count; });
  found = bounds <= s.budget;
  for (std::size_t p = 0; p < parts.size() && found; ++p) {
    State& part = parts[p];
    bounds -= part.budget;  // now of the parts after this one
    const int most = s.budget - bounds;
    for (found = false; part.budget <= most && !found && !exhausted(); ++part.budget) {
      State& trial = state(depth + 1);
      copy_remainder(part, trial);
      found = search(depth + 1);
      if (found) {
        s.cover |= trial.cover;
        s.budget -= part.budget;
      }
    }
  }
  return true;
}

/// One of most neighbours; of those, one whose neighbours have few: they are the first to be reduced away.
int CoverSearch::branching_vertex(const State& s) {
  int best = -1;
  int around_best = 0;
  s.alive.for_each([&](int v) {
    if (best >= 0 && s.degree[at(v)] < s.degree[at(best)]) return;
    int around = 0;
    const BitSet& edges = graph_->of(v);
    for (std::size_t w = 0; w < edges.words(); ++w) {
      for (std::uint64_t left = edges[w] & s.alive[w]; left != 0; left &= left - 1) {
        around += s.degree[w * 64 + static_cast<std::size_t>(std::countr_zero(left))];
      }
    }
    if (best >= 0 && s.degree[at(v)] == s.degree[at(best)] && around >= around_best) return;
    best = v;
    around_best = around;
  });
  spend(s.ends + s.count * words_);
  return best;
}

/// Decides state(depth), whose cover is complete on success.
bool CoverSearch::search(std::size_t depth) {
  State& s = state(depth);
  if (!reduce(s)) return false;
  if (s.count == 0) return true;
  if (exhausted()) return false;
  bool found = false;
  if (split(depth, found)) return found;
  if (clique_cover_bound(s) > s.budget) return false;

  const int widest = branching_vertex(s);
  State& child = state(depth + 1);
  copy_remainder(s, child);
  take(child, widest);
  found = search(depth + 1);
  if (!found && !exhausted()) {
    copy_remainder(s, child);
    take_neighbours(child, widest);
    found = child.budget >= 0 && search(depth + 1);
  }
  if (found) s.cover |= child.cover;
  return found;
}

bool CoverSearch::find(const Graph& graph, const BitSet& alive, int size, BitSet& cover) {
  if (vertices_ != graph.n) {
    states_.clear();
    scratch_ = BitSet(graph.n);
    vertices_ = graph.n;
  }
  graph_ = &graph;
  words_ = static_cast<std::int64_t>(alive.words());
  State& s = state(0);
  s.alive = alive;
  s.cover.clear();
  s.count = alive.count();
  s.ends = 0;
  s.budget = size;
  alive.for_each([&](int v) {
    int degree = 0;
    for (std::size_t w = 0; w < alive.words(); ++w) degree += std::popcount(graph.of(v)[w] & alive[w]);
    s.degree[at(v)] = degree;
    s.ends += degree;
  });
  spend(s.count * words_);
  if (size < 0 || !search(0) || exhausted()) return false;
  cover = s.cover;
  return true;
}

}  // namespace bragg::detail
