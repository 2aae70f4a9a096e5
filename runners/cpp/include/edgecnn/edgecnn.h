/* The runner for C, and for what calls C: Rust, Go, Python's ctypes. No function throws; each says whether it was done.
 *
 * A runner may be used by several threads: calls wait for each other. Pointers that a result gives are valid until
 * edgecnn_result_free. */
#ifndef EDGECNN_H
#define EDGECNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct edgecnn_runner edgecnn_runner;
typedef struct edgecnn_result edgecnn_result;

typedef enum edgecnn_status {
    EDGECNN_OK = 0,
    EDGECNN_BUNDLE_ERROR = 1, /* missing, damaged, from a newer schema, or not what was verified */
    EDGECNN_SPEC_ERROR = 2,   /* a value that was given is not possible */
    EDGECNN_DEVICE_ERROR = 3, /* the device does not exist, or OpenVINO fails */
    EDGECNN_OTHER_ERROR = 4   /* memory, for example */
} edgecnn_status;

typedef enum edgecnn_task { EDGECNN_DETECT = 0, EDGECNN_CLASSIFY = 1, EDGECNN_SEGMENT = 2 } edgecnn_task;

/* How to open a bundle: see edgecnn_options_default. */
typedef struct edgecnn_options {
    size_t size;           /* sizeof(edgecnn_options): a later version may have more members */
    const char *format;    /* "openvino" or "onnx" */
    const char *precision; /* "fp32", "fp16", "bf16" or "int8"; NULL for the most exact one that the bundle has */
    const char *device;    /* "cpu", "gpu" or "npu" */
    int32_t threads;       /* per inference; 0 for the cores that this process may use */
    float score;           /* a detector's thresholds, 0..1; negative for the bundle's */
    float nms_iou;
} edgecnn_options;

/* The options by default: format "openvino" on the CPU. */
edgecnn_options edgecnn_options_default(void);

/* What went wrong in the last call of this thread that was not EDGECNN_OK; "" before. Valid until the next such call. */
const char *edgecnn_error(void);

/* Opens a NAME.edge folder; `options` may be NULL. Sets *runner, to NULL where it fails. */
edgecnn_status edgecnn_open(const char *bundle, const edgecnn_options *options, edgecnn_runner **runner);
/* Closes it; NULL is allowed. No other call on it may be under way. */
void edgecnn_close(edgecnn_runner *runner);

/* Labels of its classes, by class id; NULL beyond the last. */
size_t edgecnn_label_count(const edgecnn_runner *runner);
const char *edgecnn_label(const edgecnn_runner *runner, size_t class_id);

/* One picture, uint8 [height, width, 3] BGR; stride_bytes from row to row, 0 for rows without gaps.
 * Sets *result, to NULL where it fails. */
edgecnn_status edgecnn_run(edgecnn_runner *runner, const uint8_t *bgr, int32_t height_px, int32_t width_px,
                           size_t stride_bytes, edgecnn_result **result);
void edgecnn_result_free(edgecnn_result *result);

/* Durations of the last picture's stages; each pointer may be NULL. */
void edgecnn_stage_times(const edgecnn_runner *runner, int64_t *fit_ns, int64_t *infer_ns, int64_t *finish_ns);

/* Of a result that is NULL, because the picture could not be answered: no objects, no values. */
edgecnn_task edgecnn_result_task(const edgecnn_result *result);
/* Objects or classes in the result, best first; 0 for a segmentation. */
size_t edgecnn_result_count(const edgecnn_result *result);
/* [count, 4]: left, top, right, bottom in pixels of the picture; NULL where there are none. */
const float *edgecnn_result_boxes(const edgecnn_result *result);
/* [count] in 0..1, falling; NULL where there are none. */
const float *edgecnn_result_scores(const edgecnn_result *result);
/* [count]; NULL where there are none. */
const int64_t *edgecnn_result_class_ids(const edgecnn_result *result);
/* [height_px, width_px] class ids of a segmentation; otherwise NULL, and the sizes are 0. */
const uint8_t *edgecnn_result_class_map(const edgecnn_result *result, int32_t *height_px, int32_t *width_px);

#ifdef __cplusplus
}
#endif

#endif
