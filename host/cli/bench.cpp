// SPDX-License-Identifier: Apache-2.0
#include "host/cli/bench.hpp"

#include <fmt/format.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <atomic>

#include "host/base/bytes_text.hpp"
#include "host/bench/bench.hpp"
#include "host/bench/gram_choices.hpp"
#include "host/bench/process.hpp"
#include "host/bench/result.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/output.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/text.hpp"
#include "host/io/file.hpp"
#include "host/io/stream.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

using bench::Findings;
using bench::PeerRow;
using bench::Row;

Device device_for(const std::string& wanted) {
  const bool cuda = wanted == "cuda" || (wanted == "auto" && cuda_device_count() > 0);
  // The library's own words on why there is none.
  if (cuda) Plan(Median{}, {.n = 1, .sizes = {1}}, {.device = Device::cuda});
  return cuda ? Device::cuda : Device::cpu;
}

DType dtype_of(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    if (name == to_string(dtype)) return dtype;
  }
  throw Error(Status::invalid_argument,
              fmt::format("--dtype: unknown dtype '{}'; available: f32, f16, bf16, f64", name));
}

/// The rules and shapes that the command names; by default those of the preset `small`, or `files`. A
/// preset's rules, n, d and dtypes can be replaced one by one.
std::vector<bench::Block> blocks_for(const BenchCommand& command) {
  const std::string preset = !command.preset.empty() ? command.preset
                             : command.files.empty() ? "small"
                                                     : "files";
  const bool own = !command.rules.empty() && !command.n.empty() && !command.sizes.empty();
  std::vector<bench::Block> blocks;
  if (command.preset.empty() && own) {
    blocks.push_back({.rules = {}, .n = {}, .sizes = {}, .dtypes = {DType::f32}});
  } else {
    blocks = bench::preset_of(preset).blocks;
  }
  std::vector<DType> dtypes;
  for (const std::string& name : command.dtypes) dtypes.push_back(dtype_of(name));
  for (bench::Block& block : blocks) {
    if (!command.rules.empty()) block.rules = command.rules;
    if (!command.n.empty()) block.n = command.n;
    if (!command.sizes.empty()) block.sizes = command.sizes;
    if (!dtypes.empty()) block.dtypes = dtypes;
    block.tensors = command.tensors;
  }
  return blocks;
}

std::string time_text(double ms) {
  const auto digits = [](double value) { return value < 9.995 ? 2 : value < 99.95 ? 1 : 0; };
  if (ms < 0.9995) return fmt::format("{:.{}f} µs", 1e3 * ms, digits(1e3 * ms));
  if (ms < 9999.5) return fmt::format("{:.{}f} ms", ms, digits(ms));
  return fmt::format("{:.{}f} s", 1e-3 * ms, digits(1e-3 * ms));
}

std::string size_text(const bench::Size& size) {
  return size.model.empty() ? std::to_string(size.d) : fmt::format("{} {}", size.model, size.d);
}

/// Cells in columns: the first to the left, the others to the right.
std::string columns(const std::vector<std::vector<std::string>>& lines) {
  const auto width_of = [](const std::string& text) {  // characters, not bytes
    return std::count_if(text.begin(), text.end(),
                         [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
  };
  std::vector<std::ptrdiff_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (std::size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], width_of(line[c]));
  }
  std::string text;
  for (const auto& line : lines) {
    std::string out;
    for (std::size_t c = 0; c < line.size(); ++c) {
      const std::string blanks(static_cast<std::size_t>(widths[c] - width_of(line[c])), ' ');
      out += c == 0 ? fmt::format("{}{}", line[c], blanks) : fmt::format("  {}{}", blanks, line[c]);
    }
    text += out.substr(0, out.find_last_not_of(' ') + 1) + '\n';
  }
  return text;
}

