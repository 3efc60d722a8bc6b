"""The kind of a file by its first bytes, and how to go on with one that cannot be imported."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

NPZ, PICKLE, GZIP = "an npz", "a pickle", "gzip"
ARRAYS = "write its arrays as an npz (numpy.savez)"

#: what to do with a file of each kind
ADVICE = {
    "empty": "obtain it again",
    NPZ: "mer-bench prepare import reads it",
    "a zip": "unpack it",
    "one npy array without ids": "write an npz with ids and values, or a folder with one <id>.npy for each utterance",
    PICKLE: f"mer-bench prepare pack reads those of papers; otherwise {ARRAYS}",
    "a joblib file": f"load it with joblib.load, then {ARRAYS}",
    "a torch file": f"load it with torch.load(FILE, weights_only=True), call numpy() on the tensors, and {ARRAYS}",
    "safetensors": f"load it with safetensors.numpy.load_file, then {ARRAYS}",
    "HDF5": f"read it with h5py or pandas.read_hdf, then {ARRAYS}",
    "a MATLAB file": f"read it with scipy.io.loadmat, then {ARRAYS}",
    "Parquet": f"read it with pandas.read_parquet, then {ARRAYS}",
    "a tarball": "unpack it",
    GZIP: "unpack it with gunzip",
    "bzip2": "unpack it with bunzip2",
    "xz": "unpack it with unxz",
    "zstd": "unpack it with unzstd",
    "lz4": "unpack it with unlz4",
    "zlib, as joblib.dump(compress=...) writes it": f"load it with joblib.load, then {ARRAYS}",
    "a wav": "extract its features first (mer-bench prepare audio)",
    "a Git LFS pointer instead of the file": "fetch the file with git lfs pull",
    "an HTML page instead of the file": "download the file itself",
    "XML": f"{ARRAYS}",
    "JSON": f"read it with json.load, then {ARRAYS}",
    "text, such as CSV": f"read it with pandas.read_csv or numpy.loadtxt, then {ARRAYS}",
    "of an unknown kind": f"read it with the program that wrote it, then {ARRAYS}",
}
#: regular expressions for the first bytes; the first that matches counts
MAGIC = (
    (rb"$", "empty"),
    (rb"\x93NUMPY", "one npy array without ids"),
    (rb"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "a torch file"),  # before torch 1.6
    (rb"(\x80[\x02-\x05]|[c(\]}]).{0,4000}joblib\.numpy_pickle", "a joblib file"),
    (rb"\x80[\x02-\x05]", PICKLE),
    (rb"\x1f\x8b", GZIP),
    (rb"BZh", "bzip2"),
    (rb"\xfd7zXZ", "xz"),
    (rb"\x28\xb5\x2f\xfd", "zstd"),
    (rb"\x04\x22\x4d\x18", "lz4"),
    (rb"\x78[\x01\x5e\x9c\xda]", "zlib, as joblib.dump(compress=...) writes it"),
    (rb"\x89HDF\r\n\x1a\n|MATLAB 7\.3", "HDF5"),
    (rb"MATLAB 5\.0", "a MATLAB file"),
    (rb"PAR1", "Parquet"),
    (rb"RIFF....WAVE", "a wav"),
    (rb".{257}ustar", "a tarball"),
    (rb".{8}\{\s*\"", "safetensors"),
    (rb"version https://git-lfs", "a Git LFS pointer instead of the file"),
    (rb"(?i)\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", "an HTML page instead of the file"),
    (rb"\s*<\?xml", "XML"),
    # protocol 0 or 1: a global, a mark, an empty container, or a value that ends with a line
    (rb"c[\w.]+\r?\n[\w.]+\r?\n|\([dlt(cVSIFLNKMJGUXp\]}]", PICKLE),
    (rb"[\]}]q|[\]}](?=[^\s\w\"{\[])|[VSIFL][^\n]{0,4000}\r?\np", PICKLE),
    (rb"\s*(\{\s*[\"}]|\[\s*([\"\[{\]\d-]|true|false|null))", "JSON"),
)


def file_kind(path: Path) -> str:
    """The kind of the file, a key of ``ADVICE``.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return zip_kind(path)
    text = head.removeprefix(b"\xef\xbb\xbf")
    found = next((kind for magic, kind in MAGIC if re.match(magic, text, re.DOTALL)), "")
    return found or ("of an unknown kind" if re.search(rb"[\x00-\x08\x0e-\x1f]", text) else "text, such as CSV")


def zip_kind(path: Path) -> str:
    """Whether a zip is an npz, a file of torch, or another one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged zip can raise many errors; the reader of npz files will say which
        return NPZ
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "a torch file"
    return NPZ if not names or any(name.endswith(".npy") for name in names) else "a zip"


def what_it_is(path: Path) -> str:
    """The kind of the file and how to go on, as a part of a sentence: ``it is HDF5: read it with ...``."""
    kind = file_kind(path)
    return f"it is {kind}: {ADVICE[kind]}"


def unpacked_limit(packed: int) -> int:
    """The number of bytes that a compressed file of ``packed`` bytes may unpack to: plausible data stay far below."""
    return max(1 << 30, 100 * packed)
