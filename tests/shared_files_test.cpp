// SPDX-License-Identifier: Apache-2.0
// Files that the ranks of a job aggregate together: the bytes, reports and errors of one process.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>
#include <bragg/io.hpp>

#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/support/alike.hpp"
#include "tests/support/files.hpp"
#include "tests/support/local_communicator.hpp"
#include "tests/support/seed.hpp"

namespace {

namespace fs = std::filesystem;
using namespace bragg;
using bragg::test::expect_same;
using bragg::test::LocalCommunicator;
using bragg::test::read_text;
using bragg::test::run_ranks;
using bragg::test::TemporaryFolder;

constexpr std::uint64_t mib = 1 << 20;
constexpr int workers = 7;

struct Tensor {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
};

const std::vector<Tensor> one_dtype = {
    {"a", "F32", {8193}},   {"b", "F32", {201, 503}}, {"c", "F32", {0, 4}},     {"d", "F32", {3, 8192}},
    {"e.steps", "I64", {}}, {"f", "F32", {5}},        {"g.mask", "BOOL", {11}}, {"h", "F32", {70001}}};
const std::vector<Tensor> mixed = {
    {"a", "BF16", {8193}},  {"b", "F32", {201, 503}}, {"c", "F16", {0, 4}},     {"d", "F64", {3, 8192}},
    {"e.steps", "I64", {}}, {"f", "F8_E4M3", {5000}}, {"g.mask", "BOOL", {11}}, {"h", "BF16", {70001}}};

std::int64_t elements(const Tensor& tensor) {
  std::int64_t count = 1;
  for (const std::int64_t size : tensor.shape) count *= size;
  return count;
}

/// Bits of a finite value near 1.
template <class RandomT>
std::string random_bytes(const Tensor& tensor, RandomT& random) {
  std::string bytes;
  std::normal_distribution<double> normal;
  for (std::int64_t k = 0; k < elements(tensor); ++k) {
    const double value = normal(random);
    const auto single = static_cast<float>(value);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &single, sizeof bits);
    const auto put = [&](const auto& number) {
      bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
    };
    if (tensor.dtype == "F64") put(value);
    if (tensor.dtype == "F32") put(single);
    if (tensor.dtype == "BF16") put(static_cast<std::uint16_t>(bits >> 16));
    if (tensor.dtype == "F16") put(static_cast<std::uint16_t>(0x3C00 + (bits & 0x3FF)));
    if (tensor.dtype == "F8_E4M3") put(static_cast<std::uint8_t>(0x30 + (bits & 0xF)));
    if (tensor.dtype == "I64") put(static_cast<std::int64_t>(bits));
    if (tensor.dtype == "BOOL") put(static_cast<std::uint8_t>(bits & 1));
  }
  return bytes;
}

using Edit = std::function<void(std::vector<Tensor>&, std::vector<std::string>&)>;

void write_model(const fs::path& path, std::vector<Tensor> layout, unsigned seed, const Edit& edit = {}) {
  std::mt19937 random(seed);
  std::vector<std::string> data;
  for (const Tensor& tensor : layout) data.push_back(random_bytes(tensor, random));
  if (edit) edit(layout, data);
  std::vector<TensorToWrite> tensors;
  for (std::size_t t = 0; t < layout.size(); ++t)
    tensors.push_back({layout[t].name, layout[t].dtype, layout[t].shape, data[t].data()});
  write_safetensors(path, tensors);
}

struct Round {
  TemporaryFolder folder;
  std::vector<fs::path> paths;
  unsigned seed = static_cast<unsigned>(bragg::test::generator("shared files")());

  explicit Round(const std::vector<Tensor>& layout) {
    for (unsigned i = 0; i < workers; ++i) {
      paths.push_back(folder / ("w" + std::to_string(i)));
      write_model(paths.back(), layout, seed + i);
    }
    write_model(folder / "base", layout, seed + 100);
  }
};