std::string head(const Findings& findings) {
  const bench::Floors& floors = findings.floors;
  std::string text = fmt::format("bragg {} ({})\n", BRAGG_VERSION_STRING, bench::build_commit());
  if (findings.device == Device::cuda) {
    text += fmt::format("{}\nmemory: read {:.0f} GB/s, copy {:.0f} GB/s ({})\n", findings.device_name,
                        floors.read / 1e9, floors.copy / 1e9, floors.copy_how);
    text += fmt::format(
        "multiply-add: f32 {:.1f}, f64 {:.1f}, one by one {:.1f} TFLOP/s; from f32 to f64 {:.0f} "
        "Gop/s\n",
        2e-12 * floors.fma_f32, 2e-12 * floors.fma_f64, 2e-12 * floors.fma_f64_single, floors.to_f64 / 1e9);
    text += fmt::format("minima and maxima of 16, 32, 64 bits: {:.0f}, {:.0f}, {:.0f} Gop/s\n",
                        floors.min_max_16.floats / 1e9, floors.min_max_32.floats / 1e9,
                        floors.min_max_64.floats / 1e9);
    return text +
           fmt::format("a launch {:.2f} µs; a graph of one kernel {:.2f} µs, each one more {:.2f} µs\n\n",
                       floors.launch_us, floors.graph_us, floors.node_us);
  }
  text += fmt::format("{}, {} cores, {}; {} thread{}{}\n", findings.hardware.cpu, findings.hardware.cores,
                      findings.hardware.instruction_set, findings.threads, findings.threads == 1 ? "" : "s",
                      findings.bound ? "" : ", not bound to cores");
  text += fmt::format("memory: read {:.1f} GB/s ({}), copy {:.1f} GB/s ({})\n", floors.read / 1e9,
                      floors.read_how, floors.copy / 1e9, floors.copy_how);
  text += fmt::format("multiply-add: f32 {:.0f}, f64 {:.0f} GFLOP/s; from f32 to f64 {:.0f} Gop/s\n",
                      2e-9 * floors.fma_f32, 2e-9 * floors.fma_f64, floors.to_f64 / 1e9);
  return text + fmt::format(
                    "minima and maxima: f32 {:.0f}, f64 {:.0f} Gop/s; integers of 16, 32, 64 bits {:.0f}, "
                    "{:.0f}, {:.0f}\n\n",
                    floors.min_max_32.floats / 1e9, floors.min_max_64.floats / 1e9,
                    floors.min_max_16.integers / 1e9, floors.min_max_32.integers / 1e9,
                    floors.min_max_64.integers / 1e9);
}

/// Which case was left out, and why.
std::string left_out(const bench::Skipped& skipped) {
  return fmt::format("{}, n = {}, d = {}, {}: {}", to_string(skipped.asked.pipeline), skipped.asked.n,
                     skipped.asked.size.d, to_string(skipped.asked.dtype), skipped.why);
}

std::string rows_table(const Findings& findings) {
  std::vector<std::vector<std::string>> lines = {{"rule", "n", "d", "dtype", "from", "time", "spread", "GB/s",
                                                  "floor", "share", "bound", "solve", "extra memory"}};
  for (const Row& row : findings.rows) {
    const bench::Spread& ms = row.timing.ms;
    lines.push_back({to_string(row.asked.pipeline), std::to_string(row.asked.n), size_text(row.asked.size),
                     to_string(row.asked.dtype), to_string(row.asked.source), time_text(ms.median),
                     fmt::format("{:.1f} %", 100 * ms.noise()),
                     fmt::format("{:.1f}", row.bytes() / ms.median / 1e6), time_text(row.floor_ms()),
                     fmt::format("{:.0f} %", 100 * row.share()),
                     fmt::format("{}{}", row.bound(), row.in_cache ? ", in cache" : ""),
                     row.solve_ms ? time_text(*row.solve_ms) : "-",
                     row.extra_memory ? detail::bytes_text(*row.extra_memory) : "-"});
  }
  std::string text = columns(lines);
  for (const Row& row : findings.rows) {
    if (!row.note.empty()) {
      text += fmt::format("{}, n = {}: {}\n", to_string(row.asked.pipeline), row.asked.n, row.note);
    }
  }
  for (const bench::Skipped& skipped : findings.skipped)
    text += fmt::format("left out: {}\n", left_out(skipped));
  return text;
}

