"""LitServe with the bare session of a bundle: `python -m bench.litserve_side MODEL PORT BATCH DELAY THREADS`.

Annotations are not postponed here: LitServe compares that of a request with FastAPI's class."""

import io
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Request
from numpy.typing import NDArray
from PIL import Image


class Api(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """Files of squares in, the likeliest class out."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(sys.argv[5])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Request) -> NDArray[np.uint8]:
        data = request["file"].file.read()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def batch(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.stack(inputs)

    def predict(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = self.session.run(None, {"frames": x})[0]
        return answers

    def unbatch(self, output: NDArray[np.float32]) -> Any:
        return list(output)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, float]:
        return {"class": int(output.argmax()), "probability": float(output.max())}


if __name__ == "__main__":
    api = Api(max_batch_size=int(sys.argv[3]), batch_timeout=float(sys.argv[4]))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
