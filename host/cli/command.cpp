// SPDX-License-Identifier: Apache-2.0
// The command line. Exit codes are part of the interface: see `exit_codes`.
#include "host/cli/command.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <bragg/communicator.hpp>
#include <bragg/error.hpp>
#include <bragg/version.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <system_error>

#include "host/bench/cases.hpp"
#include "host/bench/gram_choices.hpp"
#include "host/bench/threads.hpp"
#include "host/cli/aggregate.hpp"
#include "host/cli/attack.hpp"
#include "host/cli/audit.hpp"
#include "host/cli/bench.hpp"
#include "host/cli/completion.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/inspect.hpp"
#include "host/cli/rules.hpp"
#include "host/cli/text.hpp"
#include "host/cli/verify.hpp"
#include "host/files/packed.hpp"
#include "host/files/ranks.hpp"
#include "host/io/file.hpp"
#include "kernels/runtime/blas.hpp"
#include "rules/nearest.hpp"

namespace {

using bragg::Status;
using bragg::cli::exit_code;

constexpr const char* exit_codes = R"help(Exit codes:
  0  done
  1  internal error
  2  wrong usage: an option, the pipeline, or a bound that it breaks
  3  bad file: no form that more than half of the inputs share, a bad base, a
     lone bad input, a bad reputation, a bad state of the server; with --strict
     any bad input
  4  the system refused to open, read or write, or had no memory
  5  the data defeats the rule: too many rows that are bad inputs or not finite,
     an output that would hold NaN or infinity, a base that is not finite, a
     pivot that is a bad input or not finite, rows among which a rule has none
     to prefer, a search that is too large, an iteration that does not converge
  6  `bragg verify` found a result that is wrong
  7  processes of `bragg-mpi` have lost each other
  8  processes of `bragg-mpi` were given other arguments or files, or are of
     other versions
  129, 130, 143  interrupted (SIGHUP, SIGINT, SIGTERM)
No output is written unless the exit code is 0. It is there, with all files that
belong to it, where only the table could not be written (4), or a signal came
when they were. A report is written by runs that fail, too, and `bragg bench`
writes row by row.)help";

constexpr const char* main_footer = R"help(
Examples:
  bragg aggregate clients/ --rule "nnm(f=2) | trimmed_mean(f=2)" -o new.safetensors
      one robust model from the files in clients/, of which two may be bad
  bragg inspect clients/
      what the files hold, and which of them are bad
  bragg audit clients/
      who looks bad, what each rule would cost, and which one to take
  bragg rules
      every rule, its needs and its guarantee
  bragg attack min_max clients/ --f 2 -o drill
      two bad workers' files, to see what a rule makes of them
  bragg verify
      checks the library's results on this machine
  bragg bench
      measures the library's speed on this machine, and the machine's limits

Run `bragg aggregate --help` for more.

)help";

constexpr const char* mpi_footer = R"help(
`bragg aggregate` by the processes of an MPI job: each reads and writes its part of
every file, on a file system that all of them have. The output has the same bytes.

Example:
  mpirun -n 4 bragg-mpi aggregate clients/ --rule "nnm(f=2) | trimmed_mean(f=2)" \
      -o new.safetensors

)help";

constexpr const char* aggregate_footer = R"help(
INPUT is one checkpoint per worker: a safetensors file, the folder or
*.index.json of a sharded model, an npz, or a 1-D npy. Or it is a single folder of
worker files or model folders (in the order of their names, without the base), or
a single 2-D npy with one row per worker. An input that cannot be read, or has
other names, shapes or dtypes than the base (else than more than half of the
inputs), counts as a bad worker.

Choosing f: the number of workers that may send anything at all. With more than
f, nothing is promised; a larger f than needed costs accuracy. Start with
"nnm(f=F) | trimmed_mean(f=F)"; `bragg rules` shows the others.

Examples:
  Twelve workers, up to two of them bad:
    bragg aggregate w*.safetensors --rule "nnm(f=2) | trimmed_mean(f=2)" \
        -o new.safetensors
  Updates clipped about the last global model, and a report for a program:
    bragg aggregate clients/ --base global.safetensors \
        --rule "clip(c=5) | geometric_median" --report report.json \
        -o new.safetensors
  Weights by sample counts, each capped at a tenth of the sum:
    bragg aggregate clients/ --rule "trimmed_mean(f=2)" --weights @samples.txt \
        --max-weight-share 0.1 -o new.safetensors
  Half of the way from the last global model to the aggregate:
    bragg aggregate clients/ --base global.safetensors --rule "krum(f=2)" \
        --server-lr 0.5 -o next.safetensors
  Models larger than memory, with each tensor judged separately:
    bragg aggregate llm-1/ llm-2/ llm-3/ llm-4/ llm-5/ --rule "krum(f=1)" \
        --scope per-tensor --memory 4GiB -o new.safetensors

)help";

