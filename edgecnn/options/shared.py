"""Options of several verbs, each defined once with type, help and group. Their defaults are in the signatures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypedDict

from edgecnn.options import kinds
from edgecnn.options.option import Option

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.bundle import Bundle
    from edgecnn.sources import TrainedModel

NETWORK = "The network"
RUNTIME = "Runtime and device"
LABELS = "Labelled pictures"
INT8 = "Int8 quantization"
OUTPUT = "Output"
CAMERA = "Camera and source"
MADE = "What is made"
PRUNED = "What is removed"

# --- the input of a verb
Network: TypeAlias = Annotated[
    "str | Path | TrainedModel | nn.Module",
    Option(
        help="A network: {networks}.",
        kind=kinds.TEXT,
        positional=True,
        code=True,
    ),
]
BundleName: TypeAlias = Annotated[
    "str | Path | Bundle",
    Option(help="A NAME.edge folder, or default-detector.", kind=kinds.PATH, positional=True),
]
BundleOrNetwork: TypeAlias = Annotated[
    "str | Path | Bundle | TrainedModel | nn.Module",
    Option(
        help="A NAME.edge folder, or a network as for `edgecnn convert`.",
        kind=kinds.TEXT,
        positional=True,
        metavar="BUNDLE|MODEL",
        code=True,
    ),
]
NewModel: TypeAlias = Annotated[str | Path, Option(help="A NAME.model folder to write.", group=MADE)]

NewBundle: TypeAlias = Annotated[str | Path, Option(help="The bundle to write: a folder NAME.edge.", group=MADE)]
Converters: TypeAlias = Annotated[
    "str | Sequence[str] | None",
    Option(
        help="Formats to write, any of {converters}, with commas between.",
        kind=kinds.WORDS,
        default="all that can be written here",
        group=MADE,
    ),
]

# --- runtime and device
Device: TypeAlias = Annotated[str, Option(help="cpu, gpu, npu, auto, or RUNTIME:DEVICE.", group=RUNTIME)]
Format: TypeAlias = Annotated[
    str | None, Option(help="{formats}.", group=RUNTIME, metavar="FORMAT", default="the first that can run here")
]
Precision: TypeAlias = Annotated[
    str | None, Option(help="fp32, fp16, bf16 or int8.", group=RUNTIME, metavar="PRECISION", default="fp32")
]
Threads: TypeAlias = Annotated[
    int | None, Option(help="Threads per inference.", group=RUNTIME, default="the cores that this process may use")
]
Score: TypeAlias = Annotated[
    float | None, Option(help="Use only boxes with a higher score.", group=RUNTIME, default="the bundle's, usually 0.3")
]
NmsIou: TypeAlias = Annotated[
    float | None,
    Option(
        help="Boxes that overlap more than this (IoU) count as one object.",
        group=RUNTIME,
        default="the bundle's, usually 0.5",
    ),
]
On: TypeAlias = Annotated[
    Sequence[str],
    Option(
        help="Run on ssh://[user@]host[:port], a board or another machine; repeat it for several at once.",
        group=RUNTIME,
        kind=kinds.TEXT,
        metavar="URL",
        repeat=True,
    ),
]

TrustedKeys: TypeAlias = Annotated[
    "str | Path | Sequence[str | Path] | None",
    Option(
        name="trusted-key",
        help="Only open what this public key, or an authority of this certificate, signed (PEM; see `edgecnn sign`).",
        group=RUNTIME,
        kind=kinds.PATH,
        metavar="KEY.pub",
        repeat=True,
    ),
]

# --- labelled pictures, and limits on accuracy
IGNORE_LABEL = Option(
    help="A class of the data (name or id) whose pixels are ignored.", group=LABELS, metavar="CLASS", kind=kinds.TEXT
)
IgnoreLabel: TypeAlias = Annotated[str | None, IGNORE_LABEL]
ValidateOn: TypeAlias = Annotated[
    str | Path | None,
    Option(
        help="Validation pictures with labels, which decide which epoch is kept.",
        group=LABELS,
        default="val of --data, or a tenth of it",
    ),
]
LearnFrom: TypeAlias = Annotated[
    str | None,
    Option(help="The split of --data to learn from.", group=LABELS, metavar="SPLIT", default="train, else all"),
]
MaxDrop: TypeAlias = Annotated[
    float | None,
    Option(
        help="Largest allowed drop of the metric, in its own unit: 0.01 is one point.",
        group=LABELS,
        default="0.01",
    ),
]
AllowDrop: TypeAlias = Annotated[
    bool, Option(help="Write artifacts with a larger drop too, and record that.", group=LABELS)
]
KeepSlower: TypeAlias = Annotated[
    bool, Option(help="Write int8 artifacts that are no faster here than float too.", group=MADE)
]
AllowPercent: TypeAlias = Annotated[
    float,
    Option(
        name="allow",
        help="Percent by which an artifact may be slower; if one is slower than that, the exit code is 1.",
        metavar="PERCENT",
        group=OUTPUT,
    ),
]
Sbom: TypeAlias = Annotated[
    bool,
    Option(help="Put a bill of materials (CycloneDX) into the bundle: files, weights, data and tools.", group=MADE),
]
WeightsLicense: TypeAlias = Annotated[
    str | None,
    Option(help="For --sbom: the licence of the weights, as in Apache-2.0.", group=MADE, metavar="SPDX"),
]
DataLicense: TypeAlias = Annotated[
    str | None,
    Option(help="For --sbom: the licence of the pictures, as in CC-BY-4.0.", group=MADE, metavar="SPDX"),
]
Overwrite: TypeAlias = Annotated[
    bool, Option(help="Replace an existing bundle, even if evidence or int8 artifacts are lost.", group=MADE)
]

# --- int8 quantization
Calibration: TypeAlias = Annotated[
    str | Path | None,
    Option(help="Pictures for activation ranges (calibration).", group=INT8, default="those of --data"),
]
CalibrationCount: TypeAlias = Annotated[
    int | None, Option(help="Largest number of calibration pictures.", group=INT8, default="128")
]
CalibrationSeed: TypeAlias = Annotated[
    int, Option(help="Calibration seed: chooses the calibration pictures.", group=INT8)
]
EvaluateOn: TypeAlias = Annotated[
    str | Path | None,
    Option(help="Held-out labelled pictures, which decide whether the drop is allowed.", group=INT8),
]
BudgetMinutes: TypeAlias = Annotated[
    float | None,
    Option(help="Time limit of the search for each format, in minutes.", group=INT8, default="30"),
]
DamagePlot: TypeAlias = Annotated[
    Path | None, Option(help="Plot each layer's damage, and which layers stay float: FILE.png.", group=INT8)
]

# --- output
Json: TypeAlias = Annotated[bool, Option(help="Print JSON.", name="json", group=OUTPUT)]


Factory: TypeAlias = Annotated[
    str | None,
    Option(
        help="package.module:callable, for a NAME.model or a recipe made from your own code. Code named in a file "
        "runs only if you name it here.",
        group=NETWORK,
        metavar="FACTORY",
        code=True,
    ),
]


class NetworkWithoutHead(TypedDict, total=False):
    """The user's options for a network: fields of `edgecnn.sources.ModelOptions`."""

    weights: Annotated[
        str | Path | None,
        Option(help="A .pth or .safetensors file, or DEFAULT for the published ones.", group=NETWORK, kind=kinds.TEXT),
    ]
    size: Annotated[
        tuple[int, int] | None,
        Option(help="Frame size in px: 320, or WIDTHxHEIGHT such as 512x256.", group=NETWORK, kind=kinds.FRAME_SIZE),
    ]
    task: Annotated[str | None, Option(help="The network's task: {tasks}.", group=NETWORK, metavar="TASK")]
    fit: Annotated[
        str | None,
        Option(
            help="How a picture is fitted into the frame: letterbox, stretch or centre-crop.",
            group=NETWORK,
            kind=kinds.one_of("letterbox", "stretch", "centre-crop"),
            metavar="FIT",
        ),
    ]
    alignment: str | None
    interpolation: str | None
    pad_value: int | None
    mean: Annotated[
        tuple[float, float, float] | None,
        Option(help="Mean to subtract from the scaled pixel: 0.485,0.456,0.406.", group=NETWORK, kind=kinds.THREE),
    ]
    std: Annotated[
        tuple[float, float, float] | None,
        Option(help="Std to divide by after that: 0.229,0.224,0.225.", group=NETWORK, kind=kinds.THREE),
    ]
    scale: Annotated[float | None, Option(help="Factor on the 0..255 pixel, before mean and std.", group=NETWORK)]
    color: Annotated[
        str | None,
        Option(help="Colour order that the network was trained on.", group=NETWORK, kind=kinds.one_of("rgb", "bgr")),
    ]
    factory: Factory
    replace_activations: Annotated[
        str | None,
        Option(
            help="relu or relu6 instead of SiLU, hard-swish, …: for weights that were fine-tuned that way.",
            group=NETWORK,
            metavar="NAME",
        ),
    ]


class NetworkOptions(NetworkWithoutHead, total=False):
    """The same, plus the options for which `train` has its own."""

    head: Annotated[
        str | None, Option(help="Decoder of raw maps: yolox, nanodet or ssd.", group=NETWORK, metavar="NAME")
    ]
    labels: Annotated[
        str | Path | Sequence[str] | None,
        Option(help="A file of class names, one per line.", group=NETWORK, kind=kinds.PATH),
    ]
