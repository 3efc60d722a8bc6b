"""Load an encoder's weights from a local checkpoint of the authors or of this library."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from mer_bench.encoders.mfcc_cnn import MFCCCNN
from mer_bench.encoders.resnext3d import ResNeXt3D
from mer_bench.errors import Misuse


def load_weights(encoder: MFCCCNN | ResNeXt3D, path: Path) -> None:
    """Load a checkpoint into ``encoder``.

    All files name the layers alike; they differ in what surrounds the names.

    ===============================================  ============================================================
    in the file                                      how it is loaded
    ===============================================  ============================================================
    ``conv1 bn1 layer1.0.conv1 ... layer4.2.bn3``    3D ResNeXt-50: 3D-ResNets-PyTorch, MSAF, CFN-SR; as they are
    ``conv1 bn1 conv2 bn2 conv3 bn3``                MFCCNet: MSAF, CFN-SR; as they are
    ``state_dict`` with all of this inside           3D-ResNets-PyTorch and Lightning checkpoints; unpacked
    ``module.`` before every name                    added by DataParallel; removed
    ``encoders.vision.`` or ``encoders.audio.``      ``cfn_sr`` of this library, trained end to end; the rest is ignored
    ``fc`` (3D ResNeXt-50), ``fc1`` (MFCCNet)        the classifier; ignored
    ``num_batches_tracked``                          missing in files older than torch 0.4.1; not needed
    ===============================================  ============================================================

    Raises:
        Misuse: the file cannot be read as tensors only, or its keys or shapes are not those of the encoder.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise Misuse(f"cannot read checkpoint {path}: {reason} (only files of tensors are accepted)") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    entries = state.items() if isinstance(state, dict) else ()
    found = {str(key).removeprefix("module."): value for key, value in entries if isinstance(value, Tensor)}
    prefix = f"encoders.{encoder.modality}."
    own = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)} or found
    own = {key: value for key, value in own.items() if not key.startswith(f"{encoder.head}.")}
    wanted = encoder.state_dict()
    problems = {
        "lacks": [key for key in wanted if key not in own and not key.endswith("num_batches_tracked")],
        "holds unknown": [key for key in own if key not in wanted],
        "has another shape of": [key for key in own if key in wanted and own[key].shape != wanted[key].shape],
    }
    sentences = [
        f"it {verb} {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        for verb, keys in problems.items()
        if keys
    ]
    if sentences:
        raise Misuse(f"checkpoint {path} does not fit {type(encoder).__name__}: {'; '.join(sentences)}")
    encoder.load_state_dict(own, strict=False)
