// The checks are those of edgecnn/bundle/contract.py.
#include "manifest.hpp"

#include <map>
#include <set>

#include "edgecnn/errors.hpp"
#include "fields.hpp"

namespace edgecnn {
namespace {

constexpr std::int64_t kMostBatch = 1024;
constexpr std::int64_t kMostValues = std::int64_t{1} << 31;
constexpr std::int64_t kMostFrameBytes = 1 << 28;

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

Manifest read_checked(const Value& root) {
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
    const Document document(text, source);
    try {
        return read_checked(document.root());
    } catch (const BundleError& wrong) {
        throw BundleError(source + ": " + wrong.what());
    }
}

}  // namespace edgecnn
