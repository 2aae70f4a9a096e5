"""Sources of trained networks: torchvision, our zoo, the user's own module, an exported program."""

from edgecnn.sources.load import load_model
from edgecnn.sources.model import Decode, ModelOptions, ReferencePreprocess, TrainedModel

__all__ = ["Decode", "ModelOptions", "ReferencePreprocess", "TrainedModel", "load_model"]
