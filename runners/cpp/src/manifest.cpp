// The checks are those of the Python package (edgecnn/bundle/contract.py, edgecnn/frame.py, edgecnn/tasks/).
#include "manifest.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "json.hpp"

namespace edgecnn {
namespace {

constexpr std::int64_t kMostBatch = 1024;
constexpr std::int64_t kMostValues = std::int64_t{1} << 31;
constexpr std::int64_t kMostFrameBytes = 1 << 28;
constexpr std::size_t kMostNames = 100'000;
constexpr std::size_t kLongestName = 1000;
constexpr std::int64_t kMostDetections = 1'000'000;
constexpr std::int64_t kMostSidePx = 16'384;
constexpr std::int64_t kMostAreaPx = 1 << 25;

std::int64_t integer_in(const Value& value, std::int64_t low, std::int64_t high) {
    const std::int64_t found = value.integer();
    if (found < low || found > high) {
        value.refuse(std::to_string(low) + " to " + std::to_string(high));
    }
    return found;
}

std::int64_t integer_or(const Value& owner, const char* name, std::int64_t absent, std::int64_t low, std::int64_t high) {
    return owner.has(name) ? integer_in(owner.member(name), low, high) : absent;
}

double share_or(const Value& owner, const char* name, double absent) {
    if (!owner.has(name)) {
        return absent;
    }
    const Value value = owner.member(name);
    const double found = value.number();
    if (!(found >= 0 && found <= 1)) {
        value.refuse("in 0..1");
    }
    return found;
}

bool boolean_or(const Value& owner, const char* name, bool absent) {
    return owner.has(name) ? owner.member(name).boolean() : absent;
}

std::string text_or(const Value& owner, const char* name, const std::string& absent) {
    return owner.has(name) ? owner.member(name).text() : absent;
}

// Where `words` has the value of a member; the first where there is none.
int word_in(const Value& owner, const char* name, const std::vector<std::string>& words) {
    if (!owner.has(name)) {
        return 0;
    }
    const Value value = owner.member(name);
    const auto found = std::find(words.begin(), words.end(), value.text());
    if (found == words.end()) {
        value.refuse("one of those that edgecnn knows");
    }
    return static_cast<int>(found - words.begin());
}

std::string checked_name(const Value& value) {
    const std::string text = value.text();
    const auto found = letters(text);
    if (found.empty() || found.size() > kLongestName || std::any_of(found.begin(), found.end(), is_command)) {
        value.refuse("1 to 1000 letters without control characters");
    }
    return text;
}

std::vector<Value> few(const Value& value) {
    auto found = value.items();
    if (found.size() > kMostNames) {
        throw BundleError(value.place() + " must be at most 100000, got " + std::to_string(found.size()));
    }
    return found;
}

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

std::vector<std::string> read_labels(const Value& value) {
    std::vector<std::string> labels;
    for (const Value& label : few(value)) {
        labels.push_back(label.text());
        if (letters(labels.back()).size() > kLongestName) {
            label.refuse("at most 1000 letters");
        }
    }
    return labels;
}

Task read_task(const Value& value) {
    Task task;
    task.name = value.member("kind").text();
    task.labels = read_labels(value.member("labels"));
    if (task.name == "detect") {
        task.kind = Task::Kind::detect;
        task.score_threshold = share_or(value, "score_threshold", task.score_threshold);
        task.nms_iou = share_or(value, "nms_iou", task.nms_iou);
        task.max_detections = integer_or(value, "max_detections", task.max_detections, 1, kMostDetections);
        task.max_candidates = integer_or(value, "max_candidates", task.max_candidates, 1, INT64_MAX);
        task.multi_label = boolean_or(value, "multi_label", false);
    } else if (task.name == "segment") {
        task.kind = Task::Kind::segment;
        task.decided_in_graph = word_in(value, "decided_in", {"graph", "finish"}) == 0;
        if (task.labels.size() > 256) {
            throw BundleError("task.labels must be at most 256 to segment, got " + std::to_string(task.labels.size()));
        }
    } else if (task.name == "classify") {
        task.kind = Task::Kind::classify;
        task.top = integer_or(value, "top", task.top, 1, static_cast<std::int64_t>(kMostNames));
    } else {
        value.member("kind").refuse("detect, segment or classify: the C++ runner has no other task");
    }
    return task;
}

std::vector<std::int64_t> read_shape(const Value& value) {
    std::vector<std::int64_t> shape;
    std::int64_t values = 1;
    for (const Value& axis : value.items()) {
        shape.push_back(integer_in(axis, 1, kMostValues));
        if (shape.size() > 8 || shape.back() > kMostValues / values) {
            value.refuse("at most 8 dimensions and 2^31 values");
        }
        values *= shape.back();
    }
    return shape;
}

std::vector<TensorSpec> read_tensors(const Value& value) {
    static const std::set<std::string> known = {"bool",   "uint8", "int8",   "uint16",  "int16",    "uint32", "int32",
                                                "uint64", "int64", "float16", "bfloat16", "float32", "float64"};
    const auto items = value.items();
    if (items.empty() || items.size() > 64) {
        throw BundleError(value.place() + " must be 1 to 64 tensors, got " + std::to_string(items.size()));
    }
    std::vector<TensorSpec> tensors;
    std::set<std::string> names;
    for (const Value& item : items) {
        tensors.push_back({checked_name(item.member("name")), item.member("dtype").text(), read_shape(item.member("shape"))});
        if (!names.insert(tensors.back().name).second) {
            item.member("name").refuse("a name that no other has");
        }
        if (known.count(tensors.back().dtype) == 0) {
            item.member("dtype").refuse("a type of numpy");
        }
    }
    return tensors;
}

bool is_space(char32_t letter) {
    return letter == 0x20 || letter == 0xA0 || letter == 0x1680 || (letter >= 0x2000 && letter <= 0x200A) ||
           letter == 0x202F || letter == 0x205F || letter == 0x3000;
}

FileRecord read_file(const Value& value) {
    FileRecord record{value.member("path").text(), value.member("sha256").text(), 0};
    const std::string& path = record.path;
    const auto found = letters(path);
    if (found.empty() || path.size() > 255 || std::string(".-~").find(path[0]) != std::string::npos ||
        path.find_first_of("/\\:*?\"<>|") != std::string::npos || is_space(found.front()) || is_space(found.back()) ||
        std::any_of(found.begin(), found.end(), is_command)) {
        value.member("path").refuse("the name of a file next to the manifest");
    }
    const std::string& hash = record.sha256;
    if (hash.size() != 64 || hash.find_first_not_of("0123456789abcdef") != std::string::npos) {
        value.member("sha256").refuse("64 hexadecimal digits");
    }
    record.bytes = integer_in(value.member("bytes"), 0, std::int64_t{1} << 40);
    return record;
}

bool is_manifest(std::string path) {
    std::transform(path.begin(), path.end(), path.begin(), [](unsigned char c) { return c < 0x80 ? std::tolower(c) : c; });
    return path == "manifest.json";
}

std::vector<FileRecord> read_files(const Value& value) {
    std::vector<FileRecord> files;
    std::set<std::string> names;
    for (const Value& item : value.items()) {
        files.push_back(read_file(item));
        if (is_manifest(files.back().path) || !names.insert(files.back().path).second) {
            item.member("path").refuse("a file of its own");
        }
    }
    if (files.empty()) {
        value.refuse("at least one file");
    }
    return files;
}

double read_int8_share(const Value& artifact) {
    if (!artifact.has("evidence") || !artifact.member("evidence").has("quantization")) {
        return 0;
    }
    const Value made = artifact.member("evidence").member("quantization");
    return made.is_null() ? 0 : made.member("int8_mac_share").number();
}

std::vector<Artifact> read_artifacts(const Value& value) {
    std::vector<Artifact> artifacts;
    std::set<std::vector<std::string>> keys;
    for (const Value& item : few(value)) {
        Artifact artifact;
        artifact.format = checked_name(item.member("format"));
        artifact.precision = checked_name(item.member("precision"));
        artifact.target = text_or(item, "target", "");
        artifact.device = text_or(item, "device", "");
        for (const char* name : {"target", "device"}) {
            if (!text_or(item, name, "").empty()) {
                checked_name(item.member(name));
            }
        }
        artifact.files = read_files(item.member("files"));
        artifact.int8_mac_share = read_int8_share(item);
        if (!keys.insert({artifact.format, artifact.precision, artifact.target}).second) {
            item.refuse("of another format, precision or target than the others");
        }
        artifacts.push_back(std::move(artifact));
    }
    return artifacts;
}

// An output that the task works with: its name, its type, and its axes; "" in `axes` stands for any number.
struct Form {
    const char* name;
    const char* dtype;
    std::vector<std::string> axes;
};

std::vector<Form> forms_of(const Task& task) {
    switch (task.kind) {
        case Task::Kind::detect:
            return {{"boxes", "float32", {"batch", "N", "4"}}, {"scores", "float32", {"batch", "N", "C"}}};
        case Task::Kind::segment:
            return task.decided_in_graph ? std::vector<Form>{{"classes", "uint8", {"batch", "h", "w"}}}
                                         : std::vector<Form>{{"logits", "float32", {"batch", "C", "h", "w"}}};
        default:
            return {{"scores", "float32", {"batch", "C"}}};
    }
}

// That the outputs have the task's form, the frame's size and batch, and a label for each class.
void check_outputs(const Manifest& manifest) {
    const auto forms = forms_of(manifest.task);
    std::map<std::string, std::int64_t> extents = {{"4", 4}};
    bool fits = forms.size() == manifest.outputs.size();
    for (std::size_t i = 0; fits && i < forms.size(); ++i) {
        const TensorSpec& output = manifest.outputs[i];
        fits = output.name == forms[i].name && output.dtype == forms[i].dtype && output.shape.size() == forms[i].axes.size();
        for (std::size_t axis = 0; fits && axis < output.shape.size(); ++axis) {
            fits = extents.emplace(forms[i].axes[axis], output.shape[axis]).first->second == output.shape[axis];
        }
    }
    if (!fits) {
        throw BundleError("outputs are not those of the task " + manifest.task.name);
    }
    const auto labels = static_cast<std::int64_t>(manifest.task.labels.size());
    if (extents.count("C") != 0 && extents["C"] != labels) {
        throw BundleError("labels: expected one for each of the " + std::to_string(extents["C"]) +
                          " classes of the outputs, found " + std::to_string(labels));
    }
    const FrameSpec& frame = manifest.frame;
    if (extents.count("h") != 0 && (extents["h"] != frame.height_px || extents["w"] != frame.width_px)) {
        throw BundleError("outputs must have the frame's size, " + std::to_string(frame.width_px) + "x" +
                          std::to_string(frame.height_px) + " px");
    }
    if (extents["batch"] != manifest.batch) {
        throw BundleError("outputs must be for a batch of " + std::to_string(manifest.batch));
    }
}

void check_inputs(const Manifest& manifest) {
    const TensorSpec& first = manifest.inputs.front();
    const std::vector<std::int64_t> expected = {manifest.batch, manifest.frame.height_px, manifest.frame.width_px, 3};
    if (manifest.inputs.size() != 1 || first.dtype != "uint8" || first.shape != expected) {
        throw BundleError("inputs must be one of uint8 [batch, frame.height_px, frame.width_px, 3]");
    }
    if (expected[0] * expected[1] * expected[2] * 3 > kMostFrameBytes) {
        throw BundleError("inputs: a batch of frames may have 256 MB");
    }
}

Manifest read_checked(const nlohmann::json& document) {
    const Value root(document, "");
    const std::int64_t schema = root.member("schema").integer();
    if (schema > kSchemaVersion) {
        throw BundleError("it has manifest schema " + std::to_string(schema) + ", this runner reads up to " +
                          std::to_string(kSchemaVersion) + ": build a newer runner, or convert again with an older edgecnn");
    }
    checked_name(root.member("name"));
    root.member("source").member("model").text();
    for (const char* count : {"parameters", "macs"}) {
        integer_in(root.member(count), 0, (std::int64_t{1} << 62) - 1);
    }
    Manifest manifest;
    manifest.frame = read_frame(root.member("frame"));
    manifest.task = read_task(root.member("task"));
    manifest.batch = integer_or(root, "batch", 1, 1, kMostBatch);
    manifest.inputs = read_tensors(root.member("inputs"));
    manifest.outputs = read_tensors(root.member("outputs"));
    if (root.has("artifacts")) {
        manifest.artifacts = read_artifacts(root.member("artifacts"));
    }
    check_outputs(manifest);
    check_inputs(manifest);
    return manifest;
}

}  // namespace

Manifest read_manifest(const std::string& text, const std::string& source) {
    const nlohmann::json document = parse_json(text, source);
    try {
        return read_checked(document);
    } catch (const BundleError& wrong) {
        throw BundleError(source + ": " + wrong.what());
    }
}

}  // namespace edgecnn
