"""Pack a folder of corpus files into a zip that is the same for the same files. Usage: pack.py FOLDER FILE.zip"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

MOST = 400
"""Files kept; the smallest reach most of the code and keep the test quick."""


def pack(folder: Path, target: Path) -> None:
    octets = sorted((path.read_bytes() for path in folder.iterdir()), key=lambda data: (len(data), data))[:MOST]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for data in octets:
            archive.writestr(zipfile.ZipInfo(hashlib.sha256(data).hexdigest()[:16]), data, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