/// Every file at or under a path.
std::map<std::string, std::string> contents(const fs::path& path) {
  std::map<std::string, std::string> found;
  if (fs::is_regular_file(path)) found[""] = read_text(path);
  if (!fs::is_directory(path)) return found;
  for (const auto& entry : fs::directory_iterator(path))
    found[entry.path().filename().string()] = read_text(entry.path());
  return found;
}

void expect_equal(const FileResult& a, const FileResult& b) {
  EXPECT_EQ(a.workers, b.workers);
  EXPECT_EQ(a.form, b.form);
  EXPECT_EQ(a.bad, b.bad);
  EXPECT_EQ(a.tensors, b.tensors);
  EXPECT_EQ(a.copied, b.copied);
  EXPECT_EQ(a.coordinates, b.coordinates);
  EXPECT_EQ(a.integers, b.integers);
  EXPECT_EQ(a.nonfinite, b.nonfinite);
  EXPECT_EQ(a.held_with, b.held_with);
  EXPECT_EQ(a.dominant_tensor, b.dominant_tensor);
  ASSERT_EQ(a.distance_shares.size(), b.distance_shares.size());
  for (std::size_t t = 0; t < a.distance_shares.size(); ++t)
    EXPECT_NEAR(a.distance_shares[t], b.distance_shares[t], 1e-9);
  expect_same(a.reports, b.reports, "");
}

FileOptions with_threads() {
  FileOptions options;
  options.options.threads = 1;
  return options;
}

/// Aggregates alone, and by 2, 3 and 5 ranks: the same bytes and the same result on each, and nothing left
/// behind.
void expect_alike(const Round& round, const char* pipeline, const FileOptions& options,
                  const std::string& output = "out.safetensors") {
  SCOPED_TRACE(testing::Message() << pipeline << ", seed " << round.seed << ", memory " << options.memory);
  const fs::path& state = options.server_state;
  const auto begun = contents(state);  // before the run, if it is there
  const FileResult alone = aggregate_files(parse(pipeline), round.paths, round.folder / output, options);
  const auto expected = contents(round.folder / output);
  const auto expected_state = contents(state);
  for (const int ranks : {2, 3, 5}) {
    SCOPED_TRACE(testing::Message() << ranks << " ranks");
    fs::remove_all(round.folder / output);
    if (!begun.empty()) bragg::test::write_text(state, begun.at(""));
    const std::ptrdiff_t before = round.folder.entries();
    std::vector<FileResult> results(static_cast<std::size_t>(ranks));
    const auto thrown = run_ranks(ranks, [&](LocalCommunicator& communicator) {
      FileOptions own = options;
      own.communicator = &communicator;
      results[static_cast<std::size_t>(communicator.rank())] =
          aggregate_files(parse(pipeline), round.paths, round.folder / output, own);
    });
    for (const std::exception_ptr& each : thrown) {
      if (each) std::rethrow_exception(each);
    }
    EXPECT_TRUE(contents(round.folder / output) == expected);
    EXPECT_TRUE(contents(state) == expected_state);
    EXPECT_EQ(round.folder.entries(), before + 1);
    for (const FileResult& result : results) expect_equal(result, alone);
    // Windows that pass 1 reads may end elsewhere; and an input that is lost ranks always begin anew without.
    const bool reads_alike = options.judge_by.empty() && alone.bad == std::vector<std::string>(workers);
    EXPECT_TRUE(!reads_alike || results[0].bytes_read == alone.bytes_read);
  }
}

class SharedFiles : public testing::TestWithParam<const char*> {};

TEST_P(SharedFiles, HaveTheBytesOfOneProcess) {
  const Round round(one_dtype);
  for (const std::uint64_t memory : {mib, 64 * mib}) {
    for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
      FileOptions options = with_threads();
      options.memory = memory;
      options.options.scope = scope;
      expect_alike(round, GetParam(), options);
      options.base = round.folder / "base";
      expect_alike(round, GetParam(), options);
    }
  }
}

