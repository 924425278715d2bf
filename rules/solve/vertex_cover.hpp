// SPDX-License-Identifier: Apache-2.0
// Can at most k vertices cover every edge of a graph? Exact, by branching with reductions and bounds.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace bragg::detail {

/// A set of small integers.
class BitSet {
 public:
  BitSet() = default;
  explicit BitSet(int size) : words_(static_cast<std::size_t>((size + 63) / 64), 0) {}

  bool has(int i) const { return (words_[word(i)] >> (i & 63) & 1) != 0; }
  void add(int i) { words_[word(i)] |= std::uint64_t{1} << (i & 63); }
  void remove(int i) { words_[word(i)] &= ~(std::uint64_t{1} << (i & 63)); }
  void clear() { words_.assign(words_.size(), 0); }
  std::size_t words() const { return words_.size(); }
  std::uint64_t& operator[](std::size_t w) { return words_[w]; }
  std::uint64_t operator[](std::size_t w) const { return words_[w]; }

  BitSet& operator|=(const BitSet& other) {
    for (std::size_t w = 0; w < words_.size(); ++w) words_[w] |= other.words_[w];
    return *this;
  }
  BitSet& operator&=(const BitSet& other) {
    for (std::size_t w = 0; w < words_.size(); ++w) words_[w] &= other.words_[w];
    return *this;
  }
  BitSet& operator-=(const BitSet& other) {
    for (std::size_t w = 0; w < words_.size(); ++w) words_[w] &= ~other.words_[w];
    return *this;
  }

  int count() const {
    int total = 0;
    for (const std::uint64_t word : words_) total += std::popcount(word);
    return total;
  }
  /// −1 when empty.
  int first() const {
    for (std::size_t w = 0; w < words_.size(); ++w) {
      if (words_[w] != 0) return static_cast<int>(w) * 64 + std::countr_zero(words_[w]);
    }
    return -1;
  }
  /// f(i) for each member, ascending. f leaves the set alone.
  template <class F>
  void for_each(F f) const {
    for (std::size_t w = 0; w < words_.size(); ++w) {
      for (std::uint64_t left = words_[w]; left != 0; left &= left - 1) {
        f(static_cast<int>(w) * 64 + std::countr_zero(left));
      }
    }
  }

 private:
  static std::size_t word(int i) { return static_cast<std::size_t>(i) / 64; }
  std::vector<std::uint64_t> words_;
};

/// Undirected, without loops.
struct Graph {
  explicit Graph(int n_in) : n(n_in), neighbours(static_cast<std::size_t>(n_in), BitSet(n_in)) {}
  void connect(int i, int j) {
    neighbours[static_cast<std::size_t>(i)].add(j);
    neighbours[static_cast<std::size_t>(j)].add(i);
  }
  const BitSet& of(int i) const { return neighbours[static_cast<std::size_t>(i)]; }

  int n;
  std::vector<BitSet> neighbours;
};

/// Decides vertex covers until a common work limit is spent.
class CoverSearch {
 public:
  explicit CoverSearch(std::int64_t work_limit) : work_left_(work_limit) {}

  /// Whether `size` vertices of `alive` or fewer cover every edge between vertices of `alive`; if so `cover`
  /// holds such vertices. Means nothing once exhausted().
  bool find(const Graph& graph, const BitSet& alive, int size, BitSet& cover);

  bool exhausted() const { return work_left_ < 0; }

 private:
  /// The rest of the graph, and the vertices taken into the cover.
  struct State {
    BitSet alive;
    BitSet cover;
    std::vector<int> degree;
    int count = 0;          ///< alive vertices
    std::int64_t ends = 0;  ///< Σ degree
    int budget = 0;         ///< vertices that may still be taken
  };

  State& state(std::size_t depth);
  void copy_remainder(const State& from, State& to);
  void drop(State& s, int v) const;
  void take(State& s, int v) const;
  void take_neighbours(State& s, int v) const;
  bool reduce(State& s);
  bool reduce_low_degrees(State& s, bool& changed) const;
  bool reduce_dominated(State& s) const;
  bool degrees_suffice(const State& s);
  int clique_cover_bound(const State& s);
  int branching_vertex(const State& s);
  bool split(std::size_t depth, bool& found);
  bool search(std::size_t depth);
  void spend(std::int64_t words) { work_left_ -= words; }

  const Graph* graph_ = nullptr;  ///< during a call of find
  int vertices_ = -1;             ///< that the buffers are made for
  std::int64_t words_ = 1;        ///< per vertex set
  std::int64_t work_left_;
  std::deque<State> states_;
  BitSet scratch_, clique_, component_, frontier_;
  std::vector<int> by_degree_;
};

}  // namespace bragg::detail
