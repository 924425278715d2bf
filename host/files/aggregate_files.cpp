// SPDX-License-Identifier: Apache-2.0
// Aggregation of files in windows of bounded memory.
#include "host/files/aggregate_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <map>
#include <new>
#include <numeric>

#include "host/base/nonfinite.hpp"
#include "host/base/team.hpp"
#include "host/files/convert.hpp"
#include "host/files/distance_shares.hpp"
#include "host/files/failure.hpp"
#include "host/files/hashes.hpp"
#include "host/files/holders.hpp"
#include "host/files/integers.hpp"
#include "host/files/lower_median.hpp"
#include "host/files/memory_plan.hpp"
#include "host/files/open_together.hpp"
#include "host/files/output_plan.hpp"
#include "host/files/packed.hpp"
#include "host/files/progress_counter.hpp"
#include "host/files/ranks.hpp"
#include "host/files/server_step.hpp"
#include "host/files/tensor_choice.hpp"
#include "host/files/window_reader.hpp"
#include "host/sharded/leaf_sums.hpp"
#include "host/sharded/solution_digest.hpp"
#include "rules/floating_environment.hpp"

namespace bragg::detail {

namespace {

/// What is solved together: all of some windows, or some pieces of the one in slot 0. Of ranks all have a
/// part of the whole row, perhaps without a window; one of a tensor is one rank's.
struct Part {
  std::span<const Window> windows;
  bool loaded = false;
  Range pieces = {};                   ///< of the window that is loaded
  const TensorInfo* tensor = nullptr;  ///< null: the whole row

  Range pieces_of(const Window& window) const { return loaded ? pieces : Range{0, window.pieces.size()}; }
  /// Those that rows are judged by, and the others. (A part of one tensor is judged by it.)
  Range judged(const Window& window) const {
    return tensor != nullptr ? pieces_of(window) : Range{0, window.judged_pieces};
  }
  Range unjudged(const Window& window) const {
    const Range there = judged(window);
    return {there.first + there.count, pieces_of(window).count - there.count};
  }
  /// Bytes of a row in these windows that have to be read for each pass.
  std::uint64_t bytes(std::span<const Window> some) const {
    std::uint64_t bytes = 0;
    for (const Window& window : some) bytes += loaded ? 0 : window.bytes();
    return bytes;
  }
  /// Windows that hold a judged tensor: the first ones. Pass 1 reads no others.
  std::span<const Window> judged_windows() const {
    const auto end = std::find_if(windows.begin(), windows.end(),
                                  [&](const Window& window) { return judged(window).count == 0; });
    return {windows.begin(), end};
  }
  /// Windows that hold none but judged tensors: the first ones.
  std::span<const Window> judged_alone() const {
    const auto end = std::find_if(windows.begin(), windows.end(),
                                  [&](const Window& window) { return unjudged(window).count > 0; });
    return {windows.begin(), end};
  }
};

/// What a run that starts once more goes on with.
struct Course {
  ProgressCounter progress;
  std::uint64_t bytes_read = 0;
  bool hashed = false;
};

class FileAggregation {
 public:
  /// Of ranks all begin, before any runs.
  FileAggregation(const Pipeline& pipeline, Inputs& inputs, const std::filesystem::path& output,
                  const FileOptions& options, Ranks& ranks, Course& course);
  /// @throws InputLost: all has to be done again without them.
  FileResult run(const std::filesystem::path& output, const WriteBeside& beside);

 private:
  /// The rows that are read, of the active ones.
  void list_rows();
  /// Room for the active rows. `solved`: the pipeline is run on them.
  void begin_rows(bool solved = true);
  void order_tensors();
  void choose_first_pass();
  /// Which rank has which coordinates.
  void deal_out();
  /// What this rank has of a tensor.
  std::int64_t own_elements(std::size_t tensor) const { return own_[tensor] ? own_[tensor]->size() : 0; }
  std::uint64_t own_bytes(std::size_t tensor) const;
  /// What ranks send each other of pass 1.
  std::int64_t record_bytes() const;
  /// Of the rows' samples.
  std::int64_t sample_bytes() const;
  /// Elements of the tensors that the whole row is judged by.
  std::vector<std::int64_t> judged_sizes() const;
  /// Of a floating tensor, among them.
  std::size_t place_of(std::size_t tensor) const {
    const auto at = std::lower_bound(inputs_.floating.begin(), inputs_.floating.end(), tensor);
    return static_cast<std::size_t>(at - inputs_.floating.begin());
  }
  void tell_time() const;
  void expect_bytes();
  void run_integers(std::span<const std::size_t> tensors);
  void run_copies();
  void check_copied(const Window& window, const std::byte* from);
  void run_whole();
  void run_per_tensor(std::span<const std::size_t> tensors);
  /// Of partial models: each tensor over those that hold it.
  void run_partial();
  void run_part(const Part& part);
  bool is_shared(const Part& part) const { return ranks_.many() && part.tensor == nullptr; }
  /// What may fail on one of the ranks that run the part.
  template <class F>
  void among_ranks(const Part& part, F work) {
    is_shared(part) ? ranks_.together(work) : work();
  }
  /// Makes counts those of all ranks that run the part.
  void add_up(const Part& part, std::vector<std::int64_t>& counts) {
    if (is_shared(part)) ranks_.add_up(counts);
  }
  void open_outputs(const std::filesystem::path& output);
  std::unique_ptr<OutputModel> open_output(const std::filesystem::path& path, const ModelLayout& layout);
  /// On the first rank, all that ranks have written; the others leave it.
  void collect_outputs();
  void commit(const WriteBeside& beside);
  void collect_results();
  void solve(const Part& part, Solution& solution);
  /// Pass 1 over the windows that it reads.
  void accumulate(const Part& part, GramSums& sums);
  /// The same by all ranks.
  void accumulate_together(const Part& part, GramSums& totals);
  void sample_together(RowSamples& mine, RowSamples& totals);
  /// Of pass 1 by all ranks, of which each has its leaves in records_.
  void share_together(const GramSums& totals);
  /// Pass 2 over some of the part's windows. `scanning`: looks for values that are not finite in tensors that
  /// rows are not judged by, in all rows, which are read for it, and adds them to nonfinite_. Where
  /// found_nonfinite() by then, nothing more was written, and the windows are to be gone over again.
  void apply(const Part& part, std::span<const Window> windows, Solution& solution, bool scanning);
  void apply_own(const Part& part, std::span<const Window> windows, Solution& solution, bool scanning);
  void scan(const Part& part, const Window& window, int slot);
  /// Whether a row is among what scanning has found that passed for finite.
  bool found_nonfinite(const Solution& solution) const;
  void check_solved(const Solution& solution, const TensorInfo* tensor) const;