TEST_P(SharedFiles, OfMixedDtypes) {
  const Round round(mixed);
  FileOptions options = with_threads();
  options.memory = 2 * mib;
  expect_alike(round, GetParam(), options);
  options.out_dtype = "bf16";
  options.options.scope = Scope::per_tensor;
  expect_alike(round, GetParam(), options);
}

INSTANTIATE_TEST_SUITE_P(Pipelines, SharedFiles,
                         testing::Values("mean", "median", "trimmed_mean(f=2)", "krum(f=2)",
                                         "nnm(f=2) | trimmed_mean(f=2)", "clip(c=9) | geometric_median",
                                         "bucketing(s=2) | median", "cge(f=2)", "quantile_clip | mean",
                                         "dnc(f=2, sample=300, iters=2)", "clip(c=9) | dnc(f=2, sample=50)"));

TEST(SharedFiles, InEveryForm) {
  const Round round(one_dtype);
  const char* const pipeline = "nnm(f=2) | trimmed_mean(f=2)";
  FileOptions options = with_threads();
  options.shard_size = 300'000;
  expect_alike(round, pipeline, options, "model");
  options = with_threads();
  expect_alike(round, pipeline, options, "out.npz");
  options.memory = mib;
  expect_alike(round, pipeline, options, "out.npz");
  options.base = round.folder / "base";
  options.copy = {"b", "g.*"};
  expect_alike(round, pipeline, options, "out.npz");
  options = with_threads();
  options.exclude = {"h"};
  options.integers = Integers::first;
  expect_alike(round, pipeline, options);
  options.weights = {1, 2, 0, 1, 1, 3, 1};
  expect_alike(round, "geometric_median", options);
}

/// Of a server's step the moments, too.
TEST(SharedFiles, WithTheServersStep) {
  const Round round(mixed);
  const char* const pipeline = "nnm(f=2) | trimmed_mean(f=2)";
  FileOptions options = with_threads();
  options.memory = 2 * mib;
  options.base = round.folder / "base";
  options.server = ServerSgd{.lr = 0.5};
  expect_alike(round, pipeline, options);
  options.server = ServerYogi{.lr = 0.5};
  options.server_state = round.folder / "state.safetensors";
  aggregate_files(parse(pipeline), round.paths, round.folder / "out.safetensors", options);
  fs::remove(round.folder / "out.safetensors");
  for (const char* const output : {"out.safetensors", "out.safetensors", "out.npz"}) {
    if (std::string(output) == "out.npz") options.out_dtype = "f32";
    expect_alike(round, pipeline, options, output);
    options.options.scope = Scope::per_tensor;
  }
}

