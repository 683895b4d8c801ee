"""What the labels of an image say: which benchmark it was made for, and with which versions.

An image is made for one benchmark. Its labels name it by the hashes of hparams, model and data and by the
versions of what computes with them, so that a judge on the host sees whether a container of it would
train the same thing.
"""

from dataclasses import dataclass
from importlib.metadata import version

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.manifest import Manifest

DEFAULT_IMAGE = "validator"
# The interpreter inside, as the Dockerfile makes it.
IMAGE_PYTHON = "/opt/trainjudge/venv/bin/python"

LABEL_VERSION = "org.opencontainers.image.version"
LABEL_HPARAMS = "org.trainjudge.hparams.sha256"
LABEL_MODEL = "org.trainjudge.model.sha256"
LABEL_DATA = "org.trainjudge.data.sha256"
LABEL_TORCH = "org.trainjudge.torch"
LABEL_TRANSFORMERS = "org.trainjudge.transformers"
LABEL_PYTHON = "org.trainjudge.python"


@dataclass(frozen=True)
class ImageFacts:
    """What an image was made for. Versions are public ones: `+cpu` and `+cu130` are the same torch.

    Attributes:
        hparams, model, data: SHA-256, hex, of the hparams file and of the snapshot's two parts.
        torch, transformers: of the libraries inside.
        trainjudge: of the judge.
    """

    hparams: str
    model: str
    data: str
    torch: str
    transformers: str
    trainjudge: str

    def labels(self) -> dict[str, str]:
        """The labels that the Dockerfile sets."""
        return {
            LABEL_VERSION: self.trainjudge,
            LABEL_HPARAMS: self.hparams,
            LABEL_MODEL: self.model,
            LABEL_DATA: self.data,
            LABEL_TORCH: self.torch,
            LABEL_TRANSFORMERS: self.transformers,
            LABEL_PYTHON: IMAGE_PYTHON,
        }

    def build_arguments(self) -> dict[str, str]:
        """The Dockerfile's ARGs."""
        return {
            "HPARAMS_SHA256": self.hparams,
            "MODEL_SHA256": self.model,
            "DATA_SHA256": self.data,
            "TORCH_VERSION": self.torch,
            "TRANSFORMERS_VERSION": self.transformers,
            "TRAINJUDGE_VERSION": self.trainjudge,
        }


def image_facts(loaded: LoadedHparams, manifest: Manifest) -> ImageFacts:
    """What an image for this benchmark, built from this project, has to be."""
    return ImageFacts(
        hparams=loaded.sha256,
        model=manifest.model_sha256,
        data=manifest.data_sha256,
        torch=_public(version("torch")),
        transformers=version("transformers"),
        trainjudge=version("trainjudge"),
    )


def _public(found: str) -> str:
    return found.partition("+")[0]