  bool is_bad(int row) const;
  /// Whether it is the base, which the server's step needs beside the aggregate.
  bool is_stepped_from(int row) const {
    return server_ && static_cast<std::size_t>(row) == active_.rows.size();
  }
  /// Of the rows that take part.
  std::vector<std::uint8_t> bad_rows() const;
  /// @throws Error too_many_nonfinite, nonfinite_pivot: bad inputs would decide the output.
  void check_bad(const Solution& solution, const TensorInfo* tensor) const;

  /// Reads the rows that are not bad; their bytes.
  std::uint64_t read(const Window& window, int slot, std::span<const int> rows, DType dtype);
  void count_read(std::uint64_t bytes);
  /// Nothing of the row has been used yet: it is infinite from the start.
  void drop(int row);
  void load(const Window& window, int slot, std::span<const int> rows, DType dtype);
  /// Of a window that both passes take from memory.
  void load_once(const Window& window);
  int slot_of(std::size_t window) const {
    return static_cast<int>(window % static_cast<std::size_t>(passes_->slots()));
  }
  OutTable target(const Window& window, int slot, Range pieces);
  void check_finite(const Window& window, int slot, Range pieces, Solution& solution);
  void take_step(const Window& window, int slot, Range pieces);
  void write(const Window& window, int slot, Range pieces);
  void write_as(const ElementType& type, const Piece& piece, const std::byte* from);
  void check_narrowed(const Piece& piece, std::int64_t beyond) const;

