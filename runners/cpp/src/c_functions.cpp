// The C functions: errors become numbers, and a text for each thread.
#include <algorithm>
#include <cstring>
#include <new>

#include "edgecnn/edgecnn.h"
#include "edgecnn/runner.hpp"

struct edgecnn_runner {
    edgecnn::Runner runner;
};

struct edgecnn_result {
    edgecnn::Result result;
};

namespace {

// Fixed memory: what went wrong may be that there is no more.
char* last_error() {
    static thread_local char text[1024];
    return text;
}

edgecnn_status failed(edgecnn_status status, const char* text) {
    std::strncpy(last_error(), text, 1023);
    return status;
}

template <typename Call>
edgecnn_status guarded(Call call) noexcept {
    try {
        call();
        return EDGECNN_OK;
    } catch (const edgecnn::BundleError& error) {
        return failed(EDGECNN_BUNDLE_ERROR, error.what());
    } catch (const edgecnn::SpecError& error) {
        return failed(EDGECNN_SPEC_ERROR, error.what());
    } catch (const edgecnn::DeviceError& error) {
        return failed(EDGECNN_DEVICE_ERROR, error.what());
    } catch (const std::exception& error) {
        return failed(EDGECNN_OTHER_ERROR, error.what());
    } catch (...) {
        return failed(EDGECNN_OTHER_ERROR, "an unknown error");
    }
}

const char* given(const char* text, const char* absent) {
    return text == nullptr ? absent : text;
}

edgecnn::Options options_of(const edgecnn_options* given_options) {
    edgecnn_options all = edgecnn_options_default();
    if (given_options != nullptr) {
        if (given_options->size < sizeof(size_t) || given_options->size > 4096) {
            throw edgecnn::SpecError("options: size must be sizeof(edgecnn_options); begin with edgecnn_options_default()");
        }
        std::memcpy(&all, given_options, std::min(given_options->size, sizeof all));
    }
    edgecnn::Options options;
    options.format = given(all.format, "openvino");
    options.precision = given(all.precision, "");
    options.device = given(all.device, "cpu");
    options.threads = all.threads;
    if (!(all.score < 0)) {
        options.score = all.score;
    }
    if (!(all.nms_iou < 0)) {
        options.nms_iou = all.nms_iou;
    }
    return options;
}

// What a result holds; nothing where it holds another kind, or is NULL because the picture could not be answered.
template <typename Kind>
const Kind* held_by(const edgecnn_result* result) {
    return result == nullptr ? nullptr : std::get_if<Kind>(&result->result);
}

template <typename T>
const T* data_of(const std::vector<T>& values) {
    return values.empty() ? nullptr : values.data();
}

}  // namespace

extern "C" {

edgecnn_options edgecnn_options_default(void) {
    return {sizeof(edgecnn_options), "openvino", nullptr, "cpu", 0, -1.0f, -1.0f};
}

const char* edgecnn_error(void) {
    return last_error();
}

edgecnn_status edgecnn_open(const char* bundle, const edgecnn_options* options, edgecnn_runner** runner) {
    return guarded([&] {
        if (runner == nullptr) {
            throw edgecnn::SpecError("runner: expected where to put it, got NULL");
        }
        *runner = nullptr;
        if (bundle == nullptr) {
            throw edgecnn::SpecError("bundle: expected a folder, got NULL");
        }
        *runner = new edgecnn_runner{edgecnn::Runner(bundle, options_of(options))};
    });
}

void edgecnn_close(edgecnn_runner* runner) {
    delete runner;
}

size_t edgecnn_label_count(const edgecnn_runner* runner) {
    return runner == nullptr ? 0 : runner->runner.labels().size();
}

const char* edgecnn_label(const edgecnn_runner* runner, size_t class_id) {
    return class_id < edgecnn_label_count(runner) ? runner->runner.labels()[class_id].c_str() : nullptr;
}

edgecnn_status edgecnn_run(edgecnn_runner* runner, const uint8_t* bgr, int32_t height_px, int32_t width_px,
                           size_t stride_bytes, edgecnn_result** result) {
    return guarded([&] {
        if (runner == nullptr || result == nullptr) {
            throw edgecnn::SpecError("runner, result: expected an open runner and where to put the result, got NULL");
        }
        *result = nullptr;
        *result = new edgecnn_result{runner->runner({bgr, height_px, width_px, stride_bytes})};
    });
}

void edgecnn_result_free(edgecnn_result* result) {
    delete result;
}

void edgecnn_stage_times(const edgecnn_runner* runner, int64_t* fit_ns, int64_t* infer_ns, int64_t* finish_ns) {
    const edgecnn::StageTimes times = runner == nullptr ? edgecnn::StageTimes{} : runner->runner.stage_times();
    const std::int64_t from[] = {times.fit_ns, times.infer_ns, times.finish_ns};
    int64_t* to[] = {fit_ns, infer_ns, finish_ns};
    for (int i = 0; i < 3; ++i) {
        if (to[i] != nullptr) {
            *to[i] = from[i];
        }
    }
}

edgecnn_task edgecnn_result_task(const edgecnn_result* result) {
    return result == nullptr ? EDGECNN_DETECT : static_cast<edgecnn_task>(result->result.index());
}

size_t edgecnn_result_count(const edgecnn_result* result) {
    if (const auto* found = held_by<edgecnn::Detections>(result)) {
        return found->size();
    }
    const auto* classes = held_by<edgecnn::Classification>(result);
    return classes == nullptr ? 0 : classes->size();
}

const float* edgecnn_result_boxes(const edgecnn_result* result) {
    const auto* found = held_by<edgecnn::Detections>(result);
    return found == nullptr ? nullptr : data_of(found->boxes_xyxy_px);
}

const float* edgecnn_result_scores(const edgecnn_result* result) {
    if (const auto* found = held_by<edgecnn::Detections>(result)) {
        return data_of(found->scores);
    }
    const auto* classes = held_by<edgecnn::Classification>(result);
    return classes == nullptr ? nullptr : data_of(classes->scores);
}

const int64_t* edgecnn_result_class_ids(const edgecnn_result* result) {
    if (const auto* found = held_by<edgecnn::Detections>(result)) {
        return data_of(found->class_ids);
    }
    const auto* classes = held_by<edgecnn::Classification>(result);
    return classes == nullptr ? nullptr : data_of(classes->class_ids);
}

const uint8_t* edgecnn_result_class_map(const edgecnn_result* result, int32_t* height_px, int32_t* width_px) {
    const auto* map = held_by<edgecnn::SegmentationMap>(result);
    if (height_px != nullptr) {
        *height_px = map == nullptr ? 0 : map->height_px;
    }
    if (width_px != nullptr) {
        *width_px = map == nullptr ? 0 : map->width_px;
    }
    return map == nullptr ? nullptr : data_of(map->classes);
}

}  // extern "C"
