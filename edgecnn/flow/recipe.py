"""A recipe: the stages and settings of `compress`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edgecnn.bundle import PRECISIONS, QUANTIZED
from edgecnn.errors import DataError, SpecError, UnknownNameError
from edgecnn.formats import FORMATS, convertible
from edgecnn.options import parse_size
from edgecnn.sources.table import is_network_path
from edgecnn.tasks import TASKS
from edgecnn.training.settings import TrainSettings

DEFAULT_WEIGHTS = "DEFAULT"

Share = Annotated[float, Meta(gt=0, lt=1)]
Count = Annotated[int, Meta(ge=1)]
Drop = Annotated[float, Meta(ge=0)]
Activation = Literal["relu", "relu6"]


class Data(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[data]: labelled pictures and their uses.

    Attributes:
        train: training pictures.
        split: part of these; by default "train", otherwise all.
        validate_on: validation pictures, which decide which epoch is kept; by default the data's "val", otherwise a
            tenth.
        evaluate_on: held-out pictures, used only for the closing table.
        evaluate_split: part of these; by default "test", otherwise "val", otherwise all.
        ignore_label: for segmentation, a class whose pixels are ignored in the metric.
    """

    train: Path | None = None
    split: str | None = None
    validate_on: Path | None = None
    evaluate_on: Path | None = None
    evaluate_split: str | None = None
    ignore_label: str | None = None

    def __post_init__(self) -> None:
        for name, of in (("split", "train"), ("validate_on", "train"), ("evaluate_split", "evaluate_on")):
            if getattr(self, name) is not None and getattr(self, of) is None:
                raise SpecError(f"{name} is given without {of}, which it belongs to: add {of}")