  const FileOptions& options_;
  Inputs& inputs_;
  Ranks& ranks_;
  Engine engine_;
  int threads_;
  ActiveRows active_;
  OutputPlan output_;
  std::optional<ServerStep> server_;
  MemoryPlan memory_;
  std::unique_ptr<WindowPasses> passes_;
  std::optional<WindowReader> reader_;
  std::vector<HeldTogether> held_;         // of partial models
  std::vector<int> all_rows_;              // that are read: the active ones that are not bad, then the base
  std::vector<int> integer_rows_;          // those with a vote in the median of integers
  std::vector<std::uint8_t> used_;         // per table row: some of it was read
  std::vector<std::size_t> order_;         // the floating tensors, those first that rows are judged by
  std::size_t judged_ = 0;                 // how many those are
  std::vector<std::int64_t> first_;        // [tensor] number of its first coordinate among theirs
  std::vector<std::size_t> first_pass_;    // tensors that pass 1 reads
  std::vector<std::optional<Slice>> own_;  // [tensor] what this rank has of it
  std::optional<Sharding> sharding_;       // of order_, among ranks that have the whole row
  LeafRecords records_;
  std::vector<std::int64_t> nonfinite_;  // per table row, in the tensors that rows are not judged by
  std::optional<DistanceShares> shares_;
  std::vector<std::unique_ptr<OutputModel>> files_;  // the output; the server's state, if one is kept
  std::vector<void*> targets_;
  Course& course_;
  ProgressCounter& progress_;
  FileResult result_;
};

FileAggregation::FileAggregation(const Pipeline& pipeline, Inputs& inputs,
                                 const std::filesystem::path& output, const FileOptions& options,
                                 Ranks& ranks, Course& course)
    : options_(options),
      inputs_(inputs),
      ranks_(ranks),
      engine_(pipeline, static_cast<int>(inputs_.rows.size()), options.options),
      threads_(threads_of(options.options.threads)),
      course_(course),
      progress_(course.progress) {
  set_active_rows(options.weights, static_cast<int>(inputs_.rows.size()), options.options.max_weight_share,
                  active_);
  list_rows();
  output_ = plan_output(inputs_, pipeline, output, options);
  if (options.server) {
    server_.emplace(options, inputs, output);
  } else if (!options.server_state.empty()) {
    throw Error(Status::invalid_argument, "server_state: is for a server's optimizer; name it, too");
  }

  result_.workers = inputs_.names;
  result_.form = describe_form(inputs_.tensors, inputs_.npy);
  for (const std::size_t t : inputs_.integers) result_.integers += inputs_.tensors[t].elements;
  for (const std::size_t t : inputs_.floating) {
    result_.coordinates += inputs_.tensors[t].elements;
    result_.tensors.push_back(inputs_.tensors[t].name);
  }
  result_.unused = inputs_.unused;
  for (const std::size_t t : inputs_.copied) result_.copied.push_back(inputs_.tensors[t].name);
  // Without coordinates no NaN tells that a row is infinite.
  for (std::size_t i = 0; i < active_.rows.size() && result_.coordinates == 0; ++i)
    active_.invalid[i] = active_.invalid[i] || is_bad(static_cast<int>(i));
  engine_.begin(active_, inputs_.base.has_value(), false, 0);
  order_tensors();
  deal_out();
  memory_ = plan_memory(inputs_, output_, static_cast<int>(active_.rows.size()) + (inputs_.base ? 1 : 0),
                        {.bytes = engine_.square_bytes() + record_bytes() + (server_ ? server_->bytes() : 0),
                         .sample_bytes = sample_bytes(),
                         .samples = engine_.describe_samples()},
                        options);
  choose_first_pass();
  const bool whole = options.options.scope == Scope::whole || inputs_.floating.empty();
  result_.per_tensor = !whole;
  result_.reports.resize(whole ? 1 : inputs_.floating.size());
  if (options.partial) {
    held_ = checked_holders(inputs_, pipeline, options);
    result_.held = describe_holders(held_, inputs_);
    result_.held_with.resize(inputs_.floating.size());
    for (std::size_t k = 0; k < held_.size(); ++k) {
      for (const std::size_t t : held_[k].floating) result_.held_with[place_of(t)] = k;
    }
    result_.dropped = inputs_.dropped;
    result_.more_dropped = inputs_.more_dropped;
  }
  begin_rows();
}

void FileAggregation::list_rows() {
  const int table_rows = static_cast<int>(active_.rows.size()) + (inputs_.base ? 1 : 0);
  all_rows_.clear();
  integer_rows_.clear();
  for (int row = 0; row < table_rows; ++row) {
    if (!is_bad(row)) all_rows_.push_back(row);
  }
  for (std::size_t i = 0; i < active_.rows.size(); ++i) {  // an invalid weight is no weight
    if (!active_.invalid[i] && !is_bad(static_cast<int>(i))) integer_rows_.push_back(static_cast<int>(i));
  }
  if (options_.integers == Integers::first) {
    if (inputs_.base) integer_rows_.assign(1, static_cast<int>(active_.rows.size()));
    if (integer_rows_.size() > 1) integer_rows_.erase(integer_rows_.begin() + 1, integer_rows_.end());
  }
}

void FileAggregation::begin_rows(bool solved) {
  if (solved) engine_.begin(active_, inputs_.base.has_value(), false, 0);
  // Of partial models other tensors' rows may have used it.
  used_.assign(active_.rows.size() + (inputs_.base ? 1 : 0), result_.coordinates == 0 || options_.partial);
  reader_.reset();
  passes_.reset();  // first: two would be more memory than was planned
  passes_ = options_.options.device == Device::cuda
                ? make_cuda_passes(options_.options, memory_.slot, result_.coordinates, active_.rows)
                : make_cpu_passes(engine_, memory_.slot);
  reader_.emplace(inputs_, active_.rows, memory_.slot.row_stride, *passes_, threads_);
}

FileResult FileAggregation::run(const std::filesystem::path& output, const WriteBeside& beside) {
  ranks_.together([&] {
    check_output("output", output, inputs_);
    start_threads(threads_);
    tell_time();
  });
  if (server_) ranks_.agree(std::array{Ranks::Topic{"different states of the server", server_->digest()}});
  open_outputs(output);
  ranks_.together([&] { expect_bytes(); });
  if (options_.hashed && !course_.hashed)
    hash_inputs(inputs_, options_, ranks_, threads_, progress_, course_.bytes_read);
  course_.hashed = true;
  // A model without floating-point tensors is a row of no coordinates: it has a report too.
  const bool whole = options_.options.scope == Scope::whole || inputs_.floating.empty();
  ranks_.together([&] {
    check_bad({}, nullptr);
    if (!options_.partial) run_integers(inputs_.integers);
    run_copies();
    if (!whole && !options_.partial) run_per_tensor(inputs_.floating);
  });
  if (whole) run_whole();
  if (options_.partial) ranks_.together([&] { run_partial(); });
  collect_outputs();
  if (shares_) {
    result_.distance_shares = shares_->shares();
    std::vector<std::int64_t> elements(inputs_.floating.size(), 0);
    for (std::size_t k = 0; k < judged_; ++k)
      elements[place_of(order_[k])] = inputs_.tensors[order_[k]].elements;
    result_.dominant_tensor = dominant_tensor(result_.distance_shares, elements);
  }
  for (const InputRow& row : inputs_.rows) result_.bad.push_back(row.bad);
  result_.bytes_read = course_.bytes_read;
  if (server_) result_.server_step = server_->number();
  collect_results();
  commit(beside);
  return std::move(result_);
}

void FileAggregation::open_outputs(const std::filesystem::path& output) {
  files_.push_back(open_output(output, output_.layout));
  if (server_ && server_->state()) files_.push_back(open_output(options_.server_state, *server_->state()));
}

/// The first rank makes the files, and gives them their names in the end. All know their temporary names
/// before they are there: whoever outlives the others can remove them.
std::unique_ptr<OutputModel> FileAggregation::open_output(const std::filesystem::path& path,
                                                          const ModelLayout& layout) {
  if (!ranks_.many()) return std::make_unique<OutputModel>(path, layout);
  std::unique_ptr<OutputModel> file;
  Packer chosen;
  ranks_.together([&] { chosen.put(OutputModel::make_temporaries(path, layout)); });
  const std::string names = ranks_.of_first(chosen.bytes());
  const auto temporaries = Unpacker(names).take_list<std::string>();
  ranks_.together([&] {
    if (!ranks_.is_first()) file = OutputModel::join(path, layout, temporaries);
  });
  ranks_.together([&] {
    if (ranks_.is_first()) file = std::make_unique<OutputModel>(path, layout, temporaries);
  });
  ranks_.together([&] {
    if (!ranks_.is_first()) file->open();
  });
  return file;
}

void FileAggregation::collect_outputs() {
  if (!ranks_.many()) return;
  Packer mine;
  ranks_.together([&] {
    if (ranks_.is_first()) return;
    mine.put(files_.front()->written());
    for (const auto& file : files_) file->leave();
  });
  for (const std::string& theirs : ranks_.gather(mine.bytes())) {
    if (!ranks_.is_first() || theirs.empty()) continue;
    for (const OutputModel::Written& part : Unpacker(theirs).take_list<OutputModel::Written>())
      files_.front()->add_written(part);
  }
}

void FileAggregation::commit(const WriteBeside& beside) {
  ranks_.together([&] {
    if (server_) server_->finish();  // before the first rank writes another state in its place
  });
  ranks_.together([&] {
    if (!ranks_.is_first()) return;
    const FilesBeside others = beside ? beside(result_) : FilesBeside{};
    std::vector<OutputFile*> files;
    for (const auto& model : files_) {
      const std::vector<OutputFile*> finished = model->finish();
      files.insert(files.end(), finished.begin(), finished.end());
      if (model == files_.front() && others.report) files.push_back(others.report.get());
    }
    if (others.reputation) files.push_back(others.reputation.get());
    commit_together(files);
    for (const auto& model : files_) model->keep();
  });
}

/// What ranks have found each for itself: counts, and the reports of tensors that are one rank's.
void FileAggregation::collect_results() {
  if (!ranks_.many()) return;
  Packer mine;
  mine.put(result_.nonfinite);
  mine.put(result_.bytes_read);
  if (result_.per_tensor) {
    for (const std::size_t t : inputs_.floating) {
      if (!own_[t]) continue;
      const Report& report = result_.reports[place_of(t)];
      mine.put(place_of(t));
      mine.put(report.status);
      mine.put(report.rows);
      mine.put(report.iterations);
      mine.put(report.converged);
      mine.put(report.optimality_gap);
      mine.put(report.recentred);
      mine.put(report.distance_error);
    }
  }
  result_.nonfinite = 0;
  result_.bytes_read = 0;
  for (const std::string& theirs : ranks_.gather(mine.bytes())) {
    Unpacker from(theirs);
    result_.nonfinite += from.take<std::int64_t>();
    result_.bytes_read += from.take<std::uint64_t>();
    while (!from.empty()) {
      Report& report = result_.reports[from.take<std::size_t>()];
      report.status = from.take<Status>();
      report.rows = from.take_list<RowReport>();
      report.iterations = from.take<int>();
      report.converged = from.take<bool>();
      report.optimality_gap = from.take<double>();
      report.recentred = from.take<bool>();
      report.distance_error = from.take<double>();
    }
  }
}

void FileAggregation::order_tensors() {
  const std::vector<bool> judged = judged_tensors(options_, inputs_.tensors, inputs_.floating);
  const auto is_judged = [&](std::size_t k) { return judged.empty() || !engine_.judges_rows() || judged[k]; };
  for (const bool wanted : {true, false}) {
    for (std::size_t k = 0; k < inputs_.floating.size(); ++k) {
      if (is_judged(k) == wanted) order_.push_back(inputs_.floating[k]);
    }
    if (wanted) judged_ = order_.size();
  }
  first_.assign(inputs_.tensors.size(), 0);
  std::int64_t coordinates = 0;
  for (std::size_t k = 0; k < judged_; ++k) {
    first_[order_[k]] = coordinates;
    coordinates += inputs_.tensors[order_[k]].elements;
  }
  if (engine_.takes_distances() && options_.options.scope == Scope::whole &&
      options_.options.device != Device::cuda)
    shares_.emplace(inputs_.floating.size());
}

/// A whole row is cut where sums are. Tensors that are judged each for itself are each one rank's, so that
/// ranks have about as many bytes.
void FileAggregation::deal_out() {
  const std::vector<TensorInfo>& tensors = inputs_.tensors;
  const auto rank = static_cast<std::size_t>(ranks_.rank());
  own_.resize(tensors.size());
  const auto cut = [&](std::span<const std::size_t> list) {
    std::vector<std::int64_t> sizes;
    for (const std::size_t t : list) sizes.push_back(tensors[t].elements);
    Sharding sharding = Sharding::even(sizes, ranks_.size());
    for (std::size_t k = 0; k < list.size(); ++k) {
      const Slice slice = sharding.slices(ranks_.rank())[k];
      const bool is_own = slice.size() > 0 || (sizes[k] == 0 && ranks_.is_first());
      if (is_own) own_[list[k]] = slice;
    }
    return sharding;
  };
  cut(inputs_.integers);
  cut(inputs_.copied);
  if (options_.options.scope == Scope::whole) {
    sharding_ = cut(order_);
    return;
  }
  std::vector<std::size_t> largest_first = order_;
  std::stable_sort(largest_first.begin(), largest_first.end(),
                   [&](std::size_t a, std::size_t b) { return tensors[a].bytes > tensors[b].bytes; });
  std::vector<std::int64_t> dealt(static_cast<std::size_t>(ranks_.size()), 0);
  for (const std::size_t t : largest_first) {
    const auto least = static_cast<std::size_t>(std::min_element(dealt.begin(), dealt.end()) - dealt.begin());
    dealt[least] += tensors[t].bytes + 1;
    if (least == rank) own_[t] = Slice{0, tensors[t].elements};
  }
}

std::uint64_t FileAggregation::own_bytes(std::size_t tensor) const {
  return static_cast<std::uint64_t>(own_elements(tensor) * element_type_of(inputs_.tensors[tensor]).bytes);
}

std::int64_t FileAggregation::record_bytes() const {
  if (!ranks_.many() || !sharding_ || !engine_.needs_statistics()) return 0;
  const std::vector<std::int64_t> sizes = judged_sizes();
  const std::int64_t leaf = leaf_blocks_of(sizes) * gram_block;
  std::int64_t leaves = 0;
  for (std::size_t k = 0; k < judged_; ++k) leaves += (own_elements(order_[k]) + leaf - 1) / leaf;
  const std::int64_t rows = engine_.table_rows();
  constexpr std::int64_t copies = 3;  // as they are made, sent and received
  return copies * leaves * rows * (rows + 1) / 2 * 2 * static_cast<std::int64_t>(sizeof(double));
}

std::int64_t FileAggregation::sample_bytes() const {
  std::int64_t most = 0;  // coordinates of a part
  for (const std::int64_t size : judged_sizes())
    most = options_.options.scope == Scope::whole ? most + size : std::max(most, size);
  const int copies = ranks_.many() ? 5 : 1;  // as they are taken, added up, sent and received
  return engine_.sample_bytes(most, copies);
}

std::vector<std::int64_t> FileAggregation::judged_sizes() const {
  std::vector<std::int64_t> sizes;
  for (std::size_t k = 0; k < judged_; ++k) sizes.push_back(inputs_.tensors[order_[k]].elements);
  return sizes;
}

void FileAggregation::choose_first_pass() {
  if (!engine_.needs_statistics()) return;
  if (options_.options.scope != Scope::whole) {
    first_pass_ = inputs_.floating;
    return;
  }
  for (const Window& window : memory_.cut(order_, own_, judged_)) {
    for (const Piece& piece : window.some({0, window.judged_pieces > 0 ? window.pieces.size() : 0})) {
      if (piece.begin == own_[piece.tensor]->begin) first_pass_.push_back(piece.tensor);
    }
  }
}

void FileAggregation::tell_time() const {
  if (!options_.solve_time || options_.options.device == Device::cuda) return;
  const bool whole = options_.options.scope == Scope::whole;
  const double parts = whole ? 1 : static_cast<double>(inputs_.floating.size());
  options_.solve_time(engine_.solve_seconds() * parts);
}

void FileAggregation::expect_bytes() {
  const int passes = engine_.needs_statistics() ? 2 : 1;
  progress_.set_passes(options_.options.scope == Scope::whole ? passes : 1);
  const auto expect = [&](std::span<const std::size_t> tensors, std::size_t times) {
    for (const std::size_t t : tensors) progress_.expect(own_bytes(t) * times);
  };
  expect(inputs_.copied, 1);
  if (!options_.partial) {
    expect(first_pass_, all_rows_.size());
    expect(inputs_.floating, all_rows_.size());
    expect(inputs_.integers, integer_rows_.size());
  }
  const ActiveRows all = active_;
  for (const HeldTogether& held : held_) {
    active_ = active_rows_of(held, options_);
    list_rows();
    expect(held.floating, all_rows_.size() * (engine_.needs_statistics() ? 2 : 1));
    expect(held.integers, integer_rows_.size());
  }
  active_ = all;
  list_rows();
  progress_.advance(0);
}

void FileAggregation::run_partial() {
  for (const HeldTogether& held : held_) {
    active_ = active_rows_of(held, options_);
    list_rows();
    begin_rows(held.fault.empty());
    run_integers(held.integers);
    if (held.fault.empty()) {
      run_per_tensor(held.floating);
    } else {  // they are empty: there was nothing to solve
      for (const std::size_t t : held.floating) result_.reports[place_of(t)].rows.resize(held.there.size());
    }
  }
}

void FileAggregation::run_integers(std::span<const std::size_t> tensors) {
  if (tensors.empty()) return;
  std::vector<const void*> rows;
  for (const Window& window : memory_.cut(tensors, own_)) {
    if (integer_rows_.empty())
      throw Error(Status::invalid_argument, "weights: none is valid; integer tensors need at least 1");
    load(window, 0, integer_rows_, window.judged);
    check_bad({}, nullptr);
    if (integer_rows_.empty()) throw InputLost{};  // of the first one: another is first now
    rows.clear();
    for (const int row : integer_rows_) rows.push_back(reader_->row(0, static_cast<std::size_t>(row)));
    lower_median(*window.type, rows, window.elements, passes_->output(0), threads_);
    write(window, 0, {0, window.pieces.size()});
  }
}

void FileAggregation::run_copies() {
  const int base = static_cast<int>(active_.rows.size());
  for (const Window& window : memory_.cut(inputs_.copied, own_)) {
    load(window, 0, {&base, 1}, window.combined);
    const bool floating = window.type->kind == ElementKind::floating;
    const std::int64_t size =
        floating ? static_cast<std::int64_t>(size_of(window.combined)) : window.type->bytes;
    const std::byte* const from = reader_->row(0, static_cast<std::size_t>(base));
    std::memcpy(passes_->output(0), from, static_cast<std::size_t>(window.elements * size));
    if (floating) check_copied(window, from);
    write(window, 0, {0, window.pieces.size()});
  }
}

void FileAggregation::check_copied(const Window& window, const std::byte* from) {
  for (const Piece& piece : window.pieces) {
    const std::int64_t nonfinite = count_nonfinite(window.combined, from, piece.size());
    if (nonfinite > 0 && !options_.allow_nonfinite) {
      throw Error(
          Status::nonfinite_base,
          fmt::format("tensor {} of {}, which is copied, holds NaN or infinity; take another base, or "
                      "ask for such an output (allow_nonfinite)",
                      show(inputs_.tensors[piece.tensor].name), inputs_.base->path.string()));
    }
    result_.nonfinite += nonfinite;
    from += piece.size() * static_cast<std::int64_t>(size_of(window.combined));
  }
}

void FileAggregation::run_whole() {
  const auto windows = memory_.cut(order_, own_, judged_);
  const bool fits = windows.size() == 1 ? windows.front().judged == windows.front().combined
                                        : windows.empty() && ranks_.many();
  Part part{.windows = windows, .loaded = ranks_.all(fits)};
  if (part.loaded && !windows.empty()) part.pieces.count = windows.front().pieces.size();
  among_ranks(part, [&] {
    if (part.loaded && !windows.empty()) load_once(windows.front());
  });
  run_part(part);
}

/// Tensors that fit into a window are solved and applied while they are there. What earlier tensors wrote is
/// gone with the temporary file should a later one fail.
void FileAggregation::run_per_tensor(std::span<const std::size_t> tensors) {
  const auto windows = memory_.cut(tensors, own_);
  for (std::size_t w = 0; w < windows.size();) {
    const std::size_t t = windows[w].pieces.front().tensor;
    std::size_t end = w + 1;
    while (end < windows.size() && windows[end].pieces.front().tensor == t) ++end;
    Part part{.windows = {windows.data() + w, end - w}, .loaded = end == w + 1};
    const Window& window = windows[w];
    if (part.loaded) load_once(window);
    for (std::size_t k = 0; k < window.pieces.size(); ++k) {
      part.pieces = {k, 1};
      part.tensor = &inputs_.tensors[window.pieces[k].tensor];
      run_part(part);
    }
    w = end;
  }
}

void FileAggregation::check_solved(const Solution& solution, const TensorInfo* tensor) const {
  if (solution.status != Status::ok) throw_failure(solution, inputs_, engine_.pipeline(), tensor);
  if (is_none_finite(solution, active_, bad_rows())) {
    Solution failed = solution;
    failed.status = Status::too_many_nonfinite;
    throw_failure(failed, inputs_, engine_.pipeline(), tensor);
  }
  check_bad(solution, tensor);
}

/// Tensors that rows are not judged by are read once: pass 2 looks for values there that are not finite, in
/// all rows. Should there be any, which make their rows infinite, both passes are run once more.
void FileAggregation::run_part(const Part& part) {
  nonfinite_.assign(static_cast<std::size_t>(engine_.table_rows()), 0);
  const std::span<const Window> judged = part.judged_alone();
  const std::span<const Window> others = part.windows.subspan(judged.size());
  const bool judges_all = part.tensor != nullptr || judged_ == order_.size();
  const bool scanning = !part.loaded && !judges_all;
  if (part.loaded && !judges_all) {
    if (!others.empty()) {
      scan(part, others.front(), 0);
      passes_->scanned(nonfinite_);
    }
    add_up(part, nonfinite_);
  }
  Solution solution;
  solve(part, solution);
  among_ranks(part, [&] {
    if (solution.status == Status::ok) check_bad(solution, part.tensor);
  });
  progress_.enter_last_pass();
  if (scanning) {
    const std::int64_t written_nonfinite = result_.nonfinite;
    apply(part, others, solution, true);
    add_up(part, nonfinite_);
    if (found_nonfinite(solution)) {
      result_.nonfinite = written_nonfinite;
      progress_.expect((part.bytes(part.judged_windows()) + part.bytes(others)) * all_rows_.size());
      solution = {};
      solve(part, solution);
      among_ranks(part, [&] { check_solved(solution, part.tensor); });
      apply(part, others, solution, false);
    } else {
      for (std::size_t row = 0; row < active_.rows.size(); ++row)
        solution.report.rows[static_cast<std::size_t>(active_.rows[row])].nonfinite += nonfinite_[row];
    }
  }
  among_ranks(part, [&] { check_solved(solution, part.tensor); });
  apply(part, judged, solution, false);
  if (part.loaded) apply(part, others, solution, false);
  if (!solution.counted) {  // pass 2 has
    std::vector<std::int64_t> counts;
    for (const RowReport& row : solution.report.rows) counts.push_back(row.nonfinite);
    add_up(part, counts);
    for (std::size_t i = 0; i < counts.size(); ++i) solution.report.rows[i].nonfinite = counts[i];
  }
  // What is not finite of rows that vote only pass 2 has counted.
  const bool votes = solution.coordinate_wise && solution.rule.kind == SelectRule::Kind::sign_vote;
  among_ranks(part, [&] { votes ? check_solved(solution, part.tensor) : check_bad(solution, part.tensor); });
  for (std::size_t i = 0; i < solution.report.rows.size(); ++i) {
    if (inputs_.rows[i].bad.empty()) continue;
    RowReport& row = solution.report.rows[i];
    row.weight = 0;  // a rule by coordinate says what it was given
    row.selected = false;
  }
  const TensorInfo* const tensor = part.tensor;
  const std::size_t place =
      tensor == nullptr ? 0 : place_of(static_cast<std::size_t>(tensor - inputs_.tensors.data()));
  result_.reports[place] = std::move(solution.report);
}

void FileAggregation::scan(const Part& part, const Window& window, int slot) {
  passes_->scan(slot, reader_->table(window, slot, part.unjudged(window), window.combined));
}

bool FileAggregation::found_nonfinite(const Solution& solution) const {
  for (std::size_t row = 0; row < nonfinite_.size(); ++row) {
    if (nonfinite_[row] == 0) continue;
    if (row >= active_.rows.size()) return true;  // the base
    const RowReport& report = solution.report.rows[static_cast<std::size_t>(active_.rows[row])];
    if (report.nonfinite == 0) return true;
  }
  return false;
}

void FileAggregation::solve(const Part& part, Solution& solution) {
  GramSums sums;
  const std::vector<std::int64_t> sizes =
      part.tensor == nullptr ? judged_sizes() : std::vector<std::int64_t>{part.tensor->elements};
  sums.leaf_blocks = leaf_blocks_of(sizes);
  sums.coordinates = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  bool again = false;
  sum_over(engine_, sums, [&](GramSums& to) {
    if (again) progress_.expect(part.bytes(part.judged_windows()) * all_rows_.size());
    again = true;
    is_shared(part) ? accumulate_together(part, to) : accumulate(part, to);
    for (std::size_t row = 0; row < nonfinite_.size(); ++row) to.nonfinite[row] += nonfinite_[row];
  });
  if (is_shared(part) && shares_) share_together(sums);
  among_ranks(part, [&] { engine_.solve(sums, solution); });
  if (is_shared(part)) {
    constexpr const char* what =
        "the same sums and computed different coefficients from them: their libraries differ, or one's "
        "hardware fails";
    ranks_.agree(std::array{Ranks::Topic{what, digest_of(solution)}});
  }
}

void FileAggregation::accumulate_together(const Part& part, GramSums& totals) {
  GramSums mine;
  mine.leaf_blocks = totals.leaf_blocks;
  mine.records = &records_;
  ranks_.together([&] {
    records_.entries = totals.wanted
                           ? gram_entries(totals.rows, static_cast<int>(active_.rows.size()), totals.pairs)
                           : std::vector<std::size_t>{};
    mine.reset_for(totals);
    accumulate(part, mine);
  });
  std::vector<std::size_t> judged(judged_);  // in order_
  std::iota(judged.begin(), judged.end(), std::size_t{0});
  detail::add_up(ranks_.communicator(), Leaves(*sharding_, judged, totals.leaf_blocks * gram_block), mine,
                 totals);
  if (totals.round == 0 && totals.samples.count() > 0) sample_together(mine.samples, totals.samples);
}

/// Every rank has all that others took.
void FileAggregation::sample_together(RowSamples& mine, RowSamples& totals) {
  const auto for_own = [&](int rank, RowSamples& samples, auto use) {
    for (std::size_t k = 0; k < judged_; ++k) {
      const Slice own = sharding_->slices(rank)[k];
      samples.for_stretches(first_[order_[k]] + own.begin, first_[order_[k]] + own.end, use);
    }
  };
  Packer packed;
  ranks_.together([&] {
    for_own(ranks_.rank(), mine, [&](const double* values, std::size_t count) {
      for (std::size_t k = 0; k < count; ++k) packed.put(values[k]);
    });
  });
  const std::vector<std::string> all = ranks_.gather(packed.bytes());
  ranks_.together([&] {
    for (int rank = 0; rank < ranks_.size(); ++rank) {
      Unpacker from(all[static_cast<std::size_t>(rank)]);
      for_own(rank, totals, [&](double* values, std::size_t count) {
        for (std::size_t k = 0; k < count; ++k) values[k] = from.take<double>();
      });
    }
  });
}

/// Each rank finds the typical distance of the tensors that it has whole. Of those that are cut all add up
/// what they have of them, and find it alike.
void FileAggregation::share_together(const GramSums& totals) {
  const std::size_t entries = records_.entries.size();
  const std::size_t leaf_doubles = entries * (totals.leaf_blocks > 1 ? 2 : 1);
  const std::int64_t leaf = totals.leaf_blocks * gram_block;
  GramSums all;
  const auto end = [&](std::size_t tensor, const std::vector<double>& products) {
    for (std::size_t e = 0; e < entries; ++e) all.products[records_.entries[e]] += products[e];
    shares_->end(all, place_of(tensor));
  };
  Packer cut;
  ranks_.together([&] {
    all.reset_for(totals);
    shares_->start(all, static_cast<int>(active_.rows.size()));
    const double* next = records_.values.data();
    for (std::size_t k = 0; k < judged_; ++k) {
      const std::size_t t = order_[k];
      if (own_elements(t) == 0) continue;
      std::vector<double> products(entries, 0.0);
      for (std::int64_t left = own_elements(t); left > 0; left -= leaf, next += leaf_doubles) {
        for (std::size_t e = 0; e < leaf_doubles; ++e) products[e % entries] += next[e];
      }
      if (own_elements(t) == inputs_.tensors[t].elements) {
        end(t, products);
      } else {
        cut.put(t);
        cut.put(products);
      }
    }
  });
  const std::vector<std::string> parts = ranks_.gather(cut.bytes());
  Packer found;
  ranks_.together([&] {
    std::map<std::size_t, std::vector<double>> tensors;
    for (const std::string& theirs : parts) {
      for (Unpacker from(theirs); !from.empty();) {
        std::vector<double>& sums = tensors[from.take<std::size_t>()];
        sums.resize(entries);
        const auto products = from.take_list<double>();
        for (std::size_t e = 0; e < entries; ++e) sums[e] += products.at(e);
      }
    }
    for (const auto& [tensor, products] : tensors) end(tensor, products);
    for (const double each : shares_->typical()) found.put(each);
  });
  for (const std::string& theirs : ranks_.gather(found.bytes())) {
    Unpacker from(theirs);
    for (double& each : shares_->typical()) each = std::max(each, from.take<double>());
  }
}

void FileAggregation::accumulate(const Part& part, GramSums& sums) {
  const std::span<const Window> windows = part.judged_windows();
  const bool ends_here = shares_ && sums.records == nullptr;
  if (ends_here) shares_->start(sums, static_cast<int>(active_.rows.size()));
  for (std::size_t w = 0; w < windows.size(); ++w) {
    const Window& window = windows[w];
    const Range pieces = part.judged(window);
    const int slot = slot_of(w);
    if (!part.loaded) load(window, slot, all_rows_, window.judged);
    if (ends_here) {
      sums.ended = [&](std::size_t k) {
        const Piece& piece = window.pieces[pieces.first + k];
        if (piece.end != own_[piece.tensor]->end) return;
        shares_->end(sums, place_of(piece.tensor));
      };
    }
    RowTable table = reader_->table(window, slot, pieces, window.judged);
    if (pieces.count > 0) {
      const Piece& last = window.pieces[pieces.first + pieces.count - 1];
      table.unfinished = last.end != own_[last.tensor]->end;
    }
    std::vector<std::int64_t> first;
    for (const Piece& piece : window.some(pieces))
      first.push_back((part.tensor == nullptr ? first_[piece.tensor] : 0) + piece.begin);
    engine_.sample(table, first, sums);
    passes_->accumulate(slot, table, sums);
  }
  sums.ended = nullptr;
  passes_->collect(sums);
}

void FileAggregation::apply(const Part& part, std::span<const Window> some, Solution& solution,
                            bool scanning) {
  among_ranks(part, [&] {
    if (!some.empty()) apply_own(part, some, solution, scanning);
  });
}

void FileAggregation::apply_own(const Part& part, std::span<const Window> some, Solution& solution,
                                bool scanning) {
  const bool solved = solution.status == Status::ok;  // else there is nothing to do but to scan
  bool found = false;
  std::vector<int> rows;
  std::copy_if(all_rows_.begin(), all_rows_.end(), std::back_inserter(rows),
               [&](int row) { return scanning || Engine::reads_row(solution, row) || is_stepped_from(row); });
  progress_.skip((all_rows_.size() - rows.size()) * part.bytes(some));
  // A window is written when its slot is needed again: others are computed meanwhile.
  const auto write_window = [&](std::size_t w) {
    passes_->wait(slot_of(w));
    if (!solved || found) return;
    check_finite(some[w], slot_of(w), part.pieces_of(some[w]), solution);
    if (server_) {
      take_step(some[w], slot_of(w), part.pieces_of(some[w]));
    } else {
      write(some[w], slot_of(w), part.pieces_of(some[w]));
    }
  };
  const std::size_t windows = some.size();
  const auto slots = static_cast<std::size_t>(passes_->slots());
  if (solved) passes_->start(solution);
  for (std::size_t w = 0; w < windows; ++w) {
    const Window& window = some[w];
    const int slot = slot_of(w);
    const Range pieces = part.pieces_of(window);
    if (w >= slots) write_window(w - slots);
    if (!part.loaded) load(window, slot, rows, window.combined);
    if (scanning) {
      scan(part, window, slot);
      passes_->scanned(nonfinite_);
      found = found_nonfinite(solution);
    }
    if (!solved || found) continue;
    passes_->apply(slot, reader_->table(window, slot, pieces, window.combined), target(window, slot, pieces),
                   solution);
  }
  for (std::size_t w = windows - std::min(slots, windows); w < windows; ++w) write_window(w);
  if (solved) passes_->finish(solution);
}

bool FileAggregation::is_bad(int row) const {
  const auto i = static_cast<std::size_t>(row);
  return i < active_.rows.size() && !inputs_.rows[static_cast<std::size_t>(active_.rows[i])].bad.empty();
}

std::vector<std::uint8_t> FileAggregation::bad_rows() const {
  std::vector<std::uint8_t> bad;
  for (std::size_t i = 0; i < active_.rows.size(); ++i) bad.push_back(is_bad(static_cast<int>(i)));
  return bad;
}

void FileAggregation::check_bad(const Solution& solution, const TensorInfo* tensor) const {
  check_pivot(inputs_, engine_.pipeline());
  if (!bad_decide(solution, bad_rows())) return;
  Solution failed;
  failed.status = Status::too_many_nonfinite;
  throw_failure(failed, inputs_, engine_.pipeline(), tensor);
}

std::uint64_t FileAggregation::read(const Window& window, int slot, std::span<const int> rows, DType dtype) {
  std::vector<int> good;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(good), [&](int row) { return !is_bad(row); });
  const WindowReader::Failures failures = reader_->load(window, slot, good, dtype);
  InputLost lost;
  bool used = ranks_.many();  // by another rank, perhaps
  for (const auto& [row, error] : failures) {
    const auto i = static_cast<std::size_t>(row);
    if (i == active_.rows.size() || !is_bad_input(error)) throw error;
    const std::size_t model = inputs_.rows[static_cast<std::size_t>(active_.rows[i])].model;
    const std::filesystem::path& path = inputs_.models[model].path;
    const bool alone = inputs_.models.size() == 1 || options_.bad_inputs == BadInputs::error;
    lost.inputs.push_back({model, reason_of(error, path)});
    if (alone && options_.found_bad) options_.found_bad(model, path.string(), lost.inputs.back().reason);
    if (alone) throw error;
    used = used || used_[i] != 0;
  }
  if (!failures.empty() && used) throw lost;
  mark_lost(inputs_, lost, options_);
  for (const auto& [row, error] : failures) drop(row);
  for (const int row : good) used_[static_cast<std::size_t>(row)] = 1;
  return window.bytes() * (good.size() - failures.size());
}

void FileAggregation::drop(int row) {
  reader_->make_infinite(row);
  const auto skip = [&](std::span<const std::size_t> tensors) {
    for (const std::size_t t : tensors) progress_.skip(own_bytes(t));
  };
  if (std::erase(all_rows_, row) > 0) {
    skip(first_pass_);
    skip(inputs_.floating);
  }
  if (std::erase(integer_rows_, row) > 0) skip(inputs_.integers);
}

void FileAggregation::count_read(std::uint64_t bytes) {
  course_.bytes_read += bytes;
  progress_.advance(bytes);
}

void FileAggregation::load(const Window& window, int slot, std::span<const int> rows, DType dtype) {
  ranks_.look_up();
  count_read(read(window, slot, rows, dtype));
}

void FileAggregation::load_once(const Window& window) {
  const std::uint64_t bytes = read(window, 0, all_rows_, window.combined);
  if (engine_.needs_statistics()) progress_.skip(all_rows_.size() * window.bytes());
  count_read(bytes);
}

OutTable FileAggregation::target(const Window& window, int slot, Range pieces) {
  const DType dtype = window.made;
  targets_.clear();
  std::byte* to = passes_->output(slot);
  for (const Piece& piece : window.some(pieces)) {
    targets_.push_back(to);
    to += piece.size() * static_cast<std::int64_t>(size_of(dtype));
  }
  return {.dtype = dtype, .data = targets_.data()};
}

void FileAggregation::check_finite(const Window& window, int slot, Range pieces, Solution& solution) {
  const std::byte* from = passes_->output(slot);
  for (const Piece& piece : window.some(pieces)) {
    const std::int64_t nonfinite = count_nonfinite(window.made, from, piece.size());
    if (nonfinite > 0 && !(server_ ? server_->takes_nonfinite() : options_.allow_nonfinite)) {
      passes_->finish(solution);  // whose rows are not finite
      throw_nonfinite_output(solution, inputs_, engine_.pipeline(), inputs_.tensors[piece.tensor],
                             !server_ || !server_->state());
    }
    if (!server_) result_.nonfinite += nonfinite;
    from += piece.size() * static_cast<std::int64_t>(size_of(window.made));
  }
}

/// Of the aggregate in a slot, beside its base.
void FileAggregation::take_step(const Window& window, int slot, Range pieces) {
  const std::byte* base = reader_->row(slot, active_.rows.size());
  for (std::size_t k = 0; k < pieces.first; ++k)
    base += window.pieces[k].size() * static_cast<std::int64_t>(size_of(window.combined));
  std::byte* values = passes_->output(slot);
  for (const Piece& piece : window.some(pieces)) {
    result_.nonfinite +=
        server_->step(window, piece, values, base, files_.size() > 1 ? files_.back().get() : nullptr);
    write_as(*window.out, piece, values);
    values += piece.size() * static_cast<std::int64_t>(size_of(window.made));
    base += piece.size() * static_cast<std::int64_t>(size_of(window.combined));
  }
}

void FileAggregation::write(const Window& window, int slot, Range pieces) {
  const bool floating = window.type->kind == ElementKind::floating;
  const std::int64_t size = window.out->bytes;
  const auto made = floating ? static_cast<std::int64_t>(size_of(window.made)) : size;
  std::byte* from = passes_->output(slot);
  for (const Piece& piece : window.some(pieces)) {
    if (made == 8 && floating) check_narrowed(piece, narrow(from, piece.size(), *window.out));
    write_as(*window.out, piece, from);
    from += piece.size() * made;
  }
}

void FileAggregation::write_as(const ElementType& type, const Piece& piece, const std::byte* from) {
  files_.front()->write(piece.tensor, piece.begin * type.bytes, from, piece.size() * type.bytes);
}

/// A value that is too large for its type must not become infinity or NaN in silence.
void FileAggregation::check_narrowed(const Piece& piece, std::int64_t beyond) const {
  if (beyond == 0) return;
  const TensorInfo& tensor = output_.tensors[piece.tensor];
  throw Error(
      Status::invalid_argument,
      fmt::format("out_dtype = {}: {} of the values of tensor {} are too large for it; take a wider one",
                  tensor.dtype, beyond, show(tensor.name)));
}

/// Of a run that comes to nothing.
void hash_evidence(std::span<const std::filesystem::path> inputs, const FileOptions& options) {
  const int threads = threads_of(options.options.threads);
  start_threads(threads);
  ProgressCounter progress(options);
  std::uint64_t bytes_read = 0;
  hash_unopened(inputs, options, threads, progress, bytes_read);
}

}  // namespace

