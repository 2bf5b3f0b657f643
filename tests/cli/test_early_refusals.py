"""Every usage error is out before a library of models is imported, and without a look at the network."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from budc.schema.artifact import seal

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnxscript") is None,
    reason="without the packages of a command, it refuses for that reason first",
)

CALLS = """
import json, sys

def refuse_network(event, _arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError(event)

sys.addaudithook(refuse_network)
from budc.cli import main

results = []
for arguments in json.load(sys.stdin):
    code = main(arguments)
    heavy = {"torch", "diffusers", "transformers", "numpy", "onnxruntime", "onnx", "huggingface_hub"}
    results.append([arguments, code, sorted(heavy & sys.modules.keys())])
json.dump(results, open("results.json", "w"))
"""

COMPILE = "compile --model wan2.1-nano"
TRANSFER = "transfer policy.budc.json --trust release.pub --to wan2.1-nano --allow-differences"
PLAN = "plan --model wan2.1-nano --budget 4"
RUN = "run nano.budc.json --trust release.pub --prompt x --out x.png"
ONNX = f"{RUN} --runtime onnxruntime"
BIND = "bind policy.budc.json --variant none --key release.key"
EXPORT = "export onnx --model wan2.1-nano --out new"
VERIFY = "verify policy.budc.json --trust release.pub"

REFUSALS = {
    "compile": {
        f"{COMPILE}": 2,
        f"{COMPILE} --budget 4 --sweep 4,5": 2,
        f"{COMPILE} --budget 4 --model nope": 2,
        f"{COMPILE} --budget 4 --search nope": 2,
        f"{COMPILE} --budget 4 --steps many": 2,
        f"{COMPILE} --budget 4 --seed -1": 2,
        f"{COMPILE} --budget 4 --branches three": 2,
        f"{COMPILE} --budget 4 --revision 0": 2,
        f"{COMPILE} --budget 4 --name a/b": 2,
        f"{COMPILE} --budget 4 --align --search uniform": 2,
        f"{COMPILE} --budget 4 --calibration none": 2,
        f"{COMPILE} --budget 4 --held-out none": 2,
        f"{COMPILE} --budget 4 --calibration-size 1000": 2,
        f"{COMPILE} --budget 4 --height 70": 34,
        f"{COMPILE} --budget 4 --guidance 1": 2,
        f"{COMPILE} --budget 4 --dtype int8": 2,
        f"{COMPILE} --budget 4 --text-tokens 0": 2,
        f"{COMPILE} --budget 4 --scheduler nope": 2,
        f"{COMPILE} --budget 4 --negative \u200b": 2,
        f"{COMPILE} --budget 4 --lora garbage": 33,
        f"{COMPILE} --budget 4 --lora none.safetensors:0.5": 31,
        f"{COMPILE} --mask 0,3 --budget 4": 2,
        f"{COMPILE} --mask #..#": 2,
        f"{COMPILE} --budget 4 --fit": 2,
        f"{COMPILE} --budget 51": 51,
        f"{COMPILE} --budget few": 51,
        f"{COMPILE} --budget 4 --key none": 26,
        f"{COMPILE} --budget 4 --key release.key --public none": 26,
        f"{COMPILE} --budget 4 --weights none": 31,
        f"{COMPILE} --budget 4 --out none/x.budc.json": 61,
        f"{COMPILE} --sweep 4,5 --out garbage": 61,
        f"{COMPILE} --budget 4 --shard 3/2 --out none": 2,
        f"{COMPILE} --budget 4 --merge none": 2,
        f"{COMPILE} --budget 4 --ray nowhere": 2,
        f"{COMPILE} --budget 4 --workers 2": 2,
        f"{COMPILE} --budget 4 --ray local --gpus-per-worker 1.5": 2,
        f"{COMPILE} --budget 4 --batch 8 --search paper": 2,
        f"{COMPILE} --budget 4 --ray local --shard 1/2 --out none": 2,
        "compile none.toml": 2,
        "compile garbage": 2,
    },
    "transfer": {
        "transfer none --to wan2.1-nano": 10,
        "transfer policy.budc.json --to wan2.1-nano": 23,
        "transfer unsigned.budc.json --to wan2.1-nano": 21,
        f"{TRANSFER} --to nope": 2,
        f"{TRANSFER} --trust none": 26,
        f"{TRANSFER} --trust garbage": 26,
        f"{TRANSFER} --frozen --nearby": 2,
        f"{TRANSFER} --seed x": 2,
        f"{TRANSFER} --name a/b": 2,
        f"{TRANSFER} --calibration none": 2,
        f"{TRANSFER} --frames 8": 34,
        f"{TRANSFER} --key none": 26,
        f"{TRANSFER} --weights none": 31,
        f"{TRANSFER} --out none/x.budc.json": 61,
        f"{TRANSFER} --to flux-nano": 34,
    },
    "plan": {
        "plan --model wan2.1-nano": 2,
        f"{PLAN} --model nope": 2,
        f"{PLAN} --search nope": 2,
        f"{PLAN} --search uniform --align": 2,
        f"{PLAN} --steps 0": 2,
        f"{PLAN} --device abacus": 2,
        f"{PLAN} --device h100 --weights model": 2,
        f"{PLAN} --budget 51": 51,
        f"{PLAN} --weights model": 2,
        f"{PLAN} --weights none --time": 31,
    },
    "run": {
        "run nano.budc.json --out x.png": 2,
        f"{RUN} --prompt ": 2,
        f"{RUN} --out x.tiff": 2,
        f"{RUN} --runtime nope": 2,
        f"{RUN} --provider cpu": 2,
        f"{RUN} --seed -1": 2,
        f"{RUN} --out none/x.png": 61,
        f"{RUN} --trust none": 26,
        f"{RUN} --trust garbage": 26,
        f"{RUN} --trust trust.toml --trust trust.toml": 2,
        f"{RUN} --weights none": 31,
        f"{RUN} --weights model": 31,
        "run none --trust release.pub --prompt x --out x.png": 10,
        "run nano.budc.json --prompt x --out x.png": 23,
        "run unsigned.budc.json --prompt x --out x.png": 21,
        "run policy.budc.json --trust release.pub --prompt x --out x.png": 31,
    },
    "run --runtime onnxruntime": {
        f"{ONNX}": 2,
        f"{ONNX} --compare": 2,
        f"{ONNX} --provider tpu": 2,
        f"{ONNX} --out x.tiff": 2,
        f"{ONNX} --out none/x.png": 61,
        f"{ONNX} --trust none": 26,
        f"{ONNX} --weights none": 31,
    },
    "bind": {
        "bind policy.budc.json --variant none": 2,
        "bind none --variant none --key release.key": 10,
        f"{BIND}": 31,
        f"{BIND} --key none": 26,
        f"{BIND} --public none": 26,
        f"{BIND} --trust none": 26,
        f"{BIND} --samples 0": 2,
        f"{BIND} --revision 1": 2,
        f"{BIND} --out none/x.budc.json": 61,
    },
    "export": {
        "export onnx --model wan2.1-nano": 2,
        f"{EXPORT} --model nope": 2,
        f"{EXPORT} --dtype int4": 2,
        f"{EXPORT} --weights none": 31,
        f"{EXPORT} --out model": 61,
        f"{EXPORT} --out none/new": 61,
    },
    "verify": {
        "verify none": 10,
        "verify garbage": 12,
        f"{VERIFY} --trust none": 26,
        f"{VERIFY} --trust garbage": 26,
        f"{VERIFY} --replay": 2,
        f"{VERIFY} --samples 2": 2,
        f"{VERIFY} --replay --weights model --tolerance 0": 2,
        f"{VERIFY} --replay --weights model --tolerance 0.9": 2,
        f"{VERIFY} --weights none": 31,
    },
    "sign": {
        "sign policy.budc.json": 2,
        "sign none --key release.key": 10,
        "sign policy.budc.json --key none": 26,
        "sign policy.budc.json --key env:NONE": 26,
        "sign unsigned.budc.json --key release.key --out none/x.budc.json": 61,
    },
    "attach": {"attach policy.budc.json": 2, "attach none model": 10, "attach policy.budc.json none": 31},
    "push": {
        "push --out hub": 2,
        "push none --out hub": 10,
        "push nano.budc.json --out hub": 2,
        "push nano.budc.json --base-model someone/model --out garbage/hub": 61,
    },
    "keygen": {"keygen --out none/release": 61, "keygen --out release": 61, "keygen --size 4096": 2},
    "trust": {
        "trust add none": 26,
        "trust add garbage": 26,
        "trust remove nobody": 2,
        "trust deny nothing": 2,
        "trust require --threshold 0": 2,
        "trust require --minimum-revision x": 2,
    },
    "models": {"models --nope": 2, "models extra": 2},
    "inspect": {"inspect none": 10, "inspect garbage": 12},
}


@pytest.fixture
def here(tmp_path, make_document, signer, key_pair, model_folder) -> Path:
    """A folder with policies, keys, a model without tensors, and a file that is none of them."""
    document = make_document()
    model = msgspec.structs.replace(document.model, profile="wan2.1-nano", pipeline_class="WanPipeline")
    (tmp_path / "policy.budc.json").write_bytes(seal(document, signer))
    (tmp_path / "nano.budc.json").write_bytes(seal(make_document(model=model), signer))
    (tmp_path / "unsigned.budc.json").write_bytes(seal(document, None))
    (tmp_path / "release.key").write_bytes(key_pair.private)
    (tmp_path / "release.pub").write_bytes(key_pair.public)
    (tmp_path / "trust.toml").write_text('keys = ["release.pub"]\n')
    (tmp_path / "garbage").write_text("= no format at all\n")
    return tmp_path


@pytest.mark.parametrize("command", REFUSALS)
def test_a_refusal_imports_no_library_of_models(here, command):
    calls = [text.split(" ") for text in REFUSALS[command]]
    done = subprocess.run(
        [sys.executable, "-c", CALLS],
        input=json.dumps(calls),
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((here / "results.json").read_text())
    expected = [[call, code, []] for call, code in zip(calls, REFUSALS[command].values(), strict=True)]
    assert results == expected, done.stderr
    assert done.stderr.count("error: ") == len(calls)
