"""A good export folder, and ways to change it as an attacker could.

Unless a test says otherwise, the manifest lists the right digests of the changed files, so that only the other rules can
refuse the folder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")

from budc.runtimes.exported.folder import describe_export  # noqa: E402
from budc.runtimes.exported.manifest import MANIFEST  # noqa: E402
from budc.runtimes.exported.signatures import INPUTS, OUTPUTS  # noqa: E402
from budc.schema.errors import ModelError  # noqa: E402
from budc.schema.hashing import sha256_file  # noqa: E402

COMPUTE, WEIGHTS = "transformer/compute.onnx", "transformer/weights.onnx.data"
CHANNELS = 512
FLOAT = onnx.TensorProto.FLOAT


class Export:
    """A good export of a model that multiplies by 2, which can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("transformer", "tokenizer", "scheduler", "text_encoder", "vae_decoder"):
            (folder / name).mkdir(parents=True)
        (folder / "tokenizer/tokenizer.json").write_text("{}")
        (folder / "scheduler/scheduler_config.json").write_text("{}")
        (folder / WEIGHTS).write_bytes(np.full(CHANNELS, 2.0, np.float32).tobytes())
        self.graphs: dict[str, Any] = {}
        for name, file in {
            "compute": COMPUTE,
            "reuse": "transformer/reuse.onnx",
            "reuse_terms": "transformer/reuse_terms.onnx",
            "text_encoder": "text_encoder/model.onnx",
            "vae_decoder": "vae_decoder/model.onnx",
        }.items():
            self.graphs[name] = {
                "file": file,
                "inputs": [self._spec(value) for value in INPUTS[name]],
                "outputs": [self._spec(value) for value in OUTPUTS[name]],
            }
            onnx.save(self._model(name), folder / file)
        self.list_files()

    def _spec(self, name: str) -> dict[str, Any]:
        return {"name": name, "dtype": "float32", "shape": [None, CHANNELS]}

    def _model(self, name: str) -> Any:
        value = onnx.helper.make_tensor_value_info
        inputs, outputs = (
            [value(spec["name"], FLOAT, ["batch", CHANNELS]) for spec in self.graphs[name][side]]
            for side in ("inputs", "outputs")
        )
        weight = onnx.TensorProto(name="weight", data_type=FLOAT, dims=[CHANNELS])
        if name in ("compute", "reuse", "reuse_terms"):
            self.locate(weight, location="weights.onnx.data", offset="0", length=str(4 * CHANNELS))
        else:
            weight.raw_data = np.full(CHANNELS, 2.0, np.float32).tobytes()
        nodes = [
            onnx.helper.make_node("Mul", [inputs[0].name, "weight"], [output.name]) for output in outputs
        ]
        graph = onnx.helper.make_graph(nodes, name, inputs, outputs, [weight])
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)

    def list_files(self, **fields: Any) -> None:
        """Write the manifest with the digests of the present files; `fields` replace fields of it."""
        files = {
            str(path.relative_to(self.folder)): sha256_file(path)
            for path in self.folder.rglob("*")
            if path.is_file() and path.name != MANIFEST
        }
        manifest = {
            "formatVersion": "1.0",
            "profile": "tiny",
            "family": "tiny",
            "pipelineClass": "WanPipeline",
            "denoiserClass": "WanTransformer3DModel",
            "dtype": "float32",
            "opset": 23,
            "versions": {},
            "shape": {"height": 8, "width": 8, "frames": 1},
            "latents": [1, 1, 1, CHANNELS],
            "text": {
                "cleaning": "wan",
                "tokens": CHANNELS,
                "paddingId": 0,
                "paddingToken": "<pad>",
                "endId": 1,
                "tokenizer": "tokenizer/tokenizer.json",
            },
            "pooledText": {
                "cleaning": "none",
                "tokens": CHANNELS,
                "paddingId": 0,
                "paddingToken": "<pad>",
                "endId": None,
                "tokenizer": "tokenizer/tokenizer.json",
            },
            "branches": ["cond"],
            "negativePrompt": "",
            "scheduler": "scheduler/scheduler_config.json",
            "graphs": self.graphs,
            "files": files,
            **fields,
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest))

    def change(self, apply: Callable[[Any], object], file: str = COMPUTE) -> None:
        """Change a graph, and write the manifest for it."""
        model = onnx.load(self.folder / file, load_external_data=False)
        apply(model)
        onnx.save(model, self.folder / file)
        self.list_files()

    def refused(self, error: type[ModelError], *parts: str) -> None:
        """Assert that the folder is refused in a message that contains all `parts`."""
        with pytest.raises(error) as caught:
            describe_export(self.folder)
        assert all(part in str(caught.value) for part in parts), str(caught.value)

    @staticmethod
    def locate(tensor: Any, **entries: str) -> None:
        """Make a tensor external, with `entries` as its location."""
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return Export(tmp_path / "export")
