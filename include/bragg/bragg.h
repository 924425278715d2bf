/* SPDX-License-Identifier: Apache-2.0 */
/* The C interface. No function throws; those that can fail return a status, and bragg_last_error says more.
 */
#ifndef BRAGG_BRAGG_H
#define BRAGG_BRAGG_H

#include <bragg/export.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Outcome of a call or a run. The numbers do not change. */
typedef enum bragg_status {
  BRAGG_OK = 0,
  BRAGG_INVALID_ARGUMENT = 1,   /**< an argument breaks a stated bound */
  BRAGG_TOO_MANY_NONFINITE = 2, /**< more rows hold NaN or infinity than the pipeline tolerates */
  BRAGG_TOO_LARGE = 3,          /**< an exact combinatorial rule (mda, smea) would exceed its work limit */
  BRAGG_NONFINITE_BASE = 4,     /**< the base, which a rule measures from, is not finite */
  BRAGG_UNSUPPORTED = 5,        /**< a legal request that this build cannot serve */
  BRAGG_BAD_FILE = 6,
  BRAGG_IO_ERROR = 7,
  BRAGG_OUT_OF_MEMORY = 8,
  BRAGG_INTERNAL = 9,         /**< a defect in bragg */
  BRAGG_NOT_CONVERGED = 10,   /**< an iterative rule ended too far from the optimum to keep its guarantee */
  BRAGG_NONFINITE_PIVOT = 11, /**< the row that the rule trusts is a bad input, or not finite */
  BRAGG_NO_MAJORITY = 12,     /**< the rows give the rule nothing to choose by: foolsgold, all alike */
  BRAGG_COMMUNICATION = 13,   /**< a rank of the job failed, or did not come in time */
  BRAGG_DISAGREEMENT = 14     /**< the ranks were given different things, or computed different bits */
} bragg_status;

/** Element types; 16-bit values are their bits in a uint16_t. */
typedef enum bragg_dtype {
  BRAGG_SAME_DTYPE = -1, /**< as out_dtype only: that of the updates */
  BRAGG_F32 = 0,
  BRAGG_F16 = 1,
  BRAGG_BF16 = 2,
  BRAGG_F64 = 3
} bragg_dtype;

/** Whether distances, state and reports are of whole rows or of each tensor apart. */
typedef enum bragg_scope { BRAGG_WHOLE = 0, BRAGG_PER_TENSOR = 1 } bragg_scope;

/** Content of the output after a run whose status is not BRAGG_OK. */
typedef enum bragg_on_failure { BRAGG_KEEP = 0, BRAGG_NAN = 1, BRAGG_ZERO = 2 } bragg_on_failure;

/** What computes, and so where rows, outputs and the base live. */
typedef enum bragg_device { BRAGG_CPU = 0, BRAGG_CUDA = 1 } bragg_device;

/** Structs begin with their size, so that later versions can add fields. Start from BRAGG_OPTIONS_INIT. */
typedef struct bragg_options {
  size_t struct_size;      /**< sizeof(bragg_options) */
  int32_t scope;           /**< bragg_scope */
  int32_t on_failure;      /**< bragg_on_failure */
  int32_t out_dtype;       /**< bragg_dtype: that of the updates, or f32 for 16-bit updates */
  int32_t threads;         /**< CPU threads; 0: automatic. The result does not depend on it */
  double max_weight_share; /**< cap on a client weight's share of the sum; 0: none, else at least 1/n */
  int32_t device;          /**< bragg_device */
  int32_t cuda_device;     /**< its index; -1: the one that is current when the plan is made */
  int32_t lent_workspace;  /**< CUDA: not 0: the plan allocates no workspace, every run is lent one */
  int32_t reserved;        /**< 0 */
  /** bragg_plan_create and bragg_all_reduce_create alone, per tensor: 0: rows are not judged by it.
   * Distances, norms and f are about the others, and what follows from them holds for all tensors; what a row
   * that is kept holds in this one is believed. Copied. Null: rows are judged by all. Not with
   * BRAGG_PER_TENSOR. */
  const uint8_t* judged;
} bragg_options;
#define BRAGG_OPTIONS_INIT \
  { sizeof(bragg_options), BRAGG_WHOLE, BRAGG_KEEP, BRAGG_SAME_DTYPE, 0, 0.0, BRAGG_CPU, -1, 0, 0, NULL }