/// Runs by each choice of who computes products, and the Gram pass by itself.
std::string products_table(const Findings& findings) {
  std::vector<std::vector<std::string>> lines = {
      {"rule", "n", "d", "dtype", "products by", "time", "gram alone", "difference / bound"}};
  for (const Row& row : findings.rows) {
    if (!row.gram_difference) continue;
    const auto gram = std::find_if(row.passes.begin(), row.passes.end(),
                                   [](const bench::PassRow& pass) { return pass.work.name == "gram"; });
    lines.push_back({to_string(row.asked.pipeline), std::to_string(row.asked.n), size_text(row.asked.size),
                     to_string(row.asked.dtype), row.asked.gram, time_text(row.timing.ms.median),
                     gram != row.passes.end() && gram->ms ? time_text(*gram->ms) : "-",
                     fmt::format("{:.1e}{}", *row.gram_difference, row.products_agree() ? "" : " DIFFERS")});
  }
  return lines.size() > 1 ? '\n' + columns(lines) : "";
}

std::string peer_name(const PeerRow& peer) {
  return peer.version.empty() ? peer.peer : fmt::format("{} {}", peer.peer, peer.version);
}

/// Notes on peers, each with the rules that it concerns.
class Notes {
 public:
  void add(const PeerRow& peer, const std::string& words, const std::string& rule) {
    const std::string text = fmt::format("{}: {}", peer_name(peer), words);
    auto found =
        std::find_if(notes_.begin(), notes_.end(), [&](const Note& note) { return note.text == text; });
    if (found == notes_.end()) found = notes_.insert(notes_.end(), {text, {}});
    std::vector<std::string>& rules = found->rules;
    if (std::find(rules.begin(), rules.end(), rule) == rules.end()) rules.push_back(rule);
  }

  std::string text() const {
    std::string text;
    for (const Note& note : notes_) {
      text += fmt::format("{} ({})\n", printable(note.text), fmt::join(note.rules, "; "));
    }
    return text;
  }

 private:
  struct Note {
    std::string text;
    std::vector<std::string> rules;
  };
  std::vector<Note> notes_;
};

std::string peers_table(const Findings& findings) {
  std::vector<std::vector<std::string>> lines = {
      {"rule", "n", "d", "peer", "time", "bragg", "times", "extra memory", "difference"}};
  Notes notes;
  for (const Row& row : findings.rows) {
    const std::string rule = to_string(row.asked.pipeline);
    for (const PeerRow& peer : row.peers) {
      if (!peer.failure.empty()) notes.add(peer, fmt::format("FAILED: {}", peer.failure), rule);
      if (!peer.unsupported.empty()) notes.add(peer, peer.unsupported, rule);
      if (!peer.difference) continue;
      lines.push_back({rule, std::to_string(row.asked.n), size_text(row.asked.size),
                       printable(peer_name(peer)), time_text(peer.ms.median), time_text(row.timing.ms.median),
                       peer.ratio ? fmt::format("{:.1f}×", *peer.ratio) : "-",
                       peer.extra_memory ? detail::bytes_text(*peer.extra_memory) : "-",
                       fmt::format("{:.1e}{}", *peer.difference, peer.agrees() ? "" : " DIFFERS")});
      if (!peer.equivalent_rule.empty()) {
        notes.add(peer, fmt::format("computes {}", peer.equivalent_rule), rule);
      }
    }
  }
  const std::string said = notes.text();
  if (lines.size() == 1 && said.empty()) return "";
  return fmt::format("\n{}{}", lines.size() > 1 ? columns(lines) : "", said);
}

}  // namespace

std::string preset_lines() {
  std::string text;
  for (const bench::Preset& preset : bench::presets()) {
    std::string lines = wrapped(preset.what, 12, 78);
    lines.replace(0, 12, fmt::format("  {:<10}", preset.name));
    text += lines;
  }
  return text;
}