TEST(SharedFiles, OfNpys) {
  const Round round(one_dtype);
  const std::vector<float> matrix = [&] {
    std::mt19937 random(round.seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(workers * std::size_t{20000});
    for (float& value : values) value = normal(random);
    return values;
  }();
  write_npy(round.folder / "matrix.npy", {"", "F32", {workers, 20000}, matrix.data()});
  Round rows(one_dtype);
  rows.paths = {round.folder / "matrix.npy"};
  expect_alike(rows, "krum(f=2)", with_threads(), "out.npy");
  expect_alike(rows, "median", with_threads(), "out.npy");
}

/// Values that are not finite where rows are not judged, found in pass 2, make the run begin anew.
TEST(SharedFiles, JudgedByTheOthers) {
  for (const bool hostile : {false, true}) {
    const Round round(one_dtype);
    if (hostile) {
      write_model(round.paths[3], one_dtype, round.seed + 3,
                  [](std::vector<Tensor>&, std::vector<std::string>& data) {
                    const float nan = NAN;
                    std::memcpy(data[7].data() + data[7].size() - sizeof nan, &nan, sizeof nan);
                  });
    }
    for (const std::uint64_t memory : {mib, 64 * mib}) {
      FileOptions options = with_threads();
      options.memory = memory;
      options.judge_by = {"b", "f"};
      expect_alike(round, "krum(f=2)", options);
      expect_alike(round, "nnm(f=2) | trimmed_mean(f=2)", options);
    }
  }
}

TEST(SharedFiles, OfPartialModels) {
  const Round round(one_dtype);
  write_model(round.paths[2], one_dtype, round.seed + 2,
              [](std::vector<Tensor>& layout, std::vector<std::string>& data) {
                layout.erase(layout.begin() + 1);
                data.erase(data.begin() + 1);
              });
  FileOptions options = with_threads();
  options.partial = true;
  expect_alike(round, "nnm(f=1) | trimmed_mean(f=1)", options);
  options.base = round.folder / "base";
  expect_alike(round, "median", options);
}

TEST(SharedFiles, OfWhichSomeAreBad) {
  const Round round(one_dtype);
  fs::resize_file(round.paths[1], 5000);
  write_model(round.paths[4], mixed, 1);
  for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
    FileOptions options = with_threads();
    options.options.scope = scope;
    expect_alike(round, "nnm(f=2) | trimmed_mean(f=2)", options);
    options.memory = mib;
    expect_alike(round, "krum(f=2)", options);
  }
}

/// Of arrays that an npz stores, each rank reads a part: the checksum is that of all.
TEST(SharedFiles, DamagedNpz) {
  const Round round(one_dtype);
  Round stored(one_dtype);
  stored.paths.clear();
  for (std::size_t i = 0; i < workers; ++i) {
    const fs::path npz = stored.folder / ("n" + std::to_string(i) + ".npz");
    aggregate_files(parse("mean"), std::vector{round.paths[i]}, npz);
    stored.paths.push_back(npz);
  }
  const std::string whole = read_text(stored.paths[2]);
  for (const double place : {0.2, 0.5, 0.95}) {
    std::string damaged = whole;
    damaged[static_cast<std::size_t>(place * static_cast<double>(whole.size()))] ^= 1;
    bragg::test::write_text(stored.paths[2], damaged);
    for (const std::uint64_t memory : {mib, 64 * mib}) {
      FileOptions options = with_threads();
      options.memory = memory;
      expect_alike(stored, "nnm(f=2) | trimmed_mean(f=2)", options);
    }
    const FileResult result = aggregate_files(parse("krum(f=2)"), stored.paths, stored.folder / "out.npz");
    EXPECT_NE(result.bad[2].find("CRC-32"), std::string::npos) << result.bad[2];
  }
}

TEST(SharedFiles, HashedOnce) {
  const Round round(one_dtype);
  const auto hashes = [&](Communicator* communicator) {
    std::map<std::string, std::string> found;
    FileOptions options = with_threads();
    options.communicator = communicator;
    options.base = round.folder / "base";
    options.hashed = [&](const std::string& path, const std::string& sha256) {
      EXPECT_TRUE(found.emplace(path, sha256).second) << path;
    };
    aggregate_files(parse("median"), round.paths, round.folder / "out", options);
    return found;
  };
  const auto alone = hashes(nullptr);
  EXPECT_EQ(alone.size(), workers + 1u);
  for (const auto& thrown :
       run_ranks(3, [&](LocalCommunicator& ranks) { EXPECT_EQ(hashes(&ranks), alone); })) {
    if (thrown) std::rethrow_exception(thrown);
  }
}

