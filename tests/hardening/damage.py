"""Sound files of every format, and the ways in which files break."""

from __future__ import annotations

import json
import pickle
import random
import re
from pathlib import Path

import numpy as np
from scipy.io import savemat

NUMBERS = [b"-1", b"0", b"1e999", b"nan", b"-inf", b"99999999999999999999", b"2147483648", b"1.5", b"", b"x"]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def sample_files(folder: Path) -> dict[str, Path]:
    """Writes a sound file of each format into ``folder``."""
    rng = np.random.default_rng(0)
    paths = {
        "ntu": folder / "S001C001P001R001A001.skeleton",
        "kinetics": folder / "kinetics.json",
        "openpose": folder / "frame_000000_keypoints.json",
        "pyskl": folder / "set.pkl",
        "utd_mhad": folder / "a1_s1_t1_skeleton.mat",
        "nw_ucla": folder / "a01_s01_e01_v01.json",
        "natops": folder / "NATOPS_TRAIN.ts",
        "arrays": folder / "clip.npz",
        "arrays_npy": folder / "clip.npy",
    }
    lines = ["12"]
    for _ in range(12):
        lines += ["1", "72057 0 1 1 1 1 0 0.02 0.05 2", "25"]
        lines += [f"{x:.4f} {y:.4f} {z:.4f} 1 2 3 4 0 0 0 1 2" for x, y, z in rng.normal(size=(25, 3))]
    paths["ntu"].write_text("\n".join(lines) + "\n")
    people = [{"pose": [round(float(v), 3) for v in rng.uniform(size=36)], "score": [0.5] * 18}]
    entries = [{"frame_index": t + 1, "skeleton": people} for t in range(4)]
    paths["kinetics"].write_text(json.dumps({"data": entries, "label": "a", "label_index": 0}))
    flat = [round(float(v), 2) for v in rng.uniform(1, 99, size=75)]
    openpose = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat}]}
    paths["openpose"].write_text(json.dumps(openpose))
    annotation = {
        "frame_dir": "clip",
        "label": 0,
        "img_shape": (1080, 1920),
        "total_frames": 4,
        "keypoint": rng.uniform(1, 99, size=(1, 4, 17, 2)).astype("f2"),
        "keypoint_score": rng.uniform(size=(1, 4, 17)).astype("f2"),
    }
    paths["pyskl"].write_bytes(pickle.dumps([annotation]))
    savemat(paths["utd_mhad"], {"d_skel": rng.normal(size=(20, 3, 5))}, do_compression=True)
    skeletons = rng.normal(size=(3, 20, 3)).round(4).tolist()
    paths["nw_ucla"].write_text(
        json.dumps({"file_name": "a01_s01_e01_v01", "skeletons": skeletons, "label": 1})
    )
    header = "@problemName N\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 24\n"
    header += "@equalLength true\n@seriesLength 3\n@classLabel true 1.0 2.0 3.0 4.0 5.0 6.0\n@data\n"
    table = rng.normal(size=(24, 3)).round(4)
    paths["natops"].write_text(header + ":".join([*(",".join(map(str, row)) for row in table), "1.0"]) + "\n")
    keypoints = rng.normal(size=(4, 25, 3)).astype("f4")
    np.savez(paths["arrays"], keypoints=keypoints, label=1, subject=2)
    np.save(paths["arrays_npy"], keypoints)
    return paths


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to three faults of the kinds that disks, transfers, editors and other programs make."""
    for _ in range(rng.randint(1, 3)):
        size = len(content)
        at, length = rng.randrange(size + 1), rng.randint(1, max(1, size // 4))
        kind = rng.randrange(8)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content = content[:at] + content[at + length :]
        elif kind == 2:
            content = (
                content[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 16))) + content[at:]
            )
        elif kind == 3 and size:
            flipped = bytearray(content)
            for _ in range(rng.randint(1, 8)):
                flipped[rng.randrange(size)] ^= 1 << rng.randrange(8)
            content = bytes(flipped)
        elif kind == 4:
            content = content[:at] + bytes(min(length, size - at)) + content[at + length :]
        elif kind == 5:
            content = content[:at] + content[at : at + length] * 2 + content[at + length :]
        elif kind == 6 and (found := list(NUMBER.finditer(content))):
            number = rng.choice(found)
            content = content[: number.start()] + rng.choice(NUMBERS) + content[number.end() :]
        else:
            lines = content.split(b"\n")
            rng.shuffle(lines)
            content = b"\n".join(lines)
    return content
