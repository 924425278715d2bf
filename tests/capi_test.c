/* SPDX-License-Identifier: Apache-2.0 */
/* The C interface, from C. */
#include <bragg/bragg.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;

#define EXPECT(condition)                                                                                  \
  do {                                                                                                     \
    if (!(condition)) {                                                                                    \
      printf("%s:%d: not so: %s\n  last error: %s\n", __FILE__, __LINE__, #condition, bragg_last_error()); \
      ++failures;                                                                                          \
    }                                                                                                      \
  } while (0)

static int says(const char* part) { return strstr(bragg_last_error(), part) != NULL; }

static void one_shot(void) {
  const float rows[5][2] = {{1, 10}, {2, 20}, {3, 30}, {NAN, INFINITY}, {-1000, 5}};
  float out[2] = {0, 0};
  EXPECT(strcmp(bragg_last_error(), "") == 0);
  EXPECT(bragg_aggregate("median", rows, 5, 2, -1, BRAGG_F32, out, NULL, NULL, NULL) == BRAGG_OK);
  EXPECT(out[0] == 2 && out[1] == 20);
  EXPECT(bragg_aggregate("trimmed_mean(f=1)", rows, 5, 1, 2, BRAGG_F32, out, NULL, NULL, NULL) == BRAGG_OK);
  EXPECT(out[0] == 2); /* (1 + 2 + 3) / 3: NaN is read as +inf */

  const double weights[5] = {0, 3, 1, 0, 0};
  EXPECT(bragg_aggregate("mean", rows, 5, 2, -1, BRAGG_F32, out, NULL, weights, NULL) == BRAGG_OK);
  EXPECT(out[0] == 2.25F && out[1] == 22.5F);

  const float reference[2] = {1, 10};
  EXPECT(bragg_aggregate("clip(c=0) | mean", rows, 3, 2, -1, BRAGG_F32, out, reference, NULL, NULL) ==
         BRAGG_OK);
  EXPECT(out[0] == 1 && out[1] == 10);
}

static void errors(void) {
  const float rows[6] = {1, 2, 3, 4, 5, 6};
  float out[2] = {7, 8};
  EXPECT(bragg_aggregate("krum(f=1", rows, 3, 2, -1, BRAGG_F32, out, NULL, NULL, NULL) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(says("column 9"));
  EXPECT(bragg_aggregate("krum(f=1)", rows, 3, 2, -1, BRAGG_F32, out, NULL, NULL, NULL) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(says("n = 3 rows with f = 1"));
  EXPECT(bragg_aggregate(NULL, rows, 3, 2, -1, BRAGG_F32, out, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(says("pipeline is null"));
  EXPECT(bragg_aggregate("mean", NULL, 3, 2, -1, BRAGG_F32, out, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_aggregate("mean", rows, 3, 2, -1, BRAGG_F32, NULL, NULL, NULL, NULL) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_aggregate("mean", rows, 0, 2, -1, BRAGG_F32, out, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_aggregate("mean", rows, 3, 2, 1, BRAGG_F32, out, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_aggregate("mean", rows, 3, 2, -1, 99, out, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(says("dtype = 99"));
  EXPECT(bragg_aggregate("smea(f=20)", rows, 64, 0, -1, BRAGG_F32, out, NULL, NULL, NULL) == BRAGG_TOO_LARGE);
  EXPECT(out[0] == 7 && out[1] == 8);
  EXPECT(strcmp(bragg_status_name(BRAGG_TOO_LARGE), "too_large") == 0);
  EXPECT(bragg_status_name(12345) != NULL);
}

static void nonfinite_rows(void) {
  const float rows[4][1] = {{1}, {NAN}, {NAN}, {2}};
  float out[1] = {7};
  bragg_options options = BRAGG_OPTIONS_INIT;
  EXPECT(bragg_aggregate("cge(f=1)", rows, 4, 1, -1, BRAGG_F32, out, NULL, NULL, &options) ==
         BRAGG_TOO_MANY_NONFINITE);
  EXPECT(says("rows 1") && out[0] == 7);
  options.on_failure = BRAGG_NAN;
  EXPECT(bragg_aggregate("cge(f=1)", rows, 4, 1, -1, BRAGG_F32, out, NULL, NULL, &options) ==
         BRAGG_TOO_MANY_NONFINITE);
  EXPECT(isnan(out[0]));
  options.on_failure = BRAGG_ZERO;
  EXPECT(bragg_aggregate("cge(f=1)", rows, 4, 1, -1, BRAGG_F32, out, NULL, NULL, &options) ==
         BRAGG_TOO_MANY_NONFINITE);
  EXPECT(out[0] == 0);
}

static void plan_of_tensors(void) {
  const double a[3][2] = {{1, 2}, {3, 4}, {100, 100}};
  const double b[3][1] = {{1}, {2}, {3}};
  const void* rows[6] = {a[0], b[0], a[1], b[1], a[2], b[2]};
  const int64_t sizes[2] = {2, 1};
  double out_a[2] = {0, 0};
  double out_b[1] = {0};
  void* out[2] = {out_a, out_b};
  bragg_plan* plan = NULL;
  bragg_report report = BRAGG_REPORT_INIT;
  bragg_row_report row = BRAGG_ROW_REPORT_INIT;

  EXPECT(bragg_plan_create("cge(f=1)", 3, sizes, 2, BRAGG_F64, NULL, &plan) == BRAGG_OK);
  EXPECT(bragg_plan_report_count(plan) == 1);
  EXPECT(bragg_plan_row_report(plan, 0, 0, &row) == BRAGG_INVALID_ARGUMENT);
  EXPECT(says("run the plan first"));
  EXPECT(bragg_plan_run(plan, rows, out, NULL, NULL) == BRAGG_OK);
  EXPECT(bragg_plan_status(plan) == BRAGG_OK);
  EXPECT(out_a[0] == 2 && out_a[1] == 3 && out_b[0] == 1.5); /* row 2 is the longest */
  EXPECT(bragg_plan_report(plan, 0, &report) == BRAGG_OK);
  EXPECT(report.rows == 3 && report.status == BRAGG_OK && report.converged == 1);
  EXPECT(isnan(report.optimality_gap));
  EXPECT(strcmp(bragg_status_name(BRAGG_NOT_CONVERGED), "not_converged") == 0);
  EXPECT(strcmp(bragg_status_name(BRAGG_NONFINITE_PIVOT), "nonfinite_pivot") == 0);
  EXPECT(strcmp(bragg_status_name(BRAGG_NO_MAJORITY), "no_majority") == 0);
  EXPECT(strcmp(bragg_status_name(BRAGG_COMMUNICATION), "communication") == 0);
  EXPECT(strcmp(bragg_status_name(BRAGG_DISAGREEMENT), "disagreement") == 0);
  EXPECT(report.recentred == 0 && report.distance_error > 0 && report.distance_error < 1e-9);
  EXPECT(bragg_plan_row_report(plan, 0, 0, &row) == BRAGG_OK);
  EXPECT(row.weight == 0.5 && row.selected == 1 && row.nonfinite == 0 && row.clip_factor == 1);
  EXPECT(fabs(row.score - sqrt(6)) < 1e-15); /* ‖(1, 2, 1)‖ */
  EXPECT(bragg_plan_row_report(plan, 0, 2, &row) == BRAGG_OK);
  EXPECT(row.weight == 0 && row.selected == 0);
  EXPECT(bragg_plan_row_report(plan, 0, 3, &row) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_plan_row_report(plan, 1, 0, &row) == BRAGG_INVALID_ARGUMENT);

  /* out may be one of the rows. */
  double own_a[2] = {1, 2};
  double own_b[1] = {1};
  const void* own_rows[6] = {own_a, own_b, a[1], b[1], a[2], b[2]};
  void* own_out[2] = {own_a, own_b};
  EXPECT(bragg_plan_run(plan, own_rows, own_out, NULL, NULL) == BRAGG_OK);
  EXPECT(own_a[0] == 2 && own_a[1] == 3 && own_b[0] == 1.5);

  EXPECT(bragg_plan_run(plan, NULL, out, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_plan_run(plan, rows, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_plan_run(NULL, rows, out, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  bragg_plan_destroy(plan);
}

static void per_tensor_scope(void) {
  const float rows_data[3][2] = {{1, 90}, {2, 2}, {80, 1}};
  const void* rows[6] = {&rows_data[0][0], &rows_data[0][1], &rows_data[1][0],
                         &rows_data[1][1], &rows_data[2][0], &rows_data[2][1]};
  const int64_t sizes[2] = {1, 1};
  float values[2] = {0, 0};
  void* out[2] = {&values[0], &values[1]};
  bragg_options options = BRAGG_OPTIONS_INIT;
  options.scope = BRAGG_PER_TENSOR;
  bragg_plan* plan = NULL;
  EXPECT(bragg_plan_create("cge(f=1)", 3, sizes, 2, BRAGG_F32, &options, &plan) == BRAGG_OK);
  EXPECT(bragg_plan_run(plan, rows, out, NULL, NULL) == BRAGG_OK);
  EXPECT(values[0] == 1.5F && values[1] == 1.5F);
  EXPECT(bragg_plan_report_count(plan) == 2);
  bragg_row_report row = BRAGG_ROW_REPORT_INIT;
  EXPECT(bragg_plan_row_report(plan, 1, 0, &row) == BRAGG_OK && row.selected == 0);
  EXPECT(bragg_plan_row_report(plan, 1, 2, &row) == BRAGG_OK && row.selected == 1);
  bragg_plan_destroy(plan);
}

static void judged_tensors(void) {
  /* The second tensor would drop row 0; by the first, row 2 is the longest. */
  const float rows_data[3][2] = {{1, 90}, {2, 2}, {80, 1}};
  const void* rows[6] = {&rows_data[0][0], &rows_data[0][1], &rows_data[1][0],
                         &rows_data[1][1], &rows_data[2][0], &rows_data[2][1]};
  const int64_t sizes[2] = {1, 1};
  uint8_t judged[2] = {1, 0};
  float values[2] = {0, 0};
  void* out[2] = {&values[0], &values[1]};
  bragg_options options = BRAGG_OPTIONS_INIT;
  options.judged = judged;
  bragg_plan* plan = NULL;
  EXPECT(bragg_plan_create("cge(f=1)", 3, sizes, 2, BRAGG_F32, &options, &plan) == BRAGG_OK);
  judged[0] = 0; /* it was copied */
  EXPECT(bragg_plan_run(plan, rows, out, NULL, NULL) == BRAGG_OK);
  EXPECT(values[0] == 1.5F && values[1] == 46);
  bragg_plan_destroy(plan);
  EXPECT(bragg_plan_create("cge(f=1)", 3, sizes, 2, BRAGG_F32, &options, &plan) == BRAGG_INVALID_ARGUMENT);
  EXPECT(says("judged: no tensor is"));
  /* A caller from before there was the field. */
  options.struct_size = offsetof(bragg_options, judged);
  EXPECT(bragg_plan_create("cge(f=1)", 3, sizes, 2, BRAGG_F32, &options, &plan) == BRAGG_OK);
  EXPECT(bragg_plan_run(plan, rows, out, NULL, NULL) == BRAGG_OK);
  EXPECT(values[0] == 41 && values[1] == 1.5F);
  bragg_plan_destroy(plan);
  options.struct_size = sizeof options;
  EXPECT(bragg_aggregate("cge(f=1)", rows_data, 3, 2, -1, BRAGG_F32, values, NULL, NULL, &options) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(says("options.judged"));
}

static void state(void) {
  const float rows[2] = {10, 10};
  const void* pointers[2] = {&rows[0], &rows[1]};
  const int64_t size = 1;
  float value = 0;
  void* out = &value;
  bragg_plan* plan = NULL;
  EXPECT(bragg_plan_create("centered_clipping(tau=1)", 2, &size, 1, BRAGG_F32, NULL, &plan) == BRAGG_OK);
  EXPECT(bragg_plan_run(plan, pointers, &out, NULL, NULL) == BRAGG_OK && value == 1);
  EXPECT(bragg_plan_run(plan, pointers, &out, NULL, NULL) == BRAGG_OK && value == 2);
  EXPECT(bragg_plan_reset(plan) == BRAGG_OK);
  EXPECT(bragg_plan_run(plan, pointers, &out, NULL, NULL) == BRAGG_OK && value == 1);
  bragg_plan_destroy(plan);
}

static void structs_of_other_versions(void) {
  const float rows[2] = {1, 3};
  float out = 0;
  /* An older caller knows fewer fields: the rest keeps its default, whatever lies there. */
  bragg_options old = {0, 77, 77, 77, -5, -1.0, 77, -9, 77, 77, NULL};
  old.struct_size = sizeof(size_t);
  EXPECT(bragg_aggregate("mean", rows, 2, 1, -1, BRAGG_F32, &out, NULL, NULL, &old) == BRAGG_OK && out == 2);
  /* A newer caller may have more fields, as long as it does not use them. */
  struct {
    bragg_options options;
    int64_t later;
  } newer = {BRAGG_OPTIONS_INIT, 0};
  newer.options.struct_size = sizeof newer;
  EXPECT(bragg_aggregate("mean", rows, 2, 1, -1, BRAGG_F32, &out, NULL, NULL, &newer.options) == BRAGG_OK);
  newer.later = 1;
  EXPECT(bragg_aggregate("mean", rows, 2, 1, -1, BRAGG_F32, &out, NULL, NULL, &newer.options) ==
         BRAGG_UNSUPPORTED);
  bragg_options forgotten = BRAGG_OPTIONS_INIT;
  forgotten.struct_size = 0;
  EXPECT(bragg_aggregate("mean", rows, 2, 1, -1, BRAGG_F32, &out, NULL, NULL, &forgotten) ==
         BRAGG_INVALID_ARGUMENT);
  bragg_options wrong = BRAGG_OPTIONS_INIT;
  wrong.scope = 5;
  EXPECT(bragg_aggregate("mean", rows, 2, 1, -1, BRAGG_F32, &out, NULL, NULL, &wrong) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(says("options.scope = 5"));

  bragg_plan* plan = NULL;
  const int64_t size = 1;
  EXPECT(bragg_plan_create("mean", 2, &size, 1, BRAGG_F32, NULL, &plan) == BRAGG_OK);
  bragg_report report = {offsetof(bragg_report, rows), -1, -1, -1, -1, -1.0, -1.0, -1};
  EXPECT(bragg_plan_report(plan, 0, &report) == BRAGG_OK && report.status == BRAGG_OK);
  EXPECT(report.rows == -1 && report.iterations == -1); /* not this caller's */
  bragg_plan_destroy(plan);
}

static void plans_that_cannot_be(void) {
  const int64_t sizes[1] = {-1};
  bragg_plan* plan = (bragg_plan*)&plan;
  EXPECT(bragg_plan_create("mean", 2, sizes, 1, BRAGG_F32, NULL, &plan) == BRAGG_INVALID_ARGUMENT);
  EXPECT(plan == NULL);
  EXPECT(bragg_plan_create("mean", 2, NULL, 1, BRAGG_F32, NULL, &plan) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_plan_create("mean", 0, NULL, 0, BRAGG_F32, NULL, &plan) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_plan_create("mean", 2, sizes, 1, BRAGG_F32, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_plan_report_count(NULL) == 0);
  EXPECT(bragg_plan_status(NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_plan_reset(NULL) == BRAGG_INVALID_ARGUMENT);
  bragg_plan_destroy(NULL);
}

static void no_tensors(void) {
  bragg_plan* plan = NULL;
  EXPECT(bragg_plan_create("nnm(f=1) | median", 3, NULL, 0, BRAGG_F32, NULL, &plan) == BRAGG_OK);
  EXPECT(bragg_plan_run(plan, NULL, NULL, NULL, NULL) == BRAGG_OK);
  bragg_plan_destroy(plan);
}

static void points(void) {
  const float rows[4][2] = {{0, 8}, {2, 8}, {4, 0}, {NAN, 0}};
  float made[4][2] = {{7, 7}, {7, 7}, {7, 7}, {7, 7}};
  int32_t count = 0;
  EXPECT(bragg_points_after("bucketing(s=2, permutation=[0,1,2,3])", 4, &count) == BRAGG_OK && count == 2);
  EXPECT(bragg_points_after("bucketing(s=2) | nnm(f=1)", 5, &count) == BRAGG_OK && count == 3);
  EXPECT(bragg_points_after("median", 4, &count) == BRAGG_INVALID_ARGUMENT && says("column 1"));
  EXPECT(bragg_points_after("nnm(f=1)", 4, NULL) == BRAGG_INVALID_ARGUMENT && says("points is null"));

  EXPECT(bragg_pre_aggregate("nnm(f=1)", rows, 3, 2, -1, BRAGG_F32, made, NULL, NULL) == BRAGG_OK);
  EXPECT(made[0][0] == 1 && made[0][1] == 8 && made[1][0] == 1 && made[1][1] == 8);
  EXPECT(made[2][0] == 3 && made[2][1] == 4 && made[3][0] == 7);

  double wide[2][2] = {{7, 7}, {7, 7}};
  const double doubles[4][2] = {{0, 8}, {2, 8}, {4, 0}, {6, 2}};
  EXPECT(bragg_pre_aggregate("bucketing(s=2, permutation=[0,1,2,3])", doubles, 4, 2, -1, BRAGG_F64, wide,
                             NULL, NULL) == BRAGG_OK);
  EXPECT(wide[0][0] == 1 && wide[0][1] == 8 && wide[1][0] == 5 && wide[1][1] == 1);

  const float reference[2] = {1, 8};
  EXPECT(bragg_pre_aggregate("clip(c=0)", rows, 2, 2, -1, BRAGG_F32, made, reference, NULL) == BRAGG_OK);
  EXPECT(made[0][0] == 1 && made[0][1] == 8 && made[1][0] == 1 && made[1][1] == 8);

  EXPECT(bragg_pre_aggregate("nnm(f=1)", rows, 3, 2, -1, BRAGG_F32, NULL, NULL, NULL) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(says("out is null"));
  EXPECT(bragg_pre_aggregate("nnm(f=3)", rows, 3, 2, -1, BRAGG_F32, made, NULL, NULL) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(says("f = 3"));
  EXPECT(bragg_pre_aggregate("nnm(f=1)", rows, 3, 2, -1, BRAGG_F32, (void*)rows, NULL, NULL) ==
         BRAGG_INVALID_ARGUMENT);
}

static void devices(void) {
  const int64_t size = 2;
  const float rows[2][2] = {{1, 2}, {3, 4}};
  const void* pointers[2] = {rows[0], rows[1]};
  float out[2];
  void* target = out;
  bragg_plan* plan = NULL;
  EXPECT(bragg_cuda_device_count() >= 0);
  EXPECT(bragg_plan_create("mean", 2, &size, 1, BRAGG_F32, NULL, &plan) == BRAGG_OK);
  EXPECT(bragg_plan_workspace_bytes(plan) == 0 && bragg_plan_workspace_bytes(NULL) == 0);
  EXPECT(bragg_plan_enqueue(plan, pointers, &target, NULL, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  EXPECT(says("the plan is for the CPU"));
  EXPECT(bragg_plan_wait(plan, NULL) == BRAGG_OK);
  EXPECT(bragg_plan_enqueue(NULL, pointers, &target, NULL, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
  bragg_plan_destroy(plan);

  bragg_options options = BRAGG_OPTIONS_INIT;
  options.device = BRAGG_CUDA;
  if (bragg_cuda_device_count() == 0) {
    EXPECT(bragg_plan_create("mean", 2, &size, 1, BRAGG_F32, &options, &plan) == BRAGG_UNSUPPORTED);
    EXPECT(plan == NULL && says("CUDA"));
  }
  options.device = 7;
  EXPECT(bragg_plan_create("mean", 2, &size, 1, BRAGG_F32, &options, &plan) == BRAGG_INVALID_ARGUMENT);
  EXPECT(says("options.device = 7"));
}

enum { ranks = 5, elements = 20000 };

/* Moves what all ranks are about to send. */
static void move_all(const bragg_transfer* transfers) {
  for (int to = 0; to < ranks; ++to) {
    char* at = transfers[to].receive;
    for (int from = 0; from < ranks; ++from) {
      const int64_t bytes = transfers[to].receive_bytes[from];
      const char* source = transfers[from].send;
      for (int k = 0; k < to && transfers[from].send_bytes != NULL; ++k)
        source += transfers[from].send_bytes[k];
      if (bytes > 0 && at != source) memcpy(at, source, (size_t)bytes);
      at += bytes;
    }
  }
}

static bragg_status run_all(bragg_all_reduce** job) {
  bragg_transfer transfers[ranks];
  for (;;) {
    bragg_status status = BRAGG_OK;
    for (int rank = 0; rank < ranks; ++rank) {
      const bragg_transfer empty = BRAGG_TRANSFER_INIT;
      transfers[rank] = empty;
      const bragg_status mine = bragg_all_reduce_next(job[rank], &transfers[rank]);
      EXPECT(rank == 0 || mine == status);
      EXPECT(transfers[rank].ranks == transfers[0].ranks);
      status = mine;
    }
    if (transfers[0].ranks == 0) return status;
    EXPECT(transfers[0].ranks == ranks);
    move_all(transfers);
  }
}

static void all_reduce(void) {
  static float rows[ranks][elements], out[ranks][elements], expected[elements];
  const int64_t sizes[2] = {elements - 1, 1};
  bragg_all_reduce* job[ranks];
  bragg_report report = BRAGG_REPORT_INIT;
  bragg_row_report row = BRAGG_ROW_REPORT_INIT;
  int64_t begin = -1, end = -1;
  for (int i = 0; i < ranks; ++i) {
    for (int j = 0; j < elements; ++j) rows[i][j] = (float)((7 * i + 3 * j) % 11);
  }
  rows[1][5] = NAN;
  for (int rank = 0; rank < ranks; ++rank) {
    EXPECT(bragg_all_reduce_create("nnm(f=1) | trimmed_mean(f=1)", ranks, rank, sizes, 2, BRAGG_F32, 1, 2,
                                   NULL, &job[rank]) == BRAGG_OK);
    const void* const mine[2] = {rows[rank], rows[rank] + elements - 1};
    void* const to[2] = {out[rank], out[rank] + elements - 1};
    EXPECT(bragg_all_reduce_begin(job[rank], mine, to, NULL, NULL) == BRAGG_OK);
  }
  EXPECT(run_all(job) == BRAGG_OK);
  EXPECT(bragg_aggregate("nnm(f=1) | trimmed_mean(f=1)", rows, ranks, elements, -1, BRAGG_F32, expected, NULL,
                         NULL, NULL) == BRAGG_OK);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int j = 0; j < elements; ++j) EXPECT(fabsf(out[rank][j] - expected[j]) < 1e-5f);
    EXPECT(memcmp(out[rank], out[0], sizeof out[0]) == 0);
    EXPECT(bragg_all_reduce_report_count(job[rank]) == 1);
    EXPECT(bragg_all_reduce_report(job[rank], 0, &report) == BRAGG_OK && report.rows == ranks);
    EXPECT(bragg_all_reduce_row_report(job[rank], 0, 1, &row) == BRAGG_OK && row.nonfinite == 1);
  }
  for (int rank = 0; rank < ranks; ++rank) {
    const int64_t before = rank == 0 ? 0 : end;
    EXPECT(bragg_all_reduce_slice(job[0], rank, 0, &begin, &end) == BRAGG_OK);
    EXPECT(begin == end || (begin == before && begin % 8192 == 0));
    if (begin == end) end = before;
  }
  EXPECT(end == elements - 1);
  EXPECT(bragg_all_reduce_slice(job[0], ranks, 0, &begin, &end) == BRAGG_INVALID_ARGUMENT);
  EXPECT(bragg_all_reduce_slice(job[0], 0, 2, &begin, &end) == BRAGG_INVALID_ARGUMENT);

  /* What one rank does wrong ends the run on all. */
  for (int rank = 0; rank < ranks; ++rank) {
    const void* const mine[2] = {rows[rank], rank == 3 ? NULL : rows[rank] + elements - 1};
    void* const to[2] = {out[rank], out[rank] + elements - 1};
    EXPECT(bragg_all_reduce_begin(job[rank], mine, to, NULL, NULL) == BRAGG_OK);
  }
  EXPECT(run_all(job) == BRAGG_INVALID_ARGUMENT && says("rank 3"));
  EXPECT(bragg_all_reduce_status(job[0]) == BRAGG_INVALID_ARGUMENT);
  for (int rank = 0; rank < ranks; ++rank) {
    const void* const mine[2] = {rows[rank], rows[rank] + elements - 1};
    void* const to[2] = {out[rank], out[rank] + elements - 1};
    EXPECT(bragg_all_reduce_begin(job[rank], rank == 1 ? NULL : mine, to, NULL, NULL) == BRAGG_OK);
  }
  EXPECT(run_all(job) == BRAGG_INVALID_ARGUMENT && says("rank 1"));

  /* So does a rank that has no plan. */
  {
    bragg_all_reduce* const plan = job[2];
    bragg_all_reduce* failed = NULL;
    EXPECT(bragg_all_reduce_create_failed(ranks, ranks, BRAGG_IO_ERROR, "no disk", &failed) ==
           BRAGG_INVALID_ARGUMENT);
    EXPECT(bragg_all_reduce_create_failed(ranks, 2, BRAGG_OK, "no disk", &failed) == BRAGG_INVALID_ARGUMENT);
    EXPECT(bragg_all_reduce_create_failed(ranks, 2, BRAGG_IO_ERROR, NULL, &failed) == BRAGG_INVALID_ARGUMENT);
    EXPECT(failed == NULL);
    EXPECT(bragg_all_reduce_create_failed(ranks, 2, BRAGG_IO_ERROR, "no disk", &failed) == BRAGG_OK);
    EXPECT(bragg_all_reduce_begin(failed, NULL, NULL, NULL, NULL) == BRAGG_INVALID_ARGUMENT);
    EXPECT(bragg_all_reduce_report_count(failed) == 0);
    EXPECT(bragg_all_reduce_slice(failed, 0, 0, &begin, &end) == BRAGG_INVALID_ARGUMENT);
    for (int rank = 0; rank < ranks; ++rank) {
      const void* const mine[2] = {rows[rank], rows[rank] + elements - 1};
      void* const to[2] = {out[rank], out[rank] + elements - 1};
      if (rank != 2) EXPECT(bragg_all_reduce_begin(job[rank], mine, to, NULL, NULL) == BRAGG_OK);
    }
    job[2] = failed;
    EXPECT(run_all(job) == BRAGG_IO_ERROR && says("no disk"));
    bragg_all_reduce_destroy(failed);
    job[2] = plan;
  }
  for (int rank = 0; rank < ranks; ++rank) EXPECT(bragg_all_reduce_reset(job[rank]) == BRAGG_OK);

  /* Data that defeats the rule has its status on all ranks. */
  for (int rank = 0; rank < ranks; ++rank) {
    for (int i = 0; i < 3; ++i) rows[i][0] = NAN;
    const void* const mine[2] = {rows[rank], rows[rank] + elements - 1};
    void* const to[2] = {out[rank], out[rank] + elements - 1};
    EXPECT(bragg_all_reduce_begin(job[rank], mine, to, NULL, NULL) == BRAGG_OK);
  }
  EXPECT(run_all(job) == BRAGG_TOO_MANY_NONFINITE && says("rows 0"));
  for (int rank = 0; rank < ranks; ++rank) bragg_all_reduce_destroy(job[rank]);

  EXPECT(bragg_all_reduce_create("median", ranks, ranks, sizes, 2, BRAGG_F32, 1, 2, NULL, &job[0]) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(job[0] == NULL && says("rank = 5"));
  bragg_options on_device = BRAGG_OPTIONS_INIT;
  on_device.device = BRAGG_CUDA;
  EXPECT(bragg_all_reduce_create("median", ranks, 0, sizes, 2, BRAGG_F32, 1, 1, &on_device, &job[0]) ==
         BRAGG_INVALID_ARGUMENT);
  EXPECT(job[0] == NULL && says("options.device = cuda"));
  bragg_all_reduce_destroy(NULL);
}

int main(void) {
  EXPECT(strlen(bragg_version()) >= 5);
  one_shot();
  errors();
  nonfinite_rows();
  plan_of_tensors();
  per_tensor_scope();
  judged_tensors();
  state();
  structs_of_other_versions();
  plans_that_cannot_be();
  no_tensors();
  points();
  devices();
  all_reduce();
  if (failures == 0) printf("the C interface: all as expected\n");
  return failures == 0 ? 0 : 1;
}