/** Outcome of a run. */
typedef struct bragg_report {
  size_t struct_size; /**< set by the caller: sizeof(bragg_report) */
  int32_t status;     /**< bragg_status */
  int32_t rows;       /**< n; 0 before the first run */
  int32_t iterations; /**< of geometric_median, huber, autogm, centered_clipping, caf; else 0 */
  int32_t converged;  /**< 0: geometric_median, huber or autogm stopped at max_iters */
  /** geometric_median run to convergence: the objective is at most this far above its minimum, relative to
   * half of the weight times the distance within which more than half of it is; else NaN */
  double optimality_gap;
  /** the largest rounding error of a distance that decided, as a share of it and of the spread of the
   * majority */
  double distance_error;
  int32_t recentred; /**< 1: distances were taken once more, about a centre: one more read */
} bragg_report;
#define BRAGG_REPORT_INIT \
  { sizeof(bragg_report), 0, 0, 0, 0, 0.0, 0.0, 0 }

/** Outcome of a run for one row. */
typedef struct bragg_row_report {
  size_t struct_size; /**< set by the caller: sizeof(bragg_row_report) */
  double
      weight; /**< the row's coefficient in the output (geometric rules) or in the points that the rule saw */
  double score;       /**< of rules that score rows; else NaN */
  double clip_factor; /**< 1: not clipped; 0: an infinite row */
  int64_t nonfinite;  /**< coordinates that are NaN or infinite */
  int32_t selected;   /**< weight is not 0 */
} bragg_row_report;
#define BRAGG_ROW_REPORT_INIT \
  { sizeof(bragg_row_report), 0.0, 0.0, 0.0, 0, 0 }

/** "0.1.0" */
BRAGG_API const char* bragg_version(void);

/** The name of a bragg_status, e.g. "too_many_nonfinite". Static. */
BRAGG_API const char* bragg_status_name(int32_t status);

/** A sentence on the last call that failed in this thread; "" when none has. Valid until the next call fails.
 */
BRAGG_API const char* bragg_last_error(void);

/** A pipeline made ready for one shape, with its workspace and its state. One call at a time. */
typedef struct bragg_plan bragg_plan;

/**
 * Makes a plan. `pipeline`: text, e.g. "nnm(f=2) | trimmed_mean(f=2)". `sizes`: elements of each of the
 * `tensors` tensors of a row; copied. `dtype`: a bragg_dtype. `options`: may be null. `*plan` is null on
 * failure. Fails with BRAGG_INVALID_ARGUMENT (with a column for a mistake in the text), BRAGG_TOO_LARGE
 * (smea).
 */
BRAGG_API bragg_status bragg_plan_create(const char* pipeline, int32_t n, const int64_t* sizes,
                                         size_t tensors, int32_t dtype, const bragg_options* options,
                                         bragg_plan** plan);

/** Null is allowed. */
BRAGG_API void bragg_plan_destroy(bragg_plan* plan);

/**
 * Aggregates and waits. `rows[i * tensors + t]` is tensor t of row i, `out[t]` where tensor t of the result
 * goes: one of the rows' or the base's own, or apart from all. `base` (`tensors` pointers) and
 * `weights` (n) may be null: the origin, and all alike. Nothing is kept of them. Fails with
 * BRAGG_INVALID_ARGUMENT and then has done nothing, or with the run's status: BRAGG_TOO_MANY_NONFINITE,
 * BRAGG_NONFINITE_BASE, BRAGG_TOO_LARGE (mda).
 */
BRAGG_API bragg_status bragg_plan_run(bragg_plan* plan, const void* const* rows, void* const* out,
                                      const void* const* base, const double* weights);

/** CUDA devices that this build and this machine can use. */
BRAGG_API int32_t bragg_cuda_device_count(void);

