// As edgecnn/frame.py.
#include "frame.hpp"

#include <algorithm>
#include <cmath>

#include <opencv2/imgproc.hpp>

#include "edgecnn/errors.hpp"

namespace edgecnn {
namespace {

// Input line of each output line, as in OpenCV 5's INTER_NEAREST_EXACT: OpenCV 4.6 rounds otherwise.
std::vector<int> nearest_lines(int source, int resized) {
    std::vector<int> lines(static_cast<std::size_t>(resized));
    const double scale = static_cast<double>(source) / resized;
    double at = scale * 0.5;
    for (int& line : lines) {
        line = std::min(static_cast<int>(at), source - 1);
        at += scale;
    }
    return lines;
}

int interpolation_of(FrameSpec::Interpolation way) {
    switch (way) {
        case FrameSpec::Interpolation::nearest:
            return cv::INTER_NEAREST;
        case FrameSpec::Interpolation::bicubic:
            return cv::INTER_CUBIC;
        case FrameSpec::Interpolation::area:
            return cv::INTER_AREA;
        default:
            return cv::INTER_LINEAR;
    }
}

int half_to_even(int twice) {
    return static_cast<int>(std::nearbyint(twice / 2.0));
}

void fit_letterbox(const FrameSpec& spec, Placement& place) {
    const double ratio = std::min(static_cast<double>(spec.height_px) / place.source_height_px,
                                  static_cast<double>(spec.width_px) / place.source_width_px);
    place.resized_height_px = std::clamp(static_cast<int>(place.source_height_px * ratio), 1, spec.height_px);
    place.resized_width_px = std::clamp(static_cast<int>(place.source_width_px * ratio), 1, spec.width_px);
    place.offset_y_px = spec.centred ? (spec.height_px - place.resized_height_px) / 2 : 0;
    place.offset_x_px = spec.centred ? (spec.width_px - place.resized_width_px) / 2 : 0;
}

void fit_centre_crop(const FrameSpec& spec, Placement& place) {
    const int height = place.source_height_px, width = place.source_width_px, least = spec.resize_short_px;
    const auto longer = [&](int more, int less) {
        const double found = static_cast<double>(std::int64_t{least} * more) / less;
        if (found > (1 << 24)) {
            throw SpecError("a picture of " + std::to_string(width) + "x" + std::to_string(height) +
                            " px is too narrow for a centre crop");
        }
        return static_cast<int>(found);
    };
    place.resized_height_px = height <= width ? least : longer(height, width);
    place.resized_width_px = height <= width ? longer(width, height) : least;
    place.offset_y_px = -half_to_even(place.resized_height_px - spec.height_px);
    place.offset_x_px = -half_to_even(place.resized_width_px - spec.width_px);
}

}  // namespace

cv::Rect Placement::covered() const {
    const int top = std::max(offset_y_px, 0), left = std::max(offset_x_px, 0);
    const int bottom = std::min(offset_y_px + resized_height_px, frame_height_px);
    const int right = std::min(offset_x_px + resized_width_px, frame_width_px);
    return {left, top, right - left, bottom - top};
}

cv::Rect Placement::shown() const {
    const cv::Rect part = covered();
    return {std::max(-offset_x_px, 0), std::max(-offset_y_px, 0), part.width, part.height};
}

std::vector<std::uint8_t> Placement::map_to_source(const std::uint8_t* frame_map) const {
    const cv::Rect part = covered(), in_resized = shown();
    const bool cut = in_resized.x != 0 || in_resized.y != 0;
    const int height = cut ? resized_height_px : part.height, width = cut ? resized_width_px : part.width;
    const std::vector<int> rows = nearest_lines(height, source_height_px), columns = nearest_lines(width, source_width_px);
    std::vector<std::uint8_t> map(static_cast<std::size_t>(source_height_px) * static_cast<std::size_t>(source_width_px));
    std::uint8_t* to = map.data();
    for (std::size_t i = 0; i < rows.size(); ++i, to += source_width_px) {
        const int row = rows[i] - in_resized.y;
        if (row < 0 || row >= part.height) {
            continue;  // cut off
        }
        if (i > 0 && rows[i] == rows[i - 1]) {
            std::copy(to - source_width_px, to, to);
            continue;
        }
        const std::uint8_t* from = frame_map + static_cast<std::ptrdiff_t>(part.y + row) * frame_width_px + part.x;
        for (int x = 0; x < source_width_px; ++x) {
            const int column = columns[static_cast<std::size_t>(x)] - in_resized.x;
            to[x] = column >= 0 && column < part.width ? from[column] : 0;
        }
    }
    return map;
}

Placement place_in_frame(const FrameSpec& spec, int height_px, int width_px) {
    Placement place;
    place.source_height_px = height_px;
    place.source_width_px = width_px;
    place.frame_height_px = spec.height_px;
    place.frame_width_px = spec.width_px;
    if (spec.fit == FrameSpec::Fit::letterbox) {
        fit_letterbox(spec, place);
    } else if (spec.fit == FrameSpec::Fit::centre_crop) {
        fit_centre_crop(spec, place);
    } else {
        place.resized_height_px = spec.height_px;
        place.resized_width_px = spec.width_px;
    }
    place.scale_x = static_cast<double>(place.resized_width_px) / width_px;
    place.scale_y = static_cast<double>(place.resized_height_px) / height_px;
    return place;
}

FrameFitter::FrameFitter(const FrameSpec& spec, std::uint8_t* frame)
    : spec_(spec), frame_(spec.height_px, spec.width_px, CV_8UC3, frame) {}

const Placement& FrameFitter::operator()(const cv::Mat& image) {
    if (image.rows != place_.source_height_px || image.cols != place_.source_width_px) {
        place_ = place_in_frame(spec_, image.rows, image.cols);
        resampler_.reset();
        frame_.setTo(cv::Scalar::all(spec_.pad_value));  // the border, only when the geometry changes
    }
    const cv::Size size(place_.resized_width_px, place_.resized_height_px);
    const cv::Rect part = place_.shown();
    cv::Mat out = frame_(place_.covered());
    if (size == image.size()) {
        image(part).copyTo(out);
    } else if (spec_.antialias) {
        if (!resampler_) {
            const bool cubic = spec_.interpolation == FrameSpec::Interpolation::bicubic;
            resampler_ = std::make_unique<Resampler>(image.size(), size, part, cubic);
        }
        (*resampler_)(image, out);
    } else if (part.size() == size) {
        cv::resize(image, out, size, 0, 0, interpolation_of(spec_.interpolation));
    } else {
        cv::Mat whole;
        cv::resize(image, whole, size, 0, 0, interpolation_of(spec_.interpolation));
        whole(part).copyTo(out);
    }
    return place_;
}

}  // namespace edgecnn
