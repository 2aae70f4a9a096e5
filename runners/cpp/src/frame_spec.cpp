// The checks are those of edgecnn/frame.py.
#include "frame_spec.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>

#include "edgecnn/errors.hpp"
#include "fields.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

constexpr std::int64_t kMostSidePx = 16'384;
constexpr std::int64_t kMostAreaPx = 1 << 25;

void check_channels(const Value& frame, const char* name, bool positive) {
    if (!frame.has(name)) {
        return;
    }
    const Value list = frame.member(name);
    const auto channels = list.items();
    if (channels.size() != 3) {
        list.refuse("three numbers");
    }
    for (const Value& channel : channels) {
        const double found = channel.number();
        if (!std::isfinite(found) || (positive && !(found > 0))) {
            channel.refuse(positive ? "positive" : "finite");
        }
    }
}

void check_crop(const Value& value, const FrameSpec& frame) {
    const std::int64_t longer = std::max(frame.height_px, frame.width_px);
    if (frame.fit == FrameSpec::Fit::centre_crop) {
        const std::int64_t most = std::max<std::int64_t>(4 * longer, 4096);
        integer_in(value.member("resize_short_px"), longer, most);
    } else if (value.has("resize_short_px") && !value.member("resize_short_px").is_null()) {
        value.member("resize_short_px").refuse("null where fit is not centre-crop");
    }
}

}  // namespace

FrameSpec read_frame(const Value& value) {
    static const std::set<std::string> known = {"height_px",       "width_px",      "fit",       "alignment", "pad_value",
                                                "resize_short_px", "interpolation", "antialias", "colour",    "scale",
                                                "mean",            "std"};
    for (const std::string& name : value.names()) {
        if (known.count(name) == 0) {
            throw BundleError("frame has the unknown field '" + shortened(name) + "'");
        }
    }
    FrameSpec frame;
    frame.height_px = static_cast<int>(integer_in(value.member("height_px"), 1, kMostSidePx));
    frame.width_px = static_cast<int>(integer_in(value.member("width_px"), 1, kMostSidePx));
    if (std::int64_t{frame.height_px} * frame.width_px > kMostAreaPx) {
        value.refuse("at most 33.6 megapixels");
    }
    frame.fit = static_cast<FrameSpec::Fit>(word_in(value, "fit", {"letterbox", "stretch", "centre-crop"}));
    frame.centred = word_in(value, "alignment", {"centre", "top-left"}) == 0;
    frame.pad_value = static_cast<int>(integer_or(value, "pad_value", 114, 0, 255));
    static const std::vector<std::string> ways = {"bilinear", "nearest", "bicubic", "area"};
    using Way = FrameSpec::Interpolation;
    static const Way meant[] = {Way::bilinear, Way::nearest, Way::bicubic, Way::area};
    frame.interpolation = meant[word_in(value, "interpolation", ways)];
    frame.antialias = boolean_or(value, "antialias", false);
    if (frame.antialias && frame.interpolation != Way::bilinear && frame.interpolation != Way::bicubic) {
        value.member("antialias").refuse("false where interpolation is not bilinear or bicubic");
    }
    word_in(value, "colour", {"rgb", "bgr"});
    if (value.has("scale")) {
        const double scale = value.member("scale").number();
        if (!(scale > 0 && std::isfinite(scale))) {
            value.member("scale").refuse("positive");
        }
    }
    check_channels(value, "mean", false);
    check_channels(value, "std", true);
    check_crop(value, frame);
    if (frame.fit == FrameSpec::Fit::centre_crop) {
        frame.resize_short_px = static_cast<int>(value.member("resize_short_px").integer());
    }
    return frame;
}

}  // namespace edgecnn