class Train(TrainSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[train]: training before pruning; settings as in `TrainSettings`.

    Attributes:
        head: "ssdlite" or "lraspp", added to a classifier.
        replace_activations: "relu" or "relu6" instead of activations that quantize badly.
    """

    head: Literal["ssdlite", "lraspp"] | None = None
    replace_activations: Activation | None = None


class FineTune(TrainSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[fine-tune]: training after pruning; settings as in `TrainSettings`.

    Attributes:
        replace_activations: "relu" or "relu6" instead of activations that quantize badly.
        distill: learn also from the network before pruning.
    """

    replace_activations: Activation | None = None
    distill: bool = False


class QuantizeAware(TrainSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[quantize-aware]: a last training with the rounding of int8; settings as in `TrainSettings`, with `quantize_for`.

    Attributes:
        distill: learn also from the same network without rounding.
    """

    distill: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantize_for is None:
            raise SpecError("[quantize-aware] needs a format: add quantize_for")


class Prune(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[prune]: how much is removed, and what goes first.

    Attributes:
        macs, parameters, latency: share that may remain; give one; by default half of the multiply-adds.
        of: the artifact whose latency is meant, "FORMAT" or "FORMAT:fp16"; by default the first format of [convert], in
            fp32.
        importance, round_to, keep, steps, distill: as for `edgecnn.prune`.
        train: [prune.train], training after each step, as in `TrainSettings`; by default, with one step, nothing
            is trained here.
    """

    macs: Share | None = None
    parameters: Share | None = None
    latency: Share | None = None
    of: str | None = None
    importance: Literal["magnitude", "batch-norm", "taylor"] = "magnitude"
    round_to: Count = 8
    keep: tuple[str, ...] = ()
    steps: Count = 1
    distill: bool = True
    train: TrainSettings | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("macs", "parameters", "latency") if getattr(self, name) is not None]
        if len(given) > 1:
            raise SpecError(f"{' and '.join(given)} are different costs: give one")
        if self.of is not None:
            if self.latency is None:
                raise SpecError(f"of = {self.of!r} names the artifact whose latency is the cost: add latency")
            FORMATS.get(self.of.partition(":")[0])  # raises for an unknown name, with the nearest known names

    @property
    def trains(self) -> bool:
        """Whether the narrower network is trained here."""
        return self.steps > 1 or self.train is not None

    @property
    def cost(self) -> tuple[Literal["macs", "parameters", "latency"], float]:
        """The kind of cost, and the share of it that may remain."""
        if self.parameters is not None:
            return "parameters", self.parameters
        if self.latency is not None:
            return "latency", self.latency
        return "macs", 0.5 if self.macs is None else self.macs


class Convert(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[convert]: the float artifacts.

    Attributes:
        to: formats; by default all whose converter is installed. The stages are timed in the first.
        precision: of each; int8 has a separate table.
        data: pictures to compare on and, if they are labelled, to measure the drop on; by default the photographs
            that come with edgecnn.
        max_drop: largest allowed drop of the metric below the torch network's on `data`.
    """

    to: tuple[str, ...] | None = None
    precision: tuple[str, ...] = ("fp32",)
    data: Path | None = None
    max_drop: Drop | None = None

    def __post_init__(self) -> None:
        _check_formats(self.to)
        if not self.precision:
            raise SpecError("precision is empty: leave it out for fp32")
        for name in self.precision:
            if name not in PRECISIONS:
                raise UnknownNameError("precision", name, PRECISIONS)
            if name in QUANTIZED:
                raise SpecError(f"precision {name!r} is made from fp32: request it in a table [quantize]")
        if self.max_drop is not None and self.data is None:
            raise SpecError("max_drop needs labelled pictures to measure the drop on: add data")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to convert to, each once."""
        return tuple(dict.fromkeys(convertible() if self.to is None else self.to))


class Quantize(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[quantize]: int8 artifacts, as `edgecnn.quantize` makes them.

    Attributes:
        to: formats; by default those of [convert].
        data: labelled pictures to search on; by default `validate_on`, otherwise the part "val" of `train`, otherwise
            the training pictures.
        split: part of these.
        calibration: pictures for activation ranges; by default the training pictures if they have a folder of their
            own, otherwise those for the search.
        precision, max_drop, calibration_count, seed, evaluate_on, allow_drop, keep_slower, budget_minutes: as for the
            verb.
    """

    to: tuple[str, ...] | None = None
    precision: str = "int8"
    max_drop: Drop | None = None
    data: Path | None = None
    split: str | None = None
    calibration: Path | None = None
    calibration_count: Count | None = None
    seed: int = 0
    evaluate_on: Path | None = None
    allow_drop: bool = False
    keep_slower: bool = False
    budget_minutes: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        _check_formats(self.to)
        if self.precision not in QUANTIZED:
            raise UnknownNameError("precision to quantize to", self.precision, QUANTIZED)


class Bench(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[bench]: how the closing latencies are measured.

    Attributes:
        profile: "quick" or "standard", as for `edgecnn.bench`.
        iterations: exactly this number of pictures for each artifact instead.
        threads: threads per inference; by default, the cores that this process may use.
    """

    profile: Literal["quick", "standard"] = "quick"
    iterations: Count | None = None
    threads: Count | None = None


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network, labelled pictures, and the stages; a missing table is a skipped stage.

    Attributes:
        model: as for `load_model`.
        weights, size, task, head, labels, fit, mean, std, scale, color, replace_activations: options of the network,
            as on the command line; a size is a number or "WIDTHxHEIGHT".
        data, train, prune, fine_tune, quantize_aware, convert, quantize, bench: the tables.
    """

    model: str
    weights: str | None = None
    size: int | str | None = None
    task: str | None = None
    head: str | None = None
    labels: Path | None = None
    fit: Literal["letterbox", "stretch", "centre-crop"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    scale: float | None = None
    color: Literal["rgb", "bgr"] | None = None
    replace_activations: Activation | None = None
    data: Data = msgspec.field(default_factory=Data)
    train: Train | None = None
    prune: Prune | None = None
    fine_tune: FineTune | None = msgspec.field(default=None, name="fine-tune")
    quantize_aware: QuantizeAware | None = msgspec.field(default=None, name="quantize-aware")
    convert: Convert = msgspec.field(default_factory=Convert)
    quantize: Quantize | None = None
    bench: Bench = msgspec.field(default_factory=Bench)

    def __post_init__(self) -> None:
        self.size_px  # noqa: B018 - raises for an invalid size
        if self.task is not None:
            TASKS.get(self.task)
        for name, table in self.tables():
            if isinstance(table, TrainSettings) and self.data.train is None:
                raise SpecError(f"[{name}] needs training pictures: add train to [data]")
        if (
            self.prune is not None
            and self.data.train is None
            and (self.prune.trains or self.prune.importance == "taylor")
        ):
            raise SpecError("[prune] with steps, train or taylor needs training pictures: add train to [data]")
        if self.quantize is not None:
            _check_quantize(self.quantize, self.convert, self.data)

    def tables(self) -> Iterator[tuple[str, Struct]]:
        """Name and content of each table in the recipe, in its order."""
        for field in msgspec.structs.fields(self):
            if isinstance(table := getattr(self, field.name), Struct):
                yield field.encode_name, table

    def table(self, name: str) -> Any:
        """The table of this name; None where it is missing."""
        return dict(self.tables()).get(name)

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(height, width) of the frame in px.

        Raises:
            SpecError: it is not valid.
        """
        if self.size is None:
            return None
        size = parse_size(str(self.size), square=True, what="size")
        return size.height_px, size.width_px

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of the network for `load_model`."""
        names = (
            "weights", "task", "head", "labels", "fit", "mean", "std", "scale", "color", "replace_activations"
        )  # fmt: skip
        given = {"size": self.size_px, **{name: getattr(self, name) for name in names}}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def learned_parts(self) -> tuple[Path, ...]:
        """The folders of the splits in [data] train used for training, otherwise train itself."""
        train, split = self.data.train, self.data.split
        if train is None:
            return ()
        names = [split] if split is not None else ["train", "val"] if self.data.validate_on is None else ["train"]
        parts = tuple(train / name for name in names if (train / name).is_dir())
        return parts if parts and parts[0].name == names[0] else (train,)

    @property
    def search_data(self) -> Path | None:
        """Labelled pictures for the search of layers that stay float."""
        given = (self.quantize and self.quantize.data) or self.data.validate_on
        return given or (self.learned_parts[-1] if self.learned_parts else None)

    @property
    def calibration(self) -> Path | None:
        """Pictures for activation ranges; None for those of the search."""
        given = self.quantize or Quantize()
        if given.calibration is not None or given.data is not None or not self.learned_parts:
            return given.calibration
        return self.learned_parts[0]

    def check_files(self) -> None:
        """Check that the files and folders in the recipe exist.

        Raises:
            DataError: one does not.
        """
        named = [("weights", self.weights), ("labels", self.labels)]
        if is_network_path(self.model):
            named.append(("model", self.model))
        for name, path in named:
            if path is not None and path != DEFAULT_WEIGHTS and not Path(path).exists():
                raise DataError(f"{name}: {path} does not exist")
        for name, table in self.tables():
            for field in msgspec.structs.fields(table):
                path = getattr(table, field.name)
                if isinstance(path, Path) and not path.exists():
                    raise DataError(f"[{name}] {field.encode_name}: {path} does not exist")


def words_of(table: Struct) -> dict[str, Any]:
    """A table's values other than defaults, without paths: those are identified by their content."""
    words: dict[str, Any] = {}
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value != default and not isinstance(value, Path):
            words[field.encode_name] = words_of(value) if isinstance(value, Struct) else msgspec.to_builtins(value)
    return words


def _check_formats(formats: tuple[str, ...] | None) -> None:
    if formats is not None and not formats:
        raise SpecError("to is empty: leave it out for all formats")
    for name in formats or ():
        FORMATS.get(name)  # raises for an unknown name, with the nearest known names


def _check_quantize(quantize: Quantize, convert: Convert, data: Data) -> None:
    if "fp32" not in convert.precision:
        raise SpecError("[quantize] makes its artifacts from fp32 ones: add fp32 to [convert] precision")
    absent = [name for name in quantize.to or () if name not in convert.formats]
    if absent:
        raise SpecError(f"[quantize] to has {', '.join(absent)}, which [convert] to has not: add it there")
    for name in quantize.to or convert.formats:
        FORMATS.get(name)
    if data.train is None and quantize.data is None and quantize.calibration is None:
        raise SpecError(
            "[quantize] needs pictures for activation ranges: add calibration (or data) there, or train to [data]"
        )
    if quantize.max_drop is not None and not (quantize.data or quantize.evaluate_on or data.train):
        raise SpecError("[quantize] max_drop needs labelled pictures to measure the drop on: add data there")
