"""Which framework a script trains with, by what it imports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.scan.facts import Import

if TYPE_CHECKING:
    from builder.models.records import Framework

_FRAMEWORKS: dict[str, Framework] = {
    "torch": "PYTORCH",
    "torchvision": "PYTORCH",
    "torchaudio": "PYTORCH",
    "lightning": "PYTORCH",
    "pytorch_lightning": "PYTORCH",
    "ultralytics": "PYTORCH",
    "timm": "PYTORCH",
    "fastai": "PYTORCH",
    "monai": "PYTORCH",
    "accelerate": "PYTORCH",
    "segmentation_models_pytorch": "PYTORCH",
    "tensorflow": "TENSORFLOW",
    "tf_keras": "TENSORFLOW",
    "keras": "TENSORFLOW",
    "onnx": "ONNX",
    "onnxruntime": "ONNX",
}
# A PyTorch or TensorFlow script often exports to ONNX too, so that ONNX is believed last.
_ORDER: tuple[Framework, ...] = ("PYTORCH", "TENSORFLOW", "ONNX")


def framework_of(imports: Iterable[Import]) -> tuple[Framework, str]:
    """The framework and why; the reason opens with `check: ` when there is more than one candidate."""
    seen: dict[Framework, Import] = {}
    for found in sorted(imports, key=lambda found: found.need != "always"):
        framework = _FRAMEWORKS.get(found.package)
        if framework and found.need != "typing":
            seen.setdefault(framework, found)
    candidates = [framework for framework in _ORDER if framework in seen]
    if not candidates:
        return "NOT_CONFIGURED", "no import of PyTorch, TensorFlow or ONNX"
    reasons = [f"{seen[name].place} imports {seen[name].package}" for name in candidates]
    rivals = [name for name in candidates if name != "ONNX"]
    prefix = "check: " if len(rivals) > 1 else ""
    return candidates[0], prefix + ", ".join(reasons[: max(len(rivals), 1)])