void run(const BenchCommand& command) {
  // Row by row, so that a run that is stopped leaves what it has measured. A stream takes a result once.
  const auto is_file = [](const std::optional<fs::path>& path) { return path && !detail::is_stream(*path); };
  const std::optional<fs::path> row_file = is_file(command.json)  ? command.json
                                           : is_file(command.csv) ? command.csv
                                                                  : std::nullopt;
  std::atomic<bool> has_rows = false;
  const EndOnSignal guard([&](int) {
    bench::leave_nothing();
    if (!has_rows) return std::string("nothing was written");
    return fmt::format("the rows that were measured are in {}", row_file->string());
  });
  if (command.json) check_writable("--json", *command.json);
  if (command.csv) check_writable("--csv", *command.csv);
  if (command.json && command.csv && detail::same_place(*command.json, *command.csv)) {
    throw Error(Status::invalid_argument, "--json and --csv are the same file");
  }
  bench::Settings settings{.cases = bench::cases_of(blocks_for(command)),
                           .device = device_for(command.device),
                           .threads = command.threads,
                           .budget = {.seconds = command.seconds},
                           .floor_seconds = std::min(1.0, 2 * command.seconds)};
  if (command.gram != "auto") {
    if (settings.device != Device::cuda || !command.files.empty()) {
      throw Error(Status::invalid_argument,
                  "--gram is about updates on a CUDA device: add --device cuda, leave out --files");
    }
    settings.cases =
        bench::by_choice(settings.cases, command.gram == "all" ? bench::gram_choices()
                                                               : std::vector<std::string>{command.gram});
  }
  if (!command.peers.empty()) {
    if (settings.device == Device::cuda) {
      throw Error(Status::invalid_argument, "--against compares on the CPU: add --device cpu");
    }
    if (std::none_of(settings.cases.begin(), settings.cases.end(),
                     [](const bench::Case& one) { return one.dtype == DType::f32; })) {
      throw Error(Status::invalid_argument, "--against compares f32 updates: add f32 to --dtype");
    }
    settings.peers = {.names = command.peers,
                      .folder = bench::peers_folder(command.peers_folder),
                      .python = command.python,
                      .seconds = command.seconds};
  }
  if (!command.files.empty()) {
    if (!command.peers.empty()) {
      throw Error(Status::invalid_argument, "--against compares updates in memory: leave out --files");
    }
    if (!std::filesystem::is_directory(command.files)) {
      throw Error(Status::invalid_argument, fmt::format("--files: {} is no folder", command.files.string()));
    }
    settings.files = command.files;
  }
  const auto write = [&](const Findings& findings, bool into_streams) {
    const auto takes = [&](const std::optional<fs::path>& path) {
      return path && detail::is_stream(*path) == into_streams;
    };
    if (takes(command.json))
      write_whole("--json", *command.json, result_json(findings, command.command_line));
    if (takes(command.csv)) write_whole("--csv", *command.csv, result_csv(findings));
    has_rows = has_rows || row_file;
  };
  settings.found = [&](const Findings& findings) {
    if (!findings.rows.empty()) write(findings, false);
  };
  const Findings findings = [&] {
    ProgressBar bar(true);
    settings.progress = [&](const bench::Stage& stage) { bar.show(stage.share, stage.text); };
    return bench::run(settings);
  }();
  if (findings.rows.empty()) {
    const bench::Skipped& first = findings.skipped.front();
    throw Error(settings.files.empty() ? Status::out_of_memory : Status::io_error,
                fmt::format("nothing was measured: {}", left_out(first)));
  }
  write(findings, false);
  write(findings, true);
  fmt::print("{}{}{}{}", head(findings), rows_table(findings), products_table(findings),
             peers_table(findings));
  for (const Row& row : findings.rows) {
    if (row.products_agree()) continue;
    throw Error(Status::internal,
                fmt::format("products by {} differ from those by another choice: {}, n = {}", row.asked.gram,
                            to_string(row.asked.pipeline), row.asked.n));
  }
}

}  // namespace bragg::cli