/// Each rank's status and text; nothing of an output is there.
std::vector<std::pair<Status, std::string>> failures(
    const Round& round, int ranks, const std::function<void(LocalCommunicator&, FileOptions&)>& edit,
    const char* pipeline = "krum(f=2)") {
  const std::ptrdiff_t before = round.folder.entries();
  std::vector<std::pair<Status, std::string>> found;
  for (const auto& thrown : run_ranks(ranks, [&](LocalCommunicator& communicator) {
         FileOptions options = with_threads();
         options.communicator = &communicator;
         edit(communicator, options);
         aggregate_files(parse(pipeline), round.paths, round.folder / "out", options);
       })) {
    try {
      if (thrown) std::rethrow_exception(thrown);
      found.emplace_back(Status::ok, "");
    } catch (const Error& error) {
      found.emplace_back(error.status(), error.what());
    }
  }
  EXPECT_EQ(round.folder.entries(), before);
  return found;
}

void expect_all(const std::vector<std::pair<Status, std::string>>& found, Status status,
                const std::string& text) {
  for (const auto& [each, what] : found) {
    EXPECT_EQ(each, status) << what;
    EXPECT_NE(what.find(text), std::string::npos) << what;
    EXPECT_EQ(what, found.front().second);
  }
}

TEST(SharedErrors, ArgumentsThatDiffer) {
  const Round round(one_dtype);
  expect_all(failures(round, 3,
                      [](LocalCommunicator& ranks, FileOptions& options) {
                        options.integers = ranks.rank() == 2 ? Integers::first : Integers::automatic;
                      }),
             Status::disagreement, "ranks 0 and 2 were given different options");
  expect_all(failures(
                 round, 2,
                 [](LocalCommunicator& ranks, FileOptions& options) {
                   options.weights.assign(workers, ranks.rank() + 1.0);
                 },
                 "median"),
             Status::disagreement, "ranks 0 and 1 were given different weights");
}

/// What one rank meets in the middle of its work ends all of them.
TEST(SharedErrors, OfOneRank) {
  const Round round(one_dtype);
  for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
    for (const int place : {1, 4, 9}) {
      std::atomic<int> told = 0;
      expect_all(failures(round, 3,
                          [&](LocalCommunicator& ranks, FileOptions& options) {
                            options.memory = mib;
                            options.options.scope = scope;
                            if (ranks.rank() != 1) return;
                            options.progress = [&](const Progress&) {
                              if (++told == place) throw Error(Status::io_error, "no more room");
                            };
                          }),
                 Status::io_error, "rank 1: no more room");
    }
  }
}

TEST(SharedErrors, OfAll) {
  const Round round(one_dtype);
  fs::resize_file(round.paths[1], 5000);
  expect_all(failures(round, 3, [](LocalCommunicator&, FileOptions& o) { o.bad_inputs = BadInputs::error; }),
             Status::bad_file, "w1");
  fs::resize_file(round.paths[2], 5000);
  fs::resize_file(round.paths[3], 5000);
  expect_all(failures(round, 3, [](LocalCommunicator&, FileOptions&) {}), Status::too_many_nonfinite, "w3");
  expect_all(failures(round, 2, [](LocalCommunicator&, FileOptions& o) { o.options.device = Device::cuda; }),
             Status::unsupported, "device");
}

/// One that is cut off while it is read is a bad input of all ranks, which begin anew.
TEST(SharedInputs, LostByOneRank) {
  for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
    const Round round(one_dtype);
    std::vector<FileResult> results(3);
    std::atomic<bool> cut = false;
    for (const auto& thrown : run_ranks(3, [&](LocalCommunicator& ranks) {
           FileOptions options = with_threads();
           options.communicator = &ranks;
           options.memory = mib;
           options.options.scope = scope;
           if (ranks.rank() == 0) {
             options.progress = [&](const Progress& progress) {
               if (progress.bytes_done > 0 && !cut.exchange(true)) fs::resize_file(round.paths[5], 100'000);
             };
           }
           results[static_cast<std::size_t>(ranks.rank())] = aggregate_files(
               parse("nnm(f=2) | trimmed_mean(f=2)"), round.paths, round.folder / "out", options);
         })) {
      if (thrown) std::rethrow_exception(thrown);
    }
    for (const FileResult& result : results) {
      EXPECT_NE(result.bad[5], "");
      EXPECT_EQ(result.bad, results.front().bad);
    }
    FileOptions options = with_threads();
    options.options.scope = scope;
    const auto together = contents(round.folder / "out");
    aggregate_files(parse("nnm(f=2) | trimmed_mean(f=2)"), round.paths, round.folder / "out", options);
    EXPECT_TRUE(contents(round.folder / "out") == together);
  }
}