FileResult aggregate_files(const Pipeline& pipeline, std::span<const std::filesystem::path> inputs,
                           const std::filesystem::path& output, const FileOptions& given,
                           const WriteBeside& beside) {
  const FloatingEnvironment environment;
  FileOptions options = given;
  if (options.partial) options.options.scope = Scope::per_tensor;
  Ranks ranks(options.communicator);
  try {
    Inputs opened = [&] {
      try {
        return open_together(ranks, pipeline, inputs, output, options);
      } catch (const Error& error) {
        if (options.hashed && is_bad_input(error) && ranks.is_first()) hash_evidence(inputs, options);
        throw;
      }
    }();
    Course course{.progress = ProgressCounter(options)};
    for (;;) {  // at most once for each input that is lost
      try {
        std::optional<FileAggregation> aggregation;
        ranks.together([&] { aggregation.emplace(pipeline, opened, output, options, ranks, course); });
        return aggregation->run(output, beside);
      } catch (const InputLost& lost) {
        ranks.together([&] { mark_lost(opened, lost, options); });
        course.progress.restart();
      }
    }
  } catch (const std::bad_alloc&) {
    const std::string what = fmt::format("an allocation failed with memory = {} bytes for {} inputs",
                                         options.memory, inputs.size());
    throw Error(ranks.many() ? Status::communication : Status::out_of_memory, what);
  } catch (const Error& error) {
    if (!ranks.many() || ranks.ended_together()) throw;
    throw Error(Status::communication, error.what());
  }
}

}  // namespace bragg::detail

bragg::FileResult bragg::aggregate_files(const Pipeline& pipeline,
                                         std::span<const std::filesystem::path> inputs,
                                         const std::filesystem::path& output, const FileOptions& options) {
  return detail::aggregate_files(pipeline, inputs, output, options, nullptr);
}