constexpr const char* inspect_footer = R"help(
Reads every input once and writes nothing. For each it says whether it has the
agreed form (the base's, else that of more than half of the inputs), how many of
its values are NaN or infinite, its norm, and the tensor that makes most of it.
What is `bad` here, `aggregate` would count as a bad worker.

Examples:
  What the clients sent, before a rule is chosen:
    bragg inspect clients/ --base global.safetensors
  One model:
    bragg inspect model.safetensors

)help";

constexpr const char* audit_footer = R"help(
INPUT are the workers' checkpoints, as for `aggregate`. They are read twice. It says

  * which workers look bad, by which evidence: a file that is not of the form, NaN
    or infinity, a norm or a distance beyond what others differ by, a copy of
    another, a direction against the others';
  * how different the others are;
  * of each rule, for each f: how far it is from their mean without an attacker
    (its cost), and under the worst of some attacks, as shares of their spread,
    beside what no rule can promise to undercut and what is proven of the rule;
  * which rule to take, why, and what is not certain about it.

Rules that take each coordinate by itself are tried on a sample of --sample
coordinates, with an error; others on what decides them, exactly. In --rule F
stands for f.

Examples:
  Before a rule is chosen:
    bragg audit clients/ --base global.safetensors
  Two rules, all coordinates, a plot:
    bragg audit clients/ --rule "krum(f=F)" --rule "nnm(f=F) | krum(f=F)" \
        --sample 0 --svg cost.svg

)help";

constexpr const char* attack_footer = R"help(
INPUT are honest workers' checkpoints, as for `aggregate`. FOLDER gets --f files
of their form, NAME-1 to NAME-f, which hold what bad workers would send in the same
round. Integer tensors are those of the first input. With --base, attacks are on
the differences from it.

The attacks, with their options and what those are by default:
)help";

