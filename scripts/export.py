"""Export a colorizer to ONNX, with dynamic batch size, height and width.

examples:
  python -m scripts.export runs/resnet18 --onnx resnet18.onnx
  python -m scripts.export runs/mine/best.safetensors --onnx mine.onnx --opset 20

The graph maps L [N, 1, H, W] in 0..100 to ab [N, 2, H, W], both float32 in CIELAB units. Its output is compared with
that of PyTorch at three sizes, and the export fails if the relative difference is above 1e-4.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from common.utils.errors import UserError, entry_point, one_sentence, require
from common.utils.files import check_writable
from scripts.arguments import Parser, positive

TOLERANCE = 1e-4


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, export, check, print."""
    parser = Parser("python -m scripts.export", __doc__)
    parser.add_argument("model", metavar="MODEL", help="an installed model, a run folder or a .safetensors file")
    parser.add_argument("--onnx", type=Path, required=True, help="file to write")
    parser.add_argument("--opset", type=positive, default=18, help="version of the ONNX operator set (default: 18)")
    args = parser.parse_args(argv)
    check_writable(args.onnx)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    require("onnx", "onnxruntime", "onnxscript")
    import onnx

    from common.registry import load_colorizer

    if args.opset > (newest := onnx.defs.onnx_opset_version()):
        raise UserError(f"--opset is {args.opset}: onnx {onnx.__version__} takes up to {newest}")
    colorizer = load_colorizer(args.model)
    try:
        model = to_onnx(colorizer, args.opset)
    except Exception as error:  # the exporter raises nearly every type
        raise UserError(
            f"{args.model} cannot be exported at opset {args.opset} ({_cause(error)}): fastai's DynamicUnet and"
            " generators with noise at test time have no graph; for other networks, try another --opset"
        ) from None
    if (opset := next(each.version for each in model.opset_import if not each.domain)) != args.opset:
        raise UserError(f"{args.model} cannot be exported at opset {args.opset}, only at {opset}: use --opset {opset}")
    model.metadata_props.add(key="card", value=json.dumps(colorizer.card, sort_keys=True))
    data = model.SerializeToString()
    differences = check(colorizer, data)
    try:
        args.onnx.write_bytes(data)
    except OSError as error:
        raise UserError(f"{args.onnx} cannot be written ({error.strerror}): choose another file") from None
    worst = max(differences.values())
    sizes = ", ".join(f"{h}x{w}" for h, w in differences)
    print(f"written: {args.onnx} ({len(data) / 1e6:.1f} MB, opset {args.opset}, onnx {onnx.__version__})")
    print(f"largest difference from PyTorch at {sizes}: {worst:.2g} of the prediction's range")
    return 0


def to_onnx(colorizer, opset: int):  # noqa: ANN001, ANN201 - onnx is imported where it is used
    """The colorizer as an onnx.ModelProto with dynamic batch, height and width."""
    import contextlib
    import io
    import logging
    import warnings

    import torch
    from torch.export import Dim

    multiple = colorizer.multiple
    height, width = (multiple * Dim(name, min=1, max=4096 // multiple) for name in ("h", "w"))
    example = torch.rand(2, 1, 4 * multiple, 5 * multiple) * 100
    shapes = {"L": {0: Dim("N", min=1, max=1024), 2: height, 3: width}}
    colorizer = colorizer.eval().to(memory_format=torch.contiguous_format)
    logging.disable()  # a failed conversion to the opset is logged with a traceback; the caller checks the opset
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                colorizer, (example,), dynamo=True, dynamic_shapes=shapes, opset_version=opset,
                input_names=["L"], output_names=["ab"], verbose=False,
            )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return program.model_proto


def check(colorizer, data: bytes) -> dict[tuple[int, int], float]:  # noqa: ANN001
    """Largest difference from PyTorch, relative to the range of the prediction, at three sizes.

    Raises UserError if it is above the tolerance, or if onnxruntime does not run the graph.
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types
        raise UserError(f"onnxruntime cannot run the graph ({one_sentence(error)}): try a smaller --opset") from None
    out = {}
    n = colorizer.multiple
    for height, width in ((2 * n, 3 * n), (8 * n, 8 * n), (5 * n, 11 * n)):
        L = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(height)) * 100
        with torch.no_grad():
            expected = colorizer(L)
        found = torch.from_numpy(session.run(None, {"L": L.numpy()})[0])
        out[height, width] = float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))
        if not out[height, width] <= TOLERANCE:
            raise UserError(
                f"the exported graph differs from PyTorch by {out[height, width]:.2g} at {height}x{width}, above"
                f" {TOLERANCE:g}: try another --opset"
            )
    return out


def _cause(error: BaseException) -> str:
    """The message of the first exception in the chain; the exporter wraps it in general advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_sentence(error)


if __name__ == "__main__":
    sys.exit(main())
