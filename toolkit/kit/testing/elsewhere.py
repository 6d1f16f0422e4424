"""What another process does for the rule that one may read a dataset."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

from toolkit.kit.testing.datasets import digests

if __name__ == "__main__":
    request, answer = map(Path, sys.argv[1:])
    factory, root, args = pickle.loads(request.read_bytes())  # noqa: S301 - written by the process that started this one
    answer.write_text(json.dumps([digests(factory(root, **each)) for each in args]), encoding="utf-8")