/**
 * For a plan with device = BRAGG_CUDA: enqueues the aggregation on `stream` (a cudaStream_t) and returns; all
 * addresses are of the plan's device. `workspace`: bragg_plan_workspace_bytes of device memory at a multiple
 * of 256, or null for the plan's own. Can be captured in a CUDA graph, unless the rule is mda or smea. Fails
 * with BRAGG_INVALID_ARGUMENT, or with what CUDA reports: BRAGG_UNSUPPORTED, BRAGG_OUT_OF_MEMORY,
 * BRAGG_INTERNAL.
 */
BRAGG_API bragg_status bragg_plan_enqueue(bragg_plan* plan, const void* const* rows, void* const* out,
                                          const void* const* base, const double* weights, void* workspace,
                                          void* stream);

/** Waits for `stream`; then as bragg_plan_run's result for the last run enqueued, with its reports. */
BRAGG_API bragg_status bragg_plan_wait(bragg_plan* plan, void* stream);

/** Device memory that a run of the plan needs; 0 on the CPU and for a null plan. */
BRAGG_API size_t bragg_plan_workspace_bytes(const bragg_plan* plan);

/** Outcome of the last run (CUDA: that was waited for); BRAGG_OK before the first. */
BRAGG_API bragg_status bragg_plan_status(const bragg_plan* plan);

/** Forgets the previous output and sets the bucketing round to 0. */
BRAGG_API bragg_status bragg_plan_reset(bragg_plan* plan);

/** Reports of a run: 1, or one for each tensor where scope is BRAGG_PER_TENSOR. 0 for a null plan. */
BRAGG_API size_t bragg_plan_report_count(const bragg_plan* plan);

/** Fills in report `index` of the last run. */
BRAGG_API bragg_status bragg_plan_report(const bragg_plan* plan, size_t index, bragg_report* report);

/** Fills in what report `index` says of row `row`. */
BRAGG_API bragg_status bragg_plan_row_report(const bragg_plan* plan, size_t index, int32_t row,
                                             bragg_row_report* report);

/**
 * Aggregates an n × d row-major matrix into `out` (d elements) at once. Row i starts at element i *
 * row_stride; -1: d. `dtype`: a bragg_dtype. `base` (d elements), `weights` (n) and `options` may be
 * null. Fails as plan_create and plan_run do. With device = BRAGG_CUDA data, out and base are in device
 * memory, and the work is done on the legacy default stream.
 */
BRAGG_API bragg_status bragg_aggregate(const char* pipeline, const void* data, int32_t n, int64_t d,
                                       int64_t row_stride, int32_t dtype, void* out, const void* base,
                                       const double* weights, const bragg_options* options);

/** `*points` is how many points pre-aggregators make of n rows: n, or fewer after bucketing. */
BRAGG_API bragg_status bragg_points_after(const char* sequence, int32_t n, int32_t* points);

/**
 * The points that pre-aggregators, e.g. "clip(c=10) | nnm(f=2)", make of an n × d row-major matrix, for a
 * rule of the caller's own: `out` takes bragg_points_after × d of them, row-major, in out_dtype. (A pipeline
 * with a rule of bragg's never makes them, and is faster by far.) A bucket of bad rows alone is +inf
 * throughout; bucketing is in its round 0. `out` lies apart from data and base. Fails and waits as
 * bragg_aggregate.
 */
BRAGG_API bragg_status bragg_pre_aggregate(const char* sequence, const void* data, int32_t n, int64_t d,
                                           int64_t row_stride, int32_t dtype, void* out, const void* base,
                                           const bragg_options* options);

/** A rule in the place of an all-reduce, on one of the ranks of a job. On the CPU. One call at a time. */
typedef struct bragg_all_reduce bragg_all_reduce;

/**
 * What a rank moves next. Each rank r sends `send_bytes[k]` bytes to each rank k, itself included, which lie
 * in `send` behind those for the ranks before k; of rank k `receive_bytes[k]` come to lie in `receive` in the
 * same way. Where `send_bytes` is null, each rank r sends the same `receive_bytes[r]` bytes to all; `send`
 * may then be their own place in `receive`.
 */