/// The report of a run that fails names what was bad, too.
TEST(SharedInputs, AreToldWhereARunFails) {
  const Round round(one_dtype);
  fs::resize_file(round.paths[1], 5000);
  std::vector<std::string> told(2);
  expect_all(failures(round, 2,
                      [&](LocalCommunicator& ranks, FileOptions& options) {
                        options.bad_inputs = BadInputs::error;
                        options.found_bad = [&, rank = static_cast<std::size_t>(ranks.rank())](
                                                std::size_t, const std::string& name, const std::string&) {
                          told[rank] = name;
                        };
                      }),
             Status::bad_file, "w1");
  EXPECT_EQ(told, std::vector<std::string>(2, round.paths[1].string()));
}

#ifdef __linux__
/// Ranks on machines of which one cannot see a worker's file, another not another one's, and the third has
/// another file of a name.
TEST(SharedInputs, UnseenBySomeRanks) {
  const Round round(one_dtype);
  constexpr int ranks = 3;
  std::vector<FileResult> results(ranks);
  for (int r = 0; r < ranks; ++r) {
    const fs::path own = round.folder / ("rank" + std::to_string(r));
    fs::create_directory(own);
    for (int i = 0; i < workers; ++i) {
      if (i != 2 * r + 1 || r == 2)
        fs::create_hard_link(round.paths[static_cast<std::size_t>(i)], own / std::to_string(i));
    }
  }
  fs::remove(round.folder / "rank2" / "5");
  write_model(round.folder / "rank2" / "5", one_dtype, round.seed + 50);
  std::vector<fs::path> names;
  for (int i = 0; i < workers; ++i) names.emplace_back(std::to_string(i));
  std::vector<std::vector<std::string>> told(ranks);
  for (const auto& thrown : run_ranks(ranks, [&](LocalCommunicator& communicator) {
         const auto rank = static_cast<std::size_t>(communicator.rank());
         // A thread with a working directory of its own.
         ASSERT_EQ(::unshare(CLONE_FS), 0);
         ASSERT_EQ(::chdir((round.folder / ("rank" + std::to_string(rank))).c_str()), 0);
         FileOptions options = with_threads();
         options.communicator = &communicator;
         options.found_bad = [&](std::size_t, const std::string& name, const std::string&) {
           told[rank].push_back(name);
         };
         results[rank] =
             aggregate_files(parse("nnm(f=3) | trimmed_mean(f=3)"), names, round.folder / "out", options);
       })) {
    if (thrown) std::rethrow_exception(thrown);
  }
  for (int r = 0; r < ranks; ++r) {
    const FileResult& result = results[static_cast<std::size_t>(r)];
    for (std::size_t i = 0; i < workers; ++i) EXPECT_EQ(result.bad[i].empty(), i % 2 == 0) << i;
    EXPECT_EQ(told[static_cast<std::size_t>(r)], (std::vector<std::string>{"1", "3", "5"}));
  }
  EXPECT_NE(results[0].bad[5].find("different files"), std::string::npos) << results[0].bad[5];
  for (const std::size_t i : {1U, 3U, 5U}) fs::remove(round.paths[i]);
  const std::string together = read_text(round.folder / "out");
  aggregate_files(parse("nnm(f=3) | trimmed_mean(f=3)"), round.paths, round.folder / "out", with_threads());
  EXPECT_TRUE(read_text(round.folder / "out") == together);
}
#endif

}  // namespace