constexpr const char* attack_examples = R"help(
Examples:
  A drill: ten workers, and two bad ones that hide as well as they can:
    bragg attack min_max clients/ --f 2 -o drill
    bragg aggregate clients/*.safetensors drill/*.safetensors \
        --rule "nnm(f=2) | trimmed_mean(f=2)" -o new.safetensors
  The ALIE that does most damage to a pipeline:
    bragg attack optimal_alie clients/ --f 2 --rule "nnm(f=2) | krum(f=2)" -o drill

)help";

constexpr const char* verify_footer = R"help(
Draws fresh cases: every rule and many pipelines, in f32, f16, bf16 and f64, on
rows of all lengths, layouts and alignments, with hostile rows and client weights
among them. An oracle, written from the definitions, judges each result, within
bounds derived from the arithmetic; a result that rounding alone decides is not
judged. A wrong result is shown with the command that repeats it. The run takes
half a minute by default.

--aimed draws rows that are made to break the guarantees (constants that drown
differences, bad rows that cancel, shrink to nothing or stand at the cut) and
holds each result to the guarantee's own bounds, in extended precision.

Examples:
  The CPU and every CUDA device, for ten minutes:
    bragg verify --seconds 600
  The guarantees, for a minute:
    bragg verify --aimed --seconds 60
  One round of the pipelines with nnm or krum, on the GPU, with a JSON report:
    bragg verify --device cuda --quick --rule nnm krum --json report.json

)help";

constexpr const char* bench_footer = R"help(
Times pipelines on random updates in memory, and compares them with the floor:
the least time for the bytes and operations that each pass needs, at the speeds
of this machine, measured in the same run with as many threads. A time is the
median of at least ten runs, five if one takes seconds, or three from files;
`spread` is the distance of the quartiles. Threads are bound to cores: the program restarts
itself with OMP_PROC_BIND set, unless the environment sets it.

In rules, F stands for n/5, rounded down. --rule, --n, --d and --dtype each
replace their part of the preset. The name of a model stands for its number of
parameters, and NAME/K for one of K shards of it.

--files writes the updates of a case into FOLDER, as checkpoint files of one
worker each in the model's tensors, times the pipelines on these, and removes
them. The floor is the time for reading as many bytes and writing the output,
and nothing else, with as many threads; once from the system's memory (page
cache), and once from the disk, where the system can be made to forget the
files.

)help";

constexpr const char* bench_examples = R"help(
Examples:
  Two rules at three sizes, and JSON for bench/plot.py and bench/compare.py:
    bragg bench --rule median "nnm(f=F) | trimmed_mean(f=F)" --n 16 64 \
        --d 1e6 resnet-50 llama-2-7b/256 --json new.json
  Other libraries, for the same rule on the same data:
    bragg bench --rule "krum(f=F)" --n 16 --d 1e6 --against numpy-ops byzfl-torch
  From files on the disk that holds /data:
    bragg bench --files /data --json files.json
  Every way to compute inner products on a GPU, beside the others:
    bragg bench --device cuda --gram all --rule "krum(f=F)" --n 16 64 --d 1e7

)help";

constexpr const char* completion_footer = R"help(
To have it in every shell:
  bash  echo 'source <(bragg completion bash)' >> ~/.bashrc
  zsh   bragg completion zsh > _bragg, in a folder of $fpath
  fish  bragg completion fish > ~/.config/fish/completions/bragg.fish
)help";

constexpr int wrong_result = 6;

void print_error(const std::string& message) {
  fmt::print(stderr, "bragg: error: {}\n", bragg::cli::printable(message));
}

/// The library names its own options; the command's have the same names, written otherwise.
std::string as_options(const std::string& message) {
  if (constexpr std::string_view output = "output "; message.starts_with(output))
    return "--output: " + message.substr(output.size());
  const std::size_t end = std::min(message.find(" = "), message.find(" has "));
  std::string name = message.substr(0, end);
  for (const std::string_view option :
       {"memory", "threads", "max_weight_share", "device", "weights", "out_dtype", "shard_size", "integers",
        "scale", "epsilon", "z", "deviation", "b", "angle", "most"}) {
    if (name != option) continue;
    std::replace(name.begin(), name.end(), '_', '-');
    return "--" + name + message.substr(end);
  }
  return message;
}

/// The pipeline, and a caret below where it cannot be read. All before that place is ASCII.
void print_caret(const std::string& pipeline, int column) {
  fmt::print(stderr, "  {}\n  {:>{}}\n", bragg::cli::printable(pipeline), '^', column);
}

/// Numbers from `least` to `most`. (CLI::Range takes NaN, too.)
CLI::Validator number(double least, double most) {
  const std::string range = fmt::format("{} to {}", least, most);
  return {[=](const std::string& text) {
            double value = 0;
            const bool right = CLI::detail::lexical_cast(text, value) && value >= least && value <= most;
            return right ? "" : fmt::format("'{}' is not a number from {}", text, range);
          },
          fmt::format("FLOAT in [{} - {}]", least, most)};
}

/// Whole numbers from `least` to `most`. (CLI11 itself takes −1 for an unsigned number, and what is too large
/// for the largest.)
CLI::Validator whole(std::uint64_t least, std::uint64_t most = std::numeric_limits<std::uint64_t>::max()) {
  return {
      [=](const std::string& text) {
        char* end = nullptr;
        errno = 0;
        const std::uint64_t value = std::strtoull(text.c_str(), &end, 0);
        const bool right = text.find_first_of("0123456789") == 0 && *end == '\0' && errno == 0 &&
                           value >= least && value <= most;
        return right ? "" : fmt::format("'{}' is not a whole number from {} to {}", text, least, most);
      },
      most == std::numeric_limits<std::uint64_t>::max() ? "" : fmt::format("INT in [{} - {}]", least, most)};
}

/// CLI11 takes the empty text, which is what a shell makes of a variable that is not set, for 0, or for an
/// option that is not given.
void refuse_empty_numbers(CLI::App& app) {
  const CLI::Validator filled(
      [](const std::string& text) {
        return std::string(text.empty() ? "'' is not a number that this option can take" : "");
      },
      "");
  for (CLI::App* const sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    for (CLI::Option* const option : sub->get_options()) {
      const std::string type = option->get_type_name();
      if (type == "FLOAT" || type == "INT" || type == "UINT") option->check(filled);
    }
  }
}

/// As a shell would read it.
std::string command_line(int argc, char** argv) {
  std::string text = "bragg";
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool plain =
        argument.find_first_of(" \t\n|()*?$&;<>'\"\\") == std::string::npos && !argument.empty();
    text += plain ? " " + argument : " \"" + argument + "\"";
  }
  return text;
}

/// An option that takes one value each time it is given.
void add_repeatable(CLI::App& sub, const char* names, std::vector<std::string>& values, const char* help,
                    const char* type) {
  sub.add_option(names, values, help)->type_name(type)->expected(1)->take_all()->allow_extra_args(false);
}

constexpr const char* pattern_type = "PATTERN";

void add_exclude(CLI::App& sub, std::vector<std::string>& patterns) {
  add_repeatable(sub, "--exclude", patterns,
                 "leave tensors whose names match out, e.g. '*_extra_state'; inputs may differ in them; "
                 "repeatable",
                 pattern_type);
}

/// The tensors that a run is about.
template <class CommandT>
void add_choice(CLI::App& sub, CommandT& command) {
  add_exclude(sub, command.exclude);
  add_repeatable(sub, "--copy", command.copy,
                 "take tensors whose names match from --base, whatever the inputs hold, e.g. 'frozen.*'; "
                 "repeatable",
                 pattern_type);
  sub.add_flag("--partial", command.partial,
               "inputs may lack tensors: aggregate each over those that hold it, with an n of its own; "
               "implies --scope per-tensor");
}

void add_server(CLI::App& sub, bragg::cli::AggregateCommand& command) {
  CLI::Option* const lr =
      sub.add_option("--server-lr", command.server_lr,
                     "write --base + this·(aggregate − base), not the aggregate; e.g. 0.5");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return sub.add_option(name, value, help)->needs(lr);
  };
  add("--server-optimizer", command.server_optimizer,
      "how the step is made of aggregate − base; sgd: as above, or with momentum")
      ->check(CLI::IsMember({"sgd", "adam", "yogi"}))
      ->capture_default_str();
  add("--server-state", command.server_state,
      "safetensors file of the moments that adam, yogi and momentum keep from run to run; it is read and "
      "written, and made if it is not there");
  add("--server-momentum", command.server_momentum,
      "sgd: share of the last step that is taken again; default: 0");
  add("--server-beta1", command.server_beta1, "adam, yogi: memory of the mean; default: 0.9");
  add("--server-beta2", command.server_beta2, "adam, yogi: memory of the square; default: 0.99");
  add("--server-tau", command.server_tau,
      "adam, yogi: what is added to its root, which bounds how small changes are scaled up; default: 0.001");
}

void add_aggregate(CLI::App& app, bragg::cli::AggregateCommand& command) {
  CLI::App* const sub = app.add_subcommand("aggregate", "Aggregate the workers' checkpoints into one file");
  sub->footer(std::string(aggregate_footer) + exit_codes);
  sub->add_option("INPUT", command.inputs, "the workers' checkpoints")->required();
  sub->add_option("-r,--rule", command.rule, "the pipeline, e.g. \"nnm(f=2) | trimmed_mean(f=2)\"")
      ->type_name(bragg::cli::rule_type)
      ->required();
  sub->add_option("-o,--output", command.output,
                  "file to write: .safetensors or .npz (.npy for npy inputs); with --shard-size, a folder")
      ->required();
  sub->add_option(
      "--shard-size", command.shard_size,
      "write the model in shards of at most this size, e.g. 5GB, into a folder, with their index");
  sub->add_option("--base", command.base, "the global model, which distances and clipping are about");
  sub->add_option("--weights", command.weights,
                  "client weights: 1,2,3, or @FILE with lines of a number, or of an input's name and its "
                  "number; 0 leaves a worker out")
      ->type_name(bragg::cli::weights_type);
  sub->add_option("--max-weight-share", command.max_weight_share,
                  "cap on a weight's share of the sum of all; 0: none")
      ->check(number(0, 1));
  sub->add_option(
      "--reputation", command.reputation,
      "JSON file of what earlier runs say of the workers, by name; it is read and written, and made "
      "if it is not there");
  add_server(*sub, command);
  sub->add_option("--scope", command.scope, "judge workers by the whole model, or by each tensor separately")
      ->check(CLI::IsMember({"whole", "per-tensor"}))
      ->capture_default_str();
  sub->add_option("--out-dtype", command.out_dtype,
                  "dtype of the output's floating-point tensors: f64, f32, f16, bf16, f8_e4m3, f8_e5m2; by "
                  "default that of the inputs")
      ->check(CLI::IsMember({"f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2"}, CLI::ignore_case));
  add_repeatable(*sub, "--judge-by", command.judge_by,
                 "judge workers by the tensors whose names match, e.g. '*.weight'; repeatable", pattern_type);
  add_repeatable(*sub, "--ignore-in-distances", command.ignore_in_distances,
                 "do not judge workers by these, e.g. '*running_*'; repeatable", pattern_type);
  add_choice(*sub, command);
  sub->get_option("--partial")->excludes("--scope");
  sub->add_option("--memory", command.memory, "bound on windows and buffers, e.g. 512MiB")
      ->capture_default_str();
  sub->add_option("--device", command.device,
                  "device that computes; auto: a CUDA device if there is one, else the CPU")
      ->check(CLI::IsMember({"cpu", "cuda", "auto"}))
      ->capture_default_str();
  sub->add_option("--threads", command.threads, "CPU threads; 0: automatic. The result does not depend on it")
      ->check(whole(0, 4096))
      ->capture_default_str();
  sub->add_option("--report", command.report, "JSON file to write: who was kept, and why");
  sub->add_flag("--sha256", command.sha256, "put the SHA-256 of every file that is read into the report");
  sub->add_option("--integers", command.integers,
                  "what becomes of integer tensors; auto: the lower median, but an error where they are "
                  "quantised weights; first: those of the base, else of the first input")
      ->check(CLI::IsMember({"auto", "lower-median", "first", "error"}))
      ->capture_default_str();
  sub->add_flag("--allow-nonfinite", command.allow_nonfinite,
                "write the output even if it holds NaN or infinity");
  sub->add_flag("--strict", command.strict, "a bad input is an error, not a bad worker");
  sub->add_flag("-q,--quiet", command.quiet, "print nothing but errors");
}

void add_inspect(CLI::App& app, bragg::cli::InspectCommand& command) {
  CLI::App* const sub = app.add_subcommand(
      "inspect", "Look into checkpoints: form, health, and what `aggregate` would take as bad");
  sub->footer(inspect_footer + std::string(exit_codes));
  sub->add_option("INPUT", command.inputs, "the workers' checkpoints, as for `aggregate`")->required();
  sub->add_option("--base", command.base, "the global model, which says which form is right");
  add_choice(*sub, command);
  sub->add_flag("--json", command.json, "for programs");
}

void add_audit(CLI::App& app, bragg::cli::AuditCommand& command) {
  CLI::App* const sub =
      app.add_subcommand("audit", "Say who looks bad, what rules cost on these workers, and which to take");
  sub->footer(audit_footer + std::string(exit_codes));
  sub->add_option("INPUT", command.inputs, "the workers' checkpoints, as for `aggregate`")->required();
  sub->add_option("--base", command.base, "the global model, which the workers' differences are from");
  add_repeatable(*sub, "-r,--rule", command.rules,
                 "a pipeline to try, in which F stands for f; repeatable; default: ten of them",
                 bragg::cli::rule_type);
  sub->add_option("--f", command.f,
                  "bad workers to recommend a rule for; default: as many as look bad, but at least 1")
      ->check(whole(1, 10000));
  sub->add_option("--sample", command.sample, "coordinates to try coordinate-wise rules on; 0: all")
      ->check(whole(0, std::uint64_t{1} << 40))
      ->capture_default_str();
  sub->add_option("--seed", command.seed, "draws the sample, and whom attackers replace")
      ->check(whole(0))
      ->capture_default_str();
  add_exclude(*sub, command.exclude);
  sub->add_flag("--json", command.json, "for programs");
  sub->add_option("--svg", command.svg, "SVG file to write: cost and damage over f");
}

void add_attack(CLI::App& app, bragg::cli::AttackCommand& command) {
  CLI::App* const sub = app.add_subcommand("attack", "Write what bad workers would send, for drills");
  sub->footer(attack_footer + bragg::cli::attack_lines() + attack_examples + exit_codes);
  sub->add_option("NAME", command.name, "the attack")
      ->type_name(fmt::format("{{{}}}", fmt::join(bragg::cli::attack_names(), ",")))
      ->required();
  sub->add_option("INPUT", command.inputs, "the honest workers' checkpoints, as for `aggregate`")->required();
  sub->add_option("-o,--output", command.output, "folder to write to; made if it is not there")
      ->type_name(bragg::cli::folder_type)
      ->required();
  sub->add_option("--f", command.f, "bad workers: files to write")
      ->check(whole(1, 10000))
      ->capture_default_str();
  sub->add_option("--base", command.base, "the global model, which the workers' differences are from");
  sub->add_option("-r,--rule", command.rule, "the pipeline that optimal attacks are aimed at")
      ->type_name(bragg::cli::rule_type);
  sub->add_option("--scale", command.scale, "sign_flip: factor of minus the mean");
  sub->add_option("--epsilon", command.epsilon, "inner_product_manipulation: factor of minus the mean");
  sub->add_option("--z", command.z, "a_little_is_enough: standard deviations from the mean");
  sub->add_option("--row", command.row, "mimic, bit_flip: which worker; 0 is the first")->check(whole(0));
  sub->add_option("--reference", command.reference, "rop: the model that centered_clipping starts from");
  sub->add_option("--angle", command.angle, "rop: degrees from the reference");
  sub->add_option("--direction", command.direction, "min_max, min_sum: which way from the mean")
      ->check(CLI::IsMember(bragg::cli::direction_names()));
  sub->add_option("--b", command.b, "fang_trimmed: how many times as far as the honest values");
  sub->add_option("--most", command.most, "optimal_alie, optimal_ipm: the largest z or epsilon to try");
  sub->add_option("--deviation", command.deviation, "gaussian: standard deviation");
  sub->add_option("--kind", command.kind, "hostile: which values")
      ->check(CLI::IsMember(bragg::cli::hostile_names()));
  sub->add_option("--seed", command.seed, "fang_trimmed, gaussian: seed of the draws")->check(whole(0));
}

void add_verify(CLI::App& app, bragg::cli::VerifyCommand& command) {
  CLI::App* const sub =
      app.add_subcommand("verify", "Check the library on this machine against its definitions");
  sub->footer(std::string(verify_footer) + exit_codes);
  sub->add_option("--device", command.device, "device to check; all: the CPU and every CUDA device")
      ->check(CLI::IsMember({"cpu", "cuda", "all"}))
      ->capture_default_str();
  sub->add_flag("--aimed", command.aimed, "cases aimed at the guarantees, and held to them");
  sub->add_option("--seed", command.seed, "seed of the cases; by default a fresh one each time")
      ->check(whole(0));
  sub->add_option("--rule", command.rules, "only pipelines with one of these rules, e.g. nnm krum")
      ->type_name(bragg::cli::rule_type);
  CLI::Option* const seconds =
      sub->add_option("--seconds", command.seconds, "how long; at least one round of cases is run")
          ->check(number(0, 1e7))
          ->capture_default_str();
  sub->add_flag("--quick", command.quick, "one round of cases")->excludes(seconds);
  sub->add_option("--json", command.json, "JSON file to write: runs, worst errors and wrong results");
}

std::vector<std::string_view> preset_names() {
  std::vector<std::string_view> names;
  for (const bragg::bench::Preset& preset : bragg::bench::presets()) names.push_back(preset.name);
  return names;
}

/// What this command was built with besides the CPU.
std::string backends_text() {
#if defined(BRAGG_CUDA_VERSION)
  const std::string cublas = bragg::detail::cuda::cublas_of_build();
  return cublas.empty()
             ? "CUDA " BRAGG_CUDA_VERSION ", without cuBLAS"
             : fmt::format("CUDA {}; cuBLAS {}, on request (BRAGG_GRAM=cublas)", BRAGG_CUDA_VERSION, cublas);
#else
  return "without CUDA";
#endif
}

std::vector<std::string> gram_values() {
  std::vector<std::string> values = bragg::bench::gram_choices();
  values.insert(values.begin(), {"auto", "all"});
  return values;
}

void add_bench(CLI::App& app, bragg::cli::BenchCommand& command) {
  // Of a variable that is not set.
  const CLI::Validator named(
      [](const std::string& text) { return std::string(text.empty() ? "the name is empty" : ""); }, "");
  CLI::App* const sub = app.add_subcommand("bench", "Measure speed, and the limits of the machine");
  sub->footer(bench_footer + ("Presets:\n" + bragg::cli::preset_lines()) + bench_examples + exit_codes);
  sub->add_option("-r,--rule", command.rules, "pipelines, e.g. median \"nnm(f=F) | trimmed_mean(f=F)\"")
      ->type_name(bragg::cli::rule_type);
  sub->add_option("--n", command.n, "numbers of workers, e.g. 16 64")->delimiter(',');
  sub->add_option("--d", command.sizes, "coordinates of an update: numbers or models, e.g. 1e6 resnet-50")
      ->delimiter(',');
  sub->add_option("--tensors", command.tensors,
                  "tensors per update: of every three, a large one and two of 256")
      ->capture_default_str();
  sub->add_option("--dtype", command.dtypes, "dtypes of updates; default: those of the preset")
      ->type_name("{f32,f16,bf16,f64}")
      ->delimiter(',');
  sub->add_option("--preset", command.preset,
                  "set of rules and shapes, see below; default: small, or files with --files")
      ->check(named)
      ->type_name(fmt::format("{{{}}}", fmt::join(preset_names(), ",")));
  sub->add_option("--device", command.device,
                  "device that computes; auto: a CUDA device if there is one, else the CPU")
      ->check(CLI::IsMember({"cpu", "cuda", "auto"}))
      ->capture_default_str();
  sub->add_option(
         "--gram", command.gram,
         "who computes inner products on a CUDA device; all: each in turn, and compared; auto: as the "
         "device prefers")
      ->check(CLI::IsMember(gram_values()))
      ->capture_default_str();
  sub->add_option("--threads", command.threads, "CPU threads; 0: automatic")
      ->check(whole(0, 4096))
      ->capture_default_str();
  sub->add_option("--seconds", command.seconds, "time per row, if it allows the least number of timings")
      ->check(number(0.001, 3600))
      ->capture_default_str();
  sub->add_option("--against", command.peers,
                  "other libraries to time on the same data, e.g. torch; f32 only")
      ->delimiter(',');
  sub->add_option("--peers", command.peers_folder,
                  "folder of their adapters; default: BRAGG_PEERS, else bragg's own")
      ->check(named)
      ->type_name(bragg::cli::folder_type);
  sub->add_option("--python", command.python, "interpreter that runs the adapters")
      ->check(named)
      ->capture_default_str();
  sub->add_option("--files", command.files,
                  "folder to write files of updates in, for a time; pipelines are timed from them")
      ->check(named)
      ->type_name(bragg::cli::folder_type);
  sub->add_option("--json", command.json, "JSON file to write: everything, including passes and floors");
  sub->add_option("--csv", command.csv, "CSV file to write: the rows");
}

/// Of a command line that cannot be parsed: the first word that nothing is known of, and what may have been
/// meant; empty where all words are known.
std::string unknown_word(const CLI::App& app) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const CLI::App& command = chosen.empty() ? app : *chosen.front();
  for (const std::string& word : command.remaining()) {
    const bool is_option = word.starts_with('-');
    if (!is_option && !chosen.empty()) continue;
    std::vector<std::string> known;
    if (is_option) {
      for (const CLI::Option* const option : command.get_options()) {
        for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
      }
    } else {
      for (const CLI::App* const sub : app.get_subcommands([](const CLI::App*) { return true; }))
        known.push_back(sub->get_name());
    }
    const std::string_view meant =
        bragg::detail::nearest(word.substr(0, word.find('=')), known,
                               [](const std::string& name) { return std::string_view(name); });
    std::string text = fmt::format("unknown {} {}", is_option ? "option" : "command", word);
    if (!meant.empty()) text += fmt::format("; did you mean {}?", meant);
    return text;
  }
  return "";
}

/// What is wrong with a command line whose words are all known.
std::string complaint(const CLI::App& app, const CLI::ParseError& error) {
  std::string text = error.what();
  constexpr std::string_view unread = "Could not convert: ", is = " = ";
  if (const std::size_t end = text.find(is); text.starts_with(unread) && end != std::string::npos) {
    const std::string name = text.substr(unread.size(), end - unread.size());
    const std::string value = text.substr(end + is.size());
    const std::vector<CLI::App*> chosen = app.get_subcommands();
    const CLI::Option* const option = chosen.empty() ? nullptr : chosen.front()->get_option_no_throw(name);
    return option != nullptr && option->get_items_expected_max() == 0
               ? fmt::format("{} takes no value, but '{}' is given", name, value)
               : fmt::format("{}: '{}' is not a number that this option can take", name, value);
  }
  // "--scope: x not in {whole,per-tensor}"
  constexpr std::string_view outside = " not in {";
  const std::size_t begin = text.find(": "), end = text.rfind(outside);
  if (begin != std::string::npos && end != std::string::npos && begin + 2 <= end && text.ends_with('}')) {
    const std::string value = text.substr(begin + 2, end - begin - 2);
    std::vector<std::string> choices =
        CLI::detail::split(text.substr(end + outside.size(), text.size() - 1 - end - outside.size()), ',');
    const std::string_view meant = bragg::detail::nearest(
        value, choices, [](const std::string& choice) { return std::string_view(choice); });
    return fmt::format("{}: '{}' is none of {}{}", text.substr(0, begin), value, fmt::join(choices, ", "),
                       meant.empty() ? "" : fmt::format("; did you mean {}?", meant));
  }
  if (error.get_name() != "ArgumentMismatch") return text;
  const bool too_many = text.find("At Most") != std::string::npos;
  return text.substr(0, text.find(':')) + (too_many ? " is given more than once" : ": its value is missing");
}

/// Processes of one job would do the same work at once, and write over each other's output.
/// @throws Error invalid_argument
void refuse_job(bool is_mpi) {
  // What Open MPI, MPICH and its kin, and a step of Slurm set.
  for (const char* const variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* const given = std::getenv(variable);
    if (given == nullptr || std::atoi(given) <= 1) continue;  // NOLINT(cert-err34-c): no number is no job
    throw bragg::Error(Status::invalid_argument,
                       fmt::format("started as {} processes of one job ({}): each would write the same "
                                   "output; start {}",
                                   given, variable,
                                   is_mpi ? "them with the MPI that bragg-mpi was built with"
                                          : "it once, or `bragg-mpi aggregate`"));
  }
}

/// Whether all ranks do the same next: those that end, or run another subcommand, would leave others waiting.
/// `ended`: by the command line alone, with this exit code.
bool is_one_line(bragg::Communicator& communicator, const CLI::App& app, std::optional<int> ended) {
  bragg::detail::Ranks ranks(&communicator);
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  bragg::detail::Packer mine;
  mine.put(std::string_view(ended || chosen.empty() ? "" : chosen.front()->get_name()));
  mine.put(ended.value_or(0));
  const std::vector<std::string> all = ranks.gather(mine.bytes());
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    print_error(fmt::format("ranks 0 and {} were given different command lines", r));
    return false;
  }
  return true;
}

int run(int argc, char** argv, bragg::Communicator* communicator) {
  const bool is_mpi = communicator != nullptr;
  const bool many = is_mpi && communicator->size() > 1;
  CLI::App app("bragg: robust aggregation of model updates. Up to f bad workers cannot corrupt the result.",
               is_mpi ? "bragg-mpi" : "bragg");
  app.footer(std::string(is_mpi ? mpi_footer : main_footer) + exit_codes);
  app.set_version_flag("--version", "bragg " BRAGG_VERSION_STRING);
  app.require_subcommand(1);

  bragg::cli::AggregateCommand aggregate;
  add_aggregate(app, aggregate);
  bragg::cli::InspectCommand inspect;
  add_inspect(app, inspect);
  bragg::cli::AuditCommand audit;
  add_audit(app, audit);
  bragg::cli::AttackCommand attack;
  add_attack(app, attack);
  bragg::cli::VerifyCommand verify;
  add_verify(app, verify);
  bragg::cli::BenchCommand bench;
  add_bench(app, bench);

  std::string rule_name;
  bool json = false;
  CLI::App* const rules = app.add_subcommand("rules", "List the rules, or explain one");
  rules->add_option("NAME", rule_name, "a rule")->type_name(bragg::cli::rule_type);
  rules->add_flag("--json", json, "for programs");

  CLI::App* const version = app.add_subcommand("version", "Print the version");

  std::string shell;
  CLI::App* const completion =
      app.add_subcommand("completion", "Print what makes a shell complete bragg's commands and options");
  completion->footer(completion_footer);
  completion->add_option("SHELL", shell, "the shell")->required()->check(CLI::IsMember(bragg::cli::shells));

  refuse_empty_numbers(app);

  constexpr std::array others = {"inspect", "audit", "attack", "verify", "bench", "completion"};
  for (const char* const other : others) {
    if (is_mpi) app.get_subcommand(other)->group("");
  }
  if (is_mpi) app.get_subcommand("aggregate")->get_option("--reputation")->group("");  // it keeps none

  const auto parse_line = [&]() -> std::optional<int> {
    try {
      app.parse(argc, argv);
      return std::nullopt;
    } catch (const CLI::Success& request) {
      return app.exit(request);  // --help, --version
    } catch (const CLI::ParseError& error) {
      const std::string unknown = unknown_word(app);
      print_error(unknown.empty() ? complaint(app, error) : unknown);
      const char* const command = app.got_subcommand("aggregate") ? "aggregate "
                                  : app.got_subcommand("inspect") ? "inspect "
                                  : app.got_subcommand("audit")   ? "audit "
                                  : app.got_subcommand("attack")  ? "attack "
                                  : app.got_subcommand("verify")  ? "verify "
                                  : app.got_subcommand("bench")   ? "bench "
                                                                  : "";
      fmt::print(stderr, "Run `{} {}--help`.\n", app.get_name(), command);
      return exit_code(Status::invalid_argument);
    }
  };
  const std::optional<int> ended = parse_line();
  if (many && !is_one_line(*communicator, app, ended)) return exit_code(Status::disagreement);
  if (ended) return *ended;

  bool right = true;
  try {
    for (const char* const other : others) {
      if (is_mpi && app.got_subcommand(other)) {
        throw bragg::Error(Status::invalid_argument,
                           fmt::format("{} is not for several processes; use `bragg {}`", other, other));
      }
    }
    if (version->parsed()) {
      fmt::print("bragg {}\n{}\n", BRAGG_VERSION_STRING, backends_text());
    } else if (rules->parsed()) {
      fmt::print("{}", json ? bragg::cli::rules_json(rule_name) : bragg::cli::rules_text(rule_name));
    } else if (completion->parsed()) {
      fmt::print("{}", bragg::cli::completion_script(app, shell));
    } else if (app.got_subcommand("inspect")) {
      bragg::cli::run(inspect);
    } else if (app.got_subcommand("audit")) {
      bragg::cli::run(audit);
    } else if (app.got_subcommand("attack")) {
      refuse_job(false);
      bragg::cli::run(attack);
    } else if (app.got_subcommand("verify")) {
      right = bragg::cli::run(verify);
    } else if (app.got_subcommand("bench")) {
      bragg::bench::bind_threads(argv);
      bench.command_line = command_line(argc, argv);
      bragg::cli::run(bench);
    } else {
      if (!many) refuse_job(is_mpi);
      bragg::cli::run(aggregate, communicator);
    }
  } catch (const bragg::bench::UnreadableRule& error) {
    print_error(error.what());
    print_caret(error.rule, error.column());
    return exit_code(error.status());
  } catch (const bragg::ParseError& error) {
    print_error(error.what());
    print_caret(attack.rule ? *attack.rule : aggregate.rule, error.column());
    return exit_code(error.status());
  } catch (const bragg::Error& error) {
    print_error(as_options(error.what()));
    return exit_code(error.status());
  }
  if (std::fflush(stdout) != 0) {
    print_error("cannot write to the standard output");
    return exit_code(Status::io_error);
  }
  return right ? 0 : wrong_result;
}

}  // namespace

int bragg::cli::command(int argc, char** argv, Communicator* communicator) {
  // What has no memory may be a destructor, from which nothing can be thrown.
  std::set_terminate([] {
    if (const std::exception_ptr thrown = std::current_exception()) {
      try {
        std::rethrow_exception(thrown);
      } catch (const std::bad_alloc&) {
        detail::abandon_outputs();
        std::fputs("bragg: error: out of memory\n", stderr);
        _exit(exit_code(Status::out_of_memory));
      } catch (...) {
      }
    }
    std::abort();
  });
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error that can be told
  try {
    return ::run(argc, argv, communicator);
  } catch (const std::bad_alloc&) {
    std::fputs("bragg: error: out of memory\n", stderr);
    return exit_code(Status::out_of_memory);
  } catch (const std::system_error& error) {  // a thread that cannot be started
    std::fprintf(stderr, "bragg: error: %s\n", error.what());
    return exit_code(Status::io_error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bragg: error: %s\n", error.what());
    return exit_code(Status::internal);
  }
}