typedef struct bragg_transfer {
  size_t struct_size; /**< set by the caller: sizeof(bragg_transfer) */
  int32_t ranks;      /**< entries of the lists; 0: the run is over, nothing is to be moved */
  const void* send;
  const int64_t* send_bytes;
  void* receive;
  const int64_t* receive_bytes;
} bragg_transfer;
#define BRAGG_TRANSFER_INIT \
  { sizeof(bragg_transfer), 0, NULL, NULL, NULL, NULL }

/**
 * Row r is rank r's, of `ranks`; the output is everybody's, or, without `gather`, each rank's slice of every
 * tensor. `replicas`: so many ranks compute each slice, and compare it; 1: one. Arguments but `rank` are the
 * same on all ranks. Otherwise as bragg_plan_create.
 */
BRAGG_API bragg_status bragg_all_reduce_create(const char* pipeline, int32_t ranks, int32_t rank,
                                               const int64_t* sizes, size_t tensors, int32_t dtype,
                                               int32_t gather, int32_t replicas, const bragg_options* options,
                                               bragg_all_reduce** all_reduce);

/**
 * The part of a rank that cannot take part in a run, as where bragg_all_reduce_create failed on it: the
 * others are told, instead of waiting for ever. Their bragg_all_reduce_next fails with this status (not
 * BRAGG_OK) and message, and so does this one's, after one transfer. Nothing else but
 * bragg_all_reduce_destroy takes it.
 */
BRAGG_API bragg_status bragg_all_reduce_create_failed(int32_t ranks, int32_t rank, bragg_status status,
                                                      const char* message, bragg_all_reduce** all_reduce);

/** Null is allowed. */
BRAGG_API void bragg_all_reduce_destroy(bragg_all_reduce* all_reduce);

/** Elements [*begin, *end) of a tensor that a rank aggregates. */
BRAGG_API bragg_status bragg_all_reduce_slice(const bragg_all_reduce* all_reduce, int32_t rank, size_t tensor,
                                              int64_t* begin, int64_t* end);

/**
 * Begins a run. `row[t]` is tensor t of this rank's row, `out[t]` where tensor t of the result, or the slice
 * of it, goes: it may be exactly that of row[t], and overlaps nothing else. `base` and `weights` as
 * bragg_plan_run. What they point at stays where it is until the run is over. What is wrong with them is said
 * by bragg_all_reduce_next, on all ranks.
 */
BRAGG_API bragg_status bragg_all_reduce_begin(bragg_all_reduce* all_reduce, const void* const* row,
                                              void* const* out, const void* const* base,
                                              const double* weights);

/**
 * Computes until something is to be moved; the caller moves it, and calls again until `ranks` is 0. Fails,
 * and the run is over, with the run's status as bragg_plan_run, with what one of the ranks met, or with
 * BRAGG_DISAGREEMENT.
 */
BRAGG_API bragg_status bragg_all_reduce_next(bragg_all_reduce* all_reduce, bragg_transfer* transfer);

/** Outcome of the last run, the same on all ranks: also what bragg_all_reduce_next failed with. */
BRAGG_API bragg_status bragg_all_reduce_status(const bragg_all_reduce* all_reduce);

/** As bragg_plan_reset; on all ranks. */
BRAGG_API bragg_status bragg_all_reduce_reset(bragg_all_reduce* all_reduce);

/** As those of a plan; the same on all ranks. */
BRAGG_API size_t bragg_all_reduce_report_count(const bragg_all_reduce* all_reduce);
BRAGG_API bragg_status bragg_all_reduce_report(const bragg_all_reduce* all_reduce, size_t index,
                                               bragg_report* report);
BRAGG_API bragg_status bragg_all_reduce_row_report(const bragg_all_reduce* all_reduce, size_t index,
                                                   int32_t row, bragg_row_report* report);

#ifdef __cplusplus
}
#endif

#endif
