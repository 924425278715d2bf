// SPDX-License-Identifier: Apache-2.0
// What robustness costs when nobody attacks, and what it is worth when somebody does: the distance of each
// rule's output from the mean of the honest rows, in units of their own spread (the square root of the κ that
// was realised). Tables go to stdout, progress to stderr if that is a terminal.
//
//   compare_rules [HEATMAP.svg]     the tables as colours besides
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bragg/bragg.hpp>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace {

using Row = std::vector<float>;

constexpr int workers = 16;
constexpr int tolerated = 3;
constexpr std::size_t dimension = 100000;

/// Rows about a common signal; with `groups` > 1 workers of different groups hold different data.
std::vector<Row> honest_rows(int count, int groups, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<Row> centers(static_cast<std::size_t>(groups), Row(dimension, 0.0F));
  for (Row& center : centers) {
    for (float& x : center) x = groups > 1 ? normal(random) : 0.0F;
  }
  Row signal(dimension);
  for (float& x : signal) x = normal(random);
  std::vector<Row> rows;
  for (int i = 0; i < count; ++i) {
    Row row(dimension);
    const Row& center = centers[static_cast<std::size_t>(i % groups)];
    for (std::size_t j = 0; j < dimension; ++j) row[j] = signal[j] + center[j] + normal(random);
    rows.push_back(std::move(row));
  }
  return rows;
}

bragg::Updates view(const std::vector<Row>& rows) {
  std::vector<const void*> pointers;
  for (const Row& row : rows) pointers.push_back(row.data());
  return bragg::Updates::rows(pointers, static_cast<std::int64_t>(dimension), bragg::DType::f32);
}

double realised(const Row& out, const std::vector<Row>& honest) {
  double error = 0;
  double spread = 0;
  const auto count = static_cast<double>(honest.size());
  for (std::size_t j = 0; j < dimension; ++j) {
    double mean = 0;
    for (const Row& row : honest) mean += row[j] / count;
    for (const Row& row : honest) spread += (row[j] - mean) * (row[j] - mean) / count;
    error += (out[j] - mean) * (out[j] - mean);
  }
  return std::sqrt(error / spread);
}

/// An attack, or several of which the worst counts: a row each, which all bad workers send.
struct Column {
  const char* name;
  std::vector<Row> rows;
};

/// The row that comes of `make` for each direction.
template <class MakeF>
std::vector<Row> each_direction(MakeF make) {
  using bragg::attacks::Direction;
  return {make(Direction::unit).row, make(Direction::std).row, make(Direction::sign).row};
}

/// The attacks that are the same on every rule.
std::vector<Column> columns(const std::vector<Row>& honest) {
  using namespace bragg::attacks;
  const bragg::Updates updates = view(honest);
  const Moments mean = moments(updates);
  const std::span<const float> first = honest[0];
  return {
      {"NaN", {hostile<float>(dimension, Hostile::nan)}},
      {"sign flip × 10", {sign_flip<float>(first, 10)}},
      {"inner product", {inner_product_manipulation<float>(mean, 0.5)}},
      {"ALIE", {a_little_is_enough<float>(mean, 1.5)}},
      {"mimic", {mimic<float>(first)}},
      {"min-max", each_direction([&](Direction p) { return min_max<float>(updates, p); })},
      {"min-sum", each_direction([&](Direction p) { return min_sum<float>(updates, p); })},
      {"Fang", {fang_trimmed<float>(updates, 7), fang_krum<float>(updates, tolerated).row}},
  };
}

/// The attacks that are made for one.
Column optimal(const std::vector<Row>& honest, const bragg::Pipeline& pipeline) {
  using namespace bragg::attacks;
  return {"optimal",
          {optimal_alie<float>(view(honest), pipeline, tolerated).row,
           optimal_ipm<float>(view(honest), pipeline, tolerated).row}};
}

/// NaN is worse than any number.
double worse(double a, double b) { return std::isnan(a) || a > b ? a : b; }

constexpr std::array pipelines = {"mean",
                                  "median",
                                  "trimmed_mean(f=3)",
                                  "meamed(f=3)",
                                  "phocas(f=3)",
                                  "krum(f=3)",
                                  "multi_krum(f=3)",
                                  "geometric_median",
                                  "huber(tau=400)",
                                  "autogm(lam=4000)",
                                  "mda(f=3)",
                                  "smea(f=3)",
                                  "caf(f=3)",
                                  "monna(f=3)",
                                  "cge(f=3)",
                                  "faba(f=3)",
                                  "dnc(f=3)",
                                  "balance(gamma=1)",
                                  "fltrust(pivot=0)",
                                  "foolsgold",
                                  "quantile_clip | majority_cluster",
                                  "quantile_clip | mean",
                                  "bulyan(f=3)",
                                  "nnm(f=3) | trimmed_mean(f=3)",
                                  "nnm(f=3) | median",
                                  "nnm(f=3) | krum(f=3)",
                                  "nnm(f=3) | geometric_median"};

/// How many pipelines of all tables are done, on one line of a terminal.
class Progress {
 public:
  explicit Progress(std::size_t total) : total_(total) { show(); }
  ~Progress() {
    if (shown_) std::fprintf(stderr, "\r%*s\r", width + 24, "");
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance() {
    ++done_;
    show();
  }

 private:
  static constexpr int width = 40;

  void show() const {
    if (!shown_) return;
    const auto filled = static_cast<int>(done_ * width / total_);
    std::fprintf(stderr, "\r[%s%s] %zu of %zu rules", std::string(filled, '#').c_str(),
                 std::string(width - filled, ' ').c_str(), done_, total_);
    std::fflush(stderr);
  }

  std::size_t total_;
  std::size_t done_ = 0;
  bool shown_ = isatty(STDERR_FILENO) != 0;
};

/// What a table says.
struct Table {
  std::string title;
  std::vector<std::string> columns = {};          ///< nobody attacks, the attacks, worst
  std::vector<std::vector<double>> figures = {};  ///< [pipeline][column]
};

Table measure(int groups, Progress& progress) {
  std::mt19937_64 random(7);
  const std::vector<Row> all = honest_rows(workers, groups, random);
  const std::vector<Row> honest = honest_rows(workers - tolerated, groups, random);
  std::vector<Column> attacks = columns(honest);
  attacks.push_back({"optimal", {}});
  Table table{.title = groups == 1 ? "Workers with alike data" : "Workers with four kinds of data"};
  table.columns.emplace_back("nobody attacks");
  for (const Column& column : attacks) table.columns.emplace_back(column.name);
  table.columns.emplace_back("worst");
  for (const char* text : pipelines) {
    const bragg::Pipeline pipeline = bragg::parse(text);
    attacks.back() = optimal(honest, pipeline);
    Row out(dimension);
    bragg::aggregate(pipeline, view(all), bragg::Output(out.data()));
    std::vector<double> line{realised(out, all)};
    double worst = 0;
    for (const Column& column : attacks) {
      double figure = 0;
      for (const Row& bad : column.rows) {
        std::vector<Row> rows = honest;
        rows.resize(workers, bad);
        bragg::aggregate(pipeline, view(rows), bragg::Output(out.data()));
        figure = worse(realised(out, honest), figure);
      }
      worst = worse(figure, worst);
      line.push_back(figure);
    }
    line.push_back(worst);
    table.figures.push_back(std::move(line));
    progress.advance();
  }
  return table;
}

void print(const Table& table) {
  std::printf("\n%s\n\n| rule |", table.title.c_str());
  for (const std::string& column : table.columns) std::printf(" %s |", column.c_str());
  std::printf("\n|---|");
  for (std::size_t i = 0; i < table.columns.size(); ++i) std::printf("---|");
  std::printf("\n");
  for (std::size_t p = 0; p < pipelines.size(); ++p) {
    std::printf("| `");
    for (const char* c = pipelines[p]; *c != 0; ++c) std::printf("%s%c", *c == '|' ? "\\" : "", *c);
    std::printf("`");
    for (const double figure : table.figures[p]) std::printf(" | %.2f", figure);
    std::printf(" |\n");
  }
  std::fflush(stdout);
}

/// From white at 0 to red at a whole spread and beyond; what is no number is black.
std::string color_of(double figure) {
  if (std::isnan(figure)) return "#000";
  const int rest = static_cast<int>(std::lround(255 * (1 - std::min(figure, 1.0))));
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "#ff%02x%02x", rest, rest);
  return text.data();
}

/// The tables one below the other as an SVG file, a cell a figure.
bool write_heat_map(const char* path, const std::vector<Table>& tables) {
  constexpr int left = 230;  // of the cells, beside the rules' names
  constexpr int top = 50;
  constexpr int cell_width = 78;
  constexpr int cell_height = 18;
  const int width = left + cell_width * static_cast<int>(tables[0].columns.size()) + 10;
  const int height = top + cell_height * static_cast<int>(pipelines.size()) + 20;
  std::ofstream svg(path);
  svg << R"(<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11" width=")" << width
      << R"(" height=")" << height * static_cast<int>(tables.size()) << "\">\n"
      << R"(<path fill="#fff" d="M0 0h)" << width << 'v' << height * static_cast<int>(tables.size())
      << "H0z\"/>\n";
  const auto text = [&](int x, int y, const char* anchor, const char* fill, const std::string& words) {
    svg << "<text x=\"" << x << "\" y=\"" << y << "\" text-anchor=\"" << anchor << "\" fill=\"" << fill
        << "\">" << words << "</text>\n";
  };
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const Table& table = tables[t];
    const int begin = height * static_cast<int>(t);
    text(8, begin + 18, "start", "#000",
         table.title + ": distance from the honest mean, in honest spreads (white 0, red 1 and more)");
    const auto middle = [&](std::size_t column) {
      return left + cell_width * static_cast<int>(column) + cell_width / 2;
    };
    for (std::size_t column = 0; column < table.columns.size(); ++column)
      text(middle(column), begin + top - 8, "middle", "#000", table.columns[column]);
    for (std::size_t p = 0; p < pipelines.size(); ++p) {
      const int y = begin + top + cell_height * static_cast<int>(p);
      text(left - 8, y + 13, "end", "#000", pipelines[p]);
      for (std::size_t column = 0; column < table.columns.size(); ++column) {
        const double figure = table.figures[p][column];
        svg << "<rect x=\"" << middle(column) - cell_width / 2 << "\" y=\"" << y << "\" width=\""
            << cell_width << "\" height=\"" << cell_height << "\" fill=\"" << color_of(figure) << "\"/>\n";
        std::array<char, 32> number{};
        std::snprintf(number.data(), number.size(), "%.2f", figure);
        text(middle(column), y + 13, "middle", std::isnan(figure) ? "#fff" : "#000", number.data());
      }
    }
  }
  svg << "</svg>\n";
  svg.close();
  return svg.good();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2) {
    std::fprintf(stderr, "usage: %s [HEATMAP.svg]\n", argv[0]);
    return 2;
  }
  std::vector<Table> tables;
  {
    Progress progress(2 * pipelines.size());
    for (const int groups : {1, 4}) tables.push_back(measure(groups, progress));
  }
  for (const Table& table : tables) print(table);
  if (argc == 2 && !write_heat_map(argv[1], tables)) {
    std::fprintf(stderr, "%s: cannot be written\n", argv[1]);
    return 4;
  }
}
